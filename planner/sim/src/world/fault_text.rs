//! Faults in one line, as on a command line: `slow:from=5m,to=20m,factor=2,replica=0`.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;

use super::{Fault, PoolConfig, Who};
use crate::{policy::PoolId, workload::spec::seconds_of};

/// The kinds of faults there are, with what each takes besides `pool`.
pub const FAULTS: &[(&str, &[&str])] = &[
    ("death", &["at", "replica"]),
    ("slow", &["from", "to", "factor", "replica"]),
    ("drift", &["from", "over", "factor"]),
    ("hot-spot", &["from", "to", "share", "replica"]),
    ("silence", &["from", "to", "replica"]),
];

/// Why a line is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// There is no such kind.
    #[error("no fault is named {given:?}: choose one of {known}")]
    Kind {
        /// What was given.
        given: String,
        /// What there is.
        known: String,
    },
    /// No such setting.
    #[error("{kind} has no setting {given:?}: it takes {known}, pool")]
    Setting {
        /// The fault.
        kind: String,
        /// What was given.
        given: String,
        /// What it takes.
        known: String,
    },
    /// A setting is missing that has no default, or cannot be used.
    #[error("{kind}: {name} cannot be {value:?}: give {wanted}")]
    Value {
        /// The fault.
        kind: String,
        /// Which setting.
        name: &'static str,
        /// Its value; empty if it is missing.
        value: String,
        /// What would do.
        wanted: String,
    },
}

impl Fault {
    /// Reads one fault of a world of these pools. `pool` is a pool's name, the first one's if it is not given;
    /// `replica` counts from 0, which is the default, or is `all`.
    ///
    /// # Errors
    /// What is wrong with the line, and what would be accepted.
    pub fn from_text(text: &str, pools: &[PoolConfig]) -> Result<Self, FaultError> {
        let line = Line::of(text)?;
        let (pool, who) = (line.pool(pools)?, line.who()?);
        Ok(match line.kind {
            "death" => Self::Death { at: line.time("at", None)?, pool, who },
            "slow" => {
                let (from, to) = line.times()?;
                Self::Slow { from, to, pool, who, factor: line.number("factor", (0.01, 100.0))? }
            }
            "drift" => Self::Drift {
                from: line.time("from", Some(Micros::ZERO))?,
                over: line.time("over", None)?,
                pool,
                factor: line.number("factor", (0.01, 100.0))?,
            },
            "hot-spot" => {
                let (from, to) = line.times()?;
                let Who::Nth(nth) = who else { return Err(line.bad("replica", "a number, counted from 0")) };
                Self::HotSpot { from, to, pool, nth, share: line.number("share", (0.0, 1.0))? }
            }
            _ => {
                let (from, to) = line.times()?;
                Self::Silence { from, to, pool, who }
            }
        })
    }
}

