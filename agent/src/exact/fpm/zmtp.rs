//! ZMTP 3.0 with the NULL mechanism, as far as a subscriber needs it (<https://rfc.zeromq.org/spec/23/>). Pure: bytes
//! in, messages out.

/// What we say first: signature, version 3.0, mechanism NULL, not a server.
pub(super) const GREETING: [u8; GREETING_BYTES] = {
    let mut greeting = [0; GREETING_BYTES];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12] = b'N';
    greeting[13] = b'U';
    greeting[14] = b'L';
    greeting[15] = b'L';
    greeting
};
/// Then: READY, with our kind of socket.
pub(super) const READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB";
/// At last: a subscription to everything.
pub(super) const SUBSCRIBE_ALL: &[u8] = b"\x00\x01\x01";

const GREETING_BYTES: usize = 64;
/// The largest message that is taken, over all of its parts. A forward pass takes some hundred bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The most parts of a message; a forward pass has three.
const MAX_PARTS: usize = 8;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a peer is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ZmtpError {
    /// The greeting is none.
    #[error("the peer is no ZeroMQ socket")]
    Greeting,
    /// It speaks an older protocol.
    #[error("the peer speaks ZMTP {0}, 3 is needed")]
    Version(u8),
    /// It wants to authenticate or encrypt.
    #[error("the peer wants a security mechanism; only NULL is spoken")]
    Mechanism,
    /// The first command is not READY, or it is broken.
    #[error("the peer's handshake is broken")]
    Handshake,
    /// It refuses us.
    #[error("the peer refused the connection")]
    Refused,
    /// It does not publish.
    #[error("the peer is no publisher (PUB or XPUB)")]
    NoPublisher,
    /// A frame has bits that mean nothing.
    #[error("the peer sent a frame with flags {0:#04x}")]
    Flags(u8),
    /// A message is too large.
    #[error(
        "the peer sent a message larger than {MAX_MESSAGE_BYTES} bytes or of more than {MAX_PARTS} parts"
    )]
    TooLarge,
}

/// A message's parts.
pub(super) type Message = Vec<Vec<u8>>;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The peer is a publisher and ready.
    Ready,
    /// A message.
    Message(Message),
}

/// Takes bytes as they come and hands out messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    stage: Stage,
    /// Bytes that are not taken apart yet: less than a frame.
    buffer: Vec<u8>,
    parts: Message,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Greeting,
    Handshake,
    Traffic,
}

impl Decoder {
    /// Takes bytes. They are looked at by [`Self::next`], which is to be called until there is nothing more.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing that came whole.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, ZmtpError> {
        if self.stage == Stage::Greeting {
            let Some(greeting) = self.buffer.first_chunk::<GREETING_BYTES>() else {
                return self.buffer.first().map_or(Ok(None), |first| {
                    if *first == 0xff { Ok(None) } else { Err(ZmtpError::Greeting) }
                });
            };
            check_greeting(greeting)?;
            self.buffer.drain(..GREETING_BYTES);
            self.stage = Stage::Handshake;
        }
        while let Some(head) = self.head()? {
            let Some(body) = self.buffer.get(head.at..head.at + head.length) else { return Ok(None) };
            let body = body.to_vec();
            self.buffer.drain(..head.at + head.length);
            if let Some(incoming) = self.frame(head.flags, body)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// The head of the frame that the buffer begins with, once it is there. Its length is checked before anything is
    /// allocated on its word.
    fn head(&self) -> Result<Option<Head>, ZmtpError> {
        let Some(flags) = self.buffer.first().copied() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & COMMAND != 0 && flags & MORE != 0 {
            return Err(ZmtpError::Flags(flags));
        }
        let (at, length) = if flags & LONG == 0 {
            let Some(length) = self.buffer.get(1) else { return Ok(None) };
            (2, u64::from(*length))
        } else {
            let Some(length) = self.buffer.get(1..9).and_then(|bytes| bytes.first_chunk()) else {
                return Ok(None);
            };
            (9, u64::from_be_bytes(*length))
        };
        let held: usize = self.parts.iter().map(Vec::len).sum();
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE_BYTES - held);
        let length = length.ok_or(ZmtpError::TooLarge)?;
        Ok(Some(Head { flags, at, length }))
    }

    fn frame(&mut self, flags: u8, body: Vec<u8>) -> Result<Option<Incoming>, ZmtpError> {
        if self.stage == Stage::Handshake {
            if flags & COMMAND == 0 {
                return Err(ZmtpError::Handshake);
            }
            check_ready(&body)?;
            self.stage = Stage::Traffic;
            return Ok(Some(Incoming::Ready));
        }
        if flags & COMMAND != 0 {
            // We announced 3.0, which has none after the handshake; what a newer peer says is not for us.
            return Ok(None);
        }
        if self.parts.len() == MAX_PARTS {
            return Err(ZmtpError::TooLarge);
        }
        self.parts.push(body);
        Ok((flags & MORE == 0).then(|| Incoming::Message(std::mem::take(&mut self.parts))))
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    flags: u8,
    /// Where the body begins.
    at: usize,
    length: usize,
}

fn check_greeting(greeting: &[u8; GREETING_BYTES]) -> Result<(), ZmtpError> {
    if greeting[0] != 0xff || greeting[9] & 1 == 0 {
        return Err(ZmtpError::Greeting);
    }
    if greeting[10] < 3 {
        return Err(ZmtpError::Version(greeting[10]));
    }
    if greeting[12..32] != GREETING[12..32] {
        return Err(ZmtpError::Mechanism);
    }
    Ok(())
}

/// `length name, then properties of length name, 4-byte length value`.
fn check_ready(body: &[u8]) -> Result<(), ZmtpError> {
    if body.starts_with(b"\x05ERROR") {
        return Err(ZmtpError::Refused);
    }
    let mut rest = body.strip_prefix(b"\x05READY").ok_or(ZmtpError::Handshake)?;
    while !rest.is_empty() {
        let (name, value) = property(&mut rest).ok_or(ZmtpError::Handshake)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return if matches!(value, b"PUB" | b"XPUB") { Ok(()) } else { Err(ZmtpError::NoPublisher) };
        }
    }
    Err(ZmtpError::NoPublisher)
}

