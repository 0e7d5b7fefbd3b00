//! Frames: an 8-byte header, then a MessagePack message, compressed where that helps.
//!
//! ```text
//! byte 0    wire version (1)
//! byte 1    message kind
//! byte 2    encoding: 0 plain, 1 zstd
//! byte 3    0 (reserved; receivers ignore it)
//! byte 4-7  age of the content when it was sent, milliseconds, big endian
//! byte 8-   body
//! ```
//!
//! A report or inventory is one frame on a unidirectional stream of its own, ended by FIN. On the control stream each
//! frame is preceded by its length, 4 bytes, big endian.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zstd::bulk::{Compressor, Decompressor};

use super::{
    check::Limits,
    error::WireError,
    hello::{Ack, Gap, Hello, Request},
    inventory::Inventory,
    report::Report,
};

/// The version in byte 0.
pub const WIRE_VERSION: u8 = 1;
/// The header's length.
pub const HEADER_BYTES: usize = 8;
/// The longest frame, header included.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;
/// The longest message once decompressed.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// How deep maps and arrays may nest in a message; ours nest 4 deep.
pub const MAX_NESTING: usize = 16;

/// Bodies below this are sent plain: zstd's own header would eat the gain.
const COMPRESS_FROM_BYTES: usize = 160;
const ENCODING_PLAIN: u8 = 0;
const ENCODING_ZSTD: u8 = 1;

/// The kinds of messages, as their codes in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum MessageKind {
    /// [`Hello`].
    Hello = 1,
    /// [`Inventory`].
    Inventory = 2,
    /// [`Report`].
    Report = 3,
    /// [`Ack`].
    Ack = 4,
    /// [`Request`].
    Request = 5,
    /// [`Gap`].
    Gap = 6,
}

/// Any message of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Agent → planner: who I am.
    Hello(Hello),
    /// Agent → planner: what stands here.
    Inventory(Box<Inventory>),
    /// Agent → planner: what happened.
    Report(Box<Report>),
    /// Planner → agent: what was applied.
    Ack(Ack),
    /// Planner → agent: what I would like.
    Request(Request),
    /// Agent → planner: what will never come.
    Gap(Gap),
}

impl Message {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Hello(_) => MessageKind::Hello,
            Self::Inventory(_) => MessageKind::Inventory,
            Self::Report(_) => MessageKind::Report,
            Self::Ack(_) => MessageKind::Ack,
            Self::Request(_) => MessageKind::Request,
            Self::Gap(_) => MessageKind::Gap,
        }
    }
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// How old the content was when it was sent, milliseconds on the sender's monotonic clock.
    pub age_ms: u32,
    /// The message.
    pub message: Message,
}

/// Encodes messages. Keeps zstd's state between frames; one a task is enough.
pub struct FrameEncoder {
    compressor: Compressor<'static>,
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameEncoder").finish_non_exhaustive()
    }
}

impl FrameEncoder {
    /// An encoder at zstd level 1.
    ///
    /// # Errors
    /// When zstd's state can't be allocated.
    pub fn new() -> Result<Self, WireError> {
        let compressor = Compressor::new(1).map_err(|error| WireError::Encode(error.to_string()))?;
        Ok(Self { compressor })
    }

    /// Encodes a message into a frame.
    ///
    /// # Errors
    /// When the message breaks the protocol's limits: it would be refused by the other side.
    pub fn encode(&mut self, message: &Message, age_ms: u32) -> Result<Vec<u8>, WireError> {
        let body = match message {
            Message::Hello(hello) => pack(hello),
            Message::Inventory(inventory) => pack(inventory),
            Message::Report(report) => pack(report),
            Message::Ack(ack) => pack(ack),
            Message::Request(request) => pack(request),
            Message::Gap(gap) => pack(gap),
        }?;
        if body.len() > MAX_MESSAGE_BYTES {
            return Err(WireError::Encode(format!(
                "a message of {} bytes, at most {MAX_MESSAGE_BYTES}",
                body.len()
            )));
        }
        let packed = (body.len() >= COMPRESS_FROM_BYTES)
            .then(|| self.compressor.compress(&body))
            .transpose()
            .map_err(|error| WireError::Encode(error.to_string()))?
            .filter(|packed| packed.len() < body.len());
        let (encoding, body) = packed.map_or((ENCODING_PLAIN, body), |packed| (ENCODING_ZSTD, packed));
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend([WIRE_VERSION, message.kind() as u8, encoding, 0]);
        frame.extend(age_ms.to_be_bytes());
        frame.extend(body);
        if frame.len() > MAX_FRAME_BYTES {
            return Err(WireError::FrameTooLong);
        }
        Ok(frame)
    }

