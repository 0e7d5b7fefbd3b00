//! Generators in one line, as on a command line: `sine:low=2,high=16,period=20m,duration=1h,isl=1000,osl=200`.

use std::collections::BTreeMap;

use super::{
    Workload,
    generate::{Clients, GenerateError, Generator, Lengths},
    shape::Shape,
};

/// The kinds of generators there are, with what each takes.
pub const KINDS: &[(&str, &str)] = &[
    ("poisson", "rate"),
    ("gamma", "rate, cv"),
    ("sine", "low, high, period"),
    ("ramp", "from, to"),
    ("step", "from, to, at"),
    ("square", "low, high, period, duty"),
    ("diurnal", "low, high"),
    ("weekly", "low, high, weekend"),
    ("clients", "rate, clients, heavy, heavy_share, heavy_cv"),
];

/// What every kind takes besides.
pub const COMMON: &str = "duration, isl, osl, isl_cv, osl_cv, cv";

/// Why a line is no generator.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no such kind.
    #[error("no generator is named {given:?}: choose one of {known}")]
    Kind {
        /// What was given.
        given: String,
        /// What there is.
        known: String,
    },
    /// Not `name=value`.
    #[error("{0:?} is no setting: write name=value")]
    Setting(String),
    /// No such setting.
    #[error("{kind} has no setting {given:?}: it takes {known}")]
    Unknown {
        /// The generator.
        kind: String,
        /// What was given.
        given: String,
        /// What it takes.
        known: String,
    },
    /// A value is no number or time.
    #[error("{name}={value} is no {wanted}")]
    Value {
        /// Which.
        name: String,
        /// What was given.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
    /// A setting is missing that has no default.
    #[error("{kind} needs {name}=…")]
    Missing {
        /// The generator.
        kind: String,
        /// Which.
        name: &'static str,
    },
    /// The numbers make no sense.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// Whether a text looks like generators rather than a file's name.
#[must_use]
pub fn is_spec(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, _)| KINDS.iter().any(|(known, _)| *known == kind))
}

/// Generates what a line says; several generators joined by `+` are laid over one another.
///
/// # Errors
/// What is wrong with the line, and what would be accepted.
pub fn generate(line: &str, seed: u64) -> Result<Workload, SpecError> {
    let mut parts = Vec::new();
    for (index, part) in line.split('+').enumerate() {
        parts.push(parse(part)?.generate(seed.wrapping_add(1_000_003 * index as u64))?);
    }
    Ok(Workload::superpose(parts))
}

/// Reads one generator.
///
/// # Errors
/// As [`generate`].
pub fn parse(text: &str) -> Result<Generator, SpecError> {
    let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
    let Some((_, own)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        let known: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
        return Err(SpecError::Kind { given: kind.to_owned(), known: known.join(", ") });
    };
    let mut values = Settings { kind, values: BTreeMap::new() };
    for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(SpecError::Setting(setting.to_owned()));
        };
        let known = format!("{own}, {COMMON}");
        if !known.split(", ").any(|known| known == name) {
            return Err(SpecError::Unknown { kind: kind.to_owned(), given: name.to_owned(), known });
        }
        values.values.insert(name, value);
    }
    values.generator()
}

struct Settings<'a> {
    kind: &'a str,
    values: BTreeMap<&'a str, &'a str>,
}

