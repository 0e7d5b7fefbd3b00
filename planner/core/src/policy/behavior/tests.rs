//! The examples of Kubernetes' documentation, and what they leave open.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60;

fn at(secs: u64) -> Micros {
    Micros(secs * 1_000_000)
}

fn percent(value: u32, period_seconds: u32) -> RateLimit {
    RateLimit { kind: RateLimitType::Percent, value, period_seconds }
}

fn replicas(value: u32, period_seconds: u32) -> RateLimit {
    RateLimit { kind: RateLimitType::Replicas, value, period_seconds }
}

fn up(select_policy: SelectPolicy, policies: &[RateLimit]) -> Behavior {
    let scale_up = ScalingRules { select_policy, policies: policies.to_vec(), ..ScalingRules::default() };
    Behavior { scale_up, ..Behavior::default() }
}

fn down(window: u32, select_policy: SelectPolicy, policies: &[RateLimit]) -> Behavior {
    let stabilization_window_seconds = Some(window);
    let scale_down =
        ScalingRules { stabilization_window_seconds, select_policy, policies: policies.to_vec() };
    Behavior { scale_down, ..Behavior::default() }
}

/// Asks again and again, every `step` seconds, for the same number and moves as allowed.
fn sequence(behavior: &Behavior, from: u32, wanted: u32, step: u64, times: u64) -> Vec<u32> {
    let (mut history, mut current) = (History::default(), from);
    let ask = |n: u64| {
        let now = at(10_000 + n * step);
        let allowed = behavior.allowed(&history, now, current, wanted);
        history.want(now, wanted);
        history.moved(now, current, allowed.replicas);
        current = allowed.replicas;
        current
    };
    (0..times).map(ask).collect()
}

#[test]
fn ten_per_cent_or_four_pods_a_minute_down_from_80() {
    // 80 replicas, 10 % or 4 pods a minute, the greater change: 10 % until 40 are left, then 4 a minute.
    let behavior = down(0, SelectPolicy::Max, &[replicas(4, 60), percent(10, 60)]);
    let counts = sequence(&behavior, 80, 10, MINUTE, 12);
    // 80 → 72 → 64 (10 % of 72 is 7.2, so that 64.8 is rounded down) → …, each step by the greater of the two.
    assert_eq!(counts, [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16]);
}

#[test]
fn the_smaller_of_two_changes() {
    // With Min it is 4 a minute while there are many, and 10 % once there are fewer than 40.
    let behavior = down(0, SelectPolicy::Min, &[replicas(4, 60), percent(10, 60)]);
    assert_eq!(sequence(&behavior, 80, 10, MINUTE, 3), [76, 72, 68]);
    assert_eq!(sequence(&behavior, 30, 10, MINUTE, 2), [27, 24]);
}

#[test]
fn kubernetes_default_growth_doubles_or_adds_four() {
    // 100 % or 4 pods in 15 s, whichever is more.
    let behavior = up(SelectPolicy::Max, &[percent(100, 15), replicas(4, 15)]);
    assert_eq!(sequence(&behavior, 1, 100, 15, 5), [5, 10, 20, 40, 80]);
}

#[test]
fn a_period_counts_from_its_start_and_not_from_the_last_move() {
    let behavior = up(SelectPolicy::Max, &[replicas(4, 60)]);
    let mut history = History::default();
    history.moved(at(100), 10, 13);
    // 3 of 4 are used up: one more, and after that none until the period is over.
    let allowed = behavior.allowed(&history, at(130), 13, 20);
    assert_eq!((allowed.replicas, allowed.held_back), (14, Some(HeldBack::ScaleUpPolicy(replicas(4, 60)))));
    history.moved(at(130), 13, 14);
    assert_eq!(behavior.allowed(&history, at(159), 14, 20).replicas, 14);
    // The first move is a whole period ago, and its three are free again.
    assert_eq!(behavior.allowed(&history, at(160), 14, 20).replicas, 17);
}

#[test]
fn moves_the_other_way_count_against_a_period() {
    // As in Kubernetes: what was removed within the period is added to its start, so that it may come back.
    let behavior = up(SelectPolicy::Max, &[replicas(1, 60)]);
    let mut history = History::default();
    history.moved(at(100), 10, 6);
    assert_eq!(behavior.allowed(&history, at(110), 6, 20).replicas, 11);
}

