//! What is read of every captured page is what stands on it, and what is followed from page to page is what happened.

use plimsoll_common::engine::{DistributionKind, EngineKind, Role, SleepState};

use super::{
    Counter, EnginePage, EngineTracker, EngineUpdate, PageQuality,
    captured::{Captured, pages},
};

fn total(page: &EnginePage, counter: Counter) -> Option<u64> {
    page.counters.get(&counter).filter(|series| !series.is_empty()).map(|series| series.values().sum())
}

/// Every counter, or the text and labels by which it is found on the page.
type Places = &'static [(Counter, &'static str, &'static [&'static str])];
/// Every histogram and its name on the page.
type Families = &'static [(DistributionKind, &'static str)];

fn compare(captured: &Captured, page: &EnginePage, counters: Places, families: Families) {
    let name = &captured.name;
    for (counter, family, labels) in counters {
        assert_eq!(total(page, *counter), captured.count(family, labels), "{name}: {counter:?}");
    }
    for (kind, family) in families {
        let series = page.histograms.get(kind);
        let counts = |of: fn(&super::HistogramCounts) -> f64| {
            series.map(|series| {
                series.values().filter_map(|series| series.counts.as_ref()).map(of).sum::<f64>()
            })
        };
        let samples = counts(|counts| counts.buckets.iter().sum::<u64>() as f64);
        assert_eq!(samples, captured.raw(&format!("{family}_count"), &[]), "{name}: {kind}");
        assert_eq!(
            counts(|counts| counts.sum),
            captured.raw(&format!("{family}_sum"), &[]),
            "{name}: {kind}"
        );
    }
    let known: Vec<_> = families.iter().map(|(kind, _)| kind).collect();
    assert!(page.histograms.keys().all(|kind| known.contains(&kind)), "{name}: {:?}", page.histograms.keys());
    assert_eq!(page.quality, PageQuality::default(), "{name}");
}

fn ppm(usage: Option<plimsoll_common::units::Ratio>) -> Option<u64> {
    usage.map(|usage| usage.to_ppm())
}

fn raw_ppm(value: Option<f64>) -> Option<u64> {
    value.map(|value| (value * 1e6).round() as u64)
}

fn follow(captured: &[Captured]) -> Vec<EngineUpdate> {
    let mut tracker = EngineTracker::new();
    captured.iter().map(|page| tracker.observe(&page.read())).collect()
}

fn sum(updates: &[EngineUpdate], of: fn(&EngineUpdate) -> Option<u64>) -> u64 {
    updates.iter().filter_map(of).sum()
}

