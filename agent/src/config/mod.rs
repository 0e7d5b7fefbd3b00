//! What the agent is told: flags, environment and file, checked whole before anything starts.

mod endpoint;
mod exact;
mod settings;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use plimsoll_common::ids::NodeName;
use plimsoll_shell::{
    config::{ConfigError, FileTable, Problems, layered},
    http::Access,
    logging::LogFormat,
};

use crate::{attribution::AttributionOptions, gpu::OnDriverUpgrade};

pub use endpoint::{Endpoint, EndpointTable, SloTable};
pub use exact::{ExactSources, FpmAddress, OtlpReceiver};
pub use settings::Settings;

/// The page for people, the JSON API and `/metrics` listen here by default.
pub const DEFAULT_LISTEN_HTTP: &str = "127.0.0.1:9474";
/// The UDP port on which planners take reports by default.
pub const DEFAULT_PLANNER_PORT: u16 = 9476;

const TABLES: &[FileTable] = &[FileTable { name: "endpoint", keys: EndpointTable::KEYS }];
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(5);

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Where the agent's own pages are served.
    pub listen_http: SocketAddr,
    /// What guards them.
    pub access: Access,
    /// Where reports go; `None`: nowhere, only the pages are served.
    pub planner: Option<Planner>,
    /// Where the bound addresses are written.
    pub address_file: Option<PathBuf>,
    /// Between two reports.
    pub report_interval: Duration,
    /// Between two samples of the GPUs.
    pub gpu_interval: Duration,
    /// Whether GPUs are looked at at all.
    pub gpu: bool,
    /// The NVML library to load; `None`: `libnvidia-ml.so.1` where the loader finds it.
    pub nvml_library: Option<PathBuf>,
    /// What happens when that library no longer fits the driver.
    pub on_driver_upgrade: OnDriverUpgrade,
    /// How GPUs are attributed to pods.
    pub attribution: AttributionOptions,
    /// Between two scrapes of one engine; grows where a scrape is slow.
    pub scrape_interval: Duration,
    /// How long one scrape may take.
    pub scrape_timeout: Duration,
    /// The engines to read.
    pub endpoints: Vec<Endpoint>,
    /// Where request spans are received; `None`: nowhere.
    pub otlp: Option<OtlpReceiver>,
    /// Whether `/metrics` also carries the names of dcgm-exporter.
    pub dcgm_names: bool,
    /// How many bytes of unacknowledged reports are kept.
    pub spool_bytes: usize,
    /// How long an orderly end may take.
    pub shutdown_timeout: Duration,
    /// What is logged.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// The planner and how it is trusted.
#[derive(Debug, Clone)]
pub struct Planner {
    /// `host:port`; every address that it resolves to is a planner of its own. Resolved anew now and then.
    pub address: String,
    /// The name its certificate must show.
    pub name: String,
    /// The authorities (PEM) that may have signed it; `None` only with `dev`.
    pub ca: Option<PathBuf>,
    /// What the agent shows of itself: certificate and key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A file with a token that proves who the agent is, for planners that ask for one.
    pub token: Option<PathBuf>,
}

impl Config {
    /// Lays the flags over the file they name, and checks everything.
    ///
    /// # Errors
    /// With all that is wrong, not only the first.
    pub fn load(flags: &Settings) -> Result<Self, ConfigError> {
        let settings = layered(flags, flags.config.as_deref(), TABLES)?;
        let mut problems = Problems::default();
        let config = Self::check(&settings, &mut problems);
        problems.into_result(flags.config.as_deref(), config)
    }

