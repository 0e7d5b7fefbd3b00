//! vLLM's names (V1 engine, 0.8 and later; written for 0.32), and how to read its labels.

use plimsoll_common::engine::DistributionKind;

use super::{
    dialect::{Dialect, Family, Signal},
    page::Counter,
};
use crate::exposition::Labels;

const fn core(signal: Signal, names: &'static [&'static str]) -> Family {
    Family { signal, names, core: true }
}

const fn other(signal: Signal, names: &'static [&'static str]) -> Family {
    Family { signal, names, core: false }
}

const fn histogram(kind: DistributionKind, names: &'static [&'static str]) -> Family {
    core(Signal::Histogram(kind), names)
}

pub(super) const DIALECT: Dialect = Dialect {
    model_label: "model_name",
    engine_label: "engine",
    families: &[
        core(Signal::Running, &["vllm:num_requests_running"]),
        core(Signal::Waiting, &["vllm:num_requests_waiting"]),
        // A ratio despite its name. Both names stand on the pages of 0.9 and 0.10.
        core(Signal::KvUsage, &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
        other(Signal::KvCapacity(kv_capacity), &["vllm:cache_config_info"]),
        core(Signal::Counter(Counter::PromptTokens), &["vllm:prompt_tokens_total"]),
        core(Signal::Counter(Counter::GenerationTokens), &["vllm:generation_tokens_total"]),
        other(
            Signal::Counter(Counter::PrefixQueries),
            &["vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"],
        ),
        other(
            Signal::Counter(Counter::PrefixHits),
            &["vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"],
        ),
        other(Signal::Counter(Counter::Preemptions), &["vllm:num_preemptions_total"]),
        other(
            Signal::Finished { label: "finished_reason", counter: finished },
            &["vllm:request_success_total"],
        ),
        other(Signal::HttpEnded(generates), &["http_requests_total"]),
        other(Signal::ProcessStart, &["process_start_time_seconds"]),
        histogram(DistributionKind::Ttft, &["vllm:time_to_first_token_seconds"]),
        // One sample for each engine step that gave a request output. Both names stand on the pages of 0.10.2 and 0.11.
        histogram(
            DistributionKind::ItlStep,
            &["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"],
        ),
        histogram(DistributionKind::Tpot, &["vllm:request_time_per_output_token_seconds"]),
        histogram(DistributionKind::E2e, &["vllm:e2e_request_latency_seconds"]),
        histogram(DistributionKind::Queue, &["vllm:request_queue_time_seconds"]),
        histogram(DistributionKind::Prefill, &["vllm:request_prefill_time_seconds"]),
        histogram(DistributionKind::Decode, &["vllm:request_decode_time_seconds"]),
        histogram(DistributionKind::Inference, &["vllm:request_inference_time_seconds"]),
        histogram(DistributionKind::Isl, &["vllm:request_prompt_tokens"]),
        histogram(DistributionKind::Osl, &["vllm:request_generation_tokens"]),
    ],
};

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
fn generates(labels: Labels<'_>) -> bool {
    let is = |label: &str, accept: &dyn Fn(&str) -> bool| {
        labels.get(label).is_some_and(|value| accept(&value.text()))
    };
    is("method", &|method| method == "POST")
        && is("handler", &|handler| GENERATION_HANDLERS.contains(&handler))
        && is("status", &|status| matches!(status.as_bytes().first(), Some(b'2' | b'5')))
}

fn finished(reason: &str) -> Counter {
    match reason {
        "stop" => Counter::FinishedStop,
        "length" => Counter::FinishedLength,
        "abort" => Counter::Aborted,
        _ => Counter::Errored,
    }
}

/// `kv_cache_size_tokens` where it is told, else blocks × tokens in a block. Labels that are not known yet say `None`.
fn kv_capacity(labels: Labels<'_>) -> Option<u64> {
    let number = |label: &str| labels.get(label)?.text().parse::<u64>().ok().filter(|number| *number > 0);
    number("kv_cache_size_tokens").or_else(|| number("num_gpu_blocks")?.checked_mul(number("block_size")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engines::dialect::Part,
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
            "vllm:num_requests_waiting_by_reason",
            "time_to_first_token_seconds",
            "",
        ] {
            assert_eq!(find(strange), None, "{strange}");
        }
    }

    #[test]
    fn no_name_stands_twice_in_the_table() {
        let names: Vec<_> = DIALECT.families.iter().flat_map(|family| family.names).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
        }
    }

    #[test]
    fn only_what_the_engine_worked_on_counts() {
        let counts = |handler: &str, method: &str, status: &str| {
            let line = format!("x{{handler=\"{handler}\",method=\"{method}\",status=\"{status}\"}} 1");
            generates(labels_of(&line))
        };
        assert!(counts("/v1/completions", "POST", "2xx"));
        assert!(counts("/v1/chat/completions", "POST", "5xx"));
        assert!(counts("/v1/completions", "POST", "200"));
        assert!(!counts("/v1/completions", "POST", "4xx"));
        assert!(!counts("/v1/completions", "GET", "2xx"));
        assert!(!counts("/v1/models", "GET", "2xx"));
        assert!(!counts("none", "POST", "2xx"));
        assert!(!generates(labels_of("x 1")));
    }

    #[test]
    fn capacity_in_tokens() {
        let capacity = |labels: &str| kv_capacity(labels_of(&format!("x{{{labels}}} 1")));
        assert_eq!(
            capacity(r#"kv_cache_size_tokens="1280",num_gpu_blocks="40",block_size="16""#),
            Some(1280)
        );
        assert_eq!(capacity(r#"kv_cache_size_tokens="None",num_gpu_blocks="40",block_size="16""#), Some(640));
        assert_eq!(capacity(r#"num_gpu_blocks="None",block_size="16""#), None);
        assert_eq!(capacity(&format!(r#"num_gpu_blocks="{0}",block_size="{0}""#, u64::MAX)), None);
    }
}
