use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{Generation, PlannerRun},
    wire::{Column, HistogramEntry, Inventory, Report},
};
use proptest::prelude::*;

use super::*;

const RUN: Option<PlannerRun> = Some(PlannerRun(1));
const OTHER_RUN: Option<PlannerRun> = Some(PlannerRun(2));
const SECOND: u64 = 1_000_000;

fn planner(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A window in which one request arrived.
fn window(seq: u64, generation: u32, with_inventory: bool) -> Closed {
    let generation = Generation(generation);
    let mut report = Report { seq: Seq(seq), generation, length_ms: 1000, ..Report::default() };
    report.engines.arrived = [Some(1)].into_iter().collect();
    Closed { inventory: with_inventory.then(|| Inventory { generation, ..Inventory::default() }), report }
}

fn spool(budget: usize, windows: u64) -> Spool {
    let mut spool = Spool::new(budget).unwrap();
    spool.attach(planner(1));
    (1..=windows).for_each(|seq| spool.push(window(seq, 1, seq == 1), Micros(seq * SECOND)).unwrap());
    spool
}

fn decode(frame: &[u8]) -> (Report, u32) {
    let frame = FrameDecoder::new().unwrap().decode(frame).unwrap();
    let Message::Report(report) = frame.message else { panic!("not a report") };
    (*report, frame.age_ms)
}

/// The windows of the next report: first, last, arrived requests.
fn next(spool: &mut Spool, planner: SocketAddr) -> Option<(u64, u64, u64)> {
    match spool.next(planner, Micros(0))? {
        Outgoing::Report { frame, .. } => {
            let (report, _) = decode(&frame);
            Some((report.first_seq().0, report.seq.0, report.engines.arrived.get(0)?))
        }
        Outgoing::Gap(gap) => Some((gap.first.0, gap.last.0, 0)),
    }
}

#[test]
fn what_is_not_acknowledged_is_sent_again_with_its_age() {
    let mut spool = spool(1 << 20, 2);
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    assert_eq!(next(&mut spool, planner(1)), Some((1, 1, 1)));
    assert_eq!(next(&mut spool, planner(1)), Some((2, 2, 1)));
    assert_eq!(next(&mut spool, planner(1)), None);
    assert!(spool.is_outstanding(planner(1)));
    spool.acknowledge(planner(1), Seq(1), Micros(3 * SECOND));
    assert_eq!((spool.usage().reports, spool.usage().retained), (1, 1));
    spool.resume(planner(1), RUN, Seq(1), Micros(4 * SECOND));
    assert!(!spool.is_outstanding(planner(1)) && spool.is_behind(planner(1)));
    let Some(Outgoing::Report { frame, generation }) = spool.next(planner(1), Micros(4_500_000)) else {
        panic!("a report waits")
    };
    let (report, age_ms) = decode(&frame);
    assert_eq!((report.seq, age_ms), (Seq(2), 2500));
    assert!(spool.inventory(generation).is_some());
}

#[test]
fn what_everybody_has_is_kept_for_one_that_starts_empty_and_then_forgotten() {
    let mut spool = spool(1 << 20, 3);
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    while next(&mut spool, planner(1)).is_some() {}
    spool.acknowledge(planner(1), Seq(3), Micros(4 * SECOND));
    assert_eq!((spool.usage().reports, spool.usage().retained, spool.oldest()), (0, 3, Seq(1)));
    // The same address, another run: it has nothing, and gets all that is there.
    spool.resume(planner(1), OTHER_RUN, Seq(0), Micros(5 * SECOND));
    let sent: Vec<_> = std::iter::from_fn(|| next(&mut spool, planner(1))).collect();
    assert_eq!(sent, [(1, 1, 1), (2, 2, 1), (3, 3, 1)]);
    spool.acknowledge(planner(1), Seq(3), Micros(4 * SECOND).saturating_add(RETAIN));
    assert_eq!((spool.usage().retained, spool.oldest()), (0, Seq(4)));
    assert!(spool.inventory(Generation(1)).is_some(), "the next report needs it");
}

#[test]
fn each_planner_has_its_own_place_and_the_slowest_keeps_windows() {
    let mut spool = spool(1 << 20, 5);
    spool.attach(planner(2));
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    while next(&mut spool, planner(1)).is_some() {}
    spool.acknowledge(planner(1), Seq(5), Micros(0));
    spool.push(window(6, 1, false), RETAIN).unwrap();
    assert_eq!(spool.usage().reports, 6, "the other planner was never there");
    assert_eq!(next(&mut spool, planner(1)), Some((6, 6, 1)));
    assert_eq!(next(&mut spool, planner(2)), Some((1, 1, 1)));
    spool.detach(planner(2), RETAIN);
    spool.acknowledge(planner(1), Seq(6), RETAIN);
    assert_eq!(spool.usage().reports, 0);
    assert_eq!(spool.next(planner(2), RETAIN), None);
}

#[test]
fn only_so_much_is_under_way() {
    let mut spool = spool(1 << 20, 200);
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    assert_eq!(std::iter::from_fn(|| next(&mut spool, planner(1))).count(), MAX_IN_FLIGHT);
    spool.acknowledge(planner(1), Seq(10), Micros(0));
    assert_eq!(std::iter::from_fn(|| next(&mut spool, planner(1))).count(), 10);
    // Nobody acknowledges what was not sent.
    spool.acknowledge(planner(1), Seq(9_999), Micros(0));
    assert_eq!(spool.acknowledged(planner(1)), Some(Seq(MAX_IN_FLIGHT as u64 + 10)));
}

#[test]
fn where_room_runs_out_time_gets_coarser_and_no_count_is_lost() {
    let mut spool = spool(30_000, 2_000);
    let usage = spool.usage();
    assert!(
        usage.bytes <= 30_000 && usage.dropped_windows == 0 && usage.coalesced_windows > 1_000,
        "{usage:?}"
    );
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    let (mut expected, mut arrived, mut lengths) = (1, 0, BTreeMap::<u64, usize>::new());
    while let Some((first, last, n)) = next(&mut spool, planner(1)) {
        assert_eq!(first, expected, "no window is skipped");
        *lengths.entry(last - first + 1).or_default() += 1;
        expected = last + 1;
        arrived += n;
        spool.acknowledge(planner(1), Seq(last), Micros(0));
    }
    assert_eq!((arrived, expected), (2_000, 2_001));
    assert!(lengths.keys().all(|length| *length <= 63), "{lengths:?}");
    assert!(lengths.contains_key(&1) && lengths.keys().any(|length| *length >= 57), "{lengths:?}");
}

#[test]
fn what_a_planner_may_have_in_part_is_never_made_one() {
    let mut spool = spool(1 << 20, 100);
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    (0..15).for_each(|_| assert!(next(&mut spool, planner(1)).is_some()));
    spool.acknowledge(planner(1), Seq(4), Micros(0));
    // Windows 5 to 15 are under way. Whatever is merged now, they are not.
    spool.budget = 6_000;
    spool.fit();
    assert!(spool.usage().coalesced_windows > 0 && spool.usage().dropped_windows == 0, "{:?}", spool.usage());
    spool.resume(planner(1), RUN, Seq(9), Micros(0));
    let sent: Vec<_> = std::iter::from_fn(|| next(&mut spool, planner(1))).collect();
    assert_eq!(sent[..6], [(10, 10, 1), (11, 11, 1), (12, 12, 1), (13, 13, 1), (14, 14, 1), (15, 15, 1)]);
    assert!(sent[6].0 == 16 && sent[6].1 > 16, "{sent:?}");
}

#[test]
fn what_is_dropped_is_counted_and_told() {
    let mut spool = Spool::new(3_000).unwrap();
    spool.attach(planner(1));
    // Every window has rows of its own: nothing can be merged.
    for seq in 1..=50 {
        spool.push(window(seq, seq as u32, true), Micros(seq)).unwrap();
    }
    let usage = spool.usage();
    assert!(usage.bytes <= 3_000 && usage.coalesced_windows == 0, "{usage:?}");
    assert_eq!(usage.dropped_windows as usize + usage.reports, 50);
    assert_eq!(spool.oldest(), Seq(usage.dropped_windows + 1));
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    let dropped = usage.dropped_windows;
    assert_eq!(next(&mut spool, planner(1)), Some((1, dropped, 0)));
    assert_eq!(next(&mut spool, planner(1)), Some((dropped + 1, dropped + 1, 1)));
}

#[test]
fn a_planner_that_returns_into_a_merged_window_is_told_of_the_gap() {
    let mut spool = spool(4_000, 100);
    spool.resume(planner(2), RUN, Seq(3), Micros(0));
    let (first, last, arrived) = next(&mut spool, planner(2)).unwrap();
    assert_eq!((first, arrived), (4, 0));
    assert_eq!(next(&mut spool, planner(2)).map(|(first, ..)| first), Some(last + 1));
}

#[test]
fn a_window_that_breaks_the_protocol_is_dropped_and_leaves_a_gap() {
    let mut spool = spool(1 << 20, 1);
    let mut wide = window(2, 1, false);
    let mut noise = 1u64;
    for engine in 0..200 {
        let cells = (0..3000).map(|cell| {
            noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (cell, noise >> 8)
        });
        let cells = cells.collect();
        wide.report.histograms.push(&HistogramEntry { engine, kind: 1, layout: 0, cells, sum: 1 });
    }
    assert!(spool.push(wide, Micros(0)).is_err());
    spool.push(window(3, 1, false), Micros(0)).unwrap();
    assert_eq!(spool.usage().dropped_windows, 1);
    spool.resume(planner(1), RUN, Seq(1), Micros(0));
    assert_eq!(next(&mut spool, planner(1)), Some((2, 2, 0)));
    assert_eq!(next(&mut spool, planner(1)), Some((3, 3, 1)));
}

/// A second of a busy node: 8 GPUs and 8 engines with the distributions that vLLM publishes, none like the one before.
fn busy(seq: u64) -> Closed {
    let mut noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |n: u64| {
        noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (noise >> 33) % n
    };
    let mut column =
        |least: u64, spread: u64| -> Column<u64> { (0..8).map(|_| Some(least + below(spread))).collect() };
    let mut report = Report {
        seq: Seq(seq),
        generation: Generation(1),
        begin_ms: 1_795_353_870_000 + seq * 1000,
        length_ms: 1000,
        ..Report::default()
    };
    report.gpus.state = column(1, 1);
    report.gpus.utilization_percent = column(60, 40);
    report.gpus.memory_activity_percent = column(30, 40);
    report.gpus.memory_used_bytes = column(70 << 30, 2 << 30);
    report.gpus.power_mw = column(400_000, 290_000);
    report.engines.state = column(1, 1);
    report.engines.running = column(80, 100);
    report.engines.waiting = column(0, 20);
    report.engines.kv_usage_ppm = column(500_000, 490_000);
    report.engines.age_ms = column(0, 1000);
    report.engines.arrived = column(10, 20);
    report.engines.prompt_tokens = column(20_000, 30_000);
    report.engines.generation_tokens = column(3_000, 3_000);
    report.engines.prefix_queries = column(20_000, 30_000);
    report.engines.prefix_hits = column(5_000, 10_000);
    report.engines.finished_stop = column(10, 20);
    report.engines.scrape_us = column(5_000, 20_000);
    // TTFT, ITL, TPOT, end to end, queue, prefill, decode, inference, ISL, OSL: how many buckets a second's samples fall
    // into, how many samples.
    for (kind, buckets, samples) in [
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
    ] {
        for engine in 0..8 {
            let from = below(4) as usize;
            let cells = (from..from + buckets).map(|cell| (cell, 1 + below(samples / 4 + 1))).collect();
            let sum = below(60_000_000 * samples);
            report.histograms.push(&HistogramEntry { engine, kind, layout: kind as usize, cells, sum });
        }
    }
    Closed {
        inventory: (seq == 1).then(|| Inventory { generation: Generation(1), ..Inventory::default() }),
        report,
    }
}

/// What the default budget promises: an hour without any planner at 8 GPUs and 8 busy engines, to the last count.
#[test]
fn an_hour_of_a_busy_node_fits() {
    let mut spool = Spool::new(8 << 20).unwrap();
    spool.attach(planner(1));
    let (mut tokens, mut plain) = (0, 0);
    for seq in 1..=3_600 {
        let closed = busy(seq);
        tokens += (0..8).filter_map(|row| closed.report.engines.generation_tokens.get(row)).sum::<u64>();
        let before = (spool.usage().bytes, spool.usage().coalesced_windows);
        spool.push(closed, Micros(seq * SECOND)).unwrap();
        if spool.usage().coalesced_windows == before.1 {
            plain = spool.usage().bytes - before.0;
        }
    }
    let usage = spool.usage();
    assert!(plain > 2_000, "a busy second takes {plain} bytes");
    assert!(usage.bytes <= 8 << 20 && usage.dropped_windows == 0, "{usage:?}");
    assert!(usage.coalesced_windows > 0, "it would have fitted anyway");
    spool.resume(planner(1), RUN, Seq(0), Micros(0));
    let mut sent = 0;
    while let Some(Outgoing::Report { frame, .. }) = spool.next(planner(1), Micros(0)) {
        let (report, _) = decode(&frame);
        sent += (0..8).filter_map(|row| report.engines.generation_tokens.get(row)).sum::<u64>();
        spool.acknowledge(planner(1), report.seq, Micros(0));
    }
    assert_eq!(sent, tokens);
}

proptest! {
    /// Invariants: the budget holds, a planner that follows gets every window once or is told of a gap, and what is
    /// told is what is counted.
    #[test]
    fn every_window_is_sent_or_told(
        budget in 2_000usize..20_000,
        steps in prop::collection::vec((0u8..4, 1u64..30), 1..60),
    ) {
        let mut spool = Spool::new(budget).unwrap();
        spool.attach(planner(1));
        spool.resume(planner(1), RUN, Seq(0), Micros(0));
        let (mut seq, mut expected, mut arrived, mut told) = (0, 1, 0, 0);
        for (what, n) in steps.into_iter().chain([(1, 10_000)]) {
            if what == 1 {
                spool.acknowledge(planner(1), Seq(expected - 1), Micros(seq * SECOND));
            }
            for _ in 0..n {
                if what == 0 || what == 3 && n < 30 {
                    seq += 1;
                    let generation = 1 + (seq / 40) as u32;
                    let fresh = seq == 1 || seq % 40 == 0;
                    spool.push(window(seq, generation, fresh), Micros(seq * SECOND)).unwrap();
                    prop_assert!(spool.usage().bytes <= budget);
                } else if let Some((first, last, n)) = next(&mut spool, planner(1)) {
                    prop_assert_eq!(first, expected);
                    prop_assert!(n == 0 || n == last - first + 1);
                    expected = last + 1;
                    arrived += n;
                    told += if n == 0 { last - first + 1 } else { 0 };
                    if what == 1 {
                        spool.acknowledge(planner(1), Seq(last), Micros(seq * SECOND));
                    }
                }
            }
        }
        prop_assert_eq!(arrived + told, seq);
        prop_assert!(told <= spool.usage().dropped_windows);
    }
}
