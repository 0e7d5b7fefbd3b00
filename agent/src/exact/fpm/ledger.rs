//! What the messages of one publisher add up to. Pure.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::engine::DistributionKind;
use tokio::time::Instant;

use super::message::{ForwardPass, Rank, Work};
use crate::exact::{ExactBatch, ExactSamples, PassGauges, PassUpdate};

/// The most ranks that are told apart.
pub(super) const MAX_RANKS: usize = 256;
/// For how long a rank is heard after its last message; idle ones send a heartbeat every second.
const HEARD: Duration = Duration::from_secs(5);
/// A publisher sends a heartbeat of its own after a second without a message, whatever its scheduler does; what comes
/// sooner is the scheduler's.
const OWN_HEARTBEAT: Duration = Duration::from_millis(900);
/// For how long heartbeats do not overrule a queue that was not empty: the scheduler may be in a long pass.
const LONG_PASS: Duration = Duration::from_secs(30);

/// What was heard of one publisher since the last flush, and of each rank.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    ranks: BTreeMap<Rank, RankState>,
    samples: ExactSamples,
    busy: Duration,
    lost: u64,
}

#[derive(Debug)]
struct RankState {
    counter: Option<u64>,
    heard: Instant,
    /// Up to when its time is counted as watched.
    watched: Instant,
    queue: PassGauges,
    /// When the scheduler last told of work or of a queue.
    worked: Option<Instant>,
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A pass that was counted.
    Pass,
    /// A heartbeat.
    Heartbeat,
    /// No room for another rank.
    NoRoom,
}

impl Ledger {
    /// Takes a message.
    pub(super) fn observe(&mut self, now: Instant, pass: &ForwardPass) -> Heard {
        self.ranks.retain(|_, rank| now.saturating_duration_since(rank.heard) < LONG_PASS * 2);
        let known = self.ranks.len() < MAX_RANKS || self.ranks.contains_key(&pass.rank);
        if !known {
            return Heard::NoRoom;
        }
        let mut new = false;
        let rank = self.ranks.entry(pass.rank.clone()).or_insert_with(|| {
            new = true;
            RankState { counter: None, heard: now, watched: now, queue: PassGauges::default(), worked: None }
        });
        let quiet = now.saturating_duration_since(rank.heard);
        if quiet >= HEARD {
            rank.watched = now;
        }
        self.lost = self.lost.saturating_add(rank.missed(pass.counter));
        rank.heard = now;
        let idle =
            pass.work == Work::Nothing && pass.queue == PassGauges { ranks: 1, ..PassGauges::default() };
        let in_long_pass =
            rank.worked.is_some_and(|worked| now.saturating_duration_since(worked) < LONG_PASS);
        if !(idle && quiet >= OWN_HEARTBEAT && in_long_pass) {
            rank.queue = pass.queue;
            rank.worked = (!idle).then_some(now);
        }
        let kind = match pass.work {
            Work::Prefill => DistributionKind::PassPrefill,
            Work::Decode => DistributionKind::PassDecode,
            Work::Mixed => DistributionKind::PassMixed,
            Work::Nothing => return Heard::Heartbeat,
        };
        self.samples.record(kind, pass.wall_us);
        // The first pass that is heard of a rank began before the rank was watched.
        if !new {
            self.busy = self.busy.saturating_add(Duration::from_micros(pass.wall_us));
        }
        Heard::Pass
    }

    /// Hands out what was gained since the last time, and the levels as of now.
    pub(super) fn flush(&mut self, now: Instant, stream: usize) -> ExactBatch {
        let (mut watched, mut gauges) = (Duration::ZERO, None::<PassGauges>);
        for rank in self.ranks.values_mut() {
            let until = now.min(rank.heard + HEARD);
            watched = watched.saturating_add(until.saturating_duration_since(rank.watched));
            rank.watched = rank.watched.max(until);
            if now.saturating_duration_since(rank.heard) < HEARD {
                gauges = Some(gauges.unwrap_or_default().plus(rank.queue));
            }
        }
        let update = PassUpdate {
            lost: std::mem::take(&mut self.lost),
            busy: std::mem::take(&mut self.busy),
            watched,
            gauges,
        };
        ExactBatch { samples: self.samples.take(), passes: Some((stream, update)) }
    }

    /// Messages lost since the last flush.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The connection is gone: nobody is heard. What was counted stays, and so do the counters, so that what is missed
    /// meanwhile counts as lost.
    pub(super) fn disconnected(&mut self, now: Instant) {
        for rank in self.ranks.values_mut() {
            rank.heard = rank.heard.min(now.checked_sub(HEARD).unwrap_or(rank.heard));
            rank.watched = rank.watched.max(rank.heard + HEARD);
        }
    }
}

impl RankState {
    /// How many messages are missing before this one. A number that is not above the last one is a restart.
    const fn missed(&mut self, counter: Option<u64>) -> u64 {
        let Some(counter) = counter else { return 0 };
        let missed = match self.counter {
            Some(last) if counter > last => counter - last - 1,
            _ => 0,
        };
        self.counter = Some(counter);
        missed
    }
}
