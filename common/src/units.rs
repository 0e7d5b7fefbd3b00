//! Quantities with their unit in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A duration or a point on a virtual time line in whole microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// The start of a time line, and the empty span.
    pub const ZERO: Self = Self(0);

    /// The latest point there is.
    pub const MAX: Self = Self(u64::MAX);

    /// Milliseconds as a model computes them, rounded to the nearest microsecond. Negative and not-a-number count as
    /// zero, and what is too large as [`Self::MAX`]: absurd coefficients give an absurd time and never a panic.
    #[must_use]
    pub fn from_millis_f64(millis: f64) -> Self {
        // A float cast saturates at both ends and turns not-a-number into zero.
        Self((millis * 1_000.0).round() as u64)
    }

    /// As milliseconds.
    #[must_use]
    pub const fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// Seconds, rounded to the nearest microsecond; `None` for what is negative, not finite or over 584,000 years.
    #[must_use]
    pub fn from_secs_f64(secs: f64) -> Option<Self> {
        let micros = secs * 1e6;
        // 2^63 keeps clear of the float's rounding at the top of the u64 range.
        (micros.is_finite() && (0.0..9.2e18).contains(&micros)).then(|| Self(micros.round() as u64))
    }

    /// As seconds.
    #[must_use]
    pub const fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Whole milliseconds to microseconds, saturating.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// `self - earlier`, or zero where `earlier` is later.
    #[must_use]
    pub const fn saturating_sub(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// `self + more`, saturating.
    #[must_use]
    pub const fn saturating_add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{} µs", self.0),
            1_000..1_000_000 => write!(f, "{:.1} ms", self.0 as f64 / 1e3),
            _ => write!(f, "{:.2} s", self.0 as f64 / 1e6),
        }
    }
}

/// A share between 0 and 1, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

/// A number was no share of a whole.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a ratio lies between 0 and 1, this is {0}")]
pub struct NotARatio(pub f64);

impl Ratio {
    /// Takes a number as a ratio.
    ///
    /// # Errors
    /// When it is not finite or outside 0..=1.
    pub fn new(value: f64) -> Result<Self, NotARatio> {
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(NotARatio(value)) }
    }

    /// Parts per million, as the wire carries it; more than a million is cut to the whole.
    #[must_use]
    pub const fn from_ppm(ppm: u64) -> Self {
        let ppm = if ppm > 1_000_000 { 1_000_000 } else { ppm };
        Self(ppm as f64 / 1e6)
    }

    /// Rounded to parts per million.
    #[must_use]
    pub fn to_ppm(self) -> u64 {
        (self.0 * 1e6).round() as u64
    }

    /// Between 0 and 1.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = NotARatio;
    fn try_from(value: f64) -> Result<Self, NotARatio> {
        Self::new(value)
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_whole_microseconds() {
        assert_eq!(Micros::from_secs_f64(0.0022), Some(Micros(2200)));
        assert_eq!(Micros::from_secs_f64(-1e-9), None);
        assert_eq!(Micros::from_secs_f64(f64::NAN), None);
        assert_eq!(Micros::from_secs_f64(f64::INFINITY), None);
        assert_eq!(Micros::from_secs_f64(1e300), None);
    }

    #[test]
    fn absurd_milliseconds_saturate() {
        assert_eq!(Micros::from_millis_f64(1.2345), Micros(1_235));
        assert_eq!(Micros::from_millis_f64(f64::NAN), Micros::ZERO);
        assert_eq!(Micros::from_millis_f64(f64::INFINITY), Micros::MAX);
        assert_eq!(Micros::from_millis_f64(-3.0), Micros::ZERO);
        assert!((Micros(2_500).as_millis_f64() - 2.5).abs() < 1e-12);
    }

    #[test]
    fn a_ratio_is_between_nothing_and_all() {
        assert!(Ratio::new(1.000_001).is_err());
        assert!(Ratio::new(f64::NAN).is_err());
        assert_eq!(Ratio::new(0.5).unwrap().to_ppm(), 500_000);
        assert_eq!(Ratio::from_ppm(7_000_000).to_ppm(), 1_000_000);
    }
}
