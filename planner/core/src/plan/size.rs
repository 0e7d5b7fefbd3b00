//! How many replicas a pool needs, and what for.

use serde::{Deserialize, Serialize};

use crate::perf::Capacity;

/// How long a backlog may take to drain once the replicas for it are there, s.
const DRAIN_S: f64 = 60.0;

/// The share of the KV caches that may be held before another replica is asked for, whatever the rates say.
const FULL_KV: f64 = 0.92;

/// What sizing looks at: one pool at one moment. Rates are requests a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The rate of the last bin.
    pub now_rps: f64,
    /// The rate to be ready for when a replica asked for now would be ready: an upper quantile.
    pub ahead_rps: f64,
    /// The rate that a replica is kept for: a higher quantile.
    pub keep_rps: f64,
    /// Whether the last bin's rate is above all that was forecast for it.
    pub panic: bool,
    /// What so many replicas take within the SLO.
    pub capacity: Capacity,
    /// What one replica takes in the long run if nobody minds waiting.
    pub throughput_rps: f64,
    /// Requests that wait.
    pub waiting: f64,
    /// Whether a queue that misses the SLO has not fallen for a while, though all replicas that were asked for serve:
    /// whatever is believed of rates and speeds, they do not do.
    pub is_stuck: bool,
    /// How long a request may wait for its first token, s.
    pub patience_s: f64,
    /// Replicas that take requests.
    pub ready: u32,
    /// Ready replicas, and starting ones that are still expected.
    pub coming: u32,
    /// When the last of the starting ones will be ready, s from now.
    pub eta_s: f64,
    /// How long a replica takes to start, s.
    pub start_up_s: f64,
    /// The mean KV-cache utilization of the ready replicas, 0 to 1.
    pub kv_utilization: f64,
    /// The least and the most replicas.
    pub bounds: (u32, u32),
}

/// How many replicas are needed, by what for; within the pool's bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// For the forecast at the time when a replica asked for now would be ready.
    pub ahead: u32,
    /// For what arrives now, if that leaves the forecast's band.
    pub now: u32,
    /// To work off what waits.
    pub backlog: u32,
    /// So that the KV caches do not fill up.
    pub kv: u32,
    /// To keep, as long as the forecast may need them.
    pub keep: u32,
}

impl Needs {
    /// The same number for everything.
    #[must_use]
    pub const fn just(replicas: u32) -> Self {
        Self { ahead: replicas, now: replicas, backlog: replicas, kv: replicas, keep: replicas }
    }

    /// What is asked for: the most of all but what is only kept.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.ahead.max(self.now).max(self.backlog).max(self.kv)
    }

    /// What is asked for and kept: a pool of more gives some back.
    #[must_use]
    pub fn kept(&self) -> u32 {
        self.wanted().max(self.keep)
    }
}

/// Sizes one pool. For a fixed capacity the answer never falls when a rate rises.
#[must_use]
pub fn size(load: &Load) -> Needs {
    let (least, most) = load.bounds;
    let within = |replicas: u32| replicas.clamp(least, most.max(least));
    let for_rate = |rate: f64| within(load.capacity.replicas_for(rate, most.max(least)));
    Needs {
        ahead: for_rate(load.ahead_rps),
        now: if load.panic { for_rate(load.now_rps) } else { least },
        backlog: within(backlog(load).max(stuck(load))),
        kv: within(kv(load)),
        keep: for_rate(load.keep_rps),
    }
}

/// Requests that may wait without any of them missing its first token.
#[must_use]
pub fn queue_within_slo(load: &Load) -> f64 {
    load.now_rps * load.patience_s / 2.0 + f64::from(load.ready)
}

/// The replicas that work off what waits beyond what a queue within the SLO holds, beside what arrives.
fn backlog(load: &Load) -> u32 {
    let queue = queue_within_slo(load);
    if load.waiting <= queue || load.throughput_rps <= 0.0 {
        return 0;
    }
    // Until what is starting is there, the ready ones work; then all that are coming; then those asked for now.
    let spare = |replicas: u32| load.throughput_rps * f64::from(replicas) - load.now_rps;
    let early = load.eta_s.min(load.start_up_s);
    let left = load.waiting - queue - spare(load.ready) * early;
    let left = left - spare(load.coming) * (load.start_up_s - early);
    if left <= 0.0 {
        return 0;
    }
    ((load.now_rps + left / DRAIN_S) / load.throughput_rps).ceil().min(1e6) as u32
}

