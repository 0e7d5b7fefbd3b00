//! What the planner is told: flags, environment and file, checked whole before anything starts.

mod settings;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use plimsoll_common::{units::Micros, wire::Request};
use plimsoll_core::fleet::Limits;
use plimsoll_shell::{
    config::{ConfigError, Problems, layered},
    duration::HumanDuration,
    http::Access,
    logging::LogFormat,
};

pub use settings::{AgentCertificates, Settings};

use crate::{advise::InForce, ingest::IngestOptions, journal, policy};

/// Agents report here by default.
pub const DEFAULT_LISTEN_QUIC: &str = "127.0.0.1:9476";
/// The page for people, the JSON API and `/metrics` listen here by default.
pub const DEFAULT_LISTEN_HTTP: &str = "127.0.0.1:9475";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where agents report, UDP.
    pub listen_quic: SocketAddr,
    /// Where pages are served, TCP.
    pub listen_http: SocketAddr,
    /// What guards them.
    pub access: Access,
    /// What the planner shows of itself.
    pub identity: ServerIdentity,
    /// The authorities (PEM) one of which must have signed an agent's certificate; `None`: agents need none.
    pub client_ca: Option<PathBuf>,
    /// How agents prove their node.
    pub proof: NodeProof,
    /// Bounds of ingest.
    pub ingest: IngestOptions,
    /// What all agents are asked for, where it is the same for all.
    pub request: Option<Request>,
    /// Whether agents are asked by what their pools do.
    pub adaptive_cadence: bool,
    /// Bounds of the fleet.
    pub limits: Limits,
    /// The policy by which is advised, and its file.
    pub policy: Option<(PathBuf, InForce)>,
    /// Where the journal is kept, and how much of it.
    pub journal: Option<(PathBuf, journal::Limits)>,
    /// Between two snapshots.
    pub publish_interval: Duration,
    /// Where the bound addresses are written.
    pub address_file: Option<PathBuf>,
    /// How long an orderly end may take.
    pub shutdown_timeout: Duration,
    /// What is logged.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// The planner's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerIdentity {
    /// Certificate chain and key, PEM files.
    Files {
        /// The chain, the planner's own certificate first.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A throw-away certificate; where it is written, if anywhere.
    Dev {
        /// The file that gets the certificate (not the key).
        cert_out: Option<PathBuf>,
    },
}

/// How agents prove their node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeProof {
    /// They do not: any agent that is let in is believed.
    None,
    /// By a URI in their certificate.
    Certificates {
        /// The trust domain of that URI.
        trust_domain: String,
    },
    /// By a token whose SHA-256 stands in this file.
    Keys(PathBuf),
}

impl Config {
    /// Lays the flags over the file they name, and checks everything.
    ///
    /// # Errors
    /// With all that is wrong, not only the first.
    pub fn load(flags: &Settings) -> Result<Self, ConfigError> {
        let settings = layered(flags, flags.config.as_deref(), &[])?;
        let mut problems = Problems::default();
        let config = Self::check(&settings, &mut problems);
        problems.into_result(flags.config.as_deref(), config)
    }

    fn check(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let mut address = |name: &str, given: Option<&str>, default: &str| {
            let text = given.unwrap_or(default);
            let parsed = text.parse::<SocketAddr>();
            problems
                .take(name, parsed.map_err(|_| format!("'{text}' is no address and port, such as {default}")))
        };
        let listen_quic = address("listen-quic", settings.listen_quic.as_deref(), DEFAULT_LISTEN_QUIC);
        let listen_http = address("listen-http", settings.listen_http.as_deref(), DEFAULT_LISTEN_HTTP);
        let (cert, key) = (settings.http_tls_cert.as_deref(), settings.http_tls_key.as_deref());
        let access = Access::check(cert, key, settings.http_token.as_deref(), problems);
        let dev = settings.dev.unwrap_or(false);
        let identity = check_identity(settings, dev, problems);
        if let Some(ca) = &settings.tls_client_ca {
            must_be_readable("tls-client-ca", ca, problems);
        } else if let Some(open) =
            listen_quic.filter(|address| !dev && settings.node_keys.is_none() && !address.ip().is_loopback())
        {
            problems.push(format!(
                "listen-quic: {open} can be reached from other machines, and without --tls-client-ca or --node-keys \
                 anybody there could report as any node; give --tls-client-ca FILE (the authority that signs the agents' \
                 certificates) or --node-keys FILE, listen on 127.0.0.1, or use --dev while trying things out"
            ));
        }
        let proof = check_proof(settings, problems);
        let ingest = check_ingest(settings, problems);
        let (request, adaptive_cadence) = check_cadence(settings, problems);
        let limits = check_limits(settings, problems);
        let publish_interval =
            within("publish-interval", settings.publish_interval, 1_000, 10..=60_000, problems);
        let shutdown_timeout =
            within("shutdown-timeout", settings.shutdown_timeout, 5_000, 0..=3_600_000, problems);
        Some(Self {
            listen_quic: listen_quic?,
            listen_http: listen_http?,
            access,
            identity: identity?,
            client_ca: settings.tls_client_ca.clone(),
            proof,
            ingest,
            request,
            adaptive_cadence,
            limits,
            policy: check_policy(settings, problems),
            journal: check_journal(settings, problems),
            publish_interval,
            address_file: settings.address_file.clone(),
            shutdown_timeout,
            log_filter: settings.log_filter.clone().unwrap_or_else(|| "info".to_owned()),
            log_format: settings.log_format.unwrap_or_default(),
        })
    }
}

