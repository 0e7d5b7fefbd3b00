//! The real-time loop that owns the engine.
//!
//! It runs on a thread of its own: an iteration of a few milliseconds ends when it should, to some tens of
//! microseconds, whatever the runtime's tasks are doing, and a metrics page being written does not lengthen it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use plimsoll_engine::{Engine, Micros, Rejected, Request, RequestFacts, RequestId, Step};
use tokio::sync::{oneshot, watch};

use crate::{
    clock::Clock,
    config::Config,
    exact::ExactSamples,
    exports::{self, Exports},
    job::{FinishReason, Job, Progress, Refusal, Ticket},
    live::{self, Live, Requests},
    prefix::PrefixCache,
    request_log::{Ended, RequestLog},
    state::EngineState,
};

/// How often a frozen driver looks whether it may go on.
const FROZEN_LOOK: Duration = Duration::from_millis(5);

/// Requests that may be on their way to the driver; one more is answered with 503.
const COMMANDS: usize = 4_096;

/// What the driver writes and the rest reads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    state: Mutex<EngineState>,
    exact: Mutex<ExactSamples>,
    /// Time spent in finished iterations, µs.
    busy: AtomicU64,
    /// When the iteration under way began, µs, plus one; zero if there is none.
    busy_since: AtomicU64,
    stop: AtomicBool,
    frozen: AtomicBool,
    /// Whether the loop stands still, which it does soon after it was frozen.
    held: AtomicBool,
    /// When the latest token came out, µs, plus one; zero if none has.
    last_token: AtomicU64,
}

impl Shared {
    /// When the latest token came out, whoever it was for.
    pub(crate) fn last_token(&self) -> Option<Micros> {
        self.last_token.load(Ordering::Acquire).checked_sub(1).map(Micros)
    }

    /// The engine as it is now, whole; as it was when it froze if it is frozen.
    pub(crate) fn snapshot(&self) -> EngineState {
        let mut state = lock(&self.state);
        if !self.is_frozen() && state.load.running == 0 && state.load.waiting == 0 {
            state.idle(self.clock.now());
        }
        state.clone()
    }

    /// Reads what is taken away by reading.
    pub(crate) fn drain<T>(&self, take: impl FnOnce(&mut EngineState) -> T) -> T {
        take(&mut lock(&self.state))
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    pub(crate) fn exact(&self) -> MutexGuard<'_, ExactSamples> {
        lock(&self.exact)
    }

    /// Takes a step into what the page and the exact summary show, in one go.
    fn record(&self, step: &Step<'_>, live: &mut Requests) {
        let mut state = lock(&self.state);
        state.record_step(step, live);
        for facts in step.finished {
            if let Some(live) = live.get_mut(&facts.id) {
                state.record_finished(facts, live);
            }
        }
        if step.load.running == 0 && step.load.waiting == 0 {
            state.idle(step.ended_at);
        }
        drop(state);
        if !step.tokens.is_empty() {
            self.last_token.store(step.ended_at.0 + 1, Ordering::Release);
        }
        let mut exact = lock(&self.exact);
        for token in step.tokens {
            if live.get(&token.id).is_some_and(|live| live.probe) {
                continue;
            }
            let samples = if token.is_first() { &mut exact.ttft } else { &mut exact.itl };
            samples.push(step.ended_at, token.latency);
        }
    }

    /// Time spent in iterations up to `now`.
    pub(crate) fn busy(&self, now: Micros) -> Micros {
        let since = self.busy_since.load(Ordering::Acquire);
        let under_way = if since == 0 { Micros::ZERO } else { now.saturating_sub(Micros(since - 1)) };
        Micros(self.busy.load(Ordering::Acquire)).saturating_add(under_way)
    }
}

/// A panic elsewhere is no reason to refuse to show what was counted before it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Command {
    Submit(Job, oneshot::Sender<Result<Ticket, Refusal>>),
    /// Drops all requests and starts none until the level is 0 again.
    Sleep(u8),
    /// Nothing to do but look at the stop flag.
    Wake,
}

/// The way to the driver.
#[derive(Clone, Debug)]
pub(crate) struct DriverHandle {
    commands: SyncSender<Command>,
    pub(crate) shared: Arc<Shared>,
}

