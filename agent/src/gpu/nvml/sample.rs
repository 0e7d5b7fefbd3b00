//! What changes all the time.

use std::sync::Arc;

use nvml_wrapper::{
    Device,
    enum_wrappers::device::{Clock, TemperatureSensor},
    enums::device::UsedGpuMemory,
    struct_wrappers::device::ProcessInfo,
    structs::device::UtilizationInfo,
};

use super::{
    call_error,
    describe::{ask, power_limit},
    links, plausible,
    raw::{self, ALL_LINKS},
    supported,
};
use crate::gpu::{
    meter::Meter,
    plan::{Call, Metric},
    reading::{
        GpuProcess, GpuProcessKind, GpuReading, RecoveryAction, RemappedRows, RetiredPages, ThrottleReasons,
        Video,
    },
    source::CallError,
};

/// Above these a driver's answer is a sentinel or garbage, not a reading.
pub(super) const MAX_POWER_MW: u64 = 100_000_000;
const MAX_TEMPERATURE_C: u64 = 500;
const MAX_MHZ: u64 = 100_000;
const MAX_PCIE: u32 = 64;
/// So many processes of one kind and GPU are listed; the rest are left out.
const MAX_PROCESSES: usize = 1024;

/// Ids of field values, by NVIDIA's names without `NVML_FI_DEV_`.
mod field {
    pub(super) const ECC_CURRENT: u32 = 1;
    pub(super) const ECC_SBE_VOL_TOTAL: u32 = 3;
    pub(super) const ECC_DBE_VOL_TOTAL: u32 = 4;
    pub(super) const ECC_SBE_AGG_TOTAL: u32 = 5;
    pub(super) const ECC_DBE_AGG_TOTAL: u32 = 6;
    pub(super) const RETIRED_SBE: u32 = 29;
    pub(super) const RETIRED_DBE: u32 = 30;
    pub(super) const RETIRED_PENDING: u32 = 31;
    pub(super) const MEMORY_TEMP: u32 = 82;
    pub(super) const TOTAL_ENERGY_CONSUMPTION: u32 = 83;
    pub(super) const PCIE_REPLAY_COUNTER: u32 = 94;
    pub(super) const NVLINK_THROUGHPUT_DATA_TX: u32 = 138;
    pub(super) const NVLINK_THROUGHPUT_DATA_RX: u32 = 139;
    pub(super) const POWER_AVERAGE: u32 = 185;
    pub(super) const POWER_INSTANT: u32 = 186;
    pub(super) const GET_GPU_RECOVERY_ACTION: u32 = 230;
}

