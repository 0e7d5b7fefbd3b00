//! What is known of every node's agent runs: which of their windows were applied, and what was lost. Pure.

use std::collections::{BTreeMap, VecDeque};

use plimsoll_common::{
    ids::{AgentEpoch, BootId, NodeName, Seq},
    units::Micros,
    wire::{Gap, Hello},
};
use serde::Serialize;

use crate::ingest::{Cursor, Verdict};

/// How many runs of one node's agent are remembered: the newest, and those whose windows may still come.
const MAX_RUNS: usize = 4;
/// How many spans of lost windows are remembered of a node: the newest.
const MAX_SPANS: usize = 8;

/// What became of windows since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct WindowStats {
    /// Reports applied.
    pub applied: u64,
    /// Reports known already, dropped.
    pub duplicates: u64,
    /// Reports dropped because a part of them was known already.
    pub overlaps: u64,
    /// Single windows that can't be applied any more.
    pub lost: u64,
    /// Single windows between applied ones that have not come (yet).
    pub missing: u64,
    /// Agent runs that ended without a goodbye and were followed by another: what they had not sent is lost.
    pub interrupted_runs: u64,
    /// How long nobody looked between such a run's last applied window and the first of the next run.
    pub unobserved_seconds: f64,
    /// Hellos refused because another run of an agent is connected for the node.
    pub conflicts: u64,
}

/// Windows of one run that its agent gave up, since there was no room to keep them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LostSpan {
    /// Which run of the agent.
    pub epoch_unix_milliseconds: u64,
    /// The first window that will not come.
    pub first_seq: u64,
    /// The last.
    pub last_seq: u64,
    /// How many of them were not applied before.
    pub windows: u64,
    /// When the last window before them ended; absent where that is not known.
    pub from_unix_seconds: Option<f64>,
    /// When the first window after them began; absent before it has come, and where it came before they were given up.
    pub until_unix_seconds: Option<f64>,
}

impl LostSpan {
    /// Whether windows of a run from `first` on are lost with these, and nothing came in between.
    fn goes_on(&self, epoch: u64, first: Seq) -> bool {
        self.epoch_unix_milliseconds == epoch
            && self.last_seq.checked_add(1) == Some(first.0)
            && self.until_unix_seconds.is_none()
    }
}

/// What one node lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct NodeLosses {
    /// Windows that can't be applied any more.
    pub lost_windows: u64,
    /// Windows between applied ones that have not come (yet).
    pub missing_windows: u64,
    /// Agent runs that ended without a goodbye and were followed by another.
    pub interrupted_runs: u64,
    /// How long nobody looked around these ends.
    pub unobserved_seconds: f64,
    /// Hellos refused because another run was connected.
    pub conflicts: u64,
}

/// A window as the ledger sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first window that the report stands for.
    pub first: Seq,
    /// The last.
    pub last: Seq,
    /// When it began, on the planner's clock.
    pub begin: Micros,
    /// When it ended.
    pub end: Micros,
    /// Whether the agent says goodbye with it.
    pub leaving: bool,
}

/// All nodes.
#[derive(Debug, Default)]
pub struct Ledger {
    nodes: BTreeMap<NodeName, Node>,
    totals: WindowStats,
}

#[derive(Debug, Default)]
struct Node {
    runs: Vec<Run>,
    losses: NodeLosses,
    /// When the newest applied window ended, and whether the agent left with it.
    end: Option<(Micros, bool)>,
    /// The run whose window was applied last, and its turn.
    current: Option<(BootId, AgentEpoch, u64)>,
    /// How many runs there have been.
    turns: u64,
    spans: VecDeque<LostSpan>,
}

#[derive(Debug)]
struct Run {
    boot: BootId,
    epoch: AgentEpoch,
    /// Which run of the node this is. Epochs do not tell: an agent's clock may have been set back between two runs.
    turn: u64,
    cursor: Cursor,
    used: Micros,
    /// Whether another run took the node over while this one was connected.
    replaced: bool,
}

