//! Requests that the engine holds, and what it does not know of them.

use std::collections::BTreeMap;

use plimsoll_engine::{Micros, RequestId, Step};
use tokio::sync::watch;

use crate::job::{FinishReason, Job, Progress};

/// All requests that the engine holds.
pub(crate) type Requests = BTreeMap<RequestId, Live>;

/// One of them.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) name: String,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_tokens: u32,
    /// Why it will end when it has said all.
    pub(crate) reason: FinishReason,
    pub(crate) streaming: bool,
    /// A health probe, which no client sent.
    pub(crate) probe: bool,
    /// When it left the queue for the first time.
    pub(crate) admitted: bool,
    /// Arrival to first scheduling; zero until then.
    pub(crate) queue_time: Micros,
    /// Tokens that came out of it.
    pub(crate) emitted: u32,
    /// Whether it lost its blocks and no token has come since.
    pub(crate) preempted: bool,
    /// Arrival to its latest token.
    pub(crate) elapsed: Micros,
    /// The number of the iteration that computed it first.
    pub(crate) first_iteration: u64,
    /// What the front process has heard of: SGLang's scheduler keeps back some tokens of answers that nobody streams.
    pub(crate) heard: Heard,
    /// Kept only for the request log.
    pub(crate) itl: Vec<Micros>,
}

/// Tokens that reached the front process, when after the arrival the first and the latest delivery did, and how many
/// tokens are kept back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) tokens: u32,
    pub(crate) first: Micros,
    pub(crate) latest: Micros,
    pub(crate) kept: u32,
}

impl Live {
    pub(crate) fn new(job: Job, progress: watch::Sender<Progress>) -> Self {
        Self {
            reason: job.ends_by(),
            name: job.name,
            progress,
            prompt_tokens: job.prompt_tokens,
            max_tokens: job.max_tokens,
            streaming: job.streaming,
            probe: job.probe,
            admitted: false,
            queue_time: Micros::ZERO,
            emitted: 0,
            preempted: false,
            elapsed: Micros::ZERO,
            first_iteration: 0,
            heard: Heard::default(),
            itl: Vec::new(),
        }
    }
}

/// Brings what is known of requests to the end of a step.
pub(crate) fn advance(live: &mut Requests, step: &Step<'_>, keep_itl: bool) {
    for admission in step.admitted {
        if let Some(live) = live.get_mut(&admission.id) {
            live.admitted = true;
            live.queue_time = admission.queue_time;
            live.first_iteration = step.totals.iterations;
        }
    }
    for preemption in step.preempted {
        if let Some(live) = live.get_mut(&preemption.id) {
            live.preempted = true;
        }
    }
    for token in step.tokens {
        if let Some(live) = live.get_mut(&token.id) {
            live.emitted = token.index;
            live.preempted = false;
            live.elapsed = live.elapsed.saturating_add(token.latency);
            if keep_itl && !token.is_first() {
                live.itl.push(token.latency);
            }
        }
    }
}
