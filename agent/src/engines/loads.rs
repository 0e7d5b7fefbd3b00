//! SGLang's `/v1/loads`: a snapshot that each scheduler leaves in shared memory, so that reading it disturbs nobody. It is
//! newer than the gauges of the metrics page, which some batches only write every 40 steps.

use std::collections::BTreeMap;

use plimsoll_common::engine::Role;
use serde::Deserialize;

use super::{page::EnginePage, quantity::weighted};

/// Where it is asked for: without the sections on memory and adapters.
pub const LOADS_PATH: &str = "/v1/loads?include=core,queues,disagg,spec";

/// The most engines that are read of one answer.
const MAX_LOADS: usize = 4096;

/// Why an answer is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadsError {
    /// It is not of the form that SGLang answers.
    #[error("the answer at /v1/loads can't be read: {0}")]
    Malformed(String),
    /// It speaks of no engine.
    #[error("the answer at /v1/loads speaks of no engine")]
    Empty,
}

/// What the schedulers say of themselves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Loads {
    /// The server's version.
    #[serde(default)]
    pub version: Option<String>,
    loads: Vec<Load>,
}

/// One data-parallel engine. Fields come and go with the releases.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Load {
    timestamp: Option<f64>,
    num_running_reqs: Option<u64>,
    num_waiting_reqs: Option<u64>,
    num_used_tokens: Option<f64>,
    max_total_num_tokens: Option<f64>,
    token_usage: Option<f64>,
    queues: Option<Queues>,
    disaggregation: Option<Disaggregation>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Queues {
    grammar: Option<u64>,
    paused: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Disaggregation {
    mode: Option<String>,
    prefill_bootstrap_queue_reqs: Option<u64>,
    decode_transfer_queue_reqs: Option<u64>,
}

/// Reads an answer.
///
/// # Errors
/// When it is no JSON of that form, or speaks of no engine.
pub fn read_loads(bytes: &[u8]) -> Result<Loads, LoadsError> {
    let mut loads: Loads =
        serde_json::from_slice(bytes).map_err(|error| LoadsError::Malformed(error.to_string()))?;
    loads.loads.truncate(MAX_LOADS);
    if loads.loads.iter().all(|load| load.num_running_reqs.is_none()) {
        return Err(LoadsError::Empty);
    }
    Ok(loads)
}

impl Loads {
    /// Lays the snapshot over the metrics page.
    pub fn lay_over(&self, page: &mut EnginePage) {
        let sum =
            |of: &dyn Fn(&Load) -> Option<u64>| self.loads.iter().filter_map(of).reduce(u64::saturating_add);
        let queues = |of: fn(&Queues) -> Option<u64>| sum(&|load: &Load| load.queues.as_ref().and_then(of));
        let disaggregated = |of: fn(&Disaggregation) -> Option<u64>| {
            sum(&|load: &Load| load.disaggregation.as_ref().and_then(of)).unwrap_or(0)
        };
        let gauges = &mut page.gauges;
        gauges.running = sum(&|load| load.num_running_reqs).or(gauges.running);
        // The snapshot adds the queues of disaggregated serving to the waiting ones, but not the grammar queue.
        if let Some(queued) = sum(&|load| load.num_waiting_reqs) {
            let grammar = queues(|queues| queues.grammar);
            let under_way = disaggregated(|of| of.prefill_bootstrap_queue_reqs)
                .saturating_add(disaggregated(|of| of.decode_transfer_queue_reqs));
            gauges.waiting = Some(queued.saturating_add(grammar.unwrap_or(0)));
            let (capacity, deferred) = match grammar {
                Some(grammar) => (queued.saturating_sub(under_way), Some(grammar.saturating_add(under_way))),
                // An answer without its queues: the page tells them apart.
                None => {
                    let deferred = gauges.waiting_deferred.map(|deferred| deferred.min(queued));
                    (queued.saturating_sub(deferred.unwrap_or(0)), deferred)
                }
            };
            gauges.waiting_capacity = deferred.map(|_| capacity);
            gauges.waiting_deferred = deferred;
        }
        gauges.paused = queues(|queues| queues.paused).or(gauges.paused);
        gauges.snapshot_time =
            self.loads.iter().filter_map(|load| load.timestamp).filter(|at| at.is_finite()).reduce(f64::min);
        self.lay_usage_over(page);
        let mode = self.loads.iter().find_map(|load| load.disaggregation.as_ref()?.mode.as_deref());
        page.role = page.role.or_else(|| role(mode?));
    }

    fn lay_usage_over(&self, page: &mut EnginePage) {
        let names: Vec<String> = (0..self.loads.len()).map(|at| at.to_string()).collect();
        let (mut usage, mut capacity) = (BTreeMap::new(), BTreeMap::new());
        for (name, load) in names.iter().zip(&self.loads) {
            let tokens = load.max_total_num_tokens.filter(|tokens| *tokens > 0.0);
            let full = load.num_used_tokens.zip(tokens).map(|(used, all)| used / all);
            // The rounded one speaks of the fullest pool, which may be another.
            let fullest = load.token_usage.filter(|fullest| full.is_none_or(|full| *fullest > full + 1e-3));
            if let Some(used) = fullest.or(full).filter(|used| used.is_finite()) {
                usage.insert(name.as_str(), used);
            }
            if let Some(tokens) = tokens {
                capacity.insert(name.as_str(), tokens);
            }
        }
        let gauges = &mut page.gauges;
        gauges.kv_usage = weighted(&usage, &capacity).or(gauges.kv_usage);
        let fullest = usage.values().copied().reduce(f64::max);
        gauges.kv_usage_max = fullest.and_then(super::quantity::ratio).or(gauges.kv_usage_max);
        let whole = capacity.values().copied().reduce(|a, b| a + b).and_then(super::quantity::whole);
        page.kv_capacity_tokens = whole.or(page.kv_capacity_tokens);
    }
}

fn role(mode: &str) -> Option<Role> {
    match mode {
        "null" => Some(Role::Aggregated),
        "prefill" => Some(Role::Prefill),
        "decode" => Some(Role::Decode),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(answer: &str) -> EnginePage {
        let mut page = EnginePage::default();
        read_loads(answer.as_bytes()).unwrap().lay_over(&mut page);
        page
    }

    #[test]
    fn engines_are_added_up_and_weighted() {
        let page = laid(
            r#"{"version": "0.5.23", "loads": [
                {"timestamp": 20.5, "dp_rank": 0, "num_running_reqs": 3, "num_waiting_reqs": 10, "num_used_tokens": 900,
                 "max_total_num_tokens": 1000, "token_usage": 0.9, "queues": {"grammar": 2, "paused": 1},
                 "disaggregation": {"mode": "decode", "decode_transfer_queue_reqs": 4}},
                {"timestamp": 20.25, "num_running_reqs": 1, "num_waiting_reqs": 0, "num_used_tokens": 0,
                 "max_total_num_tokens": 3000, "token_usage": 0.0, "queues": {"grammar": 0}}]}"#,
        );
        let gauges = page.gauges;
        assert_eq!((gauges.running, gauges.waiting), (Some(4), Some(12)));
        assert_eq!((gauges.waiting_capacity, gauges.waiting_deferred), (Some(6), Some(6)));
        assert_eq!(gauges.paused, Some(1));
        assert_eq!(gauges.kv_usage.map(|usage| usage.to_ppm()), Some(225_000));
        assert_eq!(gauges.kv_usage_max.map(|usage| usage.to_ppm()), Some(900_000));
        assert_eq!(page.kv_capacity_tokens, Some(4000));
        assert_eq!(gauges.snapshot_time.map(f64::to_bits), Some(20.25f64.to_bits()));
        assert_eq!(page.role, Some(Role::Decode));
    }

    #[test]
    fn another_pool_that_is_fuller_is_the_engines() {
        let page = laid(
            r#"{"loads": [{"num_running_reqs": 1, "num_used_tokens": 10, "max_total_num_tokens": 100, "token_usage": 0.7}]}"#,
        );
        assert_eq!(page.gauges.kv_usage.map(|usage| usage.to_ppm()), Some(700_000));
        assert_eq!((page.gauges.waiting, page.gauges.paused), (None, None));
    }

    #[test]
    fn without_its_queues_the_page_tells_why_requests_wait() {
        let loads = read_loads(br#"{"loads": [{"num_running_reqs": 1, "num_waiting_reqs": 7}]}"#).unwrap();
        let mut page = EnginePage::default();
        (page.gauges.waiting, page.gauges.waiting_capacity) = (Some(30), Some(28));
        page.gauges.waiting_deferred = Some(2);
        loads.lay_over(&mut page);
        let gauges = page.gauges;
        assert_eq!(
            (gauges.waiting, gauges.waiting_capacity, gauges.waiting_deferred),
            (Some(7), Some(5), Some(2))
        );
    }

    #[test]
    fn other_answers_are_refused() {
        for bad in ["", "{}", "[]", "{\"detail\": \"Not Found\"}", "{\"loads\": 3}", "{\"loads\": [3]}"] {
            assert!(matches!(read_loads(bad.as_bytes()), Err(LoadsError::Malformed(_))), "{bad}");
        }
        for empty in ["{\"loads\": []}", "{\"loads\": [{}]}"] {
            assert_eq!(read_loads(empty.as_bytes()), Err(LoadsError::Empty), "{empty}");
        }
    }
}
