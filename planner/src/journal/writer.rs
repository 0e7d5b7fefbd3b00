//! Writing, off the tasks that decide: a bounded queue and a thread of its own.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use plimsoll_common::units::Micros;
use plimsoll_core::{
    controller::{Checkpoint, Step},
    observe::Observation,
};

use super::{
    Basis, Build, Limits, Restored, Stats, blob, restore,
    stats::count,
    store::{Row, Store, StoreError, set_aside},
};

/// How many messages may wait. One holds the observations of a whole fleet.
const QUEUE: usize = 16;
/// The most steps of one transaction.
const BATCH: usize = 16;
/// Between two attempts to open a store that can't be opened.
const AGAIN: Micros = Micros(30_000_000);
/// After a loss the next checkpoint comes this many times sooner.
const SOONER: u32 = 10;

/// What may be written.
#[derive(Debug)]
enum Message {
    Begin(Micros, Box<Basis>),
    /// With the number of the step after which it was made.
    Checkpoint(Micros, u64, Box<Checkpoint>),
    Record(Box<Record>),
}

#[derive(Debug)]
struct Record {
    seq: u64,
    at: Micros,
    observations: Vec<Observation>,
    step: Step,
}

/// What the writer and its thread share.
#[derive(Debug, Default)]
struct Shared {
    stats: Arc<Stats>,
    /// Whether steps since the last checkpoint can't be decided again.
    is_torn: AtomicBool,
    /// Bytes of the last checkpoint, and of the steps since.
    checkpoint_bytes: AtomicU64,
    step_bytes: AtomicU64,
}

/// Where steps and checkpoints go. Nothing of it waits but [`Writer::finish`]; what is dropped is counted.
///
/// A run begins with [`Writer::begin`] and a checkpoint; whenever [`Writer::checkpoint_due`] says so, another is to be
/// written *before* the next step's observations are told to the controller. When it is dropped, all that waits is
/// written.
#[derive(Debug)]
pub struct Writer {
    queue: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    limits: Limits,
    /// Steps that were told so far.
    pub(super) seq: u64,
    last_checkpoint: Option<Micros>,
    /// What decisions rest on, where the queue had no room for it.
    beginning: Option<(Micros, Box<Basis>)>,
}

impl Writer {
    /// From here on decisions rest on this: at the start, and whenever the policy changes. A checkpoint is to follow.
    pub fn begin(&mut self, now: Micros, basis: Basis) {
        self.last_checkpoint = None;
        self.beginning = Some((now, Box::new(basis)));
        if !self.send_beginning() {
            self.shared.is_torn.store(true, Ordering::Relaxed);
        }
    }

    /// Writes a step: what was observed since the one before, in the order in which the controller was told, and what it
    /// decided.
    pub fn record(&mut self, now: Micros, observations: &[Observation], step: &Step) {
        self.seq += 1;
        let (observations, step) = (observations.to_vec(), step.clone());
        let record = Record { seq: self.seq, at: now, observations, step };
        if !self.send(Message::Record(Box::new(record))) {
            self.shared.is_torn.store(true, Ordering::Relaxed);
            count(&self.shared.stats.steps_dropped, 1);
        }
    }

    /// Whether a checkpoint is to be written now: after [`Limits::checkpoint_every`], sooner after a loss, or when the
    /// steps since the last one take much room.
    #[must_use]
    pub fn checkpoint_due(&self, now: Micros) -> bool {
        let Some(last) = self.last_checkpoint else { return true };
        let passed = now.saturating_sub(last);
        let every = micros(self.limits.checkpoint_every);
        let steps = self.shared.step_bytes.load(Ordering::Relaxed);
        let much = (self.limits.bytes / 8).max(self.shared.checkpoint_bytes.load(Ordering::Relaxed));
        let sooner = self.shared.is_torn.load(Ordering::Relaxed) || steps > much;
        passed >= every || (sooner && passed.0 >= every.0 / u64::from(SOONER))
    }

    /// Writes a checkpoint; the steps that follow start from it.
    pub fn checkpoint(&mut self, now: Micros, checkpoint: Checkpoint) {
        self.last_checkpoint = Some(now);
        if !self.send(Message::Checkpoint(now, self.seq, Box::new(checkpoint))) {
            count(&self.shared.stats.checkpoints_dropped, 1);
        }
    }

