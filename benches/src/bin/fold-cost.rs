//! What a report costs the planner besides QUIC, stage by stage: CPU time of one thread, in virtual time.
//!
//! `fold-cost NODES SECONDS busy|idle` prints one JSON line: microseconds a report to decode, to fold into an observation and
//! to fold into the fleet; milliseconds to give memory back, to
//! capture the fleet's sums and for a whole snapshot; bytes of windows an engine and a pool.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use plimsoll_benches::{
    fleet,
    program::{self, cpu_of_thread as cpu},
};
use plimsoll_common::{
    ids::{AgentEpoch, NodeName},
    units::Micros,
    wire::{FrameDecoder, FrameEncoder, Message},
};
use plimsoll_core::fleet::{Detail, Fleet, Limits, NodeInventory};
use plimsoll_planner::fold;

/// The planner's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where virtual time begins, Unix microseconds.
const BEGIN: u64 = 1_795_353_870_000_000;
/// Between two times that memory is given back, seconds.
const EXPIRE_EVERY: u64 = 10;

#[derive(Debug, Default)]
struct Spent {
    decode: Duration,
    fold: Duration,
    observe: Duration,
    expire: Duration,
    reports: u32,
}

fn main() -> ExitCode {
    program::end("fold-cost", run())
}

fn run() -> anyhow::Result<String> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: fold-cost NODES SECONDS busy|idle");
    let (nodes, seconds, load) = (next()?, next()?, next()?);
    let (nodes, seconds): (u64, u64) = (nodes.parse()?, seconds.parse()?);
    let known = (0..nodes).map(|node| {
        let name = NodeName::parse(&format!("node-{node}"))?;
        anyhow::Ok((name, Arc::new(fold::inventory(&fleet::inventory(node)?)?)))
    });
    let known = known.collect::<anyhow::Result<Vec<_>>>()?;
    let mut fleet = Fleet::new(Limits::default());
    let mut spent = Spent::default();
    for second in 1..=seconds {
        one_second(&mut fleet, &known, second, load == "busy", &mut spent)?;
    }
    let now = Micros(BEGIN + (seconds + 1) * 1_000_000);
    let begun = cpu();
    let sums = fleet.capture(now, Detail::Sums);
    let capture = cpu() - begun;
    drop(sums);
    let begun = cpu();
    let shown = fleet.snapshot(now);
    let snapshot = cpu() - begun;
    let (engines, pools) = fleet.window_bytes();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(spent.reports);
    Ok(format!(
        "{{\"nodes\":{nodes},\"load\":\"{load}\",\"reports\":{},\"decode_us\":{:.2},\"fold_us\":{:.2},\"observe_us\":{:.2},\
         \"expire_ms\":{:.2},\"capture_ms\":{:.2},\"snapshot_ms\":{:.2},\"window_bytes_an_engine\":{},\"window_bytes_a_pool\":{}}}",
        spent.reports,
        each(spent.decode),
        each(spent.fold),
        each(spent.observe),
        spent.expire.as_secs_f64() * 1e3 / (seconds / EXPIRE_EVERY).max(1) as f64,
        capture.as_secs_f64() * 1e3,
        snapshot.as_secs_f64() * 1e3,
        engines / shown.engines.len().max(1),
        pools / shown.pools.len().max(1),
    ))
}

fn one_second(
    fleet: &mut Fleet,
    known: &[(NodeName, Arc<NodeInventory>)],
    second: u64,
    busy: bool,
    spent: &mut Spent,
) -> anyhow::Result<()> {
    let (mut encoder, mut decoder) = (FrameEncoder::new()?, FrameDecoder::new()?);
    for (node, (name, inventory)) in (0..).zip(known) {
        // Every node at its own point of the second, as agents are.
        let now = Micros(BEGIN + second * 1_000_000 + node * 1_000_000 / known.len() as u64);
        let frame = encoder.encode(&Message::Report(Box::new(fleet::report(node, second, busy))), 3)?;
        let begun = cpu();
        let decoded = decoder.decode(&frame)?;
        let decode = cpu();
        let Message::Report(report) = decoded.message else {
            anyhow::bail!("a report became something else")
        };
        let (observation, _) = fold::report(&report, Micros(3_000), name, AgentEpoch(1), inventory)?;
        drop(report);
        let fold = cpu();
        fleet.observe(now, observation);
        spent.observe += cpu() - fold;
        spent.fold += fold - decode;
        spent.decode += decode - begun;
        spent.reports += 1;
    }
    if second.is_multiple_of(EXPIRE_EVERY) {
        let begun = cpu();
        fleet.expire(Micros(BEGIN + (second + 1) * 1_000_000));
        spent.expire += cpu() - begun;
    }
    Ok(())
}
