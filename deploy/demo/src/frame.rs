//! One look at everything: what the planner sees beside what happened.

use std::collections::VecDeque;

use crate::{
    exact::Record,
    load::Tally,
    sight::{AgentStatus, Gpu, Model, Models, Quantile},
};

/// How many looks at the planner are remembered, so that one can be found whose requests have all ended.
const HISTORY: usize = 90;

/// One look.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Since the load began, seconds.
    pub elapsed_seconds: f64,
    /// The requests of all models.
    pub load: Tally,
    /// In the planner's order.
    pub models: Vec<ModelLine>,
    /// In the plan's order.
    pub nodes: Vec<NodeLine>,
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelLine {
    /// What the planner shows now.
    pub now: Model,
    /// Its latencies over a window, as the planner saw them and as they were.
    pub latencies: Option<Compared>,
}

/// Latencies over one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// How long ago the window ended, seconds.
    pub ago_seconds: f64,
    /// How long it is, seconds.
    pub seconds: f64,
    /// Time to first token: p50, p95, p99.
    pub ttft: [Pair; 3],
    /// Inter-token latency.
    pub itl: [Pair; 3],
}

/// A percentile twice.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pair {
    /// As the planner sees it.
    pub planner: Option<Quantile>,
    /// As it was, seconds.
    pub exact: Option<f64>,
}

impl Pair {
    /// How far the planner's estimate is from the truth, as a share of it.
    #[must_use]
    pub fn error(&self) -> Option<f64> {
        let (planner, exact) = self.planner.zip(self.exact)?;
        (exact > 0.0).then(|| planner.estimate / exact - 1.0)
    }
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

/// What the planner showed over the last minutes.
#[derive(Debug, Default)]
pub struct History(VecDeque<Models>);

impl History {
    /// Remembers a look.
    pub fn push(&mut self, models: Models) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(models);
    }

    /// The newest look at a model whose window ended before `complete_until`, beside the truth. All times are seconds
    /// since 1970.
    #[must_use]
    pub fn compare(
        &self,
        model: &str,
        window: &str,
        record: &Record,
        complete_until: f64,
        now: f64,
    ) -> Option<Compared> {
        let looks = self.0.iter().rev().flat_map(|look| &look.models).filter(|seen| seen.model == model);
        let mut windows = looks.filter_map(|seen| seen.windows.get(window));
        let seen = windows.find(|window| window.span.to_unix_seconds < complete_until)?;
        let (from, to) = (seen.span.from_unix_seconds, seen.span.to_unix_seconds);
        let exact = record.percentiles(from, to);
        let pairs = |planner: [Option<Quantile>; 3], exact: [Option<f64>; 3]| {
            std::array::from_fn(|at| Pair { planner: planner[at], exact: exact[at] })
        };
        Some(Compared {
            ago_seconds: now - to,
            seconds: to - from,
            ttft: pairs(seen.quantiles("ttft"), exact.ttft),
            itl: pairs(seen.quantiles("itl_step"), exact.itl),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn look(to: f64) -> Models {
        let quantile = json!({ "estimate": to / 1000.0, "low": 0.0, "high": null });
        let page = json!({ "models": [{
            "model": "m", "engines_ready": 1, "running_requests": null, "waiting_requests": null,
            "kv_cache_utilization_ratio_max": null, "totals": { "counters": { "requests_arrived": null } },
            "windows": { "1m": {
                "window": { "seconds": 60.0, "from_unix_seconds": to - 60.0, "to_unix_seconds": to }, "rates": {},
                "distributions": { "ttft": { "count": 1, "p50_seconds": quantile } },
            } },
        }] });
        serde_json::from_value(page).unwrap()
    }

    #[test]
    fn the_newest_window_is_taken_whose_requests_have_all_ended() {
        let mut history = History::default();
        (100..110).for_each(|to| history.push(look(f64::from(to))));
        let record = Record::new(Vec::new());
        let compared = history.compare("m", "1m", &record, 105.5, 110.0).unwrap();
        assert_eq!(compared.ago_seconds.to_bits(), 5f64.to_bits());
        assert_eq!(compared.ttft[0].planner.map(|quantile| quantile.estimate), Some(0.105));
        assert_eq!(compared.ttft[1], Pair::default());
        assert_eq!(history.compare("m", "1m", &record, 99.0, 110.0), None);
        assert_eq!(history.compare("x", "1m", &record, 200.0, 110.0), None);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        (0..500).for_each(|to| history.push(look(f64::from(to))));
        assert_eq!(history.0.len(), HISTORY);
    }

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
