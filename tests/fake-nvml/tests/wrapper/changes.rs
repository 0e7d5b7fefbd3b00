//! What a client sees when the machine changes under it.

use std::io::Write as _;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use plimsoll_fake_nvml::{gpu_uuid, mig_uuid};

use crate::raw::field_of_link;
use crate::support::{library, now, nvml, variable};

const MIB: u64 = 1 << 20;

/// Appends a command to the control file.
fn control(line: &str) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(variable("CONTROL")).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// The library looks at the file every 20 ms of real time, so a change shows soon, not at once.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = now() + Duration::from_secs(20);
    while !holds() {
        assert!(now() < deadline, "{what}: never");
        std::thread::yield_now();
    }
}

fn uuid(number: usize) -> String {
    gpu_uuid("", "hgx-h100-8", number)
}

fn is_lost<T>(result: Result<T, NvmlError>) -> bool {
    matches!(result, Err(NvmlError::GpuLost))
}

pub(crate) fn a_gpu_falls_off_the_bus() {
    let nvml = nvml();
    let gpus: Vec<_> = (0..8).map(|index| nvml.device_by_index(index).unwrap()).collect();
    let mut set = nvml.create_event_set().unwrap();
    for gpu in &gpus {
        set = gpu.register_events(EventTypes::CRITICAL_XID_ERROR, set).unwrap();
    }
    control("xid 3 79");
    let event = set.wait(20_000).unwrap();
    assert!(matches!(event.event_data, Some(XidError::Value(79))), "{:?}", event.event_data);
    // The handle is that of the registration, but it can no longer be asked for its UUID.
    assert!(is_lost(event.device.uuid()));
    assert!(is_lost(gpus[3].power_usage()) && is_lost(nvml.device_by_index(3)));
    assert!(is_lost(nvml.device_by_uuid(uuid(3))));
    assert_eq!(nvml.device_count().unwrap(), 8);
    assert_eq!(nvml.device_by_uuid(uuid(4)).unwrap().index().unwrap(), 4);
    assert!(gpus[4].power_usage().is_ok());
    assert!(matches!(set.wait(50), Err(NvmlError::Timeout)), "told once");

    let before = gpus[4].total_energy_consumption().unwrap();
    control("return 3");
    eventually("the GPU returns", || nvml.device_by_uuid(uuid(3)).is_ok());
    assert!(is_lost(gpus[3].power_usage()), "a handle from before stays lost");
    let returned = nvml.device_by_index(3).unwrap();
    assert!(returned.total_energy_consumption().unwrap() < before, "it was reset");
    assert!(gpus[4].total_energy_consumption().unwrap() >= before, "the others were not");
}

pub(crate) fn gpus_are_removed_and_added() {
    let nvml = nvml();
    let sixth = nvml.device_by_index(6).unwrap();
    control("remove 5");
    eventually("a GPU is removed", || nvml.device_count().unwrap() == 7);
    assert_eq!(sixth.index().unwrap(), 5, "those behind it move down");
    assert_eq!(nvml.device_by_index(5).unwrap().uuid().unwrap(), uuid(6));
    assert!(matches!(nvml.device_by_index(7), Err(NvmlError::InvalidArg)));
    assert!(matches!(nvml.device_by_uuid(uuid(5)), Err(NvmlError::NotFound)));
    control("add 5");
    eventually("it is added again", || nvml.device_count().unwrap() == 8);
    assert_eq!(nvml.device_by_index(5).unwrap().uuid().unwrap(), uuid(5));
    control("remove *");
    eventually("all are removed", || nvml.device_count().unwrap() == 0);
}

pub(crate) fn the_driver_is_reloaded_and_upgraded() {
    let start = || Nvml::builder().lib_path(library().as_os_str()).init();
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    control("unload");
    eventually("the driver goes", || matches!(gpu.power_usage(), Err(NvmlError::Uninitialized)));
    assert!(matches!(nvml.device_count(), Err(NvmlError::Uninitialized)));
    nvml.shutdown().unwrap();
    assert!(matches!(start(), Err(NvmlError::DriverNotLoaded)));
    control("load");
    eventually("it returns", || start().is_ok());
    let nvml = start().unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
    control("upgrade 590.10");
    eventually("another driver runs", || matches!(nvml.device_count(), Err(NvmlError::Uninitialized)));
    nvml.shutdown().unwrap();
    assert!(matches!(start(), Err(NvmlError::LibRmVersionMismatch)));
    control("library 590.10");
    eventually("its library is there too", || start().is_ok());
    let nvml = start().unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "590.10");
    assert_eq!(nvml.sys_nvml_version().unwrap(), "13.590.10");
}

pub(crate) fn a_call_hangs_until_it_is_released() {
    let nvml = nvml();
    control("hang nvmlDeviceGetPowerUsage 2");
    control("fail nvmlDeviceGetName NO_PERMISSION 1");
    let first = nvml.device_by_index(1).unwrap();
    eventually("calls fail", || matches!(first.name(), Err(NvmlError::NoPermission)));
    assert!(first.power_usage().is_ok(), "only calls about the other GPU hang");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let hanging = nvml.device_by_index(2).unwrap();
        scope.spawn(move || sender.send(hanging.power_usage().is_ok()).unwrap());
        assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err(), "it hangs");
        assert!(first.power_usage().is_ok());
        control("release");
        assert!(receiver.recv_timeout(Duration::from_secs(20)).unwrap());
    });
}

