//! The time in NVML calls is bounded, however slow they are.

use std::time::Duration;

use plimsoll_agent::gpu::{Metric, Stopped, Tier};
use plimsoll_common::wire::SourceState;

use crate::support::{Machine, PATIENCE, on_machines, until};

on_machines! {
    slow_calls_are_made_less_often on Some("hgx-h100-8") => super::slow_calls;
}

const SLOW: &str = "nvmlDeviceGetUtilizationRates";
const COST: Duration = Duration::from_millis(2);

async fn slow_calls(machine: Machine) {
    let monitor = machine.monitor_every(Duration::from_secs(1));
    until(&monitor, |now| now.source == SourceState::Healthy).await;
    machine.say(&format!("cost {SLOW} {}", COST.as_micros()));
    let stretched = until(&monitor, |now| now.governor.tiers.iter().any(|tier| tier.stretch > 2.0)).await;
    assert!(stretched.governor.reason.is_some(), "{:?}", stretched.governor);
    // Two windows of ten seconds after it was learned.
    let later = until(&monitor, |now| now.taken > stretched.taken + Duration::from_secs(20)).await;
    assert!(later.governor.deferred >= stretched.governor.deferred);
    let calls: Vec<Duration> =
        machine.asked().iter().filter(|asked| asked.call == SLOW).map(|asked| asked.at).collect();
    let last = calls[calls.len() - 1];
    let within = |window: Duration| {
        let ends = calls.iter().filter(|at| **at + Duration::from_secs(10) > last);
        ends.map(|end| calls.iter().filter(|at| **at <= *end && **at + window > *end).count() as u32)
            .max()
            .unwrap()
    };
    let (second, window) = (within(Duration::from_secs(1)), within(Duration::from_secs(10)));
    assert!(COST * second <= Duration::from_millis(10), "{second} calls in a second");
    assert!(COST * window <= Duration::from_millis(50), "{window} calls in ten seconds");
    // Nothing starves.
    for gpu in &later.gpus {
        let age = later.taken - gpu.taken.of(Metric::Utilization).unwrap();
        assert!(age <= Duration::from_secs(13), "{age:?}");
        assert!(gpu.power_mw.is_some(), "{gpu:?}");
    }
    // And it recovers.
    machine.say(&format!("cost {SLOW} 2"));
    let fast = until(&monitor, |now| {
        now.taken > later.taken
            && now.governor.tiers.iter().all(|tier| tier.tier != Tier::Fast || tier.stretch <= 1.0)
    })
    .await;
    assert_eq!(fast.governor.dear, []);
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}
