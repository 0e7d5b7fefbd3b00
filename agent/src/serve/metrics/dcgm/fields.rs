//! The exporter's fields: name, unit and where the value is.

use plimsoll_common::units::Ratio;
use plimsoll_shell::metrics::MetricType::{self, Counter, Gauge};

use crate::gpu::{Activity, GpuReading, LinkErrors, MigInstance, NvLink};

const MIB: f64 = 1024.0 * 1024.0;

/// What is told of whole GPUs only.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) metric_type: MetricType,
    pub(super) help: &'static str,
    pub(super) value: fn(&GpuReading) -> Option<f64>,
}

macro_rules! fields {
    ($($metric_type:ident $name:ident $help:literal $value:expr;)*) => {
        &[$(Field { name: stringify!($name), metric_type: $metric_type, help: $help, value: $value },)*]
    };
}

/// What is told of whole GPUs only.
pub(super) const FIELDS: &[Field] = fields! {
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
    Gauge DCGM_FI_DEV_ENC_UTIL "Encoder utilization (%)." |g| number(g.video.encoder_percent);
    Gauge DCGM_FI_DEV_DEC_UTIL "Decoder utilization (%)." |g| number(g.video.decoder_percent);
    Counter DCGM_FI_DEV_PCIE_REPLAY_COUNTER "PCIe transfers that had to be repeated." |g| number(g.pcie_replays);
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
    Counter DCGM_FI_DEV_RETIRED_SBE "Pages retired because of single-bit errors."
        |g| number(g.retired_pages.single_bit);
    Counter DCGM_FI_DEV_RETIRED_DBE "Pages retired because of double-bit errors."
        |g| number(g.retired_pages.double_bit);
    Counter DCGM_FI_DEV_RETIRED_PENDING "Whether a page waits for a reset to be retired."
        |g| g.retired_pages.pending.map(flag);
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
    Counter DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL "NVLink retries, all links." |g| links(g, |it| it.replay);
    Counter DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL "NVLink recoveries, all links."
        |g| links(g, |it| it.recovery);
    Counter DCGM_FI_DEV_NVLINK_ERROR_DL_CRC "NVLink checksum errors, all links." |g| links(g, |it| it.crc);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_ERRORS "NVLink packets received with errors, all links (NVLink 5)."
        |g| links(g, |it| it.receive);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_MALFORMED_PACKET_ERRORS "Malformed NVLink packets received, all links."
        |g| links(g, |it| it.malformed);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_BUFFER_OVERRUN_ERRORS "NVLink packets without room for them, all links."
        |g| links(g, |it| it.overrun);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_REMOTE_ERRORS "NVLink packets that the sender marked as bad, all links."
        |g| links(g, |it| it.remote);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_GENERAL_ERRORS "NVLink packets with a header mismatch, all links."
        |g| links(g, |it| it.header);
    Counter DCGM_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS "Local NVLink errors beyond a threshold, all links."
        |g| links(g, |it| it.integrity);
    Counter DCGM_FI_DEV_NVLINK_COUNT_TX_DISCARDS "NVLink packets discarded instead of sent, all links."
        |g| links(g, |it| it.discarded);
    Counter DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS "NVLink recoveries that succeeded, all links."
        |g| links(g, |it| it.recovery_succeeded);
    Counter DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS "NVLink recoveries that failed, all links."
        |g| links(g, |it| it.recovery_failed);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_SYMBOL_ERRORS "Errors in NVLink symbols, all links."
        |g| links(g, |it| it.symbol);
    Counter DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS "NVLink errors that remained after correction, all links."
        |g| links(g, |it| it.effective);
    Counter DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES "Bytes sent over NVLink, all links (NVLink 5)."
        |g| all(g, |link| link.traffic.tx_bytes);
    Counter DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES "Bytes received over NVLink, all links (NVLink 5)."
        |g| all(g, |link| link.traffic.rx_bytes);
    Gauge DCGM_FI_DEV_MIG_MODE "Whether MIG is on." |g| g.mig.as_ref().map(|mig| flag(mig.enabled));
    Gauge DCGM_FI_PROF_PCIE_TX_BYTES "Bytes a second sent over PCIe." |g| number(g.activity.pcie_tx_bytes_per_second);
    Gauge DCGM_FI_PROF_PCIE_RX_BYTES "Bytes a second received over PCIe."
        |g| number(g.activity.pcie_rx_bytes_per_second);
    Gauge DCGM_FI_PROF_NVLINK_TX_BYTES "Bytes a second sent over NVLink."
        |g| number(g.activity.nvlink_tx_bytes_per_second);
    Gauge DCGM_FI_PROF_NVLINK_RX_BYTES "Bytes a second received over NVLink."
        |g| number(g.activity.nvlink_rx_bytes_per_second);
};

