//! The metrics pages are what Prometheus reads.

use std::{collections::BTreeSet, sync::Arc};

use plimsoll_agent::exposition::{Entry, Limits, read};

use crate::cluster::{Cluster, play, requests};

/// Checks a page: every line parses, every sample has HELP and TYPE before it, a unit ends its
/// family's name, families stand together, no series
/// stands twice. Returns the families.
fn check(page: &str) -> BTreeSet<String> {
    let (mut helped, mut typed, mut series) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(!help.trim().is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "twice: {line}");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            assert_eq!(name, family, "HELP and TYPE stand together");
            assert!(name.starts_with("plimsoll_"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            typed.insert(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap_or((rest, ""));
            assert_eq!(name, family, "a UNIT stands with its family");
            assert!(!unit.is_empty() && name.trim_end_matches("_total").ends_with(unit), "{line}");
        } else if !line.is_empty() {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let suffix = name.strip_prefix(family.as_str());
            assert!(
                matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
                "{line} in the family {family}"
            );
            assert!(typed.contains(&family) && helped.contains(&family), "{line}");
            let labelled = line.rsplit_once(' ').map_or(line, |(series, _)| series);
            assert!(series.insert(labelled.to_owned()), "twice: {line}");
        }
    }
    let mut lines = read(page.as_bytes(), Limits::default()).expect("a page of some size");
    let samples = lines.by_ref().filter_map(Entry::into_sample).count();
    assert_eq!(samples, series.len());
    assert_eq!(lines.skipped().malformed, 0, "{:?}", lines.skipped());
    typed
}

#[tokio::test]
async fn metrics_pages_are_whole() {
    let cluster = Cluster::start().await.unwrap();
    let engine = Arc::clone(&cluster.engines[0].emulator);
    play(vec![engine], requests(50.0, 20, 9), 0).await.unwrap();
    let mut pages = Vec::new();
    for address in cluster.agents.iter().map(|agent| agent.address).chain([cluster.planner.address]) {
        let answer = cluster.http.get(address, "/metrics").await.unwrap();
        assert_eq!(answer.status.as_u16(), 200);
        pages.push(check(&answer.text));
    }
    for family in ["plimsoll_gpu_utilization_ratio", "plimsoll_engine_requests_arrived_total"] {
        assert!(pages[0].contains(family), "{family} is not in {:?}", pages[0]);
    }
    assert!(pages[2].len() >= 10, "{:?}", pages[2]);
}

#[tokio::test]
async fn pages_for_people_are_served_and_wrong_paths_say_which_are_right() {
    let cluster = Cluster::start().await.unwrap();
    for address in [cluster.agents[0].address, cluster.planner.address] {
        let page = cluster.http.get(address, "/").await.unwrap();
        assert!(page.status.is_success() && page.text.contains("<html"), "{}", page.text);
        let wrong = cluster.http.get(address, "/no/such/page").await.unwrap();
        assert_eq!(wrong.status.as_u16(), 404);
        assert!(wrong.json().unwrap()["hint"].as_str().is_some_and(|hint| hint.contains("/metrics")));
    }
}