fn check_identity(settings: &Settings, dev: bool, problems: &mut Problems) -> Option<ServerIdentity> {
    if settings.dev_cert_out.is_some() && !dev {
        problems.push("dev-cert-out: only --dev makes a certificate that could be written");
    }
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(_), Some(_)) if dev => {
            problems.push("dev: it makes its own certificate; leave out --dev, or --tls-cert and --tls-key");
            None
        }
        (Some(cert), Some(key)) => {
            must_be_readable("tls-cert", cert, problems);
            must_be_readable("tls-key", key, problems);
            Some(ServerIdentity::Files { cert: cert.clone(), key: key.clone() })
        }
        (None, None) if dev => Some(ServerIdentity::Dev { cert_out: settings.dev_cert_out.clone() }),
        (None, None) => {
            problems.push(
                "tls-cert: agents must be able to tell who the planner is; give --tls-cert FILE and --tls-key FILE, \
                 or --dev to make a throw-away certificate while trying things out",
            );
            None
        }
        _ => {
            problems.push("tls-cert and tls-key go together: one is given, the other is not");
            None
        }
    }
}

/// Reads the policy; what is odd about it is told in the log, and does not keep the planner from starting.
fn check_policy(settings: &Settings, problems: &mut Problems) -> Option<(PathBuf, InForce)> {
    let path = settings.policy.clone()?;
    let checked = problems.take("policy", policy::load(&path))?;
    Some((path, checked.into()))
}

fn check_journal(settings: &Settings, problems: &mut Problems) -> Option<(PathBuf, journal::Limits)> {
    let bounds = [settings.journal_age, settings.journal_checkpoint];
    if settings.journal_dir.is_none()
        && (settings.journal_bytes.is_some() || bounds.iter().any(Option::is_some))
    {
        problems.push("journal-bytes, journal-age and journal-checkpoint need --journal-dir");
    }
    if settings.journal_dir.is_some() && settings.policy.is_none() {
        problems.push("journal-dir: without --policy nothing is decided and nothing recorded; give both");
    }
    let defaults = journal::Limits::default();
    let millis = |time: Duration| time.as_millis() as u64;
    let bytes = settings.journal_bytes.unwrap_or(defaults.bytes);
    if !(journal::Limits::LEAST_BYTES..=1 << 40).contains(&bytes) {
        problems.push(format!("journal-bytes: {bytes} is outside 4 MiB to 1 TiB"));
    }
    let limits = journal::Limits {
        bytes,
        age: within(
            "journal-age",
            settings.journal_age,
            millis(defaults.age),
            3_600_000..=31_536_000_000,
            problems,
        ),
        checkpoint_every: within(
            "journal-checkpoint",
            settings.journal_checkpoint,
            millis(defaults.checkpoint_every),
            60_000..=3_600_000,
            problems,
        ),
    };
    Some((settings.journal_dir.clone()?, limits))
}