#[test]
fn all_pages_of_vllm_are_read_exactly() {
    const COUNTERS: Places = &[
        (Counter::PromptTokens, "vllm:prompt_tokens_total", &[]),
        (Counter::GenerationTokens, "vllm:generation_tokens_total", &[]),
        (Counter::PrefixQueries, "vllm:prefix_cache_queries_total", &[]),
        (Counter::PrefixHits, "vllm:prefix_cache_hits_total", &[]),
        (Counter::OffloadHits, "vllm:external_prefix_cache_hits_total", &[]),
        (Counter::Preemptions, "vllm:num_preemptions_total", &[]),
        (Counter::FinishedLength, "vllm:request_success_total", &["\"length\""]),
        (Counter::Aborted, "vllm:request_success_total", &["\"abort\""]),
        (Counter::Errored, "vllm:request_success_total", &["\"error\""]),
        (Counter::HttpEnded, "http_requests_total", &["\"/v1/completions\"", "\"2xx\""]),
        (Counter::Rejected, "vllm:admission_rejections_total", &[]),
        (Counter::DraftTokens, "vllm:spec_decode_num_draft_tokens_total", &[]),
    ];
    const FAMILIES: Families = &[
        (DistributionKind::Ttft, "vllm:time_to_first_token_seconds"),
        (DistributionKind::ItlStep, "vllm:inter_token_latency_seconds"),
        (DistributionKind::Tpot, "vllm:request_time_per_output_token_seconds"),
        (DistributionKind::E2e, "vllm:e2e_request_latency_seconds"),
        (DistributionKind::Queue, "vllm:request_queue_time_seconds"),
        (DistributionKind::Prefill, "vllm:request_prefill_time_seconds"),
        (DistributionKind::Decode, "vllm:request_decode_time_seconds"),
        (DistributionKind::Inference, "vllm:request_inference_time_seconds"),
        (DistributionKind::Isl, "vllm:request_prompt_tokens"),
        (DistributionKind::Osl, "vllm:request_generation_tokens"),
    ];
    let captured = pages("vllm-0.32.0.pages.zst");
    assert_eq!(captured.len(), 47);
    for captured in &captured {
        let (page, name) = (captured.read(), &captured.name);
        compare(captured, &page, COUNTERS, FAMILIES);
        assert_eq!((page.kind, page.role), (Some(EngineKind::Vllm), None), "{name}");
        assert_eq!(page.kv_capacity_tokens, Some(1280), "{name}");
        let gauges = page.gauges;
        assert_eq!(gauges.running, captured.count("vllm:num_requests_running", &[]), "{name}");
        assert_eq!(gauges.waiting, captured.count("vllm:num_requests_waiting", &[]), "{name}");
        let by_reason = "vllm:num_requests_waiting_by_reason";
        assert_eq!(gauges.waiting_capacity, captured.count(by_reason, &["\"capacity\""]), "{name}");
        assert_eq!(gauges.waiting_deferred, captured.count(by_reason, &["\"deferred\""]), "{name}");
        let usage = raw_ppm(captured.raw("vllm:kv_cache_usage_perc", &[]));
        assert_eq!((ppm(gauges.kv_usage), ppm(gauges.kv_usage_max)), (usage, usage), "{name}");
        assert_eq!(gauges.sleep, Some(SleepState::Awake), "{name}");
        assert_eq!(
            (gauges.paused, gauges.kv_offload_usage, gauges.prefix_hit_ratio),
            (None, None, None),
            "{name}"
        );
    }
}

#[test]
fn all_pages_of_vllm_are_followed_exactly() {
    let captured = pages("vllm-0.32.0.pages.zst");
    let updates = follow(&captured);
    assert!(updates.iter().all(|update| update.delta.resets == 0));
    // 60, 500 and 40 requests of the three loads, and 47 that had come when the engine was stopped.
    assert_eq!(sum(&updates, |update| update.delta.arrived), 647);
    let last = captured.last().unwrap();
    let first = &captured[0];
    let gained = |name: &str| last.count(name, &[]).unwrap() - first.count(name, &[]).unwrap();
    assert_eq!(
        sum(&updates, |update| update.delta.generation_tokens),
        gained("vllm:generation_tokens_total")
    );
    assert_eq!(sum(&updates, |update| update.delta.prompt_tokens), gained("vllm:prompt_tokens_total"));
    assert_eq!(sum(&updates, |update| update.delta.preemptions), gained("vllm:num_preemptions_total"));
}

#[test]
fn requests_of_clients_that_left_are_no_arrivals_on_vllm() {
    let captured = pages("vllm-0.32.0.pages.zst");
    let aborted: Vec<_> = captured.into_iter().filter(|page| page.name.starts_with("abort_")).collect();
    let names: Vec<_> = aborted.iter().map(|page| page.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "abort_before_0",
            "abort_after0_0",
            "abort_after1_0",
            "abort_after2_0",
            "abort_after3_0",
            "abort_after_late_0"
        ]
    );
    let updates = follow(&aborted);
    assert_eq!(updates[0].gauges.running.zip(updates[0].gauges.waiting).map(|(r, w)| r + w), Some(33));
    assert!(updates.iter().all(|update| update.delta.arrived == Some(0)));
}

