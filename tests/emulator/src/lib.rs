//! An LLM inference engine without a GPU: the OpenAI streaming API and the metrics page of the real engines.
//!
//! What runs behind the sockets is the iteration-level model of `plimsoll-engine`, on real time: an iteration starts,
//! the time that the model says passes, its tokens go out. Clients, metrics page and request log all read the one clock
//! reading at which an iteration was applied, so the three agree to the last digit.
//!
//! ```text
//! HTTP handlers ── bounded channel ──> driver thread (owns the engine) ──> state, exact values, request log
//!       └───────── watch per request <──┘                                     └──> /metrics, /emulator/exact
//! ```

pub mod args;
pub mod config;
pub mod exact;
pub mod exports;
pub mod script;
pub mod serve;
pub mod version;

mod api;
mod clock;
mod driver;
mod faults;
mod gpu;
mod histogram;
mod job;
mod live;
mod page;
mod prefix;
mod request_log;
mod state;
mod words;

pub use args::Args;
pub use config::Config;
pub use serve::Emulator;
