//! What the topology is derived from: the part of a GPU's reading that says what it is connected to.

use plimsoll_common::ids::GpuUuid;

use super::PciePath;
use crate::gpu::{Fabric, GpuReading, NvLink, Platform, RemoteKind};

/// What a GPU is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Which GPU.
    pub uuid: GpuUuid,
    /// The product, such as `NVIDIA H100 80GB HBM3`.
    pub product: Option<String>,
    /// PCI bus id.
    pub pci_bus_id: Option<String>,
    /// The NUMA node it is attached to.
    pub numa_node: Option<u32>,
    /// Its way through the PCIe tree; absent where sysfs does not tell.
    pub pcie_path: Option<PciePath>,
    /// Whether it is partitioned.
    pub mig: bool,
    /// Its NVLinks, by index; empty where it has none or does not tell.
    pub links: Vec<Link>,
    /// What the NVLink fabric says of it.
    pub fabric: Option<Fabric>,
    /// Its place in chassis and rack.
    pub platform: Option<Platform>,
}

/// One NVLink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// What is at its other end; absent where the driver does not tell.
    pub remote: Option<RemoteKind>,
    /// The PCI bus id of the other end.
    pub remote_bus_id: Option<String>,
}

impl Wiring {
    /// The wiring that a reading tells.
    #[must_use]
    pub fn of(gpu: &GpuReading) -> Self {
        Self {
            uuid: gpu.info.uuid.clone(),
            product: gpu.info.name.clone(),
            pci_bus_id: gpu.info.pci_bus_id.clone(),
            numa_node: gpu.facts.numa_node,
            pcie_path: None,
            mig: gpu.mig.as_ref().is_some_and(|mig| mig.enabled),
            links: gpu.links.iter().map(Link::of).collect(),
            fabric: gpu.fabric.clone(),
            platform: gpu.platform.clone(),
        }
    }

    /// How many of its links are up.
    pub(super) fn links_up(&self) -> usize {
        self.links.iter().filter(|link| link.up).count()
    }

    /// How many of its links are known to lead somewhere, up or not.
    pub(super) fn links_wired(&self) -> usize {
        self.links.iter().filter(|link| link.up || link.remote.is_some()).count()
    }

    /// How many of its links that are up lead to this GPU.
    pub(super) fn links_to(&self, other: &Self) -> usize {
        let Some(bus) = &other.pci_bus_id else { return 0 };
        self.links.iter().filter(|link| link.up && link.leads_to(bus)).count()
    }
}

impl Link {
    fn of(link: &NvLink) -> Self {
        Self {
            up: link.active == Some(true),
            remote: link.remote.as_ref().map(|remote| remote.kind),
            remote_bus_id: link.remote.as_ref().and_then(|remote| remote.pci_bus_id.clone()),
        }
    }

    /// Whether the other end is the GPU with this PCI bus id.
    pub(super) fn leads_to(&self, bus_id: &str) -> bool {
        // A bus id that is a GPU's names a GPU, also where the driver does not say of which kind the other end is.
        matches!(self.remote, Some(RemoteKind::Gpu | RemoteKind::Unknown))
            && self.remote_bus_id.as_deref().is_some_and(|remote| same_bus_id(remote, bus_id))
    }
}

/// Whether two texts name one PCI function: NVML writes the domain with four or eight digits, in either case.
pub(super) fn same_bus_id(a: &str, b: &str) -> bool {
    match (a.split_once(':'), b.split_once(':')) {
        (Some((domain, place)), Some((other_domain, other_place))) => {
            let number = |text: &str| u32::from_str_radix(text, 16).ok();
            number(domain).is_some()
                && number(domain) == number(other_domain)
                && place.eq_ignore_ascii_case(other_place)
        }
        _ => false,
    }
}