fn check_proof(settings: &Settings, problems: &mut Problems) -> NodeProof {
    let certificates = settings.agent_certificates;
    if settings.tls_client_ca.is_none() && (certificates.is_some() || settings.trust_domain.is_some()) {
        problems.push(
            "agent-certificates and trust-domain say how to read agents' certificates, and none are asked for; give \
             --tls-client-ca FILE",
        );
    }
    let trust_domain = settings.trust_domain.clone().unwrap_or_else(|| "plimsoll".to_owned());
    if trust_domain.is_empty() || trust_domain.contains(['/', ':', ' ']) {
        problems.push(format!("trust-domain: '{trust_domain}' is no domain, such as fleet.example"));
    }
    if let Some(keys) = &settings.node_keys {
        must_be_readable("node-keys", keys, problems);
        if certificates == Some(AgentCertificates::PerNode) {
            problems.push("node-keys: a node is proven by its token or by its certificate; give one of them");
        }
        return NodeProof::Keys(keys.clone());
    }
    let per_node = certificates.unwrap_or_default() == AgentCertificates::PerNode;
    if settings.tls_client_ca.is_some() && per_node {
        NodeProof::Certificates { trust_domain }
    } else {
        NodeProof::None
    }
}

fn check_ingest(settings: &Settings, problems: &mut Problems) -> IngestOptions {
    let defaults = IngestOptions::default();
    let max_connections = settings.max_connections.unwrap_or(defaults.max_connections);
    if max_connections == 0 {
        problems.push("max-connections: 0 would let no agent in; give at least 1");
    }
    IngestOptions { max_connections, ..defaults }
}

/// What all agents are asked for, and whether each is asked by its load instead.
fn check_cadence(settings: &Settings, problems: &mut Problems) -> (Option<Request>, bool) {
    let given = settings.report_interval.map(|given| {
        within("report-interval", Some(given), 1_000, 100..=300_000, problems).as_millis() as u64
    });
    if given.is_some() && settings.adaptive_cadence == Some(true) {
        problems.push(
            "adaptive-cadence: agents are asked for one report-interval, or each by its load; give one",
        );
    }
    let request = given.map(|ms| Request { report_interval_ms: Some(ms) });
    (request, settings.adaptive_cadence.unwrap_or_else(|| given.is_none()))
}

fn check_limits(settings: &Settings, problems: &mut Problems) -> Limits {
    let defaults = Limits::default();
    let mut count = |name: &str, given: Option<u64>, default: usize| {
        let value = given.map_or(default, |given| usize::try_from(given).unwrap_or(usize::MAX));
        if !(1..=10_000_000).contains(&value) {
            problems.push(format!("{name}: {value} is outside 1 to 10000000"));
        }
        value
    };
    let (max_nodes, max_gpus, max_engines, max_pools) = (
        count("max-nodes", settings.max_nodes, defaults.max_nodes),
        count("max-gpus", settings.max_gpus, defaults.max_gpus),
        count("max-engines", settings.max_engines, defaults.max_engines),
        count("max-pools", settings.max_pools, defaults.max_pools),
    );
    let mut time = |name: &str, given, default: Micros, range| {
        Micros(within(name, given, default.0 / 1_000, range, problems).as_micros() as u64)
    };
    let stale_after = time("stale-after", settings.stale_after, defaults.stale_after, 1_000..=600_000);
    let silent_after = time("silent-after", settings.silent_after, defaults.silent_after, 1_000..=3_600_000);
    let forget_after =
        time("forget-after", settings.forget_after, defaults.forget_after, 60_000..=604_800_000);
    if stale_after > silent_after || silent_after > forget_after {
        problems.push(format!(
            "stale-after ({stale_after}) must not be above silent-after ({silent_after}), nor that above forget-after \
             ({forget_after})"
        ));
    }
    Limits {
        max_nodes,
        max_gpus,
        max_engines,
        max_pools,
        stale_after,
        silent_after,
        forget_after,
        ..defaults
    }
}

fn within(
    name: &str,
    given: Option<HumanDuration>,
    default_ms: u64,
    range_ms: std::ops::RangeInclusive<u64>,
    problems: &mut Problems,
) -> Duration {
    let value = given.map_or_else(|| Duration::from_millis(default_ms), |given| given.0);
    let (least, most) = (Duration::from_millis(*range_ms.start()), Duration::from_millis(*range_ms.end()));
    if value < least || value > most {
        problems.push(format!("{name}: {value:?} is outside {least:?} to {most:?}"));
    }
    value
}

