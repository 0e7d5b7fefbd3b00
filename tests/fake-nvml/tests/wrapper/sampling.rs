//! What moves: load, power, energy, counters, GPM.

use std::time::Duration;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, Sampling, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};
use plimsoll_fake_nvml::gpu_uuid;

use crate::support::{now, nvml, variable};

const MIB: u64 = 1 << 20;

pub(crate) fn board() {
    let nvml = nvml();
    for index in 0..nvml.device_count().unwrap() {
        let gpu = nvml.device_by_index(index).unwrap();
        let utilization = gpu.utilization_rates().unwrap();
        assert!((30..=90).contains(&utilization.gpu), "{}", utilization.gpu);
        assert!(utilization.memory < utilization.gpu);
        let memory = gpu.memory_info().unwrap();
        assert_eq!(memory.total, memory.used + memory.free + memory.reserved);
        assert!(memory.used > 60_000 * MIB);
        let power = gpu.power_usage().unwrap();
        assert!(power > 100_000 && power < gpu.enforced_power_limit().unwrap());
        assert!((30..80).contains(&gpu.temperature(TemperatureSensor::Gpu).unwrap()));
        assert!(gpu.clock_info(Clock::SM).unwrap() <= gpu.max_clock_info(Clock::SM).unwrap());
        assert_eq!(gpu.current_throttle_reasons().unwrap(), ThrottleReasons::empty());
        samples_buffer(&gpu);
        field_values(&gpu);
    }
}

fn samples_buffer(gpu: &Device<'_>) {
    let samples = gpu.samples(Sampling::GpuUtilization, None).unwrap();
    assert!(samples.len() > 100);
    assert!(samples.is_sorted_by_key(|sample| sample.timestamp));
    assert!(samples.iter().all(|sample| matches!(sample.value, SampleValue::U32(0..=100))));
    let last = samples.last().unwrap().timestamp;
    assert!(gpu.samples(Sampling::GpuUtilization, last - 1_000_000).unwrap().len() <= 20);
}

/// One batch: memory temperature, energy, power average and instant, PCIe, NVLink, recovery action, and one unknown.
fn field_values(gpu: &Device<'_>) {
    let ids = [82, 83, 185, 186, 197, 198, 138, 139, 230, 9999].map(FieldId);
    let values = gpu.field_values_for(&ids).unwrap();
    let mut read = values.into_iter().map(|value| value.unwrap().value);
    assert!(matches!(read.next().unwrap(), Ok(SampleValue::U32(30..=110))));
    assert!(matches!(read.next().unwrap(), Ok(SampleValue::U64(_))));
    for _ in 0..2 {
        assert!(matches!(read.next().unwrap(), Ok(SampleValue::U32(100_000..=1_200_000))));
    }
    for _ in 0..4 {
        assert!(matches!(read.next().unwrap(), Ok(SampleValue::U64(_))));
    }
    assert!(matches!(read.next().unwrap(), Ok(SampleValue::U32(0))));
    assert!(read.next().unwrap().is_err());
}

pub(crate) fn gpm() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(1).unwrap();
    let metrics = [
        GpmMetricId::GraphicsUtil,
        GpmMetricId::SmUtil,
        GpmMetricId::AnyTensorUtil,
        GpmMetricId::DramBwUtil,
        GpmMetricId::NvlinkTotalTxPerSec,
        GpmMetricId::NvlinkL0TxPerSec,
    ];
    let between = |earlier: &_, later: &_| gpm_metrics_get(&nvml, earlier, later, &metrics).unwrap();
    let first = gpu.gpm_sample().unwrap();
    let too_soon = gpu.gpm_sample().unwrap();
    assert!(
        between(&first, &too_soon).iter().all(Result::is_err),
        "the counters have not been refreshed yet"
    );
    // The driver's refresh is a matter of real time, so real time must pass.
    std::thread::sleep(Duration::from_millis(150));
    let second = gpu.gpm_sample().unwrap();
    let values: Vec<f64> = between(&first, &second).into_iter().map(|value| value.unwrap().value).collect();
    let graphics = f64::from(gpu.utilization_rates().unwrap().gpu);
    assert!((values[0] - graphics).abs() < 3.0, "{} against {graphics}", values[0]);
    for (value, share) in [(values[1], 0.85), (values[2], 0.40), (values[3], 0.60)] {
        assert!((value - values[0] * share).abs() < 1e-6);
    }
    assert!(values[4] > 1000.0 && (values[5] * 18.0 - values[4]).abs() < 1e-3 * values[4]);
    assert!(gpm_metrics_get(&nvml, &second, &first, &metrics).is_err(), "samples in the wrong order");
}