/// The replicas that work off a queue which the ready ones only keep from growing: what these do is what arrives. At most
/// twice as many as there are at once, since what arrives may be a guess.
fn stuck(load: &Load) -> u32 {
    let left = load.waiting - queue_within_slo(load);
    if !load.is_stuck || left <= 0.0 {
        return 0;
    }
    let ready = f64::from(load.ready.max(1));
    let wanted = ready * (1.0 + left / DRAIN_S / load.now_rps.max(f64::MIN_POSITIVE));
    wanted.clamp(ready + 1.0, 2.0 * ready).ceil().min(1e6) as u32
}

/// The replicas over which the keys and values that are held now would leave room.
fn kv(load: &Load) -> u32 {
    if load.kv_utilization < FULL_KV {
        return 0;
    }
    (f64::from(load.ready) * load.kv_utilization / FULL_KV).ceil() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load() -> Load {
        Load {
            now_rps: 20.0,
            ahead_rps: 20.0,
            keep_rps: 20.0,
            capacity: Capacity { per_replica: [4.0, 4.5, 4.8, 5.0] },
            throughput_rps: 6.0,
            patience_s: 1.0,
            ready: 5,
            coming: 5,
            start_up_s: 60.0,
            bounds: (1, 100),
            ..Load::default()
        }
    }

    #[test]
    fn a_backlog_is_worked_off_by_what_is_coming_before_more_is_asked_for() {
        assert_eq!(backlog(&Load { waiting: 10.0, ..load() }), 0);
        // Five replicas do 30 a second, 10 more than what comes: 600 within the start-up time.
        assert_eq!(backlog(&Load { waiting: 500.0, ..load() }), 0);
        // 1,800 wait: 600 are done in the meantime, the others within a minute after.
        assert_eq!(backlog(&Load { waiting: 1_815.0, ..load() }), 7);
    }

    #[test]
    fn panic_counts_what_comes_now() {
        assert_eq!(size(&Load { now_rps: 100.0, ..load() }).wanted(), 5);
        assert_eq!(size(&Load { now_rps: 100.0, panic: true, ..load() }).wanted(), 20);
    }

    proptest! {
        // For a fixed capacity the size never falls when the rate rises.
        #[test]
        fn more_load_never_needs_fewer(rate in 0.0..200.0_f64, more in 1.0..3.0_f64, panic: bool) {
            let at = |rate: f64| {
                size(&Load { now_rps: rate, ahead_rps: rate, keep_rps: rate, panic, ..load() })
            };
            let (less, more) = (at(rate), at(rate * more));
            prop_assert!(less.wanted() <= more.wanted() && less.keep <= more.keep);
        }

        // Whatever comes in, needs are within the bounds.
        #[test]
        fn nothing_leaves_the_bounds(
            values in prop::array::uniform8(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1e9..1e9_f64]),
            ready in 0..1_000_u32,
        ) {
            let [now_rps, ahead_rps, keep_rps, throughput_rps, waiting, patience_s, eta_s, kv_utilization] = values;
            let load = Load {
                now_rps, ahead_rps, keep_rps, throughput_rps, waiting, patience_s, eta_s, kv_utilization,
                ready, coming: ready, panic: true, bounds: (2, 9), ..load()
            };
            let needs = size(&load);
            for n in [needs.ahead, needs.now, needs.backlog, needs.kv, needs.keep] {
                prop_assert!((2..=9).contains(&n));
            }
        }
    }

    #[test]
    fn a_queue_that_does_not_fall_asks_for_more_whatever_is_believed() {
        let load = Load {
            now_rps: 0.4,
            throughput_rps: 10.0,
            waiting: 138.0,
            patience_s: 1.0,
            ready: 3,
            coming: 3,
            start_up_s: 60.0,
            bounds: (1, 20),
            ..Load::default()
        };
        assert_eq!(size(&load).backlog, 1);
        assert_eq!(size(&Load { is_stuck: true, ..load }).backlog, 6);
        // Little left is worth one more; nothing that misses the SLO, none.
        assert_eq!(size(&Load { is_stuck: true, now_rps: 20.0, waiting: 60.0, ..load }).backlog, 4);
        assert_eq!(size(&Load { is_stuck: true, waiting: 3.0, ..load }).backlog, 1);
    }
}
