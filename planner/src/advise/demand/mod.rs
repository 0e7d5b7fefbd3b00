//! Front-ends and gateways that tell demand before it reaches an engine: their pages are read when a step is due.
//!
//! What can't be read is absent for the window, so that the engines' own arrivals count, and is told as a finding.

mod fetch;
mod tally;

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::{
    engine::Role,
    ids::{ModelName, PoolName},
};
use plimsoll_core::{
    observe::Door,
    policy::{DemandSource, ModelPolicy, Policy},
};

use self::{
    fetch::{Fetched, Place, fetch},
    tally::{Reader, Values, gained},
};
use super::Finding;

/// The front-ends of a policy's models.
#[derive(Debug, Default)]
pub struct Doors {
    sources: Vec<Source>,
    /// What is wrong with sources, for as long as the policy holds.
    findings: Vec<Finding>,
}

/// The front-end of one model.
#[derive(Debug)]
struct Source {
    model: ModelName,
    /// The pool at which its requests arrive.
    pool: PoolName,
    reader: Reader,
    /// Its pages, or its Prometheus server, with what each showed last.
    places: Vec<(Place, Option<Values>)>,
}

/// What front-ends told since the last time.
#[derive(Debug, Default)]
pub struct AtDoors {
    /// By the pool at which requests arrive.
    pub doors: BTreeMap<PoolName, Door>,
    /// What could not be read.
    pub findings: Vec<Finding>,
}

impl Doors {
    /// The sources of a policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let mut doors = Self::default();
        for model in &policy.models {
            let Some(demand) = &model.demand else { continue };
            match Source::new(model, demand) {
                Ok(source) => doors.sources.push(source),
                Err(why) => {
                    doors.findings.push(Finding::DemandUnknown { model: model.name.clone(), why });
                }
            }
        }
        doors
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.findings.is_empty()
    }

    /// Reads all front-ends at once, none longer than `patience`.
    pub async fn read(&mut self, patience: Duration) -> AtDoors {
        let mut fetching = tokio::task::JoinSet::new();
        for (at, source) in self.sources.iter().enumerate() {
            for (number, (place, _)) in source.places.iter().enumerate() {
                let (place, reader) = (place.clone(), source.reader.clone());
                fetching.spawn(async move { (at, number, fetch(&place, &reader, patience).await) });
            }
        }
        let mut fetched = BTreeMap::new();
        while let Some(done) = fetching.join_next().await {
            // A reader that panicked has read nothing.
            if let Ok((at, number, page)) = done {
                fetched.insert((at, number), page);
            }
        }
        let mut told = AtDoors { doors: BTreeMap::new(), findings: self.findings.clone() };
        for (at, source) in self.sources.iter_mut().enumerate() {
            match source.take(|number| fetched.remove(&(at, number))) {
                Ok(Some(door)) => {
                    told.doors.insert(source.pool.clone(), door);
                }
                Ok(None) => {}
                Err(why) => {
                    told.findings.push(Finding::DemandUnknown { model: source.model.clone(), why });
                }
            }
        }
        told
    }
}

impl Source {
    fn new(model: &ModelPolicy, demand: &DemandSource) -> Result<Self, String> {
        let mapping = demand.mapping().map_err(|error| error.to_string())?;
        // Requests arrive where prompts are computed.
        let mut entries = model.pools.iter().filter(|pool| pool.role != Role::Decode);
        let (Some(pool), None) = (entries.next(), entries.next()) else {
            return Err(
                "its requests may arrive at several pools, and the front-end does not tell which".to_owned()
            );
        };
        let pages = demand.pages.iter().map(|page| Place::page(page));
        let prometheus = demand.prometheus.iter().map(|server| Place::prometheus(server));
        let places = pages.chain(prometheus).map(|place| Ok((place?, None)));
        Ok(Self {
            model: model.name.clone(),
            pool: pool.name.clone(),
            reader: Reader::new(demand, mapping, model.name.as_str()),
            places: places.collect::<Result<_, String>>()?,
        })
    }

    /// What all its places gained together; none at the first look, which is what later ones are compared with. Where one
    /// can't be read nothing is told, since a part of the requests is no rate.
    fn take(&mut self, mut fetched: impl FnMut(usize) -> Option<Fetched>) -> Result<Option<Door>, String> {
        let (mut sum, mut wrong): (Option<Door>, Option<String>) = (None, None);
        let mut is_first = false;
        for (number, (place, last)) in self.places.iter_mut().enumerate() {
            let page = fetched(number).unwrap_or_else(|| Err("it was not read".to_owned()));
            match page {
                Ok(values) => {
                    match last {
                        Some(before) => {
                            let door = gained(before, &values);
                            sum = Some(sum.map_or(door, |sum| plus(&sum, &door)));
                        }
                        None => is_first = true,
                    }
                    *last = Some(values);
                }
                Err(why) => wrong = Some(format!("{place}: {why}")),
            }
        }
        match wrong {
            Some(why) => Err(why),
            None => Ok(sum.filter(|_| !is_first)),
        }
    }
}

/// What two replicas of a front-end told: their requests and their queues are different ones.
fn plus(a: &Door, b: &Door) -> Door {
    let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    };
    Door {
        arrived: sum(a.arrived, b.arrived),
        arrived_prompt_tokens: sum(a.arrived_prompt_tokens, b.arrived_prompt_tokens),
        waiting: sum(a.waiting, b.waiting),
    }
}

#[cfg(test)]
mod tests;
