//! The topology over time: what a GPU told last holds while it tells nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use plimsoll_common::ids::GpuUuid;
use tokio::time::Instant;

use super::{PciePath, Topology, Wiring};
use crate::gpu::{GpuReading, GpuStatus, Metric};

/// How long the other ends of links may be missing while everything else is told, before the links are judged without.
const PATIENCE: Duration = Duration::from_mins(2);

/// Remembers wirings, and works the topology out anew only when one changed.
#[derive(Debug)]
pub struct TopologyMemory {
    sysfs: PathBuf,
    gpus: BTreeMap<GpuUuid, Remembered>,
    /// What the topology was derived from.
    wirings: Vec<Wiring>,
    topology: Arc<Topology>,
}

#[derive(Debug, Default)]
struct Remembered {
    wiring: Option<Wiring>,
    /// Since when everything but the other ends of the links was told.
    waits_since: Option<Instant>,
}

impl Default for TopologyMemory {
    fn default() -> Self {
        Self::new(Path::new("/sys"))
    }
}

impl TopologyMemory {
    /// Knows nothing yet; paths through the PCIe tree are looked up below `sysfs`.
    #[must_use]
    pub fn new(sysfs: &Path) -> Self {
        Self { sysfs: sysfs.to_owned(), gpus: BTreeMap::new(), wirings: Vec::new(), topology: Arc::default() }
    }

    /// The topology as it was last worked out.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology)
    }

    /// Takes the GPUs as they are now. A GPU that is no longer listed is forgotten.
    pub fn observe(&mut self, now: Instant, gpus: &[GpuReading]) {
        self.gpus.retain(|uuid, _| gpus.iter().any(|gpu| gpu.info.uuid == *uuid));
        for gpu in gpus {
            let remembered = self.gpus.entry(gpu.info.uuid.clone()).or_default();
            remembered.observe(now, gpu, &self.sysfs);
        }
        let known = |gpu: &GpuReading| self.gpus.get(&gpu.info.uuid)?.wiring.clone();
        let wirings: Vec<Wiring> = gpus.iter().filter_map(known).collect();
        let unknown: Vec<GpuUuid> = gpus
            .iter()
            .map(|gpu| &gpu.info.uuid)
            .filter(|uuid| wirings.iter().all(|wiring| wiring.uuid != **uuid))
            .cloned()
            .collect();
        if wirings != self.wirings {
            self.topology = Arc::new(Topology { unknown, ..Topology::of(&wirings) });
            self.wirings = wirings;
        } else if unknown != self.topology.unknown {
            self.topology = Arc::new(Topology { unknown, ..(*self.topology).clone() });
        }
    }
}

impl Remembered {
    fn observe(&mut self, now: Instant, gpu: &GpuReading, sysfs: &Path) {
        let answers = matches!(gpu.state, GpuStatus::Ok | GpuStatus::Degraded);
        if !answers
            || ![Metric::Mig, Metric::Fabric, Metric::Links].into_iter().all(|metric| is_told(gpu, metric))
        {
            return;
        }
        let waits_since = *self.waits_since.get_or_insert(now);
        // They are asked one by one, so a few that are told do not make a picture yet.
        let ends_missing = gpu.links.iter().any(|link| link.active == Some(true) && link.remote.is_none());
        if ends_missing && now.saturating_duration_since(waits_since) < PATIENCE {
            return;
        }
        let told = Wiring::of(gpu);
        let before = self.wiring.take();
        let pcie_path = match before {
            Some(before) if before.pci_bus_id == told.pci_bus_id => before.pcie_path,
            _ => told.pci_bus_id.as_deref().and_then(|bus_id| PciePath::look_up(sysfs, bus_id)),
        };
        self.wiring = Some(Wiring { pcie_path, ..told });
    }
}

/// Whether a GPU has answered this, be it that it has no such thing.
fn is_told(gpu: &GpuReading, metric: Metric) -> bool {
    gpu.taken.of(metric).is_some() || metric.fields().iter().all(|field| gpu.unsupported.contains(field))
}
