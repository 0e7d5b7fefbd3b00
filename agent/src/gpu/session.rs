//! The loop: connect, enumerate, tick until the driver goes away or is given free, wait, again.

use std::time::Duration;

use plimsoll_common::wire::SourceState;
use tokio::time::Instant;

use super::{
    GpuOptions,
    connection::Connection,
    meter::Meter,
    orders::{Order, Orders},
    plan::Call,
    reading::GpuReading,
    sampler::{Sampler, Scope},
    schedule::Schedule,
    snapshot::{GpuSnapshot, Release},
    source::{GpuDriver, GpuSource, Outage, SessionEnd},
};

/// How often it is looked for GPUs that came, went or changed places.
const RECHECK: Duration = Duration::from_secs(60);

/// The same while one is missing; otherwise the GPUs are at least counted so often.
const RECHECK_WHILE_LOST: Duration = Duration::from_secs(10);

/// An enumeration that takes longer than this is made less often, in proportion.
const RECHECK_COST: Duration = Duration::from_millis(5);

/// How late a snapshot may be before the one before it is no longer believed: well over what a healthy tick takes, and
/// short enough that a hung driver is seen within a few windows.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads GPUs until told to stop, and publishes a snapshot after every tick, at every outage and at every release.
pub(super) struct Session<'a> {
    schedule: Schedule,
    meter: Meter,
    sampler: Sampler,
    connection: Connection,
    missed_ticks: u64,
    said: Option<(SourceState, Option<String>)>,
    orders: &'a Orders,
    publish: &'a mut dyn FnMut(GpuSnapshot),
}

/// What is said with a snapshot beside the GPUs.
struct Word {
    source: SourceState,
    detail: Option<String>,
    tick_busy: Duration,
    next: Instant,
    release: Option<Release>,
    restart_needed: bool,
}

