//! The loop that reads one engine.

use std::{pin::pin, sync::Arc, time::Duration};

use plimsoll_common::{engine::EngineKind, wire::EngineState};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    cadence::{Cadence, Jitter},
    client::Client,
    read_page_of,
    scrape_error::ScrapeError,
    side::SidePages,
    slo::{Buckets, Changed, Slo, SloEdge, edges_of},
    state::{Evidence, Movement, StateMachine},
    tracker::EngineTracker,
    update::{EngineReading, EngineUpdate},
};
use crate::{config::Endpoint, exposition::Limits};

/// When a scrape that is under way is told to be late. Well below the time-out, which leaves a busy engine the time that
/// it needs: nobody should have to wait for that to see that an engine hangs.
const LATE: Duration = Duration::from_secs(2);
/// Where SGLang says whether it serves; unlike its `/health` it generates nothing.
const READY_PATH: &str = "/ready";
const MAX_READY_BYTES: usize = 4096;
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// How often and how patiently engines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrapeOptions {
    /// The shortest time from one scrape to the next.
    pub interval: Duration,
    /// The longest, however slow the engine's page is.
    pub longest_interval: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a scrape may take, the connection included.
    pub timeout: Duration,
    /// How much of a page is read.
    pub limits: Limits,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            longest_interval: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }
}

/// Starts [`run`] as a task.
pub fn spawn_scraper(
    engine: usize,
    endpoint: Endpoint,
    options: ScrapeOptions,
    tx: mpsc::Sender<EngineReading>,
    cancel: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(run(engine, endpoint, options, tx, cancel))
}

/// Reads one engine until `cancel` or until nobody takes the readings.
///
/// One scrape is in flight at a time. It starts only when the channel has room for its reading: nothing read is ever
/// dropped, and when readings are taken late the next one simply covers more time. A scrape that is late is told of
/// while it is waited for, with a reading that has no page.
pub async fn run(
    engine: usize,
    endpoint: Endpoint,
    options: ScrapeOptions,
    tx: mpsc::Sender<EngineReading>,
    cancel: CancellationToken,
) {
    let mut jitter = Jitter::of(endpoint.id.as_str());
    let mut teller = Teller::new(engine, &endpoint, options, Instant::now());
    let mut scraper = Scraper::new(endpoint, options);
    // The first scrape is due at once, since it is the baseline, and the second is early.
    let mut early = jitter.phase();
    let (mut due, mut late_by) = (Instant::now(), Duration::ZERO);
    loop {
        let room = async {
            sleep_until(due + late_by).await;
            tx.reserve().await
        };
        let permit = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            permit = room => permit,
        };
        let Ok(permit) = permit else { return };
        let mut permit = Some(permit);
        let started = Instant::now();
        let mut looking = pin!(scraper.look());
        let mut patience = pin!(sleep_until(started + LATE));
        let look = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                look = &mut looking => break look,
                () = &mut patience, if permit.is_some() => {
                    let late = teller.late(Instant::now(), LATE);
                    if let Some(permit) = permit.take() {
                        permit.send(late);
                    }
                }
            }
        };
        // Delays do not add up: each counts from when the scrape would have been due without the one before.
        let base = started.checked_sub(late_by).unwrap_or(started);
        let reading = teller.tell(base, started, look);
        let pause = teller.pause.mul_f64(std::mem::replace(&mut early, 1.0));
        due = base + pause;
        late_by = pause.mul_f64(jitter.late());
        let permit = match permit {
            Some(permit) => Ok(permit),
            None => tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                permit = tx.reserve() => permit,
            },
        };
        let Ok(permit) = permit else { return };
        permit.send(reading);
    }
}

/// What one look at an engine gave.
struct Look {
    outcome: Result<EngineUpdate, ScrapeError>,
    /// When the page was there.
    taken: Instant,
    /// What the engine's readiness page says.
    says_ready: Option<bool>,
    /// The bounds of the page's buckets.
    buckets: Option<Buckets>,
}