impl Ledger {
    /// How many nodes are known.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a node is known.
    #[must_use]
    pub fn knows(&self, node: &NodeName) -> bool {
        self.nodes.contains_key(node)
    }

    /// Takes a hello while `connected`, another connection's hello, stands for the same node. `Err` where that one's run
    /// took the node over from this one: the newest run keeps the node for as long as it is connected, so that two agents
    /// under one name do not take turns.
    pub fn hello(&mut self, hello: &Hello, connected: Option<&Hello>, now: Micros) -> Result<Seq, Conflict> {
        let node = self.nodes.entry(hello.node.clone()).or_default();
        let rival = connected.filter(|connected| !same_run(connected, hello));
        if rival.is_some() && node.run(hello, now).replaced {
            node.losses.conflicts += 1;
            self.totals.conflicts += 1;
            return Err(Conflict);
        }
        if let Some(rival) = rival {
            node.run(rival, now).replaced = true;
        }
        let run = node.run(hello, now);
        run.replaced = false;
        let Some(oldest) = hello.oldest else { return Ok(run.cursor.acknowledged(now)) };
        let first = Seq(run.cursor.acknowledged(now).0.saturating_add(1));
        let last = Seq(oldest.0.saturating_sub(1));
        Ok(node.give_up(hello, first, last, now, |cursor| cursor.begin(oldest)))
    }

    /// Takes a window of a run that said hello, and says what to do with it and up to where all is settled.
    pub fn window(&mut self, hello: &Hello, span: Span, now: Micros) -> (Verdict, Seq) {
        let known = self.nodes.get_mut(&hello.node);
        let Some((node, at)) = known.and_then(|node| node.position(hello).map(|at| (node, at))) else {
            // A straggler of a run that made room for newer ones: nobody can tell whether it was applied.
            self.totals.duplicates += 1;
            return (Verdict::Duplicate, Seq(0));
        };
        let run = &mut node.runs[at];
        run.used = now;
        let verdict = run.cursor.take(now, span.first, span.last);
        let seq = run.cursor.acknowledged(now);
        match verdict {
            Verdict::Apply => {
                self.totals.applied += 1;
                let unobserved = node.applied(hello, span);
                if let Some(unobserved) = unobserved {
                    self.totals.interrupted_runs += 1;
                    self.totals.unobserved_seconds += unobserved.as_secs_f64();
                }
            }
            Verdict::Duplicate => self.totals.duplicates += 1,
            Verdict::Overlap => self.totals.overlaps += 1,
        }
        (verdict, seq)
    }

    /// Takes what an agent says will never come.
    pub fn gap(&mut self, hello: &Hello, gap: Gap, now: Micros) -> Seq {
        let Some(node) = self.nodes.get_mut(&hello.node) else { return Seq(0) };
        node.give_up(hello, gap.first, gap.last, now, |cursor| cursor.give_up(gap.first, gap.last))
    }

    /// The newest spans of windows that a node's agents gave up, the oldest first.
    #[must_use]
    pub fn lost_spans(&self, node: &NodeName) -> Vec<LostSpan> {
        self.nodes.get(node).map(|node| node.spans.iter().copied().collect()).unwrap_or_default()
    }

    /// What a node lost.
    #[must_use]
    pub fn losses(&self, node: &NodeName) -> NodeLosses {
        self.nodes.get(node).map(Node::losses).unwrap_or_default()
    }

    /// How many windows of one run of an agent are lost, and how many have not come (yet).
    #[must_use]
    pub fn run_losses(&self, hello: &Hello) -> (u64, u64) {
        let known = self.nodes.get(&hello.node);
        let run = known.and_then(|node| node.position(hello).map(|at| &node.runs[at]));
        run.map_or((0, 0), |run| (run.cursor.lost(), run.cursor.missing()))
    }

