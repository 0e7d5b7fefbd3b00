//! How a GPU is partitioned.

use nvml_wrapper::{Device, error::NvmlError};
use plimsoll_common::ids::GpuUuid;

use super::{
    describe::{ask, told},
    raw,
};
use crate::gpu::{
    meter::Meter,
    partition::{Mig, MigInstance},
    plan::Call,
    reading::{Activity, GpuReading},
    source::CallError,
};

/// More instances than any GPU can be split into.
const MAX_INSTANCES: u32 = 64;

/// Asks mode and instances.
pub(super) fn sample(
    device: &Device<'_>,
    meter: &mut Meter,
    reading: &mut GpuReading,
) -> Result<(), CallError> {
    let mode = ask(meter, Call::MigMode, || device.mig_mode())?;
    let (enabled, pending) = (mode.current != 0, mode.pending != 0);
    let mut mig = Mig { enabled, pending: (pending != enabled).then_some(pending), instances: Vec::new() };
    if enabled {
        let count = ask(meter, Call::MigCount, || device.mig_device_count())?;
        for index in 0..count.min(MAX_INSTANCES) {
            // Slots that hold no instance are not found.
            let found = meter.time(Call::MigHandle, || match device.mig_device_by_index(index) {
                Ok(found) => Ok(Some(found)),
                Err(NvmlError::NotFound | NvmlError::InvalidArg) => Ok(None),
                Err(error) => Err(super::call_error(error)),
            })?;
            if let Some(found) = found {
                let mut instance = instance(&found, meter)?;
                let mut before = reading.mig.iter().flat_map(|mig| &mig.instances);
                if let Some(same) = before.find(|before| before.uuid == instance.uuid) {
                    instance.activity = same.activity;
                }
                mig.instances.push(instance);
            }
        }
        mig.instances.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    }
    reading.mig = Some(mig);
    Ok(())
}

fn instance(device: &Device<'_>, meter: &mut Meter) -> Result<MigInstance, CallError> {
    let uuid = ask(meter, Call::DeviceUuid, || device.uuid())?;
    let uuid = GpuUuid::parse(&uuid).map_err(|error| CallError::Other(error.to_string()))?;
    let ids = told(ask(meter, Call::MigIds, || raw::mig_ids(device)))?;
    let memory = told(ask(meter, Call::MemoryInfo, || device.memory_info()))?;
    let name = told(ask(meter, Call::DeviceName, || device.name()))?;
    Ok(MigInstance {
        uuid,
        gpu_instance_id: ids.map(|(gpu, _)| gpu),
        compute_instance_id: ids.map(|(_, compute)| compute),
        profile: name.as_deref().and_then(profile),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        activity: Activity::default(),
    })
}

/// The profile of a MIG device is the end of its name: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
fn profile(name: &str) -> Option<String> {
    name.rsplit_once(" MIG ")
        .map(|(_, profile)| profile.trim().to_owned())
        .filter(|profile| !profile.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_the_end_of_a_name() {
        assert_eq!(profile("NVIDIA H100 80GB HBM3 MIG 1g.10gb").as_deref(), Some("1g.10gb"));
        assert_eq!(profile("NVIDIA H100 80GB HBM3"), None);
    }
}
