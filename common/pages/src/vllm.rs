//! vLLM's names, from the V0 engine (0.4) to 0.33, and how to read its labels.

use plimsoll_common::engine::{DistributionKind, SleepState};

use super::{
    dialect::{Dialect, Family, Signal, all, core, histogram, live, other},
    page::Counter,
    quantity::Quantity,
};
use crate::exposition::{Labels, Sample};

pub(super) const DIALECT: Dialect = Dialect {
    model_labels: &["model_name"],
    engine_label: "engine",
    ranks: &[],
    role: None,
    counts: all,
    families: FAMILIES,
};

const FAMILIES: &[Family] = &[
    core(Signal::Gauge(Quantity::Running), &["vllm:num_requests_running"]),
    core(Signal::Gauge(Quantity::Waiting), &["vllm:num_requests_waiting"]),
    other(Signal::GaugeBy("reason", waiting_reason), &["vllm:num_requests_waiting_by_reason"]),
    // V0 swapped requests out when the KV cache was full: they wait for room in it.
    other(Signal::Gauge(Quantity::AlsoCapacity), &["vllm:num_requests_swapped"]),
    other(Signal::GaugeBy("sleep_state", sleep_state), &["vllm:engine_sleep_state"]),
    // A ratio despite its name. Both names stand on the pages of 0.9 and 0.10.
    core(Signal::Gauge(Quantity::KvUsage), &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
    other(Signal::GaugeOf(Quantity::KvTokens, kv_capacity), &["vllm:cache_config_info"]),
    // V0's swap space.
    other(Signal::Gauge(Quantity::OffloadUsage), &["vllm:cpu_cache_usage_perc"]),
    // V0 tells a rate only.
    other(Signal::Gauge(Quantity::PrefixHitRatio), &["vllm:gpu_prefix_cache_hit_rate"]),
    live(Signal::Counter(Counter::PromptTokens), &["vllm:prompt_tokens_total"]),
    live(Signal::Counter(Counter::GenerationTokens), &["vllm:generation_tokens_total"]),
    other(
        Signal::Counter(Counter::PrefixQueries),
        &["vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"],
    ),
    other(
        Signal::Counter(Counter::PrefixHits),
        &["vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"],
    ),
    other(Signal::Counter(Counter::OffloadHits), &["vllm:external_prefix_cache_hits_total"]),
    other(Signal::Counter(Counter::Preemptions), &["vllm:num_preemptions_total"]),
    other(
        Signal::CounterBy(&Counter::FINISHED, finished),
        // V0's first releases had no `_total`; the wire adds it to counters.
        &["vllm:request_success_total"],
    ),
    other(Signal::Counter(Counter::Rejected), &["vllm:admission_rejections_total"]),
    other(Signal::Counter(Counter::DraftTokens), &["vllm:spec_decode_num_draft_tokens_total"]),
    other(Signal::Counter(Counter::AcceptedTokens), &["vllm:spec_decode_num_accepted_tokens_total"]),
    other(Signal::CounterBy(&[Counter::HttpEnded], http_ended), &["http_requests_total"]),
    other(Signal::Gauge(Quantity::ProcessStart), &["process_start_time_seconds"]),
    histogram(DistributionKind::Ttft, &["vllm:time_to_first_token_seconds"]),
    // One sample for each engine step that gave a request output. Both names stand on the pages of 0.10.2 and 0.11.
    histogram(
        DistributionKind::ItlStep,
        &["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"],
    ),
    histogram(DistributionKind::Tpot, &["vllm:request_time_per_output_token_seconds"]),
    histogram(DistributionKind::E2e, &["vllm:e2e_request_latency_seconds"]),
    histogram(DistributionKind::Queue, &["vllm:request_queue_time_seconds", "vllm:time_in_queue_requests"]),
    histogram(DistributionKind::Prefill, &["vllm:request_prefill_time_seconds"]),
    histogram(DistributionKind::Decode, &["vllm:request_decode_time_seconds"]),
    histogram(DistributionKind::Inference, &["vllm:request_inference_time_seconds"]),
    histogram(DistributionKind::Isl, &["vllm:request_prompt_tokens"]),
    histogram(DistributionKind::Osl, &["vllm:request_generation_tokens"]),
];

fn waiting_reason(reason: &str) -> Option<Quantity> {
    match reason {
        "capacity" => Some(Quantity::WaitingCapacity),
        "deferred" => Some(Quantity::WaitingDeferred),
        _ => None,
    }
}

fn sleep_state(state: &str) -> Option<Quantity> {
    let known = SleepState::ALL.iter().find(|known| known.as_str() == state)?;
    Some(Quantity::Sleep(*known))
}

/// The routes whose requests the engine works on until the answer ends.
const GENERATION_HANDLERS: &[&str] = &[
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/inference/v1/generate",
    "/generate",
    "/invocations",
];

/// Whether an ended HTTP request was work of the engine, or would have been.
///
/// * 2xx: it ran. A stream that its client cut counts here too, since its status went out before.
/// * 4xx and 3xx: the API layer refused it (bad request, unknown model, no key). It never was in flight, so that it
///   must not count.
/// * 5xx: it failed within the engine, or the admission limit turned it away (503). The first was in flight: leaving
///   it out would make the estimate fall and hide a later arrival. The second is demand that a larger pool would have
///   served. The page does not tell them apart, and both count.
fn http_ended(labels: Labels<'_>) -> Option<Counter> {
    let is = |label: &str, accept: &dyn Fn(&str) -> bool| {
        labels.get(label).is_some_and(|value| accept(&value.text()))
    };
    let worked_on = is("method", &|method| method == "POST")
        && is("handler", &|handler| GENERATION_HANDLERS.contains(&handler))
        && is("status", &|status| matches!(status.as_bytes().first(), Some(b'2' | b'5')));
    worked_on.then_some(Counter::HttpEnded)
}

/// vLLM and those that took its words tell why a request ended.
pub(super) fn finished(labels: Labels<'_>) -> Option<Counter> {
    let reason = labels.get("finished_reason");
    Some(match reason.map(|reason| reason.text()).as_deref() {
        Some("stop" | "repetition") => Counter::FinishedStop,
        Some("length") => Counter::FinishedLength,
        // TensorRT-LLM says `cancelled`.
        Some("abort" | "cancelled") => Counter::Aborted,
        _ => Counter::Errored,
    })
}

/// `kv_cache_size_tokens` where it is told, else blocks × tokens in a block. Labels that are not known yet say `None`.
fn kv_capacity(sample: &Sample<'_>) -> Option<f64> {
    capacity_of(sample.labels).map(|tokens| tokens as f64)
}

fn capacity_of(labels: Labels<'_>) -> Option<u64> {
    let number = |label: &str| labels.get(label)?.text().parse::<u64>().ok().filter(|number| *number > 0);
    number("kv_cache_size_tokens").or_else(|| number("num_gpu_blocks")?.checked_mul(number("block_size")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::Part,
        exposition::{Entry, Limits, read},
    };

    fn labels_of(line: &str) -> Labels<'_> {
        let mut lines = read(line.as_bytes(), Limits::default()).unwrap();
        lines.find_map(Entry::into_sample).unwrap().labels
    }

    #[test]
    fn names_are_found_with_their_part_and_rank() {
        let find = |name| {
            DIALECT.find(name).map(|(family, rank, part)| (DIALECT.families[family].names[0], rank, part))
        };
        assert_eq!(
            find("vllm:time_per_output_token_seconds_bucket"),
            Some(("vllm:inter_token_latency_seconds", 1, Part::Bucket))
        );
        assert_eq!(
            find("vllm:request_prompt_tokens_sum"),
            Some(("vllm:request_prompt_tokens", 0, Part::Sum))
        );
        assert_eq!(find("vllm:prompt_tokens_total"), Some(("vllm:prompt_tokens_total", 0, Part::Whole)));
        for strange in [
            "vllm:iteration_tokens_total_bucket",
            "vllm:prompt_tokens_created",
            "vllm:prompt_tokens_total_sum",
            "vllm:num_requests_waiting_by_reason_total",
            "time_to_first_token_seconds",
            "",
        ] {
            assert_eq!(find(strange), None, "{strange}");
        }
    }

    #[test]
    fn only_what_the_engine_worked_on_counts() {
        let counts = |handler: &str, method: &str, status: &str| {
            let line = format!("x{{handler=\"{handler}\",method=\"{method}\",status=\"{status}\"}} 1");
            http_ended(labels_of(&line)).is_some()
        };
        assert!(counts("/v1/completions", "POST", "2xx"));
        assert!(counts("/v1/chat/completions", "POST", "5xx"));
        assert!(counts("/v1/completions", "POST", "200"));
        assert!(!counts("/v1/completions", "POST", "4xx"));
        assert!(!counts("/v1/completions", "GET", "2xx"));
        assert!(!counts("/v1/models", "GET", "2xx"));
        assert!(!counts("none", "POST", "2xx"));
        assert!(http_ended(labels_of("x 1")).is_none());
    }

    #[test]
    fn capacity_in_tokens() {
        let capacity = |labels: &str| capacity_of(labels_of(&format!("x{{{labels}}} 1")));
        assert_eq!(
            capacity(r#"kv_cache_size_tokens="1280",num_gpu_blocks="40",block_size="16""#),
            Some(1280)
        );
        assert_eq!(capacity(r#"kv_cache_size_tokens="None",num_gpu_blocks="40",block_size="16""#), Some(640));
        assert_eq!(capacity(r#"num_gpu_blocks="None",block_size="16""#), None);
        assert_eq!(capacity(&format!(r#"num_gpu_blocks="{0}",block_size="{0}""#, u64::MAX)), None);
    }
}
