//! Field values: many quantities in one call.

use std::ffi::{c_int, c_longlong, c_uint, c_ulonglong};

use super::nvlink::{NVLINK_5, errors, existing, is_up};
use crate::abi::{Code, FieldValue, Out, Outcome, Value};
use crate::call::{exports, whole};
use crate::clock;
use crate::control::LinkError;
use crate::session::Gpu;

/// More than any client has a use for.
const MAX_FIELDS: c_int = 4096;
/// Field ids end below this in NVIDIA's header for release 580 and its successors.
const FIELD_END: c_uint = 310;
/// The scope that asks for the sum over all links.
const ALL_LINKS: c_uint = u32::MAX;
/// Scopes of power: the GPU, and the module of GPU and processor, which is metered on coherent platforms only.
const WHOLE_GPU: c_uint = 0;
const MODULE: c_uint = 1;
/// From this release on, CUDA 13.0 update 1, the fields from 251 on are numbered anew.
const RENUMBERED_SINCE: (u32, u32) = (580, 82);

/// A value and its type.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tagged {
    Unsigned(c_uint),
    Long(c_ulonglong),
    Signed(c_int),
}

exports! {
    device fn nvmlDeviceGetFieldValues(gpu, count: c_int, fields: Out<FieldValue>) { read_all(gpu, count, fields) }
}

fn read_all(gpu: &Gpu<'_>, count: c_int, fields: Out<FieldValue>) -> Outcome {
    if !(1..=MAX_FIELDS).contains(&count) {
        return Err(Code::INVALID_ARGUMENT);
    }
    for index in 0..count as usize {
        let place = fields.element(index);
        let asked = place.get()?;
        let (code, value_type, value) = match read(gpu, asked.field, asked.scope) {
            Ok(Tagged::Unsigned(number)) => (Code::SUCCESS, 1, Value { unsigned_long_long: number.into() }),
            Ok(Tagged::Long(number)) => (Code::SUCCESS, 3, Value { unsigned_long_long: number }),
            Ok(Tagged::Signed(number)) => (Code::SUCCESS, 5, Value { signed_long_long: number.into() }),
            Err(code) => (code, 0, Value { unsigned_long_long: 0 }),
        };
        place.set(FieldValue {
            timestamp_us: clock::unix_us() as c_longlong,
            latency_us: 0,
            value_type,
            code: code.0,
            value,
            ..asked
        })?;
    }
    Ok(())
}

