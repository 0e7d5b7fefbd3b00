//! GPUs for the tests: one that tells everything, one that tells nothing.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::{
    ids::GpuUuid,
    units::Ratio,
    wire::{DomainKind, DriverInfo, GpuInfo, NvLinkDomain, SourceState},
};
use tokio::time::Instant;

use crate::gpu::{
    Activity, BufferedSamples, Clocks, Ecc, Fabric, FabricHealth, FabricState, GpuEvent, GpuEventKind,
    GpuFacts, GpuProcess, GpuProcessKind, GpuReading, GpuSnapshot, GpuStatus, LinkErrors, LinkTraffic,
    Metric, Mig, MigInstance, NvLink, Pcie, Platform, RecoveryAction, RemappedRows, RemoteEnd, RemoteKind,
    RetiredPages, Samples, ThrottleReasons, Video, Xids,
};

pub(super) fn info(uuid: &str, index: u32) -> GpuInfo {
    GpuInfo {
        uuid: GpuUuid::parse(uuid).unwrap(),
        index,
        name: Some("a \"GPU\" <80GB>".to_owned()),
        pci_bus_id: Some("00000000:1B:00.0".to_owned()),
        memory_total_bytes: Some(80 << 30),
        power_limit_mw: Some(700_000),
        domain: None,
    }
}

/// A GPU that tells nothing but that it is there.
pub(super) fn silent(uuid: &str, index: u32) -> GpuReading {
    let info = GpuInfo {
        name: None,
        pci_bus_id: None,
        memory_total_bytes: None,
        power_limit_mw: None,
        ..info(uuid, index)
    };
    GpuReading::absent(info, GpuStatus::Ok)
}

/// A GPU that tells everything.
pub(super) fn full(uuid: &str, index: u32, now: Instant) -> GpuReading {
    let mut gpu = GpuReading {
        utilization_percent: Some(97),
        memory_activity_percent: Some(41),
        memory_used_bytes: Some(60 << 30),
        memory_reserved_bytes: Some(512 << 20),
        power_mw: Some(512_500),
        energy_mj: Some(7_200_000_123),
        temperature_c: Some(66),
        memory_temperature_c: Some(74),
        performance_state: Some(0),
        throttle: Some(ThrottleReasons(0x4 | 0x40)),
        recovery_action: Some(RecoveryAction::GpuReset),
        nvlink_tx_bytes: Some(1 << 40),
        nvlink_rx_bytes: Some(1 << 41),
        remapped_rows: Some(RemappedRows { corrected: 1, uncorrected: 2, pending: true, failed: false }),
        xids: Xids { counts: BTreeMap::from([(31, 2), (79, 1)]), last: Some((79, now)) },
        ..GpuReading::absent(info(uuid, index), GpuStatus::Ok)
    };
    gpu.info.domain =
        Some(NvLinkDomain { kind: DomainKind::MultiNode, id: "fabric/5".to_owned(), degraded: false });
    gpu.clocks = Clocks {
        sm_mhz: Some(1830),
        memory_mhz: Some(2619),
        graphics_mhz: Some(1830),
        video_mhz: Some(1545),
        max_sm_mhz: Some(1980),
        max_memory_mhz: Some(2619),
    };
    gpu.ecc = Ecc {
        enabled: Some(true),
        corrected_volatile: Some(3),
        uncorrected_volatile: Some(0),
        corrected_aggregate: Some(11),
        uncorrected_aggregate: Some(1),
    };
    gpu.activity = activity();
    let samples = |mean, max| Some(Samples { mean, max, count: 60, span: Duration::from_secs(10) });
    gpu.samples = BufferedSamples {
        utilization_percent: samples(88.25, 100),
        memory_activity_percent: samples(40.0, 55),
        power_mw: samples(498_000.0, 699_500),
    };
    gpu.video = Video { encoder_percent: Some(0), decoder_percent: Some(12) };
    gpu.retired_pages = RetiredPages { single_bit: Some(2), double_bit: Some(0), pending: Some(true) };
    gpu.pcie_replays = Some(4);
    gpu.unsupported.insert("fan_speed_percent");
    gpu.processes = Some([process(4711, Some(50 << 30)), process(4712, None)].into());
    gpu.mig = Some(Mig { enabled: false, pending: Some(true), instances: Vec::new() });
    gpu.facts = facts().into();
    interconnect(&mut gpu);
    Metric::ALL.iter().for_each(|metric| gpu.taken.set(*metric, Some(now)));
    gpu
}