impl<'a> Session<'a> {
    /// Starts nothing yet. [`Order::Stop`] ends [`Session::run`].
    pub(super) fn new(
        options: &GpuOptions,
        orders: &'a Orders,
        publish: &'a mut dyn FnMut(GpuSnapshot),
    ) -> Self {
        let interval = options.interval.max(GpuOptions::MIN_INTERVAL);
        if interval < GpuOptions::DEFAULT_INTERVAL {
            tracing::warn!(
                ?interval,
                "GPUs are sampled more often than once a second, which was seen to cost engines decode time"
            );
        }
        Self {
            schedule: Schedule::new(Instant::now(), interval, options.seed),
            meter: Meter::new(Instant::now),
            sampler: Sampler::new(interval),
            connection: Connection::new(options.seed),
            missed_ticks: 0,
            said: None,
            orders,
            publish,
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, driver: &mut dyn GpuDriver) {
        // So that a call that hangs in the first initialisation is known by name.
        let starting = "starting: NVML has not answered yet".to_owned();
        self.say_without_gpus(SourceState::Failed, starting, "starting", Instant::now() + PATIENCE, None);
        loop {
            let begun = Instant::now();
            let mut connected = false;
            self.meter.begin(Call::Init);
            let end = driver.session(&mut |source| {
                connected = true;
                self.meter.count(Call::Init, begun.elapsed(), true);
                self.observe(source)
            });
            if !connected {
                self.meter.count(Call::Init, begun.elapsed(), false);
            }
            let go_on = match end {
                Ok(SessionEnd::Stopped) => false,
                Ok(SessionEnd::Released(length)) => self.released(length),
                Ok(SessionEnd::Down(outage)) | Err(outage) => self.down(&outage),
            };
            if !go_on {
                return;
            }
        }
    }

    /// Says that there is an outage and waits; whether to try again.
    fn down(&mut self, outage: &Outage) -> bool {
        let now = Instant::now();
        let verdict = self.connection.down(outage, now);
        let retry_at = now + verdict.retry_in;
        let gpus = self.sampler.silent("the driver does not answer");
        let word = Word {
            source: verdict.state,
            detail: Some(outage.to_string()),
            tick_busy: Duration::ZERO,
            next: retry_at,
            release: None,
            restart_needed: *outage == Outage::VersionMismatch,
        };
        self.say(word, gpus);
        match self.orders.wait_until(retry_at) {
            Some(Order::Stop) => false,
            Some(Order::Release(length)) => self.released(length),
            Some(Order::Resume) | None => true,
        }
    }

    /// Nothing of the driver is held until the time is over or it is taken back; whether to go on then.
    fn released(&mut self, length: Duration) -> bool {
        let since = Instant::now();
        let mut until = since + length;
        loop {
            let detail =
                "NVML is shut down and unloaded on request; the agent comes back by itself".to_owned();
            let release = Some(Release { since, until });
            self.say_without_gpus(SourceState::Degraded, detail, "released on request", until, release);
            match self.orders.wait_until(until) {
                Some(Order::Stop) => return false,
                Some(Order::Release(length)) => until = Instant::now() + length,
                Some(Order::Resume) | None => return true,
            }
        }
    }

    fn observe(&mut self, source: &mut dyn GpuSource) -> SessionEnd {
        match self.ticks(source) {
            Ok(end) => end,
            Err(outage) => SessionEnd::Down(outage),
        }
    }

    /// Ticks until told otherwise.
    fn ticks(&mut self, source: &mut dyn GpuSource) -> Result<SessionEnd, Outage> {
        let mut spent = self.meter.busy();
        self.sampler.greet(source, &mut self.meter)?;
        self.sampler.enumerate(source, &mut self.meter, Scope::All)?;
        self.connection.up(Instant::now());
        let mut counted = Instant::now();
        let (mut checked, mut check_cost) = (Instant::now(), self.meter.busy().saturating_sub(spent));
        loop {
            let readings = self.sampler.tick(source, &mut self.meter)?;
            let now = Instant::now();
            let due = self.schedule.after(now);
            let (source_state, detail) = self.sampler.health(&readings);
            let word = Word {
                source: source_state,
                detail,
                tick_busy: self.meter.busy().saturating_sub(spent),
                next: due,
                release: None,
                restart_needed: false,
            };
            self.say(word, readings);
            match self.orders.wait_until(due) {
                Some(Order::Stop) => return Ok(SessionEnd::Stopped),
                Some(Order::Release(length)) => return Ok(SessionEnd::Released(length)),
                Some(Order::Resume) | None => {}
            }
            spent = self.meter.busy();
            self.missed_ticks += self.schedule.missed(due, Instant::now());
            let recheck = if self.sampler.misses_some() { RECHECK_WHILE_LOST } else { RECHECK };
            let stretch = (check_cost.as_secs_f64() / RECHECK_COST.as_secs_f64()).clamp(1.0, 10.0);
            let mut due = checked.elapsed() >= recheck.mul_f64(stretch);
            if !due && counted.elapsed() >= RECHECK_WHILE_LOST {
                due = self.sampler.count_changed(source, &mut self.meter)?;
                counted = Instant::now();
            }
            if due {
                self.sampler.enumerate(source, &mut self.meter, Scope::Changes)?;
                (checked, check_cost) = (Instant::now(), self.meter.busy().saturating_sub(spent));
            }
        }
    }

    fn say_without_gpus(
        &mut self,
        source: SourceState,
        detail: String,
        why: &str,
        next: Instant,
        release: Option<Release>,
    ) {
        let gpus = self.sampler.silent(why);
        let detail = Some(detail);
        let word = Word { source, detail, tick_busy: Duration::ZERO, next, release, restart_needed: false };
        self.say(word, gpus);
    }

    fn say(&mut self, word: Word, gpus: Vec<GpuReading>) {
        let said = (word.source, word.detail.clone());
        if self.said.as_ref() != Some(&said) {
            log(word.source, word.detail.as_deref(), gpus.len());
            self.said = Some(said);
        }
        let taken = Instant::now();
        (self.publish)(GpuSnapshot {
            taken,
            valid_until: Some(word.next + PATIENCE),
            source: word.source,
            detail: word.detail,
            driver: self.sampler.driver().cloned(),
            inventory: self.sampler.inventory(),
            gpus,
            absent: self.sampler.absent().to_vec(),
            events: self.sampler.events().newest(),
            release: word.release,
            restart_needed: word.restart_needed,
            governor: self.sampler.governor(taken),
            latencies: self.meter.latencies().clone(),
            busy: self.meter.busy(),
            tick_busy: word.tick_busy,
            calls: self.meter.calls(),
            missed_ticks: self.missed_ticks,
            costs: self.meter.costs().to_vec(),
        });
    }
}

/// Says a change of the source's state once.
fn log(source: SourceState, detail: Option<&str>, gpus: usize) {
    let detail = detail.unwrap_or("all GPUs answer");
    match source {
        SourceState::Healthy | SourceState::Unsupported => {
            tracing::info!(state = source.as_str(), gpus, "GPU source: {detail}");
        }
        SourceState::Degraded | SourceState::Failed => {
            tracing::warn!(state = source.as_str(), gpus, "GPU source: {detail}");
        }
    }
}