#[test]
fn a_shorter_limit_than_what_was_done_already_moves_nothing_back() {
    let behavior = up(SelectPolicy::Max, &[replicas(1, 60)]);
    let mut history = History::default();
    history.moved(at(100), 10, 20);
    assert_eq!(behavior.allowed(&history, at(110), 20, 30).replicas, 20);
    let behavior = down(0, SelectPolicy::Max, &[replicas(1, 60)]);
    let mut history = History::default();
    history.moved(at(100), 20, 10);
    assert_eq!(behavior.allowed(&history, at(110), 10, 1).replicas, 10);
}

#[test]
fn down_to_the_most_of_five_minutes() {
    let behavior = Behavior::default();
    let mut history = History::default();
    for (secs, wanted) in [(0, 9), (60, 7), (120, 4)] {
        history.want(at(secs), wanted);
    }
    let ask = |secs| behavior.allowed(&history, at(secs), 10, 2);
    let held = |wanted| Some(HeldBack::ScaleDownWindow { seconds: 300, wanted });
    assert_eq!((ask(180).replicas, ask(180).held_back), (9, held(9)));
    assert_eq!(ask(299).replicas, 9);
    // What was wanted exactly a window ago no longer counts.
    assert_eq!((ask(300).replicas, ask(300).held_back), (7, held(7)));
    assert_eq!((ask(419).replicas, ask(420).replicas), (4, 2));
    assert_eq!(ask(420).held_back, None);
}

#[test]
fn up_to_the_least_of_its_window() {
    let rules = ScalingRules { stabilization_window_seconds: Some(60), ..ScalingRules::default() };
    let behavior = Behavior { scale_up: rules, ..Behavior::default() };
    let mut history = History::default();
    history.want(at(100), 3);
    history.want(at(130), 12);
    let ask = |secs, current| behavior.allowed(&history, at(secs), current, 20);
    assert_eq!(ask(150, 5).replicas, 5, "less than now was wanted in the window");
    assert_eq!(ask(150, 5).held_back, Some(HeldBack::ScaleUpWindow { seconds: 60, wanted: 3 }));
    assert_eq!(ask(160, 5).replicas, 12);
    assert_eq!(ask(190, 5).replicas, 20);
}

#[test]
fn a_closed_direction_says_so() {
    let behavior = down(0, SelectPolicy::Disabled, &[]);
    let allowed = behavior.allowed(&History::default(), at(0), 10, 1);
    assert_eq!((allowed.replicas, allowed.held_back), (10, Some(HeldBack::ScaleDownDisabled)));
    let behavior = up(SelectPolicy::Disabled, &[]);
    let allowed = behavior.allowed(&History::default(), at(0), 1, 10);
    assert_eq!((allowed.replicas, allowed.held_back), (1, Some(HeldBack::ScaleUpDisabled)));
}

#[test]
fn growing_has_no_limit_by_default() {
    let allowed = Behavior::default().allowed(&History::default(), at(0), 1, 800);
    assert_eq!((allowed.replicas, allowed.held_back), (800, None));
}

#[test]
fn per_cent_are_rounded_so_that_one_always_grows() {
    assert_eq!(percent(10, 60).above(1), 2);
    assert_eq!(percent(10, 60).above(10), 11);
    assert_eq!(percent(10, 60).above(0), 0, "as in Kubernetes: give Replicas too where a pool starts from 0");
    assert_eq!(percent(10, 60).below(10), 9);
    assert_eq!(percent(10, 60).below(1), 0);
    assert_eq!(percent(250, 60).below(10), 0);
}

