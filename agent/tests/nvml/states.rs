//! What can happen to GPUs and driver: every state is told, and everything comes back by itself.

use std::{sync::Arc, time::Duration};

use plimsoll_agent::gpu::{
    self, GpuEventKind, GpuOptions, GpuReading, GpuStatus, Metric, RecoveryAction, Stopped,
};
use plimsoll_common::wire::SourceState;
use tokio::time::Instant;

use crate::support::{Machine, PATIENCE, on_machines, until, until_gpu};

on_machines! {
    xid_79_loses_one_gpu on Some("hgx-h100-8") => super::xid_79;
    errors_are_counted_and_told on Some("hgx-h100-8") => super::errors;
    a_hung_call_is_seen_and_holds_nothing_up on Some("hgx-h100-8") => super::hang;
    a_reloaded_driver_is_found_again on Some("hgx-h100-8") => super::reload;
    an_upgraded_driver_needs_a_new_start on Some("hgx-h100-8") => super::upgrade;
    an_old_library_at_the_start_needs_a_new_start on Some("hgx-h100-8") => super::outdated;
    another_partition_is_seen on Some("hgx-h100-8") => super::mig;
    gpus_come_and_go on Some("hgx-h100-8") => super::hot_plug;
    gpus_come_and_go_where_every_call_is_slow on Some("hgx-h100-8") => super::slow_hot_plug;
    a_library_without_a_driver_is_unsupported on None => super::driverless;
}

