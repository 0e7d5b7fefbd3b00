//! The command line of `check`.

use std::path::PathBuf;

use clap::Args;

/// Says what a policy means and what is wrong with it, before a planner runs with it.
///
/// A policy (YAML or JSON) tells the planner the models with their SLOs, the pools with their bounds, the budgets, and how
/// fast the fleet may move. Everything that is wrong is told at once, by line and column, with what to do: keys that do
/// not exist, contradictions, budgets that can't be held, and SLOs that the engines can't keep by their profiles, with
/// the least that could be promised.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CheckArgs {
    /// The policy's file; - for standard input. docs/policy.md describes every key.
    #[arg(value_name = "POLICY")]
    pub policy: PathBuf,

    /// An engine's metrics page, as a file or an http:// URL: are the SLOs' limits edges of its latency buckets? If not,
    /// attainment is known to a bucket only, and the engine's flag that adds the edge is told.
    #[arg(long, value_name = "FILE|URL")]
    pub page: Option<String>,

    /// The policy's model that the page belongs to; needed only where neither the page nor the policy tells.
    #[arg(long, value_name = "NAME", requires = "page")]
    pub model: Option<String>,

    /// Print the result as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
The smallest policy, one model on up to eight replicas:
  models:
    - name: llama-3.1-8b
      slo: { ttft: { limit: 500ms }, itl: { limit: 30ms, percentile: 99 } }
      pools:
        - { name: chat, profile: llama-3.1-8b-h200-tp1, max: 8 }

What does it mean, and is anything wrong?
  plimsoll-planner check policy.yaml

Can its SLO be read off this engine's histograms?
  plimsoll-planner check policy.yaml --page http://127.0.0.1:8000/metrics

In a pipeline: exit code 0 is fine, 1 has remarks (warnings, or SLOs that are impossible by the profile), 2 can't be used;
64 is a wrong command line or a page that can't be read.
  plimsoll-planner check policy.yaml --json | jq .problems";
