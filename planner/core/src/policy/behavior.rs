//! How fast a pool may move, in the words and with the meaning of HPA's `behavior`.
//!
//! First *stabilisation*: up to the least that was wanted within `scaleUp`'s window, down to the most that was wanted
//! within `scaleDown`'s. Then *rate limits*: each policy allows so many replicas, or so many per cent of those at the
//! start of its period, within its period; `selectPolicy` says which policy counts, or that the direction is closed.
//!
//! Unlike HPA, a direction without policies has no rate limit, and `scaleUp` has none by default: a burst that needs
//! eight times the replicas gets them in one decision.

use std::{collections::VecDeque, fmt};

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

/// The longest stabilisation window, seconds; Kubernetes' own limit.
pub(super) const LONGEST_WINDOW_S: u32 = 3_600;
/// The longest period of a rate limit, seconds; Kubernetes' own limit.
pub(super) const LONGEST_PERIOD_S: u32 = 1_800;
/// The most recommendations and the most moves that a [`History`] keeps, each; at one a second that is over an hour.
const MOST_EVENTS: usize = 4_096;

/// How fast a pool may grow and shrink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Behavior {
    /// Growing. By default at once and without limit.
    #[serde(default = "Behavior::default_up")]
    pub scale_up: ScalingRules,
    /// Shrinking. By default as patiently as the pool's replicas start: see the controller.
    #[serde(default)]
    pub scale_down: ScalingRules,
}

/// How fast a pool may move in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScalingRules {
    /// What was wanted in this time is looked at: the least of it counts for growing, the most of it for shrinking. 0 to
    /// 3,600 s. The direction's default where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stabilization_window_seconds: Option<u32>,
    /// Which of several policies counts.
    #[serde(default)]
    pub select_policy: SelectPolicy,
    /// Rate limits; none for no limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<RateLimit>,
}

/// Which of several rate limits counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SelectPolicy {
    /// The one that allows the greatest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// What one rate limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RateLimitType {
    /// Replicas. `Pods`, as in Kubernetes, is the same.
    #[serde(alias = "Pods")]
    Replicas,
    /// Per cent of the replicas there were at the start of the period.
    Percent,
}

/// So much change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimit {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub kind: RateLimitType,
    /// How much, at least 1.
    pub value: u32,
    /// Within how long, 1 to 1,800 s.
    pub period_seconds: u32,
}

/// What a pool wanted and did of late: what windows and rate limits are held against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// What was wanted, by time; of equal ones in a row the last.
    wanted: VecDeque<(Micros, u32)>,
    /// Replicas added (positive) and removed (negative), by time.
    moves: VecDeque<(Micros, i64)>,
}

/// What a [`Behavior`] makes of a wanted number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Allowed {
    /// The replicas allowed, between the current and the wanted number.
    pub replicas: u32,
    /// What kept it from what was wanted; `None` if that is allowed.
    pub held_back: Option<HeldBack>,
}

/// The rule that held a move back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldBack {
    /// Less was wanted within `scaleUp.stabilizationWindowSeconds`.
    #[serde(rename_all = "camelCase")]
    ScaleUpWindow {
        /// The window, seconds.
        seconds: u32,
        /// The least that was wanted in it.
        wanted: u32,
    },
    /// More was wanted within `scaleDown.stabilizationWindowSeconds`.
    #[serde(rename_all = "camelCase")]
    ScaleDownWindow {
        /// The window, seconds.
        seconds: u32,
        /// The most that was wanted in it.
        wanted: u32,
    },
    /// This policy of `scaleUp` allows no more yet.
    ScaleUpPolicy(RateLimit),
    /// This policy of `scaleDown` allows no more yet.
    ScaleDownPolicy(RateLimit),
    /// `scaleUp.selectPolicy` is `Disabled`.
    ScaleUpDisabled,
    /// `scaleDown.selectPolicy` is `Disabled`.
    ScaleDownDisabled,
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScaleUpWindow { seconds, wanted } => {
                write!(f, "scaleUp: {wanted} was wanted within the last {seconds} s")
            }
            Self::ScaleDownWindow { seconds, wanted } => {
                write!(f, "scaleDown: {wanted} was wanted within the last {seconds} s")
            }
            Self::ScaleUpPolicy(limit) => write!(f, "scaleUp: at most {limit}"),
            Self::ScaleDownPolicy(limit) => write!(f, "scaleDown: at most {limit}"),
            Self::ScaleUpDisabled => f.write_str("scaleUp: selectPolicy is Disabled"),
            Self::ScaleDownDisabled => f.write_str("scaleDown: selectPolicy is Disabled"),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, period_seconds, .. } = self;
        match self.kind {
            RateLimitType::Replicas => write!(f, "{value} replicas in {period_seconds} s"),
            RateLimitType::Percent => write!(f, "{value} % in {period_seconds} s"),
        }
    }
}

