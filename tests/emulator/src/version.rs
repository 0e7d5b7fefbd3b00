//! The version of the emulated engine: what its names and paths depend on.

use crate::args::Kind;

/// Major, minor and patch; versions compare as these do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u32; 3],
    /// As Dynamo shows it, under names of its own.
    dynamo: bool,
    text: String,
}

/// A version that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no version of {kind:?} that is emulated: give one from {oldest} to {newest}")]
pub struct VersionError {
    /// What was given.
    text: String,
    /// Of which engine.
    kind: Kind,
    oldest: &'static str,
    newest: &'static str,
}

impl Version {
    pub(crate) fn parse(kind: Kind, text: Option<&str>) -> Result<Self, VersionError> {
        let (oldest, newest) = match kind {
            Kind::Vllm => ("0.6.0", "0.32.0"),
            Kind::Sglang => ("0.4.4", "0.5.23"),
            Kind::Trtllm => ("1.0.0", "1.3.0"),
        };
        let text = text.unwrap_or(newest);
        let fail = || VersionError { text: text.to_owned(), kind, oldest, newest };
        let (plain, dynamo) = match text.strip_suffix("-dynamo") {
            Some(plain) if kind == Kind::Trtllm => (plain, true),
            _ => (text, false),
        };
        let numbers = numbers(plain).ok_or_else(fail)?;
        if numbers < self::numbers(oldest).ok_or_else(fail)?
            || numbers > self::numbers(newest).ok_or_else(fail)?
        {
            return Err(fail());
        }
        Ok(Self { numbers, dynamo, text: plain.to_owned() })
    }

    pub(crate) fn at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.numbers >= [major, minor, patch]
    }

    pub(crate) const fn is_dynamo(&self) -> bool {
        self.dynamo
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// One to three numbers with points between; what is missing is 0.
fn numbers(text: &str) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 3 {
        return None;
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().ok()?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text| Version::parse(Kind::Vllm, Some(text));
        assert!(version("0.10.2").unwrap().at_least(0, 9, 0) && !version("0.10").unwrap().at_least(0, 10, 2));
        for wrong in ["", "0", "0.5.9", "0.33", "latest", "0.1.2.3", "0.10.2-dynamo"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
        assert!(Version::parse(Kind::Trtllm, Some("1.2-dynamo")).unwrap().is_dynamo());
        assert_eq!(Version::parse(Kind::Sglang, None).unwrap().as_str(), "0.5.23");
    }
}
