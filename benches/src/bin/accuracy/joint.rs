//! What share of the requests met both their TTFT and their TPOT, and what the marginals can tell of it.

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::{AttainmentInterval, BucketCounts, BucketLayout, attainment},
    units::Micros,
};

use crate::{engines, load::Run, table::line};

/// SLOs of TTFT and TPOT, milliseconds: the first pair are edges of vLLM's buckets, the others are not.
const SLOS: [(u64, u64); 4] = [(500, 25), (300, 25), (500, 30), (2000, 15)];

/// One pair of SLOs on one load.
#[derive(Debug)]
pub(crate) struct Joint {
    load: String,
    slo: (u64, u64),
    /// The exact share of requests that met both, TTFT, and TPOT.
    exact: [f64; 3],
    /// What the buckets tell of TTFT, of TPOT, and of both.
    told: [AttainmentInterval; 3],
}

impl Joint {
    /// Whether the exact shares lie within what is told.
    pub(crate) fn holds(&self) -> bool {
        let [both, ttft, tpot] = self.exact;
        let within = |share: f64, interval: &AttainmentInterval| {
            interval.low().get() - 1e-12 <= share && share <= interval.high().get() + 1e-12
        };
        [ttft, tpot, both].iter().zip(&self.told).all(|(share, interval)| within(*share, interval))
    }
}

/// All pairs of SLOs on one load.
pub(crate) fn rows(load: &str, run: &Run) -> Vec<Joint> {
    let vllm = &engines::ALL[0];
    let counts = |kind: DistributionKind, of: &dyn Fn(&(u64, u64)) -> u64| {
        let edges = vllm.edges(kind)?;
        let mut counts = BucketCounts::new(BucketLayout::new(&edges, Unit::Seconds).ok()?);
        for request in &run.finished {
            counts.add(edges.partition_point(|edge| *edge < of(request) as f64 / 1e9), 1);
        }
        Some(counts)
    };
    let (Some(ttft), Some(tpot)) =
        (counts(DistributionKind::Ttft, &|r| r.0), counts(DistributionKind::Tpot, &|r| r.1))
    else {
        return Vec::new();
    };
    let row = |slo: (u64, u64)| {
        let limit = |millis: u64| millis * 1_000_000;
        let share = |met: &dyn Fn(&(u64, u64)) -> bool| {
            run.finished.iter().filter(|request| met(request)).count() as f64 / run.finished.len() as f64
        };
        let a = attainment([&ttft], Micros::from_millis(slo.0))?;
        let b = attainment([&tpot], Micros::from_millis(slo.1))?;
        let exact = [
            share(&|r| r.0 <= limit(slo.0) && r.1 <= limit(slo.1)),
            share(&|r| r.0 <= limit(slo.0)),
            share(&|r| r.1 <= limit(slo.1)),
        ];
        Some(Joint { load: load.to_owned(), slo, exact, told: [a, b, a.and(&b)] })
    };
    SLOS.into_iter().filter_map(row).collect()
}

/// Prints them as a table.
pub(crate) fn print(rows: &[Joint]) {
    line("\nShare of requests that met both SLOs, vLLM's buckets, %:\n");
    line("| Load | SLO (TTFT, TPOT) | exact | told | as if independent |");
    line("|---|---|---:|---:|---:|");
    for row in rows {
        let [both, ttft, tpot] = row.exact.map(|share| share * 100.0);
        let told = row.told[2];
        line(&format!(
            "| {} | {} ms, {} ms | {both:.1} | {:.1} to {:.1} | {:.1} |",
            row.load,
            row.slo.0,
            row.slo.1,
            told.low().get() * 100.0,
            told.high().get() * 100.0,
            ttft * tpot / 100.0
        ));
    }
}
