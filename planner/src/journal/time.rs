//! Points in time as people give and read them.

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;
use plimsoll_common::units::Micros;
use plimsoll_shell::duration::HumanDuration;

/// A point in time: absolute, or as long ago as a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Unix time.
    At(Micros),
    /// Before now.
    Ago(Duration),
}

impl When {
    /// As Unix time.
    #[must_use]
    pub fn resolve(self, now: Micros) -> Micros {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.saturating_sub(Micros(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX))),
        }
    }
}

impl FromStr for When {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        if let Some(ago) = text.strip_suffix("ago") {
            return Ok(Self::Ago(ago.trim().parse::<HumanDuration>()?.0));
        }
        if let Ok(seconds) = text.parse::<f64>() {
            let at = Micros::from_secs_f64(seconds);
            return at.map(Self::At).ok_or_else(|| format!("'{text}' is no time in seconds"));
        }
        let timestamp: Timestamp = text.parse().map_err(|_| {
            format!("'{text}' is no time; write it like 2026-11-23T12:00:00Z, 10m ago, or seconds since 1970")
        })?;
        u64::try_from(timestamp.as_microsecond())
            .map(|at| Self::At(Micros(at)))
            .map_err(|_| format!("'{text}' is before 1970"))
    }
}

/// RFC 3339, UTC, to the millisecond.
pub(super) fn shown(at: Micros) -> String {
    let at = i64::try_from(at.0 / 1_000).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "beyond all time".to_owned(), |at| at.to_string())
}

/// Now, by the wall clock.
pub(super) fn now() -> Micros {
    crate::clock::Clock::start().now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_give_times_in_three_ways() {
        let now = Micros(2_000_000_000_000_000);
        let of = |text: &str| text.parse::<When>().map(|when| when.resolve(now));
        assert_eq!(of("2001-09-09T01:46:40Z"), Ok(Micros(1_000_000_000_000_000)));
        assert_eq!(of("2001-09-09T03:46:40.5+02:00"), Ok(Micros(1_000_000_000_500_000)));
        assert_eq!(of("10m ago"), Ok(Micros(now.0 - 600_000_000)));
        assert_eq!(of("1m 30s ago"), Ok(Micros(now.0 - 90_000_000)));
        assert_eq!(of("1000000000"), Ok(Micros(1_000_000_000_000_000)));
        assert_eq!(of("90.5"), Ok(Micros(90_500_000)));
        assert_eq!(of("now"), Ok(now));
        for wrong in ["yesterday", "-3", "soon ago", "1960-01-01T00:00:00Z", "NaN"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(Micros(1_000_000_000_500_000)), "2001-09-09T01:46:40.5Z");
    }
}