impl DriverHandle {
    /// Hands a request to the engine.
    pub(crate) async fn submit(&self, job: Job) -> Result<Ticket, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command::Submit(job, reply)).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => Refusal::Stopped,
        })?;
        answer.await.map_err(|_| Refusal::Stopped)?
    }

    /// Stops the engine's loop where it is; it stands still when this returns. What is on its way to it waits.
    pub(crate) async fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::Release);
        let _ = self.commands.try_send(Command::Wake);
        while self.shared.is_frozen() && !self.shared.held.load(Ordering::Acquire) && !self.has_ended() {
            tokio::time::sleep(FROZEN_LOOK).await;
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.shared.frozen.store(false, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Puts the engine to sleep, or wakes it with level 0. A frozen engine hears of it when it thaws.
    pub(crate) fn sleep(&self, level: u8) -> Result<(), Refusal> {
        self.commands.try_send(Command::Sleep(level)).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => Refusal::Stopped,
        })
    }

    /// Stops the engine: what it holds is aborted.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // A full channel means that the driver has something to wake up for.
        let _ = self.commands.try_send(Command::Wake);
    }
}

/// Starts the driver.
///
/// # Errors
/// If the request log cannot be opened or no thread can be had.
pub(crate) fn spawn(
    config: &Arc<Config>,
    clock: Clock,
    exports: Exports,
) -> anyhow::Result<(DriverHandle, thread::JoinHandle<()>)> {
    let shared = Arc::new(Shared {
        clock,
        state: Mutex::new(EngineState::new(config)),
        exact: Mutex::default(),
        busy: AtomicU64::new(0),
        busy_since: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        frozen: AtomicBool::new(false),
        held: AtomicBool::new(false),
        last_token: AtomicU64::new(0),
    });
    let (sender, commands) = sync_channel(COMMANDS);
    let driver = Driver {
        engine: Engine::new(config.engine.clone())?,
        shared: Arc::clone(&shared),
        commands,
        config: Arc::clone(config),
        exports,
        live: Requests::new(),
        asleep: false,
        prefix: PrefixCache::new(config.engine.kv_blocks),
        log: config.request_log.as_deref().map(RequestLog::open).transpose()?,
        next_id: 0,
        ended: Vec::new(),
    };
    let thread = thread::Builder::new().name("engine".to_owned()).spawn(move || driver.run())?;
    Ok((DriverHandle { commands: sender, shared }, thread))
}

struct Driver {
    engine: Engine,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    config: Arc<Config>,
    exports: Exports,
    live: Requests,
    asleep: bool,
    prefix: PrefixCache,
    log: Option<RequestLog>,
    next_id: u64,
    /// Requests that the step being applied finished, and what their clients will hear; reused.
    ended: Vec<(Live, Progress)>,
}

impl Driver {
    fn run(mut self) {
        while self.turn() {}
        self.abort_all();
        self.publish_load();
    }

    /// One iteration, or one wait for work; false when it is time to stop.
    fn turn(&mut self) -> bool {
        self.hold_while_frozen();
        while let Ok(command) = self.commands.try_recv() {
            self.handle(command);
        }
        // Checked after every command taken: the flag is set before the wake-up is sent, so none is slept through.
        if self.stopping() {
            return false;
        }
        self.sweep_disconnected();
        let now = self.shared.clock.now();
        let Some(iteration) = (if self.asleep { None } else { self.engine.start_iteration(now) }) else {
            let Ok(command) = self.commands.recv() else { return false };
            self.handle(command);
            return !self.stopping();
        };
        self.shared.busy_since.store(iteration.started_at.0 + 1, Ordering::Release);
        self.publish_load();
        let complete = self.wait_until(iteration.ends_at);
        if complete {
            self.finish_iteration();
        }
        complete
    }

