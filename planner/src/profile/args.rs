//! The command line of `profile`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use plimsoll_core::policy::Span;
use plimsoll_profiles::{Keep, Options};

/// Engine profiles: makes one of a profiler's tables, shows what one says, lists the built-in ones.
///
/// A profile says how long one engine's iterations take, and how much its KV cache holds: what the planner believes of a
/// pool's engines until it has seen them, and what simulated engines are. It corrects the times by what it observes; the
/// nearer the profile, the sooner it is right.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct ProfileArgs {
    #[command(subcommand)]
    pub(super) action: Action,
}

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    Import(Box<ImportArgs>),
    Show(Box<ShowArgs>),
    List(ListArgs),
}

/// Makes a profile of the tables that other profilers write, and says how well it fits them.
///
/// What a file is, its content tells: Dynamo's profiler (its results folder; the two raw_data.npz; prefill_raw_data.json and
/// decode_raw_data.json; the ConfigMap planner-profile-data-… as JSON), a grid for Dynamo's mocker (npz), or a sheet of
/// named columns (JSON) as of AIConfigurator's estimates. Tables are fitted by a closed form, and kept and interpolated
/// where none fits, as for mixtures of experts. A policy's `profile:` and simulate's --profile take the same files directly;
/// importing them once shows how good they are, and lets you say what they don't tell.
#[derive(Debug, Args)]
#[command(after_long_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArgs {
    /// Files or a folder of one engine's tables.
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// Write the profile here, and what there is to say on standard output; without it the profile goes to standard output,
    /// the rest to standard error.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,

    #[command(flatten)]
    pub(super) told: ToldArgs,
}

/// Shows what a profile says: iteration times, KV blocks, what an engine can do at best; of tables also how far the profile
/// is from each of their rows.
#[derive(Debug, Args)]
#[command(after_long_help = SHOW_EXAMPLES)]
pub(super) struct ShowArgs {
    /// A built-in profile's name, or files or a folder (with a / or ending in .json or .npz).
    #[arg(value_name = "NAME|PATH", required = true)]
    pub(super) profiles: Vec<String>,

    /// Prompt of the requests that are computed with, tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "At best")]
    pub(super) isl: u32,

    /// Their output, tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "At best")]
    pub(super) osl: u32,

    /// The longest time between two tokens.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = time, help_heading = "At best")]
    pub(super) itl: f64,

    /// Print it as JSON.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) told: ToldArgs,
}

/// Lists the built-in profiles.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print them as JSON, whole.
    #[arg(long)]
    pub(super) json: bool,
}

/// What the files don't tell, or tell wrong.
#[derive(Debug, Args)]
#[command(next_help_heading = "What the files don't tell")]
pub(super) struct ToldArgs {
    /// GPUs of the engine that was measured, all its data-parallel ranks together. Dynamo's files have throughputs of one
    /// GPU only, from which it is inferred.
    #[arg(long, value_name = "N")]
    gpus_per_replica: Option<u32>,

    /// Data-parallel ranks of that engine (attention DP). The profile is one of them: give the pool `parallel.dp`.
    #[arg(long, value_name = "N")]
    ranks: Option<u32>,

    /// Tokens in that engine's KV cache; shares in the files remain shares of what the files tell.
    #[arg(long, value_name = "TOKENS")]
    kv_tokens: Option<u32>,

    /// The longest request, prompt and output [default: 131072, or what the KV cache holds].
    #[arg(long, value_name = "TOKENS")]
    max_model_len: Option<u32>,

    /// Bytes of one token's keys and values, over all GPUs; only simulated transfers between prefill and decode go by it.
    #[arg(long, value_name = "BYTES")]
    kv_bytes_per_token: Option<u64>,

    /// The profile's name [default: what the files tell, or the first path's].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The model's name.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// The kind of GPU.
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,

    /// Fit the tables or keep them; auto keeps them where the best fit is off by more than 10 % on the mean of prefill or of
    /// decode.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = FormName::Auto)]
    form: FormName,
}

/// Whether tables are fitted or kept, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormName {
    /// Whatever is better.
    Auto,
    /// A closed form.
    Fit,
    /// The table, interpolated.
    Table,
}

impl ToldArgs {
    pub(super) fn options(&self) -> Options {
        Options {
            name: self.name.clone(),
            model: self.model.clone(),
            gpu: self.gpu.clone(),
            gpus_per_replica: self.gpus_per_replica,
            ranks: self.ranks,
            kv_tokens: self.kv_tokens,
            max_model_len: self.max_model_len,
            kv_bytes_per_token: self.kv_bytes_per_token,
            keep: match self.form {
                FormName::Auto => Keep::Auto,
                FormName::Fit => Keep::Fit,
                FormName::Table => Keep::Table,
            },
        }
    }
}

/// Seconds of a text like 50ms.
fn time(text: &str) -> Result<f64, String> {
    let span: Result<Span, _> = serde_json::from_value(serde_json::Value::from(text));
    let seconds = span.map(Span::as_secs).ok().filter(|seconds| *seconds > 0.0);
    seconds.ok_or_else(|| "give a time with its unit, like 30ms".to_owned())
}

const IMPORT_EXAMPLES: &str = "\
What Dynamo's profiler left in its results folder; the engine has two GPUs:
  plimsoll-planner profile import profiling_results --gpus-per-replica 2 -o llama-70b.json
The two files of it, or those of the operator's ConfigMap:
  plimsoll-planner profile import prefill/raw_data.npz decode/raw_data.npz -o llama-70b.json
  kubectl get configmap planner-profile-data-x -o json > tables.json
  plimsoll-planner profile import tables.json -o llama-70b.json

Then, in a policy:
  pools:
    - { name: chat, profile: ./llama-70b.json, max: 8 }

How far is it from each row, and would this engine do?
  plimsoll-planner profile show llama-70b.json --isl 3000 --osl 300 --itl 30ms

A table of your own needs no more than this (docs/policy.md):
  {\"gpus_per_engine\": 1, \"max_kv_tokens_per_engine\": 400000,
   \"prefill_columns\": [\"isl\", \"ttft_ms\"], \"prefill\": [[100, 12.5], [4000, 180.0]],
   \"decode_columns\": [\"batch\", \"context_len\", \"itl_ms\"], \"decode\": [[1, 1000, 9.0], [64, 1000, 14.0]]}";

const SHOW_EXAMPLES: &str = "\
  plimsoll-planner profile show llama-3.1-8b-h200-tp1 --isl 3000 --osl 300 --itl 20ms
  plimsoll-planner profile show profiling_results/ --gpus-per-replica 2
  plimsoll-planner profile list

How many requests a second an engine takes within an SLO, waiting included:
  plimsoll-planner simulate --profile llama-70b.json --workload poisson:rate=10,duration=10m --ttft 1s --itl 50ms";
