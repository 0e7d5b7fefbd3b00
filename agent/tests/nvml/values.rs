//! Healthy machines tell everything, and are asked only what is planned.

use std::{collections::BTreeSet, time::Duration};

use plimsoll_agent::gpu::{
    Call, FabricState, GpuReading, GpuSnapshot, GpuStatus, Metric, RemoteKind, Stopped,
};
use plimsoll_common::wire::SourceState;

use crate::support::{Machine, PATIENCE, on_machines, until, until_gpu};

on_machines! {
    an_hgx_board_is_read_whole on Some("hgx-h100-8") => super::hgx;
    a_gb200_tray_is_read_whole on Some("gb200-tray") => super::gb200;
    an_older_board_tells_what_it_has on Some("hgx-a100-8") => super::a100;
    the_driver_sees_only_what_is_planned on Some("hgx-h100-8") => super::planned;
}

fn check_inventory(snapshot: &GpuSnapshot, gpus: usize) {
    assert_eq!(snapshot.gpus.len(), gpus);
    let uuids: BTreeSet<&str> = snapshot.gpus.iter().map(|gpu| gpu.info.uuid.as_str()).collect();
    assert_eq!(uuids.len(), gpus, "{uuids:?}");
    assert!(uuids.iter().all(|uuid| uuid.starts_with("GPU-")), "{uuids:?}");
    let slots: BTreeSet<&str> =
        snapshot.gpus.iter().map(|gpu| gpu.info.pci_bus_id.as_deref().unwrap()).collect();
    assert_eq!(slots.len(), gpus, "{slots:?}");
    assert!(snapshot.gpus.iter().map(|gpu| gpu.info.index).eq(0..gpus as u32));
}

fn check_values(gpu: &GpuReading) {
    let total = gpu.info.memory_total_bytes.unwrap();
    let limit = gpu.info.power_limit_mw.unwrap();
    assert_eq!((gpu.state, &gpu.trouble), (GpuStatus::Ok, &None), "{gpu:?}");
    assert!(gpu.utilization_percent.unwrap() <= 100, "{gpu:?}");
    assert!(gpu.memory_activity_percent.unwrap() <= 100, "{gpu:?}");
    assert!((1..=total).contains(&gpu.memory_used_bytes.unwrap()), "{gpu:?}");
    assert!((20_000..=limit).contains(&gpu.power_mw.unwrap()), "{gpu:?}");
    assert!((15..=95).contains(&gpu.temperature_c.unwrap()), "{gpu:?}");
}

/// What every data-center GPU tells, slow tiers and facts included.
fn check_all(gpu: &GpuReading) {
    check_values(gpu);
    assert!(gpu.energy_mj.unwrap() > 0, "{gpu:?}");
    assert!((15..=110).contains(&gpu.memory_temperature_c.unwrap()), "{gpu:?}");
    let clocks = &gpu.clocks;
    assert!((100..=clocks.max_sm_mhz.unwrap()).contains(&clocks.sm_mhz.unwrap()), "{gpu:?}");
    assert!(clocks.memory_mhz.is_some() && clocks.graphics_mhz.is_some(), "{gpu:?}");
    assert!(gpu.throttle.is_some() && gpu.performance_state.is_some(), "{gpu:?}");
    assert_eq!(gpu.ecc.enabled, Some(true));
    assert!(gpu.ecc.uncorrected_volatile.is_some() && gpu.remapped_rows.is_some(), "{gpu:?}");
    assert!(gpu.processes.is_some() && gpu.recovery_action.is_some(), "{gpu:?}");
    let facts = &gpu.facts;
    assert!(facts.architecture.is_some() && facts.serial.is_some() && facts.minor.is_some(), "{gpu:?}");
    assert!(facts.compute_capability.is_some() && facts.vbios.is_some(), "{gpu:?}");
    assert!(facts.pcie.generation <= facts.pcie.max_generation && facts.pcie.width.is_some(), "{gpu:?}");
    assert!(facts.numa_node.is_some(), "{gpu:?}");
}

/// Whether all has been asked once.
fn is_complete(gpu: &GpuReading) -> bool {
    let skipped = [
        Metric::PerformanceState,
        Metric::GraphicsProcesses,
        Metric::Activity,
        Metric::Fabric,
        Metric::Mig,
        // No GPU of these machines is partitioned.
        Metric::MigActivity,
    ];
    let asked = |metric: &Metric| gpu.taken.of(*metric).is_some() || skipped.contains(metric);
    Metric::ALL.iter().all(asked)
        && gpu.facts.vbios.is_some()
        && gpu.links.iter().all(|link| link.remote.is_some())
}

