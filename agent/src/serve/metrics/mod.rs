//! `/metrics`: everything the pages show that is a number, for Prometheus. A value that is absent has no sample.

mod agent;
mod dcgm;
mod engine_state;
mod engines;
mod exact;
mod gpu_health;
mod gpu_links;
mod gpu_mig;
mod gpu_source;
mod gpus;
mod pods;

use plimsoll_shell::metrics::{Label, MetricPage, MetricType::Gauge};
use tokio::time::Instant;

use super::Pages;
use crate::gpu::{GpuReading, GpuSnapshot};

pub(super) fn page(pages: &Pages) -> String {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let seen = pages.engines(now);
    let rows = Row::all(&snapshot);
    let mut page = MetricPage::new();
    gpus::write(&mut page, &rows, &snapshot);
    gpu_mig::write(&mut page, &rows);
    gpu_health::write(&mut page, &rows);
    gpu_links::write(&mut page, &rows, &pages.topology());
    pods::write(&mut page, &rows, &pages.attribution(), now);
    gpu_source::write(&mut page, &snapshot, now);
    engine_state::write(&mut page, &seen, now);
    engines::gauges(&mut page, &seen, now);
    engines::counters(&mut page, &seen);
    engines::distributions(&mut page, &seen);
    engines::saturated(&mut page, &seen);
    exact::distributions(&mut page, &seen);
    exact::passes(&mut page, &seen);
    exact::sources(&mut page, &pages.0.feeds.exact.all());
    agent::write(&mut page, pages);
    if pages.0.dcgm_names {
        dcgm::write(&mut page, &rows, &snapshot, &pages.attribution(), pages.0.node.as_str());
    }
    page.finish()
}

/// A GPU and its labels.
struct Row<'a> {
    gpu: &'a GpuReading,
    index: String,
}

impl<'a> Row<'a> {
    fn all(snapshot: &'a GpuSnapshot) -> Vec<Self> {
        snapshot.gpus.iter().map(|gpu| Self { gpu, index: gpu.info.index.to_string() }).collect()
    }

    fn labels(&self) -> [Label<'_>; 2] {
        [("gpu", &self.index), ("uuid", self.gpu.info.uuid.as_str())]
    }

    /// The GPU's labels and more.
    fn with<const N: usize>(&'a self, more: [Label<'a>; N]) -> Vec<Label<'a>> {
        self.labels().into_iter().chain(more).collect()
    }
}

/// The states of a closed set, one sample each, 1 for the one that holds.
fn states(
    page: &mut MetricPage,
    name: &str,
    help: &str,
    rows: &[(Vec<Label<'_>>, &'static str)],
    all: &[&'static str],
) {
    let mut family = page.family(name, Gauge, help);
    for (labels, holds) in rows {
        for state in all {
            let mut labels = labels.clone();
            labels.push(("state", state));
            family.sample(&labels, state == holds);
        }
    }
}
