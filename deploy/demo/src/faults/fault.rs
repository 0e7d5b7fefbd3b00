//! What can happen to an engine, and what it has to be shown as. Pure.

use crate::sight::EngineStates;

/// Other buckets than an engine's own, and few of them.
pub(super) const OTHER_BUCKETS: &str = r#"{"custom_histogram_buckets":{
    "time_to_first_token":[0.01,0.025,0.05,0.1,0.2,0.5,1.0,2.0,5.0,10.0],
    "inter_token_latency":[0.005,0.01,0.015,0.02,0.03,0.05,0.1,0.5]}}"#;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The engine's loop hangs; its HTTP server answers.
    Freeze,
    /// The whole process is stopped (SIGSTOP).
    Stop,
    /// It is put to sleep.
    Sleep,
    /// Its server asks for a key that nobody gave to the agent.
    Lock,
    /// It ends, and comes back after some seconds.
    Restart,
    /// It is back after that.
    Return,
    /// It restarts at once with other histogram buckets.
    Rebucket,
    /// The process is killed (SIGKILL).
    Die,
}

impl Fault {
    pub(super) const ALL: [Self; 8] = [
        Self::Freeze,
        Self::Stop,
        Self::Sleep,
        Self::Lock,
        Self::Restart,
        Self::Return,
        Self::Rebucket,
        Self::Die,
    ];

    /// What happens.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Freeze => "freezes, its HTTP server lives",
            Self::Stop => "is stopped, HTTP server and all",
            Self::Sleep => "is put to sleep",
            Self::Lock => "asks for a key",
            Self::Restart => "restarts, down for 4 s",
            Self::Return => "is back",
            Self::Rebucket => "restarts with other buckets",
            Self::Die => "dies under load",
        }
    }

    /// Whether it befalls the engine of the one before.
    pub(super) const fn follows(self) -> bool {
        matches!(self, Self::Return)
    }

    /// The state and the evidence as which it has to show.
    const fn state(self) -> (&'static str, &'static str) {
        match self {
            Self::Freeze => ("frozen", "nothing_moves"),
            Self::Stop => ("unreachable", "no_answer"),
            Self::Sleep => ("sleeping", "sleep_state"),
            Self::Lock => ("unauthorised", "denied"),
            Self::Restart | Self::Die => ("gone", "refused"),
            Self::Return | Self::Rebucket => ("ready", "page_read"),
        }
    }

    /// As what it has to show, for people.
    pub(super) const fn shown_as(self) -> &'static str {
        match self {
            Self::Freeze => "frozen (nothing moves)",
            Self::Stop => "unreachable (no answer)",
            Self::Sleep => "sleeping (its page says so)",
            Self::Lock => "unauthorised (401)",
            Self::Restart => "gone (port closed), for now",
            Self::Return => "ready, one more restart",
            Self::Rebucket => "ready, restart, other buckets",
            Self::Die => "gone (port closed)",
        }
    }

    /// Whether the planner shows it.
    pub(super) fn shows_at_planner(self, before: &EngineStates, now: &EngineStates) -> bool {
        let restarts = u64::from(matches!(self, Self::Return | Self::Rebucket));
        let (state, evidence) = self.state();
        now.state == state && now.evidence == evidence && now.restarts >= before.restarts + restarts
    }

    /// Whether the agent shows it; it also tells of the buckets.
    pub(super) fn shows_at_agent(self, before: &EngineStates, now: &EngineStates) -> bool {
        let changes = u64::from(self == Self::Rebucket);
        self.shows_at_planner(before, now) && now.layout_changes >= before.layout_changes + changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, evidence: &str, restarts: u64, layout_changes: u64) -> EngineStates {
        let (state, evidence) = (state.to_owned(), evidence.to_owned());
        EngineStates { state, evidence, restarts, layout_changes }
    }

    #[test]
    fn a_fault_shows_only_as_what_it_is() {
        let well = seen("ready", "page_read", 3, 1);
        for fault in Fault::ALL {
            assert!(!fault.shows_at_agent(&well, &well), "{fault:?} is no state of an engine that is well");
        }
        assert!(Fault::Freeze.shows_at_agent(&well, &seen("frozen", "nothing_moves", 3, 1)));
        assert!(!Fault::Die.shows_at_agent(&well, &seen("gone", "closed", 3, 1)));
        let rebucketed = seen("ready", "page_read", 4, 1);
        assert!(Fault::Return.shows_at_agent(&well, &rebucketed));
        assert!(Fault::Rebucket.shows_at_planner(&well, &rebucketed), "the planner does not tell of buckets");
        assert!(!Fault::Rebucket.shows_at_agent(&well, &rebucketed));
        assert!(Fault::Rebucket.shows_at_agent(&well, &seen("ready", "page_read", 4, 2)));
    }
}
