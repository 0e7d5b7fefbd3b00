//! What a report costs to encode, to decode and to send, and what the planner pays for its histograms.
//!
//! Bytes per report are printed before the timings: a frame as it goes into QUIC, without QUIC's own bytes.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::{BucketLayout, LatencyHistogram, SparseHistogram, place},
    ids::{Generation, Seq},
    units::Micros,
    wire::{
        AgentCost, EngineColumns, FrameDecoder, FrameEncoder, GpuColumns, HistogramColumns, HistogramEntry,
        Message, Report,
    },
};

const GPUS: u64 = 8;
const ENGINES: usize = 8;

/// vLLM 0.32's default bounds, as its page shows them.
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const ITL: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const TOKENS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0];

/// One second of a busy engine: 5 requests end, 60 run at 20 ms a step. Kind, bounds, samples, typical value in the
/// published unit.
const SECOND: &[(DistributionKind, &[f64], u64, f64)] = &[
    (DistributionKind::Ttft, TTFT, 5, 0.2),
    (DistributionKind::ItlStep, ITL, 3000, 0.02),
    (DistributionKind::Tpot, ITL, 5, 0.02),
    (DistributionKind::E2e, REQUEST, 5, 6.0),
    (DistributionKind::Queue, REQUEST, 5, 0.05),
    (DistributionKind::Prefill, REQUEST, 5, 0.2),
    (DistributionKind::Decode, REQUEST, 5, 6.0),
    (DistributionKind::Inference, REQUEST, 5, 6.0),
    (DistributionKind::Isl, TOKENS, 5, 2000.0),
    (DistributionKind::Osl, TOKENS, 5, 300.0),
];

/// Reproducible numbers (SplitMix64), so that frames are the same in every run.
struct Draw(u64);

impl Draw {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Half to twice a typical value, with one in fifty three times as high: a second of a real engine has a tail.
    fn around(&mut self, typical: f64) -> f64 {
        let spread = 0.5 + 1.5 * (self.below(1000) as f64 / 1000.0);
        if self.below(50) == 0 { typical * spread * 3.0 } else { typical * spread }
    }
}

fn unit_of(kind: DistributionKind) -> f64 {
    match kind.unit() {
        Unit::Seconds => 1e6,
        Unit::Tokens => 1.0,
    }
}

/// Samples of one kind as `(bucket, samples)`, and their sum in whole units.
fn bucketed(
    draw: &mut Draw,
    kind: DistributionKind,
    edges: &[f64],
    n: u64,
    typical: f64,
) -> (Vec<(usize, u64)>, u64) {
    let mut counts = vec![0; edges.len() + 1];
    let mut sum = 0;
    for _ in 0..n {
        let value = draw.around(typical);
        counts[edges.partition_point(|edge| *edge < value)] += 1;
        sum += (value * unit_of(kind)) as u64;
    }
    (counts.into_iter().enumerate().filter(|(_, n)| *n > 0).collect(), sum)
}

fn gpu_columns(draw: &mut Draw, busy: bool) -> GpuColumns {
    let mut gpus = GpuColumns::default();
    for gpu in 0..GPUS {
        gpus.state.push(Some(1));
        gpus.utilization_percent.push(Some(if busy { 80 + draw.below(20) } else { 0 }));
        gpus.memory_activity_percent.push(Some(if busy { 40 + draw.below(20) } else { 0 }));
        gpus.memory_used_bytes.push(Some(71_000_000_000 + gpu * 2_097_152));
        gpus.power_mw.push(Some(if busy { 520_000 + draw.below(100_000) } else { 71_000 + draw.below(900) }));
        gpus.temperature_c.push(Some(if busy { 60 + draw.below(8) as i64 } else { 31 }));
    }
    gpus
}

