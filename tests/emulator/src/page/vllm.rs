//! vLLM's own families, under the names of its versions.

use crate::{
    config::Config,
    histogram::Histogram,
    page::text::{Label, Page},
    state::{EngineState, vllm::Histograms},
    version::Version,
};

/// Writes every engine family but the cache configuration.
pub(crate) fn write(
    page: &mut Page,
    config: &Config,
    state: &EngineState,
    histograms: &Histograms,
    created: f64,
) {
    let mut engine = Families { page, model: &config.model, version: &config.version, created };
    utilization_estimates(&mut engine);
    gauges(&mut engine, state);
    cache_counters(&mut engine, state);
    token_counters(&mut engine, state);
    request_counters(&mut engine, state);
    token_histograms(&mut engine, histograms);
    latency_histograms(&mut engine, histograms);
    block_histograms(&mut engine, histograms);
}

struct Families<'a> {
    page: &'a mut Page,
    model: &'a str,
    version: &'a Version,
    created: f64,
}

impl<'a> Families<'a> {
    /// Whether the version is this one or newer; the patch is 0.
    fn since(&self, minor: u32) -> bool {
        self.version.at_least(0, minor, 0)
    }

    /// The engine's label where there is one, the model's, and more, in the alphabet's order.
    fn labels<'b>(&self, extra: &[Label<'b>]) -> Vec<Label<'b>>
    where
        'a: 'b,
    {
        let mut labels = vec![("model_name", self.model)];
        if self.since(8) {
            labels.push(("engine", "0"));
        }
        labels.extend(extra);
        labels.sort_unstable();
        labels
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.page.family(name, "gauge", help);
        let labels = self.labels(&[]);
        self.page.sample(name, &labels, value);
    }

    /// A gauge with one series for each value of a label.
    fn gauges(&mut self, name: &str, help: &str, label: &str, series: &[(&str, f64)]) {
        self.page.family(name, "gauge", help);
        for (value, number) in series {
            let labels = self.labels(&[(label, value)]);
            self.page.sample(name, &labels, *number);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let series = [(self.labels(&[]), value)];
        Self::write_counter(self.page, self.created, name, help, &series);
    }

    /// A counter with one series for each value of a label.
    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        let series: Vec<(Vec<Label<'_>>, u64)> =
            values.iter().map(|(value, number)| (self.labels(&[(label, *value)]), *number)).collect();
        Self::write_counter(self.page, self.created, name, help, &series);
    }

    fn write_counter(
        page: &mut Page,
        created: f64,
        name: &str,
        help: &str,
        series: &[(Vec<Label<'_>>, u64)],
    ) {
        page.family(name, "counter", help);
        for (labels, value) in series {
            page.sample(name, labels, *value as f64);
        }
        let began: Vec<(Vec<Label<'_>>, f64)> =
            series.iter().map(|(labels, _)| (labels.clone(), created)).collect();
        page.created(name.trim_end_matches("_total"), help, &began);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let labels = self.labels(&[]);
        // The bucket's label sorts between the two.
        let (before, after): (Vec<_>, Vec<_>) = labels.iter().partition(|(label, _)| *label < "le");
        self.page.family(name, "histogram", help);
        self.page.histogram(name, &before, &after, histogram);
        self.page.created(name, help, &[(labels, self.created)]);
    }
}

fn utilization_estimates(engine: &mut Families<'_>) {
    if !engine.since(16) {
        return;
    }
    engine.counter(
        "vllm:estimated_flops_per_gpu_total",
        "Floating point operations per GPU (not estimated).",
        0,
    );
    engine.counter(
        "vllm:estimated_read_bytes_per_gpu_total",
        "Memory bytes read per GPU (not estimated).",
        0,
    );
    engine.counter(
        "vllm:estimated_write_bytes_per_gpu_total",
        "Memory bytes written per GPU (not estimated).",
        0,
    );
}

fn gauges(engine: &mut Families<'_>, state: &EngineState) {
    let (running, waiting) = (f64::from(state.load.running), f64::from(state.load.waiting));
    engine.gauge("vllm:num_requests_running", "Requests that hold KV blocks.", running);
    engine.gauge("vllm:num_requests_waiting", "Requests in the queue.", waiting);
    if engine.since(20) {
        engine.gauges(
            "vllm:num_requests_waiting_by_reason",
            "Requests in the queue by what they wait for.",
            "reason",
            &[("capacity", waiting), ("deferred", 0.0)],
        );
    }
    if engine.since(11) {
        let is = |level| f64::from(u8::from(state.sleep == level));
        engine.gauges(
            "vllm:engine_sleep_state",
            "Whether the engine is awake, or how deep it sleeps.",
            "sleep_state",
            &[("awake", is(0)), ("weights_offloaded", is(1)), ("discard_all", is(2))],
        );
    }
    let usage = state.load.kv_usage();
    if !engine.since(11) {
        engine.gauge("vllm:gpu_cache_usage_perc", "KV blocks held by requests, 0 to 1.", usage);
    }
    if engine.since(9) {
        engine.gauge("vllm:kv_cache_usage_perc", "KV blocks held by requests, 0 to 1.", usage);
    }
    if !engine.since(8) {
        engine.gauge("vllm:num_requests_swapped", "Requests whose blocks are on the CPU.", 0.0);
        engine.gauge("vllm:cpu_cache_usage_perc", "KV blocks held on the CPU, 0 to 1.", 0.0);
    }
}

fn cache_counters(engine: &mut Families<'_>, state: &EngineState) {
    let totals = &state.totals;
    let (queries, hits) = (totals.cache_query_tokens, totals.cache_hit_tokens);
    let (asked, found) =
        ("Prompt tokens looked up in the prefix cache.", "Prompt tokens found in the prefix cache.");
    if !engine.since(8) {
        let rate = if queries == 0 { -1.0 } else { hits as f64 / queries as f64 };
        engine.gauge("vllm:gpu_prefix_cache_hit_rate", "Share of prompt tokens found, 0 to 1.", rate);
    } else if !engine.since(11) {
        engine.counter("vllm:gpu_prefix_cache_queries_total", asked, queries);
        engine.counter("vllm:gpu_prefix_cache_hits_total", found, hits);
    }
    if engine.since(9) {
        engine.counter("vllm:prefix_cache_queries_total", asked, queries);
        engine.counter("vllm:prefix_cache_hits_total", found, hits);
    }
    if engine.since(12) {
        for (name, help) in [
            ("vllm:external_prefix_cache_queries_total", "Prompt tokens looked up in other engines' caches."),
            ("vllm:external_prefix_cache_hits_total", "Prompt tokens found in other engines' caches."),
            ("vllm:mm_cache_queries_total", "Items looked up in the multi-modal cache."),
            ("vllm:mm_cache_hits_total", "Items found in the multi-modal cache."),
        ] {
            engine.counter(name, help, 0);
        }
    }
    engine.counter(
        "vllm:num_preemptions_total",
        "Times that a request lost its KV blocks.",
        totals.preemptions,
    );
}

fn token_counters(engine: &mut Families<'_>, state: &EngineState) {
    let (prompt, cached) = (state.prompt_tokens, state.prompt_tokens_cached);
    engine.counter("vllm:prompt_tokens_total", "Prompt tokens of requests past their prefill.", prompt);
    if engine.since(16) {
        engine.counters(
            "vllm:prompt_tokens_by_source_total",
            "Prompt tokens by where their keys and values came from.",
            "source",
            &[("local_compute", prompt - cached), ("local_cache_hit", cached), ("external_kv_transfer", 0)],
        );
        engine.counter("vllm:prompt_tokens_cached_total", "Prompt tokens that came from a cache.", cached);
        engine.counters(
            "vllm:prompt_tokens_cached_by_source_total",
            "Prompt tokens found in a cache, by its tier, counted at admission.",
            "source",
            &[
                ("device", state.totals.cache_hit_tokens),
                ("host", 0),
                ("p2p", 0),
                ("disk", 0),
                ("external_unspecified", 0),
            ],
        );
    }
    engine.counter("vllm:generation_tokens_total", "Tokens generated.", state.totals.generated_tokens);
}

fn request_counters(engine: &mut Families<'_>, state: &EngineState) {
    // Aborted requests are not counted here: so it is in the real engine.
    let reasons = [
        ("stop", state.finished_stop),
        ("length", state.finished_length),
        ("abort", 0),
        ("error", 0),
        ("repetition", 0),
    ];
    let known = if engine.since(16) { reasons.len() } else { 3 };
    let help = "Requests that ended, by why.";
    engine.counters("vllm:request_success_total", help, "finished_reason", &reasons[..known]);
    if !engine.since(20) {
        return;
    }
    // This family has no engine label: requests are refused before one is chosen.
    let series = [
        (vec![("model_name", engine.model), ("reason", "max_num_queued_reqs")], state.rejected_queue_full),
        (vec![("model_name", engine.model), ("reason", "max_num_queued_tokens")], 0),
    ];
    let help = "Requests refused because of a limit on the queue.";
    Families::write_counter(engine.page, engine.created, "vllm:admission_rejections_total", help, &series);
}

fn token_histograms(engine: &mut Families<'_>, h: &Histograms) {
    engine.histogram(
        "vllm:request_prompt_tokens",
        "Prompt tokens of finished requests.",
        &h.request_prompt_tokens,
    );
    engine.histogram(
        "vllm:request_generation_tokens",
        "Generated tokens of finished requests.",
        &h.request_generation_tokens,
    );
    engine.histogram(
        "vllm:iteration_tokens_total",
        "Tokens generated in an iteration and prompt tokens computed for them.",
        &h.iteration_tokens,
    );
    engine.histogram(
        "vllm:request_max_num_generation_tokens",
        "Generated tokens of the longest answer of finished requests.",
        &h.request_max_num_generation_tokens,
    );
    engine.histogram("vllm:request_params_n", "The n of finished requests.", &h.request_params_n);
    engine.histogram(
        "vllm:request_params_max_tokens",
        "The max_tokens of finished requests.",
        &h.request_params_max_tokens,
    );
}

fn latency_histograms(engine: &mut Families<'_>, h: &Histograms) {
    engine.histogram("vllm:time_to_first_token_seconds", "Arrival to first token, seconds.", &h.ttft);
    // Between 0.10.2 and 0.11 under both names at once.
    if !engine.since(12) {
        let name = "vllm:time_per_output_token_seconds";
        engine.histogram(name, "One token to the next, seconds.", &h.itl);
    }
    if engine.version.at_least(0, 10, 2) {
        engine.histogram("vllm:inter_token_latency_seconds", "One token to the next, seconds.", &h.itl);
    }
    if engine.since(11) {
        engine.histogram(
            "vllm:request_time_per_output_token_seconds",
            "Decode time per token after the first, of finished requests, seconds.",
            &h.tpot,
        );
    }
    engine.histogram("vllm:e2e_request_latency_seconds", "Arrival to last token, seconds.", &h.e2e);
    engine.histogram("vllm:request_queue_time_seconds", "Arrival to first scheduling, seconds.", &h.queue);
    engine.histogram(
        "vllm:request_inference_time_seconds",
        "First scheduling to last token, seconds.",
        &h.inference,
    );
    engine.histogram(
        "vllm:request_prefill_time_seconds",
        "First scheduling to first token, seconds.",
        &h.prefill,
    );
    engine.histogram("vllm:request_decode_time_seconds", "First token to last token, seconds.", &h.decode);
}

fn block_histograms(engine: &mut Families<'_>, h: &Histograms) {
    if engine.since(31) {
        let name = "vllm:request_num_preemptions";
        engine.histogram(name, "Preemptions of finished requests.", &h.num_preemptions);
    }
    if !engine.since(16) {
        return;
    }
    engine.histogram(
        "vllm:request_prefill_kv_computed_tokens",
        "Prompt tokens computed, not cached, of finished requests.",
        &h.prefill_kv_computed_tokens,
    );
    engine.histogram("vllm:kv_block_lifetime_seconds", "Life of a KV block (not sampled).", &h.kv_blocks);
    engine.histogram(
        "vllm:kv_block_idle_before_evict_seconds",
        "Idle end of a KV block (not sampled).",
        &h.kv_blocks,
    );
    engine.histogram(
        "vllm:kv_block_reuse_gap_seconds",
        "Time between uses of a KV block (not sampled).",
        &h.kv_blocks,
    );
}
