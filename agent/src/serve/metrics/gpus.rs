//! What each GPU is and does.

use plimsoll_common::units::Ratio;
use plimsoll_shell::metrics::{
    Label, MetricPage,
    MetricType::{self, Counter, Gauge},
};

use super::{Row, states};
use crate::gpu::{GpuReading, GpuSnapshot, GpuStatus};

/// A family with one sample a GPU.
struct Field {
    name: &'static str,
    metric_type: MetricType,
    help: &'static str,
    value: fn(&GpuReading) -> Option<f64>,
}

macro_rules! fields {
    ($($metric_type:ident $name:literal $help:literal $value:expr;)*) => {
        &[$(Field { name: $name, metric_type: $metric_type, help: $help, value: $value },)*]
    };
}

const FIELDS: &[Field] = fields! {
    Gauge "plimsoll_gpu_utilization_ratio" "Share of time in which a kernel ran, 0 to 1."
        |g| ratio(g.utilization_percent);
    Gauge "plimsoll_gpu_memory_activity_ratio"
        "Share of time in which device memory was read or written, 0 to 1."
        |g| ratio(g.memory_activity_percent);
    Gauge "plimsoll_gpu_utilization_window_mean_ratio"
        "Share of time in which a kernel ran: the mean of what the driver sampled since it was asked before."
        |g| g.samples.utilization_percent.map(|samples| samples.mean / 100.0);
    Gauge "plimsoll_gpu_utilization_window_max_ratio" "The greatest of the same samples."
        |g| ratio(g.samples.utilization_percent.map(|samples| samples.max));
    Gauge "plimsoll_gpu_memory_activity_window_mean_ratio"
        "Share of time in which device memory was read or written: the mean of what the driver sampled."
        |g| g.samples.memory_activity_percent.map(|samples| samples.mean / 100.0);
    Gauge "plimsoll_gpu_memory_activity_window_max_ratio" "The greatest of the same samples."
        |g| ratio(g.samples.memory_activity_percent.map(|samples| samples.max));
    Gauge "plimsoll_gpu_power_window_mean_watts" "Power draw: the mean of what the driver sampled."
        |g| g.samples.power_mw.map(|samples| samples.mean / 1e3);
    Gauge "plimsoll_gpu_power_window_max_watts" "The greatest of the same samples."
        |g| thousandth(g.samples.power_mw.map(|samples| samples.max));
    Gauge "plimsoll_gpu_encoder_utilization_ratio" "Share of time in which the video encoders were busy."
        |g| ratio(g.video.encoder_percent);
    Gauge "plimsoll_gpu_decoder_utilization_ratio" "Share of time in which the video decoders were busy."
        |g| ratio(g.video.decoder_percent);
    Gauge "plimsoll_gpu_memory_used_bytes" "Frame buffer in use." |g| number(g.memory_used_bytes);
    Gauge "plimsoll_gpu_memory_reserved_bytes" "Frame buffer that the driver reserves for itself."
        |g| number(g.memory_reserved_bytes);
    Gauge "plimsoll_gpu_memory_size_bytes" "Frame buffer size." |g| number(g.info.memory_total_bytes);
    Gauge "plimsoll_gpu_power_watts" "Power draw." |g| thousandth(g.power_mw);
    Gauge "plimsoll_gpu_power_limit_watts" "Enforced power limit." |g| thousandth(g.info.power_limit_mw);
    Counter "plimsoll_gpu_energy_joules_total" "Energy used since the driver was loaded."
        |g| thousandth(g.energy_mj);
    Gauge "plimsoll_gpu_temperature_celsius" "GPU temperature." |g| g.temperature_c.map(|t| t as f64);
    Gauge "plimsoll_gpu_memory_temperature_celsius" "Temperature of the device memory."
        |g| g.memory_temperature_c.map(|t| t as f64);
    Gauge "plimsoll_gpu_performance_state" "Performance state, 0 (fastest) to 15."
        |g| g.performance_state.map(f64::from);
    Gauge "plimsoll_gpu_sm_clock_hertz" "Clock of the streaming multiprocessors." |g| hertz(g.clocks.sm_mhz);
    Gauge "plimsoll_gpu_sm_clock_max_hertz" "Highest clock of the streaming multiprocessors."
        |g| hertz(g.clocks.max_sm_mhz);
    Gauge "plimsoll_gpu_memory_clock_hertz" "Clock of the device memory." |g| hertz(g.clocks.memory_mhz);
    Gauge "plimsoll_gpu_memory_clock_max_hertz" "Highest clock of the device memory."
        |g| hertz(g.clocks.max_memory_mhz);
    Gauge "plimsoll_gpu_graphics_clock_hertz" "Graphics clock." |g| hertz(g.clocks.graphics_mhz);
    Gauge "plimsoll_gpu_video_clock_hertz" "Clock of the video engines." |g| hertz(g.clocks.video_mhz);
    Gauge "plimsoll_gpu_graphics_activity_ratio" "Share of time in which the compute or graphics engine was active."
        |g| g.activity.graphics.map(Ratio::get);
    Gauge "plimsoll_gpu_sm_activity_ratio"
        "Share of time in which a multiprocessor had a warp, averaged over them."
        |g| g.activity.sm.map(Ratio::get);
    Gauge "plimsoll_gpu_sm_occupancy_ratio" "Resident warps over the most possible, averaged over multiprocessors."
        |g| g.activity.sm_occupancy.map(Ratio::get);
    Gauge "plimsoll_gpu_tensor_activity_ratio" "Share of time in which the tensor cores were active."
        |g| g.activity.tensor.map(Ratio::get);
    Gauge "plimsoll_gpu_dram_activity_ratio" "Share of the device memory's bandwidth in use."
        |g| g.activity.dram.map(Ratio::get);
    Gauge "plimsoll_gpu_fp16_activity_ratio" "Share of time in which the FP16 pipe was active."
        |g| g.activity.fp16.map(Ratio::get);
    Gauge "plimsoll_gpu_fp32_activity_ratio" "Share of time in which the FP32 pipe was active."
        |g| g.activity.fp32.map(Ratio::get);
    Gauge "plimsoll_gpu_fp64_activity_ratio" "Share of time in which the FP64 pipe was active."
        |g| g.activity.fp64.map(Ratio::get);
    Gauge "plimsoll_gpu_pcie_transmit_bytes_per_second" "Bytes a second sent over PCIe."
        |g| number(g.activity.pcie_tx_bytes_per_second);
    Gauge "plimsoll_gpu_pcie_receive_bytes_per_second" "Bytes a second received over PCIe."
        |g| number(g.activity.pcie_rx_bytes_per_second);
    Gauge "plimsoll_gpu_nvlink_transmit_bytes_per_second" "Bytes a second sent over all NVLinks."
        |g| number(g.activity.nvlink_tx_bytes_per_second);
    Gauge "plimsoll_gpu_nvlink_receive_bytes_per_second" "Bytes a second received over all NVLinks."
        |g| number(g.activity.nvlink_rx_bytes_per_second);
    Counter "plimsoll_gpu_nvlink_transmit_bytes_total"
        "Payload sent over all NVLinks since the driver was loaded." |g| number(g.nvlink_tx_bytes);
    Counter "plimsoll_gpu_nvlink_receive_bytes_total"
        "Payload received over all NVLinks since the driver was loaded." |g| number(g.nvlink_rx_bytes);
    Counter "plimsoll_gpu_pcie_replays_total"
        "Transfers over PCIe that had to be repeated since the driver was loaded." |g| number(g.pcie_replays);
    Gauge "plimsoll_gpu_pcie_link_generation" "Generation of the PCIe link now; it falls while the GPU is idle."
        |g| g.facts.pcie.generation.map(f64::from);
    Gauge "plimsoll_gpu_pcie_link_generation_max" "The best PCIe generation that GPU and slot support."
        |g| g.facts.pcie.max_generation.map(f64::from);
    Gauge "plimsoll_gpu_pcie_link_lanes" "Lanes of the PCIe link now." |g| g.facts.pcie.width.map(f64::from);
    Gauge "plimsoll_gpu_pcie_link_lanes_max" "The most PCIe lanes that GPU and slot support."
        |g| g.facts.pcie.max_width.map(f64::from);
};

