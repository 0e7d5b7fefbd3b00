//! `name:setting=value,…`

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;

use super::PolicyError;

/// The settings of one policy as they were given.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    whole: &'a str,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Settings<'a> {
    /// Reads what stands after the colon.
    pub(super) fn read(
        whole: &'a str,
        text: &'a str,
        known: &'static [&'static str],
    ) -> Result<Self, PolicyError> {
        let mut values = BTreeMap::new();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            if !known.contains(&name) {
                let known = known.join(", ");
                return Err(PolicyError::Setting {
                    given: whole.to_owned(),
                    setting: name.to_owned(),
                    known,
                });
            }
            values.insert(name, value);
        }
        Ok(Self { whole, values })
    }

    /// A number within a range, if it was given.
    pub(super) fn number(&self, name: &'static str, range: (f64, f64)) -> Result<Option<f64>, PolicyError> {
        let Some(text) = self.values.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|n: &f64| (range.0..=range.1).contains(n));
        number
            .map(Some)
            .ok_or_else(|| self.bad(name, text, &format!("a number from {} to {}", range.0, range.1)))
    }

    /// A time in seconds, from a second to a week.
    pub(super) fn seconds(&self, name: &'static str, usual: u64) -> Result<Micros, PolicyError> {
        let seconds = self.number(name, (1.0, 604_800.0))?;
        Ok(seconds.and_then(Micros::from_secs_f64).unwrap_or_else(|| Micros::from_millis(usual * 1_000)))
    }

    /// One word of several, the first of which is taken if none was given.
    pub(super) fn word<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&str, T)],
        usual: T,
    ) -> Result<T, PolicyError> {
        let Some(text) = self.values.get(name) else { return Ok(usual) };
        let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        found.ok_or_else(|| self.bad(name, text, &format!("one of {}", known.join(", "))))
    }

    fn bad(&self, name: &'static str, value: &str, wanted: &str) -> PolicyError {
        PolicyError::Value {
            given: self.whole.to_owned(),
            setting: name,
            value: value.to_owned(),
            wanted: wanted.to_owned(),
        }
    }
}
