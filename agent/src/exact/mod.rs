//! Exact sources: single requests and single forward passes, where pages only have buckets.
//!
//! ```text
//! request logs (JSON lines) ── tail ──▶ sglang, trtllm ─▶ RequestRecord ┐
//! OTLP traces ─────────────── otlp ──────────────────▶ RequestRecord ├▶ ExactBatch ─▶ window
//! forward-pass metrics (ZMQ) ─ fpm ───────────────────────▶ passes ┘
//! ```
//!
//! TensorRT-LLM's drained page of requests is a page of the engine's server: its scraper reads it, in turn with the others.
//!
//! All are off unless an endpoint's configuration names them. What they tell is counted in cells of the fleet's layout
//! and never under one name with what an engine's page tells in buckets. Records may come beside prompts and outputs:
//! those are skipped where they stand, never decoded, kept or logged.

pub mod batch;
pub mod board;
pub mod fpm;
pub mod otlp;
pub mod record;
mod sglang;
mod spawn;
pub mod tail;
mod trtllm;

pub use batch::{ExactBatch, ExactReading, ExactSamples, PassGauges, PassUpdate};
pub use board::{ExactBoard, SourceKey, SourceKind, SourceReport, SourceState, SourceStatus};
pub use spawn::{ExactFeeds, spawn};
pub use trtllm::{DrainedRequests, read_drained};
