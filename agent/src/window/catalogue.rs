//! The inventory under construction: rises in generation when something on the node changes.

use plimsoll_common::{
    histogram::BucketLayout,
    ids::Generation,
    wire::{EngineInfo, GpuInfo, HostInfo, Inventory, MAX_LAYOUTS},
};

use crate::{
    gpu::GpuSnapshot,
    topology::{NvLinkDomain, Topology},
};

/// What stands on the node, as the planner was last told and as it is now.
#[derive(Debug)]
pub(super) struct Catalogue {
    told: Inventory,
    layouts: Vec<BucketLayout>,
}

impl Catalogue {
    pub(super) fn new(host: HostInfo) -> Self {
        Self { told: Inventory { host, ..Inventory::default() }, layouts: Vec::new() }
    }

    /// The number under which reports name a layout: its position + 1. `None` when there is no room for another.
    ///
    /// Layouts are few (each engine version has a handful), so they are kept for the agent's life and compared one by
    /// one.
    pub(super) fn layout(&mut self, layout: &BucketLayout) -> Option<usize> {
        if let Some(at) = self.layouts.iter().position(|known| known == layout) {
            return Some(at + 1);
        }
        if self.layouts.len() == MAX_LAYOUTS {
            return None;
        }
        self.layouts.push(layout.clone());
        Some(self.layouts.len())
    }

    /// Takes the node as it is now; hands out an inventory when it differs from what was told.
    pub(super) fn settle(
        &mut self,
        gpus: &GpuSnapshot,
        topology: &Topology,
        engines: Vec<EngineInfo>,
    ) -> Option<Inventory> {
        let told = |info: &GpuInfo| GpuInfo {
            domain: topology.domain_of(&info.uuid).map(NvLinkDomain::to_wire),
            ..info.clone()
        };
        let now = Inventory {
            generation: self.told.generation,
            host: self.told.host.clone(),
            driver: gpus.driver.clone(),
            gpus: gpus.gpus.iter().map(|gpu| told(&gpu.info)).collect(),
            engines,
            layouts: self.layouts.iter().map(|layout| layout.edges().to_vec()).collect(),
        };
        if now == self.told && self.told.generation != Generation(0) {
            return None;
        }
        self.told = Inventory { generation: Generation(self.told.generation.0.saturating_add(1)), ..now };
        Some(self.told.clone())
    }

    pub(super) const fn generation(&self) -> Generation {
        self.told.generation
    }
}
