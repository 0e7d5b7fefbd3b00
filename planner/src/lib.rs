//! The shell around the planner's core: it listens to agents and shows what they see.
//!
//! ```text
//! agents ── QUIC ──▶ ingest ── Event ──▶ drive (owns the Fleet) ── Arc<Published> ──▶ serve ── HTTP ──▶
//!                      ▲                   │        ▲                                   │
//!                      └─ watch<Answer> ───┘        └── Question (bounded, answered once) ┘
//! ```
//!
//! [`fold`] translates wire messages into the core's words; [`ingest::Cursor`] sees to it that every window counts
//! once. Both are pure. With a policy, [`advise`] tells the decision core at each interval what the reports brought, and
//! publishes its plan. [`app`] puts the parts together.

pub use plimsoll_simulate as simulate;

pub mod advise;
pub mod app;
pub mod check;
pub mod clock;
pub mod config;
pub mod decide;
pub mod drive;
pub mod fold;
mod http_get;
pub mod ingest;
pub mod journal;
pub mod policy;
pub mod profile;
pub mod serve;