/// Asks one metric; see [`GpuSource::sample`](crate::gpu::GpuSource::sample).
pub(super) fn sample(
    device: &Device<'_>,
    metric: Metric,
    meter: &mut Meter,
    reading: &mut GpuReading,
) -> Result<(), CallError> {
    match metric {
        Metric::Utilization => {
            let rates = ask(meter, Call::UtilizationRates, || device.utilization_rates())?;
            let gpu = plausible("GPU utilization", rates.gpu.into(), 100)?;
            let memory = plausible("memory utilization", rates.memory.into(), 100)?;
            (reading.utilization_percent, reading.memory_activity_percent) = (Some(gpu), Some(memory));
        }
        Metric::Memory => {
            let memory = ask(meter, Call::MemoryInfo, || device.memory_info())?;
            (reading.memory_used_bytes, reading.memory_reserved_bytes) =
                (Some(memory.used), Some(memory.reserved));
        }
        Metric::Power => return power(device, meter, reading),
        Metric::Temperature => {
            let celsius = ask(meter, Call::Temperature, || device.temperature(TemperatureSensor::Gpu))?;
            let celsius = plausible("temperature", celsius.into(), MAX_TEMPERATURE_C)?;
            reading.temperature_c = Some(celsius.cast_signed());
        }
        Metric::Throttle => {
            let reasons = ask(meter, Call::ThrottleReasons, || device.current_throttle_reasons())?;
            reading.throttle = Some(ThrottleReasons(reasons.bits()));
        }
        Metric::Clocks => return clocks(device, meter, reading),
        Metric::PerformanceState => {
            let state = ask(meter, Call::PerformanceState, || device.performance_state())?;
            reading.performance_state = u8::try_from(state.as_c()).ok().filter(|state| *state < 16);
        }
        Metric::Ecc => return errors(device, meter, reading),
        Metric::Video => return video(device, meter, reading),
        Metric::ComputeProcesses => {
            let found = ask(meter, Call::ComputeProcesses, || device.running_compute_processes())?;
            replace_processes(reading, GpuProcessKind::Compute, &found);
        }
        Metric::GraphicsProcesses => {
            let found = ask(meter, Call::GraphicsProcesses, || device.running_graphics_processes())?;
            replace_processes(reading, GpuProcessKind::Graphics, &found);
        }
        Metric::Fabric => reading.fabric = Some(ask(meter, Call::FabricInfo, || raw::fabric(device))?),
        Metric::Links => return links::states(device, meter, reading),
        Metric::LinkErrors => return links::errors(device, meter, reading),
        Metric::RemappedRows => {
            let (corrected, uncorrected, pending, failed) =
                ask(meter, Call::RemappedRows, || raw::remapped_rows(device))?;
            let (corrected, uncorrected) = (corrected.into(), uncorrected.into());
            reading.remapped_rows = Some(RemappedRows { corrected, uncorrected, pending, failed });
        }
        Metric::Pcie => {
            let generation = ask(meter, Call::PcieLink, || device.current_pcie_link_gen())?;
            let width = ask(meter, Call::PcieLink, || device.current_pcie_link_width())?;
            let facts = Arc::make_mut(&mut reading.facts);
            facts.pcie.generation = Some(generation).filter(|value| *value <= MAX_PCIE);
            facts.pcie.width = Some(width).filter(|value| *value <= MAX_PCIE);
        }
        Metric::PowerLimit => reading.info.power_limit_mw = Some(power_limit(device, meter)?),
        // These are asked elsewhere.
        Metric::Activity | Metric::Mig | Metric::MigActivity | Metric::Samples => {
            return Err(CallError::NotSupported);
        }
    }
    Ok(())
}

/// The answers of a batch of field values, in the order of the asks.
pub(super) fn fields(
    device: &Device<'_>,
    meter: &mut Meter,
    asks: &[(u32, u32)],
) -> Result<impl Iterator<Item = Result<u64, CallError>> + use<>, CallError> {
    let values = ask(meter, Call::FieldValues, || raw::field_values(device, asks))?;
    Ok(values.into_iter().map(|value| value.map_err(call_error)))
}

/// The next answer of a batch. A field that is missing in the batch is not supported.
fn next(
    values: &mut impl Iterator<Item = Result<u64, CallError>>,
    field: &'static str,
    reading: &mut GpuReading,
) -> Result<Option<u64>, CallError> {
    supported(values.next().unwrap_or(Err(CallError::NotSupported)), field, reading)
}

fn power(device: &Device<'_>, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
    let asks = [
        (field::POWER_INSTANT, 0),
        (field::POWER_AVERAGE, 0),
        (field::TOTAL_ENERGY_CONSUMPTION, 0),
        (field::NVLINK_THROUGHPUT_DATA_TX, ALL_LINKS),
        (field::NVLINK_THROUGHPUT_DATA_RX, ALL_LINKS),
    ];
    let values = match fields(device, meter, &asks) {
        Err(CallError::NotSupported) => None,
        values => Some(values?),
    };
    let (mut instant, mut average) = (None, None);
    if let Some(mut values) = values {
        instant = values.next().and_then(Result::ok);
        average = values.next().and_then(Result::ok);
        reading.energy_mj = next(&mut values, "energy_joules", reading)?;
        // KiB of payload.
        let tx = next(&mut values, "nvlink_tx_bytes", reading)?;
        let rx = next(&mut values, "nvlink_rx_bytes", reading)?;
        reading.nvlink_tx_bytes = tx.map(|kib| kib.saturating_mul(1024));
        reading.nvlink_rx_bytes = rx.map(|kib| kib.saturating_mul(1024));
    }
    let power = match instant.or(average) {
        Some(milliwatts) => milliwatts,
        // Before release 530 there is no such field.
        None => ask(meter, Call::PowerUsage, || device.power_usage())?.into(),
    };
    reading.power_mw = Some(plausible("power", power, MAX_POWER_MW)?);
    Ok(())
}

