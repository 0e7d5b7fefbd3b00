//! The page of trtllm-serve at `/prometheus/metrics`. From its source; never compared with a running one.

use crate::{
    config::Config,
    histogram::Histogram,
    page::text::{Label, Page},
    state::trtllm::{Iteration, Trtllm},
};

/// Writes every family that has a value.
pub(crate) fn write(page: &mut Page, config: &Config, shown: &Trtllm) {
    let spelling = Spelling::of(config);
    let mut families = Families { page, spelling };
    if spelling.is_old() {
        requests(&mut families, shown);
        return;
    }
    requests(&mut families, shown);
    phases(&mut families, shown);
    tokens(&mut families, shown);
    if let Some(iteration) = &shown.shown {
        iterations(&mut families, config, shown, iteration);
    }
    info(&mut families, config);
}

/// How a version writes names and labels.
#[derive(Clone, Copy, Debug)]
struct Spelling<'a> {
    prefix: &'static str,
    model: &'a str,
    engine_type: &'static str,
}

impl<'a> Spelling<'a> {
    fn of(config: &'a Config) -> Self {
        if config.version.is_dynamo() {
            Self { prefix: "trtllm:", model: &config.model, engine_type: "trtllm" }
        } else if config.version.at_least(1, 3, 0) {
            Self { prefix: "trtllm_", model: &config.model, engine_type: "pytorch" }
        } else {
            Self { prefix: "", model: "undefined", engine_type: "undefined" }
        }
    }

    /// Up to 1.2 there were five families and no more.
    fn is_old(&self) -> bool {
        self.prefix != "trtllm_"
    }
}

struct Families<'a> {
    page: &'a mut Page,
    spelling: Spelling<'a>,
}

