//! The one task that owns the fleet: applies windows once, acknowledges them, and publishes what is seen.

mod cadence;
mod ledger;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plimsoll_common::{
    histogram::LatencyHistogram,
    ids::{BootId, EngineId, ModelName, NodeName, PlannerRun, Seq},
    units::Micros,
    wire::{Ack, CloseCode, Hello, Request},
};
use plimsoll_core::fleet::{Detail, DistributionKey, EngineDetail, Fleet, FleetSnapshot, Limits};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    advise::{Gather, Matching, Seen},
    clock::Clock,
    ingest::{Answer, ConnectionId, Event, Verdict, Window},
};

pub use cadence::{Cadence, Pace};
pub use ledger::{Conflict, Ledger, LostSpan, NodeLosses, Span, WindowStats};

/// How many events may wait; connections wait when it is full.
pub const EVENTS: usize = 1024;
/// How many questions may wait; the HTTP handlers wait when it is full.
pub const QUESTIONS: usize = 32;
/// How many events are taken at a time, between looking at questions and the clock.
const BATCH: usize = 128;
/// Putting together what is seen, and asking agents for a pace, may each take this share of the time: 1 in so many.
const SHARE: u32 = 10;
/// Between two looks for what is to be forgotten.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// What is seen at one instant, taken when somebody asks.
#[derive(Debug)]
pub struct Published {
    /// The fleet. The driver only takes what is needed for it; whoever looks first does the rest of the work, on a thread
    /// that may take its time.
    pub snapshot: LazyLock<FleetSnapshot, Box<dyn FnOnce() -> FleetSnapshot + Send>>,
    /// The agents that are connected, by node; none where only sums were asked for.
    pub agents: Vec<AgentRow>,
    /// What became of windows.
    pub windows: WindowStats,
    /// How long windows waited for the driver.
    pub waits: Waits,
    took: Took,
}

impl Published {
    /// How long it took to put this together: so far, or in all once the snapshot was looked at.
    #[must_use]
    pub fn build(&self) -> Duration {
        self.took.get()
    }
}

/// A time that is spent in parts, on several threads.
#[derive(Debug, Clone, Default)]
struct Took(Arc<AtomicU64>);

