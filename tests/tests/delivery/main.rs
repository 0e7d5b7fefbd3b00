//! The agent's spool and the planner's ledger together, without a network: every window counts once, whatever happens
//! between them and to them.

mod sides;

use std::collections::BTreeMap;

use proptest::prelude::*;
use sides::{Agent, Planner};

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The agent closes windows.
    Close(u8),
    /// A link sends what it has.
    Send { planner: usize, reports: u8 },
    /// A message that is under way arrives, in whatever order; perhaps it stays under way and arrives again.
    Arrive { planner: usize, which: usize, again: bool },
    /// The newest acknowledgement arrives.
    Acknowledge { planner: usize },
    /// The connection is lost. The agent comes back; what was under way may still arrive at the planner, or never.
    Reconnect { planner: usize, lost: bool },
    /// The planner starts anew, knowing nothing.
    RestartPlanner { planner: usize },
    /// The agent is killed and starts anew.
    KillAgent,
    /// Time passes.
    Pass { seconds: u16 },
}

fn event() -> impl Strategy<Value = Event> {
    let planner = 0..2usize;
    prop_oneof![
        6 => (1u8..30).prop_map(Event::Close),
        6 => (planner.clone(), 1u8..40).prop_map(|(planner, reports)| Event::Send { planner, reports }),
        12 => (planner.clone(), any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(planner, which, again)| Event::Arrive { planner, which: which.index(1 << 20), again }),
        4 => planner.clone().prop_map(|planner| Event::Acknowledge { planner }),
        2 => (planner.clone(), any::<bool>()).prop_map(|(planner, lost)| Event::Reconnect { planner, lost }),
        1 => planner.prop_map(|planner| Event::RestartPlanner { planner }),
        1 => Just(Event::KillAgent),
        1 => (1u16..400).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

/// Everything that is told apart by (epoch, window).
type Windows = BTreeMap<(u64, u64), u64>;

#[derive(Debug)]
struct World {
    agent: Agent,
    planners: [Planner; 2],
    /// What every window that was ever closed counted.
    truth: Windows,
    now_s: u64,
}

impl World {
    fn new(budget: usize) -> Self {
        let mut world = Self {
            agent: Agent::new(1, budget),
            planners: [Planner::new(0), Planner::new(1)],
            truth: Windows::new(),
            now_s: 0,
        };
        for planner in &mut world.planners {
            planner.connect(&mut world.agent, 0);
        }
        world
    }

    fn step(&mut self, event: Event) {
        let now = self.now_s;
        match event {
            Event::Close(windows) => {
                for _ in 0..windows {
                    self.now_s += 1;
                    let (seq, counted) = self.agent.close(self.now_s);
                    self.truth.insert((self.agent.epoch, seq), counted);
                }
            }
            Event::Send { planner, reports } => {
                self.planners[planner].send(&mut self.agent, reports.into(), now)
            }
            Event::Arrive { planner, which, again } => self.planners[planner].arrive(which, again, now),
            Event::Acknowledge { planner } => self.planners[planner].acknowledge(&mut self.agent, now),
            Event::Reconnect { planner, lost } => {
                self.planners[planner].cut(lost);
                self.planners[planner].connect(&mut self.agent, now);
            }
            Event::RestartPlanner { planner } => {
                self.planners[planner].restart();
                self.planners[planner].connect(&mut self.agent, now);
            }
            Event::KillAgent => {
                self.agent = Agent::new(self.agent.epoch + 1, self.agent.budget);
                for planner in &mut self.planners {
                    planner.cut(false);
                    planner.connect(&mut self.agent, now);
                }
            }
            Event::Pass { seconds } => self.now_s += u64::from(seconds),
        }
    }

    /// The network is good for long enough.
    fn settle(&mut self) {
        for planner in &mut self.planners {
            planner.cut(false);
            planner.connect(&mut self.agent, self.now_s);
            for _ in 0..10_000 {
                planner.send(&mut self.agent, 64, self.now_s);
                while planner.is_under_way() {
                    planner.arrive(0, false, self.now_s);
                }
                planner.acknowledge(&mut self.agent, self.now_s);
                if !planner.is_behind(&self.agent) {
                    break;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Invariants, for each planner by itself, whatever is lost, delayed, reordered or repeated, and whoever restarts:
    /// no window is applied twice; what a report counts is what its windows counted; in the end every window of the
    /// living agent is applied or counted as lost; and where the spool dropped nothing, nothing is lost.
    #[test]
    fn the_sum_of_what_is_applied_is_what_was_produced_less_what_is_counted_as_lost(
        budget in prop_oneof![Just(1 << 20), 6_000usize..30_000],
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut world = World::new(budget);
        events.into_iter().for_each(|event| world.step(event));
        world.settle();
        let epoch = world.agent.epoch;
        let newest = world.agent.newest;
        for planner in &world.planners {
            for report in &planner.applied {
                let windows = world.truth.range((report.epoch, report.first)..=(report.epoch, report.last));
                prop_assert_eq!(report.counted, windows.map(|(_, counted)| counted).sum::<u64>(), "{:?}", report);
            }
            let applied = planner.applied_windows();
            prop_assert!(applied.is_ok(), "applied twice: {applied:?}");
            let applied = applied.unwrap_or_default().into_iter().filter(|(of, _)| *of == epoch).count() as u64;
            let base = planner.base(epoch);
            prop_assert_eq!(applied + planner.lost(&world.agent), newest - base, "base {}", base);
            if world.agent.dropped() == 0 {
                prop_assert_eq!(planner.lost(&world.agent), 0);
            }
            prop_assert!(!planner.is_behind(&world.agent));
        }
    }
}

/// One hour without a planner, then one that starts empty beside one that comes back: both end up with the same.
#[test]
fn an_outage_of_an_hour_costs_no_count() {
    let mut world = World::new(300_000);
    world.step(Event::Close(20));
    world.planners[0].send(&mut world.agent, 20, 0);
    world.planners[0].arrive(7, false, 0);
    for _ in 0..180 {
        world.step(Event::Close(20));
    }
    world.step(Event::RestartPlanner { planner: 1 });
    world.settle();
    assert!(world.agent.coalesced() > 1_000);
    let all: u64 = world.truth.values().sum();
    for planner in &world.planners {
        assert_eq!(planner.applied.iter().map(|report| report.counted).sum::<u64>(), all);
    }
}