fn property<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (name_length, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(*name_length))?;
    let (value_length, after) = after.split_first_chunk::<4>()?;
    let (value, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*value_length)).ok()?)?;
    *rest = after;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER_READY: &[u8] =
        b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB\x08Identity\x00\x00\x00\x00";

    fn decode(bytes: &[u8]) -> Result<Vec<Incoming>, ZmtpError> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        all(&mut decoder)
    }

    fn all(decoder: &mut Decoder) -> Result<Vec<Incoming>, ZmtpError> {
        let mut came = Vec::new();
        while let Some(incoming) = decoder.next()? {
            came.push(incoming);
        }
        Ok(came)
    }

    fn stream(messages: &[Message]) -> Vec<u8> {
        let mut bytes = [&GREETING[..], PEER_READY].concat();
        for parts in messages {
            for (i, part) in parts.iter().enumerate() {
                let more = u8::from(i + 1 < parts.len());
                match u8::try_from(part.len()) {
                    Ok(length) => bytes.extend([more, length]),
                    Err(_) => {
                        bytes.push(more | LONG);
                        bytes.extend((part.len() as u64).to_be_bytes());
                    }
                }
                bytes.extend(part);
            }
        }
        bytes
    }

    #[test]
    fn what_we_say_is_well_formed() {
        assert_eq!(check_greeting(&GREETING), Ok(()));
        assert_eq!(usize::from(READY[1]), READY.len() - 2);
        let mut properties = READY.strip_prefix(b"\x04\x19\x05READY").unwrap();
        assert_eq!(property(&mut properties), Some((&b"Socket-Type"[..], &b"SUB"[..])));
        assert!(properties.is_empty());
    }

    #[test]
    fn peers_that_do_not_fit_are_told_why() {
        let greeting = |at: usize, byte: u8| {
            let mut bytes = [&GREETING[..], PEER_READY].concat();
            bytes[at] = byte;
            decode(&bytes)
        };
        assert_eq!(greeting(0, b'H'), Err(ZmtpError::Greeting));
        assert_eq!(greeting(9, 0), Err(ZmtpError::Greeting));
        assert_eq!(greeting(10, 2), Err(ZmtpError::Version(2)));
        assert_eq!(greeting(12, b'C'), Err(ZmtpError::Mechanism));
        assert_eq!(decode(b"HTTP/1.1 400"), Err(ZmtpError::Greeting), "told before a whole greeting came");
        let handshake = |frame: &[u8]| decode(&[&GREETING[..], frame].concat());
        assert_eq!(handshake(b"\x00\x01\x01"), Err(ZmtpError::Handshake));
        assert_eq!(handshake(b"\x04\x09\x05ERROR\x02no"), Err(ZmtpError::Refused));
        assert_eq!(handshake(b"\x04\x06\x05READY"), Err(ZmtpError::NoPublisher));
        assert_eq!(handshake(READY), Err(ZmtpError::NoPublisher), "a subscriber does not publish");
        assert_eq!(handshake(b"\x04\x08\x05READY\x0bS"), Err(ZmtpError::Handshake));
        assert_eq!(handshake(b"\x08\x00"), Err(ZmtpError::Flags(8)));
    }

    #[test]
    fn announced_lengths_are_not_believed() {
        let frame = |length: u64| [&stream(&[])[..], &[LONG], &length.to_be_bytes()].concat();
        for length in [MAX_MESSAGE_BYTES as u64 + 1, u64::MAX, i64::MAX as u64] {
            assert_eq!(decode(&frame(length)), Err(ZmtpError::TooLarge));
        }
        let parts = vec![vec![0; 40_000]; 2];
        assert_eq!(decode(&stream(&[parts])), Err(ZmtpError::TooLarge));
        assert_eq!(decode(&stream(&[vec![vec![]; MAX_PARTS + 1]])), Err(ZmtpError::TooLarge));
    }

    proptest! {
        /// Invariant: however the bytes are cut, the same messages come out.
        #[test]
        fn any_cut_gives_the_same_messages(
            messages in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4), 0..8),
            cuts in prop::collection::vec(1usize..200, 1..20),
        ) {
            let bytes = stream(&messages);
            let (mut decoder, mut came, mut at, mut cuts) = (Decoder::default(), Vec::new(), 0, cuts.iter().cycle());
            while at < bytes.len() {
                let to = bytes.len().min(at + cuts.next().unwrap());
                decoder.push(&bytes[at..to]);
                came.extend(all(&mut decoder).unwrap());
                at = to;
            }
            let want: Vec<_> = std::iter::once(Incoming::Ready).chain(messages.into_iter().map(Incoming::Message)).collect();
            prop_assert_eq!(came, want);
            prop_assert!(decoder.buffer.is_empty());
        }

        /// Invariant: no bytes make it panic, or hold more than a message and what was pushed.
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), greeted in any::<bool>()) {
            let mut decoder = Decoder::default();
            if greeted {
                decoder.push(&stream(&[]));
            }
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
            prop_assert!(decoder.parts.iter().map(Vec::len).sum::<usize>() <= MAX_MESSAGE_BYTES);
        }
    }
}
