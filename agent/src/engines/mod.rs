//! Engines: from their metrics pages to what happened since the last look.
//!
//! ```text
//! HTTP ── scrape ──▶ page bytes ── dialect ──▶ EnginePage ── EngineTracker ──▶ EngineUpdate
//!        (one task an engine)   (plimsoll-pages)          (pure: resets, deltas, arrivals)
//! ```
//!
//! A page holds what an engine counted since it started; an update holds what it gained since the page before.

mod arrivals;
mod bearer;
mod cadence;
mod client;
mod gains;
mod loads;
mod roster;
mod scrape;
mod scrape_error;
mod series;
mod side;
mod state;
mod target;
mod tracker;
mod update;

#[cfg(test)]
mod captured;
#[cfg(test)]
mod captured_tests;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod scrape_tests;
#[cfg(test)]
mod side_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tracker_tests;

pub use loads::{LOADS_PATH, Loads, LoadsError, read_loads};
pub use plimsoll_pages::{
    Counter, EnginePage, HistogramCounts, HistogramSeries, PageError,
    iterations::{Iterations, read_iterations},
    read_page, read_page_of,
    slo::{Buckets, Flag, Slo, SloEdge, SloMetric, edges_of},
};
use plimsoll_pages::{iterations, page, quantity, slo};
pub use roster::Roster;
pub use scrape::{ScrapeOptions, run, spawn_scraper};
pub use scrape_error::{ScrapeError, TokenUse};
pub use state::{Evidence, Movement, PageEvidence, Seen, StateMachine};
pub use tracker::EngineTracker;
pub use update::{
    EngineDelta, EngineGauges, EngineIdentity, EngineReading, EngineUpdate, HistogramDelta, PageQuality,
};