#[test]
fn a_stopped_engine_makes_no_progress() {
    for (fixture, other) in [("vllm-0.32.0.pages.zst", "load2_1"), ("sglang-0.5.23.pages.zst", "during_1")] {
        let captured = pages(fixture);
        let of = |prefix: &str| {
            let mut tracker = EngineTracker::new();
            let pages = captured.iter().filter(|page| page.name.starts_with(prefix));
            pages.map(|page| tracker.observe(&page.read())).collect::<Vec<_>>()
        };
        let stopped = of("hang_");
        assert!(stopped.len() >= 4);
        assert_eq!(stopped[0].delta.progress, None, "{fixture}: nothing to compare with");
        for update in &stopped[1..] {
            assert!(update.gauges.running > Some(0), "{fixture}");
            assert_eq!(update.delta.progress, Some(false), "{fixture}");
            assert_eq!(update.delta.arrived, Some(0), "{fixture}");
        }
        for update in of(other).iter().skip(1).filter(|update| update.gauges.running > Some(0)) {
            assert_eq!(update.delta.progress, Some(true), "{fixture}");
        }
    }
}

#[test]
fn all_pages_of_sglang_are_read_exactly() {
    const COUNTERS: Places = &[
        (Counter::PromptTokens, "sglang:prompt_tokens_total", &[]),
        (Counter::GenerationTokens, "sglang:generation_tokens_total", &[]),
        (Counter::LivePrefill, "sglang:realtime_tokens_total", &["\"prefill_compute\""]),
        (Counter::LiveCached, "sglang:realtime_tokens_total", &["\"prefill_cache\""]),
        (Counter::LiveDecoded, "sglang:realtime_tokens_total", &["\"decode\""]),
        (Counter::PrefixHits, "sglang:cached_tokens_total", &["\"device\""]),
        (Counter::Ended, "sglang:num_requests_total", &[]),
        (Counter::Started, "sglang:http_requests_total", &["\"/v1/completions\"", "\"POST\""]),
        (Counter::Aborted, "sglang:num_aborted_requests_total", &[]),
    ];
    const FAMILIES: Families = &[
        (DistributionKind::Ttft, "sglang:time_to_first_token_seconds"),
        (DistributionKind::ItlToken, "sglang:inter_token_latency_seconds"),
        (DistributionKind::Tpot, "sglang:request_time_per_output_token_seconds"),
        (DistributionKind::E2e, "sglang:e2e_request_latency_seconds"),
        (DistributionKind::Queue, "sglang:queue_time_seconds"),
        (DistributionKind::Isl, "sglang:prompt_tokens_histogram"),
        (DistributionKind::Osl, "sglang:generation_tokens_histogram"),
    ];
    let captured = pages("sglang-0.5.23.pages.zst");
    let captured: Vec<_> = captured.into_iter().filter(|page| page.name != "loads_during").collect();
    assert_eq!(captured.len(), 24);
    for captured in &captured {
        let (page, name) = (captured.read(), &captured.name);
        compare(captured, &page, COUNTERS, FAMILIES);
        assert_eq!((page.kind, page.role), (Some(EngineKind::Sglang), Some(Role::Aggregated)), "{name}");
        assert_eq!(page.model.as_ref().map(|model| model.as_str()), Some("tiny-llama"), "{name}");
        assert_eq!(page.kv_capacity_tokens, Some(1280), "{name}");
        let gauges = page.gauges;
        assert_eq!(gauges.running, captured.count("sglang:num_running_reqs", &[]), "{name}");
        assert_eq!(gauges.waiting, captured.count("sglang:num_queue_reqs", &[]), "{name}");
        assert_eq!((gauges.waiting_capacity, gauges.waiting_deferred), (gauges.waiting, Some(0)), "{name}");
        let usage = raw_ppm(captured.raw("sglang:full_token_usage", &[]));
        assert_eq!((ppm(gauges.kv_usage), ppm(gauges.kv_usage_max)), (usage, usage), "{name}");
        assert_eq!(
            ppm(gauges.prefix_hit_ratio),
            raw_ppm(captured.raw("sglang:cache_hit_rate", &[])),
            "{name}"
        );
        // Nothing is speculated, nothing sleeps, and there is no tier below.
        assert_eq!(
            (gauges.spec_acceptance, gauges.sleep, gauges.kv_offload_usage),
            (None, None, None),
            "{name}"
        );
        assert_eq!(gauges.paused, Some(0), "{name}");
    }
}

