//! The same on captured pages of a real vLLM, read by the agent's own reader and tracker.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use plimsoll_agent::{
    engines::{EngineTracker, read_page},
    exposition::Limits,
};
use plimsoll_common::{
    engine::{DistributionKind, EngineKind},
    histogram::BucketLayout,
};
use serde::Deserialize;

use crate::{
    methods::{Interval, compare},
    table::{line, print_measured},
};

/// What of an answer was measured by the engine itself. The rest of the file was measured by the client.
#[derive(Deserialize)]
struct Answer {
    metrics: Option<Exact>,
}

#[derive(Deserialize)]
struct Exact {
    queue_time_ms: Option<f64>,
    mean_itl_ms: Option<f64>,
    generation_time_ms: Option<f64>,
}

type Field = fn(&Exact) -> Option<f64>;

/// The families whose samples the answers tell one by one.
const FAMILIES: [(DistributionKind, &str, Field); 3] = [
    (DistributionKind::Queue, "queue (queue_time_ms)", |exact| exact.queue_time_ms),
    (DistributionKind::Tpot, "TPOT (mean_itl_ms)", |exact| exact.mean_itl_ms),
    (DistributionKind::Decode, "decode (generation_time_ms)", |exact| exact.generation_time_ms),
];

/// A load: its answers, and how the names of its pages begin, in the order of their capture.
const LOADS: [(&str, &[&str]); 2] = [
    ("client_load1.json", &["before_0", "during_", "after_"]),
    ("client_load2.json", &["after_2", "load2_0", "load2_1", "load2_2", "load2_after"]),
];

/// Prints the errors of both loads; how many exact values lie outside their bounds.
pub(crate) fn print(folder: &Path) -> anyhow::Result<usize> {
    let mut broken = 0;
    for (answers, pages) in LOADS {
        line(&format!("\nCaptured pages of vLLM 0.32, {answers}:"));
        let text =
            fs::read(folder.join(answers)).with_context(|| folder.join(answers).display().to_string())?;
        let answers: Vec<Answer> = serde_json::from_slice(&text)?;
        let exact: Vec<_> = answers.into_iter().filter_map(|answer| answer.metrics).collect();
        let gained = follow(folder, pages)?;
        for (kind, name, field) in FAMILIES {
            let Some((layout, scrapes)) = gained.get(&kind) else { continue };
            let mut values: Vec<_> =
                exact.iter().filter_map(field).map(|millis| (millis * 1e6).round() as u64).collect();
            values.sort_unstable();
            let counted: u64 = scrapes.values().flat_map(|(buckets, _)| buckets).map(|(_, n)| n).sum();
            ensure!(
                counted == values.len() as u64,
                "the pages counted {counted} samples of {name}, the answers have {}",
                values.len()
            );
            broken += print_measured(name, &compare(layout, scrapes, &values));
        }
    }
    Ok(broken)
}

type Gained = BTreeMap<DistributionKind, (BucketLayout, BTreeMap<u64, Interval>)>;

/// What each family gained from page to page. The pages are about a second apart, so that their number stands for the
/// second.
fn follow(folder: &Path, prefixes: &[&str]) -> anyhow::Result<Gained> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".prom"))
        .collect();
    names.sort();
    let mut tracker = EngineTracker::new();
    let mut gained = Gained::new();
    let in_order =
        prefixes.iter().flat_map(|prefix| names.iter().filter(move |name| name.starts_with(prefix)));
    for (at, name) in in_order.enumerate() {
        let bytes = fs::read(folder.join(name))?;
        let page = read_page(Some(EngineKind::Vllm), &bytes, Limits::default())
            .with_context(|| format!("page {name}"))?;
        for delta in tracker.observe(&page).delta.histograms {
            let (_, scrapes) =
                gained.entry(delta.kind).or_insert_with(|| (delta.layout.clone(), BTreeMap::new()));
            scrapes.insert(at as u64, (delta.buckets, delta.sum));
        }
    }
    Ok(gained)
}
