//! The loop that reads one engine.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    page_reader::read_page,
    scrape_error::ScrapeError,
    tracker::EngineTracker,
    update::{EngineReading, EngineUpdate},
};
use crate::{config::Endpoint, exposition::Limits};

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
/// dropped, and when readings are taken late the next one simply covers more time.
pub async fn run(
    engine: usize,
    endpoint: Endpoint,
    options: ScrapeOptions,
    tx: mpsc::Sender<EngineReading>,
    cancel: CancellationToken,
) {
    let mut scraper = Scraper::new(engine, endpoint, options);
    let mut cadence = Cadence::new(options);
    let mut next = Instant::now();
    // The first scrape is due at once, since it is the baseline. The second is early by a share that the engine's name
    // decides, so that the engines of a node are not all read at the same instant.
    let mut early = phase(scraper.endpoint.id.as_str());
    loop {
        let due = async {
            sleep_until(next).await;
            tx.reserve().await
        };
        let permit = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            permit = due => permit,
        };
        let Ok(permit) = permit else { return };
        let started = Instant::now();
        let reading = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            reading = scraper.scrape() => reading,
        };
        let pause = cadence.after(reading.took, reading.outcome.as_ref().err());
        next = started + pause.mul_f64(std::mem::replace(&mut early, 1.0));
        permit.send(reading);
    }
}

/// One engine and what is known of it.
struct Scraper {
    engine: usize,
    endpoint: Endpoint,
    options: ScrapeOptions,
    client: Result<Client, ScrapeError>,
    tracker: EngineTracker,
    version: Option<String>,
    /// Whether the last scrape failed, so that a change is logged once.
    failing: bool,
}

impl Scraper {
    fn new(engine: usize, endpoint: Endpoint, options: ScrapeOptions) -> Self {
        let client = Client::new(&endpoint.url, &endpoint.metrics_path, None, options);
        Self {
            engine,
            endpoint,
            options,
            client,
            tracker: EngineTracker::new(),
            version: None,
            failing: false,
        }
    }

    async fn scrape(&mut self) -> EngineReading {
        let started = Instant::now();
        let (outcome, taken) = self.look().await;
        if outcome.as_ref().is_err_and(ScrapeError::shows_absence) {
            self.tracker.absent();
            self.version = None;
        }
        self.log(&outcome);
        EngineReading { engine: self.engine, taken, took: taken - started, outcome }
    }

    /// Reads the page, and the version where it is not known yet; gives the instant at which the page was there.
    async fn look(&mut self) -> (Result<EngineUpdate, ScrapeError>, Instant) {
        let client = match &mut self.client {
            Ok(client) => client,
            Err(error) => return (Err(error.clone()), Instant::now()),
        };
        let bytes = client.page().await;
        let taken = Instant::now();
        let page = bytes.and_then(|bytes| Ok(read_page(self.endpoint.kind, bytes, self.options.limits)?));
        let page = match page {
            Ok(page) => page,
            Err(error) => return (Err(error), taken),
        };
        if let Some(version) = client.version().await {
            self.version = Some(version);
        }
        let mut update = self.tracker.observe(&page);
        update.identity.version.clone_from(&self.version);
        (Ok(update), taken)
    }

    fn log(&mut self, outcome: &Result<EngineUpdate, ScrapeError>) {
        let engine = self.endpoint.id.as_str();
        match outcome {
            Err(error) if !self.failing => tracing::warn!(engine, %error, "engine can't be read"),
            Err(error) => tracing::debug!(engine, %error, "engine still can't be read"),
            Ok(_) if self.failing => tracing::info!(engine, "engine is read again"),
            Ok(_) => {}
        }
        if let Ok(EngineUpdate { quality, delta, .. }) = outcome {
            if delta.resets > 0 {
                tracing::info!(engine, "engine restarted: its counters start again");
            }
            if let Some(first) = quality.first_malformed {
                tracing::debug!(engine, lines = quality.malformed_lines, %first, "malformed lines skipped");
            }
        }
        self.failing = outcome.is_err();
    }
}

/// How long to wait between scrapes.
///
/// The page is served by the event loop that serves the engine's users, so a scrape may take no more than a twentieth
/// of that loop's time: interval = max(configured, 20 × the moving average of the scrape's duration).
#[derive(Debug)]
struct Cadence {
    options: ScrapeOptions,
    average: Option<Duration>,
}

impl Cadence {
    const TIMES: u32 = 20;
    /// Of the newest duration in the moving average.
    const WEIGHT: f64 = 0.2;

    const fn new(options: ScrapeOptions) -> Self {
        Self { options, average: None }
    }

    /// The interval after a scrape that took this long. Where no server answered there was nothing to spare.
    fn after(&mut self, took: Duration, error: Option<&ScrapeError>) -> Duration {
        let answered = !matches!(
            error,
            Some(ScrapeError::Refused(_) | ScrapeError::Connect { .. } | ScrapeError::Url { .. })
        );
        if answered {
            let average = self
                .average
                .map_or(took, |average| average.mul_f64(1.0 - Self::WEIGHT) + took.mul_f64(Self::WEIGHT));
            self.average = Some(average);
        }
        let polite = self.average.unwrap_or_default().saturating_mul(Self::TIMES);
        self.options.interval.max(polite.min(self.options.longest_interval))
    }
}

/// A share between a half and one from a text, by FNV-1a and a last multiplication that spreads the last byte, in
/// which the engines of a node often differ alone, over the upper bits.
fn phase(text: &str) -> f64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    0.5 + (hash >> 11) as f64 / (1u64 << 54) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slow_pages_are_read_less_often() {
        let mut cadence = Cadence::new(ScrapeOptions::default());
        assert_eq!(cadence.after(ms(10), None), ms(1000));
        let mut cadence = Cadence::new(ScrapeOptions::default());
        assert_eq!(cadence.after(ms(200), None), ms(4000));
        // The moving average follows, it does not jump.
        assert_eq!(cadence.after(ms(100), None), ms(3600));
        assert_eq!(cadence.after(ms(5000), None), ms(15_000));
    }

    #[test]
    fn a_port_that_refuses_is_tried_at_the_configured_pace() {
        let mut cadence = Cadence::new(ScrapeOptions::default());
        let refused = ScrapeError::Refused("x".to_owned());
        assert_eq!(cadence.after(ms(900), Some(&refused)), ms(1000));
    }

    #[test]
    fn phases_spread() {
        let phases: Vec<_> = (0..8).map(|port| phase(&format!("127.0.0.1:800{port}"))).collect();
        assert!(phases.iter().all(|phase| (0.5..1.0).contains(phase)));
        let distinct =
            phases.iter().map(|phase| (phase * 64.0) as u64).collect::<std::collections::BTreeSet<_>>();
        assert!(distinct.len() >= 5, "{phases:?}");
    }
}
