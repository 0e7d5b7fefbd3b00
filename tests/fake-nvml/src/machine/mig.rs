//! Multi-instance GPU: the instances that a GPU is split into.

use crate::control::Profile;

/// Memory is split into this many slices, compute into one less.
const MEMORY_SLICES: u64 = 8;
/// Compute slices of a whole GPU.
const COMPUTE_SLICES: u32 = 7;
/// Ids of GPU instances by size, as the driver gives them: a larger instance takes the ids of a larger span.
const IDS: [(u32, std::ops::Range<u32>); 5] = [(7, 0..1), (4, 1..2), (3, 1..3), (2, 3..7), (1, 7..15)];

/// MIG mode and instances of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mig {
    /// The mode in force.
    pub(crate) enabled: bool,
    /// The mode after the next reset, where it differs.
    pending: Option<bool>,
    /// The instances; each has one compute instance.
    pub(crate) devices: Vec<MigDevice>,
    /// Counts layouts: handles of an earlier one are stale.
    pub(crate) layout: usize,
}

/// One MIG device: a GPU instance with one compute instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MigDevice {
    /// NVML's index of the device below its GPU.
    pub(crate) slot: usize,
    /// Id of the GPU instance.
    pub(crate) gpu_instance: u32,
    /// Id of the compute instance.
    pub(crate) compute_instance: u32,
    /// Its size.
    pub(crate) profile: Profile,
}

impl Mig {
    /// Another layout; `None` ends MIG.
    pub(crate) fn set(&mut self, layout: Option<&[(Profile, u32)]>) {
        self.enabled = layout.is_some();
        self.pending = None;
        self.layout += 1;
        self.devices.clear();
        let sizes = layout.unwrap_or_default().iter();
        for profile in sizes.flat_map(|(profile, count)| std::iter::repeat_n(*profile, *count as usize)) {
            let ids =
                IDS.iter().find(|(slices, _)| *slices == profile.compute_slices).map(|(_, ids)| ids.clone());
            let free = ids
                .into_iter()
                .flatten()
                .find(|id| self.devices.iter().all(|device| device.gpu_instance != *id));
            let slot = self.devices.len();
            if let Some(gpu_instance) = free {
                self.devices.push(MigDevice { slot, gpu_instance, compute_instance: 0, profile });
            }
        }
    }

    /// The mode after the next reset.
    pub(crate) fn pending(&self) -> bool {
        self.pending.unwrap_or(self.enabled)
    }

    /// Asks for another mode.
    pub(crate) fn set_pending(&mut self, enabled: bool) {
        self.pending = Some(enabled);
    }

    /// What a reset does: the mode that was asked for comes into force, without instances.
    pub(crate) fn apply_pending(&mut self) {
        if let Some(enabled) = self.pending.filter(|enabled| *enabled != self.enabled) {
            self.set(if enabled { Some(&[]) } else { None });
        }
        self.pending = None;
    }
}

impl MigDevice {
    /// Memory slices, of eight: the size in the name, rounded to slices.
    fn memory_slices(&self, gpu_mib: u64) -> u64 {
        let slice_mib = (gpu_mib / MEMORY_SLICES).max(1);
        ((u64::from(self.profile.memory_gb) * 1024 + slice_mib / 2) / slice_mib).clamp(1, MEMORY_SLICES)
    }

    /// Its memory, MiB, given that of the GPU.
    pub(crate) fn memory_mib(&self, gpu_mib: u64) -> u64 {
        gpu_mib * self.memory_slices(gpu_mib) / MEMORY_SLICES
    }

    /// Its multiprocessors, given those of the GPU: a slice has an eighth of them, an even number.
    pub(crate) fn multiprocessors(&self, gpu: u32) -> u32 {
        if self.profile.compute_slices == COMPUTE_SLICES {
            gpu
        } else {
            (gpu / 16 * 2) * self.profile.compute_slices
        }
    }

    /// `1g.10gb`.
    pub(crate) fn profile_name(&self) -> String {
        format!("{}g.{}gb", self.profile.compute_slices, self.profile.memory_gb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Profile = Profile { compute_slices: 1, memory_gb: 10 };
    const HALF: Profile = Profile { compute_slices: 3, memory_gb: 40 };

    #[test]
    fn instances_have_the_drivers_ids_and_a_share_of_the_board() {
        let mut mig = Mig::default();
        mig.set(Some(&[(HALF, 1), (SMALL, 4)]));
        let ids: Vec<_> = mig.devices.iter().map(|device| device.gpu_instance).collect();
        assert_eq!(ids, [1, 7, 8, 9, 10]);
        assert_eq!(mig.devices[0].memory_mib(81_559), 81_559 * 4 / 8);
        assert_eq!(mig.devices[1].memory_mib(81_559), 81_559 / 8);
        assert_eq!((mig.devices[0].multiprocessors(132), mig.devices[1].multiprocessors(132)), (48, 16));
        assert_eq!(mig.devices[1].profile_name(), "1g.10gb");
    }

    #[test]
    fn a_pending_mode_waits_for_the_reset() {
        let mut mig = Mig::default();
        mig.set_pending(true);
        assert!(!mig.enabled && mig.pending());
        mig.apply_pending();
        assert!(mig.enabled && mig.pending() && mig.devices.is_empty());
        mig.set(None);
        assert!(!mig.enabled && mig.layout == 2);
    }
}
