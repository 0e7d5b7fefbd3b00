//! Closes a window each interval and hands it to the uplink's spool.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
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

/// A window is at least this long, save the last.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// Between two reports that did not wait for their turn, since an engine's state changed or it woke.
const EARLY: Duration = Duration::from_secs(1);

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
    let mut early = Early::default();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            _ = ticks.tick() => {
                reporter.report(&mut cost, false);
                early.reported(Instant::now());
            }
            () = sleep_until(early.due.unwrap_or_else(Instant::now)), if early.due.is_some() => {
                reporter.report(&mut cost, false);
                early.reported_early(Instant::now());
            }
            Some(reading) = reporter.readings.recv() => {
                let woken = reading.shows_work() && tempo.work();
                if reporter.with_window(|window| window.observe(reading)) || woken {
                    early.ask(Instant::now());
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

/// When a window is closed before its time: an engine's state changed, and whoever decides by it should not wait for the
/// turn of the next report. Flapping engines don't make reports more frequent than one a second beside the regular ones.
#[derive(Debug, Default)]
struct Early {
    due: Option<Instant>,
    last: Option<Instant>,
    last_early: Option<Instant>,
}

impl Early {
    fn ask(&mut self, now: Instant) {
        let after = |last: Option<Instant>, pause| last.map_or(now, |last| last + pause).max(now);
        // A window of no length would tell no rates.
        let at = after(self.last, SHORTEST_WINDOW).max(after(self.last_early, EARLY));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn reported(&mut self, now: Instant) {
        self.last = Some(now);
        self.due = None;
    }

    fn reported_early(&mut self, now: Instant) {
        self.reported(now);
        self.last_early = Some(now);
    }
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
    let mut ticks = interval_at(Instant::now() + phase.max(SHORTEST_WINDOW), every);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_wait_for_nobody_and_crowd_out_nobody() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut early = Early::default();
        early.ask(at(0));
        assert_eq!(early.due, Some(at(0)));
        early.reported_early(at(0));
        early.ask(at(10));
        assert_eq!(early.due, Some(at(1000)), "flapping is told once a second");
        early.reported(at(950));
        assert_eq!(early.due, None, "the regular report has told it");
        early.ask(at(5000));
        assert_eq!(early.due, Some(at(5000)));
        early.reported(at(5000));
        early.ask(at(5001));
        assert_eq!(early.due, Some(at(5100)), "a window has some length");
        early.ask(at(5050));
        assert_eq!(early.due, Some(at(5100)));
    }
}
