//! States and faults, and when to switch them.

use std::time::Duration;

use crate::config::CustomBuckets;

/// Longest time that a step may wait or last: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What can be done to a running engine.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// The engine's loop stops as under SIGSTOP; its HTTP side lives.
    Freeze,
    Thaw,
    /// Weights offloaded (1) or discarded (2): what runs is aborted, what comes waits.
    Sleep(u8),
    Wake,
    /// The process dies and comes back so much later with everything at zero, and perhaps with other bounds.
    Restart {
        down: Duration,
        buckets: Option<CustomBuckets>,
    },
    /// The process dies and stays away.
    Gone,
    Back,
    /// Metrics pages take so long.
    Slow(Duration),
    Torn(Torn),
    /// Every path asks for the bearer token; for one that nobody knows if none was configured.
    Locked,
    /// Neither slow nor torn nor locked.
    Heal,
}

/// How a metrics page is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Torn {
    /// The connection breaks in the middle of the body.
    Cut,
    /// The answer is whole as HTTP goes, and its text ends in the middle of a line.
    Short,
    /// Histograms mix two moments: a count above that of its last bucket, a bucket below the one before it.
    Mixed,
}

/// Steps in the order of their times.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: Vec<(Duration, Action)>,
}

/// A step that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("`{step}` is no step: {reason}")]
pub struct ScriptError {
    /// What was given.
    step: String,
    /// What is wrong with it.
    reason: String,
}

impl Script {
    pub(crate) fn parse(steps: &[String]) -> Result<Self, ScriptError> {
        let mut parsed = Vec::new();
        for step in steps {
            let fail = |reason: &str| ScriptError { step: step.clone(), reason: reason.to_owned() };
            let (at, what) = step.split_once('=').ok_or_else(|| fail("give SECONDS=WHAT"))?;
            let at = seconds(at).ok_or_else(|| fail("give seconds from 0 to 86400 before the ="))?;
            parsed.push((at, Action::parse(what).map_err(|reason| fail(&reason))?));
        }
        // A stable sort: steps of one moment keep the order in which they were given.
        parsed.sort_by_key(|(at, _)| *at);
        Ok(Self { steps: parsed })
    }

    pub(crate) fn into_steps(self) -> Vec<(Duration, Action)> {
        self.steps
    }
}

impl Action {
    /// Reads an action as the command line and the admin port name it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let span = || {
            let given = argument.ok_or_else(|| format!("{name} wants seconds: {name}:2.5"))?;
            seconds(given).ok_or_else(|| format!("{name} wants seconds from 0 to 86400, not `{given}`"))
        };
        let plain =
            |action| if argument.is_none() { Ok(action) } else { Err(format!("{name} takes nothing")) };
        match name {
            "freeze" => plain(Self::Freeze),
            "thaw" => plain(Self::Thaw),
            "sleep" => match argument {
                None | Some("1") => Ok(Self::Sleep(1)),
                Some("2") => Ok(Self::Sleep(2)),
                Some(level) => Err(format!("sleep has the levels 1 and 2, not `{level}`")),
            },
            "wake" => plain(Self::Wake),
            "restart" if argument.is_none() => Ok(Self::Restart { down: Duration::ZERO, buckets: None }),
            "restart" => Ok(Self::Restart { down: span()?, buckets: None }),
            "gone" => plain(Self::Gone),
            "back" => plain(Self::Back),
            "slow" => Ok(Self::Slow(span()?)),
            "torn" => match argument {
                Some("cut") => Ok(Self::Torn(Torn::Cut)),
                Some("short") => Ok(Self::Torn(Torn::Short)),
                Some("mixed") => Ok(Self::Torn(Torn::Mixed)),
                _ => Err("torn is torn:cut, torn:short or torn:mixed".to_owned()),
            },
            "locked" => plain(Self::Locked),
            "heal" => plain(Self::Heal),
            _ => Err("see --help for what can be done".to_owned()),
        }
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let span = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (span <= LONGEST).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_sorted_and_those_of_one_moment_keep_their_order() {
        let steps = ["2=thaw", "0.5=freeze", "2=slow:1.5"].map(str::to_owned);
        let steps = Script::parse(&steps).unwrap().into_steps();
        assert!(matches!(
            steps.as_slice(),
            [(first, Action::Freeze), (_, Action::Thaw), (_, Action::Slow(span))]
                if first.as_millis() == 500 && span.as_millis() == 1_500
        ));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_give() {
        for (step, says) in [
            ("freeze", "SECONDS=WHAT"),
            ("-1=freeze", "86400"),
            ("nan=freeze", "86400"),
            ("1=frieze", "--help"),
            ("1=freeze:2", "takes nothing"),
            ("1=slow", "slow:2.5"),
            ("1=torn:apart", "torn:mixed"),
            ("1=sleep:3", "levels 1 and 2"),
            ("1=restart:1e9", "86400"),
        ] {
            let error = Script::parse(&[step.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