#[test]
fn pods_are_replicas_and_the_keys_are_kubernetes() {
    let json = r#"{"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}}"#;
    let behavior: Behavior = serde_json::from_str(json).unwrap();
    assert_eq!(
        behavior,
        Behavior {
            scale_up: ScalingRules {
                stabilization_window_seconds: Some(0),
                ..up(SelectPolicy::Min, &[replicas(4, 60)]).scale_up
            },
            ..Behavior::default()
        }
    );
    let empty: Behavior = serde_json::from_str(r#"{"scaleDown": {}}"#).unwrap();
    assert_eq!((empty.up_window_s(), empty.down_window_s()), (0, 300));
}

fn any_rules() -> impl Strategy<Value = ScalingRules> {
    let kind = prop_oneof![Just(RateLimitType::Replicas), Just(RateLimitType::Percent)];
    let policy = (kind, 1..2_000_u32, 1..1_800_u32).prop_map(|(kind, value, period_seconds)| RateLimit {
        kind,
        value,
        period_seconds,
    });
    let select = prop_oneof![Just(SelectPolicy::Max), Just(SelectPolicy::Min), Just(SelectPolicy::Disabled)];
    (prop::option::of(0..3_600_u32), select, prop::collection::vec(policy, 0..4)).prop_map(
        |(stabilization_window_seconds, select_policy, policies)| ScalingRules {
            stabilization_window_seconds,
            select_policy,
            policies,
        },
    )
}

/// The windows and periods over every event ever, without forgetting or joining any: what `History` must not differ from.
#[derive(Default)]
struct Everything {
    wanted: Vec<(Micros, u32)>,
    moves: Vec<(Micros, u32, u32)>,
}

impl Everything {
    fn allowed(&self, behavior: &Behavior, now: Micros, current: u32, wanted: u32) -> u32 {
        let recent = |at: Micros, seconds: u32| now.0 - at.0 < u64::from(seconds) * 1_000_000;
        let of = |seconds: u32| {
            self.wanted.iter().filter(move |(at, _)| recent(*at, seconds)).map(|(_, n)| *n).chain([wanted])
        };
        let least = of(behavior.up_window_s()).min().unwrap();
        let most = of(behavior.down_window_s()).max().unwrap();
        let stable = current.max(least).min(most);
        let start = |policy: &RateLimit| {
            let changes = self.moves.iter().filter(|(at, _, _)| recent(*at, policy.period_seconds));
            i64::from(current) - changes.map(|(_, from, to)| i64::from(*to) - i64::from(*from)).sum::<i64>()
        };
        let rules = if stable > current { &behavior.scale_up } else { &behavior.scale_down };
        if stable == current || rules.select_policy == SelectPolicy::Disabled {
            return current;
        }
        if rules.policies.is_empty() {
            return stable;
        }
        let grows = stable > current;
        let mut limits: Vec<i64> = rules
            .policies
            .iter()
            .map(|policy| if grows { policy.above(start(policy)) } else { policy.below(start(policy)) })
            .collect();
        limits.sort_unstable();
        let last = limits.len() - 1;
        let greatest_change = rules.select_policy == SelectPolicy::Max;
        let limit = limits[if grows == greatest_change { last } else { 0 }];
        let bounded = if grows {
            i64::from(stable).min(limit.max(i64::from(current)))
        } else {
            i64::from(stable).max(limit.min(i64::from(current)))
        };
        u32::try_from(bounded).unwrap()
    }
}

proptest! {
    // What is allowed lies between what there is and what is wanted, a rule is named exactly where it is less than wanted,
    // and forgetting and joining of events changes nothing.
    #[test]
    fn what_is_allowed_lies_between_now_and_wanted(
        scale_up in any_rules(),
        scale_down in any_rules(),
        steps in prop::collection::vec((0..2_000_u64, 0..40_u32), 1..60),
    ) {
        let behavior = Behavior { scale_up, scale_down };
        let (mut history, mut everything) = (History::default(), Everything::default());
        let (mut now, mut current) = (at(0), 5);
        for (pause, wanted) in steps {
            now = Micros(now.0 + pause * 100_000);
            let allowed = behavior.allowed(&history, now, current, wanted);
            prop_assert!(allowed.replicas >= current.min(wanted) && allowed.replicas <= current.max(wanted));
            prop_assert_eq!(allowed.held_back.is_some(), allowed.replicas != wanted, "{:?}", allowed);
            prop_assert_eq!(allowed.replicas, everything.allowed(&behavior, now, current, wanted));
            history.want(now, wanted);
            history.moved(now, current, allowed.replicas);
            everything.wanted.push((now, wanted));
            everything.moves.push((now, current, allowed.replicas));
            current = allowed.replicas;
        }
    }

    // Absurd numbers and times that run backwards never panic and never leave the range.
    #[test]
    fn absurd_input_never_panics(
        scale_up in any_rules(),
        scale_down in any_rules(),
        steps in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 1..40),
    ) {
        let behavior = Behavior { scale_up, scale_down };
        let mut history = History::default();
        for (now, current, wanted) in steps {
            let allowed = behavior.allowed(&history, Micros(now), current, wanted);
            prop_assert!(allowed.replicas >= current.min(wanted) && allowed.replicas <= current.max(wanted));
            history.want(Micros(now), wanted);
            history.moved(Micros(now), current, allowed.replicas);
        }
    }
}

#[test]
fn a_history_is_bounded() {
    let mut history = History::default();
    for n in 0..100_000_u64 {
        // A thousand times a second, and never twice the same.
        history.want(Micros(n * 1_000), (n % 7) as u32);
        history.moved(Micros(n * 1_000), 1, 2);
    }
    assert!(history.wanted.len() <= MOST_EVENTS && history.moves.len() <= MOST_EVENTS);
}
