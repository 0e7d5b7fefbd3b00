//! What readers of older pages need: the core families under the names that they had. Not a whole page: what else was on
//! those pages was not captured.

use super::{Families, STREAMING, Sight};
use crate::{
    histogram::Histogram,
    page::text::Label,
    state::sglang::{Answers, Sglang},
    version::Version,
};

pub(super) fn write(page: &mut Families<'_>, sight: &Sight<'_>) {
    let version = &sight.config.version;
    counters(page, sight.shown, version);
    gauges(page, sight);
    capacity(page, sight);
    histograms(page, sight.shown, version);
}

fn since(version: &Version, patch: u32) -> bool {
    version.at_least(0, 5, patch)
}

/// The values of `is_streaming`; before 0.5.17 there was no such label.
fn is_split(version: &Version) -> bool {
    since(version, 17)
}

fn counters(page: &mut Families<'_>, shown: &Sglang, version: &Version) {
    let [whole, streamed] = &shown.answers;
    let mut counter = |name: &str, help: &str, pick: fn(&Answers) -> u64| {
        let (not, yes) = (pick(whole), pick(streamed));
        if not + yes == 0 {
            return;
        }
        page.open(name, "counter", help);
        if !is_split(version) {
            page.front(name, &[], (not + yes) as f64);
            return;
        }
        for (value, streaming) in [not, yes].into_iter().zip(STREAMING) {
            if value > 0 {
                page.front(name, &[("is_streaming", streaming)], value as f64);
            }
        }
    };
    counter("sglang:prompt_tokens_total", "Prompt tokens of ended requests.", |a| a.prompt_tokens);
    counter("sglang:generation_tokens_total", "Generated tokens of ended requests.", |a| a.generation_tokens);
    counter("sglang:num_requests_total", "Ended requests.", |a| a.requests);
    let source: &[Label<'_>] = if since(version, 9) { &[("cache_source", "device")] } else { &[] };
    let mut some = |name: &str, help: &str, extra: &[Label<'_>], value: u64| {
        if value > 0 {
            page.open(name, "counter", help);
            page.front(name, extra, value as f64);
        }
    };
    let help = "Prompt tokens of ended requests that came from the cache.";
    some("sglang:cached_tokens_total", help, source, shown.cached_tokens);
    some("sglang:num_aborted_requests_total", "Requests whose clients left.", &[], shown.aborted);
    if since(version, 9) {
        let name = "sglang:num_retracted_requests_total";
        some(name, "Times that a request lost its KV tokens.", &[], shown.retracted);
        let modes = [
            ("prefill_compute", shown.prefill_compute as f64),
            ("prefill_cache", shown.prefill_cache as f64),
            ("decode", shown.decode as f64),
        ];
        let help = "Tokens as they are computed, by kind.";
        page.series("sglang:realtime_tokens_total", "counter", help, "mode", &modes);
    }
}

fn gauges(page: &mut Families<'_>, sight: &Sight<'_>) {
    let (gauges, version) = (&sight.shown.gauges, &sight.config.version);
    page.gauge("sglang:num_running_reqs", "Requests that run.", gauges.running as f64);
    page.gauge("sglang:num_used_tokens", "Tokens that requests hold.", gauges.used_tokens as f64);
    let usage = (gauges.usage() * 100.0).round() / 100.0;
    page.gauge("sglang:token_usage", "Share of the pool that requests hold, rounded.", usage);
    page.gauge("sglang:gen_throughput", "Tokens generated per second.", gauges.gen_throughput);
    page.gauge("sglang:num_queue_reqs", "Requests in the queue.", gauges.queue as f64);
    page.gauge(
        "sglang:cache_hit_rate",
        "Prefix hits of the last prefill batch, 0 to 1.",
        gauges.cache_hit_rate,
    );
    if version.at_least(0, 4, 6) && !since(version, 3) {
        let queue = &sight.shown.histograms.queue;
        let mean = queue.sum() / (queue.count().max(1)) as f64;
        page.gauge("sglang:avg_request_queue_latency", "Mean time in the queue, seconds.", mean);
    }
    if version.at_least(0, 4, 10) && !since(version, 3) {
        let retracted = sight.shown.retracted as f64;
        page.gauge("sglang:total_retracted_reqs", "Requests that lost their KV tokens.", retracted);
    }
}

fn capacity(page: &mut Families<'_>, sight: &Sight<'_>) {
    let (config, version) = (sight.config, &sight.config.version);
    let (page_size, pages) = (config.engine.block_size, config.engine.kv_blocks);
    if since(version, 6) {
        let tokens = sight.shown.gauges.capacity_tokens as f64;
        page.gauge("sglang:max_total_num_tokens", "Tokens that the KV pool holds.", tokens);
    }
    if since(version, 12) {
        page.gauge("sglang:page_size", "Tokens in a KV page.", f64::from(page_size));
        page.gauge("sglang:num_pages", "KV pages.", f64::from(pages));
    } else if since(version, 9) {
        let name = "sglang:cache_config_info";
        page.open(name, "gauge", "The KV pool's configuration, in labels.");
        let (page_size, pages) = (page_size.to_string(), pages.to_string());
        page.scheduler(name, &[("page_size", &page_size), ("num_pages", &pages)], 1.0);
    }
}

fn histograms(page: &mut Families<'_>, shown: &Sglang, version: &Version) {
    let queue = &shown.histograms.queue;
    if since(version, 4) && queue.count() > 0 {
        page.open("sglang:queue_time_seconds", "histogram", "Arrival to first scheduling, seconds.");
        page.scheduler_histogram("sglang:queue_time_seconds", &[], queue);
    } else if since(version, 2) && queue.count() > 0 {
        page.open("sglang:queue_time_s", "histogram", "Arrival to first scheduling, seconds.");
        page.scheduler_histogram("sglang:queue_time_s", &[], queue);
    }
    let mut split = |name: &str, help: &str, pick: fn(&Answers) -> &Histogram| {
        let [whole, streamed] = &shown.answers;
        let all = pick(whole).merged(pick(streamed));
        if all.count() == 0 {
            return;
        }
        page.open(name, "histogram", help);
        if !is_split(version) {
            page.front_histogram(name, &[], &all);
            return;
        }
        for (histogram, streaming) in [pick(whole), pick(streamed)].into_iter().zip(STREAMING) {
            if histogram.count() > 0 {
                page.front_histogram(name, &[("is_streaming", streaming)], histogram);
            }
        }
    };
    let help = "Arrival to the first delivery to the front process, seconds.";
    split("sglang:time_to_first_token_seconds", help, |answers| &answers.ttft);
    split("sglang:e2e_request_latency_seconds", "Arrival to the end, seconds.", |answers| &answers.e2e);
    if since(version, 22) {
        let name = "sglang:request_time_per_output_token_seconds";
        split(name, "First delivery to the end, per token after the first, seconds.", |answers| {
            &answers.tpot
        });
    }
    let itl = &shown.histograms.itl;
    if itl.count() > 0 {
        let name = "sglang:inter_token_latency_seconds";
        page.open(name, "histogram", "One delivery to the next, per token, seconds.");
        page.front_histogram(name, &[], itl);
    }
}
