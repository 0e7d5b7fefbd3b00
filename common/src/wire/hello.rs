//! The messages on the control stream: who is there, what was applied, what will never come, what is asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentEpoch, BootId, NodeName, PlannerRun, Seq};

/// The most windows that one [`Gap`] may name: four months of one a second.
pub const MAX_GAP_WINDOWS: u64 = 10_000_000;

/// Agent → planner, first on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The node the agent runs on.
    #[serde(rename = "n")]
    pub node: NodeName,
    /// Which boot of the node this is.
    #[serde(rename = "b")]
    pub boot: BootId,
    /// Which run of the agent this is.
    #[serde(rename = "e")]
    pub epoch: AgentEpoch,
    /// The agent's version, for people.
    #[serde(rename = "v")]
    pub version: String,
    /// The agent's wall clock when it sent this, in Unix milliseconds. Shown as skew, never used for decisions.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// The oldest window that the agent still has, or the next one where it has none: those before it will never come.
    /// Absent from agents that do not tell of gaps.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Seq>,
    /// What proves that the agent may speak for its node, where its certificate does not.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

/// A secret that is shown to a planner. It is never printed: its `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The longest token: a projected service-account token has 1 to 2 KB.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Takes a text as a token, without the white space around it; `None` where nothing is left, or too much.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.len() <= Self::MAX_BYTES).then(|| Self(text.to_owned()))
    }

    /// The secret, for those who check it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Planner → agent: every window of this epoch up to `seq` was applied, or given up after a [`Gap`]. Sent in answer to
/// the hello (where to go on) and after reports. What is acknowledged need not be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The agent epoch whose windows are counted.
    #[serde(rename = "e")]
    pub epoch: AgentEpoch,
    /// The highest window up to which all were applied; 0 where none was.
    #[serde(rename = "q")]
    pub seq: Seq,
    /// Which run of the planner this is: another run knows nothing of what this one applied. Absent from planners that
    /// do not tell.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub planner: Option<PlannerRun>,
}

/// Agent → planner: these windows of the hello's epoch will never come, because there was no room to keep them. Those of
/// them that were applied before stay applied; the others are lost, and the planner counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first of them.
    #[serde(rename = "f")]
    pub first: Seq,
    /// The last of them.
    #[serde(rename = "q")]
    pub last: Seq,
}

/// Planner → agent: what the planner would like. An agent follows within its own budgets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Milliseconds between reports; absent: the agent's own setting.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub report_interval_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::parse(" s3cret\n").unwrap();
        assert_eq!(token.as_bytes(), b"s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        assert_eq!(Token::parse(" \n"), None);
        assert_eq!(Token::parse(&"x".repeat(Token::MAX_BYTES + 1)), None);
    }
}