pub(crate) fn errors_and_throttling_show() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    // At the first call, for the timeline has them at zero.
    assert_eq!(gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).unwrap(), 2);
    let corrected = || gpu.total_ecc_errors(MemoryError::Corrected, EccCounter::Aggregate).unwrap();
    let before = corrected();
    eventually("the storm goes on", || corrected() > before + 10);
    let fields = [142, 143, 144, 145, 230].map(FieldId);
    let read = || {
        gpu.field_values_for(&fields).unwrap().into_iter().map(|value| format!("{:?}", value.unwrap().value))
    };
    assert_eq!(
        read().collect::<Vec<_>>(),
        ["Ok(U32(1))", "Ok(U32(2))", "Ok(U32(1))", "Ok(U32(0))", "Ok(U32(1))"]
    );
    assert_eq!(gpu.clock_info(Clock::SM).unwrap(), 600);
    let reasons = gpu.current_throttle_reasons().unwrap();
    assert_eq!(reasons, ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::HW_SLOWDOWN);
    assert!(gpu.are_pages_pending_retired().unwrap());
    assert!(nvml.device_by_index(1).unwrap().are_pages_pending_retired().is_err());
    assert!(!gpu.link_wrapper_for(4).is_active().unwrap() && gpu.link_wrapper_for(5).is_active().unwrap());

    let link = |id, scope| field_of_link(&nvml, &gpu, id, scope);
    assert_eq!([link(163, 4), link(163, 5), link(161, 4)], [Ok(9), Ok(0), Ok(0)]);
    assert_eq!(
        [link(215, 4), link(165, 4), link(165, 5)],
        [Err(3), Ok(0), Ok(1)],
        "NVLink 4 has fewer counters"
    );

    control("pcie-replays 0 4");
    eventually("PCIe repeats transfers", || gpu.pcie_replay_counter().unwrap() == 4);
    assert_eq!(
        format!("{:?}", gpu.field_values_for(&[FieldId(94)]).unwrap()[0].as_ref().unwrap().value),
        "Ok(U32(4))"
    );

    control("throttle 0 off");
    control("reset 0");
    let uncorrected = || gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).unwrap();
    eventually("a reset clears them", || uncorrected() == 0);
    assert!(gpu.clock_info(Clock::SM).unwrap() > 600 && corrected() > before);
    assert_eq!(read().collect::<Vec<_>>()[2..], ["Ok(U32(0))", "Ok(U32(0))", "Ok(U32(0))"]);
    assert_eq!(gpu.pcie_replay_counter().unwrap(), 0);
}

pub(crate) fn errors_of_nvlink_5() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(1).unwrap();
    let link = |id, scope| field_of_link(&nvml, &gpu, id, scope);
    assert_eq!([link(161, 5), link(163, 5)], [Err(3), Err(3)], "older counters are gone");
    for line in ["symbol 9", "recovery 2", "recovery-failed 1", "receive 4"] {
        control(&format!("link-errors 1 5 {line}"));
    }
    eventually("errors are counted", || link(208, 5) == Ok(4));
    assert_eq!([link(213, 5), link(214, 5), link(215, 5), link(221, 5)], [Ok(2), Ok(1), Ok(3), Ok(9)]);
    assert_eq!([link(219, 5), link(221, 6)], [Ok(0), Ok(0)]);
}

pub(crate) fn a_gpu_is_split() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.mig_device_by_index(0), Err(NvmlError::NotFound)));
    control("mig 0 on 3g.40gb 1 1g.10gb 4");
    eventually("the GPU is split", || gpu.mig_mode().unwrap().current == 1);
    assert!(matches!(gpu.utilization_rates(), Err(NvmlError::NotSupported)));
    let devices: Vec<_> = (0..5).map(|index| gpu.mig_device_by_index(index).unwrap()).collect();
    assert!(gpu.mig_device_by_index(5).is_err());
    let (half, small) = (&devices[0], &devices[1]);
    assert_eq!(half.name().unwrap(), "NVIDIA H100 80GB HBM3 MIG 3g.40gb");
    assert_eq!(half.uuid().unwrap(), mig_uuid(&uuid(0), 1, 0));
    assert_eq!(nvml.device_by_uuid(mig_uuid(&uuid(0), 7, 0)).unwrap().uuid().unwrap(), small.uuid().unwrap());
    let memory = small.memory_info().unwrap();
    assert_eq!((memory.total, memory.total), (81_559 / 8 * MIB, memory.used + memory.free + memory.reserved));
    let attributes = small.attributes().unwrap();
    assert_eq!((attributes.multiprocessor_count, attributes.memory_size_mb), (16, 81_559 / 8));
    assert_eq!(half.mig_parent_device().unwrap().uuid().unwrap(), uuid(0));
    assert!(half.power_usage().is_err(), "the board is metered, not its parts");
    let processes = small.running_compute_processes().unwrap();
    assert_eq!((processes.len(), processes[0].pid, processes[0].gpu_instance_id), (1, 77, Some(7)));
    assert!(half.running_compute_processes().unwrap().is_empty());

    let earlier = gpu.gpm_mig_sample(1).unwrap();
    assert!(gpu.gpm_mig_sample(2).is_err(), "there is no such instance");
    std::thread::sleep(Duration::from_millis(120));
    let later = gpu.gpm_mig_sample(1).unwrap();
    let metrics = [GpmMetricId::SmUtil, GpmMetricId::PcieTxPerSec];
    let busy = nvml_wrapper::gpm::gpm_metrics_get(&nvml, &earlier, &later, &metrics).unwrap();
    assert!(busy[0].as_ref().unwrap().value > 0.0);
    assert!(busy[1].is_err(), "throughput is metered for whole GPUs");

    control("mig 0 off");
    eventually("it is whole again", || gpu.mig_mode().unwrap().current == 0);
    assert!(small.name().is_err(), "handles of a layout end with it");
    assert!(gpu.utilization_rates().is_ok());
}