/// One field, by the group it belongs to.
fn read(gpu: &Gpu<'_>, field: c_uint, scope: c_uint) -> Result<Tagged, Code> {
    let renumbered = gpu.session().driver.release() >= RENUMBERED_SINCE;
    match field {
        1..=6 | 142..=145 => ecc(gpu, field),
        29..=31 => retired(gpu, field),
        74..=81 => violation(gpu, field),
        82 if gpu.device().temperature.memory_above.is_none() => Err(Code::NOT_SUPPORTED),
        82 => Ok(Tagged::Unsigned(whole(gpu.readings().memory_temperature_c))),
        83 | 191 => Ok(Tagged::Long((gpu.totals().energy_j * 1e3) as c_ulonglong)),
        84..=91 | 132..=141 | 146 | 147 | 160..=166 | 202 | 204 | 206..=215 | 219 | 221 => {
            nvlink(gpu, field, scope)
        }
        94 => Ok(Tagged::Unsigned(gpu.state(|board| board.pcie_replays) as c_uint)),
        95 | 169 | 173..=183 => Ok(Tagged::Unsigned(0)),
        170 => Ok(Tagged::Unsigned(c2c_links(gpu))),
        171 | 172 if scope < c2c_links(gpu) => Ok(Tagged::Unsigned(if field == 171 { 1 } else { 44_712 })),
        185..=190 | 192 if scope == WHOLE_GPU || (scope == MODULE && gpu.spec().own_numa_node.is_some()) => {
            power(gpu, field)
        }
        193..=196 => thermal_limit(gpu, field),
        197 => Ok(Tagged::Long(gpu.totals().pcie_tx_bytes as c_ulonglong)),
        198 => Ok(Tagged::Long(gpu.totals().pcie_rx_bytes as c_ulonglong)),
        // A reset is due where the recovery action says so, or a drain with it.
        226 => Ok(Tagged::Unsigned(gpu.state(|board| board.recovery == 1).into())),
        227 => Ok(Tagged::Unsigned(gpu.state(|board| board.recovery == 4).into())),
        230 => Ok(Tagged::Unsigned(gpu.state(|board| board.recovery))),
        251..=253 if !renumbered => slowdown(gpu, field - 251),
        269..=271 if renumbered => slowdown(gpu, field - 269),
        1..FIELD_END => Err(Code::NOT_SUPPORTED),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn ecc(gpu: &Gpu<'_>, field: c_uint) -> Result<Tagged, Code> {
    let counts = gpu.ecc();
    let rows = gpu.state(|board| board.rows);
    let on = c_uint::from(gpu.device().ecc);
    Ok(match field {
        1 | 2 => Tagged::Unsigned(on),
        3 => Tagged::Long(counts.corrected_volatile),
        4 => Tagged::Long(counts.uncorrected_volatile),
        5 => Tagged::Long(counts.corrected_aggregate),
        6 => Tagged::Long(counts.uncorrected_aggregate),
        142 => Tagged::Unsigned(rows.corrected),
        143 => Tagged::Unsigned(rows.uncorrected),
        144 => Tagged::Unsigned(rows.pending.into()),
        _ => Tagged::Unsigned(rows.failed.into()),
    })
}

/// Time spent below the wanted clocks, nanoseconds.
fn violation(gpu: &Gpu<'_>, field: c_uint) -> Result<Tagged, Code> {
    let totals = gpu.totals();
    Ok(nanoseconds(match field {
        74 => totals.power_capped_s,
        75 => totals.software_thermal_s + totals.hardware_thermal_s,
        _ => 0.0,
    }))
}

/// Time slowed down: by the driver because of heat, by the board because of heat, by the power brake.
fn slowdown(gpu: &Gpu<'_>, which: c_uint) -> Result<Tagged, Code> {
    let totals = gpu.totals();
    Ok(nanoseconds(match which {
        0 => totals.software_thermal_s,
        1 => totals.hardware_thermal_s,
        _ => totals.power_brake_s,
    }))
}

fn nanoseconds(seconds: f64) -> Tagged {
    Tagged::Long((seconds * 1e9) as c_ulonglong)
}

/// Pages retired for single-bit errors, for a double-bit error, and whether one waits for a reset.
fn retired(gpu: &Gpu<'_>, field: c_uint) -> Result<Tagged, Code> {
    let pages = gpu.state(|board| board.pages).ok_or(Code::NOT_SUPPORTED)?;
    Ok(Tagged::Unsigned(match field {
        29 => pages.single_bit,
        30 => pages.double_bit,
        _ => pages.pending.into(),
    }))
}

/// Power and its limits, milliwatts. Average is that of the last second.
fn power(gpu: &Gpu<'_>, field: c_uint) -> Result<Tagged, Code> {
    let limits = &gpu.device().power;
    let watts = match field {
        185 => {
            let now_s = gpu.elapsed_s();
            let tenths = (0..10).map(|tenth| (now_s - f64::from(tenth) * 0.1).max(0.0));
            tenths.map(|at_s| gpu.readings_at(at_s).power_w).sum::<f64>() / 10.0
        }
        186 => gpu.readings().power_w,
        187 => limits.min_limit_w,
        188 => limits.max_limit_w,
        189 => limits.default_limit_w,
        _ => limits.limit_w,
    };
    Ok(Tagged::Unsigned(whole(watts * 1e3)))
}

/// Limits relative to the highest operating temperature, degrees: below zero means hotter.
fn thermal_limit(gpu: &Gpu<'_>, field: c_uint) -> Result<Tagged, Code> {
    if !gpu.is_hopper_or_newer() {
        return Err(Code::NOT_SUPPORTED);
    }
    let heat = &gpu.device().temperature;
    Ok(Tagged::Signed(match field {
        193 => (heat.gpu_max - heat.shutdown).round() as c_int,
        194 => (heat.gpu_max - heat.slowdown).round() as c_int,
        _ => 0,
    }))
}

/// Chip-to-chip links exist where the GPU is a NUMA node of a Grace processor.
fn c2c_links(gpu: &Gpu<'_>) -> c_uint {
    if gpu.spec().own_numa_node.is_some() { 10 } else { 0 }
}

/// NVLink fields. Where the scope is a link, it must exist; traffic is spread evenly over the links.
fn nvlink(gpu: &Gpu<'_>, field: c_uint, scope: c_uint) -> Result<Tagged, Code> {
    let nvlink = existing(gpu, 0)?;
    let per_link = || existing(gpu, scope).map(|_| 1.0 / f64::from(nvlink.links));
    let portion = || if scope == ALL_LINKS { Ok(1.0) } else { per_link() };
    let totals = gpu.totals();
    let count = |bytes: f64, unit: f64| Ok(Tagged::Long((bytes * portion()? / unit) as c_ulonglong));
    match field {
        84..=89 => existing(gpu, field - 84).map(|link| Tagged::Unsigned(link.speed_mbps)),
        132..=137 => existing(gpu, field - 126).map(|link| Tagged::Unsigned(link.speed_mbps)),
        90 => Ok(Tagged::Unsigned(nvlink.speed_mbps)),
        91 | 147 => Ok(Tagged::Unsigned(nvlink.links)),
        // Payload, then with the protocol's overhead of a sixteenth; KiB.
        138 => count(totals.nvlink_tx_bytes, 1024.0),
        139 => count(totals.nvlink_rx_bytes, 1024.0),
        140 => count(totals.nvlink_tx_bytes * 17.0 / 16.0, 1024.0),
        141 => count(totals.nvlink_rx_bytes * 17.0 / 16.0, 1024.0),
        146 => per_link().map(|_| Tagged::Unsigned(scope)),
        160 => Ok(Tagged::Long(0)),
        161..=163 if nvlink.version >= NVLINK_5 => Err(Code::NOT_SUPPORTED),
        161 => per_link().map(|_| Tagged::Long(errors(gpu, scope, LinkError::Replay))),
        162 => per_link().map(|_| Tagged::Long(errors(gpu, scope, LinkError::Recovery))),
        163 => per_link().map(|_| Tagged::Long(errors(gpu, scope, LinkError::Crc))),
        164 => per_link().map(|_| Tagged::Unsigned(nvlink.speed_mbps)),
        165 => per_link().map(|_| Tagged::Unsigned(is_up(gpu, scope).into())),
        166 => per_link().map(|_| Tagged::Unsigned(nvlink.version)),
        // Packet counters came with NVLink 5.
        _ if nvlink.version < NVLINK_5 => Err(Code::NOT_SUPPORTED),
        202 => count(totals.nvlink_tx_bytes * 17.0 / 16.0, 1.0),
        204 => count(totals.nvlink_rx_bytes * 17.0 / 16.0, 1.0),
        215 => per_link().map(|_| {
            let ends = [LinkError::Recovery, LinkError::RecoveryFailed];
            Tagged::Long(ends.map(|end| errors(gpu, scope, end)).iter().sum())
        }),
        _ => per_link().map(|_| Tagged::Long(errors(gpu, scope, since_nvlink_5(field)))),
    }
}

/// What a packet counter counts. Recoveries are told as successful ones (here), failed ones and all.
fn since_nvlink_5(field: c_uint) -> LinkError {
    match field {
        206 => LinkError::Malformed,
        207 => LinkError::Overrun,
        208 => LinkError::Receive,
        209 => LinkError::Remote,
        210 => LinkError::Header,
        211 => LinkError::Integrity,
        212 => LinkError::Discarded,
        214 => LinkError::RecoveryFailed,
        219 => LinkError::Effective,
        221 => LinkError::Symbol,
        _ => LinkError::Recovery,
    }
}