async fn hgx(machine: Machine) {
    let monitor = machine.calm_monitor();
    let mut snapshot = until(&monitor, |now| now.source == SourceState::Healthy).await;
    check_inventory(&snapshot, 8);
    let driver = snapshot.driver.as_ref().unwrap();
    assert_eq!((driver.version.as_str(), driver.cuda.as_deref()), ("580.95.05", Some("13.0")));
    for gpu in &snapshot.gpus {
        assert_eq!(gpu.info.name.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(gpu.info.power_limit_mw, Some(700_000));
        assert!((79 << 30..=80 << 30).contains(&gpu.info.memory_total_bytes.unwrap()), "{gpu:?}");
    }
    for _ in 0..3 {
        snapshot.gpus.iter().for_each(check_values);
        let next = until(&monitor, |now| now.taken > snapshot.taken).await;
        assert!(next.calls > snapshot.calls && next.tick_busy <= next.busy);
        assert_eq!(next.inventory, 1);
        snapshot = next;
    }
    let complete = |now: &std::sync::Arc<GpuSnapshot>| {
        now.gpus.iter().all(|gpu| is_complete(gpu) && gpu.activity.window.is_some())
    };
    let snapshot = until(&monitor, complete).await;
    for gpu in &snapshot.gpus {
        check_all(gpu);
        let activity = &gpu.activity;
        assert!(activity.sm.is_some() && activity.tensor.is_some() && activity.dram.is_some(), "{gpu:?}");
        assert!(activity.window.unwrap() >= Duration::from_millis(100), "{gpu:?}");
        assert_eq!((gpu.links.len(), gpu.facts.nvlinks), (18, Some(18)));
        for link in gpu.links.iter() {
            assert_eq!(link.active, Some(true), "{link:?}");
            assert_eq!(link.remote.as_ref().unwrap().kind, RemoteKind::Switch, "{link:?}");
        }
        let fabric = gpu.fabric.as_ref().unwrap();
        assert_eq!((fabric.state, &fabric.cluster_uuid, fabric.version), (FabricState::Completed, &None, 3));
    }
    let uuid_calls = snapshot.costs.iter().find(|cost| cost.call == Call::DeviceUuid).unwrap();
    assert_eq!((uuid_calls.calls, uuid_calls.failures), (8, 0));
    let mut histograms = 0;
    snapshot.latencies.each(|call, histogram| {
        let cost = snapshot.costs.iter().find(|cost| cost.call == call).unwrap();
        assert!(histogram.count() >= cost.calls, "{}", call.as_str());
        histograms += 1;
    });
    assert!(histograms > 20, "{histograms}");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn gb200(machine: Machine) {
    let monitor = machine.calm_monitor();
    let snapshot = until(&monitor, |now| !now.gpus.is_empty() && now.gpus.iter().all(is_complete)).await;
    check_inventory(&snapshot, 4);
    for gpu in &snapshot.gpus {
        check_all(gpu);
        assert_eq!(gpu.info.name.as_deref(), Some("NVIDIA GB200"));
        let fabric = gpu.fabric.as_ref().unwrap();
        assert_eq!(fabric.state, FabricState::Completed);
        assert_eq!(fabric.cluster_uuid.as_ref().map(String::len), Some(36), "{fabric:?}");
        let platform = gpu.platform.as_ref().unwrap();
        assert!(platform.chassis_serial.is_some(), "{platform:?}");
        assert_eq!(gpu.facts.module_id, Some(u32::from(platform.module_id)));
    }
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn a100(machine: Machine) {
    let monitor = machine.monitor();
    let gpu =
        until_gpu(&monitor, 0, |gpu| gpu.unsupported.contains("sm_activity") && gpu.temperature_c.is_some())
            .await;
    check_values(&gpu);
    assert_eq!((gpu.activity.sm, &gpu.fabric), (None, &None));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn planned(machine: Machine) {
    let monitor = machine.monitor();
    // Until everything was asked of somebody once; where calls are slow, not all of it is known at any one time.
    let mut left: Vec<Metric> =
        Metric::ALL.iter().copied().filter(|metric| *metric != Metric::MigActivity).collect();
    until(&monitor, |now| {
        left.retain(|metric| now.gpus.iter().all(|gpu| gpu.taken.of(*metric).is_none()));
        left.is_empty()
    })
    .await;
    let first = until(&monitor, |_| true).await;
    until(&monitor, |now| now.taken > first.taken + Duration::from_secs(5)).await;
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
    let asked = machine.asked();
    assert_eq!(asked.last().unwrap().call, "nvmlShutdown", "the driver is released at the end");
    let names: BTreeSet<&str> = asked.iter().map(|asked| asked.call.as_str()).collect();
    assert!(!names.contains("nvmlDeviceGetPcieThroughput"), "{names:?}");
    assert!(names.iter().all(|name| !name.contains("Set") || name.starts_with("nvmlEventSet")), "{names:?}");
    for device in 0..8 {
        let samples: Vec<Duration> = asked
            .iter()
            .filter(|asked| asked.call == "nvmlGpmSampleGet" && asked.device == Some(device))
            .map(|asked| asked.at)
            .collect();
        assert!(samples.len() > 5, "{}", samples.len());
        let closest = samples.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
        assert!(closest >= Duration::from_millis(100), "{closest:?} between two samples");
    }
    let lists: Vec<Duration> =
        asked.iter().filter(|asked| asked.call.contains("RunningProcesses")).map(|asked| asked.at).collect();
    let seconds = (lists[lists.len() - 1] - lists[0]).as_secs_f64();
    assert!(lists.len() as f64 <= seconds * 3.0 + 3.0, "{} process queries in {seconds} s", lists.len());
}
