//! Windows that follow one another as one: what was gained is summed exactly, of gauges the last counts. Pure.

use std::collections::BTreeMap;

use super::{
    column::Column,
    report::{AgentCost, EngineColumns, GpuColumns, HistogramColumns, HistogramEntry, Report},
};
use crate::ids::{Generation, Seq};

/// Why reports can't be made one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("there is no report to merge")]
    Nothing,
    /// A row means something else in each of them.
    #[error("rows of inventory generation {} can't be added to rows of generation {}", .1.0, .0.0)]
    Generation(Generation, Generation),
    /// Between them, or in both of them, is a window.
    #[error("window {} does not follow window {}", .1.0, .0.0)]
    NotAdjacent(Seq, Seq),
    /// The packed distributions do not unpack.
    #[error("{0}")]
    Packed(&'static str),
}

/// One report for windows that follow one another. To add it up is to add up each of them: counters and cells are
/// summed, a row that none of them has stays absent. Gauges are those of the last report even where it has none: an old
/// value must not pass for a new one.
///
/// # Errors
/// When the reports are not of one generation, not adjacent, or not decodable.
pub fn merge(reports: &[Report]) -> Result<Report, MergeError> {
    let (Some(earliest), Some(latest)) = (reports.first(), reports.last()) else {
        return Err(MergeError::Nothing);
    };
    for (before, after) in reports.iter().zip(reports.iter().skip(1)) {
        if before.generation != after.generation {
            return Err(MergeError::Generation(before.generation, after.generation));
        }
        if before.seq.0.checked_add(1) != Some(after.first_seq().0) {
            return Err(MergeError::NotAdjacent(before.seq, after.first_seq()));
        }
    }
    // Every field is named, so that a new one can't be forgotten here.
    let Report {
        seq,
        first: _,
        generation,
        begin_ms: _,
        length_ms: _,
        gpus: _,
        engines: _,
        histograms: _,
        cost: _,
        gpu_source,
        leaving: _,
    } = *latest;
    let first = earliest.first_seq();
    Ok(Report {
        seq,
        first: (first != seq).then_some(first),
        generation,
        begin_ms: earliest.begin_ms,
        length_ms: total(reports.iter().map(|report| report.length_ms)),
        gpus: gpus(&latest.gpus),
        engines: engines(reports, &latest.engines),
        histograms: histograms(reports)?,
        cost: cost(reports, &latest.cost),
        gpu_source,
        leaving: reports.iter().any(|report| report.leaving),
    })
}

fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// The sum of what is there; `None` where nothing is.
fn gained(numbers: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    numbers.flatten().fold(None, |sum, n| Some(sum.map_or(n, |sum: u64| sum.saturating_add(n))))
}

/// All of them are gauges: the last ones.
fn gpus(latest: &GpuColumns) -> GpuColumns {
    let GpuColumns {
        state: _,
        utilization_percent: _,
        memory_activity_percent: _,
        memory_used_bytes: _,
        power_mw: _,
        temperature_c: _,
    } = latest;
    latest.clone()
}

/// Gauges are the last, what was gained is summed, shares of the window are averaged over its length.
fn engines(reports: &[Report], latest: &EngineColumns) -> EngineColumns {
    let mut merged = latest.clone();
    let EngineColumns {
        state: _,
        evidence: _,
        state_ms: _,
        running: _,
        waiting: _,
        waiting_capacity: _,
        waiting_deferred: _,
        paused: _,
        kv_usage_ppm: _,
        kv_usage_max_ppm: _,
        kv_offload_ppm: _,
        prefix_hit_ppm: _,
        spec_acceptance_ppm: _,
        sleep: _,
        signal_age_ms: _,
        age_ms: _,
        frontend_inflight: _,
        frontend_queued: _,
        scrape_us: _,
        pass_ranks: _,
        queued_prefill_requests: _,
        queued_prefill_tokens: _,
        queued_decode_requests: _,
        arrived,
        prompt_tokens,
        generation_tokens,
        prefix_queries,
        prefix_hits,
        preemptions,
        finished_stop,
        finished_length,
        aborted,
        errored,
        ended,
        rejected,
        offload_hits,
        draft_tokens,
        accepted_tokens,
        frontend_arrived,
        passes_lost,
        resets,
        pass_busy_ppm,
    } = &mut merged;
    sum(reports, arrived, |columns| &columns.arrived);
    sum(reports, prompt_tokens, |columns| &columns.prompt_tokens);
    sum(reports, generation_tokens, |columns| &columns.generation_tokens);
    sum(reports, prefix_queries, |columns| &columns.prefix_queries);
    sum(reports, prefix_hits, |columns| &columns.prefix_hits);
    sum(reports, preemptions, |columns| &columns.preemptions);
    sum(reports, finished_stop, |columns| &columns.finished_stop);
    sum(reports, finished_length, |columns| &columns.finished_length);
    sum(reports, aborted, |columns| &columns.aborted);
    sum(reports, errored, |columns| &columns.errored);
    sum(reports, ended, |columns| &columns.ended);
    sum(reports, rejected, |columns| &columns.rejected);
    sum(reports, offload_hits, |columns| &columns.offload_hits);
    sum(reports, draft_tokens, |columns| &columns.draft_tokens);
    sum(reports, accepted_tokens, |columns| &columns.accepted_tokens);
    sum(reports, frontend_arrived, |columns| &columns.frontend_arrived);
    sum(reports, passes_lost, |columns| &columns.passes_lost);
    sum(reports, resets, |columns| &columns.resets);
    let rows = rows(reports, |columns| &columns.pass_busy_ppm);
    let busy = |row| mean(reports, |report| report.engines.pass_busy_ppm.get(row));
    *pass_busy_ppm = (0..rows).map(busy).collect();
    merged
}

