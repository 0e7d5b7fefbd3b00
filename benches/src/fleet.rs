//! What the agents of a fleet say: 8 GPUs and 8 engines a node, no two windows alike.

use plimsoll_common::{
    engine::Role,
    ids::{EngineId, Generation, GpuUuid, InvalidId, ModelName, PoolName, Seq},
    wire::{Column, EngineInfo, GpuInfo, HistogramEntry, Inventory, Report},
};

/// GPUs, and engines, of a node.
const ROWS: usize = 8;
/// `(kind, buckets, samples)`: into how many neighbouring buckets the samples of a busy second fall.
const BUSY: [(u64, usize, u64); 10] = [
    (1, 12, 400),
    (2, 9, 50_000),
    (4, 9, 400),
    (5, 14, 400),
    (6, 9, 400),
    (7, 9, 400),
    (8, 12, 400),
    (9, 12, 400),
    (16, 12, 400),
    (17, 12, 400),
];

/// Numbers that look like chance and are the same for the same seed.
#[derive(Debug, Clone, Copy)]
struct Noise(u64);

impl Noise {
    const fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % n
    }

    fn column(&mut self, least: u64, spread: u64) -> Column<u64> {
        (0..ROWS).map(|_| Some(least + self.below(spread))).collect()
    }
}

/// What stands on a node.
///
/// # Errors
/// Never: the names are made here.
pub fn inventory(node: u64) -> Result<Inventory, InvalidId> {
    let gpu = |row: usize| {
        Ok(GpuInfo {
            uuid: GpuUuid::parse(&format!("GPU-{node:08x}-0000-0000-0000-{row:012x}"))?,
            index: row as u32,
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            pci_bus_id: Some(format!("00000000:{row:02x}:00.0")),
            memory_total_bytes: Some(80 << 30),
            power_limit_mw: Some(700_000),
            domain: None,
        })
    };
    let engine = |row: usize| {
        Ok(EngineInfo {
            id: EngineId::parse(&format!("10.0.0.1:80{row:02}"))?,
            kind: "vllm".to_owned(),
            url: format!("http://10.0.0.1:80{row:02}"),
            version: Some("0.32.0".to_owned()),
            model: Some(ModelName::parse(&format!("model-{}", node % 40))?),
            pool: Some(PoolName::parse(&format!("pool-{}", node % 200))?),
            role: Role::Aggregated,
            replica: None,
            gpus: Vec::new(),
            kv_capacity_tokens: Some(900_000),
            follower: false,
        })
    };
    Ok(Inventory {
        generation: Generation(1),
        gpus: (0..ROWS).map(gpu).collect::<Result<_, _>>()?,
        engines: (0..ROWS).map(engine).collect::<Result<_, _>>()?,
        layouts: (0..BUSY.len())
            .map(|of| (1..=24).map(|edge| f64::from(edge) * 0.5 + of as f64).collect())
            .collect(),
        ..Inventory::default()
    })
}

/// One second of a node, in which its engines work or rest.
#[must_use]
pub fn report(node: u64, seq: u64, busy: bool) -> Report {
    let mut noise = Noise((node << 32 | seq).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let load = |n: u64| if busy { n } else { 1 };
    let mut report = Report {
        seq: Seq(seq),
        generation: Generation(1),
        begin_ms: 1_795_353_870_000 + seq * 1000,
        length_ms: 1000,
        gpu_source: 1,
        ..Report::default()
    };
    report.gpus.state = noise.column(1, 1);
    report.gpus.utilization_percent = noise.column(0, load(100));
    report.gpus.memory_activity_percent = noise.column(0, load(100));
    report.gpus.memory_used_bytes = noise.column(70 << 30, 2 << 20);
    report.gpus.power_mw = noise.column(70_000, load(600_000).max(2_000));
    report.gpus.temperature_c = (0..ROWS).map(|_| Some(30 + noise.below(40) as i64)).collect();
    report.engines.state = noise.column(1, 1);
    report.engines.running = noise.column(0, load(200));
    report.engines.waiting = noise.column(0, load(20));
    report.engines.kv_usage_ppm = noise.column(0, load(800_000));
    report.engines.age_ms = noise.column(0, 1000);
    report.engines.arrived = noise.column(0, load(30));
    report.engines.prompt_tokens = noise.column(0, load(50_000));
    report.engines.generation_tokens = noise.column(0, load(6_000));
    report.engines.prefix_queries = noise.column(0, load(50_000));
    report.engines.prefix_hits = noise.column(0, load(10_000));
    report.engines.finished_stop = noise.column(0, load(30));
    report.engines.scrape_us = noise.column(5_000, 20_000);
    if busy {
        for (layout, (kind, buckets, samples)) in (1..).zip(BUSY) {
            for engine in 0..ROWS {
                let from = noise.below(10) as usize;
                let cells: Vec<_> =
                    (from..from + buckets).map(|cell| (cell, 1 + noise.below(samples / 4))).collect();
                let n: u64 = cells.iter().map(|(_, n)| n).sum();
                let sum = n * 6_000_000;
                report.histograms.push(&HistogramEntry { engine, kind, layout, cells, sum });
            }
        }
    }
    report
}
