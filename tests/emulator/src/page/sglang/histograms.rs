//! Histograms.

use super::{Families, STREAMING, Sight};
use crate::{
    histogram::Histogram,
    state::sglang::{Answers, Sglang},
};

const IMBALANCE_BOUNDS: [f64; 14] =
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SYNC_BOUNDS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

pub(super) fn scheduler(page: &mut Families<'_>, shown: &Sglang) {
    let h = &shown.histograms;
    let name = "sglang:dp_attention_token_imbalance_ratio";
    page.open(name, "histogram", "Most over mean tokens of ranks in step; there is one rank.");
    page.scheduler_histogram(name, &[], &Histogram::of_counts(IMBALANCE_BOUNDS.to_vec()));
    let name = "sglang:dp_attention_sync_wait_seconds";
    page.open(name, "histogram", "Waiting for other ranks, seconds; there are none.");
    page.scheduler_histogram(name, &[], &Histogram::of_seconds(&SYNC_BOUNDS));
    if h.request_process.count() > 0 {
        let name = "sglang:per_stage_req_latency_seconds";
        page.open(name, "histogram", "Time in each stage of a request, seconds.");
        page.scheduler_histogram(name, &[("stage", "request_process")], &h.request_process);
        if h.prefill_forward.count() > 0 {
            page.scheduler_histogram(name, &[("stage", "prefill_forward")], &h.prefill_forward);
        }
    }
    if h.queue.count() > 0 {
        let name = "sglang:queue_time_seconds";
        page.open(name, "histogram", "Arrival to first scheduling, seconds, known as it is scheduled.");
        page.scheduler_histogram(name, &[], &h.queue);
    }
    if h.eviction.count() > 0 {
        let name = "sglang:eviction_duration_seconds";
        page.open(name, "histogram", "Passes over the prefix cache that forget, seconds.");
        let labels =
            [("cache_type", "UnifiedRadixCache"), ("dp_rank", "0"), ("pp_rank", "0"), ("tp_rank", "0")];
        page.page.merged_histogram(name, &labels, &h.eviction);
    }
}

pub(super) fn front(page: &mut Families<'_>, sight: &Sight<'_>) {
    let (shown, h) = (sight.shown, &sight.shown.histograms);
    if sight.http.loads_durations.count() > 0 {
        let name = "sglang:get_loads_duration_seconds";
        page.open(name, "histogram", "Answering /v1/loads, seconds.");
        page.front_histogram(name, &[], &sight.http.loads_durations);
    }
    let help = "Arrival to the first delivery to the front process, seconds.";
    by_streaming(page, shown, "sglang:time_to_first_token_seconds", help, |answers| &answers.ttft);
    let help = "Arrival to the end, seconds.";
    by_streaming(page, shown, "sglang:e2e_request_latency_seconds", help, |answers| &answers.e2e);
    let help = "First delivery to the end, per token after the first, seconds.";
    let name = "sglang:request_time_per_output_token_seconds";
    by_streaming(page, shown, name, help, |answers| &answers.tpot);
    for (name, help, histogram) in [
        ("sglang:prompt_tokens_histogram", "Prompt tokens of ended requests.", &h.prompt_tokens),
        (
            "sglang:uncached_prompt_tokens_histogram",
            "Computed prompt tokens of ended requests.",
            &h.uncached_prompt_tokens,
        ),
        ("sglang:generation_tokens_histogram", "Generated tokens of ended requests.", &h.generation_tokens),
        ("sglang:inter_token_latency_seconds", "One delivery to the next, per token, seconds.", &h.itl),
    ] {
        if histogram.count() > 0 {
            page.open(name, "histogram", help);
            page.front_histogram(name, &[], histogram);
        }
    }
}

/// A family that is absent until something was observed, and so is each of its two series.
fn by_streaming(
    page: &mut Families<'_>,
    shown: &Sglang,
    name: &str,
    help: &str,
    pick: fn(&Answers) -> &Histogram,
) {
    let series = shown.answers.iter().map(pick).zip(STREAMING).filter(|(histogram, _)| histogram.count() > 0);
    let mut opened = false;
    for (histogram, streaming) in series {
        if !opened {
            page.open(name, "histogram", help);
            opened = true;
        }
        page.front_histogram(name, &[("is_streaming", streaming)], histogram);
    }
}
