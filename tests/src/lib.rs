//! The harness: builds the real binaries, starts them on loopback, and drives them.
//!
//! * [`artifacts`]: one `cargo build`, and where it put things; [`world`]: a temporary folder in which [`process`]es
//!   run, each with a log of its own; [`daemons`]: how agents, planners and emulators are started;
//! * [`proxy`]: a bad network; [`host`]: a host with other clocks and names; [`tls`]: a throw-away authority;
//! * [`http`], [`https`] and [`openai`]: clients; [`wait`]: waiting with a deadline;
//! * [`workload`]: arrivals and lengths, drawn or read from a trace; [`request_log`]: the emulators' exact record.
//!
//! The demo is made of the same parts as the end-to-end tests in `tests/e2e`.

pub mod artifacts;
pub mod daemons;
pub mod host;
pub mod http;
pub mod https;
pub mod openai;
pub mod process;
pub mod proxy;
pub mod request_log;
pub mod tls;
pub mod wait;
pub mod workload;
pub mod world;