impl Families<'_> {
    fn open(&mut self, name: &str, kind: &str, help: &str) -> String {
        let name = format!("{}{name}", self.spelling.prefix);
        self.page.family(&name, kind, help);
        name
    }

    fn sample(&mut self, name: &str, extra: &[Label<'_>], value: f64) {
        let mut labels =
            vec![("engine_type", self.spelling.engine_type), ("model_name", self.spelling.model)];
        labels.extend(extra);
        labels.sort_unstable();
        self.page.sample(name, &labels, value);
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        let name = self.open(name, kind, help);
        self.sample(&name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        if histogram.count() == 0 {
            return;
        }
        let name = self.open(name, "histogram", help);
        let labels = [("engine_type", self.spelling.engine_type), ("model_name", self.spelling.model)];
        self.page.merged_histogram(&name, &labels, histogram);
    }
}

fn requests(page: &mut Families<'_>, shown: &Trtllm) {
    if shown.stop + shown.length > 0 {
        let name = page.open("request_success_total", "counter", "Requests that ended, by why.");
        for (reason, count) in [("stop", shown.stop), ("length", shown.length)] {
            if count > 0 {
                page.sample(&name, &[("finished_reason", reason)], count as f64);
            }
        }
    }
    let h = &shown.histograms;
    page.histogram("e2e_request_latency_seconds", "Arrival to last token, seconds.", &h.e2e);
    page.histogram("time_to_first_token_seconds", "Arrival to first token, seconds.", &h.ttft);
    page.histogram(
        "time_per_output_token_seconds",
        "Decode time per token after the first, seconds.",
        &h.tpot,
    );
    page.histogram("request_queue_time_seconds", "Arrival to first scheduling, seconds.", &h.queue);
}

fn phases(page: &mut Families<'_>, shown: &Trtllm) {
    let h = &shown.histograms;
    page.histogram("request_prefill_time_seconds", "First scheduling to first token, seconds.", &h.prefill);
    page.histogram("request_decode_time_seconds", "First token to last token, seconds.", &h.decode);
    page.histogram(
        "request_inference_time_seconds",
        "First scheduling to last token, seconds.",
        &h.inference,
    );
}

fn tokens(page: &mut Families<'_>, shown: &Trtllm) {
    for (name, help, value) in [
        ("prompt_tokens_total", "Prompt tokens of ended requests.", shown.prompt_tokens),
        ("generation_tokens_total", "Generated tokens of ended requests.", shown.generation_tokens),
    ] {
        if value > 0 {
            page.one(name, "counter", help, value as f64);
        }
    }
    let help = "Prompt tokens of ended requests that came from the cache.";
    page.one("prompt_cached_tokens_total", "counter", help, shown.cached_tokens as f64);
    let help = "Cached prompt tokens of ended requests.";
    page.histogram("prompt_cached_tokens_per_request", help, &shown.histograms.cached_tokens);
}

fn iterations(page: &mut Families<'_>, config: &Config, shown: &Trtllm, iteration: &Iteration) {
    let most = f64::from(config.engine.max_num_seqs);
    let blocks = f64::from(iteration.blocks);
    let (reused, missed) = (iteration.reused_blocks as f64, iteration.missed_blocks as f64);
    let memory = config.gpus.memory_bytes as f64;
    for (name, help, value) in [
        (
            "kv_cache_hit_rate",
            "Share of prompt blocks found in the cache.",
            reused / (reused + missed).max(1.0),
        ),
        (
            "kv_cache_utilization",
            "Share of KV blocks held.",
            f64::from(iteration.used_blocks) / blocks.max(1.0),
        ),
        ("num_requests_running", "Requests that run.", f64::from(iteration.active)),
        ("num_requests_waiting", "Requests in the queue.", f64::from(iteration.queued)),
        ("max_num_active_requests", "Requests that may run.", most),
        ("iteration_latency_seconds", "Duration of the iteration, seconds.", iteration.took.as_secs_f64()),
        ("gpu_memory_usage_bytes", "GPU memory in use, bytes.", memory),
        ("max_batch_size_static", "Configured batch size.", most),
        ("max_batch_size_runtime", "Batch size in force.", most),
        (
            "max_num_tokens_runtime",
            "Tokens an iteration may compute.",
            f64::from(config.engine.max_num_batched_tokens),
        ),
        ("kv_cache_max_blocks", "KV blocks.", blocks),
        ("kv_cache_free_blocks", "Free KV blocks.", blocks - f64::from(iteration.used_blocks)),
        ("kv_cache_used_blocks", "KV blocks held.", f64::from(iteration.used_blocks)),
        ("kv_cache_tokens_per_block", "Tokens in a KV block.", f64::from(config.engine.block_size)),
        ("num_context_requests", "Requests in prefill.", iteration.context as f64),
        ("num_generation_requests", "Requests in decode.", iteration.generating as f64),
        ("num_paused_requests", "Requests that lost their blocks.", iteration.paused as f64),
        (
            "num_scheduled_requests",
            "Requests in the iteration.",
            (iteration.context + iteration.generating) as f64,
        ),
        ("total_context_tokens", "Prompt tokens of the iteration.", iteration.context_tokens as f64),
        ("avg_decoded_tokens_per_iter", "Tokens a request and iteration.", 1.0),
        (
            "prefill_batch_occupancy",
            "Share of the batch that prefills.",
            iteration.context as f64 / most.max(1.0),
        ),
    ] {
        page.one(name, "gauge", help, value);
    }
    for (name, help, value) in [
        ("kv_cache_reused_blocks_total", "Prompt blocks found in the cache.", reused),
        ("kv_cache_missed_blocks_total", "Prompt blocks not found.", missed),
        ("num_requests_completed_total", "Requests completed, over iterations.", shown.completed as f64),
    ] {
        // A counter without any event yet has no sample.
        if value > 0.0 {
            page.one(name, "counter", help, value);
        }
    }
    let help = "Prompt tokens of iterations that prefill.";
    page.histogram("prefill_batch_tokens", help, &shown.histograms.batch_tokens);
}

fn info(page: &mut Families<'_>, config: &Config) {
    let name = page.open("kv_cache_config_info", "gauge", "The KV cache's configuration, in labels.");
    let (block_size, reuse) = (config.engine.block_size.to_string(), config.prefix_caching.to_string());
    page.sample(&name, &[("enable_block_reuse", &reuse), ("page_size", &block_size)], 1.0);
}
