//! Rows and how they are printed.

use std::collections::BTreeMap;

use plimsoll_common::engine::DistributionKind;

use crate::methods::{METHODS, Measured, Method, QUANTILES};

/// What one method says of one family of one load.
#[derive(Debug)]
pub(crate) struct Row {
    engine: &'static str,
    load: String,
    kind: DistributionKind,
    method: Method,
    /// Relative errors of the percentiles, then of the mean.
    errors: [f64; 4],
    /// How wide the bounds are, as a share of the exact value.
    widths: [f64; 3],
    /// Exact percentiles that lie outside their bounds.
    broken: usize,
}

impl Row {
    /// A row for each method; none where the family has no samples.
    pub(crate) fn of(
        engine: &'static str,
        load: &str,
        kind: DistributionKind,
        measured: &Measured,
    ) -> Vec<Self> {
        if measured.count == 0 {
            return Vec::new();
        }
        let broken = measured
            .exact
            .iter()
            .zip(&measured.bounds)
            .filter(|(exact, bounds)| !within(**exact, **bounds))
            .count();
        let width = |i: usize| (measured.bounds[i].1 - measured.bounds[i].0) / measured.exact[i];
        let rows = measured.said.iter().map(|(method, (said, mean))| {
            let error = |said: f64, exact: f64| (said - exact) / exact;
            let [a, b, c] = [0, 1, 2].map(|i| error(said[i], measured.exact[i]));
            let errors = [a, b, c, error(*mean, measured.mean)];
            let widths = [0, 1, 2].map(width);
            // The bounds are the same for all methods of a family: they are counted once.
            let broken = if *method == Method::Sum(1) { broken } else { 0 };
            Self { engine, load: load.to_owned(), kind, method: *method, errors, widths, broken }
        });
        rows.collect()
    }
}

/// The low bound is exclusive unless it is 0; a value that lies on it (0 seconds of queueing) is none to argue about.
fn within(exact: f64, (low, high): (f64, f64)) -> bool {
    low <= exact && exact <= high
}

/// All that was measured on simulated engines.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// A line about each load.
    pub(crate) loads: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

impl Tables {
    /// Prints everything; how many exact values lie outside their bounds.
    pub(crate) fn print(&self, each: bool) -> usize {
        line("Loads:");
        self.loads.iter().for_each(|load| line(&format!("  {load}")));
        if each {
            line("\nErrors of each load with their sign, %: p50, p90, p99, mean");
            for row in &self.rows {
                let first = format!("{:<12} {:<9} {:<14}", row.engine, row.kind.as_str(), row.load);
                line(&format!("{first} {:<19} {}", row.method.name(), errors(&row.errors.map(percent))));
            }
        }
        self.print_summary();
        self.rows.iter().map(|row| row.broken).sum()
    }

    /// For each engine and family: the middle and the worst error over the loads.
    fn print_summary(&self) {
        line("\nErrors of all loads, middle / worst (absolute), % of the exact value:\n");
        line(&format!(
            "| {:<12} | {:<9} | {:<19} | {:>13} | {:>13} | {:>13} | {:>13} |",
            "Buckets", "Family", "Method", "p50", "p90", "p99", "mean"
        ));
        line("|---|---|---|---:|---:|---:|---:|");
        let mut groups: BTreeMap<(usize, DistributionKind, Method), Vec<&Row>> = BTreeMap::new();
        let mut order = Vec::new();
        for row in &self.rows {
            let engine = order.iter().position(|known| *known == row.engine).unwrap_or_else(|| {
                order.push(row.engine);
                order.len() - 1
            });
            groups.entry((engine, row.kind, row.method)).or_default().push(row);
        }
        for ((engine, kind, method), rows) in &groups {
            let cells = [0, 1, 2, 3].map(|at| middle_and_worst(rows.iter().map(|row| row.errors[at].abs())));
            line(&format!(
                "| {:<12} | {:<9} | {:<19} | {} |",
                order[*engine],
                kind.as_str(),
                method.name(),
                cells.map(|cell| format!("{cell:>13}")).join(" | ")
            ));
        }
        line("\nWidth of the bounds, middle / worst over the loads, % of the exact value:\n");
        line(&format!(
            "| {:<12} | {:<9} | {:>13} | {:>13} | {:>13} |",
            "Buckets", "Family", "p50", "p90", "p99"
        ));
        line("|---|---|---:|---:|---:|");
        for ((engine, kind, _), rows) in groups.iter().filter(|((_, _, method), _)| *method == METHODS[0]) {
            let cells = [0, 1, 2].map(|at| middle_and_worst(rows.iter().map(|row| row.widths[at])));
            line(&format!(
                "| {:<12} | {:<9} | {} |",
                order[*engine],
                kind.as_str(),
                cells.map(|cell| format!("{cell:>13}")).join(" | ")
            ));
        }
    }
}

/// Errors of one family, method by method, with their sign.
pub(crate) fn print_measured(name: &str, measured: &Measured) -> usize {
    let exact =
        QUANTILES.iter().zip(measured.exact).map(|(q, exact)| format!("p{:.0} {exact:.4} s", q * 100.0));
    let exact = exact.collect::<Vec<_>>().join(", ");
    line(&format!("\n{name}: {} samples, exact {exact}, mean {:.4} s", measured.count, measured.mean));
    let bounds = measured.bounds.map(|(low, high)| format!("{low}..{high}"));
    line(&format!("  bounds {}", bounds.join(", ")));
    for row in Row::of("", "", DistributionKind::Ttft, measured) {
        line(&format!("  {:<19} {}", row.method.name(), errors(&row.errors.map(percent))));
    }
    measured.exact.iter().zip(&measured.bounds).filter(|(exact, bounds)| !within(**exact, **bounds)).count()
}

fn errors(cells: &[String; 4]) -> String {
    cells.iter().map(|cell| format!("{cell:>8}")).collect()
}

/// A share as per cent with its sign; a dash where there is none (the exact value is 0).
fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:+.1}", share * 100.0) } else { "-".to_owned() }
}

fn middle_and_worst(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let short = |value: f64| {
        if value < 0.0995 { format!("{:.1}", value * 100.0) } else { format!("{:.0}", value * 100.0) }
    };
    match (values.get(values.len() / 2), values.last()) {
        (Some(middle), Some(worst)) => format!("{} / {}", short(*middle), short(*worst)),
        _ => "-".to_owned(),
    }
}

/// What the program is for.
#[expect(clippy::print_stdout, reason = "a measurement prints what it measured")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}
