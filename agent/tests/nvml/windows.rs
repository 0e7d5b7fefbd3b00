//! What is told of a stretch of time: the driver's own samples, and the activity of MIG instances.

use std::{collections::BTreeSet, time::Duration};

use plimsoll_agent::gpu::{Activity, GpuStatus, Metric, MigInstance, Samples, Stopped};
use plimsoll_common::wire::SourceState;

use crate::support::{Machine, PATIENCE, on_machines, until, until_gpu};

on_machines! {
    the_driver_s_samples_are_each_told_once on
        Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvml/square.toml")) => super::samples;
    instances_tell_their_own_activity on Some("hgx-h100-8") => super::instances;
    an_older_board_has_no_activity_of_instances on Some("hgx-a100-8") => super::blind_instances;
}

/// The driver of these machines takes a sample so often.
const PERIOD: Duration = Duration::from_millis(100);

async fn samples(machine: Machine) {
    let monitor = machine.calm_monitor();
    let first = until_gpu(&monitor, 0, |gpu| gpu.samples.utilization_percent.is_some()).await;
    let read = first.taken.of(Metric::Samples).unwrap();
    // What was in the buffer before the agent came is part of the first answer only.
    let second = until_gpu(&monitor, 0, |gpu| gpu.taken.of(Metric::Samples) > Some(read)).await;
    let between = second.taken.of(Metric::Samples).unwrap() - read;
    for found in [&second.samples.utilization_percent, &second.samples.memory_activity_percent] {
        covers(&found.unwrap(), between);
    }
    let utilization = second.samples.utilization_percent.unwrap();
    assert_eq!(utilization.max, 80);
    assert!((35.0..=65.0).contains(&utilization.mean), "{utilization:?}");
    assert!([Some(20), Some(80)].contains(&second.utilization_percent), "it is instantaneous: {second:?}");
    let power = second.samples.power_mw.unwrap();
    covers(&power, between);
    assert_eq!(power.max, 72_000 + 568_000 * 8 / 10);
    assert!(power.mean < power.max as f64 * 0.9, "{power:?}");
    assert_eq!((second.video.encoder_percent, second.video.decoder_percent), (Some(15), Some(35)));

    // A driver that took no new sample is not a fault, and the last window is not repeated.
    machine.say("fail nvmlDeviceGetSamples NOT_FOUND 0");
    let none = until_gpu(&monitor, 0, |gpu| gpu.samples.power_mw.is_none()).await;
    assert!(none.state == GpuStatus::Ok && none.taken.of(Metric::Samples).is_some(), "{none:?}");
    assert!(!none.unsupported.contains("power_samples"));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

/// Every sample since the last look, and none twice; a sample may be taken while the driver is asked.
fn covers(samples: &Samples, between: Duration) {
    let expected = between.as_secs_f64() / PERIOD.as_secs_f64();
    assert!((f64::from(samples.count) - expected).abs() <= 3.0, "{samples:?} of {between:?}");
    assert_eq!(samples.span, PERIOD * (samples.count - 1));
}

async fn instances(machine: Machine) {
    machine.say("mig 0 on 3g.40gb 1 1g.10gb 2");
    let monitor = machine.calm_monitor();
    let told = |instance: &MigInstance| instance.activity.sm.is_some();
    let split = until_gpu(&monitor, 0, |gpu| {
        gpu.mig.as_ref().is_some_and(|mig| mig.instances.len() == 3 && mig.instances.iter().all(told))
    })
    .await;
    for instance in &split.mig.as_ref().unwrap().instances {
        let Activity { tensor, dram, window, pcie_tx_bytes_per_second, .. } = instance.activity;
        assert!(tensor.is_some() && dram.is_some() && window >= Some(PERIOD), "{instance:?}");
        assert_eq!(pcie_tx_bytes_per_second, None, "throughput is metered for whole GPUs");
    }
    assert_eq!(split.state, GpuStatus::Ok);
    // The driver does not sample utilization of parts, but the board's power.
    assert!(
        split.unsupported.contains("utilization_samples") && split.samples.power_mw.is_some(),
        "{split:?}"
    );
    let sampled: BTreeSet<_> =
        machine.asked().iter().filter(|it| it.call == "nvmlGpmMigSampleGet").map(|it| it.device).collect();
    assert_eq!(sampled, BTreeSet::from([Some(0)]), "the others are whole");
    machine.say("mig 0 off");
    until_gpu(&monitor, 0, |gpu| {
        gpu.mig.as_ref().is_some_and(|mig| !mig.enabled && mig.instances.is_empty())
    })
    .await;
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn blind_instances(machine: Machine) {
    machine.say("mig 0 on 1g.10gb 1");
    let monitor = machine.calm_monitor();
    let split = until_gpu(&monitor, 0, |gpu| {
        gpu.unsupported.contains("mig_activity") && gpu.mig.as_ref().is_some_and(|mig| mig.enabled)
    })
    .await;
    assert_eq!(split.mig.unwrap().instances[0].activity, Activity::default());
    until(&monitor, |now| now.source == SourceState::Healthy).await;
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}
