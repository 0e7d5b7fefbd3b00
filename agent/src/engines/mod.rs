//! Engines: from their metrics pages to what happened since the last look.
//!
//! ```text
//! HTTP ── scrape ──▶ page bytes ── dialect ──▶ EnginePage ── EngineTracker ──▶ EngineUpdate
//!        (one task an engine)   (one file an engine)      (pure: resets, deltas, arrivals)
//! ```
//!
//! A page holds what an engine counted since it started; an update holds what it gained since the page before.

mod arrivals;
mod bearer;
mod client;
mod dialect;
mod page;
mod page_reader;
mod scrape;
mod scrape_error;
mod series;
mod target;
mod tracker;
mod update;
mod vllm;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod scrape_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tracker_tests;

pub use page::{Counter, EnginePage, HistogramCounts, HistogramSeries, PageError};
pub use page_reader::read_page;
pub use scrape::{ScrapeOptions, run, spawn_scraper};
pub use scrape_error::{ScrapeError, TokenUse};
pub use tracker::EngineTracker;
pub use update::{
    EngineDelta, EngineGauges, EngineIdentity, EngineReading, EngineUpdate, HistogramDelta, PageQuality,
};