/// Asks one engine.
struct Scraper {
    endpoint: Endpoint,
    options: ScrapeOptions,
    client: Result<Client, ScrapeError>,
    side: SidePages,
    tracker: EngineTracker,
    version: Option<String>,
    /// Whether the server has no readiness page; forgotten with the next failure.
    no_ready_page: bool,
}

impl Scraper {
    fn new(endpoint: Endpoint, options: ScrapeOptions) -> Self {
        let token = endpoint.bearer_token_file.clone();
        let client = Client::new(&endpoint.url, &endpoint.metrics_path, token, options);
        Self {
            endpoint,
            options,
            client,
            side: SidePages::default(),
            tracker: EngineTracker::new(),
            version: None,
            no_ready_page: false,
        }
    }

    /// Reads the page, and what else tells how the engine is.
    async fn look(&mut self) -> Look {
        let mut buckets = None;
        let (outcome, taken) = self.read(&mut buckets).await;
        if outcome.as_ref().is_err_and(ScrapeError::shows_absence) {
            self.tracker.absent();
            self.version = None;
        }
        let says_ready = match &outcome {
            Ok(update) => self.says_ready(update.identity.kind).await,
            Err(_) => {
                self.no_ready_page = false;
                None
            }
        };
        Look { outcome, taken, says_ready, buckets }
    }

    /// Reads the page, and the version where it is not known yet; gives the instant at which the page was there.
    async fn read(&mut self, buckets: &mut Option<Buckets>) -> (Result<EngineUpdate, ScrapeError>, Instant) {
        let client = match &mut self.client {
            Ok(client) => client,
            Err(error) => return (Err(error.clone()), Instant::now()),
        };
        let Endpoint { kind, model, .. } = &self.endpoint;
        let page = client.page().await;
        let page =
            page.and_then(|bytes| Ok(read_page_of(*kind, model.as_ref(), bytes, self.options.limits)?));
        let page = self.side.complete(client, &self.endpoint, page).await;
        let taken = Instant::now();
        let page = match page {
            Ok(page) => page,
            Err(error) => return (Err(error), taken),
        };
        let version = match self.side.version() {
            Some(version) => Some(version.clone()),
            None => client.version().await,
        };
        self.version = version.or_else(|| self.version.take());
        let mut update = self.tracker.observe(&page);
        update.identity.version.clone_from(&self.version);
        let requests = self.side.take_requests();
        update.quality.malformed_lines += requests.malformed;
        update.requests = requests.samples;
        *buckets = Some(Buckets::of(&page));
        (Ok(update), taken)
    }

    /// Asks an engine that has such a page whether it serves.
    async fn says_ready(&mut self, kind: Option<EngineKind>) -> Option<bool> {
        if kind != Some(EngineKind::Sglang) || self.no_ready_page {
            return None;
        }
        let client = self.client.as_mut().ok()?;
        match client.get_within(READY_PATH, MAX_READY_BYTES, READY_TIMEOUT).await {
            Ok(_) => Some(true),
            Err(ScrapeError::Status { status: 503, .. }) => Some(false),
            Err(ScrapeError::Status { .. } | ScrapeError::Unauthorised { .. }) => {
                self.no_ready_page = true;
                None
            }
            Err(_) => None,
        }
    }
}

/// Makes readings of looks: how the engine is, and what of it is new enough for the log.
struct Teller {
    engine: usize,
    id: String,
    address: String,
    options: ScrapeOptions,
    machine: StateMachine,
    movement: Movement,
    cadence: Cadence,
    /// From the last scrape to the next.
    pause: Duration,
    slo: Option<Slo>,
    buckets: Buckets,
    edges: Arc<[SloEdge]>,
    layout_changes: u64,
}

impl Teller {
    fn new(engine: usize, endpoint: &Endpoint, options: ScrapeOptions, now: Instant) -> Self {
        Self {
            engine,
            id: endpoint.id.as_str().to_owned(),
            address: endpoint.url.trim_start_matches("http://").to_owned(),
            options,
            machine: StateMachine::new(now, endpoint.follower),
            movement: Movement::default(),
            cadence: Cadence::new(options),
            pause: options.interval,
            slo: endpoint.slo,
            buckets: Buckets::default(),
            edges: Arc::default(),
            layout_changes: 0,
        }
    }

