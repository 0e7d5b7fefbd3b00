//! The Plimsoll agent: one per GPU node, samples GPUs and engines and reports to the planner.
//!
//! It only observes: it never writes to a GPU, an engine or the cluster. From the sources to the wire:
//!
//! * [`gpu`]: NVML on its own thread; [`engines`]: the engines' pages, one task each, through [`exposition`];
//!   [`own`]: what the agent itself costs;
//! * [`window`]: pure; turns samples into one report an interval;
//! * [`reporter`]: the clock of the windows, [`tempo`]: how fast it goes; [`uplink`]: spool and QUIC connections;
//! * [`serve`]: the pages; [`app`]: all of it put together; [`config`]: what it is told.

pub mod app;
pub mod attribution;
mod backoff;
pub mod config;
pub mod engines;
pub mod exact;
pub mod gpu;
pub mod own;
pub mod reporter;
pub mod serve;
pub mod tempo;
pub mod topology;
pub mod uplink;
pub mod window;

pub use plimsoll_pages::exposition;

/// The wall clock as Unix milliseconds: for epochs and for people, never for durations.
pub(crate) fn wall_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
