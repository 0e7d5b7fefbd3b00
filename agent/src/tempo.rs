//! How often the agent reports: its own interval, what planners ask for, and the work it sees. Pure.

use std::time::Duration;

/// The shortest interval that a planner may ask for.
const SHORTEST: Duration = Duration::from_millis(200);
/// The longest interval that a planner may ask for.
const LONGEST: Duration = Duration::from_mins(1);
/// A planner may ask for at most so many times as many reports as the agent's own interval makes...
const FASTER: u32 = 4;
/// ... or for so many times fewer.
const SLOWER: u32 = 10;

/// The interval between two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tempo {
    own: Duration,
    asked: Option<Duration>,
    /// Whether work was seen since a planner asked for fewer reports: then it knows less than the agent.
    woken: bool,
}

impl Tempo {
    /// The agent's own interval, as configured.
    #[must_use]
    pub const fn new(own: Duration) -> Self {
        Self { own, asked: None, woken: false }
    }

    /// A planner asks for an interval, or for none.
    pub fn ask(&mut self, asked: Option<Duration>) {
        let least = (self.own / FASTER).max(SHORTEST).min(self.own);
        let most = self.own.saturating_mul(SLOWER).min(LONGEST).max(self.own);
        self.asked = asked.map(|asked| asked.clamp(least, most));
        self.woken = false;
    }

    /// An engine was seen at work. Whether the agent is to report at once, and at its own pace from now on: the planner
    /// asked for fewer reports because nothing happened, and now something does.
    pub fn work(&mut self) -> bool {
        let slowed = self.interval() > self.own;
        self.woken |= slowed;
        slowed
    }

    /// The interval now.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match self.asked {
            Some(asked) if !(self.woken && asked > self.own) => asked,
            _ => self.own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_planner_asks_within_the_agents_budgets() {
        let mut tempo = Tempo::new(SECOND);
        for (asked_ms, ms) in [(1, 250), (500, 500), (5_000, 5_000), (600_000, 10_000)] {
            tempo.ask(Some(Duration::from_millis(asked_ms)));
            assert_eq!(tempo.interval(), Duration::from_millis(ms));
        }
        tempo.ask(None);
        assert_eq!(tempo.interval(), SECOND);
        // An agent's own interval is always allowed, beyond what a planner may ask for as well.
        for own in [Duration::from_millis(100), Duration::from_mins(5)] {
            let mut tempo = Tempo::new(own);
            tempo.ask(Some(own));
            assert_eq!(tempo.interval(), own);
        }
    }

    #[test]
    fn work_ends_a_slow_pace_at_once_and_leaves_a_fast_one_alone() {
        let mut tempo = Tempo::new(SECOND);
        assert!(!tempo.work());
        tempo.ask(Some(Duration::from_millis(500)));
        assert!(!tempo.work());
        tempo.ask(Some(5 * SECOND));
        assert!(tempo.work() && tempo.interval() == SECOND);
        assert!(!tempo.work(), "once is enough");
        tempo.ask(Some(5 * SECOND));
        assert_eq!(tempo.interval(), 5 * SECOND, "the planner has heard, and asks again");
    }
}
