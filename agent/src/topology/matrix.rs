//! What lies between two GPUs.

use plimsoll_common::{ids::GpuUuid, wire::DomainKind};

use super::{NvLinkDomain, Wiring};

/// Two GPUs of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuPair {
    /// The first, in the node's order.
    pub a: GpuUuid,
    /// The second.
    pub b: GpuUuid,
    /// How they reach each other by NVLink.
    pub path: LinkPath,
    /// How many NVLinks carry what they send each other: links between the two, or, through a switch, the fewer of what
    /// the two have up.
    pub nvlinks: u32,
    /// How close they are without NVLink.
    pub affinity: Affinity,
}

/// How two GPUs reach each other by NVLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkPath {
    /// Links from one to the other.
    Direct,
    /// Through NVSwitches.
    Switch,
    /// Not at all, or only through other GPUs.
    None,
}

impl LinkPath {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Switch => "switch",
            Self::None => "none",
        }
    }
}

/// How close two GPUs are over PCIe and the processors' interconnect, closest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Affinity {
    /// Below one PCIe switch (`PIX` and `PXB` in `nvidia-smi topo`).
    PcieSwitch,
    /// Below one PCIe host bridge (`PHB`).
    HostBridge,
    /// At one NUMA node (`NODE`).
    NumaNode,
    /// At different NUMA nodes (`SYS`).
    System,
    /// Not told.
    Unknown,
}

impl Affinity {
    /// The name in labels and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PcieSwitch => "pcie_switch",
            Self::HostBridge => "host_bridge",
            Self::NumaNode => "numa_node",
            Self::System => "system",
            Self::Unknown => "unknown",
        }
    }
}

/// Every pair of GPUs, in their order.
#[must_use]
pub fn pairs(gpus: &[Wiring], domains: &[NvLinkDomain]) -> Vec<GpuPair> {
    let rest = gpus.iter().enumerate().flat_map(|(at, a)| gpus[at + 1..].iter().map(move |b| (a, b)));
    rest.map(|(a, b)| pair(a, b, domains)).collect()
}

fn pair(a: &Wiring, b: &Wiring, domains: &[NvLinkDomain]) -> GpuPair {
    let domain = domains.iter().find(|domain| domain.gpus.contains(&a.uuid) && domain.gpus.contains(&b.uuid));
    let (path, nvlinks) = match domain.map(|domain| domain.kind) {
        Some(DomainKind::MultiNode | DomainKind::NodeSwitch) => {
            (LinkPath::Switch, a.links_up().min(b.links_up()))
        }
        Some(DomainKind::Bridge) => match (a.links_to(b), b.links_to(a)) {
            (0, 0) => (LinkPath::None, 0),
            // Where one end does not tell, the other is believed.
            (seen, 0) | (0, seen) => (LinkPath::Direct, seen),
            (seen, seen_back) => (LinkPath::Direct, seen.min(seen_back)),
        },
        _ => (LinkPath::None, 0),
    };
    GpuPair {
        a: a.uuid.clone(),
        b: b.uuid.clone(),
        path,
        nvlinks: u32::try_from(nvlinks).unwrap_or(u32::MAX),
        affinity: affinity(a, b),
    }
}

fn affinity(a: &Wiring, b: &Wiring) -> Affinity {
    if let (Some(a), Some(b)) = (&a.pcie_path, &b.pcie_path)
        && let Some(affinity) = a.affinity(b)
    {
        return affinity;
    }
    match (a.numa_node, b.numa_node) {
        (Some(a), Some(b)) if a == b => Affinity::NumaNode,
        (Some(_), Some(_)) => Affinity::System,
        _ => Affinity::Unknown,
    }
}
