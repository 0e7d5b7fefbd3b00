//! Which GPUs reach each other, and how: NVLink domains, links by pair, PCIe and NUMA affinity.
//!
//! Pure but for [`pcie`], which looks up paths in sysfs when the list of GPUs changes. The rule for the domain of a GPU, in
//! order:
//!
//! 1. **None** where MIG is on: instances have no NVLink.
//! 2. **Multi-node** where all of this holds: registration with the fabric has completed with success, the cluster UUID is
//!    not nil, and the platform has NVLink beyond the node, by one of these:
//!    * it tells the serial number of a chassis and that its GPUs are connected to a switch (GB200, GB300 and Vera Rubin
//!      racks do; HGX B200 is connected to a switch too, but tells no chassis);
//!    * the product is a Grace superchip (`GH200`, `GB200`, `GB300`), for drivers that tell no platform.
//!
//!    The UUID alone proves nothing: HGX H100 was seen with a valid one and no link beyond the node (and, more often, with a
//!    nil one). The domain's key is (cluster UUID, clique): cliques are numbered anew in every rack, all of them commonly
//!    with 32766, and 0 is a clique like any other. The key's text is that of the node label `nvidia.com/gpu.clique`.
//! 3. **Node switch** where a link that is up leads to an NVSwitch, or where the driver does not tell where links lead but
//!    there is a fabric to register with, which only NVSwitches have.
//! 4. **Bridge**: the connected component by links from GPU to GPU.
//! 5. **None** otherwise.
//!
//! A GPU that is lost keeps the domain it was last seen in, so that the fleet's picture does not change with every outage;
//! one that has not yet told its links has no domain at all.

mod classify;
mod domains;
mod matrix;
mod memory;
mod pcie;
mod wiring;

use plimsoll_common::{
    ids::GpuUuid,
    wire::{self, DomainKind},
};

pub use self::{
    domains::domains,
    matrix::{Affinity, GpuPair, LinkPath, pairs},
    memory::TopologyMemory,
    pcie::PciePath,
    wiring::{Link, Wiring},
};

/// How the GPUs of a node are connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Every GPU whose links are known is in exactly one. By kind, then by id.
    pub domains: Vec<NvLinkDomain>,
    /// Every pair of GPUs, in the order of the GPUs.
    pub pairs: Vec<GpuPair>,
    /// GPUs that have not yet told their links.
    pub unknown: Vec<GpuUuid>,
}

impl Topology {
    /// The topology of GPUs, in their order.
    #[must_use]
    pub fn of(gpus: &[Wiring]) -> Self {
        let domains = domains(gpus);
        let pairs = pairs(gpus, &domains);
        Self { domains, pairs, unknown: Vec::new() }
    }

    /// The domain of a GPU; `None` when its links are not known.
    #[must_use]
    pub fn domain_of(&self, gpu: &GpuUuid) -> Option<&NvLinkDomain> {
        self.domains.iter().find(|domain| domain.gpus.contains(gpu))
    }
}

/// GPUs that reach each other by NVLink, as far as they are on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvLinkDomain {
    /// Its name: unique in the cluster where the kind spans nodes, unique on this node otherwise.
    pub id: String,
    /// How the GPUs are connected.
    pub kind: DomainKind,
    /// The fabric, where the domain spans nodes.
    pub cluster_uuid: Option<String>,
    /// The clique within the fabric, where the domain spans nodes.
    pub clique_id: Option<u32>,
    /// Its GPUs on this node, in the node's order.
    pub gpus: Vec<GpuUuid>,
    /// Which rule decided.
    pub because: &'static str,
    /// What keeps it from working as wired, each with the GPU it was seen at; empty when nothing does.
    pub troubles: Vec<Trouble>,
}

impl NvLinkDomain {
    /// Whether something keeps it from working as wired.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        !self.troubles.is_empty()
    }

    /// As the planner is told, from the view of one of its GPUs.
    #[must_use]
    pub fn to_wire(&self) -> wire::NvLinkDomain {
        wire::NvLinkDomain { kind: self.kind, id: self.id.clone(), degraded: self.is_degraded() }
    }
}

/// Something that is wrong with a GPU's NVLinks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// At which GPU.
    pub gpu: GpuUuid,
    /// What, for people.
    pub what: String,
}

#[cfg(test)]
mod tests;
