//! One HDR layout for the whole fleet, and what cumulative buckets can tell.
//!
//! * [`layout`]: value ↔ cell arithmetic of the one layout;
//! * [`LatencyHistogram`]: dense counts, lossless merge, quantiles, V2 import and export;
//! * [`SparseHistogram`]: the same counts where most cells are empty;
//! * [`BucketLayout`], [`BucketCounts`]: an engine's own `le` buckets, the bounds they put on a quantile, and the
//!   sum-constrained placement of their samples into cells;
//! * [`LeanLayout`], [`LeanCounts`]: that placement for many intervals, added up first and laid into cells when read;
//! * [`AttainmentInterval`]: between what the share lies that met a limit, or two.

mod attainment;
mod buckets;
mod latency;
pub mod layout;
mod lean;
mod place;
mod sparse;
mod v2;

pub use attainment::{AttainmentInterval, attainment};
pub use buckets::{
    BucketCounts, BucketLayout, InvalidBuckets, MAX_BUCKET_EDGES, QuantileBounds, quantile_bounds,
};
pub use latency::LatencyHistogram;
pub use lean::{LeanCounts, LeanLayout, PLACES};
pub use place::place;
pub use sparse::SparseHistogram;
pub use v2::{MAX_V2_BYTES, V2Error};
