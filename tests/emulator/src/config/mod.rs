//! The command line, checked whole before any port is bound.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use plimsoll_engine::{ConfigError as EngineError, EngineConfig, Profile};
use plimsoll_profiles::ImportError;

use crate::{
    args::{Args, Kind},
    script::{Script, ScriptError},
    version::{Version, VersionError},
};

mod buckets;
mod exports;

pub use buckets::CustomBuckets;
pub use exports::{ExportConfig, SpanConfig};

/// Longest time that an option may ask for, seconds: a day.
const LONGEST_SECONDS: f64 = 86_400.0;

/// Most iterations or requests that are kept for who reads them.
const MOST_KEPT: usize = 100_000;

/// All that a running emulator goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to serve.
    pub listen: SocketAddr,
    /// Where to write the address that was bound.
    pub address_file: Option<PathBuf>,
    /// Whose manners to show.
    pub kind: Kind,
    /// Of which version.
    pub version: Version,
    /// What TensorRT-LLM measures.
    pub measures: Measures,
    /// Served model name.
    pub model: String,
    /// The engine model's configuration; its timing has the speed in it.
    pub engine: EngineConfig,
    /// How many requests may wait, if the user said so.
    pub most_waiting: Option<u32>,
    /// KV blocks as the engine announces them: in vLLM one more than requests can hold.
    pub num_gpu_blocks: u32,
    /// Whether the user named the number of blocks, which the page tells.
    pub num_gpu_blocks_override: bool,
    /// Where to switch states and faults.
    pub admin: Option<SocketAddr>,
    /// What to switch when.
    pub script: Script,
    /// The bearer token that the engine asks for.
    pub api_key: Option<String>,
    /// How long health is refused once the port is open.
    pub warmup: Duration,
    /// Whether prompts are remembered.
    pub prefix_caching: bool,
    /// Whether answers tell of prefix-cache hits.
    pub prompt_tokens_details: bool,
    /// Share of answers that end early, 0 to 1.
    pub stop_fraction: f64,
    /// Seed of all that is drawn.
    pub seed: u64,
    /// How long the port stays closed.
    pub startup_delay: Duration,
    /// Whether SIGTERM lets requests finish, and for how long at most.
    pub drain: Option<Duration>,
    /// Histogram bounds other than the engine's own.
    pub buckets: CustomBuckets,
    /// Where else to tell of each request or iteration.
    pub exports: ExportConfig,
    /// Where to log requests.
    pub request_log: Option<PathBuf>,
    /// The GPUs to pretend to use.
    pub gpus: GpuConfig,
}

/// What TensorRT-LLM measures: by default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measures {
    /// Requests; serves the Prometheus page.
    pub requests: bool,
    /// Iterations; fills the JSON page.
    pub iterations: bool,
    /// Iterations kept.
    pub most_iterations: usize,
    /// Requests kept for `/perf_metrics`.
    pub most_requests: usize,
}

/// The GPUs that the engine pretends to use.
#[derive(Clone, Debug, Default)]
pub struct GpuConfig {
    /// Where to write their activity.
    pub activity_file: Option<PathBuf>,
    /// Their UUIDs.
    pub uuids: Vec<String>,
    /// Memory of one of them, bytes.
    pub memory_bytes: u64,
    /// Weights of the whole engine, bytes.
    pub weights_bytes: u64,
    /// Keys and values of one token, over all of them, bytes.
    pub kv_bytes_per_token: u64,
}

