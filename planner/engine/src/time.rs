//! Time, as the driver tells it.

use serde::{Deserialize, Serialize};

/// A point on the driver's time line, or a span of it, in integer microseconds.
///
/// The zero is the driver's to choose: the model only subtracts and compares. All arithmetic saturates, so that absurd
/// input gives an absurd time and never a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// The driver's zero, and the empty span.
    pub const ZERO: Self = Self(0);

    /// The latest point there is.
    pub const MAX: Self = Self(u64::MAX);

    /// A number of milliseconds, rounded to the nearest microsecond. Negative and not-a-number count as zero.
    #[must_use]
    pub fn from_millis_f64(millis: f64) -> Self {
        // A float cast saturates at both ends and turns not-a-number into zero.
        Self((millis * 1_000.0).round() as u64)
    }

    /// A number of seconds, rounded to the nearest microsecond. Negative and not-a-number count as zero.
    #[must_use]
    pub fn from_secs_f64(seconds: f64) -> Self {
        Self((seconds * 1_000_000.0).round() as u64)
    }

    /// In seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// This point moved later by `span`.
    #[must_use]
    pub const fn plus(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this point; zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_round_to_the_nearest_microsecond() {
        assert_eq!(Micros::from_millis_f64(1.2345), Micros(1_235));
        assert_eq!(Micros::from_secs_f64(0.000_000_4), Micros::ZERO);
        assert!((Micros(2_500_000).as_secs_f64() - 2.5).abs() < 1e-12);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Micros::MAX.plus(Micros(1)), Micros::MAX);
        assert_eq!(Micros(1).since(Micros(2)), Micros::ZERO);
        assert_eq!(Micros::from_millis_f64(f64::NAN), Micros::ZERO);
        assert_eq!(Micros::from_millis_f64(f64::INFINITY), Micros::MAX);
        assert_eq!(Micros::from_millis_f64(-3.0), Micros::ZERO);
    }
}
