//! GPU performance monitoring: what happened between two samples.

use std::ffi::c_uint;
use std::ptr::null;

use crate::abi::{Code, GpmMetric, GpmMetricsHead, GpmSample, GpmSupport, Out, Outcome};
use crate::call::exports;
use crate::machine::MigDevice;
use crate::session::{GpmRecord, Gpu, Session};
use crate::state::{MIB, Totals};

/// The only layout of the request and of the support struct.
const VERSION: c_uint = 1;
/// The hardware refreshes its counters this often: two samples must lie further apart.
const REFRESH_S: f64 = 0.1;
/// Metric ids end below this in any header so far, so a request for more is a mistake.
const MAX_METRICS: c_uint = 1024;

exports! {
    device fn nvmlGpmQueryDeviceSupport(gpu, support: Out<GpmSupport>) {
        support.expect_version(VERSION)?;
        support.set(GpmSupport { version: VERSION, supported: c_uint::from(gpu.is_hopper_or_newer()) })
    }
    device fn nvmlGpmQueryIfStreamingEnabled(gpu, enabled: Out<c_uint>) {
        if !gpu.is_hopper_or_newer() {
            return Err(Code::NOT_SUPPORTED);
        }
        enabled.set(1)
    }
    library fn nvmlGpmSampleAlloc(session, sample: Out<GpmSample>) {
        let out = sample.required()?;
        out.set(session.gpm.allocate()?)
    }
    library fn nvmlGpmSampleFree(session, sample: GpmSample) { session.gpm.free(sample) }
    device fn nvmlGpmSampleGet(gpu, sample: GpmSample) { fill(gpu, sample, None) }
    device fn nvmlGpmMigSampleGet(gpu, instance: c_uint, sample: GpmSample) {
        let exists = |mig: &MigDevice| mig.gpu_instance == instance;
        if !gpu.state(|board| board.mig.devices.iter().any(exists)) {
            return Err(Code::NOT_FOUND);
        }
        fill(gpu, sample, Some(instance))
    }
    library fn nvmlGpmMetricsGet(session, request: Out<GpmMetricsHead>) { evaluate(session, request) }
}

fn fill(gpu: &Gpu<'_>, sample: GpmSample, instance: Option<c_uint>) -> Outcome {
    if !gpu.is_hopper_or_newer() {
        return Err(Code::NOT_SUPPORTED);
    }
    gpu.session().gpm.fill(sample, GpmRecord { gpu: gpu.board(), instance, totals: gpu.totals() })
}

fn evaluate(session: &Session, request: Out<GpmMetricsHead>) -> Outcome {
    request.expect_version(VERSION)?;
    let head = request.get()?;
    if head.count == 0 || head.count > MAX_METRICS {
        return Err(Code::INVALID_ARGUMENT);
    }
    let (earlier, later) = (session.gpm.record(head.earlier)?, session.gpm.record(head.later)?);
    let same = (earlier.gpu, earlier.instance) == (later.gpu, later.instance);
    if !same || later.totals.elapsed_s < earlier.totals.elapsed_s {
        return Err(Code::INVALID_ARGUMENT);
    }
    let metrics: Out<GpmMetric> = request.at_offset(size_of::<GpmMetricsHead>());
    for index in 0..head.count as usize {
        let place = metrics.element(index);
        let metric = place.get()?.metric;
        // Throughputs are metered for whole GPUs.
        let value = match metric {
            20 | 21 | 60..=97 if later.instance.is_some() => Err(Code::NOT_SUPPORTED),
            _ => metric_between(session, &earlier.totals, &later.totals, metric),
        };
        place.set(GpmMetric {
            metric,
            code: value.map_or_else(|code| code.0, |_| Code::SUCCESS.0),
            value: value.unwrap_or(0.0),
            short_name: null(),
            long_name: null(),
            unit: null(),
        })?;
    }
    Ok(())
}

/// One metric: percent of the time or of the peak, or MiB/s. Samples that lie too close have seen no refresh, so they
/// have nothing to tell.
fn metric_between(session: &Session, earlier: &Totals, later: &Totals, metric: c_uint) -> Result<f64, Code> {
    let seconds = later.elapsed_s - earlier.elapsed_s;
    if seconds < REFRESH_S {
        return Err(Code::NO_DATA);
    }
    let busy = &session.scenario.busy;
    let share = (later.busy_s - earlier.busy_s) / seconds;
    let percent = |of_busy: f64| 100.0 * share * of_busy;
    let rate = |read: fn(&Totals) -> f64| (read(later) - read(earlier)) / seconds / MIB as f64;
    let links = session.scenario.nvlink.as_ref().map_or(0, |nvlink| nvlink.links);
    let received: fn(&Totals) -> f64 = |totals| totals.nvlink_rx_bytes;
    let sent: fn(&Totals) -> f64 = |totals| totals.nvlink_tx_bytes;
    Ok(match metric {
        1 => percent(1.0),
        2 => percent(busy.sm),
        3 => percent(busy.occupancy),
        4 => percent(busy.integer),
        5 | 7 => percent(busy.tensor),
        // Double-precision and integer tensor work is not what inference does.
        6 | 8 | 9 => 0.0,
        10 => percent(busy.dram),
        11 => percent(busy.fp64),
        12 => percent(busy.fp32),
        13 => percent(busy.fp16),
        20 => rate(|totals| totals.pcie_tx_bytes),
        21 => rate(|totals| totals.pcie_rx_bytes),
        // Video, JPEG and optical-flow engines.
        30..=37 | 40..=47 | 50 | 51 => 0.0,
        60 if links > 0 => rate(received),
        61 if links > 0 => rate(sent),
        // Links in turn, received before sent; traffic is spread evenly over them.
        62..=97 if (metric - 62) / 2 < links => {
            rate(if metric.is_multiple_of(2) { received } else { sent }) / f64::from(links)
        }
        _ => return Err(Code::NOT_SUPPORTED),
    })
}
