//! What is wrong with each GPU: throttling, memory errors, XIDs.

use plimsoll_shell::metrics::{
    MetricPage,
    MetricType::{Counter, Gauge},
};

use super::Row;
use crate::gpu::{Ecc, RemappedRows, ThrottleReasons};

pub(super) fn write(page: &mut MetricPage, rows: &[Row<'_>]) {
    throttle(page, rows);
    ecc(page, rows);
    remapped_rows(page, rows);
    retired_pages(page, rows);
    events(page, rows);
}

fn throttle(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "Whether something holds the clocks down, by reason; an idle GPU is not throttled.";
    let mut family = page.family("plimsoll_gpu_throttle_reason", Gauge, help);
    for row in rows {
        let Some(reasons) = row.gpu.throttle else { continue };
        for (bit, name) in ThrottleReasons::NAMES {
            family.sample(&row.with([("reason", name)]), reasons.0 & bit != 0);
        }
    }
}

fn ecc(page: &mut MetricPage, rows: &[Row<'_>]) {
    let mut enabled = page.family("plimsoll_gpu_ecc_enabled", Gauge, "Whether ECC is on.");
    for row in rows {
        enabled.maybe(&row.labels(), row.gpu.ecc.enabled);
    }
    let help = "Memory errors since the driver was loaded.";
    let counts: [EccCount; 2] =
        [("corrected", |ecc| ecc.corrected_volatile), ("uncorrected", |ecc| ecc.uncorrected_volatile)];
    ecc_errors(page, rows, "plimsoll_gpu_ecc_errors_total", help, counts);
    let help = "Memory errors over the board's life.";
    let counts: [EccCount; 2] =
        [("corrected", |ecc| ecc.corrected_aggregate), ("uncorrected", |ecc| ecc.uncorrected_aggregate)];
    ecc_errors(page, rows, "plimsoll_gpu_ecc_lifetime_errors_total", help, counts);
}

/// A kind of memory error and where it is counted.
type EccCount = (&'static str, fn(&Ecc) -> Option<u64>);

fn ecc_errors(page: &mut MetricPage, rows: &[Row<'_>], name: &str, help: &str, counts: [EccCount; 2]) {
    let mut family = page.family(name, Counter, help);
    for row in rows {
        for (kind, count) in counts {
            family.maybe(&row.with([("kind", kind)]), count(&row.gpu.ecc));
        }
    }
}

fn remapped_rows(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "Rows of the device memory that were replaced, by the kind of error.";
    let mut family = page.family("plimsoll_gpu_remapped_rows", Gauge, help);
    for row in rows {
        let Some(remapped) = &row.gpu.remapped_rows else { continue };
        family.sample(&row.with([("kind", "corrected")]), remapped.corrected);
        family.sample(&row.with([("kind", "uncorrected")]), remapped.uncorrected);
    }
    type Flag = fn(&RemappedRows) -> bool;
    let flags: [(&str, &str, Flag); 2] = [
        ("plimsoll_gpu_row_remap_pending", "Whether a reset is needed to replace more rows.", |r| r.pending),
        ("plimsoll_gpu_row_remap_failed", "Whether a row could not be replaced.", |r| r.failed),
    ];
    for (name, help, flag) in flags {
        let mut family = page.family(name, Gauge, help);
        for row in rows {
            family.maybe(&row.labels(), row.gpu.remapped_rows.as_ref().map(flag));
        }
    }
}

fn retired_pages(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "Pages of the device memory that are no longer used, by the kind of error; before Ampere.";
    let mut family = page.family("plimsoll_gpu_retired_pages", Gauge, help);
    for row in rows {
        family.maybe(&row.with([("kind", "single_bit")]), row.gpu.retired_pages.single_bit);
        family.maybe(&row.with([("kind", "double_bit")]), row.gpu.retired_pages.double_bit);
    }
    let help = "Whether a reset is needed to retire a page.";
    let mut family = page.family("plimsoll_gpu_page_retirement_pending", Gauge, help);
    for row in rows {
        family.maybe(&row.labels(), row.gpu.retired_pages.pending);
    }
}

fn events(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "XIDs, the driver's error events, since the agent started.";
    let mut family = page.family("plimsoll_gpu_xid_errors_total", Counter, help);
    for row in rows {
        for (xid, count) in &row.gpu.xids.counts {
            family.sample(&row.with([("xid", &xid.to_string())]), *count);
        }
    }
    let help = "What has to be done to repair the GPU, in the driver's words; always 1.";
    let mut family = page.family("plimsoll_gpu_recovery_action_info", Gauge, help);
    for row in rows {
        if let Some(action) = row.gpu.recovery_action {
            family.sample(&row.with([("action", action.as_str())]), 1u64);
        }
    }
}
