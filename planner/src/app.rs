//! All parts put together: bind, spawn, supervise, drain.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use plimsoll_common::{ids::PlannerRun, units::Micros, wire::ALPN};
use plimsoll_core::{controller::Controller, fleet::Detail};
use plimsoll_shell::{
    address, http,
    ready::Readiness,
    supervise::Supervisor,
    tls::{self, Watched},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::interval,
};
use tokio_util::sync::CancellationToken;

use crate::{
    advise::{self, Advisor},
    clock::Clock,
    config::{Config, NodeProof, ServerIdentity},
    drive::{self, Asking, Cadence, Driver, Question},
    ingest::{Anybody, Certificates, Door, Ingest, IngestStats, Keys, NodeVerifier, Renewal},
    journal::{self, Writer},
    serve::{self, Pages},
};

/// Between two looks whether certificates were renewed.
const RENEWAL_LOOK: Duration = Duration::from_secs(2);

/// Where a planner listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Agents report here, UDP.
    pub quic: SocketAddr,
    /// Pages are served here, TCP.
    pub http: SocketAddr,
}

/// A planner whose ports are bound and whose tasks run.
#[derive(Debug)]
pub struct App {
    supervisor: Supervisor,
    bound: Bound,
}

impl App {
    /// Binds both ports and spawns everything; nothing is left behind when that fails.
    ///
    /// # Errors
    /// When a port can't be bound, or a certificate or key can't be used.
    pub async fn spawn(config: &Config, cancel: CancellationToken) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let mut watched = Watched::new(certificate_files(config));
        let tls = tls_config(config)?;
        let server = http::Server::bind(config.listen_http, &config.access).await?;
        let stats = Arc::new(IngestStats::default());
        let (events, taken) = mpsc::channel(drive::EVENTS);
        let (questions, asked) = mpsc::channel(drive::QUESTIONS);
        let (options, shared) = (config.ingest, Arc::clone(&stats));
        let ingest = Ingest::bind(
            config.listen_quic,
            Door { tls, verifier: verifier(config)? },
            options,
            shared,
            events,
            clock,
            cancel.clone(),
        )?;
        let bound = Bound { quic: ingest.local_addr()?, http: server.local_addr()? };
        let driver = Driver::new(
            config.limits,
            clock,
            config.publish_interval,
            PlannerRun(rand::random()),
            asking(config),
        );
        let (readiness, [snapshot]) = Readiness::new(["first_snapshot"]);
        let mut supervisor = Supervisor::new(cancel.clone());
        let resumed = resume(config, clock.now()).await?;
        let recorded = resumed.as_ref().map(|(journal, _)| journal.stats());
        let advice = config.policy.clone().map(|(path, policy)| {
            for problem in &policy.problems {
                tracing::warn!(policy = %path.display(), %problem, "the policy is odd");
            }
            let (advisor, advice) = Advisor::new(clock, questions.clone(), path, policy, resumed);
            supervisor.spawn("advise", advisor.run(cancel.clone()));
            advice
        });
        let pages = Pages::new(questions.clone(), stats, clock, server.refusals());
        let pages = pages.with_advice(advice).with_journal(recorded);
        let probes = http::probes(readiness);
        supervisor.spawn("http", server.serve(serve::router(pages), probes, cancel.clone()));
        supervisor.spawn("drive", driver.run(taken, asked));
        let (renewal, renewed, ending) = (ingest.renewal(), config.clone(), cancel.clone());
        supervisor.spawn("certificates", async move {
            let mut look = interval(RENEWAL_LOOK);
            loop {
                tokio::select! { _ = look.tick() => (), () = ending.cancelled() => return Ok(()) }
                if watched.changed() {
                    renew(&renewal, &renewed);
                }
            }
        });
        supervisor.spawn("ingest", ingest.run());
        supervisor.spawn("readiness", async move {
            let (reply, first) = oneshot::channel();
            let asked = questions.send(Question::Show { detail: Detail::Sums, reply }).await;
            drop(questions);
            tokio::select! {
                first = first => snapshot.set(asked.is_ok() && first.is_ok()),
                () = cancel.cancelled() => (),
            }
            cancel.cancelled().await;
            // Whoever balances load between planners stops sending before this one stops answering.
            snapshot.set(false);
            Ok(())
        });
        if let Some(path) = &config.address_file {
            address::write(path, &BTreeMap::from([("http", bound.http), ("quic", bound.quic)]))
                .with_context(|| format!("address-file: {} can't be written", path.display()))?;
        }
        tracing::info!(quic = %bound.quic, http = %bound.http, "planner started");
        Ok(Self { supervisor, bound })
    }

    /// Where it listens.
    #[must_use]
    pub const fn bound(&self) -> Bound {
        self.bound
    }

    /// Runs until cancelled, then drains: connections close in order, what they sent is applied, pages end.
    ///
    /// # Errors
    /// When a part failed or did not end in time.
    pub async fn run(self, config: &Config) -> anyhow::Result<()> {
        self.supervisor.run(config.shutdown_timeout).await
    }
}

