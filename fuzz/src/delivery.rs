//! An authenticated agent or planner that says whatever it likes.

use std::{collections::BTreeMap, net::SocketAddr};

use plimsoll_agent::{
    uplink::{Outgoing, Spool},
    window::Closed,
};
use plimsoll_common::{
    ids::{AgentEpoch, BootId, Generation, NodeName, Seq},
    units::Micros,
    wire::{FrameDecoder, FrameEncoder, Hello, Inventory, Message, MessageKind, Report, WIRE_VERSION, merge},
};
use plimsoll_core::fleet::{Fleet, Limits};
use plimsoll_planner::{
    drive::{Ledger, Span},
    ingest::{Assembly, Verdict},
};

/// The smallest spool that can be configured.
const SPOOL_BYTES: usize = 64 << 10;

/// Takes an input apart.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        // Mostly small ones, so that windows meet; now and then one of any size.
        match self.byte()? {
            250.. => {
                let (bytes, rest) = self.0.split_first_chunk::<8>()?;
                self.0 = rest;
                Some(u64::from_be_bytes(*bytes))
            }
            small => Some(u64::from(small)),
        }
    }

    /// A body with its length in two bytes before it.
    fn body(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (body, rest) = rest.split_at(length);
        self.0 = rest;
        Some(body)
    }
}

/// A body as a plain frame of a kind, decoded.
fn decoded(decoder: &mut FrameDecoder, kind: MessageKind, body: &[u8]) -> Option<Message> {
    let mut frame = vec![WIRE_VERSION, kind as u8, 0, 0, 0, 0, 0, 0];
    frame.extend(body);
    Some(decoder.decode(&frame).ok()?.message)
}

/// Plays hellos, gaps, windows and acknowledgements against a planner's ledger and an agent's spool. No window of a run
/// counts twice or after it was given up, acknowledgements never fall, and the spool keeps its budget.
pub fn control(data: &[u8]) {
    let (Ok(mut decoder), Ok(spool)) = (FrameDecoder::new(), Spool::new(SPOOL_BYTES)) else { return };
    let mut input = Input(data);
    let mut planner = Planner::default();
    let mut agent = Agent { spool, newest: 0 };
    let mut now = 0;
    for _ in 0..200 {
        let Some(step) = input.byte() else { return };
        now += 100_000;
        let played = match step % 8 {
            0 => input.body().map(|body| {
                if let Some(Message::Hello(hello)) = decoded(&mut decoder, MessageKind::Hello, body) {
                    planner.hello(hello, Micros(now));
                }
            }),
            1 => input.body().map(|body| {
                if let Some(Message::Gap(gap)) = decoded(&mut decoder, MessageKind::Gap, body) {
                    planner.gap(gap.first.0, gap.last.0, Micros(now));
                }
            }),
            2 => input
                .number()
                .zip(input.number())
                .map(|(first, more)| planner.window(first, more, Micros(now))),
            3 => input.number().map(|oldest| planner.begin(u64::from(step >> 3), oldest, Micros(now))),
            4 => input.byte().map(|windows| agent.close(windows, Micros(now))),
            5 => input.byte().map(|reports| agent.send(reports, Micros(now))),
            _ => input.body().map(|body| {
                if let Some(Message::Ack(ack)) = decoded(&mut decoder, MessageKind::Ack, body) {
                    if step % 8 == 6 {
                        agent.spool.acknowledge(peer(step), ack.seq, Micros(now));
                    } else {
                        agent.spool.resume(peer(step), ack.planner, ack.seq, Micros(now));
                    }
                }
                let _ = decoded(&mut decoder, MessageKind::Request, body);
            }),
        };
        if played.is_none() {
            return;
        }
    }
}

fn peer(step: u8) -> SocketAddr {
    ([127, 0, 0, 1], 1 + u16::from(step >> 6)).into()
}

#[derive(Default)]
struct Planner {
    ledger: Ledger,
    hello: Option<Hello>,
    /// By run: windows that are settled, and up to where all was acknowledged. A ledger remembers four runs.
    settled: BTreeMap<AgentEpoch, Vec<(u64, u64)>>,
    acknowledged: BTreeMap<AgentEpoch, Seq>,
}

impl Planner {
    fn hello(&mut self, mut hello: Hello, now: Micros) {
        let (Ok(node), Ok(boot)) = (NodeName::parse("n"), BootId::parse("b")) else { return };
        (hello.node, hello.boot, hello.epoch) = (node, boot, AgentEpoch(hello.epoch.0 % 4));
        if let Ok(seq) = self.ledger.hello(&hello, self.hello.as_ref(), now) {
            self.rises(hello.epoch, seq);
            self.hello = Some(hello);
        }
    }

    /// A hello that no mutation has to find.
    fn begin(&mut self, epoch: u64, oldest: u64, now: Micros) {
        let (Ok(node), Ok(boot)) = (NodeName::parse("n"), BootId::parse("b")) else { return };
        let epoch = AgentEpoch(epoch);
        let oldest = (oldest > 0).then_some(Seq(oldest));
        self.hello(
            Hello { node, boot, epoch, version: String::new(), wall_ms: None, oldest, token: None },
            now,
        );
    }

