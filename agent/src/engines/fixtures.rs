//! Captured vLLM pages and pages made for a test.

use std::{fs, path::Path};

use plimsoll_common::engine::{DistributionKind, EngineKind};

use super::{Counter, EnginePage, EngineTracker, PageError, read_page};
use crate::exposition::Limits;

pub(super) fn bytes(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vllm-0.32.0");
    fs::read(folder.join(name)).expect("the fixture exists")
}

pub(super) fn page(text: &str) -> EnginePage {
    read_page(Some(EngineKind::Vllm), text.as_bytes(), Limits::default()).expect("a page of vLLM")
}

fn captured(name: &str) -> EnginePage {
    page(std::str::from_utf8(&bytes(name)).unwrap())
}

fn total(page: &EnginePage, counter: Counter) -> Option<u64> {
    page.counters.get(&counter).map(|series| series.values().sum())
}

#[test]
fn a_page_under_load_is_read_whole() {
    let page = captured("load2_10.prom");
    assert_eq!(page.model.as_ref().map(|model| model.as_str()), Some("tiny-llama"));
    assert_eq!(page.kv_capacity_tokens, Some(1280));
    assert_eq!((page.gauges.running, page.gauges.waiting), (Some(8), Some(56)));
    assert_eq!(page.gauges.kv_usage.map(|usage| usage.to_ppm()), Some(923_077));
    assert_eq!(page.process_start.map(f64::to_bits), Some(1.79535365758e+09_f64.to_bits()));
    for (counter, expected) in [
        (Counter::PromptTokens, 27_681),
        (Counter::GenerationTokens, 45_326),
        (Counter::PrefixQueries, 27_681),
        (Counter::PrefixHits, 3_936),
        (Counter::Preemptions, 424),
        (Counter::FinishedStop, 0),
        (Counter::FinishedLength, 358),
        (Counter::Aborted, 0),
        (Counter::Errored, 0),
        (Counter::HttpEnded, 358),
    ] {
        assert_eq!(total(&page, counter), Some(expected), "{counter:?}");
    }
    assert_eq!(page.quality, super::PageQuality::default());
}

#[test]
fn every_distribution_is_found_with_its_own_buckets() {
    let page = captured("load2_10.prom");
    let of = |kind| page.histograms.get(&kind).and_then(|family| family.values().next()).unwrap();
    let kinds: Vec<_> = page.histograms.keys().copied().collect();
    let expected =
        ["ttft", "itl_step", "tpot", "e2e", "queue", "prefill", "decode", "inference", "isl", "osl"];
    assert_eq!(kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(), expected);
    let samples = |kind| of(kind).counts.as_ref().map(|counts| counts.buckets.iter().sum::<u64>());
    assert_eq!(samples(DistributionKind::Ttft), Some(370));
    assert_eq!(samples(DistributionKind::ItlStep), Some(44_956));
    assert_eq!(samples(DistributionKind::Isl), Some(358));
    assert_eq!(of(DistributionKind::Ttft).edges.len(), 22);
    assert_eq!(of(DistributionKind::ItlStep).edges.len(), 19);
    assert_eq!(of(DistributionKind::E2e).edges.len(), 21);
    let first = of(DistributionKind::E2e).edges[0];
    assert_eq!(first.to_bits(), 0.3f64.to_bits());
}

#[test]
fn an_idle_page_knows_its_counters_at_zero() {
    let page = captured("before.prom");
    assert_eq!((page.gauges.running, page.gauges.waiting), (Some(0), Some(0)));
    assert_eq!(total(&page, Counter::HttpEnded), Some(0));
    assert_eq!(total(&page, Counter::FinishedLength), Some(0));
}

#[test]
fn a_load_is_followed_exactly() {
    let mut tracker = EngineTracker::new();
    let names = ["before.prom", "during_06.prom", "load2_10.prom", "abort_before.prom", "abort_after0.prom"];
    let updates: Vec<_> = names.iter().map(|name| tracker.observe(&captured(name))).collect();
    assert_eq!(updates[0].delta.arrived, Some(0));
    assert!(updates[0].delta.histograms.is_empty());
    // 60 and 422 were ended or in flight on the second and third page, 600 on both abort pages.
    let arrived: Vec<_> = updates.iter().map(|update| update.delta.arrived).collect();
    assert_eq!(arrived, [Some(0), Some(60), Some(362), Some(178), Some(0)]);
    let tokens: u64 = updates.iter().filter_map(|update| update.delta.generation_tokens).sum();
    let last = captured("abort_after0.prom");
    assert_eq!(Some(tokens), total(&last, Counter::GenerationTokens));
    assert!(updates.iter().all(|update| update.delta.resets == 0));
    for (kind, family) in &last.histograms {
        let now = family.values().next().and_then(|series| series.counts.as_ref()).unwrap();
        let deltas =
            || updates.iter().flat_map(|update| &update.delta.histograms).filter(|of| of.kind == *kind);
        let samples: u64 = deltas().flat_map(|delta| &delta.buckets).map(|(_, n)| n).sum();
        assert_eq!(samples, now.buckets.iter().sum::<u64>(), "{kind}");
        let sum: u64 = deltas().map(|delta| delta.sum).sum();
        assert!(
            (sum as f64 - now.sum * kind.unit().per_published()).abs() <= 1.0,
            "{kind}: {sum} {}",
            now.sum
        );
    }
}

#[test]
fn aborted_requests_are_no_new_arrivals() {
    let mut tracker = EngineTracker::new();
    tracker.observe(&captured("abort_before.prom"));
    let update = tracker.observe(&captured("abort_after0.prom"));
    assert_eq!(update.delta.arrived, Some(0));
    assert_eq!((update.gauges.running, update.gauges.waiting), (Some(0), Some(0)));
}

#[test]
fn other_pages_are_refused_with_the_reason() {
    let read = |bytes: &[u8]| read_page(Some(EngineKind::Vllm), bytes, Limits::default());
    let html = read(b"<!doctype html>\n<html></html>\n").unwrap_err();
    assert!(matches!(html, PageError::Unparsable(_)), "{html}");
    let other = read(b"# TYPE node_load1 gauge\nnode_load1 0.5\nprocess_start_time_seconds 1\n").unwrap_err();
    assert_eq!(other, PageError::Unrecognised { kind: Some(EngineKind::Vllm), shown: None, samples: 2 });
    assert!(matches!(read(b""), Err(PageError::Unrecognised { samples: 0, .. })));
    let limits = Limits { page_bytes: 10, ..Limits::default() };
    assert!(matches!(
        read_page(Some(EngineKind::Vllm), &bytes("before.prom"), limits),
        Err(PageError::TooLarge(_))
    ));
}
