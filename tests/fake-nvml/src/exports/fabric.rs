//! The multi-node NVLink domain, and the place in the rack.

use crate::abi::{
    Code, FabricInfo, FabricInfoV2, FabricInfoV3, Out, PlatformInfoV1, PlatformInfoV2, struct_version,
};
use crate::call::exports;
use crate::scenario::{Fabric, FabricHealth, FabricState, cluster_uuid_bytes};
use crate::session::Gpu;

const V2: u32 = struct_version::<FabricInfoV2>(2);
const V3: u32 = struct_version::<FabricInfoV3>(3);

/// The driver's release that brought the third layout, with the health summary.
const V3_SINCE: (u32, u32) = (580, 0);

exports! {
    device fn nvmlDeviceGetGpuFabricInfo(gpu, info: Out<FabricInfo>) {
        let fabric = fabric(gpu)?;
        info.set(FabricInfo {
            cluster_uuid: cluster_uuid_bytes(&fabric.cluster_uuid).unwrap_or_default(),
            status: Code::SUCCESS.0,
            clique_id: fabric.clique_id,
            state: state(&fabric),
        })
    }
    // The caller says by the version which layout it has room for, and nothing beyond that layout is touched.
    device fn nvmlDeviceGetGpuFabricInfoV(gpu, info: Out<FabricInfoV2>) {
        let version = info.version()?;
        if version != V2 && !(version == V3 && gpu.session().driver.release() >= V3_SINCE) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let fabric = fabric(gpu)?;
        let cluster_uuid = cluster_uuid_bytes(&fabric.cluster_uuid).unwrap_or_default();
        let (status, clique_id, state, health_mask) =
            (Code::SUCCESS.0, fabric.clique_id, state(&fabric), fabric.health_mask);
        if version == V2 {
            return info.set(FabricInfoV2 { version, cluster_uuid, status, clique_id, state, health_mask });
        }
        let health_summary = match fabric.health {
            FabricHealth::NotSupported => 0,
            FabricHealth::Healthy => 1,
            FabricHealth::Unhealthy => 2,
            FabricHealth::LimitedCapacity => 3,
        };
        info.cast().set(FabricInfoV3 { version, cluster_uuid, status, clique_id, state, health_mask, health_summary })
    }
    device fn nvmlDeviceGetPlatformInfo(gpu, info: Out<PlatformInfoV1>) {
        let version = info.version()?;
        let (v1, v2) = (struct_version::<PlatformInfoV1>(1), struct_version::<PlatformInfoV2>(2));
        if version != v1 && version != v2 {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let platform = gpu.session().scenario.platform.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        let module = gpu.spec().module_id as u8;
        let mut chassis_serial = [0; 16];
        for (place, byte) in chassis_serial.iter_mut().zip(platform.chassis_serial.bytes()) {
            *place = byte;
        }
        let (ib_guid, slot, tray, host, peer_type) =
            ([0; 16], platform.slot, platform.tray, platform.host, platform.peer_type);
        if version == v2 {
            return info
                .cast()
                .set(PlatformInfoV2 { version, ib_guid, chassis_serial, slot, tray, host, peer_type, module });
        }
        info.set(PlatformInfoV1 {
            version,
            ib_guid,
            rack_guid: chassis_serial,
            chassis_slot: slot,
            compute_slot: tray,
            node: host,
            peer_type,
            module,
        })
    }
}

fn fabric(gpu: &Gpu<'_>) -> Result<Fabric, Code> {
    gpu.session().machine.fabric().filter(|_| gpu.is_hopper_or_newer()).ok_or(Code::NOT_SUPPORTED)
}

fn state(fabric: &Fabric) -> u8 {
    match fabric.state {
        FabricState::NotSupported => 0,
        FabricState::NotStarted => 1,
        FabricState::InProgress => 2,
        FabricState::Completed => 3,
    }
}
