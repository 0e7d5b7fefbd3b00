//! Where the engine tells of each request and each iteration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    args::{Args, Kind},
    config::ConfigError,
};

/// What is exported where; by default nothing is.
#[derive(Clone, Debug, Default)]
pub struct ExportConfig {
    /// Directory of SGLang's hourly files.
    pub sglang_dir: Option<PathBuf>,
    /// Directory of TensorRT-LLM's files.
    pub trtllm_dir: Option<PathBuf>,
    /// vLLM's OTLP receiver.
    pub spans: Option<SpanConfig>,
    /// Where Dynamo's ForwardPassMetrics are published.
    pub passes: Option<SocketAddr>,
}

/// vLLM's spans.
#[derive(Clone, Debug)]
pub struct SpanConfig {
    /// The receiver's URL.
    pub endpoint: String,
    /// How long spans are gathered.
    pub delay: Duration,
}

impl ExportConfig {
    pub(super) fn from_args(args: &Args) -> Result<Self, ConfigError> {
        let only = |kind, given: bool, option| {
            if given && args.engine != kind {
                let reason = format!("only {kind:?} has it: give --engine as well");
                return Err(ConfigError::Malformed { option, reason });
            }
            Ok(())
        };
        only(Kind::Sglang, args.export_metrics_to_file, "export-metrics-to-file")?;
        only(Kind::Trtllm, args.perf_metrics_output_dir.is_some(), "perf-metrics-output-dir")?;
        only(Kind::Vllm, args.otlp_traces_endpoint.is_some(), "otlp-traces-endpoint")?;
        let spans = args.otlp_traces_endpoint.as_ref().map(|endpoint| SpanConfig {
            endpoint: endpoint.clone(),
            delay: Duration::from_millis(args.otlp_schedule_delay.max(1)),
        });
        Ok(Self {
            sglang_dir: args.export_metrics_to_file_dir.clone(),
            trtllm_dir: args.perf_metrics_output_dir.clone(),
            spans,
            passes: args.forward_pass_metrics,
        })
    }
}