    fn check(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let node = settings.node_name.clone().or_else(|| sysinfo::System::host_name().ok());
        let node = match node {
            Some(name) => problems.take("node-name", NodeName::parse(&name)),
            None => {
                problems.push("node-name: this machine has no host name; give --node-name");
                None
            }
        };
        let listen = settings.listen_http.as_deref().unwrap_or(DEFAULT_LISTEN_HTTP);
        let listen_http = problems.take("listen-http", parse_address(listen));
        let (cert, key) = (settings.http_tls_cert.as_deref(), settings.http_tls_key.as_deref());
        let access = Access::check(cert, key, settings.http_token.as_deref(), problems);
        let planner = check_planner(settings, problems);
        let mut interval =
            |name: &str, given: Option<plimsoll_shell::duration::HumanDuration>, default: u64| {
                let value = given.map_or_else(|| Duration::from_millis(default), |given| given.0);
                if !INTERVALS.contains(&value) {
                    problems.push(format!("{name}: {value:?} is outside 100ms to 5m"));
                }
                value
            };
        let report_interval = interval("report-interval", settings.report_interval, 1000);
        let gpu_interval = interval("gpu-interval", settings.gpu_interval, 1000);
        let scrape_interval = interval("scrape-interval", settings.scrape_interval, 1000);
        let scrape_timeout = interval("scrape-timeout", settings.scrape_timeout, 5000);
        let endpoints = endpoint::check_all(settings, problems);
        let otlp = exact::receiver(settings, &endpoints, problems);
        let spool_bytes = settings.spool_bytes.unwrap_or(8 << 20);
        if !(64 << 10..=1 << 30).contains(&spool_bytes) {
            problems
                .push(format!("spool-bytes: {spool_bytes} is outside 65536 (64 KiB) to 1073741824 (1 GiB)"));
        }
        Some(Self {
            node: node?,
            listen_http: listen_http?,
            access,
            planner,
            address_file: settings.address_file.clone(),
            report_interval,
            gpu_interval,
            gpu: settings.gpu.unwrap_or(true),
            nvml_library: settings.nvml_library.clone(),
            on_driver_upgrade: settings.on_driver_upgrade.unwrap_or_default(),
            attribution: attribution(settings),
            scrape_interval,
            scrape_timeout,
            endpoints,
            otlp,
            dcgm_names: settings.dcgm_names.unwrap_or(false),
            spool_bytes: usize::try_from(spool_bytes).ok()?,
            shutdown_timeout: settings.shutdown_timeout.map_or(Duration::from_secs(5), |given| given.0),
            log_filter: settings.log_filter.clone().unwrap_or_else(|| "info".to_owned()),
            log_format: settings.log_format.unwrap_or_default(),
        })
    }
}

