//! What was wanted of late.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;

/// Numbers of the last so many seconds, by time.
#[derive(Clone, Debug)]
pub(super) struct Window {
    length: Micros,
    values: VecDeque<(Micros, f64)>,
}

impl Window {
    pub(super) const fn new(length: Micros) -> Self {
        Self { length, values: VecDeque::new() }
    }

    /// Adds a number and forgets those that are older than the window is long.
    pub(super) fn add(&mut self, now: Micros, value: f64) {
        self.values.push_back((now, value));
        while self.values.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= self.length && *at < now) {
            self.values.pop_front();
        }
    }

    /// The greatest; 0 of none.
    pub(super) fn max(&self) -> f64 {
        self.values.iter().map(|(_, value)| *value).fold(0.0, f64::max)
    }

    /// The mean; 0 of none.
    pub(super) fn mean(&self) -> f64 {
        let n = self.values.len().max(1);
        self.values.iter().map(|(_, value)| *value).sum::<f64>() / n as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let second = |s: u64| Micros(s * 1_000_000);
        let mut window = Window::new(second(30));
        window.add(second(0), 9.0);
        window.add(second(15), 3.0);
        assert!((window.max() - 9.0).abs() < 1e-12);
        window.add(second(30), 5.0);
        assert!((window.max() - 5.0).abs() < 1e-12);
        assert!((window.mean() - 4.0).abs() < 1e-12);
    }
}
