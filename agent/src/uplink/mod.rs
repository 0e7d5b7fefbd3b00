//! Reports on their way to the planners: one bounded spool, and a QUIC connection that comes back for each planner.

mod client;
mod connection;
mod link;
mod spool;
mod status;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use plimsoll_common::units::Micros;
use tokio::{sync::watch, time::Instant};

pub use client::run;
pub use spool::{MAX_IN_FLIGHT, Outgoing, RETAIN, Spool, SpoolUse};
pub use status::{LinkState, LinkStatus, UplinkStatus};

use crate::window::Closed;

/// What was handed to the spool so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Windows.
    pub windows: u64,
    /// Whether the last one is among them: the agent stops.
    pub last: bool,
}

/// What the rest of the agent shares with the uplink.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// Reports that wait. Locked for moments only, never across an await.
    spool: Arc<Mutex<Spool>>,
    pushed: Arc<watch::Sender<Pushed>>,
    /// Where the connections stand.
    pub status: Arc<watch::Sender<UplinkStatus>>,
    /// What interval between reports the planners would like, if any.
    pub asked_interval: Arc<watch::Sender<Option<Duration>>>,
    /// The agent's own interval between reports.
    own_interval: Duration,
    begun: Instant,
}

impl Uplink {
    /// An uplink with this spool, for an agent that reports every `own_interval` by itself.
    #[must_use]
    pub fn new(spool: Spool, own_interval: Duration) -> Self {
        Self {
            spool: Arc::new(Mutex::new(spool)),
            pushed: Arc::new(watch::Sender::new(Pushed::default())),
            status: Arc::new(watch::Sender::new(UplinkStatus::new())),
            asked_interval: Arc::new(watch::Sender::new(None)),
            own_interval,
            begun: Instant::now(),
        }
    }

    /// Keeps a window that was closed now for every planner. One that can't be encoded is logged and counted as dropped.
    pub fn push(&self, closed: Closed) {
        let last = closed.report.leaving;
        let now = self.now();
        if let Err(error) = self.with_spool(|spool| spool.push(closed, now)) {
            tracing::error!(%error, "a window could not be kept for the planners and is lost");
        }
        self.pushed.send_modify(|pushed| {
            pushed.windows += 1;
            pushed.last |= last;
        });
    }

    /// How full the spool is.
    #[must_use]
    pub fn usage(&self) -> SpoolUse {
        self.with_spool(|spool| spool.usage())
    }

    fn with_spool<T>(&self, act: impl FnOnce(&mut Spool) -> T) -> T {
        act(&mut self.spool.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The spool's clock: monotonic, from the agent's start.
    fn now(&self) -> Micros {
        Micros(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Changes the status, and what follows from it.
    fn update(&self, change: impl FnOnce(&mut UplinkStatus)) {
        self.status.send_modify(change);
        let asked = self.status.borrow().asked_interval(self.own_interval);
        self.asked_interval.send_if_modified(|told| std::mem::replace(told, asked) != asked);
    }
}
