//! What latencies are to be expected of so many replicas at a rate, waiting included.

use serde::Serialize;

use super::capacity::Question;
use crate::score::{RequestTimes, Slo};

/// The most engines that are run ahead: beyond, more engines share bursts no better.
const MOST_ENGINES: u32 = 64;

/// Latencies to be expected, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Foreseen {
    /// The mean time to first token; 0 for an engine that only decodes.
    pub ttft_mean_s: f64,
    /// The time to first token that the goal's share of requests keeps: at its percentile.
    pub ttft_goal_s: f64,
    /// The mean of the requests' mean times between tokens; none where no request has two tokens.
    pub itl_mean_s: Option<f64>,
    /// The share of requests that keep all that is promised of this role, 0 to 1.
    pub attained: f64,
    /// Requests that all this is the mean of.
    pub requests: u64,
}

impl Question {
    /// Runs so many engines ahead at so many requests a second in all, `draws` times under other requests of the same
    /// mix: 8 draws of a small pool tell the 99th percentile within a few per cent up to four fifths of what it takes. At
    /// most 64 engines; more are taken for these at their share of the rate. None where no engine starts, nothing ends, or
    /// the rate is not positive.
    ///
    /// Each draw costs as much as one trial of a search for capacities: milliseconds to tens of them.
    #[must_use]
    pub fn foresee(&self, replicas: u32, rate: f64, draws: u32) -> Option<Foreseen> {
        if !(rate > 0.0 && rate.is_finite()) || replicas == 0 {
            return None;
        }
        let engines = replicas.min(MOST_ENGINES);
        let rate = rate * f64::from(engines) / f64::from(replicas);
        let mut times = Vec::new();
        for draw in 0..draws.clamp(1, 64) {
            times.extend(self.trial(u64::from(draw)).times(engines, rate)?);
        }
        Foreseen::of(&times, &self.trial(0).promise())
    }
}

impl Foreseen {
    fn of(times: &[RequestTimes], slo: &Slo) -> Option<Self> {
        let requests = times.len() as f64;
        let first = |one: &RequestTimes| Some(one.first_token?.saturating_sub(one.arrival).as_secs_f64());
        let mut ttft: Vec<f64> = times.iter().filter_map(first).collect();
        ttft.sort_by(f64::total_cmp);
        let rank = (slo.goal.get() * ttft.len() as f64).ceil() as usize;
        let between = |one: &RequestTimes| {
            let gaps = one.output_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
            Some(one.last_token?.saturating_sub(one.first_token?).as_secs_f64() / f64::from(gaps))
        };
        let itl: Vec<f64> = times.iter().filter_map(between).collect();
        let attained = times.iter().filter(|one| slo.attains(one)).count();
        Some(Self {
            ttft_mean_s: ttft.iter().sum::<f64>() / ttft.len() as f64,
            ttft_goal_s: *ttft.get(rank.max(1) - 1)?,
            itl_mean_s: (!itl.is_empty()).then(|| itl.iter().sum::<f64>() / itl.len() as f64),
            attained: attained as f64 / requests,
            requests: times.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::engine::Role;
    use plimsoll_engine::{Curve, EngineConfig, Profile, Roofline, Timing};

    use super::*;
    use crate::{
        perf::{Lengths, Mix},
        policy::Routing,
    };

    /// One prompt at a time, 50 ms each.
    fn one_at_a_time() -> Question {
        let timing = Timing::new(Curve::Roofline(Roofline {
            a_ms: 50.0,
            w_ms: 0.0,
            b_ms_per_token: 0.0,
            c_ms_per_token_squared: 0.0,
            d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        }));
        let profile = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
        Question {
            engine: EngineConfig { max_num_seqs: 1, timing, ..profile.engine_config() },
            role: Role::Aggregated,
            routing: Routing::RoundRobin,
            mix: Mix::new(Lengths::log_normal(400.0, 0.0), Lengths::log_normal(1.0, 0.0)),
            burstiness: 1.0,
            slo: Slo::of_millis(1_000, 30),
        }
    }

    #[test]
    fn constant_service_waits_as_theory_says() {
        let question = one_at_a_time();
        for load in [0.3, 0.7] {
            let foreseen = question.foresee(1, load / 0.05, 16).unwrap();
            // Pollaczek and Khinchine.
            let theory = 0.05 * (1.0 + load / (2.0 * (1.0 - load)));
            assert!((foreseen.ttft_mean_s / theory - 1.0).abs() < 0.08, "{load}: {foreseen:?} {theory}");
            assert!(foreseen.ttft_goal_s > foreseen.ttft_mean_s && foreseen.itl_mean_s.is_none());
            assert!((foreseen.attained - 1.0).abs() < 1e-9);
        }
        // A hundred engines at a hundred times the rate are as one.
        let many = question.foresee(100, 100.0 * 6.0, 1).unwrap();
        assert!((many.ttft_mean_s / 0.058 - 1.0).abs() < 0.2, "{many:?}");
    }

    #[test]
    fn what_cannot_be_asked_has_no_answer() {
        let question = one_at_a_time();
        for (replicas, rate) in [(0, 1.0), (1, 0.0), (1, f64::NAN), (1, f64::INFINITY), (1, -1.0)] {
            assert_eq!(question.foresee(replicas, rate, 1), None);
        }
    }
}
