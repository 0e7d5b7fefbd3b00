//! One look at everything: what the planner sees beside what happened.

use crate::{
    load::Tally,
    look::Compared,
    sight::{Advised, AgentStatus, Gpu, Model},
};

/// One look.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Since the load began, seconds.
    pub elapsed_seconds: f64,
    /// The requests of all models.
    pub load: Tally,
    /// In the planner's order.
    pub models: Vec<ModelLine>,
    /// What is advised for each pool.
    pub advice: Vec<Advised>,
    /// In the plan's order.
    pub nodes: Vec<NodeLine>,
    /// What stands below.
    pub notes: Vec<String>,
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelLine {
    /// What the planner shows now.
    pub now: Model,
    /// Its latencies over a window, as the planner saw them and as they were.
    pub latencies: Option<Compared>,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLine {
    /// Its name.
    pub node: String,
    /// Its GPUs, as the planner shows them.
    pub gpus: Vec<Gpu>,
    /// Frame bytes that its agent sent, per second since the last look.
    pub report_bytes_per_second: Option<f64>,
    /// Share of one core that its agent took since the last look.
    pub agent_cpu_ratio: Option<f64>,
    /// Resident memory of its agent.
    pub agent_resident_bytes: Option<f64>,
    /// `connected`, or why not.
    pub link: String,
}

impl NodeLine {
    /// A node's line, from its agent's status now and at the last look.
    #[must_use]
    pub fn new(node: &str, gpus: &[Gpu], now: &AgentStatus, before: Option<&AgentStatus>) -> Self {
        let gained = |value: fn(&AgentStatus) -> Option<f64>| {
            let before = before?;
            let seconds = now.uptime_seconds - before.uptime_seconds;
            (seconds > 0.0).then_some((value(now)? - value(before)?) / seconds)
        };
        Self {
            node: node.to_owned(),
            gpus: gpus.iter().filter(|gpu| gpu.node == node).cloned().collect(),
            report_bytes_per_second: gained(|status| Some(status.planner.as_ref()?.frame_bytes_sent)),
            agent_cpu_ratio: gained(|status| Some(status.cost.cpu_seconds)),
            agent_resident_bytes: now.cost.resident_memory_bytes,
            link: now
                .planner
                .as_ref()
                .map_or_else(|| "no planner".to_owned(), |planner| planner.state.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_the_time_between_two_looks() {
        let status = |uptime: f64, bytes: f64, cpu: f64| AgentStatus {
            uptime_seconds: uptime,
            cost: crate::sight::Cost { cpu_seconds: cpu, resident_memory_bytes: None },
            planner: Some(crate::sight::Uplink { state: "connected".to_owned(), frame_bytes_sent: bytes }),
        };
        let line = NodeLine::new("a", &[], &status(4.0, 3000.0, 0.03), Some(&status(2.0, 1000.0, 0.01)));
        assert_eq!(line.report_bytes_per_second, Some(1000.0));
        assert_eq!(line.agent_cpu_ratio.map(|ratio| (ratio * 1e6).round()), Some(10_000.0));
        let first = NodeLine::new("a", &[], &status(4.0, 3000.0, 0.03), None);
        assert_eq!(first.report_bytes_per_second, None);
    }
}
