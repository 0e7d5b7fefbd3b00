//! Closes a window each interval and hands it to the uplink's spool.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    engines::EngineReading,
    exact::ExactReading,
    gpu::GpuSnapshot,
    own::{CostWindow, OwnCost, OwnSampler},
    tempo::Tempo,
    uplink::Uplink,
    wall_clock_ms,
    window::Window,
};

/// The window that is being filled, shared with the pages. Locked for moments only, never across an await.
pub type SharedWindow = Arc<Mutex<Window>>;

/// The first window is at least this long.
const FIRST_WINDOW: Duration = Duration::from_millis(100);

/// What the reporter works with.
#[derive(Debug)]
pub struct Reporter {
    /// The window that is being filled.
    pub window: SharedWindow,
    /// What scrapes told.
    pub readings: mpsc::Receiver<EngineReading>,
    /// What exact sources told.
    pub exact: mpsc::Receiver<ExactReading>,
    /// The newest look at the GPUs.
    pub gpus: watch::Receiver<Arc<GpuSnapshot>>,
    /// Where closed windows go; without one they are closed for the pages alone.
    pub uplink: Option<Uplink>,
    /// Measures the agent itself.
    pub own: OwnSampler,
    /// The newest figures of the agent itself, for the pages.
    pub costs: watch::Sender<OwnCost>,
    /// Between two reports, as configured.
    pub interval: Duration,
    /// Spreads the reports of a fleet over the interval: a number that differs from node to node.
    pub seed: u64,
}

/// Runs until cancelled, then closes and hands over a last window marked as leaving.
///
/// # Errors
/// Never, at present; what can't be encoded is logged and counted as dropped.
pub async fn run(mut reporter: Reporter, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut cost = CostWindow::new();
    let mut asked = reporter.uplink.as_ref().map(|uplink| uplink.asked_interval.subscribe());
    let mut tempo = Tempo::new(reporter.interval);
    let mut every = tempo.interval();
    let mut ticks = ticks(every, reporter.seed);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            _ = ticks.tick() => reporter.report(&mut cost, false),
            Some(reading) = reporter.readings.recv() => {
                let work = reading.shows_work();
                reporter.with_window(|window| window.observe(reading));
                if work && tempo.work() {
                    reporter.report(&mut cost, false);
                }
            }
            Some(reading) = reporter.exact.recv() => reporter.with_window(|window| window.observe_exact(reading)),
            Some(()) = changed(&mut asked) => tempo.ask(asked.as_ref().and_then(|asked| *asked.borrow())),
        }
        if tempo.interval() != every {
            every = tempo.interval();
            tracing::info!(interval = ?every, "another report interval, as the planner asked and the engines' work allows");
            ticks = self::ticks(every, reporter.seed);
        }
    }
    while let Ok(reading) = reporter.readings.try_recv() {
        reporter.with_window(|window| window.observe(reading));
    }
    while let Ok(reading) = reporter.exact.try_recv() {
        reporter.with_window(|window| window.observe_exact(reading));
    }
    reporter.report(&mut cost, true);
    Ok(())
}

/// Waits for the planner to ask for another interval; `None` (never) where there is no planner.
async fn changed(asked: &mut Option<watch::Receiver<Option<Duration>>>) -> Option<()> {
    match asked {
        Some(asked) => asked.changed().await.ok(),
        None => None,
    }
}

/// Ticks of an interval whose phase depends on the node, so that agents started together do not report together.
fn ticks(every: Duration, seed: u64) -> tokio::time::Interval {
    // A multiplicative hash spreads neighbouring numbers over the whole interval.
    let phase = every.mul_f64((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64);
    let mut ticks = interval_at(Instant::now() + phase.max(FIRST_WINDOW), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

impl Reporter {
    fn with_window<T>(&self, act: impl FnOnce(&mut Window) -> T) -> T {
        act(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn report(&mut self, cost: &mut CostWindow, leaving: bool) {
        let now = Instant::now();
        let own = self.own.sample();
        self.costs.send_replace(own);
        let gpus = Arc::clone(&self.gpus.borrow()).as_of(now);
        let dropped = self.uplink.as_ref().map_or(0, |uplink| uplink.usage().dropped_windows);
        let nvml_busy = (gpus.calls > 0).then_some(gpus.busy);
        let cost = cost.close(&own, nvml_busy, dropped);
        let mut closed = self.with_window(|window| window.close(now, wall_clock_ms(), &gpus, cost));
        closed.report.leaving = leaving;
        if let Some(uplink) = &self.uplink {
            uplink.push(closed);
        }
    }
}