    /// Rewrites the age in an encoded frame, so that a kept frame can be sent again without encoding it anew.
    pub fn set_age(frame: &mut [u8], age_ms: u32) {
        if let Some(age) = frame.get_mut(4..HEADER_BYTES) {
            age.copy_from_slice(&age_ms.to_be_bytes());
        }
    }
}

/// Decodes frames with bounded memory: one scratch buffer of [`MAX_MESSAGE_BYTES`], whatever a frame claims.
pub struct FrameDecoder {
    decompressor: Decompressor<'static>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder").finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// A decoder.
    ///
    /// # Errors
    /// When zstd's state can't be allocated.
    pub fn new() -> Result<Self, WireError> {
        let decompressor = Decompressor::new().map_err(|error| WireError::Malformed(error.to_string()))?;
        Ok(Self { decompressor, scratch: Vec::new() })
    }

    /// Decodes one whole frame and checks it against the protocol's limits.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes, as a [`WireError`]; nothing panics and nothing is allocated on the word of
    /// the sender. After [`WireError::UnknownKind`] the connection may go on.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Frame, WireError> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(WireError::FrameTooLong);
        }
        let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
            return Err(frame
                .first()
                .filter(|v| **v != WIRE_VERSION)
                .map_or(WireError::Truncated(frame.len()), |v| WireError::Version(*v)));
        };
        let [version, kind, encoding, _, age @ ..] = *header;
        if version != WIRE_VERSION {
            return Err(WireError::Version(version));
        }
        let kind = kind_of(kind)?;
        let body = match encoding {
            ENCODING_PLAIN => body,
            ENCODING_ZSTD => self.decompress(body)?,
            other => return Err(WireError::UnknownEncoding(other)),
        };
        Ok(Frame { age_ms: u32::from_be_bytes(age), message: unpack(kind, body)? })
    }

    fn decompress(&mut self, body: &[u8]) -> Result<&[u8], WireError> {
        self.scratch.clear();
        self.scratch.reserve_exact(MAX_MESSAGE_BYTES);
        self.decompressor.decompress_to_buffer(body, &mut self.scratch).map_err(|_| WireError::Decompress)?;
        Ok(&self.scratch)
    }
}

const fn kind_of(code: u8) -> Result<MessageKind, WireError> {
    match code {
        1 => Ok(MessageKind::Hello),
        2 => Ok(MessageKind::Inventory),
        3 => Ok(MessageKind::Report),
        4 => Ok(MessageKind::Ack),
        5 => Ok(MessageKind::Request),
        6 => Ok(MessageKind::Gap),
        other => Err(WireError::UnknownKind(other)),
    }
}

fn unpack(kind: MessageKind, body: &[u8]) -> Result<Message, WireError> {
    Ok(match kind {
        MessageKind::Hello => {
            let hello: Hello = parse(body)?;
            hello.check()?;
            Message::Hello(hello)
        }
        MessageKind::Inventory => {
            let inventory: Box<Inventory> = parse(body)?;
            inventory.check()?;
            Message::Inventory(inventory)
        }
        MessageKind::Report => {
            let report: Box<Report> = parse(body)?;
            report.check()?;
            Message::Report(report)
        }
        MessageKind::Ack => Message::Ack(parse(body)?),
        MessageKind::Request => Message::Request(parse(body)?),
        MessageKind::Gap => {
            let gap: Gap = parse(body)?;
            gap.check()?;
            Message::Gap(gap)
        }
    })
}

fn pack<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    rmp_serde::to_vec_named(message).map_err(|error| WireError::Encode(error.to_string()))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    // From a slice, not from a reader: a reader would allocate whatever length a byte string claims.
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(MAX_NESTING);
    T::deserialize(&mut deserializer).map_err(|error| match error {
        rmp_serde::decode::Error::DepthLimitExceeded => WireError::TooDeep,
        other => WireError::Malformed(other.to_string()),
    })
}