    /// What became of all windows.
    #[must_use]
    pub fn stats(&self) -> WindowStats {
        let mut stats = self.totals;
        for node in self.nodes.values() {
            let losses = node.losses();
            stats.lost = stats.lost.saturating_add(losses.lost_windows);
            stats.missing = stats.missing.saturating_add(losses.missing_windows);
        }
        stats
    }

    /// Forgets nodes that were not heard of for `after` and are not connected. What they lost stays counted.
    pub fn expire(&mut self, now: Micros, after: Micros, connected: impl Fn(&NodeName) -> bool) {
        let lost = &mut self.totals.lost;
        self.nodes.retain(|name, node| {
            let used = node.runs.iter().map(|run| run.used).max().unwrap_or_default();
            let keep = connected(name) || now.saturating_sub(used) <= after;
            if !keep {
                *lost = lost.saturating_add(node.losses().lost_windows);
            }
            keep
        });
    }
}

/// Another run of an agent is connected for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict;

/// Whether two hellos are of one agent process.
pub(super) fn same_run(a: &Hello, b: &Hello) -> bool {
    (&a.boot, a.epoch) == (&b.boot, b.epoch)
}

impl Node {
    fn position(&self, hello: &Hello) -> Option<usize> {
        self.runs.iter().position(|run| run.epoch == hello.epoch && run.boot == hello.boot)
    }

    /// The record of an agent's run; the run that was not used for longest makes room for a new one.
    fn run(&mut self, hello: &Hello, now: Micros) -> &mut Run {
        let known = self.position(hello);
        let runs = &mut self.runs;
        let at = known.unwrap_or_else(|| {
            if runs.len() >= MAX_RUNS {
                let oldest = (0..runs.len()).min_by_key(|at| (runs[*at].used, *at)).unwrap_or(0);
                let lost = runs.remove(oldest).cursor.lost();
                self.losses.lost_windows = self.losses.lost_windows.saturating_add(lost);
            }
            self.turns += 1;
            runs.push(Run {
                boot: hello.boot.clone(),
                epoch: hello.epoch,
                turn: self.turns,
                cursor: Cursor::default(),
                used: now,
                replaced: false,
            });
            runs.len() - 1
        });
        runs[at].used = now;
        &mut runs[at]
    }

    /// Notes an applied window; for how long nobody looked, where it is the first after a run that did not say goodbye.
    fn applied(&mut self, hello: &Hello, span: Span) -> Option<Micros> {
        let turn = self.position(hello).map_or(0, |at| self.runs[at].turn);
        let run = (hello.boot.clone(), hello.epoch, turn);
        let other = self.current.as_ref().is_some_and(|current| *current != run);
        // Windows of an earlier run may still come; they are no new beginning.
        let begins = other && self.current.as_ref().is_some_and(|(_, _, current)| *current < turn);
        for lost in &mut self.spans {
            if lost.epoch_unix_milliseconds == hello.epoch.0 && span.first.0 > lost.last_seq {
                let begin = span.begin.as_secs_f64();
                lost.until_unix_seconds =
                    Some(lost.until_unix_seconds.map_or(begin, |until| until.min(begin)));
            }
        }
        let unobserved =
            self.end.filter(|(_, left)| begins && !left).map(|(end, _)| span.begin.saturating_sub(end));
        if let Some(unobserved) = unobserved {
            self.losses.interrupted_runs += 1;
            self.losses.unobserved_seconds += unobserved.as_secs_f64();
        }
        if !other || begins {
            let before = self.end.filter(|_| !begins).unwrap_or_default();
            self.end = Some((before.0.max(span.end), before.1 || span.leaving));
            self.current = Some(run);
        }
        unobserved
    }

