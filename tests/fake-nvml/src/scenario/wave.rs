//! Waveforms: how one quantity moves over time.

use serde::Deserialize;

/// A quantity as a function of time. Written in a scenario as `{ const = 40 }` or
/// `{ sine = { mean = 50, amplitude = 20, period_s = 60 } }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Wave {
    /// Always the same.
    Const(f64),
    /// From one value to another in a straight line, then it stays there.
    Ramp {
        /// The value up to `start_s`.
        from: f64,
        /// The value from `start_s + over_s` on.
        to: f64,
        /// When it starts to move, seconds.
        #[serde(default)]
        start_s: f64,
        /// How long it moves, seconds.
        over_s: f64,
    },
    /// A sine around a mean.
    Sine {
        /// Its middle.
        mean: f64,
        /// Its greatest distance from the middle.
        amplitude: f64,
        /// Length of one turn, seconds.
        period_s: f64,
    },
    /// Two values in turn: the high one first.
    Square {
        /// The value in the second part of a period.
        low: f64,
        /// The value in the first part of a period.
        high: f64,
        /// Length of both parts, seconds.
        period_s: f64,
        /// Share of the period that is high, 0 to 1.
        #[serde(default = "half")]
        duty: f64,
    },
    /// Uniform noise around a mean, drawn anew each period from the scenario's seed.
    Noise {
        /// Its middle.
        mean: f64,
        /// Its greatest distance from the middle.
        amplitude: f64,
        /// How long one draw holds, seconds.
        #[serde(default = "one")]
        period_s: f64,
    },
}

impl Wave {
    /// The value at `elapsed_s` seconds. `stream` selects the noise: one seed, GPU and quantity each have their own.
    #[must_use]
    pub fn at(&self, elapsed_s: f64, stream: u64) -> f64 {
        match *self {
            Self::Const(value) => value,
            Self::Ramp { from, to, start_s, over_s } => {
                from + (to - from) * ((elapsed_s - start_s) / over_s).clamp(0.0, 1.0)
            }
            Self::Sine { mean, amplitude, period_s } => {
                mean + amplitude * (std::f64::consts::TAU * elapsed_s / period_s).sin()
            }
            Self::Square { low, high, period_s, duty } => {
                if (elapsed_s / period_s).rem_euclid(1.0) < duty {
                    high
                } else {
                    low
                }
            }
            Self::Noise { mean, amplitude, period_s } => {
                let draw = splitmix(stream ^ splitmix((elapsed_s / period_s).floor() as i64 as u64));
                // 53 bits are what a double holds exactly, so the share is uniform in [0, 1).
                let share = (draw >> 11) as f64 / (1_u64 << 53) as f64;
                mean + amplitude * (2.0 * share - 1.0)
            }
        }
    }

    /// What is wrong with the numbers, if anything: all must be finite, durations positive, shares within 0 to 1.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let (numbers, duration, duty) = match *self {
            Self::Const(value) => (vec![value], 1.0, 0.0),
            Self::Ramp { from, to, start_s, over_s } => (vec![from, to, start_s], over_s, 0.0),
            Self::Sine { mean, amplitude, period_s } | Self::Noise { mean, amplitude, period_s } => {
                (vec![mean, amplitude], period_s, 0.0)
            }
            Self::Square { low, high, period_s, duty } => (vec![low, high], period_s, duty),
        };
        if !numbers.iter().all(|number| number.is_finite()) {
            Some("every number must be finite")
        } else if !(duration.is_finite() && duration > 0.0) {
            Some("period_s and over_s must be positive")
        } else if !(0.0..=1.0).contains(&duty) {
            Some("duty must lie between 0 and 1")
        } else {
            None
        }
    }
}

fn half() -> f64 {
    0.5
}

fn one() -> f64 {
    1.0
}

/// The finaliser of SplitMix64: spreads neighbouring numbers over all 64 bits.
pub(crate) fn splitmix(seed: u64) -> u64 {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn waves_pass_through_their_marks() {
        assert!(close(Wave::Const(3.5).at(1e6, 0), 3.5));
        let ramp = Wave::Ramp { from: 10.0, to: 30.0, start_s: 5.0, over_s: 10.0 };
        for (at, value) in [(0.0, 10.0), (5.0, 10.0), (10.0, 20.0), (15.0, 30.0), (100.0, 30.0)] {
            assert!(close(ramp.at(at, 0), value), "at {at}");
        }
        let sine = Wave::Sine { mean: 50.0, amplitude: 20.0, period_s: 8.0 };
        for (at, value) in [(0.0, 50.0), (2.0, 70.0), (4.0, 50.0), (6.0, 30.0)] {
            assert!(close(sine.at(at, 0), value), "at {at}");
        }
        let square = Wave::Square { low: 0.0, high: 1.0, period_s: 4.0, duty: 0.25 };
        for (at, value) in [(0.0, 1.0), (0.99, 1.0), (1.0, 0.0), (3.9, 0.0), (4.0, 1.0)] {
            assert!(close(square.at(at, 0), value), "at {at}");
        }
    }

    #[test]
    fn noise_holds_for_a_period_and_differs_by_stream() {
        let noise = Wave::Noise { mean: 0.0, amplitude: 1.0, period_s: 2.0 };
        assert!(close(noise.at(0.1, 7), noise.at(1.9, 7)));
        assert!(!close(noise.at(0.1, 7), noise.at(2.1, 7)));
        assert!(!close(noise.at(0.1, 7), noise.at(0.1, 8)));
        let mean = (0..10_000).map(|step| noise.at(f64::from(step) * 2.0, 7)).sum::<f64>() / 10_000.0;
        assert!(mean.abs() < 0.02, "mean {mean}");
    }

    proptest! {
        // Invariant: a wave without a fault never leaves mean ± amplitude, whatever the time.
        #[test]
        fn waves_stay_in_their_band(at in 0.0..1e9_f64, stream: u64, mean in -1e6..1e6_f64,
                                    amplitude in 0.0..1e6_f64, period_s in 1e-3..1e6_f64) {
            for wave in [Wave::Sine { mean, amplitude, period_s }, Wave::Noise { mean, amplitude, period_s }] {
                prop_assert!(wave.fault().is_none());
                prop_assert!((wave.at(at, stream) - mean).abs() <= amplitude * (1.0 + 1e-12));
            }
        }
    }
}
