//! The names, labels and units of NVIDIA's dcgm-exporter, for dashboards, alert rules and clients that ask for them.
//!
//! What the exporter calls a counter is called one here, whether or not its name ends in `_total`. A value that is absent
//! has no sample: the exporter's blank sentinels are not imitated.

use std::collections::BTreeSet;

use plimsoll_common::units::Ratio;
use plimsoll_shell::metrics::{
    Family, Label, MetricPage,
    MetricType::{self, Counter, Gauge},
};

use super::Row;
use crate::{
    attribution::{Attribution, PodRef},
    gpu::{GpuReading, GpuSnapshot, MigInstance},
};

const MIB: f64 = 1024.0 * 1024.0;

struct Field {
    name: &'static str,
    metric_type: MetricType,
    help: &'static str,
    value: fn(&GpuReading) -> Option<f64>,
}

macro_rules! fields {
    ($($metric_type:ident $name:ident $help:literal $value:expr;)*) => {
        &[$(Field { name: stringify!($name), metric_type: $metric_type, help: $help, value: $value },)*]
    };
}

/// What is told of whole GPUs.
const FIELDS: &[Field] = fields! {
    Gauge DCGM_FI_DEV_SM_CLOCK "SM clock (MHz)." |g| number(g.clocks.sm_mhz);
    Gauge DCGM_FI_DEV_MEM_CLOCK "Memory clock (MHz)." |g| number(g.clocks.memory_mhz);
    Gauge DCGM_FI_DEV_VIDEO_CLOCK "Video clock (MHz)." |g| number(g.clocks.video_mhz);
    Gauge DCGM_FI_DEV_MAX_SM_CLOCK "Highest SM clock (MHz)." |g| number(g.clocks.max_sm_mhz);
    Gauge DCGM_FI_DEV_MAX_MEM_CLOCK "Highest memory clock (MHz)." |g| number(g.clocks.max_memory_mhz);
    Gauge DCGM_FI_DEV_MEMORY_TEMP "Memory temperature (C)." |g| g.memory_temperature_c.map(|t| t as f64);
    Gauge DCGM_FI_DEV_GPU_TEMP "GPU temperature (C)." |g| g.temperature_c.map(|t| t as f64);
    Gauge DCGM_FI_DEV_POWER_USAGE "Power draw (W)." |g| g.power_mw.map(|mw| mw as f64 / 1e3);
    Gauge DCGM_FI_DEV_ENFORCED_POWER_LIMIT "Power limit that holds (W)."
        |g| g.info.power_limit_mw.map(|mw| mw as f64 / 1e3);
    Counter DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION "Energy used since the driver was loaded (mJ)."
        |g| number(g.energy_mj);
    Gauge DCGM_FI_DEV_PSTATE "Performance state, 0 to 15." |g| g.performance_state.map(f64::from);
    Gauge DCGM_FI_DEV_GPU_UTIL "GPU utilization (%)." |g| number(g.utilization_percent);
    Gauge DCGM_FI_DEV_MEM_COPY_UTIL "Memory utilization (%)." |g| number(g.memory_activity_percent);
    Gauge DCGM_FI_DEV_CLOCK_THROTTLE_REASONS "Why clocks are held down: NVML's bits."
        |g| g.throttle.map(|reasons| reasons.0 as f64);
    Gauge DCGM_FI_DEV_CLOCKS_EVENT_REASONS "Why clocks are held down: NVML's bits."
        |g| g.throttle.map(|reasons| reasons.0 as f64);
    Gauge DCGM_FI_DEV_XID_ERRORS "The newest XID since the agent started; 0: none." |g| last_xid(g);
    Counter DCGM_FI_DEV_ECC_SBE_VOL_TOTAL "Single-bit memory errors since the driver was loaded."
        |g| number(g.ecc.corrected_volatile);
    Counter DCGM_FI_DEV_ECC_DBE_VOL_TOTAL "Double-bit memory errors since the driver was loaded."
        |g| number(g.ecc.uncorrected_volatile);
    Counter DCGM_FI_DEV_ECC_SBE_AGG_TOTAL "Single-bit memory errors over the board's life."
        |g| number(g.ecc.corrected_aggregate);
    Counter DCGM_FI_DEV_ECC_DBE_AGG_TOTAL "Double-bit memory errors over the board's life."
        |g| number(g.ecc.uncorrected_aggregate);
    Counter DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS "Rows replaced because of uncorrectable errors."
        |g| g.remapped_rows.as_ref().map(|rows| rows.uncorrected as f64);
    Counter DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS "Rows replaced because of correctable errors."
        |g| g.remapped_rows.as_ref().map(|rows| rows.corrected as f64);
    Gauge DCGM_FI_DEV_ROW_REMAP_FAILURE "Whether a row could not be replaced."
        |g| g.remapped_rows.as_ref().map(|rows| flag(rows.failed));
    Gauge DCGM_FI_DEV_ROW_REMAP_PENDING "Whether a reset is needed to replace rows."
        |g| g.remapped_rows.as_ref().map(|rows| flag(rows.pending));
    Gauge DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL "NVLink traffic of all lanes, both ways (MB/s); a rate, as DCGM computes it."
        |g| nvlink_rate(g);
    Gauge DCGM_FI_DEV_MIG_MODE "Whether MIG is on." |g| g.mig.as_ref().map(|mig| flag(mig.enabled));
    Gauge DCGM_FI_PROF_GR_ENGINE_ACTIVE "Share of time in which the graphics engine was active."
        |g| ratio(g.activity.graphics);
    Gauge DCGM_FI_PROF_SM_ACTIVE "Share of cycles in which an SM had a warp." |g| ratio(g.activity.sm);
    Gauge DCGM_FI_PROF_SM_OCCUPANCY "Share of the warps that an SM can hold." |g| ratio(g.activity.sm_occupancy);
    Gauge DCGM_FI_PROF_PIPE_TENSOR_ACTIVE "Share of cycles in which the tensor pipe was active."
        |g| ratio(g.activity.tensor);
    Gauge DCGM_FI_PROF_DRAM_ACTIVE "Share of cycles in which the device memory sent or received."
        |g| ratio(g.activity.dram);
    Gauge DCGM_FI_PROF_PIPE_FP64_ACTIVE "Share of cycles in which the FP64 pipe was active."
        |g| ratio(g.activity.fp64);
    Gauge DCGM_FI_PROF_PIPE_FP32_ACTIVE "Share of cycles in which the FP32 pipe was active."
        |g| ratio(g.activity.fp32);
    Gauge DCGM_FI_PROF_PIPE_FP16_ACTIVE "Share of cycles in which the FP16 pipe was active."
        |g| ratio(g.activity.fp16);
    Gauge DCGM_FI_PROF_PCIE_TX_BYTES "Bytes a second sent over PCIe." |g| number(g.activity.pcie_tx_bytes_per_second);
    Gauge DCGM_FI_PROF_PCIE_RX_BYTES "Bytes a second received over PCIe."
        |g| number(g.activity.pcie_rx_bytes_per_second);
    Gauge DCGM_FI_PROF_NVLINK_TX_BYTES "Bytes a second sent over NVLink."
        |g| number(g.activity.nvlink_tx_bytes_per_second);
    Gauge DCGM_FI_PROF_NVLINK_RX_BYTES "Bytes a second received over NVLink."
        |g| number(g.activity.nvlink_rx_bytes_per_second);
};