    fn window(&mut self, first: u64, more: u64, now: Micros) {
        let Some(hello) = &self.hello else { return };
        let (first, last) = (first.max(1), first.max(1).saturating_add(more));
        let span = Span { first: Seq(first), last: Seq(last), begin: now, end: now, leaving: more == 0 };
        let epoch = hello.epoch;
        let (verdict, seq) = self.ledger.window(hello, span, now);
        let settled = self.settled.entry(epoch).or_default();
        if verdict == Verdict::Apply {
            let twice = settled.iter().find(|(from, to)| *from <= last && first <= *to);
            assert!(twice.is_none(), "{first}..={last} counts although {twice:?} is settled");
        }
        settled.push((first, last));
        self.rises(epoch, seq);
    }

    fn gap(&mut self, first: u64, last: u64, now: Micros) {
        let Some(hello) = &self.hello else { return };
        let (epoch, gap) = (hello.epoch, plimsoll_common::wire::Gap { first: Seq(first), last: Seq(last) });
        let seq = self.ledger.gap(hello, gap, now);
        self.settled.entry(epoch).or_default().push((first, last));
        self.rises(epoch, seq);
    }

    fn rises(&mut self, epoch: AgentEpoch, seq: Seq) {
        let before = self.acknowledged.insert(epoch, seq).unwrap_or_default();
        assert!(seq >= before, "acknowledged {seq:?} after {before:?}");
        let _ = (self.ledger.stats(), self.hello.as_ref().map(|hello| self.ledger.run_losses(hello)));
    }
}

struct Agent {
    spool: Spool,
    newest: u64,
}

impl Agent {
    fn close(&mut self, windows: u8, now: Micros) {
        for _ in 0..windows % 32 {
            self.newest += 1;
            let generation = Generation(1 + (self.newest / 50) as u32);
            let fresh = self.newest == 1 || self.newest.is_multiple_of(50);
            let inventory = fresh.then(|| Inventory { generation, ..Inventory::default() });
            let mut report =
                Report { seq: Seq(self.newest), generation, length_ms: 1000, ..Report::default() };
            report.engines.arrived = (0..64).map(|row| Some(self.newest.wrapping_mul(row) << 20)).collect();
            self.spool.push(Closed { inventory, report }, now).expect("a window that encodes");
        }
        let usage = self.spool.usage();
        assert!(usage.bytes <= SPOOL_BYTES || usage.reports + usage.retained == 1, "{usage:?}");
        assert!(usage.dropped_windows <= self.newest, "{usage:?}");
    }

    fn send(&mut self, reports: u8, now: Micros) {
        let peer = peer(reports);
        self.spool.attach(peer);
        for _ in 0..reports % 64 {
            let acknowledged = self.spool.acknowledged(peer);
            match self.spool.next(peer, now) {
                Some(Outgoing::Gap(gap)) => {
                    assert!(
                        gap.first <= gap.last && Some(gap.first) > acknowledged && gap.last.0 <= self.newest
                    );
                }
                Some(Outgoing::Report { generation, .. }) => {
                    assert!(self.spool.inventory(generation).is_some(), "nobody could read its rows");
                }
                None => return,
            }
        }
    }
}

/// Puts inventories and reports together, folds them into a fleet and shows it; and merges the reports as a spool does.
pub fn reports(data: &[u8]) {
    let Ok(mut decoder) = FrameDecoder::new() else { return };
    let Ok(node) = NodeName::parse("n") else { return };
    let mut input = Input(data);
    let mut assembly = Assembly::new(node, AgentEpoch(1));
    let mut fleet = Fleet::new(Limits::default());
    let mut kept = Vec::new();
    let mut now = 1_000_000_000;
    for _ in 0..16 {
        let (Some(kind), Some(body)) = (input.byte(), input.body()) else { break };
        let kind = if kind % 4 == 0 { MessageKind::Inventory } else { MessageKind::Report };
        now += 1_000_000;
        let windows = match decoded(&mut decoder, kind, body) {
            Some(Message::Inventory(inventory)) => assembly.inventory(&inventory),
            Some(Message::Report(report)) => {
                kept.push((*report).clone());
                assembly
                    .report(Micros(now), u32::from(body.len() as u16) << 8, report)
                    .map(|one| one.into_iter().collect())
            }
            _ => continue,
        };
        for window in windows.into_iter().flatten() {
            assert!(window.first <= window.last);
            fleet.observe(Micros(now), window.observation);
        }
    }
    fleet.expire(Micros(now + 10_000_000));
    let _ = fleet.snapshot(Micros(now + 10_000_000));
    merged(&mut decoder, &kept);
}

/// What is merged is a report that the other side takes, and the same once it has been on the way.
fn merged(decoder: &mut FrameDecoder, kept: &[Report]) {
    let (Ok(one), Ok(mut encoder)) = (merge(kept), FrameEncoder::new()) else { return };
    let Ok(bytes) = encoder.encode(&Message::Report(Box::new(one)), 0) else { return };
    let again = decoder.decode(&bytes).expect("what was merged");
    assert_eq!(
        encoder.encode(&again.message, 0).expect("what was decoded"),
        bytes,
        "a merged report survives"
    );
}