impl Default for Behavior {
    fn default() -> Self {
        Self { scale_up: Self::default_up(), scale_down: ScalingRules::default() }
    }
}

impl Behavior {
    /// `scaleUp.stabilizationWindowSeconds` where none is given: growing is not delayed.
    pub const UP_WINDOW_S: u32 = 0;
    /// `scaleDown.stabilizationWindowSeconds` where neither the policy nor a pool's start-up time says anything, as in
    /// Kubernetes.
    pub const DOWN_WINDOW_S: u32 = 300;

    fn default_up() -> ScalingRules {
        ScalingRules { stabilization_window_seconds: Some(Self::UP_WINDOW_S), ..ScalingRules::default() }
    }

    /// `scaleUp`'s window in seconds.
    #[must_use]
    pub fn up_window_s(&self) -> u32 {
        self.scale_up.stabilization_window_seconds.unwrap_or(Self::UP_WINDOW_S)
    }

    /// `scaleDown`'s window in seconds.
    #[must_use]
    pub fn down_window_s(&self) -> u32 {
        self.scale_down.stabilization_window_seconds.unwrap_or(Self::DOWN_WINDOW_S)
    }

    /// How many replicas a pool may have now that has `current` and wants `wanted`.
    ///
    /// `history` holds earlier wishes and moves; the caller adds this wish ([`History::want`]) and the move that comes of
    /// it ([`History::moved`]) afterwards. The answer lies between `current` and `wanted`, both included. What happened
    /// exactly a window or period ago no longer counts, as in Kubernetes.
    pub fn allowed(&self, history: &History, now: Micros, current: u32, wanted: u32) -> Allowed {
        let stable = self.stabilized(history, now, current, wanted);
        let limited = if stable.replicas > current {
            self.scale_up.limit_up(history, now, current, stable.replicas)
        } else if stable.replicas < current {
            self.scale_down.limit_down(history, now, current, stable.replicas)
        } else {
            Allowed { replicas: current, held_back: None }
        };
        // A limit says more than the window that came before it: without it the pool would move further.
        Allowed { replicas: limited.replicas, held_back: limited.held_back.or(stable.held_back) }
    }

    fn stabilized(&self, history: &History, now: Micros, current: u32, wanted: u32) -> Allowed {
        let within = |seconds: u32| history.wanted_within(now, seconds);
        if wanted > current {
            let seconds = self.up_window_s();
            let least = within(seconds).min().map_or(wanted, |least| least.min(wanted));
            let held_back = (least < wanted).then_some(HeldBack::ScaleUpWindow { seconds, wanted: least });
            Allowed { replicas: least.max(current), held_back }
        } else {
            let seconds = self.down_window_s();
            let most = within(seconds).max().map_or(wanted, |most| most.max(wanted));
            let held_back = (most > wanted && wanted < current)
                .then_some(HeldBack::ScaleDownWindow { seconds, wanted: most });
            Allowed { replicas: most.min(current), held_back }
        }
    }
}

impl ScalingRules {
    fn limit_up(&self, history: &History, now: Micros, current: u32, wanted: u32) -> Allowed {
        if self.select_policy == SelectPolicy::Disabled {
            return Allowed { replicas: current, held_back: Some(HeldBack::ScaleUpDisabled) };
        }
        let limits = self.policies.iter().map(|policy| {
            let start = history.at_start_of(now, current, policy.period_seconds);
            (policy.above(start), *policy)
        });
        // By the limit and then by the order written: the first of equal ones is named.
        let chosen = match self.select_policy {
            SelectPolicy::Min => limits.min_by_key(|(limit, _)| *limit),
            SelectPolicy::Max | SelectPolicy::Disabled => limits.rev().max_by_key(|(limit, _)| *limit),
        };
        match chosen {
            // While earlier moves exceed the limit there is no further one, and no way back either.
            Some((limit, policy)) if limit < i64::from(wanted) => Allowed {
                replicas: clamp(limit).max(current),
                held_back: Some(HeldBack::ScaleUpPolicy(policy)),
            },
            _ => Allowed { replicas: wanted, held_back: None },
        }
    }

