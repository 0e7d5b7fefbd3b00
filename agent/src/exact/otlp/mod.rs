//! Request spans over OTLP: the agent as the receiver of its node's engines (`vllm serve --otlp-traces-endpoint`).
//!
//! One address speaks OTLP over gRPC and over HTTP with protobuf bodies. Nothing of a span is decoded but the numbers among
//! its attributes, and nothing is forwarded.

mod listener;
mod seen;
mod service;
mod span;

pub use listener::{Listener, serve};

/// Messages and server, generated from `proto/otlp_traces.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
#[expect(clippy::allow_attributes, reason = "generated")]
mod v1 {
    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
}

#[cfg(test)]
mod tests;
