//! A request on its way through the driver.

use serde::Serialize;
use tokio::sync::watch;

/// A request as the API hands it over.
#[derive(Debug)]
pub(crate) struct Job {
    /// The request's id, as the client is told.
    pub(crate) name: String,
    pub(crate) prompt_tokens: u32,
    /// Block hashes of the prompt; empty without prefix caching.
    pub(crate) chain: Vec<u64>,
    /// What the client allows.
    pub(crate) max_tokens: u32,
    /// What the emulated model will say.
    pub(crate) output_tokens: u32,
    /// Whether the client reads tokens as they come.
    pub(crate) streaming: bool,
    /// A health probe, which no client sent.
    pub(crate) probe: bool,
}

impl Job {
    /// Why it will end when it has said all.
    pub(crate) const fn ends_by(&self) -> FinishReason {
        if self.output_tokens < self.max_tokens { FinishReason::Stop } else { FinishReason::Length }
    }
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    Stop,
    Length,
    Abort,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) tokens: u32,
    /// Prompt tokens that the prefix cache held; known with the first token.
    pub(crate) cached_tokens: u32,
    pub(crate) finished: Option<FinishReason>,
}

/// A request in the engine. Dropping the ticket aborts it; tokens that nobody has fetched yet merge into one delivery,
/// so a slow client holds nothing up.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) progress: watch::Receiver<Progress>,
}

/// Why the engine did not take a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Now or ever, by the engine's own rules.
    #[error(transparent)]
    Rejected(#[from] plimsoll_engine::Rejected),
    /// More requests came at once than the driver could take up.
    #[error("too many requests at once: try again later")]
    Busy,
    /// The engine is going or gone.
    #[error("the engine is shutting down: try another replica")]
    Stopped,
}
