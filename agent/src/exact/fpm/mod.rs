//! Forward-pass metrics: every pass of a scheduler, as NVIDIA Dynamo's instrumented vLLM and SGLang publish them over
//! ZeroMQ (`ForwardPassMetrics` version 1).
//!
//! [`zmtp`] is the protocol without a socket, [`message`] one message, [`ledger`] what messages add up to, and [`run`] the
//! task that subscribes to one publisher. Our own few hundred bytes of protocol, since the one kept ZeroMQ crate in Rust
//! allocates whatever length a frame announces (docs/adr/0009).

mod ledger;
mod message;
mod task;
mod zmtp;

pub use task::{Subscription, run};

#[cfg(test)]
mod tests;
