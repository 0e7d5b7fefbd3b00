//! What a rate will be: quantiles at the horizon that a decision needs.
//!
//! [`Ensemble`] takes one value a bin (10 s by default) and answers two questions: how the rate at `now + horizon` is
//! distributed ([`Ensemble::predict`]), and how high it may rise and stay on the way there ([`Ensemble::upper_over`]),
//! which is what a decision whose replicas serve only after the horizon has to size for.
//!
//! * **Members** behind [`Forecaster`], one file each, give a path of medians: [`Constant`], [`Kalman`], [`Trend`],
//!   [`Seasonal`] (a day, a week) and [`Cycle`] (a period that it finds).
//! * **Bands** come from each member's own errors at each horizon, as they were: predictions made then against what
//!   came, in units of the noise at that rate, forgotten exponentially. Nothing assumes a distribution, so heavy
//!   clients' bursts widen the band without moving the median.
//! * **Weights** follow each member's recent quantile loss at each horizon.
//! * **Rates, not arrivals**: what is forecast is the *sustained* rate, a mean over 30 s. Sizing by queueing already
//!   pays for the Poisson noise of arrivals, so that share of the errors' variance is taken out of the band
//!   ([`Settings::quantum`]); over-dispersion stays in.
//!
//! All state is bounded (under 64 KiB, whatever the history) and serialisable. A forecaster restored from a
//! format that keeps the bits of floats continues bit for bit.
//!
//! ```
//! use plimsoll_common::units::Micros;
//! use plimsoll_core::forecast::{Ensemble, Settings};
//!
//! let mut forecast = Ensemble::new(Settings::default());
//! for bin in 1..=60 {
//!     forecast.observe(Micros(bin * 10_000_000), 12.0);
//! }
//! let upper = forecast.upper_over(Micros(80_000_000), 0.95).unwrap_or_default();
//! assert!((12.0..16.0).contains(&upper));
//! ```

mod constant;
mod cycle;
mod ensemble;
mod horizon;
mod kalman;
mod members;
mod noise;
mod quantiles;
mod residuals;
mod running;
mod seasonal;
mod settings;
mod state;
mod sustained;
mod trend;

#[cfg(test)]
mod coverage_tests;
#[cfg(test)]
mod series;
#[cfg(test)]
mod tests;

use plimsoll_common::units::Micros;

pub use self::{
    constant::Constant,
    cycle::Cycle,
    ensemble::{Ahead, Ensemble},
    kalman::Kalman,
    members::{MemberName, MemberView},
    quantiles::{LEVELS, Quantiles},
    seasonal::Seasonal,
    settings::Settings,
    state::{Counts, Observed, Unfit},
    trend::Trend,
};

/// A method of forecasting one rate, fed with bins of equal length in order of time.
pub trait Forecaster {
    /// Learns the mean rate of the bin that ended at `at`. The caller vouches for time that advances and for a value
    /// that is finite and not negative.
    fn learn(&mut self, at: Micros, value: f64);

    /// Lets `bins` pass of which nothing is known. What was learned is held.
    fn skip(&mut self, bins: u64);

    /// The rate was seen to step to `level`, which is no burst and no trend: whoever remembers an older level as the
    /// present one forgets it.
    fn step_to(&mut self, level: f64) {
        let _ = level;
    }

    /// Writes the median of the rate in the bins after the last one into `path`, the nearest first; no value is
    /// negative. `false`, and whatever in `path`, while it has nothing to say.
    fn path(&self, path: &mut [f64]) -> bool;
}