fn must_be_readable(name: &str, path: &Path, problems: &mut Problems) {
    if let Err(error) = std::fs::File::open(path) {
        problems.push(format!("{name}: {} can't be read: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(change: impl FnOnce(&mut Settings)) -> Result<Config, Vec<String>> {
        let mut settings = Settings { dev: Some(true), ..Settings::default() };
        change(&mut settings);
        Config::load(&settings).map_err(|error| error.problems)
    }

    #[test]
    fn dev_stands_alone() {
        let config = load(|_| ()).unwrap();
        assert_eq!(config.listen_quic.to_string(), DEFAULT_LISTEN_QUIC);
        assert_eq!(config.listen_http.to_string(), DEFAULT_LISTEN_HTTP);
        assert_eq!(config.identity, ServerIdentity::Dev { cert_out: None });
        assert_eq!((config.request, config.adaptive_cadence), (None, true));
    }

    #[test]
    fn without_a_certificate_it_says_what_to_do() {
        let problems = load(|s| s.dev = None).unwrap_err();
        assert!(problems[0].contains("--tls-cert") && problems[0].contains("--dev"), "{problems:?}");
    }

    #[test]
    fn an_open_port_needs_to_know_its_agents() {
        let open = |s: &mut Settings| {
            s.dev = None;
            s.listen_quic = Some("0.0.0.0:9476".to_owned());
            s.tls_cert = Some("/dev/null".into());
            s.tls_key = Some("/dev/null".into());
        };
        let problems = load(open).unwrap_err();
        assert!(problems[0].contains("--tls-client-ca"), "{problems:?}");
        load(|s| {
            open(s);
            s.tls_client_ca = Some("/dev/null".into());
        })
        .unwrap();
        load(|s| s.listen_quic = Some("0.0.0.0:9476".to_owned())).unwrap();
    }

    #[test]
    fn who_asks_for_certificates_has_each_node_prove_itself() {
        let with = |change: fn(&mut Settings)| {
            load(|s| {
                s.tls_client_ca = Some("/dev/null".into());
                change(s);
            })
        };
        let plimsoll = NodeProof::Certificates { trust_domain: "plimsoll".to_owned() };
        assert_eq!(with(|_| ()).unwrap().proof, plimsoll);
        assert_eq!(
            with(|s| s.agent_certificates = Some(AgentCertificates::Shared)).unwrap().proof,
            NodeProof::None
        );
        let keys = with(|s| s.node_keys = Some("/dev/null".into())).unwrap().proof;
        assert_eq!(keys, NodeProof::Keys("/dev/null".into()));
        assert!(with(|s| s.trust_domain = Some("spiffe://x".to_owned())).is_err());
        assert!(load(|s| s.trust_domain = Some("x".to_owned())).is_err());
    }

    #[test]
    fn a_journal_needs_a_policy_and_sensible_bounds() {
        let problems = load(|s| {
            s.journal_dir = Some("journal".into());
            s.journal_bytes = Some(1_000);
            s.journal_age = "1m".parse().ok();
        })
        .unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(load(|s| s.journal_age = "2h".parse().ok()).unwrap_err()[0].contains("--journal-dir"));
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.yaml");
        let text = "models: [{name: a, slo: {ttft: {limit: 1s}}, pools: [{name: p, max: 2, profile: llama-3.1-8b-h100-tp1}]}]";
        std::fs::write(&policy, text).unwrap();
        let config = load(|s| {
            s.policy = Some(policy.clone());
            s.journal_dir = Some("journal".into());
        });
        assert_eq!(config.unwrap().journal, Some(("journal".into(), journal::Limits::default())));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let problems = load(|s| {
            s.dev = None;
            s.dev_cert_out = Some("cert.pem".into());
            s.tls_cert = Some("cert.pem".into());
            s.listen_http = Some("nowhere".to_owned());
            s.max_nodes = Some(0);
            s.stale_after = "10m".parse().ok();
            s.publish_interval = "1ms".parse().ok();
        })
        .unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:?}");
        let problems = load(|s| {
            s.tls_cert = Some("cert.pem".into());
            s.tls_key = Some("key.pem".into());
        });
        assert!(problems.unwrap_err()[0].contains("--dev"));
        let problems = load(|s| {
            s.dev = None;
            s.tls_cert = Some("/nowhere/cert.pem".into());
            s.tls_key = Some("/nowhere/key.pem".into());
        });
        assert_eq!(problems.unwrap_err().len(), 2);
    }
}
