//! Reading JSON strictly: every key known, every number within its range, every mistake with its place.

use std::fmt;

use plimsoll_shell::config::nearest;
use serde_json::{Map, Value};

/// Why a line is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

/// Where a value stands: `pools.chat.engines.e0`. Only written out when something is wrong there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'p> {
    parent: Option<&'p Self>,
    key: &'p str,
}

impl<'p> Place<'p> {
    pub(super) const ROOT: Place<'static> = Place { parent: None, key: "" };

    pub(super) const fn of(parent: &'p Self, key: &'p str) -> Self {
        Self { parent: Some(parent), key }
    }

    pub(super) fn refuse<T>(&self, why: impl fmt::Display) -> Result<T, Refusal> {
        Err(Refusal(if self.key.is_empty() { why.to_string() } else { format!("{self}: {why}") }))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent {
            Some(parent) if !parent.key.is_empty() => write!(f, "{parent}.{}", Shown(self.key)),
            _ => write!(f, "{}", Shown(self.key)),
        }
    }
}

/// Text from outside, no longer than a message bears.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(80) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

/// A range that numbers are to be in, both ends included, and what they count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range(pub(super) f64, pub(super) f64, pub(super) &'static str);

/// Requests or tokens.
pub(super) const COUNT: Range = Range(0.0, 1e12, "a number of 0 or more");
/// Replicas.
pub(super) const REPLICAS: Range = Range(0.0, 1e6, "a number of replicas, 0 to 1,000,000");
/// A duration.
pub(super) const SECONDS: Range = Range(0.0, 1e7, "seconds, 0 to 10,000,000");
/// Points in time and histories before them.
pub(super) const TIME: Range = Range(0.0, 1e10, "seconds, 0 to 10,000,000,000");
/// A share.
pub(super) const SHARE: Range = Range(0.0, 1.0, "a share, 0 to 1");
/// A length of a request.
pub(super) const TOKENS: Range = Range(1.0, 1e7, "tokens, 1 to 10,000,000");

/// The keys of one object, each of which must be asked for.
#[derive(Debug)]
pub(super) struct Fields<'j> {
    pub(super) place: Place<'j>,
    object: &'j Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'j> Fields<'j> {
    pub(super) fn of(place: Place<'j>, value: &'j Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(object) => Ok(Self { place, object, known: Vec::new() }),
            other => place.refuse(format!("this is {}: give an object", kind(other))),
        }
    }

    /// What stands at a key; null is nothing.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'j Value> {
        self.known.push(key);
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn number(&mut self, key: &'static str, range: Range) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.get(key) else { return Ok(None) };
        number(&Place::of(&self.place, key), value, range).map(Some)
    }

    /// A whole number; hosts that average tell fractions, which are rounded.
    pub(super) fn count(&mut self, key: &'static str) -> Result<Option<u64>, Refusal> {
        Ok(self.number(key, COUNT)?.map(|n| n.round() as u64))
    }

    pub(super) fn replicas(&mut self, key: &'static str) -> Result<Option<u32>, Refusal> {
        Ok(self.number(key, REPLICAS)?.map(|n| n.round() as u32))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Refusal> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => {
                Place::of(&self.place, key).refuse(format!("this is {}: give true or false", kind(other)))
            }
        }
    }

    pub(super) fn list(&mut self, key: &'static str) -> Result<Option<&'j [Value]>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => {
                Place::of(&self.place, key).refuse(format!("this is {}: give a list", kind(other)))
            }
        }
    }

    /// Every key that nobody asked for is a mistake.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let Some(unknown) = self.object.keys().find(|key| !self.known.contains(&key.as_str())) else {
            return Ok(());
        };
        let hint = nearest(unknown, &self.known).map_or_else(
            || format!("known keys here are {}", self.known.join(", ")),
            |near| format!("did you mean '{near}'?"),
        );
        self.place.refuse(format!("unknown key '{}'; {hint}", Shown(unknown)))
    }
}

pub(super) fn number(place: &Place<'_>, value: &Value, range: Range) -> Result<f64, Refusal> {
    let Range(least, most, wanted) = range;
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        Some(number) => place.refuse(format!("this is {number}: give {wanted}")),
        None => place.refuse(format!("this is {}: give {wanted}", kind(value))),
    }
}

/// What a value is, for people.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
