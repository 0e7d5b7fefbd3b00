//! Durations in a policy.

use std::fmt;

use jiff::SignedDuration;
use plimsoll_common::units::Micros;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration as operators write it: `500ms`, `30s`, `1m 30s`, `2h`; a bare number counts seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Micros);

/// A text or number is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no duration: write it like 500ms, 30s, 1m 30s or 2h; a bare number counts seconds")]
pub struct NotASpan(String);

impl Span {
    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Micros(secs.saturating_mul(1_000_000)))
    }

    /// Whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Micros::from_millis(millis))
    }

    /// In seconds.
    #[must_use]
    pub const fn as_secs(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// A number of seconds; not negative, finite.
    ///
    /// # Errors
    /// When it is no span of time.
    pub fn from_secs_f64(secs: f64) -> Result<Self, NotASpan> {
        Micros::from_secs_f64(secs).map(Self).ok_or_else(|| NotASpan(secs.to_string()))
    }
}

impl std::str::FromStr for Span {
    type Err = NotASpan;
    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let not_a_span = || NotASpan(text.to_owned());
        let parsed: SignedDuration = text.parse().map_err(|_| not_a_span())?;
        let micros = u64::try_from(parsed.as_micros()).map_err(|_| not_a_span())?;
        Ok(Self(Micros(micros)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is longer than the library's longest duration, 290 billion years, does not fit 64 bits of microseconds.
        let micros = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        write!(f, "{:#}", SignedDuration::from_micros(micros))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 500ms, 30s or 1m 30s, or a number of seconds")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, secs: u64) -> Result<Span, E> {
                self.visit_f64(secs as f64)
            }
            fn visit_i64<E: de::Error>(self, secs: i64) -> Result<Span, E> {
                self.visit_f64(secs as f64)
            }
            fn visit_f64<E: de::Error>(self, secs: f64) -> Result<Span, E> {
                Span::from_secs_f64(secs).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_and_programs_seconds() {
        let of = |json: &str| serde_json::from_str::<Span>(json).map_err(|error| error.to_string());
        assert_eq!(of("\"500ms\""), Ok(Span::from_millis(500)));
        assert_eq!(of("\"1m 30s\""), Ok(Span::from_secs(90)));
        assert_eq!(of("90"), Ok(Span::from_secs(90)));
        assert_eq!(of("0.25"), Ok(Span::from_millis(250)));
        for bad in ["\"-1s\"", "-1", "\"soon\"", "\"\"", "1e300"] {
            assert!(of(bad).unwrap_err().contains("is no duration"), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for micros in [0, 1, 1_500, 90_000_000, 86_400_000_001] {
            let span = Span(Micros(micros));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
