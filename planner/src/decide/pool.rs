//! What a host tells of one pool, and of the fleet at one time.

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use plimsoll_core::observe::{Door, MeanLengths};
use serde_json::Value;

use super::{
    engine::{self, Told as Engine},
    json::{Fields, Place, REPLICAS, Refusal, SECONDS, TIME, TOKENS, number},
};

/// Engines of all pools that one line may tell of.
const MOST_ENGINES: usize = 400_000;
/// Starting replicas that one pool may tell the ages of.
const MOST_AGES: usize = 100_000;

/// Replicas that start: how many, or since when each.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Starting {
    Count(u32),
    Ages(Vec<Micros>),
}

/// What was told of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) target: Option<u32>,
    pub(super) ready: Option<u32>,
    pub(super) starting: Option<Starting>,
    pub(super) unschedulable: Option<u32>,
    pub(super) draining: Option<u32>,
    pub(super) silent: Option<u32>,
    pub(super) failed_starts: Option<u32>,
    pub(super) started_in: Option<Vec<Micros>>,
    pub(super) lengths: MeanLengths,
    pub(super) door: Option<Door>,
    pub(super) engines: Option<BTreeMap<EngineId, Engine>>,
    /// All engines together.
    pub(super) whole: Engine,
}

/// What was told at one time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// The host's clock, s.
    pub(super) time_s: f64,
    pub(super) window: Option<Micros>,
    pub(super) pools: BTreeMap<PoolName, Told>,
}

impl Line {
    /// Reads an observation of pools that `known` names.
    pub(super) fn read(
        value: &Value,
        known: &dyn Fn(&str) -> Result<PoolName, String>,
    ) -> Result<Self, Refusal> {
        let mut fields = Fields::of(Place::ROOT, value)?;
        let Some(time_s) = fields.number("time_s", TIME)? else {
            return fields.place.refuse("the key 'time_s' is missing");
        };
        let window = fields.number("window_s", SECONDS)?;
        if window.is_some_and(|window| window < 1e-3) {
            return Place::of(&fields.place, "window_s").refuse("a window has a length: give 0.001 or more");
        }
        let Some(told) = fields.get("pools") else {
            return fields.place.refuse("the key 'pools' is missing");
        };
        let place = Place::of(&fields.place, "pools");
        let Value::Object(told) = told else { return place.refuse("give an object of pools by name") };
        let (mut pools, mut engines) = (BTreeMap::new(), 0);
        for (name, value) in told {
            let pool = match known(name) {
                Ok(pool) => pool,
                Err(why) => return place.refuse(why),
            };
            let told = read(Place::of(&place, name), value)?;
            engines += told.engines.as_ref().map_or(0, BTreeMap::len);
            if engines > MOST_ENGINES {
                return place.refuse(format!("more than {MOST_ENGINES} engines"));
            }
            pools.insert(pool, told);
        }
        fields.finish()?;
        Ok(Self { time_s, window: window.and_then(Micros::from_secs_f64), pools })
    }
}

fn read(place: Place<'_>, value: &Value) -> Result<Told, Refusal> {
    let mut fields = Fields::of(place, value)?;
    let told = Told {
        target: fields.replicas("target")?,
        ready: fields.replicas("ready")?,
        starting: starting(&mut fields)?,
        unschedulable: fields.replicas("unschedulable")?,
        draining: fields.replicas("draining")?,
        silent: fields.replicas("silent")?,
        failed_starts: fields.replicas("failed_starts")?,
        started_in: ages(&mut fields, "started_in_s")?,
        lengths: MeanLengths {
            prompt: fields.number("isl_mean", TOKENS)?,
            output: fields.number("osl_mean", TOKENS)?,
        },
        door: door(&mut fields)?,
        engines: engines(&mut fields)?,
        whole: Engine::read(&mut fields)?,
    };
    fields.finish()?;
    Ok(told)
}

fn starting(fields: &mut Fields<'_>) -> Result<Option<Starting>, Refusal> {
    match fields.get("starting") {
        None => Ok(None),
        Some(Value::Array(_)) => Ok(ages(fields, "starting")?.map(Starting::Ages)),
        Some(value) => {
            let count = number(&Place::of(&fields.place, "starting"), value, REPLICAS)?;
            Ok(Some(Starting::Count(count.round() as u32)))
        }
    }
}

fn ages(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<Vec<Micros>>, Refusal> {
    let Some(list) = fields.list(key)? else { return Ok(None) };
    let place = Place::of(&fields.place, key);
    if list.len() > MOST_AGES {
        return place.refuse(format!("more than {MOST_AGES} replicas"));
    }
    let age = |value| Ok(Micros::from_secs_f64(number(&place, value, SECONDS)?).unwrap_or_default());
    list.iter().map(age).collect::<Result<_, Refusal>>().map(Some)
}

fn door(fields: &mut Fields<'_>) -> Result<Option<Door>, Refusal> {
    let Some(value) = fields.get("door") else { return Ok(None) };
    let mut inner = Fields::of(Place::of(&fields.place, "door"), value)?;
    let door = Door {
        arrived: inner.count("arrived")?,
        arrived_prompt_tokens: inner.count("arrived_prompt_tokens")?,
        waiting: inner.count("waiting")?,
    };
    inner.finish()?;
    Ok(Some(door))
}

/// Engines by id, or in a list, where their places are their ids.
fn engines(fields: &mut Fields<'_>) -> Result<Option<BTreeMap<EngineId, Engine>>, Refusal> {
    let place = fields.place;
    let place = Place::of(&place, "engines");
    let mut read = BTreeMap::new();
    let mut add = |id: &str, value: &Value| {
        let place = Place::of(&place, id);
        let Ok(name) = EngineId::parse(id) else { return place.refuse("this is no engine's id") };
        read.insert(name, engine::read(place, value)?);
        Ok(())
    };
    match fields.get("engines") {
        None => return Ok(None),
        Some(Value::Object(engines)) => {
            for (id, value) in engines {
                add(id, value)?;
            }
        }
        Some(Value::Array(engines)) => {
            for (id, value) in engines.iter().enumerate() {
                add(&id.to_string(), value)?;
            }
        }
        Some(_) => return place.refuse("give an object of engines by id, or a list"),
    }
    Ok(Some(read))
}
