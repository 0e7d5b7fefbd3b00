//! `[[timeline]]`: what happens, and when.

use serde::Deserialize;

use crate::control::Command;

/// One entry: commands, with `at_s` or `after`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimelineEntry {
    /// Seconds since the scenario began.
    pub at_s: Option<f64>,
    /// Or: once a call has been made so often.
    pub after: Option<AfterCalls>,
    /// What then happens, in this order.
    #[serde(rename = "do")]
    pub commands: Vec<Command>,
}

/// `after` of a `[[timeline]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterCalls {
    /// Name of the C function.
    pub call: String,
    /// How often it must have been called, about any GPU, by this process; that call itself still sees the change.
    pub count: u64,
}