/// Why the command line cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The profile is unknown, or its file cannot be read or used.
    #[error("--profile")]
    Profile(#[from] ImportError),
    /// The engine cannot run so.
    #[error("the engine cannot run so")]
    Engine(#[from] EngineError),
    /// A number is outside its range.
    #[error("--{option} is {value}: give a number {range}")]
    OutOfRange {
        /// The option.
        option: &'static str,
        /// What was given.
        value: f64,
        /// What is accepted.
        range: &'static str,
    },
    /// No such version is emulated.
    #[error("--engine-version")]
    Version(#[from] VersionError),
    /// The script has a step that nobody understands.
    #[error("--at")]
    Script(#[from] ScriptError),
    /// An option's text cannot be used.
    #[error("--{option}: {reason}")]
    Malformed {
        /// The option.
        option: &'static str,
        /// What is wrong with it and what to give.
        reason: String,
    },
}

impl Config {
    /// Checks a command line and adds what the profile knows.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        check_numbers(&args)?;
        let profile = plimsoll_profiles::load(&args.profile)?;
        let (engine, num_gpu_blocks) = engine_config(&args, &profile)?;
        let uuids: BTreeSet<&String> = args.gpu.iter().collect();
        if uuids.len() < args.gpu.len() || args.gpu.iter().any(|uuid| !is_word(uuid)) {
            let reason = "give each UUID once, without spaces".to_owned();
            return Err(ConfigError::Malformed { option: "gpu", reason });
        }
        let (buckets, exports) = (CustomBuckets::from_args(&args)?, ExportConfig::from_args(&args)?);
        Ok(Self {
            listen: args.listen,
            address_file: args.address_file,
            kind: args.engine,
            version: Version::parse(args.engine, args.engine_version.as_deref())?,
            measures: Measures {
                requests: args.return_perf_metrics,
                iterations: args.enable_iter_perf_stats,
                most_iterations: args.iter_stats_max_iterations.min(MOST_KEPT),
                most_requests: args.perf_metrics_max_requests.min(MOST_KEPT),
            },
            admin: args.admin,
            script: Script::parse(&args.script)?,
            warmup: Duration::from_secs_f64(args.warmup),
            model: args.model.unwrap_or(profile.model),
            engine,
            most_waiting: args.max_num_queued_reqs,
            num_gpu_blocks,
            num_gpu_blocks_override: args.num_gpu_blocks.is_some(),
            prefix_caching: !args.no_enable_prefix_caching,
            prompt_tokens_details: args.enable_prompt_tokens_details,
            stop_fraction: args.stop_fraction,
            seed: args.seed,
            startup_delay: Duration::from_secs_f64(args.startup_delay),
            drain: (args.drain || args.engine == Kind::Sglang)
                .then(|| Duration::from_secs_f64(args.drain_timeout)),
            buckets,
            exports,
            api_key: args.api_key,
            request_log: args.request_log,
            gpus: GpuConfig {
                activity_file: args.gpu_activity,
                uuids: args.gpu,
                memory_bytes: args.gpu_memory.unwrap_or(profile.gpu_memory_bytes),
                weights_bytes: args.weights_bytes.unwrap_or(profile.weights_bytes),
                kv_bytes_per_token: profile.kv_bytes_per_token,
            },
        })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

fn check_numbers(args: &Args) -> Result<(), ConfigError> {
    let within = |option, value: f64, least: f64, most: f64, range| {
        if value >= least && value <= most {
            Ok(())
        } else {
            Err(ConfigError::OutOfRange { option, value, range })
        }
    };
    within("stop-fraction", args.stop_fraction, 0.0, 1.0, "from 0 to 1")?;
    within("speed", args.speed, 0.001, 10_000.0, "from 0.001 to 10000")?;
    within("startup-delay", args.startup_delay, 0.0, LONGEST_SECONDS, "of seconds from 0 to 86400")?;
    within("warmup", args.warmup, 0.0, LONGEST_SECONDS, "of seconds from 0 to 86400")?;
    within("drain-timeout", args.drain_timeout, 0.0, LONGEST_SECONDS, "of seconds from 0 to 86400")
}

/// The engine's configuration, and its blocks with those that it keeps for itself.
fn engine_config(args: &Args, profile: &Profile) -> Result<(EngineConfig, u32), ConfigError> {
    let defaults = profile.engine_config();
    let block_size = args.block_size;
    let num_gpu_blocks = args.num_gpu_blocks.unwrap_or_else(|| profile.kv_tokens / block_size.max(1));
    let own_blocks = u32::from(args.engine == Kind::Vllm);
    let kv_blocks = num_gpu_blocks.saturating_sub(own_blocks);
    let kv_tokens = kv_blocks.saturating_mul(block_size);
    let max_num_batched_tokens = args.max_num_batched_tokens.unwrap_or(defaults.max_num_batched_tokens);
    let mut timing = profile.timing.clone();
    timing.factor /= args.speed;
    let engine = EngineConfig {
        block_size,
        kv_blocks,
        max_num_seqs: args.max_num_seqs.unwrap_or_else(|| defaults.max_num_seqs.min(max_num_batched_tokens)),
        max_num_batched_tokens,
        max_model_len: args.max_model_len.unwrap_or_else(|| profile.max_model_len.min(kv_tokens)),
        max_waiting: args.max_num_queued_reqs.unwrap_or(defaults.max_waiting),
        reserve_full_prompt: true,
        timing,
    };
    engine.validate()?;
    Ok((engine, num_gpu_blocks))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn args(options: &[&str]) -> Args {
        let args = ["plimsoll-emulator"].iter().chain(options);
        Args::try_parse_from(args).expect("a command line that clap accepts")
    }

    fn config(options: &[&str]) -> Result<Config, ConfigError> {
        Config::from_args(args(options))
    }

    fn message(options: &[&str]) -> String {
        let error = config(options).expect_err("a configuration that is refused");
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        message
    }

    #[test]
    fn the_profile_fills_in_what_is_not_given() {
        let config = config(&["--profile", "qwen3-32b-h200-tp2"]).unwrap();
        assert_eq!(config.model, "Qwen/Qwen3-32B");
        assert_eq!(config.num_gpu_blocks, 751_550 / 16);
        assert_eq!(config.engine.kv_blocks, config.num_gpu_blocks - 1);
        assert_eq!(config.engine.max_model_len, 40_960);
    }

    #[test]
    fn options_override_the_profile() {
        let options = ["--num-gpu-blocks", "40", "--block-size", "32", "--max-num-seqs", "8", "--speed", "4"];
        let config = config(&options).unwrap();
        assert_eq!((config.engine.kv_blocks, config.engine.max_num_seqs), (39, 8));
        assert_eq!(config.engine.max_model_len, 39 * 32);
        assert!((config.engine.timing.factor - 0.25).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_reason() {
        assert!(message(&["--profile", "nothing"]).contains("llama-3.1-8b-h200-tp1"));
        assert!(message(&["--profile", "/nonexistent.json"]).contains("/nonexistent.json can't be read"));
        assert!(message(&["--profile", "/"]).contains("selected_prefill_interpolation"));
        assert!(message(&["--speed", "0"]).contains("--speed is 0"));
        assert!(message(&["--stop-fraction", "NaN"]).contains("--stop-fraction"));
        assert!(message(&["--num-gpu-blocks", "1"]).contains("kv_blocks is 0"));
        assert!(message(&["--block-size", "0"]).contains("block_size is 0"));
        assert!(message(&["--num-gpu-blocks", "9", "--max-model-len", "4096"]).contains("hold 128 tokens"));
        assert!(message(&["--gpu", "A", "--gpu", "A"]).contains("--gpu"));
        assert!(message(&["--custom-histogram-buckets", "{\"itl\":[1]}"]).contains("itl"));
        assert!(message(&["--custom-histogram-buckets", "{\"request_latency\":[2,1]}"]).contains("above"));
    }
}
