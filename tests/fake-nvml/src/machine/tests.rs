use std::path::Path;

use super::*;
use crate::scenario::EccCounts;

fn machine(timeline: &str) -> (Machine, Scenario) {
    let text = format!("extends = \"hgx-h100-8\"\n{timeline}");
    let scenario = Scenario::parse(&text, "test", Path::new("")).unwrap();
    (Machine::new(&scenario, None), scenario)
}

fn tell(machine: &Machine, line: &str) {
    machine.lock().apply(&line.parse().unwrap(), 10.0);
}

fn version(machine: &Machine, scenario: &Scenario) -> Result<String, Code> {
    machine.attach(&scenario.driver).map(|(_, driver)| driver.nvml)
}

#[test]
fn a_timeline_is_played_by_time_and_by_calls() {
    let (machine, _) = machine(
        "[[timeline]]\nat_s = 30\ndo = [\"xid 3 79\"]\n\
         [[timeline]]\nat_s = 5\ndo = [\"ecc-rate 1 corrected 2\"]\n\
         [[timeline]]\nafter = { call = \"nvmlDeviceGetName\", count = 2 }\ndo = [\"remove 5\", \"lose 4\"]\n",
    );
    machine.look(4.9);
    assert_eq!(machine.next_event(), 0);
    assert!(machine.may_change());
    machine.count_call("nvmlDeviceGetName");
    machine.look(31.0);
    let xid = machine.event(0, |event| event.kind == 8).unwrap();
    assert_eq!((xid.board, xid.data, xid.number), (3, 79, 1), "the storm came first");
    assert!(machine.board(3, |board| board.lost));
    // The storm began when the timeline says, not when somebody looked.
    assert_eq!(machine.board(1, |board| board.ecc(31.0, EccCounts::default())).corrected_volatile, 52);
    assert_eq!(machine.present().len(), 8);
    machine.count_call("nvmlDeviceGetName");
    machine.look(31.0);
    assert_eq!(machine.present(), [0, 1, 2, 3, 4, 6, 7]);
    assert!(machine.board(4, |board| board.lost) && !machine.may_change());
}

#[test]
fn drivers_come_and_go() {
    let (machine, scenario) = machine("");
    let (life, _) = machine.attach(&scenario.driver).unwrap();
    assert_eq!(machine.is_alive(life), Ok(()));
    tell(&machine, "unload");
    assert_eq!(machine.is_alive(life), Err(Code::UNINITIALIZED));
    assert_eq!(version(&machine, &scenario), Err(Code::DRIVER_NOT_LOADED));
    tell(&machine, "load");
    assert_eq!(machine.is_alive(life), Err(Code::UNINITIALIZED));
    assert_eq!(version(&machine, &scenario).unwrap(), "13.580.95.05");
    tell(&machine, "upgrade 590.10");
    assert_eq!(version(&machine, &scenario), Err(Code::LIB_RM_VERSION_MISMATCH));
    tell(&machine, "library 590.10");
    assert_eq!(version(&machine, &scenario).unwrap(), "13.590.10");
}

#[test]
fn calls_hang_fail_and_cost() {
    let (machine, _) = machine("");
    tell(&machine, "hang nvmlDeviceGetPowerUsage 3");
    assert_eq!(machine.fate("nvmlDeviceGetPowerUsage", Some(3)), Fate::Hangs);
    assert_eq!(machine.fate("nvmlDeviceGetPowerUsage", Some(2)), Fate::Runs);
    assert_eq!(machine.fate("nvmlDeviceGetName", Some(3)), Fate::Runs);
    tell(&machine, "release nvmlDeviceGetName");
    assert_eq!(machine.fate("nvmlDeviceGetPowerUsage", Some(3)), Fate::Hangs);
    tell(&machine, "release");
    tell(&machine, "hang *");
    assert_eq!(machine.fate("nvmlInit_v2", None), Fate::Hangs);
    tell(&machine, "release *");
    tell(&machine, "fail nvmlDeviceGetName UNKNOWN");
    assert_eq!(machine.fate("nvmlDeviceGetName", Some(0)), Fate::Fails(Code::UNKNOWN));
    tell(&machine, "mend");
    assert_eq!(machine.fate("nvmlDeviceGetName", Some(0)), Fate::Runs);
    tell(&machine, "cost nvmlDeviceGetName 7");
    tell(&machine, "cost * 2");
    tell(&machine, "slow 3");
    let cost_us = |name, own| machine.cost(name, own).as_micros();
    assert_eq!(
        [cost_us("nvmlDeviceGetName", None), cost_us("nvmlShutdown", Some(4)), cost_us("nvmlShutdown", None)],
        [21, 12, 6]
    );
}

#[test]
fn what_happens_is_told() {
    let (machine, _) = machine("");
    for line in [
        "xid 1 43 7 0",
        "remap 1 0 1 pending",
        "remap 1 0 1 pending failed",
        "recovery 1 2",
        "mig 1 off",
        "lose 1",
    ] {
        tell(&machine, line);
    }
    let told: Vec<_> = (0..machine.next_event())
        .map(|number| machine.event(number, |_| true).unwrap())
        .map(|event| (event.kind, event.data, event.instance.0))
        .collect();
    let none = u32::MAX;
    assert_eq!(told, [(8, 43, 7), (0x400, 0, none), (0x800, 0, none), (0x8000, 2, none), (0x100, 0, none)]);
}

#[test]
fn old_events_make_room() {
    let (machine, _) = machine("");
    for _ in 0..MAX_EVENTS + 3 {
        tell(&machine, "xid 0 13");
    }
    assert_eq!(machine.event(0, |_| true).unwrap().number, 3);
    assert_eq!(machine.next_event(), MAX_EVENTS as u64 + 3);
}