/// The same GPU, cut into one instance.
pub(super) fn partitioned(uuid: &str, index: u32, now: Instant) -> GpuReading {
    let instance = MigInstance {
        uuid: GpuUuid::parse("MIG-1").unwrap(),
        gpu_instance_id: Some(9),
        compute_instance_id: Some(0),
        profile: Some("1g.10gb".to_owned()),
        memory_total_bytes: Some(10 << 30),
        memory_used_bytes: Some(1 << 30),
        activity: Activity { tensor: Ratio::new(0.125).ok(), ..Activity::default() },
    };
    let mig = Mig { enabled: true, pending: None, instances: vec![instance] };
    GpuReading { mig: Some(mig), ..full(uuid, index, now) }
}

pub(super) fn snapshot(gpus: Vec<GpuReading>, now: Instant) -> GpuSnapshot {
    let driver = DriverInfo { version: "580.95.05".to_owned(), cuda: Some("13.0".to_owned()) };
    GpuSnapshot { gpus, driver: Some(driver), ..GpuSnapshot::empty(now, SourceState::Healthy, None) }
}

pub(super) fn xid(number: u64, uuid: &str, code: u64, now: Instant) -> GpuEvent {
    GpuEvent { number, read: now, uuid: GpuUuid::parse(uuid).ok(), kind: GpuEventKind::Xid(code) }
}

fn activity() -> Activity {
    let share = |value| Ratio::new(value).ok();
    Activity {
        graphics: share(0.97),
        sm: share(0.9),
        sm_occupancy: share(0.5),
        tensor: share(0.25),
        dram: share(0.75),
        fp16: share(0.1),
        fp32: share(0.2),
        fp64: share(0.0),
        pcie_tx_bytes_per_second: Some(1_000_000),
        pcie_rx_bytes_per_second: Some(2_000_000),
        nvlink_tx_bytes_per_second: Some(102_400_000),
        nvlink_rx_bytes_per_second: Some(102_400_000),
        window: Some(Duration::from_secs(1)),
    }
}

fn process(pid: u32, memory_used_bytes: Option<u64>) -> GpuProcess {
    GpuProcess { pid, kind: GpuProcessKind::Compute, memory_used_bytes }
}

fn facts() -> GpuFacts {
    GpuFacts {
        architecture: Some("Hopper".to_owned()),
        compute_capability: Some((9, 0)),
        serial: Some("1650".to_owned()),
        board_part_number: Some("692-2G520".to_owned()),
        vbios: Some("96.00".to_owned()),
        minor: Some(5),
        numa_node: Some(1),
        module_id: Some(4),
        pcie: Pcie { generation: Some(5), width: Some(16), max_generation: Some(5), max_width: Some(16) },
        nvlinks: Some(1),
    }
}

fn interconnect(gpu: &mut GpuReading) {
    let remote = RemoteEnd { kind: RemoteKind::Switch, pci_bus_id: Some("00000000:07:00.0".to_owned()) };
    let link = NvLink {
        index: 0,
        active: Some(true),
        version: Some(7),
        remote: Some(remote),
        errors: link_errors(),
        traffic: LinkTraffic { tx_bytes: Some(5_000), rx_bytes: Some(6_000) },
    };
    gpu.links = [link].into();
    gpu.fabric = Some(Fabric {
        state: FabricState::Completed,
        status: 0,
        cluster_uuid: Some("fabric".to_owned()),
        clique_id: 5,
        health: FabricHealth { mask: Some(2), summary: Some(1) },
        version: 3,
    });
    gpu.platform = Some(Platform {
        chassis_serial: Some("1820".to_owned()),
        slot: 3,
        tray: 2,
        host: 1,
        peer_type: 1,
        module_id: 4,
    });
}

/// No link counts all of these; a page that shows them all misses none.
fn link_errors() -> LinkErrors {
    LinkErrors {
        replay: Some(1),
        recovery: Some(0),
        crc: Some(2),
        recovery_succeeded: Some(0),
        recovery_failed: Some(0),
        receive: Some(7),
        malformed: Some(0),
        overrun: Some(0),
        remote: Some(0),
        header: Some(0),
        integrity: Some(0),
        discarded: Some(0),
        effective: Some(0),
        symbol: Some(9),
    }
}
