//! An agent that counts, and a planner that notes what it applied, with everything that is under way between them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use plimsoll_agent::{
    uplink::{Outgoing, Spool},
    window::Closed,
};
use plimsoll_common::{
    ids::{AgentEpoch, BootId, Generation, NodeName, PlannerRun, Seq},
    units::Micros,
    wire::{FrameDecoder, Gap, Hello, Inventory, Message, Report},
};
use plimsoll_planner::{
    drive::{Ledger, Span},
    ingest::Verdict,
};

const fn seconds(seconds: u64) -> Micros {
    Micros(seconds * 1_000_000)
}

/// One run of an agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) epoch: u64,
    pub(crate) budget: usize,
    pub(crate) newest: u64,
    spool: Spool,
}

impl Agent {
    pub(crate) fn new(epoch: u64, budget: usize) -> Self {
        Self { epoch, budget, newest: 0, spool: Spool::new(budget).expect("memory") }
    }

    /// Closes a window; its number and what it counts.
    pub(crate) fn close(&mut self, now_s: u64) -> (u64, u64) {
        self.newest += 1;
        let seq = self.newest;
        // Now and then something on the node changes.
        let generation = Generation(1 + (seq / 50) as u32);
        let fresh = seq == 1 || seq.is_multiple_of(50);
        let counted = seq.wrapping_mul(0x9e37_79b9) % 1000;
        let mut report = Report { seq: Seq(seq), generation, length_ms: 1000, ..Report::default() };
        report.engines.arrived = [Some(counted)].into_iter().collect();
        let inventory = fresh.then(|| Inventory { generation, ..Inventory::default() });
        self.spool.push(Closed { inventory, report }, seconds(now_s)).expect("a window that encodes");
        (seq, counted)
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.spool.usage().dropped_windows
    }

    pub(crate) fn coalesced(&self) -> u64 {
        self.spool.usage().coalesced_windows
    }

    fn hello(&self) -> Hello {
        Hello {
            node: NodeName::parse("node").expect("a name"),
            boot: BootId::parse("boot").expect("an id"),
            epoch: AgentEpoch(self.epoch),
            version: String::new(),
            wall_ms: None,
            oldest: Some(self.spool.oldest()),
            token: None,
        }
    }
}

/// A report that a planner applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    pub(crate) epoch: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) counted: u64,
}

/// A message on its way to a planner, with the hello of its connection.
#[derive(Debug, Clone)]
enum Upward {
    Report(Hello, Box<Report>),
    Gap(Hello, Gap),
}

/// One planner and what is under way to and from it.
#[derive(Debug)]
pub(crate) struct Planner {
    address: SocketAddr,
    run: u64,
    ledger: Ledger,
    hello: Option<Hello>,
    /// Reports arrive in any order.
    reports: Vec<Upward>,
    /// The control stream keeps its order.
    control: VecDeque<Upward>,
    answer: Option<Seq>,
    bases: BTreeMap<u64, u64>,
    pub(crate) applied: Vec<Applied>,
}

