//! The flags, which are the file's keys.

use std::path::PathBuf;

use plimsoll_shell::{duration::HumanDuration, logging::LogFormat};
use serde::{Deserialize, Serialize};

use super::EndpointTable;
use crate::gpu::OnDriverUpgrade;

/// Flags of the agent. Every flag but `--config` may stand in the TOML file under the same name.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// TOML file with the same names as these flags, and `[[endpoint]]` tables; flags win over it.
    #[arg(long, env = "PLIMSOLL_AGENT_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// This node's name, as the cluster knows it [default: the host name].
    #[arg(long, env = "PLIMSOLL_NODE_NAME", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// The planner that takes the reports; every address of the name is one. Without it the agent only serves its own
    /// pages [default port: 9476].
    #[arg(long, env = "PLIMSOLL_PLANNER", value_name = "HOST:PORT", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planner: Option<String>,

    /// The name that the planner's certificate must show [default: the host of --planner].
    #[arg(long, value_name = "NAME", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planner_name: Option<String>,

    /// PEM file of the authority that signed the planner's certificate.
    #[arg(long, value_name = "FILE", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planner_ca: Option<PathBuf>,

    /// PEM file of this agent's certificate, for planners that ask who is there (mTLS).
    #[arg(long, value_name = "FILE", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the key of --tls-cert.
    #[arg(long, value_name = "FILE", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,

    /// File with a token that proves to the planner which node this is, such as a projected service-account token; read anew
    /// for every connection.
    #[arg(long, value_name = "FILE", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planner_token: Option<PathBuf>,

    /// Trust any planner. For trying things out on one machine; says so loudly.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<bool>,

    /// Between two reports: 100ms to 5m [default: 1s].
    #[arg(long, value_name = "DURATION", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_interval: Option<HumanDuration>,

    /// How many bytes of reports are kept for planners that are away or start anew [default: 8388608].
    #[arg(long, value_name = "BYTES", help_heading = "Planner")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_bytes: Option<u64>,

    /// An engine to read, such as http://127.0.0.1:8000; may be repeated. Model, pool, role, replica and GPUs are
    /// declared by `[[endpoint]]` tables in the file.
    #[arg(long, value_name = "URL", help_heading = "Engines")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub engine: Vec<String>,

    /// Between two scrapes of one engine; a slow page stretches it to 20 times the scrape's own duration
    /// [default: 1s].
    #[arg(long, value_name = "DURATION", help_heading = "Engines")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_interval: Option<HumanDuration>,

    /// How long one scrape may take [default: 5s].
    #[arg(long, value_name = "DURATION", help_heading = "Engines")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_timeout: Option<HumanDuration>,

    /// Receive request spans (OTLP over gRPC, or protobuf over HTTP) from engines on this address, such as 127.0.0.1:4317.
    /// Whoever reaches it can add records, so keep it to this machine [default: not at all].
    #[arg(long, value_name = "ADDRESS", help_heading = "Engines")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_listen: Option<String>,

    /// The engine that request spans are counted for whose service is no endpoint's `otlp-service` [default: the only engine,
    /// where there is one].
    #[arg(long, value_name = "ENGINE", help_heading = "Engines")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_engine: Option<String>,

    /// Whether to look at GPUs; `--gpu false` never loads NVML [default: true].
    #[arg(long, value_name = "BOOL", help_heading = "GPUs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<bool>,

    /// Between two samples of the GPUs: 100ms to 5m. Below 1s it costs the engines, since NVML takes the driver's lock, and
    /// the agent warns of it. Where calls are slow it is stretched to keep them under 5 ms a second [default: 1s].
    #[arg(long, value_name = "DURATION", help_heading = "GPUs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_interval: Option<HumanDuration>,

    /// The NVML library to load [default: libnvidia-ml.so.1 where the loader finds it].
    #[arg(long, env = "PLIMSOLL_NVML_LIBRARY", value_name = "FILE", help_heading = "GPUs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvml_library: Option<PathBuf>,

    /// What to do when the NVML library no longer fits the kernel's driver, as after an upgrade: `exit` with code 75 to be
    /// started anew, which a container needs, or `keep` reading engines and load the library again until the new one is
    /// there [default: exit].
    #[arg(long, value_name = "WHAT", help_heading = "GPUs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_driver_upgrade: Option<OnDriverUpgrade>,

    /// The kubelet's pod-resources socket, which tells the pods of each GPU; where it does not exist, GPUs are not
    /// attributed to pods [default: /var/lib/kubelet/pod-resources/kubelet.sock].
    #[arg(long, value_name = "SOCKET", help_heading = "GPUs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_resources_socket: Option<PathBuf>,

    /// Also attribute the processes on the GPUs to pods, by their control groups. Needs the host's pid namespace (hostPID)
    /// [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "GPUs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute_by_cgroup: Option<bool>,

    /// Where the agent's pages are served [default: 127.0.0.1:9474]. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", help_heading = "Serving")]
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

    /// Add the metric names, labels and units of NVIDIA's dcgm-exporter to /metrics, for dashboards and alert rules that ask
    /// for them [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", help_heading = "Serving")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dcgm_names: Option<bool>,

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

    /// Engines with what their pages do not tell (file only).
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoint: Vec<EndpointTable>,
}

impl Settings {
    /// The flags laid over their file, as TOML.
    ///
    /// # Errors
    /// When the file can't be used.
    pub fn effective(&self) -> anyhow::Result<String> {
        let settings = plimsoll_shell::config::layered(self, self.config.as_deref(), super::TABLES)?;
        Ok(plimsoll_shell::config::to_toml(&settings)?)
    }
}