/// Opens the journal and takes up what was learned, where one is kept; off the event loop, since it reads for a while.
async fn resume(config: &Config, now: Micros) -> anyhow::Result<Option<(Writer, Controller)>> {
    let (Some((dir, limits)), Some((_, policy))) = (config.journal.clone(), &config.policy) else {
        return Ok(None);
    };
    let basis = advise::basis(policy);
    Ok(Some(tokio::task::spawn_blocking(move || journal::resume(&dir, limits, now, basis)).await?))
}

fn asking(config: &Config) -> Asking {
    if config.adaptive_cadence {
        Asking::ByLoad(Cadence::default())
    } else {
        Asking::All(config.request.unwrap_or_default())
    }
}

/// Certificate, key and authority, where they are files.
fn certificate_files(config: &Config) -> impl Iterator<Item = &Path> {
    let own = match &config.identity {
        ServerIdentity::Files { cert, key } => vec![cert.as_path(), key.as_path()],
        ServerIdentity::Dev { .. } => Vec::new(),
    };
    own.into_iter().chain(config.client_ca.as_deref())
}

/// Takes renewed certificates; keeps the last ones where they can't be used (perhaps only half of them is written yet, and
/// the next look sees the rest).
fn renew(renewal: &Renewal, config: &Config) {
    if matches!(config.identity, ServerIdentity::Dev { .. }) {
        return;
    }
    match tls_config(config).and_then(|tls| renewal.renew(tls)) {
        Ok(()) => tracing::info!("certificates were renewed"),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "renewed certificates can't be used; those read before are kept");
        }
    }
}

fn verifier(config: &Config) -> anyhow::Result<Box<dyn NodeVerifier>> {
    Ok(match &config.proof {
        NodeProof::Keys(path) => Box::new(Keys::read(path).context("node-keys")?),
        NodeProof::Certificates { trust_domain } => {
            Box::new(Certificates { trust_domain: trust_domain.clone() })
        }
        NodeProof::None => {
            if config.client_ca.is_some() {
                tracing::warn!("agents share one certificate: any of them may report as any node");
            }
            Box::new(Anybody)
        }
    })
}

fn tls_config(config: &Config) -> anyhow::Result<rustls::ServerConfig> {
    let identity = match &config.identity {
        ServerIdentity::Files { cert, key } => tls::Identity::from_pem_files(cert, key)?,
        ServerIdentity::Dev { cert_out } => {
            let host = config.listen_quic.ip().to_string();
            let (identity, pem) = tls::Identity::throw_away(&["localhost", "127.0.0.1", "::1", &host])?;
            tracing::warn!("--dev: this planner made up its own certificate; never use this outside a test");
            if config.client_ca.is_none() {
                tracing::warn!("--dev: any agent is let in under any node's name");
            }
            if let Some(path) = cert_out {
                std::fs::write(path, pem)
                    .with_context(|| format!("dev-cert-out: {} can't be written", path.display()))?;
            }
            identity
        }
    };
    let clients = config.client_ca.as_deref().map(tls::trust).transpose()?;
    if clients.is_none() && matches!(config.identity, ServerIdentity::Files { .. }) {
        tracing::warn!("agents on this machine need no certificate: there is no --tls-client-ca");
    }
    tls::server(identity, clients, ALPN)
}
