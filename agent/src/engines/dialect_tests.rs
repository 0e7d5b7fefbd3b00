//! Names, labels and copies that the captured pages do not have: older releases, several ranks, other engines.

use plimsoll_common::engine::{DistributionKind, EngineKind, Role, SleepState};

use super::{Counter, EnginePage, EngineTracker, EngineUpdate, PageError, read_page};
use crate::exposition::Limits;

fn page(text: &str) -> EnginePage {
    read_page(None, text.as_bytes(), Limits::default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A page of an engine that was not there before: all of it counts.
fn fresh(text: &str) -> EngineUpdate {
    let mut tracker = EngineTracker::new();
    tracker.absent();
    tracker.observe(&page(text))
}

fn histogram(name: &str, labels: &str, count: u64) -> String {
    format!(
        "{name}_bucket{{{labels},le=\"1.0\"}} {count}\n{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n\
         {name}_count{{{labels}}} {count}\n{name}_sum{{{labels}}} {count}\n"
    )
}

fn kinds(page: &EnginePage) -> Vec<&'static str> {
    page.histograms.keys().map(|kind| kind.as_str()).collect()
}

fn ppm(usage: Option<plimsoll_common::units::Ratio>) -> Option<u64> {
    usage.map(|usage| usage.to_ppm())
}

/// The page of vLLM's first engine (0.6.3): no `engine` label, swapped requests, a rate instead of prefix counters, ITL
/// under the name of a TPOT.
#[test]
fn vllm_v0_is_read_under_its_old_names() {
    let model = "model_name=\"m\"";
    let text = format!(
        "vllm:num_requests_running{{{model}}} 8.0\nvllm:num_requests_swapped{{{model}}} 2.0\n\
         vllm:num_requests_waiting{{{model}}} 5.0\nvllm:gpu_cache_usage_perc{{{model}}} 0.75\n\
         vllm:cpu_cache_usage_perc{{{model}}} 0.5\nvllm:gpu_prefix_cache_hit_rate{{{model}}} 0.25\n\
         vllm:num_preemptions_total{{{model}}} 3.0\nvllm:prompt_tokens_total{{{model}}} 700.0\n\
         vllm:generation_tokens_total{{{model}}} 90.0\nvllm:avg_prompt_throughput_toks_per_s{{{model}}} 11.0\n\
         vllm:request_success_total{{finished_reason=\"stop\",{model}}} 4.0\n\
         vllm:spec_decode_num_draft_tokens_total{{{model}}} 40.0\n\
         vllm:spec_decode_num_accepted_tokens_total{{{model}}} 30.0\n\
         vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"100\",cpu_offload_gb=\"0\"}} 1.0\n{}{}",
        histogram("vllm:time_per_output_token_seconds", model, 12),
        histogram("vllm:time_in_queue_requests", model, 4),
    );
    let update = fresh(&text);
    let (gauges, delta) = (update.gauges, &update.delta);
    assert_eq!(update.identity.kind, Some(EngineKind::Vllm));
    assert_eq!(update.identity.kv_capacity_tokens, Some(1600));
    // Swapped requests wait for room in the KV cache; why the others wait is not told.
    assert_eq!((gauges.running, gauges.waiting), (Some(8), Some(7)));
    assert_eq!((gauges.waiting_capacity, gauges.waiting_deferred), (None, None));
    assert_eq!((ppm(gauges.kv_usage), ppm(gauges.kv_offload_usage)), (Some(750_000), Some(500_000)));
    assert_eq!((ppm(gauges.prefix_hit_ratio), gauges.sleep), (Some(250_000), None));
    assert_eq!((delta.prefix_queries, delta.prefix_hits), (None, None));
    assert_eq!((delta.draft_tokens, delta.accepted_tokens), (Some(40), Some(30)));
    // Four ended and fifteen are in flight.
    assert_eq!(delta.arrived, Some(19));
    assert_eq!(kinds(&page(&text)), ["itl_step", "queue"]);
}

/// Several API servers publish a gauge each, of one and the same engine; each counts its own requests.
#[test]
fn processes_of_one_server_tell_one_engine() {
    let text = "vllm:num_requests_running{engine=\"0\",model_name=\"m\",pid=\"7\"} 4\n\
                vllm:num_requests_running{engine=\"0\",model_name=\"m\",pid=\"8\"} 6\n\
                vllm:num_requests_running{engine=\"1\",model_name=\"m\",pid=\"8\"} 1\n\
                vllm:generation_tokens_total{engine=\"0\",model_name=\"m\",pid=\"7\"} 100\n\
                vllm:generation_tokens_total{engine=\"0\",model_name=\"m\",pid=\"8\"} 50\n";
    let update = fresh(text);
    assert_eq!(update.gauges.running, Some(7));
    assert_eq!(update.delta.generation_tokens, Some(150));
}

#[test]
fn data_parallel_engines_are_weighted_and_the_fullest_is_told() {
    let text = "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 5\n\
                vllm:kv_cache_usage_perc{engine=\"0\"} 0.9\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.1\n\
                vllm:cache_config_info{engine=\"0\",kv_cache_size_tokens=\"1000\"} 1\n\
                vllm:cache_config_info{engine=\"1\",kv_cache_size_tokens=\"3000\"} 1\n\
                vllm:engine_sleep_state{engine=\"0\",sleep_state=\"awake\"} 1\n\
                vllm:engine_sleep_state{engine=\"0\",sleep_state=\"discard_all\"} 0\n\
                vllm:engine_sleep_state{engine=\"1\",sleep_state=\"awake\"} 0\n\
                vllm:engine_sleep_state{engine=\"1\",sleep_state=\"weights_offloaded\"} 1\n";
    let page = page(text);
    assert_eq!((page.gauges.running, page.kv_capacity_tokens), (Some(8), Some(4000)));
    assert_eq!((ppm(page.gauges.kv_usage), ppm(page.gauges.kv_usage_max)), (Some(300_000), Some(900_000)));
    assert_eq!(page.gauges.sleep, Some(SleepState::WeightsOffloaded));
}

/// With metrics of all schedulers, every rank of a tensor-parallel group tells the same thing; data-parallel ranks do
/// not. The order on the page does not matter.
#[test]
fn ranks_of_one_group_are_copies() {
    let series = |rank: u32, dp: u32, factor: u64| {
        let labels = format!(
            "engine_type=\"unified\",model_name=\"m\",moe_ep_rank=\"{rank}\",pp_rank=\"0\",tp_rank=\"{rank}\",dp_rank=\"{dp}\""
        );
        format!(
            "sglang:num_running_reqs{{{labels}}} {}\nsglang:full_token_usage{{{labels}}} 0.5\n\
             sglang:max_total_num_tokens{{{labels}}} 1000\n\
             sglang:realtime_tokens_total{{mode=\"prefill_compute\",{labels}}} {}\n{}",
            3 * factor,
            100 * factor,
            histogram("sglang:queue_time_seconds", &labels, 10 * factor),
        )
    };
    // Ranks 1 and 3 lag behind: what they say must not matter.
    let (zero, one, two, three) = (series(0, 0, 1), series(1, 0, 9), series(2, 1, 1), series(3, 1, 9));
    for text in [format!("{zero}{one}{two}{three}"), format!("{three}{two}{one}{zero}")] {
        let update = fresh(&text);
        assert_eq!((update.gauges.running, update.identity.kv_capacity_tokens), (Some(6), Some(2000)));
        assert_eq!(update.delta.prompt_tokens, Some(200));
        let queue = &update.delta.histograms[0];
        assert_eq!((queue.kind, &queue.buckets[..]), (DistributionKind::Queue, &[(0, 20)][..]));
    }
}

#[test]
fn a_breakdown_by_priority_is_no_second_queue() {
    let text = "sglang:num_queue_reqs{priority=\"\",tp_rank=\"0\"} 5\nsglang:num_queue_reqs{priority=\"1\",tp_rank=\"0\"} 3\n\
                sglang:num_queue_reqs{priority=\"None\",tp_rank=\"0\"} 2\n\
                sglang:num_requests_total{priority=\"1\"} 7\nsglang:num_requests_total{priority=\"2\"} 8\n";
    let update = fresh(text);
    assert_eq!(update.gauges.waiting, Some(5));
    assert_eq!(update.delta.ended, Some(15));
}

#[test]
fn sglangs_queues_tell_why_requests_wait() {
    let decode = page(
        "sglang:num_running_reqs{engine_type=\"decode\"} 2\nsglang:num_queue_reqs{engine_type=\"decode\"} 1\n\
         sglang:num_grammar_queue_reqs{engine_type=\"decode\"} 4\n\
         sglang:num_decode_prealloc_queue_reqs{engine_type=\"decode\"} 16\n\
         sglang:num_decode_transfer_queue_reqs{engine_type=\"decode\"} 8\n",
    );
    assert_eq!((decode.role, decode.gauges.waiting), (Some(Role::Decode), Some(29)));
    assert_eq!((decode.gauges.waiting_capacity, decode.gauges.waiting_deferred), (Some(17), Some(12)));
    let prefill = page(
        "sglang:num_running_reqs{engine_type=\"prefill\"} 2\nsglang:num_queue_reqs{engine_type=\"prefill\"} 1\n\
         sglang:num_prefill_prealloc_queue_reqs{engine_type=\"prefill\"} 5\n",
    );
    assert_eq!((prefill.role, prefill.gauges.waiting), (Some(Role::Prefill), Some(6)));
    assert_eq!((prefill.gauges.waiting_capacity, prefill.gauges.waiting_deferred), (Some(1), Some(5)));
}

/// 0.3 to 0.5.9: the model under `name`, tokens counted at the end only, ITL under another name, capacity in labels.
#[test]
fn older_sglang_is_read_under_its_old_names() {
    let name = "name=\"m\"";
    let text = format!(
        "sglang:num_running_reqs{{{name}}} 2\nsglang:num_queue_reqs{{{name}}} 3\nsglang:token_usage{{{name}}} 0.42\n\
         sglang:prompt_tokens_total{{{name}}} 500\nsglang:generation_tokens_total{{{name}}} 80\n\
         sglang:cached_tokens_total{{{name}}} 100\nsglang:num_requests_total{{{name}}} 9\n\
         sglang:num_aborted_requests_total{{{name}}} 4\nsglang:total_retracted_reqs{{{name}}} 6\n\
         sglang:cache_config_info{{{name},page_size=\"16\",num_pages=\"100\"}} 1\n{}{}",
        histogram("sglang:time_per_output_token_seconds", name, 70),
        histogram("sglang:queue_time_s", name, 9),
    );
    let update = fresh(&text);
    let delta = &update.delta;
    assert_eq!(update.identity.model.as_ref().map(|model| model.as_str()), Some("m"));
    assert_eq!((update.identity.role, update.identity.kv_capacity_tokens), (None, Some(1600)));
    assert_eq!((update.gauges.waiting, update.gauges.waiting_capacity), (Some(3), None));
    assert_eq!(ppm(update.gauges.kv_usage), Some(420_000));
    assert_eq!((delta.prompt_tokens, delta.generation_tokens), (Some(500), Some(80)));
    assert_eq!((delta.prefix_queries, delta.prefix_hits), (Some(500), Some(100)));
    assert_eq!((delta.ended, delta.aborted, delta.preemptions), (Some(9), Some(4), Some(6)));
    // The aborted ones are among the nine.
    assert_eq!(delta.arrived, Some(14));
    assert_eq!(kinds(&page(&text)), ["itl_token", "queue"]);
    // Nothing on it moves for sure while requests run.
    assert!(!page(&text).live);
}

#[test]
fn retractions_had_three_names_and_count_once() {
    let running = "sglang:num_running_reqs 1\n";
    let both = format!(
        "{running}sglang:total_retracted_reqs 6\n{}sglang:num_retracted_requests_total 7\n",
        histogram("sglang:num_retractions", "x=\"1\"", 5)
    );
    assert_eq!(fresh(&both).delta.preemptions, Some(7));
    let sum = format!("{running}{}", histogram("sglang:num_retractions", "x=\"1\"", 5));
    assert_eq!(fresh(&sum).delta.preemptions, Some(5));
}

#[test]
fn tiers_below_the_kv_cache_are_told() {
    let text = "sglang:num_running_reqs 1\nsglang:hicache_host_used_tokens 30\nsglang:hicache_host_total_tokens 40\n\
                sglang:cached_tokens_total{cache_source=\"device\"} 5\nsglang:cached_tokens_total{cache_source=\"host\"} 6\n\
                sglang:cached_tokens_total{cache_source=\"storage\"} 7\nsglang:cached_tokens_total{cache_source=\"total\"} 8\n\
                sglang:spec_accept_length 2.5\nsglang:spec_accept_rate 0.5\n\
                sglang:swa_token_usage 0.8\nsglang:full_token_usage 0.3\n";
    let update = fresh(text);
    assert_eq!(ppm(update.gauges.kv_offload_usage), Some(750_000));
    assert_eq!((update.delta.prefix_hits, update.delta.offload_hits), (Some(26), Some(13)));
    assert_eq!(ppm(update.gauges.spec_acceptance), Some(500_000));
    assert_eq!(ppm(update.gauges.kv_usage), Some(800_000), "the fullest pool is the engine's");
}

#[test]
fn the_three_spellings_of_tensorrt_llm_mean_the_same() {
    let text = |spelled: &str| {
        let labels = "engine_type=\"pytorch\",model_name=\"undefined\"";
        format!(
            "{spelled}request_success_total{{finished_reason=\"stop\",{labels}}} 3\n\
             {spelled}request_success_total{{finished_reason=\"cancelled\",{labels}}} 1\n\
             {spelled}num_requests_running{{{labels}}} 2\n{spelled}num_requests_waiting{{{labels}}} 4\n\
             {spelled}kv_cache_max_blocks{{{labels}}} 100\n{spelled}kv_cache_used_blocks{{{labels}}} 25\n\
             {spelled}kv_cache_tokens_per_block{{{labels}}} 32\n{}{}",
            histogram(&format!("{spelled}time_per_output_token_seconds"), labels, 3),
            histogram(&format!("{spelled}e2e_request_latency_seconds"), labels, 3),
        )
    };
    let read: Vec<_> = ["trtllm_", "trtllm:", ""].map(|spelled| fresh(&text(spelled))).into();
    assert_eq!(read[0], read[1]);
    assert_eq!(read[0], read[2]);
    let update = &read[0];
    assert_eq!(update.identity.kind, Some(EngineKind::TensorRtLlm));
    assert_eq!((update.gauges.running, update.gauges.waiting), (Some(2), Some(4)));
    assert_eq!(
        (ppm(update.gauges.kv_usage), update.identity.kv_capacity_tokens),
        (Some(250_000), Some(3200))
    );
    assert_eq!((update.delta.arrived, update.delta.aborted), (Some(10), Some(1)));
    // The mean of a request, not vLLM's old family of the same name.
    assert_eq!(kinds(&page(&text("trtllm_"))), ["tpot", "e2e"]);
    // Its numbers rest while requests run: resting proves nothing.
    let mut tracker = EngineTracker::new();
    tracker.observe(&page(&text("trtllm_")));
    let resting = tracker.observe(&page(&text("trtllm_")));
    assert_eq!((resting.delta.progress, resting.delta.moved), (None, false));
}

#[test]
fn a_tensorrt_llm_server_before_its_first_request_is_no_wrong_page() {
    let read = |text: &[u8]| read_page(Some(EngineKind::TensorRtLlm), text, Limits::default());
    for text in [&b""[..], b"trtllm_kv_cache_config_info{page_size=\"16\"} 1.0\n"] {
        assert_eq!(read(text).unwrap().gauges, super::EngineGauges::default());
    }
    assert!(read(b"node_load1 1\n").is_err());
    assert!(read(b"<html>\n").is_err());
    assert!(read_page(None, b"", Limits::default()).is_err(), "nobody told whose it is");
}

#[test]
fn tritons_gauges_are_read() {
    let page = page(
        "nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"waiting\",version=\"1\"} 4\n\
         nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"scheduled\",version=\"1\"} 3\n\
         nv_trt_llm_request_metrics{model=\"tensorrt_llm\",request_type=\"max\",version=\"1\"} 64\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"tensorrt_llm\",version=\"1\"} 10\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"used\",model=\"tensorrt_llm\",version=\"1\"} 5\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\",model=\"tensorrt_llm\",version=\"1\"} 64\n",
    );
    assert_eq!(
        (page.kind, page.gauges.running, page.gauges.waiting),
        (Some(EngineKind::Triton), Some(3), Some(4))
    );
    assert_eq!((ppm(page.gauges.kv_usage), page.kv_capacity_tokens), (Some(500_000), Some(640)));
    assert_eq!(page.counters.get(&Counter::FinishedStop), None);
}

#[test]
fn a_page_of_another_kind_is_refused_by_its_name() {
    let text = b"sglang:num_running_reqs 1\n";
    let error = read_page(Some(EngineKind::Vllm), text, Limits::default()).unwrap_err();
    let (kind, shown) = (Some(EngineKind::Vllm), Some(EngineKind::Sglang));
    assert_eq!(error, PageError::Unrecognised { kind, shown, samples: 1 });
    assert!(error.to_string().contains("none of vllm's core metrics (it has sglang's)"), "{error}");
}
