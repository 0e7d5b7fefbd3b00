//! Durations as people write them.

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// A duration in flags and files: `500ms`, `1s`, `1m 30s`, `2 hours`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(pub Duration);

impl FromStr for HumanDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let signed: SignedDuration = text
            .parse()
            .map_err(|_| format!("'{text}' is no duration; write it like 500ms, 1s or 1m 30s"))?;
        Duration::try_from(signed).map(Self).map_err(|_| format!("'{text}' is negative; a duration is not"))
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(signed) => write!(f, "{signed:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations() {
        let of = |text: &str| text.parse::<HumanDuration>().map(|d| d.0);
        assert_eq!(of("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(of("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(of("-1s").unwrap_err().contains("negative"));
        assert!(of("soon").unwrap_err().contains("500ms"));
        assert_eq!(
            of(&HumanDuration(Duration::from_millis(1500)).to_string()),
            Ok(Duration::from_millis(1500))
        );
    }
}
