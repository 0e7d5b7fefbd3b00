//! What can be wrong with bytes from the other side.

use super::frame::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_NESTING, WIRE_VERSION};

/// Why a frame was refused. Every variant has a [`label`](Self::label) under which it is counted and a
/// [`CloseCode`] with which the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ended before its header or body did.
    #[error("the frame ends after {0} bytes, within its header")]
    Truncated(usize),
    /// The header names another wire version.
    #[error("the frame has wire version {0}, this build speaks {WIRE_VERSION}")]
    Version(u8),
    /// The header names a message that this build does not know. A newer peer may send one: skip and count.
    #[error("message kind {0} is unknown to this build")]
    UnknownKind(u8),
    /// The header names an encoding that this build does not know.
    #[error("frame encoding {0} is unknown to this build")]
    UnknownEncoding(u8),
    /// The frame is longer than [`MAX_FRAME_BYTES`].
    #[error("the frame is longer than {MAX_FRAME_BYTES} bytes")]
    FrameTooLong,
    /// The message would be longer than [`MAX_MESSAGE_BYTES`] once decompressed.
    #[error("the message is longer than {MAX_MESSAGE_BYTES} bytes once decompressed, or does not decompress")]
    Decompress,
    /// The message nests deeper than [`MAX_NESTING`].
    #[error("the message nests deeper than {MAX_NESTING} levels")]
    TooDeep,
    /// The message is no MessagePack of the expected shape.
    #[error("the message does not decode: {0}")]
    Malformed(String),
    /// The message decodes, but breaks a limit or a rule.
    #[error("the message is refused: {0}")]
    Refused(String),
    /// Our own message could not be encoded.
    #[error("the message does not encode: {0}")]
    Encode(String),
}

impl WireError {
    /// A short stable name, as a metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "truncated",
            Self::Version(_) => "version",
            Self::UnknownKind(_) => "unknown_kind",
            Self::UnknownEncoding(_) => "unknown_encoding",
            Self::FrameTooLong => "frame_too_long",
            Self::Decompress => "decompress",
            Self::TooDeep => "too_deep",
            Self::Malformed(_) => "malformed",
            Self::Refused(_) => "refused",
            Self::Encode(_) => "encode",
        }
    }

    /// All labels, so that counters can start at zero.
    pub const LABELS: &[&str] = &[
        "truncated",
        "version",
        "unknown_kind",
        "unknown_encoding",
        "frame_too_long",
        "decompress",
        "too_deep",
        "malformed",
        "refused",
        "encode",
    ];

    /// With which code the connection ends.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Version(_) => CloseCode::Version,
            Self::FrameTooLong | Self::Decompress => CloseCode::TooLarge,
            Self::Refused(_) => CloseCode::Refused,
            _ => CloseCode::Malformed,
        }
    }
}

/// QUIC application close codes of `plimsoll/1`. Codes are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Going away in order; come back.
    Done = 0,
    /// The wire version is not spoken here.
    Version = 1,
    /// A frame did not decode.
    Malformed = 2,
    /// A frame or message was over its size limit.
    TooLarge = 3,
    /// A message decoded but broke a limit.
    Refused = 4,
    /// A message came out of order, such as a report before the hello.
    Order = 5,
    /// The node connected anew; the older connection ends.
    Replaced = 6,
    /// More than this hub has room for; come back later.
    Busy = 7,
    /// The agent did not prove to be who it says it is.
    Unproven = 8,
    /// Another run of an agent took this node over and is connected.
    Duplicate = 9,
}

impl CloseCode {
    /// The code as QUIC carries it.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }
}
