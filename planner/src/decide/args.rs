//! The command line of `decide`.

use clap::Args;

/// Decides for another program: observations of a fleet as lines of JSON on standard input, replica targets as lines of
/// JSON on standard output.
///
/// A simulator or a controller of yours can so host the planner's core. The first line gives the policy; every further
/// line is one observation of the fleet and is answered, at once, by one line of targets. Whatever is not known is left
/// out: a host that tells only how many requests run and wait, how full KV caches are, tokens, replica counts and mean
/// latencies gets decisions, too. A line that makes no sense is answered by {"error": …}, changes nothing, and the next
/// one is read. Times are seconds on the host's own clock; the core has none.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DecideArgs {
    /// Tell with every answer what was seen, believed and sized, as "details".
    #[arg(long)]
    pub explain: bool,
}

const EXAMPLES: &str = r#"Two replicas, of which one engine each is seen:
  plimsoll-planner decide <<'END'
  {"policy": {"models": [{"name": "llama", "slo": {"ttft": {"limit": "500ms"}, "itl": {"limit": "30ms"}}, "pools": [{"name": "chat", "profile": "llama-3.1-8b-h200-tp1", "max": 8}]}]}}
  {"time_s": 10, "pools": {"chat": {"ready": 2, "starting": 0, "engines": {"e0": {"running": 12, "waiting": 0, "kv_utilization": 0.2, "gained": {"finished": 31, "generated_tokens": 6400, "prefilled_tokens": 33000}}, "e1": {"running": 11, "waiting": 0, "kv_utilization": 0.2, "gained": {"finished": 29, "generated_tokens": 5900, "prefilled_tokens": 30500}}}, "ttft_mean_s": 0.06, "itl_mean_s": 0.009}}}
  END

The first answer says that the policy is understood, the second one what to do:
  {"ready":true,"pools":["chat"],"interval_s":10.0,"warnings":[]}
  {"time_s":10.0,"targets":{"chat":2},"reasons":{"chat":["no-demand","steady"]},"explanation":{"chat":"…"},"next_s":20.0}

The policy may be a file ({"policy": "policy.yaml"}), profiles may be given ({"profiles": {"mine": "mine.json"}}), and past
rates, so that the forecast knows the day ({"history": {"chat": [[-86400, 3.1], [-86340, 3.3], …]}}).

docs/protocol.md describes every key. The exit code is 0 when standard input ends, 64 when it can't be read."#;
