//! Where an engine tells of single requests and forward passes.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use plimsoll_common::{engine::EngineKind, ids::EngineId};
use plimsoll_shell::config::Problems;

use super::{Endpoint, EndpointTable, Settings};

/// The most streams of forward passes of one engine: as many as a node may have GPUs.
const MAX_STREAMS: usize = 64;
/// The longest path of a Unix socket (`sun_path`, with its last zero).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The exact sources of one engine; all are off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactSources {
    /// The folder to which it writes a record of each request.
    pub request_metrics_dir: Option<PathBuf>,
    /// Whether TensorRT-LLM's `/perf_metrics` is read (up to 1.2). Reading it takes it away from every other reader.
    pub request_stats: bool,
    /// Where it publishes forward-pass metrics, one address a data-parallel rank.
    pub forward_pass_metrics: Vec<FpmAddress>,
    /// The `service.name` or `service.instance.id` of its OTLP traces.
    pub otlp_service: Option<String>,
}

impl ExactSources {
    /// Whether a source of its own is read for the engine, beside its pages.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.request_metrics_dir.is_some()
            || !self.forward_pass_metrics.is_empty()
            || self.otlp_service.is_some()
    }
}

/// Where request spans are received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpReceiver {
    /// The address.
    pub listen: SocketAddr,
    /// Whose spans those are that name no engine's service.
    pub default_engine: Option<EngineId>,
}

/// The address of a ZMQ publisher.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FpmAddress {
    /// `tcp://HOST:PORT`.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `ipc://PATH`.
    Ipc(PathBuf),
}

impl FromStr for FpmAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("'{text}' {why}; write tcp://HOST:PORT or ipc:///PATH");
        if let Some(path) = text.strip_prefix("ipc://") {
            return match path {
                _ if !path.starts_with('/') => Err(wrong("names no file from '/'")),
                _ if path.len() > MAX_SOCKET_PATH_BYTES => {
                    Err(wrong("is longer than a socket's path may be"))
                }
                _ => Ok(Self::Ipc(PathBuf::from(path))),
            };
        }
        let Some(authority) = text.strip_prefix("tcp://") else {
            return Err(wrong("is no address of a ZMQ publisher"));
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| wrong("names no port"))?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("names no port"))?;
        match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "*" => Err(wrong("is where a publisher listens, not where it is reached")),
            host if host.contains(['/', '@']) => Err(wrong("names no host")),
            host => Ok(Self::Tcp { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for FpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

/// Checks what one endpoint names.
pub(super) fn check(
    table: &EndpointTable,
    place: impl Fn(&str) -> String,
    problems: &mut Problems,
) -> ExactSources {
    if let Some(dir) = table.request_metrics_dir.as_deref().filter(|dir| !dir.is_absolute()) {
        problems.push(format!("{}: '{}' is no path from '/'", place("request-metrics-dir"), dir.display()));
    }
    let request_stats = table.request_stats.unwrap_or(false);
    if request_stats && table.kind.is_some_and(|kind| kind != EngineKind::TensorRtLlm) {
        problems.push(format!("{}: only trtllm has such a page", place("request-stats")));
    }
    if request_stats && table.request_metrics_dir.is_some() {
        problems.push(format!(
            "{}: request-metrics-dir tells of the same requests, which would count twice; give one of the two",
            place("request-stats")
        ));
    }
    let streams = &table.forward_pass_metrics;
    if streams.len() > MAX_STREAMS {
        problems.push(format!(
            "{}: {} addresses, at most {MAX_STREAMS}",
            place("forward-pass-metrics"),
            streams.len()
        ));
    }
    let address = |text: &String| problems.take(&place("forward-pass-metrics"), text.parse::<FpmAddress>());
    let forward_pass_metrics = streams.iter().filter_map(address).collect();
    ExactSources {
        request_metrics_dir: table.request_metrics_dir.clone(),
        request_stats,
        forward_pass_metrics,
        otlp_service: table.otlp_service.clone(),
    }
}

/// A source that two engines share would be counted twice, or for the wrong one.
pub(super) fn check_all(endpoints: &[Endpoint], problems: &mut Problems) {
    let mut owners: BTreeMap<(&str, String), &EngineId> = BTreeMap::new();
    for endpoint in endpoints {
        let sources = &endpoint.exact;
        let dir = sources.request_metrics_dir.as_deref().map(Path::display);
        let mut named: Vec<(&str, String)> = Vec::new();
        named.extend(dir.map(|dir| ("request-metrics-dir", dir.to_string())));
        named.extend(sources.otlp_service.iter().map(|service| ("otlp-service", service.clone())));
        named.extend(
            sources.forward_pass_metrics.iter().map(|address| ("forward-pass-metrics", address.to_string())),
        );
        for (key, value) in named {
            if let Some(other) = owners.insert((key, value.clone()), &endpoint.id) {
                problems.push(format!(
                    "endpoint: {key} '{value}' is given twice, for '{other}' and for '{}'; each engine needs its own",
                    endpoint.id
                ));
            }
        }
    }
}

/// Checks the receiver of spans.
pub(super) fn receiver(
    settings: &Settings,
    endpoints: &[Endpoint],
    problems: &mut Problems,
) -> Option<OtlpReceiver> {
    let default_engine = settings.otlp_engine.as_deref().and_then(|engine| {
        let known = endpoints.iter().find(|endpoint| endpoint.id.as_str() == engine);
        if known.is_none() {
            problems.push(format!("otlp-engine: no endpoint is called '{engine}'"));
        }
        known.map(|endpoint| endpoint.id.clone())
    });
    let Some(listen) = settings.otlp_listen.as_deref() else {
        let named = endpoints.iter().find(|endpoint| endpoint.exact.otlp_service.is_some());
        if let Some(endpoint) = named {
            problems.push(format!(
                "endpoint '{}': otlp-service: nothing receives spans; give --otlp-listen ADDRESS",
                endpoint.url
            ));
        }
        return None;
    };
    let listen = problems.take(
        "otlp-listen",
        listen
            .parse()
            .map_err(|_| format!("'{listen}' is no address and port, such as 127.0.0.1:4317 or [::]:4317")),
    )?;
    // Where there is one engine only, whose spans should they be.
    let only = || match endpoints {
        [only] if only.exact.otlp_service.is_none() => Some(only.id.clone()),
        _ => None,
    };
    Some(OtlpReceiver { listen, default_engine: default_engine.or_else(only) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["tcp://127.0.0.1:20380", "tcp://[::1]:20380", "tcp://worker-0:1", "ipc:///tmp/fpm.sock"]
        {
            assert_eq!(good.parse::<FpmAddress>().map(|address| address.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "127.0.0.1:1",
            "tcp://",
            "tcp://host",
            "tcp://host:0",
            "tcp://host:70000",
            "tcp://*:20380",
            "tcp://:1",
            "tcp://a/b:1",
            "udp://host:1",
            "ipc://",
            "ipc://relative",
            "ipc://@abstract",
        ] {
            assert!(bad.parse::<FpmAddress>().is_err(), "{bad}");
        }
        assert!(format!("ipc:///{}", "x".repeat(200)).parse::<FpmAddress>().is_err());
    }
}
