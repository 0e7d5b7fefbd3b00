//! Numbers in a policy that have a range.

use std::fmt;

use plimsoll_common::units::Ratio;
use serde::{Deserialize, Serialize};

/// A number is outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what} is {value}: give {range}")]
pub struct OutOfRange {
    what: &'static str,
    value: f64,
    range: &'static str,
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $range:literal, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// Takes a number.
            ///
            /// # Errors
            /// When it is out of range.
            pub fn new(value: f64) -> Result<Self, OutOfRange> {
                let fits: fn(f64) -> bool = $fits;
                if fits(value) { Ok(Self(value)) } else { Err(OutOfRange { what: $what, value, range: $range }) }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = OutOfRange;
            fn try_from(value: f64) -> Result<Self, OutOfRange> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(quantity: $name) -> Self {
                quantity.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity!(
    /// A percentile, between 0 and 100, neither included: 99 means that 99 % of requests keep the limit.
    Percentile,
    "a percentile",
    "a number above 0 and below 100, such as 99",
    |value| value > 0.0 && value < 100.0
);
quantity!(
    /// A utilization in per cent as HPA's `averageUtilization`: above 0, at most 100.
    Utilization,
    "a utilization",
    "per cent above 0 and up to 100, such as 80",
    |value| value > 0.0 && value <= 100.0
);
quantity!(
    /// Requests, as a mean over replicas: above 0.
    Requests,
    "a number of requests",
    "a finite number above 0",
    |value| value > 0.0 && value.is_finite()
);
quantity!(
    /// Electrical power in watts: above 0.
    Watts,
    "a power",
    "a finite number of watts above 0",
    |value| value > 0.0 && value.is_finite()
);
quantity!(
    /// Money, in whatever currency the operator counts, the same everywhere in a policy; not negative.
    Cost,
    "a cost",
    "a finite number that is not negative",
    |value| value >= 0.0 && value.is_finite()
);

impl Percentile {
    /// The 99th.
    pub const P99: Self = Self(99.0);

    /// The share of requests.
    #[must_use]
    pub fn share(self) -> Ratio {
        // A percentile lies within 0 to 100, so this is exact to a millionth.
        Ratio::from_ppm((self.0 * 1e4).round() as u64)
    }
}

impl Requests {
    /// A number of the crate's own, in range.
    pub(super) const fn of(requests: f64) -> Self {
        Self(requests)
    }
}

impl Utilization {
    /// A number of the crate's own, in range.
    pub(super) const fn of(percent: f64) -> Self {
        Self(percent)
    }

    /// The share of what there is.
    #[must_use]
    pub fn share(self) -> Ratio {
        Ratio::from_ppm((self.0 * 1e4).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_range_are_refused_with_what_would_do() {
        for bad in [0.0, 100.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Percentile::new(bad).unwrap_err().to_string().contains("such as 99"), "{bad}");
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Watts::new(bad).is_err() && Cost::new(bad).is_err() && Requests::new(bad).is_err());
            assert!(Utilization::new(bad).is_err());
        }
        assert!(Cost::new(0.0).is_ok() && Utilization::new(100.0).is_ok());
    }

    #[test]
    fn a_percentile_is_a_share_of_requests() {
        assert_eq!(Percentile::new(99.9).unwrap().share(), Ratio::from_ppm(999_000));
        assert_eq!(Utilization::new(80.0).unwrap().share(), Ratio::from_ppm(800_000));
    }
}