async fn xid_79(machine: Machine) {
    let monitor = machine.monitor();
    let before = until(&monitor, |now| now.source == SourceState::Healthy).await;
    let uuid = before.gpus[3].info.uuid.clone();
    let said = Instant::now();
    machine.say("xid 3 79");
    let lost = until(&monitor, |now| !now.events.is_empty() && now.gpus[3].state == GpuStatus::Lost).await;
    assert!(lost.taken - said < Duration::from_secs(2), "{:?}", lost.taken - said);
    assert_eq!((lost.events[0].uuid.as_ref(), lost.events[0].kind), (Some(&uuid), GpuEventKind::Xid(79)));
    assert_eq!(lost.gpus[3].xids.counts.get(&79), Some(&1));
    assert_eq!((lost.gpus[3].power_mw, &lost.gpus[3].info.uuid), (None, &uuid));
    assert_eq!(lost.source, SourceState::Degraded);
    // The others are read on. A snapshot may show them as they were before the loss, if it came within a tick.
    let read_on = |gpu: &&GpuReading| gpu.info.uuid == uuid || gpu.taken.of(Metric::Power) > Some(lost.taken);
    let next = until(&monitor, |now| now.gpus.iter().filter(read_on).count() == now.gpus.len()).await;
    let others = next.gpus.iter().filter(|gpu| gpu.info.uuid != uuid);
    assert!(others.clone().count() == 7 && others.clone().all(|gpu| gpu.state == GpuStatus::Ok), "{next:?}");
    machine.say("return 3");
    let back = until(&monitor, |now| now.source == SourceState::Healthy).await;
    assert_eq!(back.gpus[3].info.uuid, uuid);
    assert_eq!(back.gpus[3].xids.counts.get(&79), Some(&1), "what was counted stays");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn errors(machine: Machine) {
    let monitor = machine.monitor();
    let before = until_gpu(&monitor, 1, |gpu| gpu.taken.of(Metric::Ecc).is_some()).await;
    assert_eq!(before.recovery_action, Some(RecoveryAction::None));
    machine.say("xid 1 48");
    machine.say("ecc 1 uncorrected 2");
    machine.say("recovery 1 1");
    machine.say("throttle 2 hw_thermal 600");
    machine.say("remap 4 1 2 pending");
    let after = until_gpu(&monitor, 1, |gpu| gpu.recovery_action == Some(RecoveryAction::GpuReset)).await;
    assert_eq!(after.state, GpuStatus::Ok);
    let rise = after.ecc.uncorrected_volatile.unwrap() - before.ecc.uncorrected_volatile.unwrap();
    assert_eq!((rise, after.xids.counts.get(&48)), (2, Some(&1)));
    let snapshot = until(&monitor, |now| now.events.len() >= 3).await;
    let kinds: Vec<GpuEventKind> = snapshot.events.iter().map(|event| event.kind).collect();
    for wanted in [GpuEventKind::Xid(48), GpuEventKind::DoubleBitEcc, GpuEventKind::RecoveryAction] {
        assert!(kinds.contains(&wanted), "{kinds:?}");
    }
    let named =
        |kind| snapshot.events.iter().find(|event| event.kind == kind).and_then(|event| event.uuid.as_ref());
    assert_eq!(named(GpuEventKind::Xid(48)), Some(&after.info.uuid));
    let hot = until_gpu(&monitor, 2, |gpu| gpu.throttle.is_some_and(|reasons| reasons.is_throttled())).await;
    assert!(hot.throttle.unwrap().names().any(|name| name == "hw_thermal_slowdown"), "{hot:?}");
    let remapped = until_gpu(&monitor, 4, |gpu| gpu.remapped_rows.is_some_and(|rows| rows.pending)).await;
    assert_eq!(remapped.remapped_rows.unwrap().uncorrected, 2);
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn hang(machine: Machine) {
    let monitor = machine.monitor();
    until(&monitor, |now| now.source == SourceState::Healthy).await;
    machine.say("hang nvmlDeviceGetMemoryInfo_v2");
    crate::support::until_it_holds("an overdue snapshot", || {
        let newest = Arc::clone(&monitor.snapshots().borrow());
        newest.as_of(Instant::now()).source == SourceState::Failed
    })
    .await;
    let newest = Arc::clone(&monitor.snapshots().borrow()).as_of(Instant::now());
    assert!(newest.detail.as_ref().unwrap().contains("memory_info"), "{:?}", newest.detail);
    assert_eq!(newest.gpus.len(), 8);
    assert!(newest.gpus.iter().all(|gpu| gpu.state == GpuStatus::Stale && gpu.power_mw.is_none()));
    // No other thread asks meanwhile, and the end does not wait.
    let asked = machine.asked().len();
    let stopping = Instant::now();
    assert_eq!(monitor.stop(Duration::from_millis(100)).await, Stopped::LeftBehind);
    assert!(stopping.elapsed() < Duration::from_secs(5));
    assert_eq!(machine.asked().len(), asked);
    machine.say("release");
}

async fn reload(machine: Machine) {
    let monitor = machine.monitor();
    let before = until(&monitor, |now| now.source == SourceState::Healthy).await;
    machine.say("unload");
    let down = until(&monitor, |now| now.source == SourceState::Failed).await;
    assert!(!down.restart_needed);
    assert!(down.gpus.iter().all(|gpu| gpu.state == GpuStatus::Stale && gpu.power_mw.is_none()), "{down:?}");
    assert_eq!(down.gpus.len(), 8, "they are still known by name");
    machine.say("load");
    let back = until(&monitor, |now| now.source == SourceState::Healthy).await;
    assert_eq!(back.inventory, before.inventory, "it is the same inventory");
    assert!(back.gpus.iter().all(|gpu| gpu.power_mw.is_some()));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn upgrade(machine: Machine) {
    let monitor = machine.monitor();
    until(&monitor, |now| now.source == SourceState::Healthy).await;
    machine.say("unload");
    until(&monitor, |now| now.source == SourceState::Failed).await;
    machine.say("upgrade 590.10");
    machine.say("load");
    let outdated = until(&monitor, |now| now.restart_needed).await;
    assert_eq!(outdated.source, SourceState::Failed);
    assert!(outdated.detail.as_ref().unwrap().contains("restart"), "{outdated:?}");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn outdated(machine: Machine) {
    machine.say("upgrade 590.10");
    let monitor = machine.monitor();
    let outdated = until(&monitor, |now| now.restart_needed).await;
    assert_eq!(outdated.source, SourceState::Failed);
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn mig(machine: Machine) {
    let monitor = machine.monitor();
    let whole = until_gpu(&monitor, 0, |gpu| gpu.mig.is_some()).await;
    assert!(!whole.mig.unwrap().enabled);
    machine.say("mig 0 on 3g.40gb 1 1g.10gb 2");
    let split = until_gpu(&monitor, 0, |gpu| {
        gpu.mig.as_ref().is_some_and(|mig| mig.enabled && mig.instances.len() == 3)
    })
    .await;
    let instances = split.mig.unwrap().instances;
    let mut profiles: Vec<&str> =
        instances.iter().filter_map(|instance| instance.profile.as_deref()).collect();
    profiles.sort_unstable();
    assert_eq!(profiles, ["1g.10gb", "1g.10gb", "3g.40gb"], "{instances:?}");
    assert!(instances.iter().all(|instance| instance.uuid.as_str().starts_with("MIG-")), "{instances:?}");
    assert!(instances.iter().all(|instance| instance.memory_total_bytes.is_some()), "{instances:?}");
    let blind = until_gpu(&monitor, 0, |gpu| gpu.unsupported.contains("utilization_percent")).await;
    assert_eq!((blind.utilization_percent, blind.state), (None, GpuStatus::Ok));
    machine.say("mig 0 off");
    let whole = until_gpu(&monitor, 0, |gpu| gpu.utilization_percent.is_some()).await;
    assert!(!whole.unsupported.contains("utilization_percent"));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn hot_plug(machine: Machine) {
    let monitor = machine.monitor();
    let before = until(&monitor, |now| now.source == SourceState::Healthy).await;
    let uuid = before.gpus[2].info.uuid.clone();
    machine.say("remove 2");
    let without = until(&monitor, |now| now.gpus.len() == 7).await;
    assert_eq!((without.absent.len(), &without.absent[0].info.uuid), (1, &uuid));
    assert!(without.gpus.iter().all(|gpu| gpu.info.uuid != uuid));
    assert!(without.inventory > before.inventory);
    machine.say("add 2");
    let back = until(&monitor, |now| now.gpus.len() == 8 && now.source == SourceState::Healthy).await;
    assert!(back.absent.is_empty());
    assert_eq!(back.gpus[2].info.uuid, uuid);
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

/// As on a machine so busy that calls are held up: what the GPUs that stayed are asked takes all of the budget.
async fn slow_hot_plug(machine: Machine) {
    for call in ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetFieldValues"] {
        machine.say(&format!("cost {call} 20000"));
    }
    hot_plug(machine).await;
}

async fn driverless(machine: Machine) {
    let monitor = machine.monitor();
    let snapshot = until(&monitor, |now| now.source != SourceState::Failed).await;
    assert_eq!(snapshot.source, SourceState::Unsupported);
    assert!(snapshot.detail.as_ref().unwrap().contains("modprobe nvidia"), "{snapshot:?}");
    assert!(snapshot.gpus.is_empty() && snapshot.driver.is_none(), "{snapshot:?}");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

#[tokio::test]
async fn a_missing_library_is_unsupported_and_says_what_to_do() {
    let library = Some("/nowhere/libnvidia-ml.so.1".into());
    let monitor = gpu::spawn(GpuOptions { library, ..GpuOptions::default() });
    let snapshot = until(&monitor, |now| now.source != SourceState::Failed).await;
    assert_eq!(snapshot.source, SourceState::Unsupported);
    let detail = snapshot.detail.as_ref().unwrap();
    assert!(detail.contains("/nowhere/libnvidia-ml.so.1") && detail.contains("--nvml-library"), "{detail}");
    assert!(snapshot.gpus.is_empty() && snapshot.driver.is_none(), "{snapshot:?}");
    let again = until(&monitor, |now| now.calls > snapshot.calls).await;
    assert_eq!(again.source, SourceState::Unsupported, "it was tried again");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}