    /// As under SIGSTOP: nothing is taken, computed or published.
    fn hold_while_frozen(&self) {
        while self.shared.is_frozen() && !self.stopping() {
            self.shared.held.store(true, Ordering::Release);
            thread::park_timeout(FROZEN_LOOK);
        }
        self.shared.held.store(false, Ordering::Release);
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Takes requests until the time has come; false when it is time to stop.
    fn wait_until(&mut self, deadline: Micros) -> bool {
        while !self.stopping() {
            self.hold_while_frozen();
            let left = deadline.saturating_sub(self.shared.clock.now());
            if left == Micros::ZERO {
                return true;
            }
            match self.commands.recv_timeout(Duration::from_micros(left.0)) {
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        false
    }

    fn handle(&mut self, command: Command) {
        match command {
            // A client that is gone already drops the ticket with the answer, which aborts the request.
            Command::Submit(job, reply) => {
                let _ = reply.send(self.submit(job));
            }
            Command::Sleep(level) => self.fall_asleep(level),
            Command::Wake => {}
        }
    }

    fn fall_asleep(&mut self, level: u8) {
        self.asleep = level > 0;
        if self.asleep {
            self.abort_all();
            self.prefix = PrefixCache::new(self.engine.config().kv_blocks);
        }
        lock(&self.shared.state).sleep = level;
        self.publish_load();
    }

    fn abort_all(&mut self) {
        let left: Vec<RequestId> = self.live.keys().copied().collect();
        for id in left {
            self.abort(id);
        }
    }

    fn submit(&mut self, job: Job) -> Result<Ticket, Refusal> {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let hits = self.prefix.look_up(&job.chain);
        let request = Request {
            id,
            prompt_tokens: job.prompt_tokens,
            output_tokens: job.output_tokens,
            cached_tokens: hits.saturating_mul(self.engine.config().block_size),
            prefilled: false,
        };
        if let Err(rejected) = self.engine.submit(self.shared.clock.now(), request) {
            if matches!(rejected, Rejected::QueueFull { .. }) {
                lock(&self.shared.state).rejected_queue_full += 1;
            }
            return Err(rejected.into());
        }
        let (sender, progress) = watch::channel(Progress::default());
        self.live.insert(id, Live::new(job, sender));
        let forgotten = self.prefix.take_forgotten() * u64::from(self.engine.config().block_size);
        lock(&self.shared.state).record_submitted(forgotten, self.prefix.blocks());
        self.publish_load();
        Ok(Ticket { progress })
    }

    fn publish_load(&self) {
        let mut state = lock(&self.shared.state);
        state.load = self.engine.load();
        state.totals = *self.engine.totals();
        let now = self.shared.clock.now();
        if self.engine.is_empty() {
            state.idle(now);
        } else {
            state.busy(now);
        }
    }

    /// Applies the iteration: first to what the page shows, then to the log, last to the clients, so that nobody who
    /// has seen an answer's end can find it missing elsewhere.
    fn finish_iteration(&mut self) {
        let Self { engine, shared, live, log, config, exports, ended, .. } = self;
        let Some(step) = engine.finish_iteration(shared.clock.now()) else { return };
        shared.busy_since.store(0, Ordering::Release);
        shared.busy.fetch_add(step.ended_at.saturating_sub(step.started_at).0, Ordering::AcqRel);
        live::advance(live, &step, log.is_some());
        shared.record(&step, live);
        for facts in step.finished {
            if let Some(live) = live.remove(&facts.id) {
                write_log(log, shared, &config.model, &live, facts, live.reason);
                if !live.probe {
                    let iteration = step.totals.iterations;
                    exports.finished(
                        &shared.clock,
                        config,
                        &exports::Ended { live: &live, facts, iteration },
                    );
                }
                let (tokens, cached_tokens) = (facts.emitted_tokens, facts.cached_tokens);
                let progress = Progress { tokens, cached_tokens, finished: Some(live.reason) };
                ended.push((live, progress));
            }
        }
        exports.pass(&step, live);
        for token in step.tokens {
            if let Some(live) = live.get(&token.id) {
                live.progress.send_replace(Progress {
                    tokens: token.index,
                    cached_tokens: token.cached_tokens,
                    finished: None,
                });
            }
        }
        for (live, progress) in ended.drain(..) {
            live.progress.send_replace(progress);
        }
    }

    /// Aborts the requests whose clients have gone.
    fn sweep_disconnected(&mut self) {
        let gone: Vec<RequestId> =
            self.live.iter().filter(|(_, live)| live.progress.is_closed()).map(|(id, _)| *id).collect();
        for id in &gone {
            self.abort(*id);
        }
        if !gone.is_empty() {
            self.publish_load();
        }
    }

    fn abort(&mut self, id: RequestId) {
        let facts = self.engine.abort(self.shared.clock.now(), id);
        if let (Some(live), Some(facts)) = (self.live.remove(&id), facts) {
            lock(&self.shared.state).record_aborted(&live);
            write_log(&mut self.log, &self.shared, &self.config.model, &live, &facts, FinishReason::Abort);
        }
    }
}

fn write_log(
    log: &mut Option<RequestLog>,
    shared: &Shared,
    model: &str,
    live: &Live,
    facts: &RequestFacts,
    reason: FinishReason,
) {
    if let (Some(log), false) = (log, live.probe) {
        let ended = Ended { name: &live.name, facts, max_tokens: live.max_tokens, itl: &live.itl, reason };
        log.write(&shared.clock, model, &ended);
    }
}
