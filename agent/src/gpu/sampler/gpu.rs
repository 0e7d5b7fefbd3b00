//! One GPU as the sampler remembers it.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::ids::GpuUuid;
use tokio::time::Instant;

use crate::gpu::{
    event::GpuEventKind,
    governor::{Ask, Governor, Then},
    plan::{Fact, Metric, Tier},
    reading::{GpuReading, GpuStatus},
    source::{CallError, Outage},
};

/// The XID of a GPU that fell off the bus.
const FELL_OFF_THE_BUS: u64 = 79;

/// So many different XIDs are counted apart; no GPU has shown more.
const MAX_XIDS: usize = 64;

/// One GPU.
#[derive(Debug)]
pub(super) struct Gpu {
    /// What it told so far.
    pub(super) reading: GpuReading,
    /// Why nothing is asked of it until the next enumeration.
    pub(super) lost: Option<String>,
    /// Metrics whose last answer was an error, and which.
    pub(super) failing: BTreeMap<Metric, String>,
    /// How long each metric is believed, by the cadence at which it was asked.
    pub(super) believed: [Duration; Metric::ALL.len()],
    /// How it was partitioned when it was last asked: mode and instances.
    pub(super) partition: Option<(bool, Vec<GpuUuid>)>,
}

impl Gpu {
    /// One that told nothing yet.
    pub(super) const fn new(reading: GpuReading) -> Self {
        let believed = [Duration::ZERO; Metric::ALL.len()];
        Self { reading, lost: None, failing: BTreeMap::new(), believed, partition: None }
    }

    /// Its lasting name.
    pub(super) const fn uuid(&self) -> &GpuUuid {
        &self.reading.info.uuid
    }

    /// Nothing can be asked of it any more.
    pub(super) fn lose(&mut self, why: String) {
        self.reading = self.reading.without_values(GpuStatus::Lost, &why);
        self.failing.clear();
        self.lost = Some(why);
    }

    /// Takes an answer, and says when to ask again.
    pub(super) fn learn(
        &mut self,
        ask: Ask,
        answer: Result<(), CallError>,
        now: Instant,
    ) -> Result<Then, Outage> {
        match (answer, ask) {
            (Err(CallError::Down(outage)), _) => return Err(outage),
            (Err(error @ CallError::Lost), _) => self.lose(error.to_string()),
            (Ok(()), Ask::Metric(metric)) => {
                self.failing.remove(&metric);
                self.reading.taken.set(metric, Some(now));
                if metric == Metric::Mig {
                    self.partition = self.reading.mig.as_ref().map(|mig| {
                        (mig.enabled, mig.instances.iter().map(|instance| instance.uuid.clone()).collect())
                    });
                }
            }
            (Ok(()), Ask::Fact(Fact::Remotes)) => {
                // The links themselves may not be known yet.
                let more = self.reading.links.iter().any(|link| link.remote.is_none());
                return Ok(if more { Then::More } else { Then::Never });
            }
            (Ok(()) | Err(CallError::NotSupported), Ask::Fact(_)) => return Ok(Then::Never),
            (Err(CallError::NotSupported), Ask::Metric(metric)) => {
                self.failing.remove(&metric);
                self.reading.clear(metric);
                self.reading.unsupported.extend(metric.fields());
                return Ok(Then::Never);
            }
            (Err(error @ CallError::Other(_)), Ask::Metric(metric)) => {
                self.reading.clear(metric);
                self.failing.insert(metric, error.to_string());
            }
            // A fact that is not told stays absent; the call is counted as a failure.
            (Err(CallError::Other(_)), Ask::Fact(_)) => {}
        }
        Ok(Then::Repeat)
    }

    /// Takes an event.
    pub(super) fn note(&mut self, kind: GpuEventKind, now: Instant) {
        let Some(code) = kind.xid() else { return };
        let xids = &mut self.reading.xids;
        xids.last = Some((code, now));
        if xids.counts.len() < MAX_XIDS || xids.counts.contains_key(&code) {
            *xids.counts.entry(code).or_insert(0) += 1;
        }
        if code == FELL_OFF_THE_BUS {
            self.lose(format!("XID {code}: the GPU fell off the bus"));
        }
    }

    /// Drops what is too old, and judges.
    pub(super) fn settle(&mut self, governor: &Governor, now: Instant) {
        if self.lost.is_some() {
            return;
        }
        for metric in Metric::ALL {
            // Where the cadence became shorter meanwhile, the question may not have been asked since.
            let believed = || self.believed[*metric as usize].max(governor.lifetime(*metric));
            if self.reading.taken.of(*metric).is_some_and(|at| at + believed() < now) {
                self.reading.clear(*metric);
            }
        }
        let fast = |metric: &&Metric| metric.tier() == Tier::Fast;
        let answers = Metric::ALL.iter().filter(fast).any(|metric| self.reading.taken.of(*metric).is_some());
        let refuses = self.failing.keys().any(|metric| metric.tier() == Tier::Fast);
        let first = self.failing.iter().next().map(|(metric, why)| format!("{}: {why}", metric.as_str()));
        (self.reading.state, self.reading.trouble) = match (answers, first) {
            (true, None) => (GpuStatus::Ok, None),
            (true, trouble) => (GpuStatus::Degraded, trouble),
            (false, trouble) if refuses => (GpuStatus::Lost, trouble),
            (false, _) if self.supports_nothing() => {
                (GpuStatus::Degraded, Some("it supports none of the metrics".to_owned()))
            }
            (false, _) => (GpuStatus::Stale, Some("nothing was asked of it lately".to_owned())),
        };
    }

    /// What is published of it.
    pub(super) fn told(&self) -> GpuReading {
        self.reading.clone()
    }

    fn supports_nothing(&self) -> bool {
        Metric::ALL
            .iter()
            .filter(|metric| metric.tier() == Tier::Fast)
            .flat_map(|metric| metric.fields())
            .all(|field| self.reading.unsupported.contains(field))
    }
}
