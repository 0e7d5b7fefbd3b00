//! How a rate changes over time.

use plimsoll_common::units::Micros;

const DAY_S: f64 = 86_400.0;

/// A request rate as a function of time, requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// The same all the time.
    Constant {
        /// Requests a second.
        rate: f64,
    },
    /// A sine between two rates; it begins at the mean and rises.
    Sine {
        /// The least, requests a second.
        low: f64,
        /// The most.
        high: f64,
        /// Time of one wave, s.
        period_s: f64,
    },
    /// A straight line from the start to the end.
    Ramp {
        /// At the start, requests a second.
        from: f64,
        /// At the end.
        to: f64,
    },
    /// One rate, and from a moment on another.
    Step {
        /// Before, requests a second.
        from: f64,
        /// After.
        to: f64,
        /// When, s.
        at_s: f64,
    },
    /// Two rates in turn, the high one first.
    Square {
        /// The lower, requests a second.
        low: f64,
        /// The higher.
        high: f64,
        /// Time of both together, s.
        period_s: f64,
        /// The share of it that is high, 0 to 1.
        duty: f64,
    },
    /// Day and night: least at 4 h, most at 16 h of each day; every sixth and seventh day is a weekend.
    Diurnal {
        /// At night, requests a second.
        low: f64,
        /// In the afternoon.
        high: f64,
        /// What a weekend's rate is of a weekday's; 1 for no week.
        weekend: f64,
    },
}

impl Shape {
    /// The rate at a time, requests a second; `duration_s` is the whole workload's.
    #[must_use]
    pub fn rate_at(&self, t_s: f64, duration_s: f64) -> f64 {
        let wave = |low: f64, high: f64, turns: f64| {
            (low + high) / 2.0 + (high - low) / 2.0 * (turns * std::f64::consts::TAU).sin()
        };
        match *self {
            Self::Constant { rate } => rate,
            Self::Sine { low, high, period_s } => wave(low, high, t_s / period_s),
            Self::Ramp { from, to } => from + (to - from) * (t_s / duration_s),
            Self::Step { from, to, at_s } => {
                if t_s < at_s {
                    from
                } else {
                    to
                }
            }
            Self::Square { low, high, period_s, duty } => {
                if (t_s / period_s).fract() < duty {
                    high
                } else {
                    low
                }
            }
            Self::Diurnal { low, high, weekend } => {
                let day = t_s / DAY_S;
                let factor = if day as u64 % 7 >= 5 { weekend } else { 1.0 };
                // A sine is least at three quarters of its turn.
                factor * wave(low, high, day - 4.0 / 24.0 + 0.75)
            }
        }
    }

    /// The numbers of this shape that must not be negative, and those that must be positive.
    pub(super) fn numbers(&self) -> Vec<(&'static str, f64, bool)> {
        match *self {
            Self::Constant { rate } => vec![("rate", rate, false)],
            Self::Sine { low, high, period_s } => {
                vec![("low", low, false), ("high", high, false), ("period", period_s, true)]
            }
            Self::Ramp { from, to } => vec![("from", from, false), ("to", to, false)],
            Self::Step { from, to, at_s } => {
                vec![("from", from, false), ("to", to, false), ("at", at_s, false)]
            }
            Self::Square { low, high, period_s, duty } => vec![
                ("low", low, false),
                ("high", high, false),
                ("period", period_s, true),
                ("duty", duty, false),
            ],
            Self::Diurnal { low, high, weekend } => {
                vec![("low", low, false), ("high", high, false), ("weekend", weekend, false)]
            }
        }
    }
}

/// The times at which a shape's expected number of requests reaches each of rising `marks`; in order, and only those
/// within the duration.
pub(super) fn times_of(shape: &Shape, duration_s: f64, mut mark: impl FnMut() -> f64) -> Vec<Micros> {
    // The rate is taken as constant over a tenth of a second, and over a thousandth of short workloads.
    let step_s = (duration_s / 1_000.0).min(0.1);
    let mut times = Vec::new();
    let (mut reached, mut next) = (0.0, mark());
    let steps = (duration_s / step_s).ceil() as u64;
    for step in 0..steps {
        let t_s = step as f64 * step_s;
        let rate = shape.rate_at(t_s + step_s / 2.0, duration_s).max(0.0);
        let gain = rate * step_s.min(duration_s - t_s);
        while gain > 0.0 && next < reached + gain {
            let at_s = t_s + (next - reached) / rate;
            times.push(Micros::from_millis_f64(at_s * 1e3));
            next += mark();
        }
        reached += gain;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_reach_what_they_say() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let sine = Shape::Sine { low: 2.0, high: 6.0, period_s: 100.0 };
        close(sine.rate_at(0.0, 1e3), 4.0);
        close(sine.rate_at(25.0, 1e3), 6.0);
        close(sine.rate_at(75.0, 1e3), 2.0);
        let day = Shape::Diurnal { low: 1.0, high: 3.0, weekend: 0.5 };
        close(day.rate_at(4.0 * 3_600.0, 1e9), 1.0);
        close(day.rate_at(16.0 * 3_600.0, 1e9), 3.0);
        close(day.rate_at(5.0 * DAY_S + 16.0 * 3_600.0, 1e9), 1.5);
        let square = Shape::Square { low: 1.0, high: 9.0, period_s: 30.0, duty: 0.5 };
        assert_eq!((square.rate_at(14.0, 1e3) as u32, square.rate_at(16.0, 1e3) as u32), (9, 1));
        close(Shape::Ramp { from: 0.0, to: 10.0 }.rate_at(30.0, 60.0), 5.0);
    }

    #[test]
    fn evenly_spaced_marks_come_as_the_rate_says() {
        let step = Shape::Step { from: 1.0, to: 10.0, at_s: 50.0 };
        let times = times_of(&step, 100.0, || 1.0);
        let before = times.iter().filter(|at| **at < Micros(50_000_000)).count();
        assert!(before.abs_diff(50) <= 1 && times.len().abs_diff(550) <= 1, "{before} {}", times.len());
        assert!(times_of(&Shape::Constant { rate: 0.0 }, 100.0, || 1.0).is_empty());
    }
}