    /// Gives windows of a run up, and notes them as a span where they were not applied before. Up to where all is settled.
    fn give_up(
        &mut self,
        hello: &Hello,
        first: Seq,
        last: Seq,
        now: Micros,
        act: impl FnOnce(&mut Cursor),
    ) -> Seq {
        let Some(at) = self.position(hello) else { return Seq(0) };
        let run = &mut self.runs[at];
        let (before, newest) = (run.cursor.lost(), run.cursor.newest());
        act(&mut run.cursor);
        let (windows, seq) = (run.cursor.lost() - before, run.cursor.acknowledged(now));
        let is_current = self.current.as_ref().is_some_and(|(_, _, turn)| *turn == run.turn);
        if windows == 0 {
            return seq;
        }
        // Where later windows have come already, the newest one's end tells nothing.
        let from = self.end.filter(|_| is_current && newest < first).map(|(end, _)| end.as_secs_f64());
        let epoch = hello.epoch.0;
        match self.spans.back_mut() {
            Some(lost) if lost.goes_on(epoch, first) => {
                lost.last_seq = last.0;
                lost.windows = lost.windows.saturating_add(windows);
            }
            _ => self.spans.push_back(LostSpan {
                epoch_unix_milliseconds: epoch,
                first_seq: first.0,
                last_seq: last.0,
                windows,
                from_unix_seconds: from,
                until_unix_seconds: None,
            }),
        }
        while self.spans.len() > MAX_SPANS {
            self.spans.pop_front();
        }
        seq
    }

