//! Throughput of the exposition reader, and the cost of one look at an engine, over captured pages of each engine.
//!
//! The reader should do more than 300 MB/s (286 MiB/s) on every engine's pages. TensorRT-LLM's pages are those of Dynamo's
//! simulated worker in its place, since none of its own were captured.

use std::{fs, hint::black_box, path::Path};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plimsoll_agent::{
    engines::{EngineTracker, read_page},
    exposition::{Entry, Limits, read},
};
use plimsoll_common::engine::EngineKind;

/// An engine's name, the agent's fixture of captured pages, how the names of the wanted pages begin, and their kind.
const ENGINES: [(&str, &str, &str, EngineKind); 4] = [
    ("vllm", "vllm-0.32.0", "load2_", EngineKind::Vllm),
    ("sglang", "sglang-0.5.23", "during_", EngineKind::Sglang),
    ("trtllm", "dynamo-mocker-1.6.1.other-workers", "trtllm", EngineKind::TensorRtLlm),
    ("dynamo", "dynamo-mocker-1.6.1.frontend", "frontend_", EngineKind::DynamoFrontend),
];

/// The pages of a fixture: one compressed text, a line `@@ name` before each page.
fn pages(fixture: &str, prefix: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures/captured");
    let packed = fs::read(folder.join(format!("{fixture}.pages.zst")));
    let packed = packed.expect("the agent's fixtures lie beside this package");
    let text = zstd::decode_all(packed.as_slice()).expect("the fixture decompresses");
    let text = String::from_utf8(text).expect("the pages are text");
    let pages = text.split("@@ ").filter(|page| page.starts_with(prefix));
    let pages = pages.filter_map(|page| Some(page.split_once('\n')?.1.as_bytes().to_vec()));
    let pages: Vec<_> = pages.take(8).collect();
    assert!(!pages.is_empty(), "{fixture} has no page {prefix}*");
    pages
}

/// All samples with their values; labels are found and checked, not copied.
fn samples(page: &[u8]) -> f64 {
    let lines = read(page, Limits::default()).expect("a small page");
    lines.filter_map(Entry::into_sample).map(|sample| sample.value).sum()
}

fn exposition(c: &mut Criterion) {
    let mut group = c.benchmark_group("exposition");
    for (name, fixture, prefix, kind) in ENGINES {
        let pages = pages(fixture, prefix);
        let bytes: usize = pages.iter().map(Vec::len).sum();
        let read = |page: &[u8]| {
            read_page(Some(kind), black_box(page), Limits::default()).expect("a page of the engine")
        };
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("read", name), |b| {
            b.iter(|| pages.iter().map(|page| samples(black_box(page))).sum::<f64>());
        });
        group.bench_function(BenchmarkId::new("read_page", name), |b| {
            b.iter(|| pages.iter().for_each(|page| drop(black_box(read(page)))));
        });
        group.bench_function(BenchmarkId::new("read_page_and_track", name), |b| {
            let mut tracker = EngineTracker::new();
            b.iter(|| pages.iter().for_each(|page| drop(black_box(tracker.observe(&read(page))))));
        });
    }
    group.finish();
}

criterion_group!(benches, exposition);
criterion_main!(benches);