struct MemoryField {
    name: &'static str,
    help: &'static str,
    /// MiB from bytes in use and bytes in all.
    mib: fn(used: Option<u64>, total: Option<u64>) -> Option<f64>,
}

/// What is told of whole GPUs, and of MIG instances in their place where a GPU is partitioned.
const MEMORY: [MemoryField; 3] = [
    MemoryField {
        name: "DCGM_FI_DEV_FB_FREE",
        help: "Frame buffer that is free (MiB).",
        mib: |used, total| Some(total?.saturating_sub(used?) as f64 / MIB),
    },
    MemoryField {
        name: "DCGM_FI_DEV_FB_USED",
        help: "Frame buffer in use (MiB).",
        mib: |used, _| Some(used? as f64 / MIB),
    },
    MemoryField {
        name: "DCGM_FI_DEV_FB_TOTAL",
        help: "Frame buffer in all (MiB).",
        mib: |_, total| Some(total? as f64 / MIB),
    },
];

pub(super) fn write(
    page: &mut MetricPage,
    rows: &[Row<'_>],
    snapshot: &GpuSnapshot,
    attribution: &Attribution,
    node: &str,
) {
    let driver = snapshot.driver.as_ref().map_or("", |driver| driver.version.as_str());
    let common: Vec<_> = rows.iter().map(|row| Common::new(row, attribution, node, driver)).collect();
    for field in FIELDS {
        let mut family = page.family(field.name, field.metric_type, field.help);
        for gpu in &common {
            gpu.samples(&mut family, None, (field.value)(gpu.row.gpu));
        }
    }
    for field in MEMORY {
        let mut family = page.family(field.name, Gauge, field.help);
        for gpu in &common {
            let reading = gpu.row.gpu;
            let Some(mig) = reading.mig.as_ref().filter(|mig| mig.enabled) else {
                let mib = (field.mib)(reading.memory_used_bytes, reading.info.memory_total_bytes);
                gpu.samples(&mut family, None, mib);
                continue;
            };
            for instance in &mig.instances {
                let id = instance.gpu_instance_id.map_or_else(String::new, |id| id.to_string());
                let mib = (field.mib)(instance.memory_used_bytes, instance.memory_total_bytes);
                gpu.samples(&mut family, Some((instance, &id)), mib);
            }
        }
    }
}

/// A GPU's labels, in the exporter's order.
struct Common<'a> {
    row: &'a Row<'a>,
    device: String,
    node: &'a str,
    driver: &'a str,
    pods: &'a [PodRef],
}

