//! Counters that tell of wear and faults: links, PCIe, retired pages.

use plimsoll_agent::gpu::{GpuReading, LinkErrors, Metric, RetiredPages, Stopped};

use crate::support::{Machine, PATIENCE, on_machines, until_gpu};

on_machines! {
    an_nvlink_5_counts_what_it_counts on Some("gb200-tray") => super::nvlink_5;
    an_nvlink_4_counts_what_it_counts on Some("hgx-h100-8") => super::nvlink_4;
    replays_and_retired_pages_are_told on Some("hgx-a100-8") => super::board;
}

fn links_are_known(gpu: &GpuReading) -> bool {
    gpu.taken.of(Metric::LinkErrors).is_some()
}

async fn nvlink_5(machine: Machine) {
    for error in ["symbol 9", "recovery 2", "recovery-failed 1", "receive 4", "discarded 3"] {
        machine.say(&format!("link-errors 1 5 {error}"));
    }
    let monitor = machine.calm_monitor();
    let gpu = until_gpu(&monitor, 1, links_are_known).await;
    let link = &gpu.links[5];
    let errors = LinkErrors {
        recovery: Some(3),
        recovery_succeeded: Some(2),
        recovery_failed: Some(1),
        receive: Some(4),
        discarded: Some(3),
        symbol: Some(9),
        malformed: Some(0),
        overrun: Some(0),
        remote: Some(0),
        header: Some(0),
        integrity: Some(0),
        effective: Some(0),
        replay: None,
        crc: None,
    };
    assert_eq!((link.version, link.errors), (Some(7), errors));
    assert!(link.traffic.tx_bytes.is_some() && link.traffic.rx_bytes.is_some(), "{link:?}");
    assert_eq!(gpu.links[6].errors.symbol, Some(0));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn nvlink_4(machine: Machine) {
    machine.say("link-errors 1 5 crc 9");
    let monitor = machine.calm_monitor();
    let gpu = until_gpu(&monitor, 1, links_are_known).await;
    let link = &gpu.links[5];
    let errors = LinkErrors { replay: Some(0), recovery: Some(0), crc: Some(9), ..LinkErrors::default() };
    assert_eq!((link.version, link.errors), (Some(6), errors));
    assert_eq!((link.traffic.tx_bytes, link.traffic.rx_bytes), (None, None));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

async fn board(machine: Machine) {
    machine.say("pcie-replays 2 4");
    machine.say("retire 3 2 1 pending");
    let monitor = machine.calm_monitor();
    let asked = |gpu: &GpuReading| gpu.taken.of(Metric::Ecc).is_some();
    let replayed = until_gpu(&monitor, 2, asked).await;
    assert_eq!(replayed.pcie_replays, Some(4));
    assert_eq!(replayed.retired_pages, RetiredPages::default());
    assert!(replayed.unsupported.contains("retired_pages"), "it replaces rows: {replayed:?}");
    let retired = until_gpu(&monitor, 3, asked).await;
    let pages = RetiredPages { single_bit: Some(2), double_bit: Some(1), pending: Some(true) };
    assert_eq!((retired.retired_pages, retired.pcie_replays), (pages, Some(0)));
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}