pub(super) fn write(page: &mut MetricPage, rows: &[Row<'_>], snapshot: &GpuSnapshot) {
    info(page, rows);
    state(page, rows, snapshot);
    for field in FIELDS {
        let mut family = page.family(field.name, field.metric_type, field.help);
        for row in rows {
            family.maybe(&row.labels(), (field.value)(row.gpu));
        }
    }
    processes(page, rows);
}

fn info(page: &mut MetricPage, rows: &[Row<'_>]) {
    let mut info = page.family("plimsoll_gpu_info", Gauge, "What a GPU is; always 1.");
    for row in rows {
        let facts = &row.gpu.facts;
        let text = |value: Option<String>| value.unwrap_or_default();
        let minor = text(facts.minor.map(|n| n.to_string()));
        let numa = text(facts.numa_node.map(|n| n.to_string()));
        let capability = text(facts.compute_capability.map(|(major, minor)| format!("{major}.{minor}")));
        let labels = row.with([
            ("name", row.gpu.info.name.as_deref().unwrap_or("")),
            ("pci_bus_id", row.gpu.info.pci_bus_id.as_deref().unwrap_or("")),
            ("architecture", facts.architecture.as_deref().unwrap_or("")),
            ("compute_capability", &capability),
            ("serial", facts.serial.as_deref().unwrap_or("")),
            ("minor", &minor),
            ("numa_node", &numa),
        ]);
        info.sample(&labels, 1u64);
    }
}

/// A GPU that the driver no longer lists keeps its state, `absent`, for a while; what a GPU does not support is told
/// apart from what is missing now.
fn state(page: &mut MetricPage, rows: &[Row<'_>], snapshot: &GpuSnapshot) {
    let gone: Vec<_> = snapshot.absent.iter().map(|gone| (gone, gone.info.index.to_string())).collect();
    let here = rows.iter().map(|row| (row.labels().to_vec(), row.gpu.state.as_str()));
    let absent = gone.iter().map(|(gone, index)| -> (Vec<Label<'_>>, &'static str) {
        (vec![("gpu", index.as_str()), ("uuid", gone.info.uuid.as_str())], "absent")
    });
    let all: Vec<_> = GpuStatus::ALL.map(GpuStatus::as_str).into_iter().chain(["absent"]).collect();
    let help = "How a GPU is seen; 1 for the state that holds.";
    states(page, "plimsoll_gpu_state", help, &here.chain(absent).collect::<Vec<_>>(), &all);
    let help = "A field that this GPU or its driver does not have; always 1.";
    let mut family = page.family("plimsoll_gpu_unsupported_info", Gauge, help);
    for row in rows {
        for field in &row.gpu.unsupported {
            family.sample(&row.with([("field", field)]), 1u64);
        }
    }
}

fn processes(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "Processes on the GPU.";
    let mut family = page.family("plimsoll_gpu_processes", Gauge, help);
    for row in rows {
        family.maybe(&row.labels(), row.gpu.processes.as_ref().map(|all| all.len()));
    }
    let help = "Device memory that a process uses; the process id is the host's.";
    let mut family = page.family("plimsoll_gpu_process_memory_bytes", Gauge, help);
    for row in rows {
        for process in row.gpu.processes.iter().flat_map(|all| all.iter()) {
            let pid = process.pid.to_string();
            let labels = row.with([("pid", &pid), ("kind", process.kind.as_str())]);
            family.maybe(&labels, process.memory_used_bytes);
        }
    }
}

fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn ratio(percent: Option<u64>) -> Option<f64> {
    percent.map(|percent| percent as f64 / 100.0)
}

fn thousandth(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64 / 1e3)
}

fn hertz(mhz: Option<u64>) -> Option<f64> {
    mhz.map(|mhz| mhz as f64 * 1e6)
}
