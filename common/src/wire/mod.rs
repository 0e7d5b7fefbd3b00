//! The messages between agent and planner, and their frames. The protocol is described in `docs/protocol.md`.
//!
//! A message is a MessagePack map with keys of one or two bytes (arrays would refuse appended fields), samples in
//! packed [`Column`]s, zstd level 1 around it and an 8-byte header in front ([`FrameEncoder`], [`FrameDecoder`]).
//! Fields are only ever added; unknown ones are skipped, missing ones have a default. The version in ALPN and in the
//! header changes only where that is not enough.

mod check;
mod column;
mod error;
mod frame;
mod hello;
mod inventory;
mod merge;
mod report;
mod varint;

pub use check::{Limits, MAX_ENGINES, MAX_GPUS, MAX_LAYOUTS};
pub use column::{Column, ColumnItem};
pub use error::{CloseCode, WireError};
pub use frame::{
    Frame, FrameDecoder, FrameEncoder, HEADER_BYTES, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_NESTING,
    Message, MessageKind, WIRE_VERSION,
};
pub use hello::{Ack, Gap, Hello, MAX_GAP_WINDOWS, Request, Token};
pub use inventory::{DomainKind, DriverInfo, EngineInfo, GpuInfo, HostInfo, Inventory, NvLinkDomain};
pub use merge::{MergeError, merge};
pub use report::{
    AgentCost, EngineColumns, EngineState, GpuColumns, GpuState, HistogramColumns, HistogramEntry,
    HistogramHead, HistogramReader, Report, SourceState, StateEvidence,
};

/// The application protocol negotiated in TLS.
pub const ALPN: &[u8] = b"plimsoll/1";
