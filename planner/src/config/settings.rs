//! The flags, which are the file's keys.

use std::path::PathBuf;

use plimsoll_shell::{duration::HumanDuration, logging::LogFormat};
use serde::{Deserialize, Serialize};

/// What agents' certificates say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentCertificates {
    /// Each names its node.
    #[default]
    PerNode,
    /// One serves all.
    Shared,
}

/// Flags of the planner. Every flag but `--config` may stand in the TOML file under the same name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// TOML file with the same names as these flags; flags win over it.
    #[arg(long, env = "PLIMSOLL_PLANNER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Where agents report, UDP [default: 127.0.0.1:9476]. Port 0 takes a free one.
    #[arg(long, env = "PLIMSOLL_PLANNER_LISTEN_QUIC", value_name = "ADDRESS", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_quic: Option<String>,

    /// PEM file of the planner's certificate chain, its own certificate first.
    #[arg(long, value_name = "FILE", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the key of --tls-cert.
    #[arg(long, value_name = "FILE", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,

    /// PEM file of the authority that signs agents' certificates; agents must show one (mTLS).
    #[arg(long, value_name = "FILE", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether each agent's certificate names its node (URI spiffe://TRUST-DOMAIN/node/NAME), or one serves all agents, any
    /// of which may then report as any node [default: per-node].
    #[arg(long, value_name = "per-node|shared", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_certificates: Option<AgentCertificates>,

    /// The trust domain in agents' certificates [default: plimsoll].
    #[arg(long, value_name = "DOMAIN", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,

    /// File with a line `NODE SHA256` for each node: agents prove their node by a token (--planner-token) with that SHA-256.
    #[arg(long, value_name = "FILE", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_keys: Option<PathBuf>,

    /// Make a throw-away certificate and let any agent in. For trying things out on one machine; says so loudly.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<bool>,

    /// Write the throw-away certificate (not its key) to this file, so that an agent can check it (--planner-ca).
    #[arg(long, value_name = "FILE", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev_cert_out: Option<PathBuf>,

    /// Ask all agents for a report this often: 100ms to 5m [default: --adaptive-cadence].
    #[arg(long, value_name = "DURATION", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_interval: Option<HumanDuration>,

    /// Ask agents whose pools are near their limit for a report every 500ms, idle ones for one every 5s, and leave it to the
    /// others [default: true without --report-interval].
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_cadence: Option<bool>,

    /// The most connections at a time [default: 25000].
    #[arg(long, value_name = "N", help_heading = "Agents")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u64>,

    /// The most nodes that are remembered; what is beyond is refused and counted [default: 25000].
    #[arg(long, value_name = "N", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_nodes: Option<u64>,

    /// The most GPUs that are remembered [default: 250000].
    #[arg(long, value_name = "N", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_gpus: Option<u64>,

    /// The most engines that are remembered [default: 250000].
    #[arg(long, value_name = "N", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_engines: Option<u64>,

    /// The most pools that are remembered [default: 5000].
    #[arg(long, value_name = "N", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pools: Option<u64>,

    /// Values older than this, or than three reports, are stale and no longer summed up [default: 5s].
    #[arg(long, value_name = "DURATION", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<HumanDuration>,

    /// Nodes not heard of for this long are silent [default: 30s].
    #[arg(long, value_name = "DURATION", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_after: Option<HumanDuration>,

    /// Nodes, GPUs and engines not heard of for this long are forgotten [default: 1h].
    #[arg(long, value_name = "DURATION", help_heading = "Fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forget_after: Option<HumanDuration>,

    /// The policy (YAML): what the planner is to advise, and within which bounds; see docs/policy.md. It is read again when
    /// it changes [default: nothing is advised].
    #[arg(long, env = "PLIMSOLL_PLANNER_POLICY", value_name = "FILE", help_heading = "Planning")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,

    /// Folder of the journal: what was seen, believed and decided at each step, so that `replay`, `explain` and `shadow` can
    /// tell, and a restart forgets nothing that was learned; see docs/journal.md. Needs --policy [default: none is kept].
    #[arg(long, env = "PLIMSOLL_PLANNER_JOURNAL_DIR", value_name = "DIR", help_heading = "Planning")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_dir: Option<PathBuf>,

    /// The most that the journal's file may take, bytes: 4 MiB to 1 TiB; the oldest goes [default: 268435456].
    #[arg(long, value_name = "BYTES", help_heading = "Planning")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_bytes: Option<u64>,

    /// What is older goes from the journal: 1h to a year [default: 7 days].
    #[arg(long, value_name = "DURATION", help_heading = "Planning")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_age: Option<HumanDuration>,

    /// Between two checkpoints of what was learned: 1m to 1h. A replay begins at one, and a start after a crash takes the
    /// steps since the last one again [default: 10m].
    #[arg(long, value_name = "DURATION", help_heading = "Planning")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_checkpoint: Option<HumanDuration>,

    /// Where the page, the JSON API and /metrics are served [default: 127.0.0.1:9475]. Port 0 takes a free one.
    #[arg(long, env = "PLIMSOLL_PLANNER_LISTEN_HTTP", value_name = "ADDRESS", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_http: Option<String>,

    /// PEM file of the certificate chain with which the pages are served by TLS [default: in the clear].
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_tls_cert: Option<PathBuf>,

    /// PEM file of the key of --http-tls-cert.
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_tls_key: Option<PathBuf>,

    /// File with the tokens, one a line, one of which whoever reads the pages must show; the probes /healthz and /readyz stay
    /// open [default: everybody may read].
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_token: Option<PathBuf>,

    /// Between two snapshots of what is served; a large fleet stretches it to ten times what one takes
    /// [default: 1s].
    #[arg(long, value_name = "DURATION", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_interval: Option<HumanDuration>,

    /// Write the bound addresses to this file as JSON, once they are bound.
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_file: Option<PathBuf>,

    /// How long an orderly end may take [default: 5s].
    #[arg(long, value_name = "DURATION", help_heading = "Process")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<HumanDuration>,

    /// What is logged, such as `info` or `debug,quinn=warn` [default: info].
    #[arg(long, env = "PLIMSOLL_LOG", value_name = "FILTER", help_heading = "Process")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_filter: Option<String>,

    /// How log lines look [default: text].
    #[arg(long, value_name = "FORMAT", help_heading = "Process")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

impl Settings {
    /// The flags laid over their file, as TOML.
    ///
    /// # Errors
    /// When the file can't be used.
    pub fn effective(&self) -> anyhow::Result<String> {
        let settings = plimsoll_shell::config::layered(self, self.config.as_deref(), &[])?;
        Ok(plimsoll_shell::config::to_toml(&settings)?)
    }
}
