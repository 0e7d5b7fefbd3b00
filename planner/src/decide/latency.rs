//! Latencies and lengths as hosts tell them: a mean, a sum and a count, or buckets.

use plimsoll_common::units::Micros;
use plimsoll_core::observe::Latency;
use serde_json::Value;

use super::json::{COUNT, Fields, Place, Range, Refusal, SECONDS, number};

/// Buckets that one histogram may have.
const MOST_BUCKETS: usize = 1_000;

/// A latency as it was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// The mean, s.
    pub(super) mean: Option<f64>,
    /// Samples, where they are counted.
    pub(super) count: Option<u64>,
    /// Samples within the SLO's limit, by their own count.
    within: Option<u64>,
    /// Samples by upper edge, s.
    buckets: Vec<(f64, u64)>,
}

impl Told {
    /// Reads `name` (an object) or `name_mean_s` (a number).
    pub(super) fn read(
        fields: &mut Fields<'_>,
        name: &'static str,
        mean_key: &'static str,
    ) -> Result<Self, Refusal> {
        let mean = fields.number(mean_key, SECONDS)?;
        let Some(value) = fields.get(name) else { return Ok(Self { mean, ..Self::default() }) };
        let place = Place::of(&fields.place, name);
        if mean.is_some() {
            return place.refuse(format!("there is {mean_key}, too: give one of them"));
        }
        let mut inner = Fields::of(place, value)?;
        let (mean, sum) = (inner.number("mean_s", SECONDS)?, inner.number("sum_s", COUNT)?);
        let (count, within) = (inner.count("count")?, inner.count("within")?);
        let buckets = buckets(&mut inner, "buckets", SECONDS)?;
        inner.finish()?;
        let counted: u64 = buckets.iter().map(|(_, count)| count).sum();
        let count = count.or_else(|| (!buckets.is_empty()).then_some(counted));
        if within.is_some_and(|within| within > count.unwrap_or(0)) {
            return place.refuse("within is more than count");
        }
        let by_sum = sum.zip(count).filter(|(_, count)| *count > 0).map(|(sum, count)| sum / count as f64);
        if sum.is_some() && count.is_none() {
            return place.refuse("sum_s needs count");
        }
        Ok(Self { mean: mean.or(by_sum).or_else(|| middle(&buckets)), count, within, buckets })
    }

    /// As the core takes it; none where only a mean is known.
    pub(super) fn latency(&self, limit: Option<Micros>) -> Option<Latency> {
        let (count, mean) = (self.count?, self.mean);
        let sum = mean.and_then(|mean| Micros::from_secs_f64(mean * count as f64)).unwrap_or_default();
        let by_buckets = || {
            let limit = limit.filter(|_| !self.buckets.is_empty())?.as_secs_f64();
            let certain = self.buckets.iter().filter(|(edge, _)| *edge <= limit * (1.0 + 1e-9));
            let certain: u64 = certain.map(|(_, count)| count).sum();
            let next = self.buckets.iter().find(|(edge, _)| *edge > limit * (1.0 + 1e-9));
            let at_edge = self.buckets.iter().any(|(edge, _)| (edge / limit - 1.0).abs() < 1e-9);
            let possible = next.filter(|_| !at_edge).map_or(0, |(_, count)| *count);
            Some((certain, certain + possible))
        };
        let within = self.within.map(|within| (within, within)).or_else(by_buckets);
        Some(Latency { count, sum, within })
    }

    /// A part of it, for one of several engines that are told as a whole.
    pub(super) fn part(&self, of: u64, place: u64) -> Self {
        Self {
            mean: self.mean,
            count: self.count.map(|count| share(count, of, place)),
            within: self.within.map(|within| share(within, of, place)),
            buckets: self.buckets.iter().map(|(edge, count)| (*edge, share(*count, of, place))).collect(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.mean.is_none() && self.count.is_none()
    }
}

/// The part of a whole number that the `place`th of so many gets; all parts together are the whole.
pub(super) const fn share(whole: u64, of: u64, place: u64) -> u64 {
    whole / of + if place < whole % of { 1 } else { 0 }
}

/// `[[upper edge, count], …]`, counts of single buckets by rising edge; null is no edge.
pub(super) fn buckets(
    fields: &mut Fields<'_>,
    key: &'static str,
    edges: Range,
) -> Result<Vec<(f64, u64)>, Refusal> {
    let Some(list) = fields.list(key)? else { return Ok(Vec::new()) };
    let place = Place::of(&fields.place, key);
    if list.len() > MOST_BUCKETS {
        return place.refuse(format!("more than {MOST_BUCKETS} buckets"));
    }
    let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(list.len());
    for bucket in list {
        let Some([edge, count]) = bucket.as_array().map(Vec::as_slice) else {
            return place.refuse("give a list of [upper edge, count]");
        };
        let edge = if *edge == Value::Null { f64::INFINITY } else { number(&place, edge, edges)? };
        if buckets.last().is_some_and(|(last, _)| edge <= *last) {
            return place.refuse("edges must rise");
        }
        buckets.push((edge, number(&place, count, COUNT)?.round() as u64));
    }
    Ok(buckets)
}

/// The mean as far as buckets tell it: samples in the middle of theirs.
fn middle(buckets: &[(f64, u64)]) -> Option<f64> {
    let (mut below, mut sum, mut total) = (0.0, 0.0, 0);
    for (edge, count) in buckets {
        let middle = if edge.is_finite() { f64::midpoint(below, *edge) } else { below };
        sum += middle * *count as f64;
        total += count;
        below = if edge.is_finite() { *edge } else { below };
    }
    (total > 0).then(|| sum / total as f64)
}
