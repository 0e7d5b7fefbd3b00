//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};

/// An LLM inference engine without a GPU.
///
/// Serves the OpenAI API (streaming and not) and the metrics page of a real engine, with latencies from an
/// iteration-level model: continuous batching, chunked prefill, KV blocks, preemption, prefix cache.
///
/// Tokens: a prompt given as an array of token ids has exactly that many; of text, four bytes of UTF-8 are one token,
/// and a chat is the text "role: content\n" of each message and "assistant: ". Every answer has max_tokens tokens,
/// except those that --stop-fraction ends early.
///
/// Example: plimsoll-emulator --profile qwen3-32b-h200-tp2 --listen 127.0.0.1:8000 --request-log requests.jsonl
#[derive(Clone, Debug, Parser)]
#[command(name = "plimsoll-emulator", version)]
pub struct Args {
    /// Address to serve on; port 0 takes a free one (see --address-file)
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// Once the port is bound, write {"http":"ADDR:PORT"} here, atomically; with --admin also "admin"
    #[arg(long, value_name = "PATH")]
    pub address_file: Option<PathBuf>,

    /// Which engine's metrics page and manners to show
    #[arg(long, value_enum, default_value_t = Kind::Vllm)]
    pub engine: Kind,

    /// The engine's version, which decides the names on its page; 0.32.0, 0.5.23 or 1.3.0 if not given. TensorRT-LLM
    /// also as 1.2-dynamo, which is how Dynamo spelt its names
    #[arg(long, value_name = "VERSION")]
    pub engine_version: Option<String>,

    /// Where states and faults can be switched at run time, a port of its own on loopback; GET / there tells how
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,

    /// Do this so many seconds after the start; repeat for several: freeze, thaw, sleep, sleep:2, wake, gone, back,
    /// restart (at once), restart:SECONDS (down for so long), slow:SECONDS, torn:cut, torn:short, torn:mixed, locked,
    /// heal (neither slow nor torn nor locked). Example: --at 30=freeze --at 45=thaw
    #[arg(long = "at", value_name = "SECONDS=WHAT")]
    pub script: Vec<String>,

    /// Served model name; the profile's model if not given
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Built-in engine profile, a profile's JSON file, or a profiler's tables; an unknown name is answered with the known ones
    #[arg(long, value_name = "NAME|FILE", default_value = "llama-3.1-8b-h200-tp1")]
    pub profile: String,

    /// Tokens that one iteration may compute; 8192 if not given
    #[arg(long, value_name = "TOKENS")]
    pub max_num_batched_tokens: Option<u32>,

    /// Sequences that may run at once; 256 if not given
    #[arg(long, visible_alias = "max-running-requests", value_name = "N")]
    pub max_num_seqs: Option<u32>,

    /// Requests that may wait; more are answered with 503. No limit of note if not given
    #[arg(long, value_name = "N")]
    pub max_num_queued_reqs: Option<u32>,

    /// KV blocks; the profile's KV tokens by the block size if not given. In vLLM one of them is the engine's own
    #[arg(long, value_name = "N")]
    pub num_gpu_blocks: Option<u32>,

    /// Tokens in a KV block
    #[arg(long, visible_alias = "page-size", value_name = "TOKENS", default_value_t = 16)]
    pub block_size: u32,

    /// Longest request, prompt and output; the profile's, or what the KV cache holds, if not given
    #[arg(long, visible_alias = "context-length", value_name = "TOKENS")]
    pub max_model_len: Option<u32>,

    /// Forget prompts: no prefix-cache hits
    #[arg(long)]
    pub no_enable_prefix_caching: bool,

    /// Tell in each answer's usage how many prompt tokens the prefix cache held
    #[arg(long)]
    pub enable_prompt_tokens_details: bool,

    /// Share of answers that end with "stop" before max_tokens, 0 to 1. Which ones and where depends on prompt,
    /// max_tokens and --seed alone
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub stop_fraction: f64,

    /// Seed of all that is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Iterations are this many times faster than the profile says; 10 makes a load test ten times shorter
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub speed: f64,

    /// Bind the port only after this many seconds, as an engine that loads its weights
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub startup_delay: f64,

    /// Then answer /health and /ready with 503 for so long; vLLM has no such time and ignores it
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub warmup: f64,

    /// On SIGTERM, answer new requests with 503 and finish those in flight; by default they are cut off, but SGLang
    /// always drains
    #[arg(long)]
    pub drain: bool,

    /// Longest drain; what is in flight then is cut off
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    pub drain_timeout: f64,

