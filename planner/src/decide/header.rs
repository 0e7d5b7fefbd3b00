//! The first line: policy, profiles, history.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use plimsoll_common::{ids::PoolName, units::Micros};
use plimsoll_core::{policy::feasible, spec::FleetSpec};
use plimsoll_engine::Profile;
use serde_json::Value;

use super::json::{COUNT, Fields, Place, Range, Refusal, kind, number};
use crate::policy::{self, Checked, PolicyError};

/// Points of history that a pool may have.
const MOST_HISTORY: usize = 1_000_000;
/// A point of history may lie before time zero.
const ANY_TIME: Range = Range(-1e10, 1e10, "seconds, -10,000,000,000 to 10,000,000,000");

/// What the first line says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) spec: FleetSpec,
    /// What is odd about the policy.
    pub(super) warnings: Vec<String>,
    /// Where the host's clock stands when the core's is 0, s; not above 0.
    pub(super) origin_s: f64,
    /// Past arrival rates by the core's clock.
    pub(super) history: BTreeMap<PoolName, Vec<(Micros, f64)>>,
}

impl Header {
    pub(super) fn read(value: &Value) -> Result<Self, Refusal> {
        let mut fields = Fields::of(Place::ROOT, value)?;
        let profiles = profiles(&mut fields)?;
        let Some(policy) = fields.get("policy") else {
            return fields.place.refuse(
                "the first line must have the key 'policy': a policy as an object, its YAML text, or its file",
            );
        };
        let checked = checked(&Place::of(&fields.place, "policy"), policy, &profiles)?;
        let spec = spec(&checked);
        let (origin_s, history) = history(&mut fields, &spec)?;
        fields.finish()?;
        let warnings = checked.problems.iter().map(ToString::to_string).collect();
        Ok(Self { spec, warnings, origin_s, history })
    }
}

/// The policy in the core's terms. Requests of which neither the policy nor the host tells the length are taken for what
/// a policy's check takes them for: an arrival rate by tokens needs some length, and what is observed replaces it.
fn spec(checked: &Checked) -> FleetSpec {
    let mut spec = FleetSpec::from(&checked.policy);
    for (pool, (model, _)) in spec.pools.iter_mut().zip(checked.policy.pools()) {
        let (isl, osl) = feasible::usual(model);
        pool.lengths = (pool.lengths.0.or(Some(isl)), pool.lengths.1.or(Some(osl)));
    }
    spec
}

fn checked(
    place: &Place<'_>,
    policy: &Value,
    profiles: &BTreeMap<String, Profile>,
) -> Result<Checked, Refusal> {
    let known = |name: &str| profiles.get(name).cloned();
    let refused = |error: PolicyError| Refusal(format!("{place}: {}", one_line(&error)));
    match policy {
        Value::Object(_) => policy::parse_with(&policy.to_string(), Path::new(""), &known).map_err(refused),
        // A file's name has neither; a policy in one line begins with a brace.
        Value::String(text) if text.contains('\n') || text.trim_start().starts_with('{') => {
            policy::parse_with(text, Path::new(""), &known).map_err(refused)
        }
        Value::String(text) if text == "-" => {
            place.refuse("standard input has the observations: give a file")
        }
        Value::String(text) => policy::load_with(&PathBuf::from(text), &known).map_err(refused),
        other => place.refuse(format!("this is {}: give an object, a text or a file's name", kind(other))),
    }
}

fn one_line(error: &PolicyError) -> String {
    let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    problems.join("; ")
}

/// Profiles by name, written out or in files relative to the working directory; in a list they have their own names.
fn profiles(fields: &mut Fields<'_>) -> Result<BTreeMap<String, Profile>, Refusal> {
    let place = fields.place;
    let place = Place::of(&place, "profiles");
    let mut profiles = BTreeMap::new();
    match fields.get("profiles") {
        None => {}
        Some(Value::Object(named)) => {
            for (name, value) in named {
                profiles.insert(name.clone(), profile(&Place::of(&place, name), value)?);
            }
        }
        Some(Value::Array(list)) => {
            for value in list {
                let profile = profile(&place, value)?;
                profiles.insert(profile.name.clone(), profile);
            }
        }
        Some(other) => return place.refuse(format!("this is {}: give profiles by name", kind(other))),
    }
    Ok(profiles)
}

fn profile(place: &Place<'_>, value: &Value) -> Result<Profile, Refusal> {
    let read = match value {
        Value::Object(_) => Profile::from_json(&value.to_string()).map_err(|error| error.to_string()),
        Value::String(path) => policy::profile(Path::new(""), path),
        other => Err(format!("this is {}: give a profile or the path of its JSON file", kind(other))),
    };
    read.or_else(|why| place.refuse(why))
}

type History = BTreeMap<PoolName, Vec<(Micros, f64)>>;

/// `{pool: [[time in seconds, requests a second], …]}`, and where the core's clock begins.
fn history(fields: &mut Fields<'_>, spec: &FleetSpec) -> Result<(f64, History), Refusal> {
    let place = fields.place;
    let place = Place::of(&place, "history");
    let Some(told) = fields.get("history") else { return Ok((0.0, BTreeMap::new())) };
    let Value::Object(told) = told else {
        return place.refuse("give an object of lists by pool");
    };
    let (mut origin, mut read) = (0.0_f64, Vec::new());
    for (name, points) in told {
        let place = Place::of(&place, name);
        let Some(pool) = spec.pools.iter().find(|pool| pool.name.as_str() == name) else {
            return place.refuse("the policy has no such pool");
        };
        let points = series(&place, points)?;
        origin = origin.min(points.first().map_or(0.0, |(time, _)| *time));
        read.push((pool.name.clone(), points));
    }
    let at = |time: f64| Micros::from_secs_f64(time - origin).unwrap_or_default();
    let shifted = |points: Vec<(f64, f64)>| points.into_iter().map(|(time, rate)| (at(time), rate)).collect();
    Ok((origin, read.into_iter().map(|(pool, points)| (pool, shifted(points))).collect()))
}

fn series(place: &Place<'_>, points: &Value) -> Result<Vec<(f64, f64)>, Refusal> {
    let Some(points) = points.as_array().filter(|points| points.len() <= MOST_HISTORY) else {
        return place.refuse(format!("give a list of [time_s, requests a second], at most {MOST_HISTORY}"));
    };
    let mut series: Vec<(f64, f64)> = Vec::with_capacity(points.len());
    for point in points {
        let Some([time, rate]) = point.as_array().map(Vec::as_slice) else {
            return place.refuse("give a list of [time_s, requests a second]");
        };
        let point = (number(place, time, ANY_TIME)?, number(place, rate, COUNT)?);
        if series.last().is_some_and(|last| point.0 <= last.0) {
            return place.refuse("times must rise");
        }
        series.push(point);
    }
    Ok(series)
}