    /// What was written and dropped.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Writes a last checkpoint and all that waits, and ends; for an orderly end, from where waiting is allowed.
    pub fn finish(mut self, now: Micros, checkpoint: Checkpoint) {
        if let Some(queue) = &self.queue {
            if let Some((now, basis)) = self.beginning.take() {
                let _ = queue.send(Message::Begin(now, basis));
            }
            let _ = queue.send(Message::Checkpoint(now, self.seq, Box::new(checkpoint)));
        }
        self.join();
    }

    fn send(&mut self, message: Message) -> bool {
        self.send_beginning() && self.offer(message).is_ok()
    }

    /// Tells on what decisions rest, if that is still to be told: nothing may be recorded under another basis.
    fn send_beginning(&mut self) -> bool {
        let Some((now, basis)) = self.beginning.take() else { return true };
        match self.offer(Message::Begin(now, basis)) {
            Err(Some(Message::Begin(now, basis))) => {
                self.beginning = Some((now, basis));
                false
            }
            done => done.is_ok(),
        }
    }

    /// Queues a message, or gives it back.
    fn offer(&self, message: Message) -> Result<(), Option<Message>> {
        let Some(queue) = &self.queue else { return Err(None) };
        queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) | TrySendError::Disconnected(message) => Some(message),
        })
    }

    fn join(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

pub(super) fn open(dir: &Path, limits: Limits, now: Micros) -> (Writer, Option<Restored>) {
    let limits = Limits { bytes: limits.bytes.max(Limits::LEAST_BYTES), ..limits };
    let shared = Arc::new(Shared::default());
    shared.stats.limit.store(limits.bytes, Ordering::Relaxed);
    let mut hand = Hand {
        dir: dir.to_owned(),
        limits,
        shared: Arc::clone(&shared),
        store: None,
        tried: now,
        basis: None,
    };
    let restored = hand.open().and_then(|()| hand.restore());
    let steps = restored.as_ref().map_or(0, Restored::steps);
    shared.stats.restored_steps.store(steps, Ordering::Relaxed);
    let (queue, messages) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || hand.run(&messages));
    let thread = thread.inspect_err(|error| tracing::error!(%error, "the journal has no thread")).ok();
    let queue = thread.is_some().then_some(queue);
    (Writer { queue, thread, shared, limits, seq: 0, last_checkpoint: None, beginning: None }, restored)
}

/// The thread's own.
#[derive(Debug)]
struct Hand {
    dir: PathBuf,
    limits: Limits,
    shared: Arc<Shared>,
    store: Option<Store>,
    /// When the store was last tried to be opened.
    tried: Micros,
    /// What decisions rest on now.
    basis: Option<Box<Basis>>,
}

impl Hand {
    /// Takes what waits, as long as there are senders: steps together, in one transaction.
    fn run(mut self, messages: &Receiver<Message>) {
        let mut records = Vec::new();
        while let Ok(first) = messages.recv() {
            let mut next = Ok(first);
            while let Ok(message) = next {
                match message {
                    Message::Record(record) => records.push(*record),
                    other => {
                        self.write(&mut records);
                        self.take(other);
                    }
                }
                if records.len() == BATCH {
                    break;
                }
                next = messages.try_recv();
                if matches!(next, Err(TryRecvError::Disconnected)) {
                    break;
                }
            }
            self.write(&mut records);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Begin(now, basis) => {
                self.basis = Some(basis);
                self.ready(now);
                self.begin(now);
            }
            Message::Checkpoint(now, seq, checkpoint) => self.checkpoint(now, seq, &checkpoint),
            Message::Record(record) => self.write(&mut vec![*record]),
        }
    }

    fn begin(&mut self, now: Micros) {
        let (Some(store), Some(basis)) = (&mut self.store, &self.basis) else { return };
        let done = store.begin(now, &Build::this(), basis);
        self.judge(done);
    }

    fn checkpoint(&mut self, now: Micros, seq: u64, checkpoint: &Checkpoint) {
        self.ready(now);
        let written = match (&mut self.store, checkpoint.to_bytes()) {
            (Some(store), Ok(bytes)) => {
                store.checkpoint(now, seq, &bytes).map(|done| done.then_some(bytes.len() as u64))
            }
            _ => Ok(None),
        };
        match self.judge(written).flatten() {
            Some(bytes) => {
                count(&self.shared.stats.checkpoints_written, 1);
                self.shared.checkpoint_bytes.store(bytes, Ordering::Relaxed);
                self.shared.step_bytes.store(0, Ordering::Relaxed);
                self.shared.is_torn.store(false, Ordering::Relaxed);
            }
            None => {
                count(&self.shared.stats.checkpoints_dropped, 1);
                self.shared.is_torn.store(true, Ordering::Relaxed);
            }
        }
        self.measure();
    }

