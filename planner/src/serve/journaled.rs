//! What became of the journal, for Prometheus.

use plimsoll_shell::metrics::{MetricPage, MetricType};

use crate::journal::Totals;

pub(super) fn metrics(page: &mut MetricPage, totals: &Totals) {
    let outcomes = |page: &mut MetricPage, name: &str, help: &str, written: u64, dropped: u64| {
        let mut family = page.family(name, MetricType::Counter, help);
        family.sample(&[("outcome", "written")], written);
        family.sample(&[("outcome", "dropped")], dropped);
    };
    outcomes(
        page,
        "plimsoll_planner_journal_steps_total",
        "Steps of the journal, by what became of them.",
        totals.steps_written,
        totals.steps_dropped,
    );
    outcomes(
        page,
        "plimsoll_planner_journal_checkpoints_total",
        "Checkpoints of what was learned, by what became of them.",
        totals.checkpoints_written,
        totals.checkpoints_dropped,
    );
    let errors = "Writes of the journal that failed.";
    page.counter("plimsoll_planner_journal_errors_total", errors, &[], totals.errors);
    let aside = "Journals that were damaged, or another build's, and set aside for a new one.";
    page.counter("plimsoll_planner_journal_set_aside_total", aside, &[], totals.set_aside);
    let failing = "1 while the journal can't be written, else 0.";
    page.gauge("plimsoll_planner_journal_failing", failing, &[], u64::from(totals.failing));
    page.gauge("plimsoll_planner_journal_bytes", "What the journal takes.", &[], totals.bytes);
    page.gauge("plimsoll_planner_journal_limit_bytes", "What it may take.", &[], totals.limit);
    let restored = "Steps by which the last checkpoint was brought up to date at the start.";
    page.gauge("plimsoll_planner_journal_restored_steps", restored, &[], totals.restored_steps);
    let oldest = (totals.oldest > 0).then_some(totals.oldest as f64 / 1e6);
    page.family(
        "plimsoll_planner_journal_oldest_timestamp_seconds",
        MetricType::Gauge,
        "Unix time of the oldest step that can be replayed.",
    )
    .maybe(&[], oldest);
}
