//! The simulated world: a fleet of inference engines, its load and its mishaps, for any scaling policy.
//!
//! [`World`] is a discrete-event simulation on `plimsoll-engine`: [`workload`]s arrive, routers send them to replicas,
//! replicas start, drain, fail; a [`ScalingPolicy`](policy::ScalingPolicy) sees at every tick what a planner of a real
//! cluster could see and sets replica targets. The [`Outcome`] holds every request's times and every replica's life,
//! from which `plimsoll_core::score` judges.
//!
//! Pure and deterministic: no clock, no IO, seeds in. The same build gives the same outcome, byte for byte.
//!
//! ```
//! use plimsoll_common::units::Micros;
//! use plimsoll_engine::Profile;
//! use plimsoll_sim::{Outcome, PoolConfig, World, WorldConfig, policies::Fixed, workload::{Arrival, Workload}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let profile = Profile::built_in("llama-3.1-8b-h200-tp1")?;
//! let workload = Workload::new((0..100).map(|i| Arrival::new(Micros(i * 200_000), 1_000, 50)).collect());
//! let config = WorldConfig::aggregated(PoolConfig::new("chat", &profile).with_initial(2));
//! let outcome: Outcome = World::new(&config, &workload)?.run(&mut Fixed::new(vec![2]));
//! assert!(outcome.requests.iter().all(|request| request.last_token.is_some()));
//! # Ok(())
//! # }
//! ```

pub mod bounds;
mod experiment;
mod outcome;
pub mod policies;
pub mod policy;
pub mod report;
mod search;
pub mod telemetry;
mod trials;
pub mod workload;
mod world;

pub use experiment::{Experiment, Run, StaticBest, Watcher};
pub use outcome::{Action, Ending, Outcome, PoolSample, ReplicaSpan, RequestRecord};
pub use trials::{Chosen, Clairvoyant, Figures, Trial, Trials};
pub use world::{
    ConfigError, FAULTS, Fault, FaultError, KvTransfer, Lost, PoolConfig, Router, Serving, StartUp, Who,
    World, WorldConfig,
};