fn rows(reports: &[Report], pick: fn(&EngineColumns) -> &Column<u64>) -> usize {
    reports.iter().map(|report| pick(&report.engines).len()).max().unwrap_or(0)
}

fn sum(reports: &[Report], into: &mut Column<u64>, pick: fn(&EngineColumns) -> &Column<u64>) {
    let row = |row| gained(reports.iter().map(|report| pick(&report.engines).get(row)));
    *into = (0..rows(reports, pick)).map(row).collect();
}

/// Cells that belong together, and the sum of their samples.
#[derive(Debug, Default)]
struct Counted {
    cells: BTreeMap<usize, u64>,
    sum: u64,
}

fn histograms(reports: &[Report]) -> Result<HistogramColumns, MergeError> {
    let mut counted: BTreeMap<(usize, u64, usize), Counted> = BTreeMap::new();
    for entry in reports.iter().flat_map(|report| report.histograms.iter()) {
        let entry = entry.map_err(MergeError::Packed)?;
        let into = counted.entry((entry.engine, entry.kind, entry.layout)).or_default();
        into.sum = into.sum.saturating_add(entry.sum);
        for (cell, n) in entry.cells {
            let cell = into.cells.entry(cell).or_default();
            *cell = cell.saturating_add(n);
        }
    }
    let mut packed = HistogramColumns::default();
    for ((engine, kind, layout), Counted { cells, sum }) in counted {
        packed.push(&HistogramEntry { engine, kind, layout, cells: cells.into_iter().collect(), sum });
    }
    Ok(packed)
}

fn cost(reports: &[Report], latest: &AgentCost) -> AgentCost {
    let AgentCost {
        cpu_us: _,
        rss_bytes,
        nvml_busy_us: _,
        host_cpu_ppm: _,
        host_memory_used_bytes,
        dropped_windows,
    } = *latest;
    AgentCost {
        cpu_us: gained(reports.iter().map(|report| report.cost.cpu_us)),
        rss_bytes,
        nvml_busy_us: gained(reports.iter().map(|report| report.cost.nvml_busy_us)),
        host_cpu_ppm: mean(reports, |report| report.cost.host_cpu_ppm),
        host_memory_used_bytes,
        dropped_windows,
    }
}

