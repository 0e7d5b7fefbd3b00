//! On request nothing of the driver is held, for a bounded time.

use std::time::Duration;

use plimsoll_agent::gpu::{GpuControl, GpuStatus, Stopped};
use plimsoll_common::wire::SourceState;

use crate::support::{Machine, PATIENCE, on_machines, until};

on_machines! {
    a_release_unloads_and_comes_back_by_itself on Some("hgx-h100-8") => super::comes_back;
    a_release_ends_when_it_is_resumed on Some("hgx-h100-8") => super::resumed;
}

async fn comes_back(machine: Machine) {
    let monitor = machine.monitor();
    until(&monitor, |now| now.source == SourceState::Healthy).await;
    let length = Duration::from_secs(2);
    assert_eq!(monitor.control().release(length), Ok(length));
    let free = until(&monitor, |now| now.release.is_some()).await;
    let release = free.release.unwrap();
    assert_eq!((release.until - release.since, free.source), (length, SourceState::Degraded));
    assert!(free.gpus.iter().all(|gpu| gpu.state == GpuStatus::Stale && gpu.power_mw.is_none()), "{free:?}");
    assert_eq!(machine.asked().last().unwrap().call, "nvmlShutdown");
    let back = until(&monitor, |now| now.source == SourceState::Healthy).await;
    assert_eq!(back.release, None);
    assert!(back.taken >= release.until);
    let asked = machine.asked();
    let shut = asked.iter().position(|asked| asked.call == "nvmlShutdown").unwrap();
    let pause = asked[shut + 1].at - asked[shut].at;
    assert!(
        pause >= Duration::from_millis(1_900),
        "a call {pause:?} after the release began: {:?}",
        asked[shut + 1]
    );
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn resumed(machine: Machine) {
    let monitor = machine.monitor();
    until(&monitor, |now| now.source == SourceState::Healthy).await;
    let control = monitor.control();
    assert_eq!(
        control.release(Duration::from_secs(86_400)),
        Ok(GpuControl::LONGEST_RELEASE),
        "it is bounded"
    );
    let free = until(&monitor, |now| now.release.is_some()).await.release.unwrap();
    assert_eq!(free.until - free.since, GpuControl::LONGEST_RELEASE);
    control.resume().unwrap();
    let back = until(&monitor, |now| now.source == SourceState::Healthy).await;
    assert!(back.taken < free.until);
    // A resume without a release changes nothing.
    control.resume().unwrap();
    let next = until(&monitor, |now| now.taken > back.taken).await;
    assert_eq!(next.source, SourceState::Healthy);
    // And an agent that is stopped while the driver is free ends at once.
    control.release(GpuControl::DEFAULT_RELEASE).unwrap();
    until(&monitor, |now| now.release.is_some()).await;
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}
