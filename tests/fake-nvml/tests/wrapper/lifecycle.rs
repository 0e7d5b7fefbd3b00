//! Starting, stopping, failing, and what is logged of it.

use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::error::NvmlError;

use crate::support::{library, now, nvml, variable};

pub(crate) fn calls_are_logged() {
    {
        let nvml = nvml();
        let gpu = nvml.device_by_index(6).unwrap();
        gpu.power_usage().unwrap();
        gpu.power_usage().unwrap();
    }
    let text = std::fs::read_to_string(variable("CALL_LOG")).unwrap();
    let calls: Vec<String> = text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(calls.first().unwrap(), "nvmlInit_v2 -");
    assert_eq!(calls.last().unwrap(), "nvmlShutdown -");
    assert_eq!(calls.iter().filter(|call| *call == "nvmlDeviceGetPowerUsage 6").count(), 2);
    let stamps = text.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert!(stamps.is_sorted());
}

pub(crate) fn calls_cost() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let began = now();
    for _ in 0..4 {
        gpu.power_usage().unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(20));
}

pub(crate) fn events_time_out() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let types = gpu.supported_event_types().unwrap();
    assert!(types.contains(EventTypes::CRITICAL_XID_ERROR));
    let set = gpu.register_events(types, nvml.create_event_set().unwrap()).unwrap();
    let began = now();
    assert!(matches!(set.wait(30), Err(NvmlError::Timeout)));
    assert!(began.elapsed() >= Duration::from_millis(30));
    set.release_events().unwrap();
}

pub(crate) fn no_driver() {
    let result = Nvml::builder().lib_path(library().as_os_str()).init();
    assert!(matches!(result, Err(NvmlError::DriverNotLoaded)));
}

pub(crate) fn wrong_scenario() {
    let result = Nvml::builder().lib_path(library().as_os_str()).init();
    assert!(matches!(result, Err(NvmlError::Unknown)));
    // Once the file is mended, the next attempt succeeds.
    std::fs::write(variable("SCENARIO"), "extends = \"hgx-h100-8\"\n").unwrap();
    assert_eq!(nvml().device_count().unwrap(), 8);
}

pub(crate) fn counters_outlive_a_shutdown() {
    let energy = |nvml: &Nvml| nvml.device_by_index(0).unwrap().total_energy_consumption().unwrap();
    let first = nvml();
    let second = nvml();
    std::thread::sleep(Duration::from_millis(20));
    let before = energy(&first);
    assert!(before > 0);
    drop(second);
    assert!(energy(&first) >= before, "one user is left");
    drop(first);
    assert!(energy(&nvml()) >= before, "the board has not been switched off");
}