    fn write(&mut self, records: &mut Vec<Record>) {
        let Some(last) = records.last() else { return };
        self.ready(last.at);
        let rows: Vec<Row> = records.drain(..).map(row).collect();
        let steps = rows.len() as u64;
        let written = match &mut self.store {
            Some(store) if store.is_ready() => store.append(&rows).map(Some),
            _ => Ok(None),
        };
        match self.judge(written).flatten() {
            Some(bytes) => {
                count(&self.shared.stats.steps_written, steps);
                count(&self.shared.step_bytes, bytes);
            }
            None => {
                count(&self.shared.stats.steps_dropped, steps);
                self.shared.is_torn.store(true, Ordering::Relaxed);
            }
        }
        self.measure();
    }

    /// Tells of a failure once, and sets a damaged store aside.
    fn judge<T>(&mut self, done: Result<T, StoreError>) -> Option<T> {
        let stats = &self.shared.stats;
        match done {
            Ok(value) => {
                if self.store.is_some() && stats.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the journal is written again");
                }
                Some(value)
            }
            Err(error) => {
                count(&stats.errors, 1);
                if !stats.failing.swap(true, Ordering::Relaxed) {
                    let hint = if error.is_full() { "; is there room on the disk?" } else { "" };
                    tracing::warn!(%error, "steps are not recorded until the journal can be written again{hint}");
                }
                if error.needs_another() {
                    self.store = None;
                    self.replace();
                }
                None
            }
        }
    }

    /// Sees to it that there is a store, if there can be one.
    fn ready(&mut self, now: Micros) {
        if self.store.is_none() && now.saturating_sub(self.tried) >= AGAIN {
            self.tried = now;
            if self.open().is_some() {
                self.begin(now);
            }
        }
    }

    fn open(&mut self) -> Option<()> {
        match Store::open(&self.dir, self.limits) {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                self.judge::<()>(Err(error));
            }
        }
        self.measure();
        self.store.as_ref().map(|_| ())
    }

    /// Puts a store that can't be used out of the way for a new one.
    fn replace(&mut self) {
        let aside = match set_aside(&self.dir) {
            Ok(aside) => aside,
            Err(error) => {
                tracing::error!(%error, "the damaged journal can't be set aside: it goes on without one");
                return;
            }
        };
        count(&self.shared.stats.set_aside, 1);
        tracing::error!(aside = %aside.display(), "the journal was set aside; a new one begins");
        match Store::open(&self.dir, self.limits) {
            Ok(store) => {
                let store = self.store.insert(store);
                self.shared.stats.failing.store(false, Ordering::Relaxed);
                if let Some(basis) = &self.basis
                    && let Err(error) = store.begin(self.tried, &Build::this(), basis)
                {
                    tracing::error!(%error, "the new journal can't be written either");
                }
            }
            Err(error) => tracing::error!(%error, "there is no new journal either"),
        }
    }

    /// What was learned last; a store in which that can't be read is set aside.
    fn restore(&mut self) -> Option<Restored> {
        let restored = restore::newest(self.store.as_ref()?.db());
        match restored {
            Ok(restored) => restored,
            Err(error) => {
                tracing::warn!(%error, "what was learned can't be restored: it is learned anew");
                if matches!(error, super::JournalError::Damaged(_)) {
                    count(&self.shared.stats.errors, 1);
                    self.store = None;
                    self.replace();
                }
                None
            }
        }
    }

    fn measure(&self) {
        let extent = self.store.as_ref().and_then(|store| store.extent().ok()).unwrap_or_default();
        self.shared.stats.bytes.store(extent.bytes, Ordering::Relaxed);
        self.shared.stats.oldest.store(extent.oldest.0, Ordering::Relaxed);
    }
}

fn row(record: Record) -> Row {
    Row {
        seq: record.seq,
        at: record.at,
        seen: blob::encode(&record.observations),
        decided: blob::encode(&record.step),
    }
}

fn micros(time: std::time::Duration) -> Micros {
    Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
