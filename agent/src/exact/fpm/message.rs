//! One message of a scheduler.

use serde::Deserialize;

use super::zmtp::Message;
use crate::exact::{batch::PassGauges, record::micros};

/// The version of `ForwardPassMetrics` that is spoken.
const VERSION: u64 = 1;
/// Nesting of a payload: a map of maps.
const MAX_DEPTH: usize = 8;
/// The longest name of a worker.
const MAX_WORKER_BYTES: usize = 128;
/// The longest pass that is believed.
const LONGEST_PASS_US: u64 = 3_600_000_000;

/// Why a message is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    /// It has no payload, or that is not of the expected shape.
    #[error("a message is no forward-pass metrics")]
    Shape,
    /// It is of another version.
    #[error("forward-pass metrics have version {0}, {VERSION} is spoken")]
    Version(u64),
    /// Its values can't be true.
    #[error("a forward pass has values that can't be true")]
    Impossible,
}

/// One forward pass, or a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardPass {
    /// Who ran it.
    pub(super) rank: Rank,
    /// The number of the message among its rank's; a gap is a loss.
    pub(super) counter: Option<u64>,
    /// Its wall time, microseconds.
    pub(super) wall_us: u64,
    /// What it did.
    pub(super) work: Work,
    /// What waited meanwhile.
    pub(super) queue: PassGauges,
}

/// A data-parallel rank of a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The worker; empty where it is not named.
    pub(super) worker: Box<str>,
    /// The rank.
    pub(super) dp_rank: u32,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Prompts only.
    Prefill,
    /// Generation only.
    Decode,
    /// Both.
    Mixed,
    /// Nothing: a heartbeat, or a dummy pass that keeps step with other ranks.
    Nothing,
}

#[derive(Debug, Deserialize)]
struct Payload {
    version: Option<u64>,
    #[serde(default)]
    worker_id: String,
    #[serde(default)]
    dp_rank: u32,
    counter_id: Option<u64>,
    wall_time: f64,
    scheduled_requests: Scheduled,
    queued_requests: Queued,
}

#[derive(Debug, Deserialize)]
struct Scheduled {
    num_prefill_requests: u64,
    num_decode_requests: u64,
}

#[derive(Debug, Deserialize)]
struct Queued {
    num_prefill_requests: u64,
    sum_prefill_tokens: u64,
    num_decode_requests: u64,
}

impl ForwardPass {
    /// Reads `topic, 8-byte sequence number, MessagePack map`.
    pub(super) fn read(message: &Message) -> Result<Self, MessageError> {
        let payload = message.last().ok_or(MessageError::Shape)?;
        let mut decoder = rmp_serde::Deserializer::from_read_ref(payload);
        decoder.set_max_depth(MAX_DEPTH);
        let payload = Payload::deserialize(&mut decoder).map_err(|_| MessageError::Shape)?;
        if let Some(version) = payload.version.filter(|version| *version != VERSION) {
            return Err(MessageError::Version(version));
        }
        let wall_us = micros(payload.wall_time).filter(|us| *us <= LONGEST_PASS_US);
        let wall_us = wall_us.ok_or(MessageError::Impossible)?;
        if payload.worker_id.len() > MAX_WORKER_BYTES {
            return Err(MessageError::Impossible);
        }
        let scheduled = payload.scheduled_requests;
        let work = match (scheduled.num_prefill_requests > 0, scheduled.num_decode_requests > 0) {
            (true, true) => Work::Mixed,
            (true, false) => Work::Prefill,
            (false, true) => Work::Decode,
            (false, false) => Work::Nothing,
        };
        let queued = payload.queued_requests;
        Ok(Self {
            rank: Rank { worker: payload.worker_id.into_boxed_str(), dp_rank: payload.dp_rank },
            // Older SGLang counts in the frame before the payload only.
            counter: payload.counter_id.or_else(|| sequence(message)),
            wall_us,
            work,
            queue: PassGauges {
                ranks: 1,
                queued_prefill_requests: queued.num_prefill_requests,
                queued_prefill_tokens: queued.sum_prefill_tokens,
                queued_decode_requests: queued.num_decode_requests,
            },
        })
    }
}

fn sequence(message: &Message) -> Option<u64> {
    let [_, number, _] = message.as_slice() else { return None };
    Some(u64::from_be_bytes(number.as_slice().try_into().ok()?))
}