fn attribution(settings: &Settings) -> AttributionOptions {
    let defaults = AttributionOptions::default();
    AttributionOptions {
        socket: settings.pod_resources_socket.clone().unwrap_or(defaults.socket),
        proc: settings.attribute_by_cgroup.unwrap_or(false).then(|| PathBuf::from("/proc")),
        ..defaults
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no address and port, such as {DEFAULT_LISTEN_HTTP} or [::]:9474"))
}

fn check_planner(settings: &Settings, problems: &mut Problems) -> Option<Planner> {
    let dev = settings.dev.unwrap_or(false);
    let identity = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => {
            problems.push("tls-cert and tls-key go together: one is given, the other is not");
            None
        }
    };
    let Some(given) = &settings.planner else {
        if settings.planner_ca.is_some() || settings.planner_token.is_some() || identity.is_some() {
            problems.push(
                "planner: certificates or a token are given but no planner to show them to; give --planner HOST:PORT",
            );
        }
        return None;
    };
    let (host, address) = match given.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => (host, given.clone()),
        Some((_, port)) if !given.starts_with('[') && port.parse::<u16>().is_err() => {
            problems.push(format!("planner: '{port}' in '{given}' is no port; write HOST:PORT"));
            return None;
        }
        _ => (given.as_str(), format!("{given}:{DEFAULT_PLANNER_PORT}")),
    };
    if settings.planner_ca.is_none() && !dev {
        problems.push(
            "planner-ca: without the authority that signed the planner's certificate anybody could pose as the \
             planner; give --planner-ca FILE, or --dev to trust anybody while trying things out",
        );
    }
    let name = settings.planner_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let token = settings.planner_token.clone();
    Some(Planner { address, name, ca: settings.planner_ca.clone(), identity, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(change: impl FnOnce(&mut Settings)) -> Result<Config, Vec<String>> {
        let mut settings = Settings { node_name: Some("n".to_owned()), ..Settings::default() };
        change(&mut settings);
        Config::load(&settings).map_err(|error| error.problems)
    }

    #[test]
    fn the_defaults_stand_alone() {
        let config = load(|_| ()).unwrap();
        assert_eq!(config.listen_http.to_string(), DEFAULT_LISTEN_HTTP);
        assert!(config.planner.is_none());
    }

    #[test]
    fn a_planner_needs_somebody_who_vouches_for_it() {
        let problems = load(|s| s.planner = Some("planner:9476".to_owned())).unwrap_err();
        assert!(problems[0].contains("--planner-ca"), "{problems:?}");
        let planner = load(|s| {
            s.planner = Some("planner.plimsoll.svc".to_owned());
            s.dev = Some(true);
        });
        assert_eq!(planner.unwrap().planner.unwrap().address, "planner.plimsoll.svc:9476");
        let problems = load(|s| s.planner = Some("host:http".to_owned())).unwrap_err();
        assert!(problems[0].contains("'http'"), "{problems:?}");
    }

    #[test]
    fn processes_are_attributed_only_where_asked_for() {
        let config = load(|_| ()).unwrap();
        assert_eq!(config.attribution, AttributionOptions::default());
        let config = load(|s| {
            s.pod_resources_socket = Some("/run/kubelet.sock".into());
            s.attribute_by_cgroup = Some(true);
        });
        let attribution = config.unwrap().attribution;
        assert_eq!(attribution.socket, PathBuf::from("/run/kubelet.sock"));
        assert_eq!(attribution.proc, Some(PathBuf::from("/proc")));
    }

    #[test]
    fn exact_sources_belong_to_one_engine_each() {
        let table = |url: &str| EndpointTable {
            url: url.to_owned(),
            request_metrics_dir: Some("/logs".into()),
            forward_pass_metrics: vec!["tcp://127.0.0.1:20380".to_owned()],
            otlp_service: Some("chat".to_owned()),
            ..EndpointTable::default()
        };
        let problems = load(|s| s.endpoint = vec![table("http://a:1"), table("http://b:1")]).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].contains("given twice") && problems[3].contains("--otlp-listen"), "{problems:?}");
        let problems = load(|s| {
            s.otlp_listen = Some("127.0.0.1:0".to_owned());
            s.otlp_engine = Some("nobody".to_owned());
            let relative = EndpointTable { request_metrics_dir: Some("logs".into()), ..table("http://a:1") };
            s.endpoint = vec![relative];
        });
        assert_eq!(problems.unwrap_err().len(), 2);
    }

    #[test]
    fn requests_are_told_once_and_by_an_engine_that_can() {
        use plimsoll_common::engine::EngineKind;
        let table = |kind| EndpointTable {
            url: "http://a:1".to_owned(),
            kind,
            request_stats: Some(true),
            ..EndpointTable::default()
        };
        let drains = |table: EndpointTable| load(|s| s.endpoint = vec![table]);
        assert!(drains(table(Some(EngineKind::TensorRtLlm))).unwrap().endpoints[0].exact.request_stats);
        assert!(drains(table(None)).unwrap().endpoints[0].exact.request_stats);
        let twice = EndpointTable { request_metrics_dir: Some("/logs".into()), ..table(None) };
        for (wrong, why) in [(table(Some(EngineKind::Vllm)), "only trtllm"), (twice, "count twice")] {
            let problems = drains(wrong).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(why), "{problems:?}");
        }
    }

    #[test]
    fn the_only_engine_owns_spans_without_a_name() {
        let receiver = |engines: &[&str], default: Option<&str>| {
            let config = load(|s| {
                s.otlp_listen = Some("127.0.0.1:0".to_owned());
                s.engine = engines.iter().map(|url| (*url).to_owned()).collect();
                s.otlp_engine = default.map(str::to_owned);
            });
            config.unwrap().otlp.unwrap().default_engine.map(|engine| engine.to_string())
        };
        assert_eq!(receiver(&["http://a:1"], None).as_deref(), Some("a:1"));
        assert_eq!(receiver(&["http://a:1", "http://b:1"], None), None);
        assert_eq!(receiver(&["http://a:1", "http://b:1"], Some("b:1")).as_deref(), Some("b:1"));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let problems = load(|s| {
            s.listen_http = Some("nowhere".to_owned());
            s.tls_cert = Some("cert.pem".into());
            s.report_interval = "1ms".parse().ok();
            s.engine = vec!["https://a:1".to_owned(), "http://b:1/v1".to_owned()];
        })
        .unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