struct Line<'a> {
    kind: &'a str,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn of(text: &'a str) -> Result<Self, FaultError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let Some((_, own)) = FAULTS.iter().find(|(known, _)| *known == kind) else {
            let known: Vec<&str> = FAULTS.iter().map(|(known, _)| *known).collect();
            return Err(FaultError::Kind { given: kind.to_owned(), known: known.join(", ") });
        };
        let mut values = BTreeMap::new();
        for setting in rest.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            if name != "pool" && !own.contains(&name) {
                let (kind, given) = (kind.to_owned(), name.to_owned());
                return Err(FaultError::Setting { kind, given, known: own.join(", ") });
            }
            values.insert(name, value);
        }
        Ok(Self { kind, values })
    }

    fn times(&self) -> Result<(Micros, Micros), FaultError> {
        let (from, to) = (self.time("from", Some(Micros::ZERO))?, self.time("to", Some(Micros::MAX))?);
        if from < to { Ok((from, to)) } else { Err(self.bad("to", "a time after from")) }
    }

    fn time(&self, name: &'static str, usual: Option<Micros>) -> Result<Micros, FaultError> {
        let wanted = "a time with its unit, like 90s, 20m or 1.5h";
        let Some(text) = self.values.get(name) else { return usual.ok_or_else(|| self.bad(name, wanted)) };
        seconds_of(text).and_then(Micros::from_secs_f64).ok_or_else(|| self.bad(name, wanted))
    }

    fn number(&self, name: &'static str, range: (f64, f64)) -> Result<f64, FaultError> {
        let number = self.values.get(name).and_then(|text| text.parse().ok());
        let within = number.filter(|n: &f64| (range.0..=range.1).contains(n));
        within.ok_or_else(|| self.bad(name, &format!("a number from {} to {}", range.0, range.1)))
    }

    fn pool(&self, pools: &[PoolConfig]) -> Result<PoolId, FaultError> {
        let Some(name) = self.values.get("pool") else { return Ok(PoolId(0)) };
        let found = pools.iter().position(|pool| pool.name == **name);
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        found
            .map(|index| PoolId(index as u32))
            .ok_or_else(|| self.bad("pool", &format!("one of {}", names.join(", "))))
    }

    fn who(&self) -> Result<Who, FaultError> {
        match self.values.get("replica") {
            None => Ok(Who::Nth(0)),
            Some(&"all") => Ok(Who::All),
            Some(text) => {
                text.parse().map(Who::Nth).map_err(|_| self.bad("replica", "a number from 0 on, or all"))
            }
        }
    }

    fn bad(&self, name: &'static str, wanted: &str) -> FaultError {
        FaultError::Value {
            kind: self.kind.to_owned(),
            name,
            value: self.values.get(name).map_or_else(String::new, |value| (*value).to_owned()),
            wanted: wanted.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_engine::Profile;

    use super::*;

    fn pools() -> Vec<PoolConfig> {
        let profile = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
        vec![PoolConfig::new("prefill", &profile), PoolConfig::new("decode", &profile)]
    }

    fn read(text: &str) -> Result<Fault, FaultError> {
        Fault::from_text(text, &pools())
    }

    #[test]
    fn every_kind_can_be_written_down() {
        let minute = |n: u64| Micros(n * 60_000_000);
        let (first, second) = (PoolId(0), PoolId(1));
        let who = Who::Nth(2);
        assert_eq!(
            read("death:at=5m,replica=2,pool=decode"),
            Ok(Fault::Death { at: minute(5), pool: second, who })
        );
        let (from, to, factor) = (minute(1), minute(3), 2.5);
        assert_eq!(
            read("slow:from=1m,to=180s,factor=2.5,replica=all"),
            Ok(Fault::Slow { from, to, pool: first, who: Who::All, factor })
        );
        assert_eq!(
            read("drift:over=3m,factor=2.5"),
            Ok(Fault::Drift { from: Micros::ZERO, over: to, pool: first, factor })
        );
        assert_eq!(
            read("hot-spot:from=1m,to=3m,share=0.5"),
            Ok(Fault::HotSpot { from, to, pool: first, nth: 0, share: 0.5 })
        );
        assert_eq!(
            read("silence:from=1m"),
            Ok(Fault::Silence { from, to: Micros::MAX, pool: first, who: Who::Nth(0) })
        );
    }

    #[test]
    fn mistakes_are_named_with_what_would_do() {
        let error = |text: &str| read(text).unwrap_err().to_string();
        assert!(error("fire:at=1m").contains("one of death, slow"));
        assert!(error("death:from=1m").contains("it takes at, replica, pool"));
        assert!(error("death").contains("at cannot be \"\": give a time"));
        assert!(error("death:at=soon").contains("\"soon\""));
        assert!(error("death:at=1m,replica=-1").contains("a number from 0 on, or all"));
        assert!(error("death:at=1m,pool=other").contains("one of prefill, decode"));
        assert!(error("slow:from=2m,to=1m,factor=2").contains("a time after from"));
        assert!(error("slow:factor=0").contains("factor cannot be \"0\""));
        assert!(error("slow:factor=nan").contains("factor cannot be"));
        assert!(error("hot-spot:share=0.5,replica=all").contains("a number, counted from 0"));
        assert!(error("hot-spot:share=1.5").contains("0 to 1"));
    }
}