/// What is told of whole GPUs, and of MIG instances in their place where a GPU is partitioned. All are gauges.
pub(super) struct PartField {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    value: fn(&Part<'_>) -> Option<f64>,
}

/// What whole GPUs and MIG instances tell alike.
struct Part<'a> {
    used: Option<u64>,
    reserved: Option<u64>,
    total: Option<u64>,
    activity: &'a Activity,
}

impl PartField {
    pub(super) fn of_gpu(&self, gpu: &GpuReading) -> Option<f64> {
        (self.value)(&Part {
            used: gpu.memory_used_bytes,
            reserved: gpu.memory_reserved_bytes,
            total: gpu.info.memory_total_bytes,
            activity: &gpu.activity,
        })
    }

    pub(super) fn of_instance(&self, instance: &MigInstance) -> Option<f64> {
        (self.value)(&Part {
            used: instance.memory_used_bytes,
            reserved: None,
            total: instance.memory_total_bytes,
            activity: &instance.activity,
        })
    }
}

macro_rules! parts {
    ($($name:ident $help:literal $value:expr;)*) => {
        &[$(PartField { name: stringify!($name), help: $help, value: $value },)*]
    };
}

pub(super) const PARTS: &[PartField] = parts! {
    DCGM_FI_DEV_FB_FREE "Frame buffer that is free (MiB)."
        |it| mib(Some(it.total?.saturating_sub(it.used?).saturating_sub(it.reserved.unwrap_or(0))));
    DCGM_FI_DEV_FB_USED "Frame buffer in use (MiB)." |it| mib(it.used);
    DCGM_FI_DEV_FB_RESERVED "Frame buffer that the driver reserves for itself (MiB)." |it| mib(it.reserved);
    DCGM_FI_DEV_FB_TOTAL "Frame buffer in all (MiB)." |it| mib(it.total);
    DCGM_FI_PROF_GR_ENGINE_ACTIVE "Share of time in which the graphics engine was active."
        |it| ratio(it.activity.graphics);
    DCGM_FI_PROF_SM_ACTIVE "Share of cycles in which an SM had a warp." |it| ratio(it.activity.sm);
    DCGM_FI_PROF_SM_OCCUPANCY "Share of the warps that an SM can hold." |it| ratio(it.activity.sm_occupancy);
    DCGM_FI_PROF_PIPE_TENSOR_ACTIVE "Share of cycles in which the tensor pipe was active."
        |it| ratio(it.activity.tensor);
    DCGM_FI_PROF_DRAM_ACTIVE "Share of cycles in which the device memory sent or received."
        |it| ratio(it.activity.dram);
    DCGM_FI_PROF_PIPE_FP64_ACTIVE "Share of cycles in which the FP64 pipe was active."
        |it| ratio(it.activity.fp64);
    DCGM_FI_PROF_PIPE_FP32_ACTIVE "Share of cycles in which the FP32 pipe was active."
        |it| ratio(it.activity.fp32);
    DCGM_FI_PROF_PIPE_FP16_ACTIVE "Share of cycles in which the FP16 pipe was active."
        |it| ratio(it.activity.fp16);
};

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

/// A kind of error of all links that count it.
fn links(gpu: &GpuReading, count: fn(&LinkErrors) -> Option<u64>) -> Option<f64> {
    all(gpu, |link| count(&link.errors))
}

fn all(gpu: &GpuReading, count: impl Fn(&NvLink) -> Option<u64>) -> Option<f64> {
    number(gpu.links.iter().filter_map(count).reduce(u64::saturating_add))
}

fn mib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / MIB)
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
