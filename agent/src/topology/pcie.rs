//! The way of a device through the PCIe tree, as sysfs tells it.

use std::path::Path;

use super::Affinity;

/// The devices above a PCIe device, from the host bridge (`pci0000:15`) down to the device itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciePath(Vec<String>);

impl PciePath {
    /// Looks a device up below `sysfs` (`/sys`). `None` where sysfs does not know it.
    #[must_use]
    pub fn look_up(sysfs: &Path, pci_bus_id: &str) -> Option<Self> {
        let (domain, place) = pci_bus_id.split_once(':')?;
        let domain = u32::from_str_radix(domain, 16).ok()?;
        let name = format!("{domain:04x}:{}", place.to_ascii_lowercase());
        if !name.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
            return None;
        }
        let path = std::fs::canonicalize(sysfs.join("bus/pci/devices").join(name)).ok()?;
        Self::parse(path.to_str()?)
    }

    /// Takes the path that a device's link in `/sys/bus/pci/devices` points to.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let devices: Vec<String> =
            path.split('/').skip_while(|part| !part.starts_with("pci")).map(str::to_owned).collect();
        (devices.len() >= 2 && devices[0].contains(':')).then_some(Self(devices))
    }

    /// How close two devices are; `None` when they have no host bridge in common, which leaves it to NUMA.
    #[must_use]
    pub fn affinity(&self, other: &Self) -> Option<Affinity> {
        match self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count() {
            0 => None,
            1 => Some(Affinity::HostBridge),
            _ => Some(Affinity::PcieSwitch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_ancestor_tells_how_close_two_devices_are() {
        let path = |text| PciePath::parse(text).unwrap();
        let a = path("/sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0");
        let b = path("/sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:19:00.0");
        let c = path("/sys/devices/pci0000:15/0000:15:02.0/0000:2a:00.0");
        let d = path("/sys/devices/pci0000:3a/0000:3a:01.0/0000:3b:00.0");
        assert_eq!(a.affinity(&b), Some(Affinity::PcieSwitch));
        assert_eq!(a.affinity(&c), Some(Affinity::HostBridge));
        assert_eq!(a.affinity(&d), None);
        for bad in ["", "/sys/devices", "/sys/devices/pci0000:15", "/sys/devices/pci/x", "pciback"] {
            assert_eq!(PciePath::parse(bad), None, "{bad}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn devices_are_looked_up_however_nvml_writes_them() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("devices/pci0000:15/0000:15:01.0/0000:18:00.0");
        std::fs::create_dir_all(&device).unwrap();
        let links = root.path().join("bus/pci/devices");
        std::fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink(&device, links.join("0000:18:00.0")).unwrap();
        let found = PciePath::look_up(root.path(), "00000000:18:00.0").unwrap();
        assert_eq!(found.0, ["pci0000:15", "0000:15:01.0", "0000:18:00.0"]);
        assert_eq!(PciePath::look_up(root.path(), "0000:18:00.0"), Some(found));
        for bad in ["00000000:19:00.0", "../../x", "0:../../../etc", ""] {
            assert_eq!(PciePath::look_up(root.path(), bad), None, "{bad}");
        }
    }
}