pub(crate) fn pcie_throughput_blocks() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let began = now();
    let kib_per_s = gpu.pcie_throughput(PcieUtilCounter::Receive).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!((200 * 1024..1000 * 1024).contains(&kib_per_s), "{kib_per_s}");
}

pub(crate) fn a_shared_epoch_goes_on() {
    let energy_kj = nvml().device_by_index(0).unwrap().total_energy_consumption().unwrap() / 1_000_000;
    // An hour at a mean of 60 %: 72 W + 0.6 × 568 W.
    assert!((1440..1550).contains(&energy_kj), "{energy_kj} kJ");
}

pub(crate) fn engines_drive_their_gpus() {
    let uuid = gpu_uuid("", "hgx-h100-8", 2);
    let pid = std::process::id();
    std::fs::write(variable("ACTIVITY"), format!("nonsense\n{uuid} util=75 mem_used=5000000000 pid={pid}\n"))
        .unwrap();
    let nvml = nvml();
    let gpu = nvml.device_by_uuid(uuid.as_str()).unwrap();
    assert_eq!(gpu.utilization_rates().unwrap().gpu, 75);
    assert_eq!(gpu.memory_info().unwrap().used, 5_000_000_000);
    assert_eq!(gpu.power_usage().unwrap(), 72_000 + 568_000 * 3 / 4);
    let processes = gpu.running_compute_processes().unwrap();
    assert_eq!((processes.len(), processes[0].pid), (1, pid));
    assert!(nvml.sys_process_name(pid, 512).unwrap().contains("wrapper"));
    let idle = nvml.device_by_index(3).unwrap();
    assert_eq!((idle.utilization_rates().unwrap().gpu, idle.power_usage().unwrap()), (0, 72_000));
    assert_eq!(idle.current_throttle_reasons().unwrap(), ThrottleReasons::GPU_IDLE);

    // A change is seen within a look, which is due every 100 ms.
    std::fs::write(variable("ACTIVITY"), format!("{uuid} util=10 mem_used=6000000000\n")).unwrap();
    let deadline = now() + Duration::from_secs(10);
    while gpu.utilization_rates().unwrap().gpu != 10 {
        assert!(now() < deadline, "the change is not seen");
        std::thread::yield_now();
    }
    energy_only_grows(&nvml);
}

fn energy_only_grows(nvml: &Nvml) {
    let gpu = nvml.device_by_index(2).unwrap();
    let energies: Vec<u64> = (0..1000).map(|_| gpu.total_energy_consumption().unwrap()).collect();
    assert!(energies.is_sorted());
}

pub(crate) fn processes() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(1).unwrap();
    let processes = gpu.running_compute_processes().unwrap();
    assert_eq!((processes.len(), processes[0].pid), (1, 77));
    assert_eq!(processes[0].used_gpu_memory, UsedGpuMemory::Used(70_000 * MIB));
    assert_eq!(gpu.running_compute_processes_count().unwrap(), 1);
    assert_eq!(nvml.sys_process_name(77, 64).unwrap(), "/opt/vllm/worker");
    let used = gpu.process_utilization_stats(None).unwrap();
    assert_eq!((used[0].pid, used[0].sm_util, used[0].mem_util), (77, 80, 44));
    assert!(nvml.device_by_index(0).unwrap().running_compute_processes().unwrap().is_empty());
    assert!(nvml.device_by_index(0).unwrap().process_utilization_stats(None).is_err());
}

pub(crate) fn video_engines() {
    let nvml = nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.encoder_utilization().unwrap().utilization, 15);
    assert_eq!(gpu.decoder_utilization().unwrap().utilization, 35);
    let samples = gpu.samples(Sampling::DecoderUtilization, None).unwrap();
    assert!(samples.iter().all(|sample| matches!(sample.value, SampleValue::U32(35))));
    let last = samples.last().unwrap().timestamp;
    let none_yet = gpu.samples(Sampling::DecoderUtilization, last + 60_000_000);
    assert!(matches!(none_yet, Err(NvmlError::NotFound)), "{none_yet:?}");
}
