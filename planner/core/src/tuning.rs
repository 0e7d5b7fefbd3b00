//! Numbers that no operator needs to set: chosen by principle, the same for every fleet.

use serde::{Deserialize, Serialize};

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// The quantile of the forecast that a pool is to be ready for, 0 to 1.
    pub ahead: f64,
    /// The quantile of the forecast that a replica is kept for, 0 to 1.
    pub keep: f64,
    /// The share of the allowed misses that sizing may use up, above 0.
    pub spend: f64,
    /// How far beyond its forecast's band, in bands, a rate must be for a panic.
    pub panic: f64,
    /// How long what was wanted is kept at least, s; where replicas take longer to start, as long as that.
    pub hold_s: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { ahead: 0.95, keep: 0.95, spend: 1.0, panic: 2.0, hold_s: 60.0 }
    }
}