#[test]
fn all_pages_of_sglang_are_followed_exactly() {
    let captured = pages("sglang-0.5.23.pages.zst");
    let captured: Vec<_> = captured.into_iter().filter(|page| page.name != "loads_during").collect();
    let updates = follow(&captured);
    assert!(updates.iter().all(|update| update.delta.resets == 0));
    let (load, hang): (Vec<_>, Vec<_>) =
        updates.into_iter().zip(&captured).partition(|(_, page)| !page.name.starts_with("hang_"));
    let load: Vec<_> = load.into_iter().map(|(update, _)| update).collect();
    let hang: Vec<_> = hang.into_iter().map(|(update, _)| update).collect();
    // 60 requests of the load, and 40 that had come when the engine was stopped.
    assert_eq!(sum(&load, |update| update.delta.arrived), 60);
    assert_eq!(sum(&load, |update| update.delta.ended), 60);
    assert_eq!(sum(&hang, |update| update.delta.arrived), 40);
    // At the end of the load what was counted as it ran is what was counted as requests ended: 6008 tokens for 61
    // requests, of which the first had 8 before the first page.
    let total = |name| captured[19].count(name, &[]).unwrap() - captured[0].count(name, &[]).unwrap();
    assert_eq!(captured[19].name, "during_15");
    assert_eq!(sum(&load, |update| update.delta.generation_tokens), total("sglang:generation_tokens_total"));
    assert_eq!(sum(&load, |update| update.delta.prompt_tokens), total("sglang:prompt_tokens_total"));
    assert_eq!(sum(&load, |update| update.delta.prefix_hits), 1022);
}

#[test]
fn sglangs_snapshots_are_newer_than_its_page() {
    let captured = pages("sglang-0.5.23.pages.zst");
    let lines = &captured.iter().find(|page| page.name == "loads_during").unwrap().text;
    let page = captured.iter().find(|page| page.name == "during_05").unwrap();
    let mut seen = Vec::new();
    for line in lines.lines() {
        let (_, answer) = line.split_once(' ').unwrap();
        let told: serde_json::Value = serde_json::from_str(answer).unwrap();
        let (told, mut page) = (&told["loads"][0], page.read());
        super::read_loads(answer.as_bytes()).unwrap().lay_over(&mut page);
        let gauges = page.gauges;
        assert_eq!(gauges.running, told["num_running_reqs"].as_u64());
        assert_eq!(gauges.waiting, told["num_waiting_reqs"].as_u64());
        let used = told["num_used_tokens"].as_f64().unwrap() / 1280.0;
        assert_eq!(ppm(gauges.kv_usage), raw_ppm(Some(used)));
        assert_eq!(gauges.snapshot_time, told["timestamp"].as_f64());
        assert_eq!(page.kv_capacity_tokens, Some(1280));
        seen.push((gauges.running, gauges.waiting));
    }
    // The page of the same second shows a batch of nobody, between a prefill and its first decode steps.
    assert_eq!((page.read().gauges.running, page.read().gauges.waiting), (Some(0), Some(22)));
    assert!(seen.contains(&(Some(9), Some(31))));
}

#[test]
fn all_pages_of_dynamos_front_end_are_read_exactly() {
    const COUNTERS: Places = &[
        (Counter::FrontendStarted, "dynamo_frontend_requests_started_total", &[]),
        (Counter::FrontendEnded, "dynamo_frontend_requests_total", &[]),
    ];
    const FAMILIES: Families = &[
        (DistributionKind::FrontendTtft, "dynamo_frontend_time_to_first_token_seconds"),
        (DistributionKind::FrontendItl, "dynamo_frontend_inter_token_latency_seconds"),
        (DistributionKind::FrontendE2e, "dynamo_frontend_request_duration_seconds"),
        (DistributionKind::FrontendIsl, "dynamo_frontend_input_sequence_tokens"),
        (DistributionKind::FrontendOsl, "dynamo_frontend_output_sequence_tokens"),
    ];
    let captured = pages("dynamo-mocker-1.6.1.frontend.pages.zst");
    assert_eq!(captured.len(), 8);
    for captured in &captured {
        let (page, name) = (captured.read(), &captured.name);
        compare(captured, &page, COUNTERS, FAMILIES);
        assert_eq!(page.kind, Some(EngineKind::DynamoFrontend), "{name}");
        assert_eq!(page.model.as_ref().map(|model| model.as_str()), Some("tiny-llama"), "{name}");
        let gauges = page.gauges;
        assert_eq!(
            gauges.frontend_inflight,
            captured.count("dynamo_frontend_active_requests", &[]),
            "{name}"
        );
        assert_eq!(gauges.frontend_queued, captured.count("dynamo_frontend_queued_requests", &[]), "{name}");
        // It is no engine: nothing of it may be added to what engines tell.
        assert_eq!((gauges.running, gauges.waiting, gauges.kv_usage), (None, None, None), "{name}");
    }
    let updates = follow(&captured);
    assert_eq!(sum(&updates, |update| update.delta.frontend_arrived), 150);
    assert!(updates.iter().all(|update| update.delta.arrived.is_none() && update.delta.resets == 0));
}