fn clocks(device: &Device<'_>, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
    let mut clock = |clock| -> Result<Option<u64>, CallError> {
        match ask(meter, Call::ClockInfo, || device.clock_info(clock)) {
            Ok(mhz) => plausible("clock", mhz.into(), MAX_MHZ).map(Some),
            Err(CallError::NotSupported) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let (sm, memory) = (clock(Clock::SM)?, clock(Clock::Memory)?);
    let (graphics, video) = (clock(Clock::Graphics)?, clock(Clock::Video)?);
    if sm.or(memory).or(graphics).or(video).is_none() {
        return Err(CallError::NotSupported);
    }
    let clocks = &mut reading.clocks;
    (clocks.sm_mhz, clocks.memory_mhz, clocks.graphics_mhz, clocks.video_mhz) = (sm, memory, graphics, video);
    Ok(())
}

fn errors(device: &Device<'_>, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
    let asks = [
        (field::ECC_CURRENT, 0),
        (field::ECC_SBE_VOL_TOTAL, 0),
        (field::ECC_DBE_VOL_TOTAL, 0),
        (field::ECC_SBE_AGG_TOTAL, 0),
        (field::ECC_DBE_AGG_TOTAL, 0),
        (field::MEMORY_TEMP, 0),
        (field::GET_GPU_RECOVERY_ACTION, 0),
        (field::PCIE_REPLAY_COUNTER, 0),
        (field::RETIRED_SBE, 0),
        (field::RETIRED_DBE, 0),
        (field::RETIRED_PENDING, 0),
    ];
    let mut values = fields(device, meter, &asks)?;
    let enabled = next(&mut values, "ecc_enabled", reading)?;
    reading.ecc.enabled = enabled.map(|on| on != 0);
    reading.ecc.corrected_volatile = next(&mut values, "ecc_corrected_volatile", reading)?;
    reading.ecc.uncorrected_volatile = next(&mut values, "ecc_uncorrected_volatile", reading)?;
    reading.ecc.corrected_aggregate = next(&mut values, "ecc_corrected_aggregate", reading)?;
    reading.ecc.uncorrected_aggregate = next(&mut values, "ecc_uncorrected_aggregate", reading)?;
    let celsius = next(&mut values, "memory_temperature_celsius", reading)?;
    reading.memory_temperature_c = celsius
        .map(|celsius| plausible("memory temperature", celsius, MAX_TEMPERATURE_C))
        .transpose()?
        .map(u64::cast_signed);
    let action = next(&mut values, "recovery_action", reading)?;
    reading.recovery_action = action.map(RecoveryAction::from_code);
    reading.pcie_replays = next(&mut values, "pcie_replays", reading)?;
    // One word for the three: boards have all or none.
    let mut pages = || next(&mut values, "retired_pages", reading);
    let (single_bit, double_bit, pending) = (pages()?, pages()?, pages()?.map(|pending| pending != 0));
    reading.retired_pages = RetiredPages { single_bit, double_bit, pending };
    Ok(())
}

fn video(device: &Device<'_>, meter: &mut Meter, reading: &mut GpuReading) -> Result<(), CallError> {
    let encoder = ask(meter, Call::VideoUtilization, || device.encoder_utilization());
    let encoder = supported(encoder, "encoder_utilization_percent", reading)?;
    let decoder = ask(meter, Call::VideoUtilization, || device.decoder_utilization());
    let decoder = supported(decoder, "decoder_utilization_percent", reading)?;
    if encoder.is_none() && decoder.is_none() {
        return Err(CallError::NotSupported);
    }
    let percent = |busy: Option<UtilizationInfo>, what| {
        busy.map(|busy| plausible(what, busy.utilization.into(), 100)).transpose()
    };
    reading.video = Video {
        encoder_percent: percent(encoder, "encoder utilization")?,
        decoder_percent: percent(decoder, "decoder utilization")?,
    };
    Ok(())
}

fn replace_processes(reading: &mut GpuReading, kind: GpuProcessKind, found: &[ProcessInfo]) {
    let others = reading.processes.iter().flat_map(|processes| processes.iter());
    let others = others.filter(|process| process.kind != kind).cloned();
    let found = found.iter().take(MAX_PROCESSES).map(|process| GpuProcess {
        pid: process.pid,
        kind,
        memory_used_bytes: match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
    });
    let mut all: Vec<GpuProcess> = others.chain(found).collect();
    all.sort_unstable();
    reading.processes = Some(all.into());
}
