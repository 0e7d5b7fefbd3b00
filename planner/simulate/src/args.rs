//! The command line of `simulate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use plimsoll_sim::workload::spec;

/// Runs a workload through a simulated fleet: how many replicas it needs, and what a scaling policy makes of it.
///
/// Nothing is touched and no GPU is needed: engines are simulated iteration by iteration, from profiles of measured
/// ones.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SimulateArgs {
    /// What comes in: a trace (Azure, BurstGPT, Mooncake, or a CSV with timestamp_ms, input_tokens and output_tokens;
    /// .gz too), or a generator like sine:low=2,high=16,period=20m,duration=1h. Generators joined by + are laid over one
    /// another.
    ///
    /// Generators: poisson (rate), gamma (rate, cv), sine (low, high, period), ramp (from, to), step (from, to, at),
    /// square (low, high, period, duty), diurnal (low, high), weekly (low, high, weekend), clients (rate, clients, heavy,
    /// heavy_share, heavy_cv). All take duration, isl, osl, isl_cv, osl_cv and cv; rates are requests a second.
    #[arg(long, value_name = "FILE|GENERATOR", help_heading = "Workload")]
    pub workload: String,

    /// Where traces are looked for that are not here.
    #[arg(long, value_name = "DIR", help_heading = "Workload")]
    pub data: Option<PathBuf>,

    /// Send the requests this many times as fast.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, help_heading = "Workload")]
    pub speed_up: f64,

    /// Send this many times as many: copies, each request of which is moved by up to 2 s.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, help_heading = "Workload")]
    pub scale: f64,

    /// Begin here, after speeding up.
    #[arg(long, value_name = "TIME", value_parser = seconds, help_heading = "Workload")]
    pub from: Option<f64>,

    /// End here.
    #[arg(long, value_name = "TIME", value_parser = seconds, help_heading = "Workload")]
    pub to: Option<f64>,

    /// The engine: a built-in profile, a profile's JSON file, or a profiler's tables (docs/policy.md#profiles). An unknown
    /// name is answered with the known ones.
    #[arg(long, value_name = "NAME|PATH", default_value = "llama-3.1-8b-h200-tp1", help_heading = "Fleet")]
    pub profile: String,

    /// Compute prompts and outputs in pools of their own; the decode pool has this profile, or the same one.
    #[arg(long, value_name = "NAME|FILE", num_args = 0..=1, default_missing_value = "", help_heading = "Fleet")]
    pub disaggregated: Option<String>,

    /// How requests are spread over replicas.
    #[arg(long, value_enum, default_value_t = RouterName::LeastLoaded, help_heading = "Fleet")]
    pub router: RouterName,

    /// Let replicas keep a prefix cache; only Mooncake traces say which prompts share prefixes.
    #[arg(long, help_heading = "Fleet")]
    pub prefix_cache: bool,

    /// Replicas that are ready at the start: one number, P+D, or "oracle" for as many as the oracle begins with.
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Fleet")]
    pub initial: String,

    /// The most replicas of a pool.
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Fleet")]
    pub max_replicas: u32,

    /// GPUs that there are; without it, as many as are asked for.
    #[arg(long, value_name = "N", help_heading = "Fleet")]
    pub gpus: Option<u32>,

    /// How long a replica takes to start.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "60s", help_heading = "Fleet")]
    pub start_up: f64,

    /// By how much single starts deviate from that, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, help_heading = "Fleet")]
    pub start_up_spread: f64,

    /// The share of starts that fail.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = "Fleet")]
    pub failed_starts: f64,

    /// How much slower the fleet is than its profile, which is what policies believe: 1.3 for 30 %.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, help_heading = "Fleet")]
    pub truth: f64,

    /// What policies believe of the engine instead, if that is of another form altogether: a built-in profile or a
    /// profile's JSON file, where --profile is a table.
    #[arg(long, value_name = "NAME|FILE", help_heading = "Fleet")]
    pub prior: Option<String>,

    /// Noise of iteration times: standard deviation, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = "Fleet")]
    pub noise: f64,

    /// GB/s between prefill and decode replicas.
    #[arg(long, value_name = "GB/S", default_value_t = 50.0, help_heading = "Fleet")]
    pub bandwidth: f64,

    /// Something that goes wrong; give it several times. death:at=10m · slow:from=5m,to=15m,factor=2 ·
    /// drift:over=1h,factor=1.3 · hot-spot:share=0.5 · silence:from=5m,to=10m; all take pool=NAME and, but for drift,
    /// replica=N (from 0, the default) or replica=all. Failed starts have a flag of their own.
    #[arg(long = "fault", value_name = "FAULT", help_heading = "Mishaps")]
    pub faults: Vec<String>,

    /// What becomes of the requests of a replica that dies.
    #[arg(long, value_enum, default_value_t = LostName::Abort, help_heading = "Mishaps")]
    pub lost: LostName,

    /// The longest time to first token.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "1s", help_heading = "SLO")]
    pub ttft: f64,

    /// The longest mean time between a request's tokens.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "50ms", help_heading = "SLO")]
    pub itl: f64,

    /// The share of requests that are to meet both.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, help_heading = "SLO")]
    pub goal: f64,

    /// Who scales. Without one, the smallest static fleet that keeps the SLO is looked for. Besides policies there are
    /// three bounds, each found for this very workload: static-best, the smallest static fleet that keeps the SLO;
    /// causal (or causal:period=86400), the cheapest of a declared grid of policies that keeps it; oracle, which knows
    /// all that is to come.
    #[arg(long, value_name = "POLICY", help_heading = "Policy")]
    pub policy: Option<String>,

    /// Others to compare it with, in the same world; give it several times or separate by commas.
    #[arg(long, value_name = "POLICY", help_heading = "Policy")]
    pub compare: Vec<String>,

    /// Try static fleets of every size around the smallest that keeps the SLO, too.
    #[arg(long, help_heading = "Policy")]
    pub sweep: bool,

    /// What everything random is drawn from: the same seed and build give the same output.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Output")]
    pub seed: u64,

    /// Print the result as JSON instead of a table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Write a page with charts; it needs no network.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
}

/// How requests are spread, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouterName {
    /// One after the other.
    RoundRobin,
    /// To the replica with the fewest requests.
    LeastLoaded,
    /// To the replica with the least to compute, cached prefixes being free.
    PrefixAware,
}

/// What becomes of the requests of a replica that dies, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LostName {
    /// Their clients see an error.
    Abort,
    /// They begin again elsewhere, up to three times.
    Retry,
}

const EXAMPLES: &str = "\
How many replicas does this workload need?
  plimsoll-planner simulate --workload trace.csv --profile qwen3-32b-h200-tp2 --ttft 1s --itl 30ms

What does a fleet of three make of a wave, and what one of five? With charts:
  plimsoll-planner simulate --workload sine:low=2,high=16,period=20m,duration=1h --policy static:3 \\
      --compare static:5 --html report.html

Prefill and decode apart, at twice the load:
  plimsoll-planner simulate --workload trace.csv --scale 2 --disaggregated --policy static:3+1

How near does a policy come to what could have been done, when a replica dies?
  plimsoll-planner simulate --workload trace.csv --initial oracle --fault death:at=20m \\
      --policy hpa:queue=5 --compare static-best,causal,oracle

Times take ms, s, m, h or d.";

fn seconds(text: &str) -> Result<f64, String> {
    let fine = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
    spec::seconds_of(text)
        .filter(fine)
        .ok_or_else(|| "give a time with its unit, like 300ms, 90s, 20m, 1.5h or 7d".to_owned())
}