    /// The reading of a whole look that began at `started`; the pause until the next counts from `base`.
    fn tell(&mut self, base: Instant, started: Instant, look: Look) -> EngineReading {
        let Look { outcome, taken, says_ready, buckets } = look;
        let took = taken.saturating_duration_since(started);
        if let Ok(update) = &outcome {
            self.learn(update, buckets);
        }
        let evidence = match &outcome {
            Ok(update) => Evidence::Page(self.movement.of(update, says_ready)),
            Err(error) => Evidence::Failed(error),
        };
        self.see(taken, evidence);
        let suspects = self.machine.suspects_until();
        let pause = self.cadence.after(took, outcome.as_ref().err(), suspects.is_some());
        // The page that is to show a freeze had better come when it can, not a moment before.
        let told = suspects.map(|until| until.saturating_duration_since(base));
        self.pause = told.filter(|told| *told < pause * 2).map_or(pause, |told| told.max(pause));
        if let Ok(EngineUpdate { quality, delta, .. }) = &outcome {
            let engine = self.id.as_str();
            if delta.resets > 0 {
                tracing::info!(engine, "engine restarted: its counters start again");
            }
            if let Some(first) = quality.first_malformed {
                tracing::debug!(engine, lines = quality.malformed_lines, %first, "malformed lines skipped");
            }
        }
        self.reading(taken, took, outcome)
    }

    /// The reading of a look that is not over yet.
    fn late(&mut self, now: Instant, after: Duration) -> EngineReading {
        let error = ScrapeError::Late { address: self.address.clone(), after };
        self.see(now, Evidence::Failed(&error));
        self.reading(now, after, Err(error))
    }

    fn reading(
        &self,
        taken: Instant,
        took: Duration,
        outcome: Result<EngineUpdate, ScrapeError>,
    ) -> EngineReading {
        EngineReading {
            engine: self.engine,
            taken,
            took,
            outcome,
            seen: self.machine.seen().clone(),
            slo: Arc::clone(&self.edges),
            layout_changes: self.layout_changes,
        }
    }

    /// Takes the evidence, and tells the log of a change.
    fn see(&mut self, now: Instant, evidence: Evidence<'_>) {
        // A page shows how the engine is until three more could have been there.
        let patience = (self.pause * 3).max(self.options.interval * 3) + self.options.timeout;
        let before = self.machine.seen().state;
        let seen = self.machine.observe(now, evidence, patience);
        let (engine, reason) = (self.id.as_str(), &seen.reason);
        let (from, to) = (before.as_str(), seen.state.as_str());
        match seen.state {
            _ if seen.state == before => tracing::debug!(engine, state = to, %reason, "engine looked at"),
            EngineState::Ready | EngineState::Follower if before == EngineState::Pending => {
                tracing::info!(engine, state = to, %reason, "engine seen");
            }
            EngineState::Ready | EngineState::Follower | EngineState::Pending => {
                tracing::info!(engine, from, state = to, %reason, "engine is back");
            }
            _ => tracing::warn!(engine, from, state = to, %reason, "engine does not serve"),
        }
    }

    /// Looks at the bounds of the page's buckets, and whether they fit the SLO.
    fn learn(&mut self, update: &EngineUpdate, buckets: Option<Buckets>) {
        let Some(buckets) = buckets else { return };
        let changed = self.buckets.take(buckets);
        if changed == Changed::Nothing {
            return;
        }
        let engine = self.id.as_str();
        if changed == Changed::Other {
            self.layout_changes = self.layout_changes.saturating_add(1);
            tracing::info!(engine, "engine changed the buckets of its histograms");
        }
        let (Some(slo), Some(kind)) = (&self.slo, update.identity.kind) else { return };
        let edges = edges_of(slo, kind, &self.buckets);
        if edges[..] == self.edges[..] {
            return;
        }
        for edge in edges.iter().filter(|edge| !edge.is_edge) {
            tracing::warn!(engine, metric = edge.metric.as_str(), "{edge}");
        }
        self.edges = edges.into();
    }
}