impl Settings<'_> {
    fn generator(&self) -> Result<Generator, SpecError> {
        let duration_s = self.seconds("duration", Some(3_600.0))?;
        let shape = self.shape(duration_s)?;
        let lengths = |mean, cv, usual, max| -> Result<Lengths, SpecError> {
            Ok(Lengths { mean: self.number(mean, Some(usual))?, cv: self.number(cv, Some(0.8))?, max })
        };
        let clients = if self.kind == "clients" {
            Some(Clients {
                count: self.number("clients", Some(100.0))? as u32,
                heavy: self.number("heavy", Some(3.0))? as u32,
                heavy_share: self.number("heavy_share", Some(0.6))?,
                heavy_cv: self.number("heavy_cv", Some(4.0))?,
            })
        } else {
            None
        };
        Ok(Generator {
            shape,
            duration_s,
            gap_cv: self.number("cv", Some(if self.kind == "gamma" { 2.0 } else { 1.0 }))?,
            prompt: lengths("isl", "isl_cv", 1_000.0, 131_072)?,
            output: lengths("osl", "osl_cv", 200.0, 16_384)?,
            clients,
        })
    }

    fn shape(&self, duration_s: f64) -> Result<Shape, SpecError> {
        let low_high = || Ok::<_, SpecError>((self.number("low", None)?, self.number("high", None)?));
        let from_to = || Ok::<_, SpecError>((self.number("from", None)?, self.number("to", None)?));
        Ok(match self.kind {
            "sine" => {
                let (low, high) = low_high()?;
                Shape::Sine { low, high, period_s: self.seconds("period", Some(1_200.0))? }
            }
            "ramp" => {
                let (from, to) = from_to()?;
                Shape::Ramp { from, to }
            }
            "step" => {
                let (from, to) = from_to()?;
                Shape::Step { from, to, at_s: self.seconds("at", Some(duration_s / 2.0))? }
            }
            "square" => {
                let (low, high) = low_high()?;
                let (period_s, duty) =
                    (self.seconds("period", Some(1_200.0))?, self.number("duty", Some(0.5))?);
                Shape::Square { low, high, period_s, duty }
            }
            "diurnal" | "weekly" => {
                let (low, high) = low_high()?;
                let usual = if self.kind == "weekly" { 0.5 } else { 1.0 };
                Shape::Diurnal { low, high, weekend: self.number("weekend", Some(usual))? }
            }
            _ => Shape::Constant { rate: self.number("rate", None)? },
        })
    }

    fn number(&self, name: &'static str, usual: Option<f64>) -> Result<f64, SpecError> {
        self.value(name, usual, "number", |value| value.parse().ok())
    }

    fn seconds(&self, name: &'static str, usual: Option<f64>) -> Result<f64, SpecError> {
        self.value(name, usual, "time, like 90s, 20m, 1.5h or 7d", seconds_of)
    }

    fn value(
        &self,
        name: &'static str,
        usual: Option<f64>,
        wanted: &'static str,
        read: impl Fn(&str) -> Option<f64>,
    ) -> Result<f64, SpecError> {
        let Some(value) = self.values.get(name) else {
            return usual.ok_or_else(|| SpecError::Missing { kind: self.kind.to_owned(), name });
        };
        let bad = || SpecError::Value { name: name.to_owned(), value: (*value).to_owned(), wanted };
        read(value).filter(|number| number.is_finite()).ok_or_else(bad)
    }
}

/// A time with its unit, in seconds; a bare number is seconds.
#[must_use]
pub fn seconds_of(text: &str) -> Option<f64> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
    for (unit, seconds) in units {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number * seconds);
        }
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_written_down() {
        let lines = [
            "poisson:rate=5,duration=10m",
            "gamma:rate=5,cv=3,duration=600",
            "sine:low=2,high=16,period=20m,duration=40m,isl=3000,osl=300,isl_cv=0",
            "ramp:from=0,to=10,duration=10m",
            "step:from=2,to=8,at=5m,duration=10m",
            "square:low=1,high=9,period=30s,duration=5m",
            "diurnal:low=0.05,high=0.2,duration=1d",
            "weekly:low=0.01,high=0.04,weekend=0.3,duration=7d",
            "clients:rate=5,heavy=2,duration=10m",
            "poisson:rate=1,duration=10m+sine:low=0,high=2,duration=10m",
        ];
        for line in lines {
            assert!(is_spec(line), "{line}");
            let workload = generate(line, 1).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(workload.len() > 100, "{line}: {}", workload.len());
            assert_eq!(workload, generate(line, 1).unwrap());
        }
    }

    #[test]
    fn mistakes_are_named_with_what_would_do() {
        let error = |line: &str| generate(line, 1).unwrap_err().to_string();
        assert!(error("sinus:low=1").contains("sine"), "{}", error("sinus:low=1"));
        assert!(error("sine:low=1").contains("high"));
        assert!(error("sine:low=1,high").contains("name=value"));
        assert!(error("poisson:rate=1,period=3").contains("it takes rate, duration"));
        assert!(error("poisson:rate=many").contains("rate=many is no number"));
        assert!(error("poisson:rate=1,duration=1y").contains("20m"));
        assert!(error("poisson:rate=nan").contains("rate=nan"));
        assert!(!is_spec("trace.csv") && !is_spec("c:\\trace.csv"));
    }
}
