//! What was seen of the faults, as text. Pure.

use std::time::Duration;

/// Within which a fault has to show, at the agent and at the planner.
pub const WITHIN: Duration = Duration::from_secs(5);

/// What was seen of one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What happened.
    pub fault: &'static str,
    /// To whom.
    pub engine: String,
    /// As what it has to show.
    pub shown_as: &'static str,
    /// After how long the agent showed it so; `None`: it did not.
    pub agent: Option<Duration>,
    /// After how long the planner did.
    pub planner: Option<Duration>,
}

impl Finding {
    /// Whether both showed it in time.
    #[must_use]
    pub fn is_in_time(&self) -> bool {
        [self.agent, self.planner].iter().all(|shown| shown.is_some_and(|after| after <= WITHIN))
    }

    /// As a line of its own.
    #[must_use]
    pub fn line(&self) -> String {
        let (agent, planner) = (after(self.agent), after(self.planner));
        format!("{}: {}: agent {agent}, planner {planner}{}", self.engine, self.shown_as, self.mark())
    }

    fn mark(&self) -> &'static str {
        if self.is_in_time() { "" } else { "  MISSED" }
    }
}

/// The findings as a table, and whether every fault was shown in time.
#[must_use]
pub fn summary(findings: &[Finding]) -> (Vec<String>, bool) {
    let mut lines =
        vec![format!("{:<12}{:<36}{:<32}{:>8}{:>9}", "ENGINE", "FAULT", "SHOWN AS", "AGENT", "PLANNER")];
    lines.extend(findings.iter().map(|finding| {
        let Finding { fault, engine, shown_as, agent, planner } = finding;
        let (agent, planner) = (after(*agent), after(*planner));
        format!("{engine:<12}{fault:<36}{shown_as:<32}{agent:>8}{planner:>9}{}", finding.mark())
    }));
    let missed = findings.iter().filter(|finding| !finding.is_in_time()).count();
    lines.push(match missed {
        0 => format!("all {} shown for what they are within {} s", findings.len(), WITHIN.as_secs()),
        _ => format!(
            "{missed} of {} not shown for what they are within {} s",
            findings.len(),
            WITHIN.as_secs()
        ),
    });
    (lines, missed == 0)
}

/// The same while it goes on.
pub(super) fn so_far(findings: &[Finding]) -> Vec<String> {
    if findings.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    lines.extend(summary(findings).0.into_iter().take(findings.len() + 1));
    lines
}

fn after(shown: Option<Duration>) -> String {
    shown.map_or_else(|| "–".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(agent: Option<u64>, planner: Option<u64>) -> Finding {
        Finding {
            fault: "freezes",
            engine: "llama-a0".to_owned(),
            shown_as: "frozen",
            agent: agent.map(Duration::from_millis),
            planner: planner.map(Duration::from_millis),
        }
    }

    #[test]
    fn what_is_late_or_never_shown_is_missed() {
        let (lines, all) = summary(&[finding(Some(4000), Some(5000))]);
        assert!(all && lines[1].ends_with("   4.0 s    5.0 s"), "{lines:?}");
        assert!(lines[2].starts_with("all 1 shown"), "{lines:?}");
        for missed in [finding(Some(5001), Some(1)), finding(Some(1), None), finding(None, None)] {
            let (lines, all) = summary(&[finding(Some(1), Some(1)), missed]);
            assert!(!all && lines[2].ends_with("MISSED") && lines[3].starts_with("1 of 2"), "{lines:?}");
        }
    }

    #[test]
    fn columns_stand_below_their_names() {
        let (lines, _) = summary(&[finding(Some(4000), None)]);
        let end = |line: &str, word: &str| line.find(word).map(|at| line[..at + word.len()].chars().count());
        assert_eq!(end(&lines[0], "AGENT"), end(&lines[1], "4.0 s"));
        assert!(lines.iter().all(|line| line.chars().count() <= 110), "{lines:?}");
    }
}
