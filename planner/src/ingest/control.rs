//! The control stream: frames with their length in front.

use std::{sync::Arc, time::Duration};

use plimsoll_common::wire::{Ack, Message, Request, WireError};
use quinn::{ReadError, RecvStream, SendStream};
use tokio::time::timeout;

use super::Shared;

/// An agent that does not take an acknowledgement for this long is not listening.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest frame that is read off the control stream: a hello with the longest token, twice over. It is kept for as long as
/// it takes to arrive.
pub(super) const MAX_CONTROL_FRAME_BYTES: usize = 32 * 1024;

/// The agent's side of the control stream.
#[derive(Debug)]
pub(super) struct ControlReader {
    stream: RecvStream,
    buffer: Vec<u8>,
    ended: bool,
}

/// What came next on the control stream.
#[derive(Debug)]
pub(super) enum Next {
    /// A frame, without its length.
    Frame(Vec<u8>),
    /// The agent ended its side.
    End,
    /// A frame announced itself as longer than [`MAX_CONTROL_FRAME_BYTES`].
    TooLong,
    /// The connection or stream broke.
    Broken(ReadError),
}

impl ControlReader {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new(), ended: false }
    }

    /// Waits for the next frame. Dropping the future midway loses nothing. After the end it waits forever.
    pub(super) async fn next(&mut self) -> Next {
        if self.ended {
            std::future::pending::<()>().await;
        }
        loop {
            match take(&mut self.buffer) {
                Ok(Some(frame)) => return Next::Frame(frame),
                Ok(None) => (),
                Err(WireError::FrameTooLong) => return Next::TooLong,
                Err(_) => return Next::End,
            }
            match self.stream.read_chunk(MAX_CONTROL_FRAME_BYTES, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    self.ended = true;
                    return Next::End;
                }
                Err(error) => return Next::Broken(error),
            }
        }
    }
}

/// Takes a whole frame off the front of the buffer.
fn take(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, WireError> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_CONTROL_FRAME_BYTES {
        return Err(WireError::FrameTooLong);
    }
    let Some(frame) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
    buffer.drain(..4 + length);
    Ok(Some(frame))
}

/// The planner's side of the control stream.
#[derive(Debug)]
pub(super) struct ControlWriter {
    stream: SendStream,
    shared: Arc<Shared>,
}

impl ControlWriter {
    pub(super) const fn new(stream: SendStream, shared: Arc<Shared>) -> Self {
        Self { stream, shared }
    }

    /// Sends an acknowledgement; whether the agent takes it.
    pub(super) async fn ack(&mut self, ack: Ack) -> bool {
        self.send(&Message::Ack(ack)).await
    }

    /// Sends a request; whether the agent takes it.
    pub(super) async fn request(&mut self, request: Request) -> bool {
        self.send(&Message::Request(request)).await
    }

    async fn send(&mut self, message: &Message) -> bool {
        let Ok(frame) = self.shared.encode(message) else { return false };
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        matches!(timeout(WRITE_TIMEOUT, self.stream.write_all(&bytes)).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let mut buffer = vec![0, 0, 0, 2, 7];
        assert_eq!(take(&mut buffer), Ok(None));
        buffer.extend([8, 0, 0]);
        assert_eq!(take(&mut buffer), Ok(Some(vec![7, 8])));
        assert_eq!(buffer, [0, 0]);
        assert_eq!(take(&mut vec![0xff; 9]), Err(WireError::FrameTooLong));
    }
}