impl<'a> Common<'a> {
    fn new(row: &'a Row<'a>, attribution: &'a Attribution, node: &'a str, driver: &'a str) -> Self {
        let minor = row.gpu.facts.minor.unwrap_or(row.gpu.info.index);
        let pods = attribution.gpus.get(&row.gpu.info.uuid).map_or(&[][..], Vec::as_slice);
        Self { row, device: format!("nvidia{minor}"), node, driver, pods }
    }

    /// A sample, or, where containers have the GPU or this part of it, one for each of them.
    fn samples(&self, family: &mut Family<'_>, instance: Option<(&MigInstance, &str)>, value: Option<f64>) {
        let Some(value) = value else { return };
        let part = instance.map(|(instance, _)| instance.uuid.as_str());
        let name = |name: &'a Option<String>| name.as_deref().unwrap_or("");
        let containers: BTreeSet<_> = self
            .pods
            .iter()
            .filter(|pod| part.is_none_or(|part| pod.mig.as_deref() == Some(part)))
            .map(|pod| (name(&pod.container), name(&pod.namespace), name(&pod.pod)))
            .collect();
        let labels = self.labels(instance);
        if containers.is_empty() {
            family.sample(&labels, value);
        }
        for (container, namespace, pod) in containers {
            let more = [("container", container), ("namespace", namespace), ("pod", pod)];
            family.sample(&[labels.as_slice(), &more].concat(), value);
        }
    }

    fn labels<'b>(&'b self, instance: Option<(&'b MigInstance, &'b str)>) -> Vec<Label<'b>> {
        let info = &self.row.gpu.info;
        let mut labels = vec![
            ("gpu", self.row.index.as_str()),
            ("UUID", info.uuid.as_str()),
            ("pci_bus_id", info.pci_bus_id.as_deref().unwrap_or("")),
            ("device", &self.device),
            ("modelName", info.name.as_deref().unwrap_or("")),
        ];
        if let Some((instance, id)) = instance {
            labels.push(("GPU_I_PROFILE", instance.profile.as_deref().unwrap_or("")));
            labels.push(("GPU_I_ID", id));
        }
        labels.extend([("Hostname", self.node), ("DCGM_FI_DRIVER_VERSION", self.driver)]);
        labels
    }
}

/// 0 where no XID came, as the exporter tells it; absent where the GPU does not tell of XIDs.
fn last_xid(gpu: &GpuReading) -> Option<f64> {
    let told = !gpu.unsupported.contains("events");
    told.then(|| gpu.xids.last.map_or(0.0, |(xid, _)| xid as f64))
}

/// DCGM divides KiB a second by 1000 and calls it a counter; dashboards show the value as it is.
fn nvlink_rate(gpu: &GpuReading) -> Option<f64> {
    let sent = gpu.activity.nvlink_tx_bytes_per_second?;
    let received = gpu.activity.nvlink_rx_bytes_per_second?;
    Some((sent + received) as f64 / 1024.0 / 1000.0)
}

fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn ratio(value: Option<Ratio>) -> Option<f64> {
    value.map(Ratio::get)
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
