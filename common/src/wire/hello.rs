//! The messages on the control stream: who is there, what was applied, what is asked for.

use serde::{Deserialize, Serialize};

use crate::ids::{AgentEpoch, BootId, NodeName, Seq};

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
}

/// Planner → agent: every window of this epoch up to `seq` was applied. Sent in answer to the hello (where to go on)
/// and after reports. What is acked need not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The agent epoch whose windows are counted.
    #[serde(rename = "e")]
    pub epoch: AgentEpoch,
    /// The highest window up to which all were applied; 0 where none was.
    #[serde(rename = "q")]
    pub seq: Seq,
}

/// Planner → agent: what the planner would like. An agent follows within its own budgets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Milliseconds between reports; absent: the agent's own setting.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub report_interval_ms: Option<u64>,
}