    /// Other histogram bounds, as vLLM takes them: {"time_to_first_token":[...],"inter_token_latency":[...],"request_latency":[...]}
    #[arg(long, value_name = "JSON")]
    pub custom_histogram_buckets: Option<String>,

    /// Other bounds of TTFT, seconds, as SGLang takes them
    #[arg(long, value_name = "SECONDS", num_args = 1.., conflicts_with = "custom_histogram_buckets")]
    pub bucket_time_to_first_token: Vec<f64>,

    /// Other bounds of ITL and of the time per output token, seconds, as SGLang takes them
    #[arg(long, value_name = "SECONDS", num_args = 1.., conflicts_with = "custom_histogram_buckets")]
    pub bucket_inter_token_latency: Vec<f64>,

    /// Other bounds of e2e latency, seconds, as SGLang takes them
    #[arg(long, value_name = "SECONDS", num_args = 1.., conflicts_with = "custom_histogram_buckets")]
    pub bucket_e2e_request_latency: Vec<f64>,

    /// Ask for this bearer token wherever the real engine does: vLLM under /v1, SGLang and TensorRT-LLM everywhere but
    /// at health and metrics. The fault "locked" makes it everywhere
    #[arg(long, value_name = "TOKEN")]
    pub api_key: Option<String>,

    /// TensorRT-LLM: measure requests and serve /prometheus/metrics, which is 404 without
    #[arg(long)]
    pub return_perf_metrics: bool,

    /// TensorRT-LLM: keep statistics of iterations, for the JSON at /metrics and for the gauges of the page
    #[arg(long)]
    pub enable_iter_perf_stats: bool,

    /// TensorRT-LLM: iterations kept for who reads them; older ones are dropped
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub iter_stats_max_iterations: usize,

    /// TensorRT-LLM up to 1.2: requests kept for /perf_metrics
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub perf_metrics_max_requests: usize,

    /// TensorRT-LLM: write a JSON line for each request into a file in this directory
    #[arg(long, value_name = "PATH", requires = "return_perf_metrics")]
    pub perf_metrics_output_dir: Option<PathBuf>,

    /// SGLang: write a JSON line for each request into hourly files. As in the real engine they name the prompt
    #[arg(long, requires = "export_metrics_to_file_dir")]
    pub export_metrics_to_file: bool,

    /// SGLang: where to
    #[arg(long, value_name = "PATH", requires = "export_metrics_to_file")]
    pub export_metrics_to_file_dir: Option<PathBuf>,

    /// vLLM: send a span for each request to this OTLP receiver, gRPC without TLS. Example: http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub otlp_traces_endpoint: Option<String>,

    /// vLLM: how long spans are gathered before they are sent, milliseconds
    #[arg(long, value_name = "MS", env = "OTEL_BSP_SCHEDULE_DELAY", default_value_t = 5_000)]
    pub otlp_schedule_delay: u64,

    /// Publish Dynamo's ForwardPassMetrics over ZeroMQ here, one message an iteration; the address file has it as "fpm"
    #[arg(long, value_name = "ADDR:PORT")]
    pub forward_pass_metrics: Option<SocketAddr>,

    /// Append one JSON line for each request that ends: exactly the values that the histograms took in
    #[arg(long, value_name = "PATH")]
    pub request_log: Option<PathBuf>,

    /// Four times a second write a line for each --gpu: "UUID util=PERCENT mem_used=BYTES"
    #[arg(long, value_name = "PATH", requires = "gpu")]
    pub gpu_activity: Option<PathBuf>,

    /// UUID of a GPU that the engine pretends to use; repeat for several
    #[arg(long, value_name = "UUID")]
    pub gpu: Vec<String>,

    /// Memory of one GPU, bytes; the profile's if not given
    #[arg(long, value_name = "BYTES")]
    pub gpu_memory: Option<u64>,

    /// Weights of the whole engine, bytes; the profile's if not given
    #[arg(long, value_name = "BYTES")]
    pub weights_bytes: Option<u64>,

    /// What to log to stderr: error, warn, info, debug, trace, or a filter such as plimsoll_emulator=debug
    #[arg(long, value_name = "FILTER", env = "PLIMSOLL_EMULATOR_LOG", default_value = "info")]
    pub log: String,
}

/// The engine whose manners are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Kind {
    /// vLLM 0.32
    Vllm,
    /// SGLang 0.5.23
    Sglang,
    /// TensorRT-LLM 1.3 (trtllm-serve); written from its source, never compared with a running one
    Trtllm,
}