    fn losses(&self) -> NodeLosses {
        let mut losses = self.losses;
        for run in &self.runs {
            losses.lost_windows = losses.lost_windows.saturating_add(run.cursor.lost());
            losses.missing_windows = losses.missing_windows.saturating_add(run.cursor.missing());
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn hello(epoch: u64, oldest: Option<u64>) -> Hello {
        Hello {
            node: NodeName::parse("n").unwrap(),
            boot: BootId::parse("b").unwrap(),
            epoch: AgentEpoch(epoch),
            version: String::new(),
            wall_ms: None,
            oldest: oldest.map(Seq),
            token: None,
        }
    }

    fn span(seq: u64, end: u64, leaving: bool) -> Span {
        let end = Micros(end * SECOND);
        Span { first: Seq(seq), last: Seq(seq), begin: end.saturating_sub(Micros(SECOND)), end, leaving }
    }

    fn node() -> NodeName {
        NodeName::parse("n").unwrap()
    }

    #[test]
    fn a_run_that_ends_without_a_goodbye_is_seen_as_a_gap() {
        let mut ledger = Ledger::default();
        (1..=3).for_each(|epoch| assert!(ledger.hello(&hello(epoch, None), None, Micros(0)).is_ok()));
        ledger.window(&hello(1, None), span(1, 10, false), Micros(0));
        ledger.window(&hello(2, None), span(1, 25, true), Micros(0));
        let losses = ledger.losses(&node());
        assert_eq!((losses.interrupted_runs, losses.unobserved_seconds), (1, 14.0));
        // This one said goodbye.
        ledger.window(&hello(3, None), span(1, 100, false), Micros(0));
        // A late window of an earlier run is no new beginning.
        ledger.window(&hello(2, None), span(2, 26, false), Micros(0));
        ledger.window(&hello(3, None), span(2, 101, false), Micros(0));
        assert_eq!(ledger.stats().interrupted_runs, 1);
        assert_eq!(ledger.stats().applied, 5);
    }

    #[test]
    fn two_agents_under_one_name_do_not_take_turns() {
        let (mut ledger, now) = (Ledger::default(), Micros(0));
        let (a, b) = (hello(1, Some(1)), hello(2, Some(1)));
        assert!(ledger.hello(&a, None, now).is_ok());
        assert!(
            ledger.hello(&a, Some(&a), now).is_ok(),
            "the same run may come back while its old connection lingers"
        );
        assert!(ledger.hello(&b, Some(&a), now).is_ok(), "the newest run wins");
        assert_eq!(ledger.hello(&a, Some(&b), now), Err(Conflict));
        assert_eq!(ledger.losses(&node()).conflicts, 1);
        assert!(ledger.hello(&a, None, now).is_ok(), "the other one is gone");
    }

    #[test]
    fn what_an_agent_gave_up_is_counted_for_its_node_and_stays_counted() {
        let (mut ledger, now) = (Ledger::default(), Micros(0));
        assert_eq!(ledger.hello(&hello(1, Some(100)), None, now), Ok(Seq(99)));
        ledger.window(&hello(1, None), span(100, 1, false), now);
        assert_eq!(ledger.gap(&hello(1, None), Gap { first: Seq(101), last: Seq(105) }, now), Seq(105));
        assert_eq!(ledger.hello(&hello(1, Some(110)), None, now), Ok(Seq(109)));
        assert_eq!(ledger.losses(&node()).lost_windows, 9);
        ledger.expire(Micros(10), Micros(1), |_| false);
        assert!(!ledger.knows(&node()));
        assert_eq!(ledger.stats().lost, 9);
    }

    #[test]
    fn what_was_given_up_is_a_span_between_the_windows_around_it() {
        let (mut ledger, now) = (Ledger::default(), Micros(0));
        assert!(ledger.hello(&hello(9, Some(1)), None, now).is_ok());
        ledger.window(&hello(9, None), span(1, 10, false), now);
        // Back after an outage, and again after a short one: six are gone, and then two of the next four.
        assert_eq!(ledger.hello(&hello(9, Some(7)), None, now), Ok(Seq(6)));
        assert_eq!(ledger.hello(&hello(9, Some(8)), None, now), Ok(Seq(7)));
        ledger.window(&hello(9, None), span(11, 42, false), now);
        ledger.window(&hello(9, None), span(8, 39, false), now);
        ledger.gap(&hello(9, None), Gap { first: Seq(8), last: Seq(10) }, now);
        let spans = ledger.lost_spans(&node());
        let tell = |span: &LostSpan| (span.first_seq, span.last_seq, span.windows);
        assert_eq!(spans.iter().map(tell).collect::<Vec<_>>(), [(2, 7, 6), (8, 10, 2)]);
        assert_eq!((spans[0].from_unix_seconds, spans[0].until_unix_seconds), (Some(10.0), Some(38.0)));
        assert_eq!((spans[1].from_unix_seconds, spans[1].until_unix_seconds), (None, None));
        assert_eq!(ledger.losses(&node()).lost_windows, 8);
        (0..20).for_each(|n| {
            ledger.gap(&hello(9, None), Gap { first: Seq(100 + 2 * n), last: Seq(100 + 2 * n) }, now);
        });
        assert_eq!(ledger.lost_spans(&node()).len(), MAX_SPANS);
        assert_eq!(ledger.lost_spans(&NodeName::parse("other").unwrap()), []);
    }

    #[test]
    fn a_clock_that_was_set_back_between_two_runs_hides_no_interruption() {
        let (mut ledger, now) = (Ledger::default(), Micros(0));
        for epoch in [5_000, 1_000] {
            assert!(ledger.hello(&hello(epoch, Some(1)), None, now).is_ok());
            ledger.window(&hello(epoch, None), span(1, 20_000 - epoch, false), now);
        }
        assert_eq!(ledger.losses(&node()).interrupted_runs, 1);
    }

    #[test]
    fn runs_are_bounded() {
        let mut ledger = Ledger::default();
        for epoch in 0..20 {
            assert!(ledger.hello(&hello(epoch, Some(1)), None, Micros(epoch)).is_ok());
            ledger.gap(&hello(epoch, Some(1)), Gap { first: Seq(1), last: Seq(2) }, Micros(epoch));
        }
        assert_eq!(ledger.nodes[&node()].runs.len(), MAX_RUNS);
        assert_eq!(ledger.losses(&node()).lost_windows, 40);
        let (verdict, _) = ledger.window(&hello(0, None), span(3, 1, false), Micros(20));
        assert_eq!(verdict, Verdict::Duplicate, "what became of it is not known any more");
    }
}