impl Planner {
    pub(crate) fn new(index: u16) -> Self {
        Self {
            address: ([127, 0, 0, 1], 1000 + index).into(),
            run: u64::from(index) << 32,
            ledger: Ledger::default(),
            hello: None,
            reports: Vec::new(),
            control: VecDeque::new(),
            answer: None,
            bases: BTreeMap::new(),
            applied: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, agent: &mut Agent, now_s: u64) {
        let hello = agent.hello();
        agent.spool.attach(self.address);
        let seq = self.ledger.hello(&hello, self.hello.as_ref(), seconds(now_s)).expect("the newest run");
        self.bases.entry(agent.epoch).or_insert(seq.0);
        agent.spool.resume(self.address, Some(PlannerRun(self.run)), seq, seconds(now_s));
        self.hello = Some(hello);
        self.answer = None;
    }

    /// The connection is gone. What is under way is lost, or arrives although nobody waits for its acknowledgement.
    pub(crate) fn cut(&mut self, lost: bool) {
        if lost {
            self.reports.clear();
            self.control.clear();
        }
        self.answer = None;
    }

    pub(crate) fn restart(&mut self) {
        *self = Self { run: self.run + 1, ..Self::new(self.address.port() - 1000) };
    }

    pub(crate) fn send(&mut self, agent: &mut Agent, reports: usize, now_s: u64) {
        let hello = self.hello.clone().expect("a connection");
        for _ in 0..reports {
            match agent.spool.next(self.address, seconds(now_s)) {
                Some(Outgoing::Report { frame, generation }) => {
                    assert!(agent.spool.inventory(generation).is_some(), "nobody could read its rows");
                    let frame = FrameDecoder::new().expect("memory").decode(&frame).expect("a frame");
                    let Message::Report(report) = frame.message else { panic!("no report") };
                    self.reports.push(Upward::Report(hello.clone(), report));
                }
                Some(Outgoing::Gap(gap)) => self.control.push_back(Upward::Gap(hello.clone(), gap)),
                None => return,
            }
        }
    }

    pub(crate) fn is_under_way(&self) -> bool {
        !self.reports.is_empty() || !self.control.is_empty()
    }

    pub(crate) fn arrive(&mut self, which: usize, again: bool, now_s: u64) {
        if !self.is_under_way() {
            return;
        }
        let which = which % (self.reports.len() + 1);
        let message = match self.control.front() {
            Some(_) if which == self.reports.len() || self.reports.is_empty() => self.control.pop_front(),
            _ if again => self.reports.get(which).or_else(|| self.reports.last()).cloned(),
            _ => Some(self.reports.swap_remove(which.min(self.reports.len() - 1))),
        };
        let (hello, seq) = match message.expect("something is under way") {
            Upward::Gap(hello, gap) => {
                let seq = self.ledger.gap(&hello, gap, seconds(now_s));
                (hello, seq)
            }
            Upward::Report(hello, report) => {
                let end = seconds(now_s);
                let (first, last) = (report.first_seq(), report.seq);
                let span = Span { first, last, begin: end, end, leaving: false };
                let (verdict, seq) = self.ledger.window(&hello, span, end);
                if verdict == Verdict::Apply {
                    let counted = report.engines.arrived.get(0).expect("a count");
                    self.applied.push(Applied {
                        epoch: hello.epoch.0,
                        first: first.0,
                        last: last.0,
                        counted,
                    });
                }
                (hello, seq)
            }
        };
        // Answers go to the connection that stands.
        if self.hello.as_ref().is_some_and(|connected| connected.epoch == hello.epoch) {
            self.answer = Some(seq);
        }
    }

    pub(crate) fn acknowledge(&mut self, agent: &mut Agent, now_s: u64) {
        if let Some(seq) = self.answer.take() {
            agent.spool.acknowledge(self.address, seq, seconds(now_s));
        }
    }

    pub(crate) fn is_behind(&self, agent: &Agent) -> bool {
        agent.spool.is_behind(self.address)
    }

    /// Where the planner stood when it first heard of a run.
    pub(crate) fn base(&self, epoch: u64) -> u64 {
        self.bases.get(&epoch).copied().unwrap_or(0)
    }

    /// How many windows of the living agent it counts as lost.
    pub(crate) fn lost(&self, agent: &Agent) -> u64 {
        let hello = agent.hello();
        self.ledger.run_losses(&hello).0
    }

    /// Every applied window, or the first that was applied twice.
    pub(crate) fn applied_windows(&self) -> Result<BTreeSet<(u64, u64)>, (u64, u64)> {
        let mut windows = BTreeSet::new();
        for report in &self.applied {
            for seq in report.first..=report.last {
                if !windows.insert((report.epoch, seq)) {
                    return Err((report.epoch, seq));
                }
            }
        }
        Ok(windows)
    }
}
