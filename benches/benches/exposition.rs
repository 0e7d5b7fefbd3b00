//! Throughput of the exposition reader, and the cost of one look at an engine, over captured vLLM pages.

use std::{fs, hint::black_box, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plimsoll_agent::{
    engines::{EngineTracker, read_page},
    exposition::{Entry, Limits, read},
};
use plimsoll_common::engine::EngineKind;

const PAGES: [&str; 3] = ["during_06.prom", "load2_10.prom", "abort_before.prom"];

fn pages() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures/vllm-0.32.0");
    PAGES
        .map(|name| fs::read(folder.join(name)).expect("the agent's fixtures lie beside this package"))
        .into()
}

/// All samples with their values; labels are found and checked, not copied.
fn samples(page: &[u8]) -> f64 {
    let lines = read(page, Limits::default()).expect("a small page");
    lines.filter_map(Entry::into_sample).map(|sample| sample.value).sum()
}

fn exposition(c: &mut Criterion) {
    let pages = pages();
    let bytes: usize = pages.iter().map(Vec::len).sum();
    let mut group = c.benchmark_group("exposition");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("read", |b| {
        b.iter(|| pages.iter().map(|page| samples(black_box(page))).sum::<f64>());
    });
    group.bench_function("read_page", |b| {
        b.iter(|| {
            for page in &pages {
                black_box(
                    read_page(Some(EngineKind::Vllm), black_box(page), Limits::default())
                        .expect("a vLLM page"),
                );
            }
        });
    });
    group.bench_function("read_page_and_track", |b| {
        let mut tracker = EngineTracker::new();
        b.iter(|| {
            for page in &pages {
                let page = read_page(Some(EngineKind::Vllm), black_box(page), Limits::default())
                    .expect("a vLLM page");
                black_box(tracker.observe(&page));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
