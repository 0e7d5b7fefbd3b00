//! Reads the metrics pages of inference engines.
//!
//! [`exposition`] reads the text format as engines really write it; a dialect, one file an engine, knows how each engine and
//! each of its versions names what we want to know; [`read_page`] makes of both an [`EnginePage`]: totals since the engine
//! started. [`slo`] tells whether an SLO can be read off a page's buckets, and which flag of the engine makes it so.
//! Everything here is pure and bounded; the agent fetches and compares pages, the planner checks policies by them.

mod detect;
mod dialect;
mod dynamo;
pub mod exposition;
mod gauges;
pub mod iterations;
pub mod page;
mod page_histogram;
mod page_reader;
pub mod quantity;
mod sglang;
pub mod slo;
mod triton;
mod trtllm;
mod vllm;

pub use gauges::{EngineGauges, PageQuality};
pub use page::{Counter, EnginePage, HistogramCounts, HistogramSeries, PageError};
pub use page_reader::{read_page, read_page_of};