#[test]
fn the_engine_of_a_dynamo_worker_wins_and_its_worker_adds() {
    let captured = pages("dynamo-mocker-1.6.1.worker.pages.zst");
    assert_eq!(captured.len(), 8);
    for captured in &captured {
        let (page, name) = (captured.read(), &captured.name);
        // The engine's families come with the first request.
        let served = captured.text.contains("vllm:");
        let kind = if served { EngineKind::Vllm } else { EngineKind::DynamoWorker };
        assert_eq!(page.kind, Some(kind), "{name}");
        assert_eq!(captured.read_as(Some(EngineKind::DynamoWorker)), page, "{name}");
        let generate = &["dynamo_endpoint=\"generate\""];
        let started = captured.count("dynamo_component_requests_total", generate);
        assert_eq!(total(&page, Counter::Started), started, "{name}");
        let inflight = captured.count("dynamo_component_inflight_requests", generate);
        let running = captured.count("vllm:num_requests_running", &[]);
        assert_eq!(page.gauges.running, running.or(inflight), "{name}");
        assert_eq!(page.gauges.waiting, captured.count("vllm:num_requests_waiting", &[]), "{name}");
        assert_eq!(
            ppm(page.gauges.kv_usage),
            raw_ppm(captured.raw("vllm:kv_cache_usage_perc", &[])),
            "{name}"
        );
        assert_eq!(page.quality, PageQuality::default(), "{name}");
    }
    let updates = follow(&captured);
    assert_eq!(sum(&updates, |update| update.delta.arrived), 150);
    assert!(updates.iter().all(|update| update.delta.resets == 0));
}

#[test]
fn dynamos_other_simulated_engines_are_recognised() {
    let captured = pages("dynamo-mocker-1.6.1.other-workers.pages.zst");
    let seen: Vec<_> = captured
        .iter()
        .map(|captured| {
            let page = captured.read();
            let kinds: Vec<_> = page.histograms.keys().map(|kind| kind.as_str()).collect();
            (captured.name.as_str(), page.kind.unwrap(), page.gauges.running, page.gauges.waiting, kinds)
        })
        .collect();
    let kinds = vec!["ttft", "itl_token", "e2e"];
    let expected = |at: usize, name, kind, prefix: &str, queue: &str| {
        let running = captured[at]
            .count(&format!("{prefix}running{}", if queue == "queue_reqs" { "_reqs" } else { "" }), &[]);
        let waiting = captured[at].count(&format!("{prefix}{queue}"), &[]);
        assert!(running.is_some() && waiting.is_some(), "{name}");
        (name, kind, running, waiting, kinds.clone())
    };
    assert_eq!(
        seen,
        [
            expected(0, "sglang_during", EngineKind::Sglang, "sglang:num_", "queue_reqs"),
            expected(1, "sglang_after", EngineKind::Sglang, "sglang:num_", "queue_reqs"),
            expected(2, "trtllm_during", EngineKind::TensorRtLlm, "trtllm:num_requests_", "waiting"),
            expected(3, "trtllm_after", EngineKind::TensorRtLlm, "trtllm:num_requests_", "waiting"),
        ]
    );
}
