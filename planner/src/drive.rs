//! The one task that owns the fleet: applies windows once, acknowledges them, and publishes what is seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use plimsoll_common::{
    histogram::LatencyHistogram,
    ids::{AgentEpoch, BootId, EngineId, ModelName, NodeName, Seq},
    units::Micros,
    wire::{Ack, CloseCode, Hello},
};
use plimsoll_core::fleet::{DistributionKey, EngineDetail, Fleet, FleetSnapshot, Limits};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    clock::Clock,
    ingest::{Answer, ConnectionId, Cursor, Event, Verdict, Window},
};

/// How many events may wait; connections wait when it is full.
pub const EVENTS: usize = 1024;
/// How many questions may wait; the HTTP handlers wait when it is full.
pub const QUESTIONS: usize = 32;
/// How many events are taken at a time, between looking at questions and the clock.
const BATCH: usize = 128;
/// Publishing may take this share of the time: 1 in so many.
const PUBLISH_SHARE: u32 = 10;
/// Between two looks for what is to be forgotten.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// How many runs of one node's agent are remembered: the newest, and those whose windows may still come.
const MAX_EPOCHS: usize = 4;

/// What everybody may see, replaced as a whole.
#[derive(Debug, Clone)]
pub struct Published {
    /// The fleet.
    pub snapshot: FleetSnapshot,
    /// The agents that are connected, by node.
    pub agents: Vec<AgentRow>,
    /// What became of windows.
    pub windows: WindowStats,
    /// How long it took to put this together.
    pub build: Duration,
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
}

/// What became of windows since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WindowStats {
    /// Applied.
    pub applied: u64,
    /// Known already, dropped.
    pub duplicates: u64,
    /// Dropped because a part of them was known already.
    pub overlaps: u64,
    /// Single windows that can't be applied any more.
    pub lost: u64,
    /// Single windows between applied ones that have not come (yet).
    pub missing: u64,
}