impl Took {
    fn add(&self, spent: Duration) {
        self.0.fetch_add(spent.as_nanos() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A connected agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentRow {
    /// Its node.
    pub node: NodeName,
    /// Its version.
    pub version: String,
    /// The boot of its node.
    pub boot_id: BootId,
    /// When it started, by its own clock.
    pub epoch_unix_milliseconds: u64,
    /// Since its hello.
    pub connected_seconds: f64,
    /// How far its wall clock was ahead of ours at its hello, network time included; absent where it did not tell.
    pub clock_skew_seconds: Option<f64>,
    /// Up to which window everything was applied.
    pub acknowledged_seq: u64,
    /// What interval between reports it was asked for; absent: its own.
    pub asked_interval_seconds: Option<f64>,
    /// What its node lost.
    #[serde(flatten)]
    pub losses: NodeLosses,
    /// The newest spans of windows that its agents gave up, the oldest first.
    pub lost_spans: Vec<LostSpan>,
}

/// How long windows waited between their last byte and the fleet, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many waited at most as long as each of [`Self::BOUNDS`]; the last counts the others.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All waits together.
    pub sum: Micros,
}

impl Waits {
    /// The upper bounds.
    pub const BOUNDS: [Micros; 12] = [
        Micros(50),
        Micros(100),
        Micros(250),
        Micros(500),
        Micros(1_000),
        Micros(2_500),
        Micros(5_000),
        Micros(10_000),
        Micros(50_000),
        Micros(100_000),
        Micros(500_000),
        Micros(1_000_000),
    ];

    fn add(&mut self, wait: Micros) {
        self.counts[Self::BOUNDS.partition_point(|bound| *bound < wait)] += 1;
        self.sum = self.sum.saturating_add(wait);
    }
}

/// What HTTP handlers ask; the answer is dropped where nobody waits any more.
#[derive(Debug)]
pub enum Question {
    /// What is seen now, or was a moment ago.
    Show {
        /// How much of it; more may come.
        detail: Detail,
        /// Where the answer goes.
        reply: oneshot::Sender<Arc<Published>>,
    },
    /// Engines with their windows; unknown ones are left out.
    Engines {
        /// Which.
        keys: Vec<(NodeName, EngineId)>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<EngineDetail>>,
    },
    /// What reports brought to the pools of a policy since this was asked last; with the first question it begins to be
    /// added up.
    Seen {
        /// The pools.
        matching: Arc<Matching>,
        /// Where the answer goes.
        reply: oneshot::Sender<Seen>,
    },
    /// One distribution of a model.
    Histogram {
        /// Which model.
        model: ModelName,
        /// Which distribution.
        key: DistributionKey,
        /// Over which window.
        window: plimsoll_core::fleet::Window,
        /// Where the answer goes; `None` for what is not known.
        reply: oneshot::Sender<Option<LatencyHistogram>>,
    },
}

/// The driver and what it is connected to.
#[derive(Debug)]
pub struct Driver {
    fleet: Fleet,
    clock: Clock,
    publish_interval: Duration,
    /// What was last shown.
    shown: Option<Shown>,
    sessions: BTreeMap<NodeName, Session>,
    ledger: Ledger,
    waits: Waits,
    run: PlannerRun,
    asking: Asking,
    /// What the pools of a policy gained, where somebody asks for it.
    gather: Option<Gather>,
}

/// What was put together and may serve others that ask soon.
#[derive(Debug)]
struct Shown {
    at: Instant,
    detail: Detail,
    published: Arc<Published>,
}

/// What agents are asked for.
#[derive(Debug)]
pub enum Asking {
    /// All for the same.
    All(Request),
    /// Each by what its pools do.
    ByLoad(Cadence),
}

#[derive(Debug)]
struct Session {
    connection: ConnectionId,
    hello: Arc<Hello>,
    answers: watch::Sender<Answer>,
    since: Micros,
    seq: Seq,
    asked: Request,
}

impl Session {
    fn tell(&self, run: PlannerRun) {
        let ack = Ack { epoch: self.hello.epoch, seq: self.seq, planner: Some(run) };
        self.answers.send_replace(Answer::Applied(ack, self.asked));
    }
}

impl Driver {
    /// A driver of an empty fleet. What is shown is at most `publish_interval` old, or ten times as old as it takes to put it
    /// together. `run` is a number that no other run of a planner has.
    #[must_use]
    pub fn new(
        limits: Limits,
        clock: Clock,
        publish_interval: Duration,
        run: PlannerRun,
        asking: Asking,
    ) -> Self {
        Self {
            fleet: Fleet::new(limits),
            clock,
            publish_interval,
            shown: None,
            sessions: BTreeMap::new(),
            ledger: Ledger::default(),
            waits: Waits::default(),
            run,
            asking,
            gather: None,
        }
    }

    /// Runs until every sender of events is gone: what was sent is applied, however the shutdown goes.
    ///
    /// # Errors
    /// Never; it is a task like the others.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut questions: mpsc::Receiver<Question>,
    ) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut ask_at = Instant::now() + self.publish_interval;
        let mut expire_at = Instant::now() + EXPIRE_EVERY;
        loop {
            tokio::select! {
                taken = events.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    batch.drain(..).for_each(|event| self.take(event));
                }
                Some(question) = questions.recv() => self.answer(question),
                () = sleep_until(ask_at) => {
                    let begun = Instant::now();
                    self.ask();
                    ask_at = Instant::now() + self.publish_interval.max(begun.elapsed() * SHARE);
                }
                () = sleep_until(expire_at) => {
                    self.expire();
                    expire_at = Instant::now() + EXPIRE_EVERY;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Hello { connection, hello, answers } => self.hello(connection, hello, answers),
            Event::Window { hello, window } => self.window(&hello, *window),
            Event::Gap { hello, gap } => {
                let seq = self.ledger.gap(&hello, gap, self.clock.now());
                self.acknowledge(&hello, seq);
            }
            Event::Closed { connection, hello } => {
                if self.sessions.get(&hello.node).is_some_and(|session| session.connection == connection) {
                    self.sessions.remove(&hello.node);
                }
            }
        }
    }

    fn hello(&mut self, connection: ConnectionId, hello: Arc<Hello>, answers: watch::Sender<Answer>) {
        let room = self.ledger.nodes() < self.fleet.limits().max_nodes;
        if !room && !self.ledger.knows(&hello.node) {
            answers.send_replace(Answer::End(CloseCode::Busy, "this planner has no room for another node"));
            return;
        }
        let now = self.clock.now();
        let older = self.sessions.get(&hello.node);
        let Ok(seq) = self.ledger.hello(&hello, older.map(|older| older.hello.as_ref()), now) else {
            tracing::warn!(node = %hello.node, "two agents report as this node; the one that came later is kept");
            answers.send_replace(Answer::End(
                CloseCode::Duplicate,
                "another agent reports as this node; give each node a name of its own",
            ));
            return;
        };
        let asked = match &self.asking {
            Asking::All(request) => *request,
            Asking::ByLoad(_) => older.map(|older| older.asked).unwrap_or_default(),
        };
        let session = Session { connection, hello: Arc::clone(&hello), answers, since: now, seq, asked };
        session.tell(self.run);
        if let Some(older) = self.sessions.insert(hello.node.clone(), session) {
            if !ledger::same_run(&older.hello, &hello) {
                tracing::info!(node = %hello.node, "another run of the agent takes the node over");
            }
            older.answers.send_replace(Answer::End(CloseCode::Replaced, "the node connected anew"));
        }
    }

    fn window(&mut self, hello: &Arc<Hello>, window: Window) {
        let now = self.clock.now();
        let Window { first, last, received, mut observation } = window;
        let wait = now.saturating_sub(received);
        observation.age = observation.age.saturating_add(wait);
        let end = now.saturating_sub(observation.age);
        let begin = end.saturating_sub(observation.length);
        let span = Span { first, last, begin, end, leaving: observation.leaving };
        let (verdict, seq) = self.ledger.window(hello, span, now);
        if verdict == Verdict::Apply {
            if let Some(gather) = self.gather.as_mut().filter(|gather| gather.covers(end)) {
                gather.add(&observation);
            }
            self.fleet.observe(now, observation);
            self.waits.add(self.clock.now().saturating_sub(received));
        }
        self.acknowledge(hello, seq);
    }

    fn acknowledge(&mut self, hello: &Hello, seq: Seq) {
        let session = self.sessions.get_mut(&hello.node);
        if let Some(session) = session.filter(|session| ledger::same_run(&session.hello, hello)) {
            session.seq = seq;
            session.tell(self.run);
        }
    }

    /// Asks every agent for what fits its pools now.
    fn ask(&mut self) {
        let Asking::ByLoad(cadence) = &mut self.asking else { return };
        let paces = cadence.decide(&self.fleet, self.clock.now());
        for (node, session) in &mut self.sessions {
            let asked = paces.get(node).map_or_else(Request::default, |pace| pace.request());
            if session.asked != asked {
                tracing::debug!(%node, ?asked, "asking for another pace");
                session.asked = asked;
                session.tell(self.run);
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let now = self.clock.now();
        match question {
            Question::Show { detail, reply } => _ = reply.send(self.show(detail)),
            Question::Engines { keys, reply } => {
                let details = keys.iter().filter_map(|(node, id)| self.fleet.engine(now, node, id));
                let _ = reply.send(details.collect());
            }
            Question::Seen { matching, reply } => {
                let gather = self.gather.take().filter(|gather| gather.is_for(&matching));
                let mut gather = gather.unwrap_or_else(|| Gather::new(matching, now));
                let _ = reply.send(gather.take(now, &self.fleet));
                self.gather = Some(gather);
            }
            Question::Histogram { model, key, window, reply } => {
                let _ = reply.send(self.fleet.model_histogram(now, &model, key, window));
            }
        }
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        // Rows of a large fleet are large.
        if self.shown.as_ref().is_some_and(|shown| !self.is_fresh(shown)) {
            self.shown = None;
        }
        self.fleet.expire(now);
        let forget_after = self.fleet.limits().forget_after;
        let sessions = &self.sessions;
        self.ledger.expire(now, forget_after, |node| sessions.contains_key(node));
    }

    /// What is seen now; or what was shown before, where that was a moment ago.
    fn show(&mut self, detail: Detail) -> Arc<Published> {
        let begun = Instant::now();
        if let Some(shown) =
            self.shown.as_ref().filter(|shown| shown.detail >= detail && self.is_fresh(shown))
        {
            return Arc::clone(&shown.published);
        }
        let now = self.clock.now();
        let capture = self.fleet.capture(now, detail);
        let row = |session: &Session| agent_row(session, &self.ledger, now);
        let agents = match detail {
            Detail::Sums => Vec::new(),
            Detail::Rows => self.sessions.values().map(row).collect(),
        };
        let (windows, waits, took) = (self.ledger.stats(), self.waits, Took::default());
        took.add(begun.elapsed());
        let rest = took.clone();
        let snapshot = LazyLock::new(Box::new(move || {
            let begun = Instant::now();
            let snapshot = capture.finish();
            rest.add(begun.elapsed());
            snapshot
        }) as Box<dyn FnOnce() -> FleetSnapshot + Send>);
        let published = Arc::new(Published { snapshot, agents, windows, waits, took });
        self.shown = Some(Shown { at: begun, detail, published: Arc::clone(&published) });
        published
    }

    fn is_fresh(&self, shown: &Shown) -> bool {
        shown.at.elapsed() < self.publish_interval.max(shown.published.build() * SHARE)
    }
}

fn agent_row(session: &Session, ledger: &Ledger, now: Micros) -> AgentRow {
    let hello = &session.hello;
    let (losses, lost_spans) = (ledger.losses(&hello.node), ledger.lost_spans(&hello.node));
    AgentRow {
        node: hello.node.clone(),
        version: hello.version.clone(),
        boot_id: hello.boot.clone(),
        epoch_unix_milliseconds: hello.epoch.0,
        connected_seconds: now.saturating_sub(session.since).as_secs_f64(),
        clock_skew_seconds: hello.wall_ms.map(|theirs| theirs as f64 / 1e3 - session.since.as_secs_f64()),
        acknowledged_seq: session.seq.0,
        asked_interval_seconds: session.asked.report_interval_ms.map(|ms| ms as f64 / 1e3),
        losses,
        lost_spans,
    }
}
