//! The simplest forecast with a band: what came last comes again, with errors as they were.

use std::collections::VecDeque;

/// Errors that are remembered: an hour.
const KEPT: usize = 360;

/// The last value and its own past errors at one horizon.
#[derive(Debug, Default)]
pub(crate) struct LastValue {
    errors: VecDeque<f64>,
}

impl LastValue {
    /// Takes an error whose truth is known now.
    pub(crate) fn learn(&mut self, error: f64) {
        self.errors.push_back(error);
        if self.errors.len() > KEPT {
            self.errors.pop_front();
        }
    }

    /// The error at a level; 0 while there is none.
    pub(crate) fn error_at(&self, level: f64) -> f64 {
        let mut sorted: Vec<f64> = self.errors.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let place = (level * sorted.len() as f64) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}
