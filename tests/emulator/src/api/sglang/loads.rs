//! The shape of `/v1/loads`.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    api::Api,
    state::{EngineState, Shown},
};

const GIB: f64 = 1_073_741_824.0;

/// Which parts are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sections {
    memory: bool,
    disaggregation: bool,
    queues: bool,
}

impl Sections {
    /// All that this engine has, unless some are named; `core` is always there.
    pub(super) fn parse(include: Option<&str>) -> Result<Self, String> {
        let Some(include) = include else {
            return Ok(Self { memory: true, disaggregation: true, queues: true });
        };
        let mut sections = Self { memory: false, disaggregation: false, queues: false };
        for name in include.split(',') {
            match name.trim() {
                "memory" => sections.memory = true,
                "disagg" => sections.disaggregation = true,
                "queues" => sections.queues = true,
                "all" => sections = Self { memory: true, disaggregation: true, queues: true },
                // What is off here has no section.
                "core" | "spec" | "lora" => {}
                other => return Err(format!("no section is called `{other}`")),
            }
        }
        Ok(sections)
    }
}

/// What the one rank said last.
pub(super) fn of_rank(api: &Api, state: &EngineState, sections: &Sections) -> Map<String, Value> {
    let Shown::Sglang(shown) = &state.shown else { return Map::new() };
    let (loads, capacity) = (&shown.loads, shown.gauges.capacity_tokens);
    let four = |value: f64| (value * 1e4).round() / 1e4;
    let two = |value: f64| (value * 1e2).round() / 1e2;
    let value = json!({
        "timestamp": api.driver.shared.clock.unix_seconds(loads.at), "dp_rank": 0,
        "num_running_reqs": loads.running, "num_waiting_reqs": loads.waiting,
        "num_waiting_uncached_tokens": loads.waiting_tokens, "num_used_tokens": loads.used_tokens,
        "num_total_tokens": loads.used_tokens + loads.waiting_tokens,
        "num_active_tokens": loads.used_tokens + loads.waiting_tokens, "num_prealloc_ready_tokens": 0,
        "max_total_num_tokens": capacity, "max_running_requests": api.config.engine.max_num_seqs,
        "token_usage": four(loads.used_tokens as f64 / capacity.max(1) as f64),
        "gen_throughput": two(loads.gen_throughput), "cache_hit_rate": four(loads.cache_hit_rate),
        "utilization": 0.0, "total_prefill_uncached_tokens": shown.prefill_compute,
        "total_prefill_busy_us": shown.prefill_busy.0, "decode_moments": shown.decode_moments,
    });
    let Value::Object(mut rank) = value else { return Map::new() };
    let gpus = &api.config.gpus;
    if sections.memory {
        let kv = capacity.saturating_mul(gpus.kv_bytes_per_token) as f64 / GIB;
        let memory = json!({
            "weight_gb": gpus.weights_bytes as f64 / GIB, "kv_cache_gb": kv, "graph_gb": 0.0, "token_capacity": capacity,
        });
        rank.insert("memory".to_owned(), memory);
    }
    if sections.disaggregation {
        let disaggregation = json!({
            "mode": "null", "prefill_bootstrap_queue_reqs": 0, "prefill_inflight_queue_reqs": 0,
            "decode_prealloc_queue_reqs": 0, "decode_transfer_queue_reqs": 0, "decode_retracted_queue_reqs": 0,
            "kv_transfer_speed_gb_s": 0.0, "kv_transfer_latency_ms": 0.0,
        });
        rank.insert("disaggregation".to_owned(), disaggregation);
    }
    if sections.queues {
        let paused = if state.sleep > 0 { loads.waiting } else { 0 };
        let queues = json!({
            "waiting": loads.waiting, "grammar": 0, "paused": paused, "retracted": 0, "prealloc_ready": 0,
        });
        rank.insert("queues".to_owned(), queues);
    }
    rank
}

/// The same as metrics: other names than the metrics page has, everything a gauge, nested numbers by their path.
pub(super) fn as_text(rank: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (key, value) in rank {
        match value {
            Value::Object(section) => {
                for (inner, value) in section {
                    gauge(&mut text, &format!("{key}_{inner}"), value);
                }
            }
            value => gauge(&mut text, key, value),
        }
    }
    text
}

fn gauge(text: &mut String, name: &str, value: &Value) {
    if value.is_number() && name != "dp_rank" {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE sglang_{name} gauge\nsglang_{name}{{dp_rank=\"0\"}} {value}");
    }
}

/// ISO 8601 with microseconds, as Python writes it.
pub(super) fn iso(unix_seconds: f64) -> String {
    jiff::Timestamp::from_microsecond((unix_seconds * 1e6) as i64)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_look_as_pythons() {
        assert_eq!(iso(1_795_354_854.814_737), "2026-11-22T13:40:54.814737+00:00");
    }

    #[test]
    fn sections_are_all_or_those_named() {
        assert_eq!(Sections::parse(None), Sections::parse(Some("all")));
        let core = Sections { memory: false, disaggregation: false, queues: false };
        assert_eq!(Sections::parse(Some("core,spec")), Ok(core));
        assert!(Sections::parse(Some("cor")).is_err());
    }
}