fn engine_columns(draw: &mut Draw, busy: bool) -> EngineColumns {
    let mut engines = EngineColumns::default();
    let some = |value: u64| Some(if busy { value } else { 0 });
    for _ in 0..ENGINES {
        engines.state.push(Some(1));
        engines.running.push(some(50 + draw.below(20)));
        engines.waiting.push(some(draw.below(4)));
        engines.kv_usage_ppm.push(some(600_000 + draw.below(200_000)));
        engines.age_ms.push(Some(draw.below(1000)));
        engines.arrived.push(some(3 + draw.below(5)));
        engines.prompt_tokens.push(some(8_000 + draw.below(4_000)));
        engines.generation_tokens.push(some(2_900 + draw.below(200)));
        engines.prefix_queries.push(some(8_000 + draw.below(4_000)));
        engines.prefix_hits.push(some(2_000 + draw.below(1_000)));
        engines.preemptions.push(Some(0));
        engines.finished_stop.push(some(3 + draw.below(4)));
        engines.finished_length.push(some(draw.below(2)));
        engines.aborted.push(Some(0));
        engines.errored.push(Some(0));
        engines.scrape_us.push(Some(4_000 + draw.below(2_000)));
        engines.resets.push(Some(0));
    }
    engines
}

fn report(busy: bool) -> Report {
    let mut draw = Draw(7);
    let mut histograms = HistogramColumns::default();
    for engine in (0..ENGINES).filter(|_| busy) {
        for (layout, (kind, edges, n, typical)) in SECOND.iter().enumerate() {
            let (cells, sum) = bucketed(&mut draw, *kind, edges, *n, *typical);
            histograms.push(&HistogramEntry { engine, kind: kind.code(), layout: layout + 1, cells, sum });
        }
    }
    Report {
        seq: Seq(86_400),
        generation: Generation(3),
        begin_ms: 1_790_000_000_000,
        length_ms: 1000,
        gpus: gpu_columns(&mut draw, busy),
        engines: engine_columns(&mut draw, busy),
        histograms,
        cost: AgentCost {
            cpu_us: Some(4_200),
            rss_bytes: Some(14_000_000),
            nvml_busy_us: Some(1_800),
            host_cpu_ppm: Some(123_456),
            host_memory_used_bytes: Some(91_234_567_890),
            dropped_windows: None,
        },
        gpu_source: 1,
        ..Report::default()
    }
}

fn frames(c: &mut Criterion) {
    let mut encoder = FrameEncoder::new().expect("zstd has memory");
    let mut decoder = FrameDecoder::new().expect("zstd has memory");
    for (name, busy) in [("idle", false), ("busy", true)] {
        let message = Message::Report(Box::new(report(busy)));
        let frame = encoder.encode(&message, 0).expect("a report within the limits");
        assert_eq!(decoder.decode(&frame).expect("a frame of ours").message, message);
        eprintln_bytes(name, frame.len());
        let mut group = c.benchmark_group("report");
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("encode_{name}"), |b| {
            b.iter(|| encoder.encode(black_box(&message), 0).expect("a report within the limits"));
        });
        group.bench_function(format!("decode_{name}"), |b| {
            b.iter(|| decoder.decode(black_box(&frame)).expect("a frame of ours"));
        });
        group.finish();
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the size is a result of the bench, and criterion has no word for it"
)]
fn eprintln_bytes(name: &str, bytes: usize) {
    eprintln!("report of {GPUS} GPUs and {ENGINES} engines, {name}: {bytes} bytes a frame");
}

fn histograms(c: &mut Criterion) {
    let mut group = c.benchmark_group("histogram");
    let mut draw = Draw(11);
    let values: Vec<Micros> = (0..1000).map(|_| Micros((draw.around(0.02) * 1e6) as u64)).collect();
    let mut histogram = LatencyHistogram::new();
    group.throughput(Throughput::Elements(values.len() as u64));
    group.bench_function("record_1000", |b| {
        b.iter(|| values.iter().for_each(|value| histogram.record(black_box(*value))));
    });
    group.throughput(Throughput::Elements(1));
    let other = histogram.clone();
    group.bench_function("merge", |b| b.iter(|| histogram.merge(black_box(&other))));
    for (kind, edges, n, typical) in &SECOND[..2] {
        let (counts, sum) = bucketed(&mut draw, *kind, edges, *n, *typical);
        let layout = BucketLayout::new(edges, kind.unit()).expect("vLLM's own bounds");
        group.bench_function(format!("place_{kind}_second"), |b| {
            b.iter_batched_ref(
                SparseHistogram::default,
                |cells| place(black_box(&layout), black_box(&counts), sum, |cell, n| cells.add_cell(cell, n)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, frames, histograms);
criterion_main!(benches);