/// What HTTP handlers ask; the answer is dropped where nobody waits any more.
#[derive(Debug)]
pub enum Question {
    /// Engines with their windows; unknown ones are left out.
    Engines {
        /// Which.
        keys: Vec<(NodeName, EngineId)>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<EngineDetail>>,
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
    published: watch::Sender<Arc<Published>>,
    sessions: BTreeMap<NodeName, Session>,
    cursors: BTreeMap<NodeName, Vec<EpochCursor>>,
    windows: WindowStats,
    /// Lost windows of cursors that were forgotten.
    lost_before: u64,
}

#[derive(Debug)]
struct Session {
    connection: ConnectionId,
    hello: Arc<Hello>,
    answers: watch::Sender<Answer>,
    since: Micros,
}

#[derive(Debug)]
struct EpochCursor {
    boot: BootId,
    epoch: AgentEpoch,
    cursor: Cursor,
    used: Micros,
}

impl Driver {
    /// A driver of an empty fleet, and where it publishes.
    #[must_use]
    pub fn new(
        limits: Limits,
        clock: Clock,
        publish_interval: Duration,
    ) -> (Self, watch::Receiver<Arc<Published>>) {
        let fleet = Fleet::new(limits);
        let first = Published {
            snapshot: fleet.snapshot(clock.now()),
            agents: Vec::new(),
            windows: WindowStats::default(),
            build: Duration::ZERO,
        };
        let (published, seen) = watch::channel(Arc::new(first));
        let driver = Self {
            fleet,
            clock,
            publish_interval,
            published,
            sessions: BTreeMap::new(),
            cursors: BTreeMap::new(),
            windows: WindowStats::default(),
            lost_before: 0,
        };
        (driver, seen)
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
        let mut publish_at = Instant::now() + self.publish_interval;
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
                () = sleep_until(publish_at) => {
                    let took = self.publish();
                    publish_at = Instant::now() + self.publish_interval.max(took * PUBLISH_SHARE);
                }
                () = sleep_until(expire_at) => {
                    self.expire();
                    expire_at = Instant::now() + EXPIRE_EVERY;
                }
            }
        }
        self.publish();
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Hello { connection, hello, answers } => self.hello(connection, hello, answers),
            Event::Window { hello, window } => self.window(&hello, *window),
            Event::Closed { connection, hello } => {
                if self.sessions.get(&hello.node).is_some_and(|session| session.connection == connection) {
                    self.sessions.remove(&hello.node);
                }
            }
        }
    }

    fn hello(&mut self, connection: ConnectionId, hello: Arc<Hello>, answers: watch::Sender<Answer>) {
        let room = self.cursors.len() < self.fleet.limits().max_nodes;
        if !room && !self.cursors.contains_key(&hello.node) {
            answers.send_replace(Answer::End(CloseCode::Busy, "this planner has no room for another node"));
            return;
        }
        let now = self.clock.now();
        let seq = self.cursor(&hello, now).acknowledged(now);
        answers.send_replace(Answer::Applied(Ack { epoch: hello.epoch, seq }));
        let session = Session { connection, hello: Arc::clone(&hello), answers, since: now };
        if let Some(older) = self.sessions.insert(hello.node.clone(), session) {
            older.answers.send_replace(Answer::End(CloseCode::Replaced, "the node connected anew"));
        }
    }

    fn window(&mut self, hello: &Arc<Hello>, window: Window) {
        let now = self.clock.now();
        let cursor = self.cursor(hello, now);
        let verdict = cursor.take(now, window.first, window.last);
        let seq = cursor.acknowledged(now);
        match verdict {
            Verdict::Apply => {
                self.windows.applied += 1;
                let mut observation = window.observation;
                observation.age = observation.age.saturating_add(now.saturating_sub(window.received));
                self.fleet.observe(now, observation);
            }
            Verdict::Duplicate => self.windows.duplicates += 1,
            Verdict::Overlap => self.windows.overlaps += 1,
        }
        let session = self.sessions.get(&hello.node);
        if let Some(session) =
            session.filter(|session| (&session.hello.boot, session.hello.epoch) == (&hello.boot, hello.epoch))
        {
            session.answers.send_replace(Answer::Applied(Ack { epoch: hello.epoch, seq }));
        }
    }

    /// The cursor of an agent's run; the run that was not used for longest makes room for a new one.
    fn cursor(&mut self, hello: &Hello, now: Micros) -> &mut Cursor {
        let epochs = self.cursors.entry(hello.node.clone()).or_default();
        let known = epochs.iter().position(|known| known.epoch == hello.epoch && known.boot == hello.boot);
        let at = known.unwrap_or_else(|| {
            if epochs.len() >= MAX_EPOCHS {
                let oldest = (0..epochs.len()).min_by_key(|i| (epochs[*i].used, *i)).unwrap_or(0);
                self.lost_before += epochs.remove(oldest).cursor.lost();
            }
            epochs.push(EpochCursor {
                boot: hello.boot.clone(),
                epoch: hello.epoch,
                cursor: Cursor::default(),
                used: now,
            });
            epochs.len() - 1
        });
        epochs[at].used = now;
        &mut epochs[at].cursor
    }

    fn answer(&self, question: Question) {
        let now = self.clock.now();
        match question {
            Question::Engines { keys, reply } => {
                let details = keys.iter().filter_map(|(node, id)| self.fleet.engine(now, node, id));
                let _ = reply.send(details.collect());
            }
            Question::Histogram { model, key, window, reply } => {
                let _ = reply.send(self.fleet.model_histogram(now, &model, key, window));
            }
        }
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        self.fleet.expire(now);
        let forget_after = self.fleet.limits().forget_after;
        let sessions = &self.sessions;
        let mut lost = 0;
        self.cursors.retain(|node, epochs| {
            let used = epochs.iter().map(|epoch| epoch.used).max().unwrap_or_default();
            let keep = sessions.contains_key(node) || now.saturating_sub(used) <= forget_after;
            if !keep {
                lost += epochs.iter().map(|epoch| epoch.cursor.lost()).sum::<u64>();
            }
            keep
        });
        self.lost_before += lost;
    }

    /// Publishes what is seen now, and says how long that took.
    fn publish(&mut self) -> Duration {
        let begun = Instant::now();
        let now = self.clock.now();
        let mut windows = WindowStats { lost: self.lost_before, missing: 0, ..self.windows };
        for epoch in self.cursors.values().flatten() {
            windows.lost += epoch.cursor.lost();
            windows.missing = windows.missing.saturating_add(epoch.cursor.missing());
        }
        let snapshot = self.fleet.snapshot(now);
        let agents = self.sessions.values().map(|session| agent_row(session, now)).collect();
        let build = begun.elapsed();
        self.published.send_replace(Arc::new(Published { snapshot, agents, windows, build }));
        build
    }
}

fn agent_row(session: &Session, now: Micros) -> AgentRow {
    let hello = &session.hello;
    let Seq(acknowledged_seq) = match *session.answers.borrow() {
        Answer::Applied(ack) => ack.seq,
        Answer::Nothing | Answer::End(..) => Seq(0),
    };
    AgentRow {
        node: hello.node.clone(),
        version: hello.version.clone(),
        boot_id: hello.boot.clone(),
        epoch_unix_milliseconds: hello.epoch.0,
        connected_seconds: now.saturating_sub(session.since).as_secs_f64(),
        clock_skew_seconds: hello.wall_ms.map(|theirs| theirs as f64 / 1e3 - session.since.as_secs_f64()),
        acknowledged_seq,
    }
}
