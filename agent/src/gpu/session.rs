//! The loop: connect, enumerate, tick until the driver goes away, wait, again.

use std::{
    sync::Arc,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use plimsoll_common::wire::SourceState;
use tokio::time::Instant;

use super::{
    GpuOptions,
    connection::Connection,
    governor::GovernorState,
    meter::Meter,
    plan::Call,
    reading::GpuReading,
    sampler::{Sampler, Scope},
    schedule::Schedule,
    snapshot::GpuSnapshot,
    source::{GpuDriver, GpuSource, Outage, SessionEnd},
};

/// How often it is looked for GPUs that came, went or changed places.
const RECHECK: Duration = Duration::from_secs(60);

/// The same while one is missing.
const RECHECK_WHILE_LOST: Duration = Duration::from_secs(10);

/// How late a snapshot may be before the one before it is no longer believed: well over what a healthy tick takes, and
/// short enough that a hung driver is seen within a few windows.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads GPUs until told to stop, and publishes a snapshot after every tick and at every outage.
pub(super) struct Session<'a> {
    schedule: Schedule,
    meter: Meter,
    sampler: Sampler,
    connection: Connection,
    missed_ticks: u64,
    said: Option<(SourceState, Option<String>)>,
    stop: &'a Receiver<()>,
    publish: &'a mut dyn FnMut(GpuSnapshot),
}

impl<'a> Session<'a> {
    /// Starts nothing yet. A message on `stop`, or its hang-up, ends [`Session::run`].
    pub(super) fn new(
        options: &GpuOptions,
        stop: &'a Receiver<()>,
        publish: &'a mut dyn FnMut(GpuSnapshot),
    ) -> Self {
        let interval = options.interval.max(GpuOptions::MIN_INTERVAL);
        Self {
            schedule: Schedule::new(Instant::now(), interval, options.seed),
            meter: Meter::new(Instant::now),
            sampler: Sampler::default(),
            connection: Connection::new(options.seed),
            missed_ticks: 0,
            said: None,
            stop,
            publish,
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, driver: &mut dyn GpuDriver) {
        loop {
            let begun = Instant::now();
            let mut connected = false;
            let end = driver.session(&mut |source| {
                connected = true;
                self.meter.count(Call::Init, begun.elapsed(), true);
                self.observe(source)
            });
            if !connected {
                self.meter.count(Call::Init, begun.elapsed(), false);
            }
            let outage = match end {
                Ok(SessionEnd::Stopped) => return,
                Ok(SessionEnd::Down(outage)) | Err(outage) => outage,
            };
            let now = Instant::now();
            let verdict = self.connection.down(&outage, now);
            let gpus = self.sampler.silent();
            let retry_at = now + verdict.retry_in;
            self.say(verdict.state, Some(outage.to_string()), gpus, Duration::ZERO, retry_at);
            if self.stopped_before(retry_at) {
                return;
            }
        }
    }

    fn observe(&mut self, source: &mut dyn GpuSource) -> SessionEnd {
        match self.ticks(source) {
            Ok(()) => SessionEnd::Stopped,
            Err(outage) => SessionEnd::Down(outage),
        }
    }

    /// Ticks until told to stop, which is `Ok`.
    fn ticks(&mut self, source: &mut dyn GpuSource) -> Result<(), Outage> {
        let mut spent = self.meter.busy();
        self.sampler.greet(source, &mut self.meter)?;
        self.sampler.enumerate(source, &mut self.meter, Scope::All)?;
        self.connection.up(Instant::now());
        let mut checked = Instant::now();
        loop {
            let readings = self.sampler.tick(source, &mut self.meter)?;
            let now = Instant::now();
            let due = self.schedule.after(now);
            let (state, detail) = self.sampler.health(&readings);
            self.say(state, detail, readings, self.meter.busy().saturating_sub(spent), due);
            if self.stopped_before(due) {
                return Ok(());
            }
            spent = self.meter.busy();
            self.missed_ticks += self.schedule.missed(due, Instant::now());
            let recheck = if self.sampler.misses_some() { RECHECK_WHILE_LOST } else { RECHECK };
            if checked.elapsed() >= recheck {
                self.sampler.enumerate(source, &mut self.meter, Scope::Changes)?;
                checked = Instant::now();
            }
        }
    }

    fn say(
        &mut self,
        source: SourceState,
        detail: Option<String>,
        gpus: Vec<GpuReading>,
        tick_busy: Duration,
        next: Instant,
    ) {
        let said = (source, detail.clone());
        if self.said.as_ref() != Some(&said) {
            log(source, detail.as_deref(), gpus.len());
            self.said = Some(said);
        }
        (self.publish)(GpuSnapshot {
            taken: Instant::now(),
            valid_until: Some(next + PATIENCE),
            source,
            detail,
            driver: self.sampler.driver().cloned(),
            inventory: self.sampler.inventory(),
            gpus,
            absent: Vec::new(),
            events: Arc::default(),
            release: None,
            restart_needed: false,
            governor: GovernorState::default(),
            latencies: self.meter.latencies().clone(),
            busy: self.meter.busy(),
            tick_busy,
            calls: self.meter.calls(),
            missed_ticks: self.missed_ticks,
            costs: self.meter.costs().to_vec(),
        });
    }

    /// Sleeps until `then`, or less when told to stop.
    fn stopped_before(&self, then: Instant) -> bool {
        let wait = then.saturating_duration_since(Instant::now());
        !matches!(self.stop.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
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