    fn limit_down(&self, history: &History, now: Micros, current: u32, wanted: u32) -> Allowed {
        if self.select_policy == SelectPolicy::Disabled {
            return Allowed { replicas: current, held_back: Some(HeldBack::ScaleDownDisabled) };
        }
        let limits = self.policies.iter().map(|policy| {
            let start = history.at_start_of(now, current, policy.period_seconds);
            (policy.below(start), *policy)
        });
        // The greatest change leaves the fewest replicas.
        let chosen = match self.select_policy {
            SelectPolicy::Min => limits.rev().max_by_key(|(limit, _)| *limit),
            SelectPolicy::Max | SelectPolicy::Disabled => limits.min_by_key(|(limit, _)| *limit),
        };
        match chosen {
            Some((limit, policy)) if limit > i64::from(wanted) => Allowed {
                replicas: clamp(limit).min(current),
                held_back: Some(HeldBack::ScaleDownPolicy(policy)),
            },
            _ => Allowed { replicas: wanted, held_back: None },
        }
    }
}

impl RateLimit {
    /// The most replicas that this policy allows from `start`; per cent are rounded up, so that one is always allowed.
    fn above(&self, start: i64) -> i64 {
        let value = i64::from(self.value);
        match self.kind {
            RateLimitType::Replicas => start.saturating_add(value),
            RateLimitType::Percent => {
                // ⌈start × (100 + value) / 100⌉ in whole numbers, so that 10 % of 10 is 1 everywhere.
                let hundredths = start.max(0).saturating_mul(100_i64.saturating_add(value));
                hundredths / 100 + i64::from(hundredths % 100 != 0)
            }
        }
    }

    /// The fewest replicas that this policy allows from `start`; per cent are rounded down.
    fn below(&self, start: i64) -> i64 {
        let value = i64::from(self.value);
        match self.kind {
            RateLimitType::Replicas => start.saturating_sub(value),
            RateLimitType::Percent => start.max(0).saturating_mul((100 - value).max(0)) / 100,
        }
    }
}

fn clamp(replicas: i64) -> u32 {
    u32::try_from(replicas.max(0)).unwrap_or(u32::MAX)
}

impl History {
    /// Adds what was wanted at `now`, before anything held it back. Of times that run backwards the latest counts.
    pub fn want(&mut self, now: Micros, wanted: u32) {
        let now = self.wanted.back().map_or(now, |(last, _)| now.max(*last));
        // Only the last of equal ones in a row can be the one that leaves a window last.
        if self.wanted.back().is_some_and(|(_, last)| *last == wanted) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now, wanted));
        forget(&mut self.wanted, now, LONGEST_WINDOW_S);
    }

    /// Adds a move that was ordered at `now`.
    pub fn moved(&mut self, now: Micros, from: u32, to: u32) {
        if from == to {
            return;
        }
        let now = self.moves.back().map_or(now, |(last, _)| now.max(*last));
        self.moves.push_back((now, i64::from(to) - i64::from(from)));
        forget(&mut self.moves, now, LONGEST_PERIOD_S);
    }

    /// What a pool has when it is first seen counts as wanted then, as in Kubernetes: nobody knows what it was wanted for.
    pub(crate) fn begin(&mut self, now: Micros, current: u32) {
        if self.wanted.is_empty() {
            self.want(now, current);
        }
    }

    /// What was noted for later than `now` counts as of now: the clock was set back.
    pub(crate) fn turn_back(&mut self, now: Micros) {
        self.wanted.iter_mut().for_each(|(at, _)| *at = now.min(*at));
        self.moves.iter_mut().for_each(|(at, _)| *at = now.min(*at));
    }

    /// What was wanted in the last `seconds`, now not included.
    pub(crate) fn wanted_within(&self, now: Micros, seconds: u32) -> impl Iterator<Item = u32> {
        self.wanted
            .iter()
            .rev()
            .take_while(move |(at, _)| is_within(*at, now, seconds))
            .map(|(_, wanted)| *wanted)
    }

    /// Replicas that a pool of `current` had at the start of a period that ends now, by the moves in it.
    fn at_start_of(&self, now: Micros, current: u32, seconds: u32) -> i64 {
        let recent = self.moves.iter().rev().take_while(|(at, _)| is_within(*at, now, seconds));
        i64::from(current) - recent.map(|(_, change)| change).sum::<i64>()
    }
}

/// Whether less than `seconds` have passed since.
fn is_within(at: Micros, now: Micros, seconds: u32) -> bool {
    now.saturating_sub(at).0 < u64::from(seconds) * 1_000_000
}

fn forget<T>(events: &mut VecDeque<(Micros, T)>, now: Micros, seconds: u32) {
    while events.front().is_some_and(|(at, _)| !is_within(*at, now, seconds)) || events.len() > MOST_EVENTS {
        events.pop_front();
    }
}

#[cfg(test)]
mod tests;