/// A share of time over several windows is the mean of theirs, weighed by how long each is.
fn mean(reports: &[Report], share: impl Fn(&Report) -> Option<u64>) -> Option<u64> {
    let told = reports.iter().filter_map(|report| share(report).map(|ppm| (ppm, report.length_ms)));
    let (mut weighed, mut length, mut newest) = (0u128, 0u128, None);
    for (ppm, ms) in told {
        weighed = weighed.saturating_add(u128::from(ppm) * u128::from(ms));
        length += u128::from(ms);
        newest = Some(ppm);
    }
    weighed.checked_div(length).map_or(newest, |mean| u64::try_from(mean).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(rows: &[Option<u64>]) -> Column<u64> {
        rows.iter().copied().collect()
    }

    fn report(seq: u64) -> Report {
        Report { seq: Seq(seq), generation: Generation(1), length_ms: 1000, ..Report::default() }
    }

    #[test]
    fn gauges_are_the_last_and_counts_are_sums() {
        let (mut a, mut b) = (report(4), report(5));
        (a.begin_ms, b.begin_ms, b.leaving) = (100, 1100, true);
        a.gpus.power_mw = column(&[Some(70), Some(80)]);
        b.gpus.power_mw = column(&[None, Some(90)]);
        a.engines.arrived = column(&[Some(3), None, None]);
        b.engines.arrived = column(&[Some(4), None]);
        a.engines.running = column(&[Some(9)]);
        a.cost = AgentCost { cpu_us: Some(5), host_cpu_ppm: Some(100), ..AgentCost::default() };
        b.cost = AgentCost { cpu_us: Some(7), host_cpu_ppm: Some(300), ..AgentCost::default() };
        let merged = merge(&[a, b]).unwrap();
        assert_eq!((merged.first, merged.seq, merged.length_ms), (Some(Seq(4)), Seq(5), 2000));
        assert_eq!((merged.begin_ms, merged.leaving), (100, true));
        assert_eq!((merged.gpus.power_mw.get(0), merged.gpus.power_mw.get(1)), (None, Some(90)));
        assert_eq!((merged.engines.arrived.get(0), merged.engines.arrived.get(1)), (Some(7), None));
        assert_eq!(merged.engines.running.get(0), None, "an old value does not pass for a new one");
        assert_eq!((merged.cost.cpu_us, merged.cost.host_cpu_ppm), (Some(12), Some(200)));
    }

    #[test]
    fn what_does_not_belong_together_is_not_merged() {
        assert_eq!(merge(&[]), Err(MergeError::Nothing));
        assert_eq!(merge(&[report(1), report(3)]), Err(MergeError::NotAdjacent(Seq(1), Seq(3))));
        assert_eq!(merge(&[report(2), report(2)]), Err(MergeError::NotAdjacent(Seq(2), Seq(2))));
        let other = Report { generation: Generation(2), ..report(2) };
        assert_eq!(merge(&[report(1), other]), Err(MergeError::Generation(Generation(1), Generation(2))));
        assert_eq!(merge(&[report(7)]).unwrap(), report(7));
    }

    type Place = (usize, u64, usize, usize);
    type Cell = (Place, u64);

    /// Everything that is summed, by what it counts.
    fn sums(reports: &[Report]) -> (BTreeMap<Place, u64>, u64, u64) {
        let (mut cells, mut sum, mut arrived) = (BTreeMap::new(), 0, 0);
        for report in reports {
            arrived += (0..4).filter_map(|row| report.engines.arrived.get(row)).sum::<u64>();
            for entry in report.histograms.iter().map(Result::unwrap) {
                sum += entry.sum;
                for (cell, n) in entry.cells {
                    *cells.entry((entry.engine, entry.kind, entry.layout, cell)).or_default() += n;
                }
            }
        }
        (cells, sum, arrived)
    }

    fn windows() -> impl Strategy<Value = Vec<Report>> {
        let cell = ((0usize..3, 1u64..4, 0usize..2, 0usize..3000), 1u64..1_000_000);
        let window =
            (prop::collection::vec(cell, 0..12), prop::collection::vec(prop::option::of(0u64..1000), 0..4));
        prop::collection::vec(window, 1..12).prop_map(|windows| {
            let made = |(i, (cells, arrived)): (usize, (Vec<Cell>, Vec<Option<u64>>))| {
                let mut made = report(i as u64 + 10);
                made.engines.arrived = column(&arrived);
                for ((engine, kind, layout, cell), n) in cells {
                    made.histograms.push(&HistogramEntry {
                        engine,
                        kind,
                        layout,
                        cells: vec![(cell, n)],
                        sum: n * 3,
                    });
                }
                made
            };
            windows.into_iter().enumerate().map(made).collect()
        })
    }

    proptest! {
        /// Invariant: to apply a merged report is to apply each of its windows, for everything that is summed; and it
        /// does not matter in which steps they are merged.
        #[test]
        fn merging_keeps_every_count(windows in windows(), at in 0usize..12) {
            let merged = merge(&windows).unwrap();
            prop_assert_eq!(sums(std::slice::from_ref(&merged)), sums(&windows));
            prop_assert_eq!(merged.length_ms, 1000 * windows.len() as u64);
            let (head, tail) = windows.split_at(at.min(windows.len()));
            let parts: Vec<Report> =
                [head, tail].into_iter().filter(|part| !part.is_empty()).map(|part| merge(part).unwrap()).collect();
            prop_assert_eq!(merge(&parts).unwrap(), merged);
        }
    }
}
