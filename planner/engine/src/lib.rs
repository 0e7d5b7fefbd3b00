//! The iteration-level model of one LLM inference engine, a pure state machine on virtual time.
//!
//! An engine that batches continuously spends its life in *iterations*: it chooses which sequences advance and by how
//! many tokens, runs the model once, and hands out the tokens. [`Engine`] is that loop without the model: a scheduler
//! with chunked prefill, a token budget, a sequence limit, a paged KV cache and preemption by recompute; and an
//! iteration's duration, from [`Timing`]. It has no clock, no IO and no randomness: whoever drives it says what time
//! it is.
//!
//! ```
//! use plimsoll_engine::{Engine, EngineConfig, Micros, Profile, Request, RequestId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let profile = Profile::built_in("llama-3.1-8b-h200-tp1")?;
//! let mut engine = Engine::new(profile.engine_config())?;
//! let mut now = Micros::ZERO;
//! engine.submit(now, Request::new(RequestId(1), 1000, 50))?;
//! while let Some(iteration) = engine.start_iteration(now) {
//!     now = iteration.ends_at;
//!     let step = engine.finish_iteration(now).expect("an iteration was started");
//!     for finished in step.finished {
//!         assert_eq!(finished.emitted_tokens, 50);
//!     }
//! }
//! assert_eq!(engine.totals().finished, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Two drivers share this crate: the simulator ([`Engine::advance`] runs to the next event in one call, telling a
//! [`Sink`] what happens) and the emulator (real time passes between the two calls). Nothing is allocated per token or,
//! once warm, per iteration; an iteration costs time in proportion to its batch, and one that [`Engine::advance`] runs only in
//! proportion to what is in prefill, comes or goes with it.
//!
//! An engine that only prefills is this engine with requests of one output token; one that only decodes is this engine
//! with requests that come [prefilled](Request::prefilled).

mod advance;
mod backlog;
mod blocks;
mod cohort;
mod config;
mod engine;
mod pace;
mod profile;
mod request;
mod scheduler;
mod slots;
mod step;
mod table;
mod timing;

pub use advance::Sink;
pub use backlog::Backlog;
pub use config::{ConfigError, EngineConfig};
pub use engine::{Engine, Load, Totals};
pub use pace::Pace;
pub use plimsoll_common::units::Micros;
pub use profile::{Profile, ProfileError};
pub use request::{Rejected, Request, RequestFacts, RequestId};
pub use step::{Admission, Iteration, Preemption, Step, StepStats, Token};
pub use table::{Rows, Table};
pub use timing::{Curve, Phases, Roofline, StepShape, Timing, TimingError};
