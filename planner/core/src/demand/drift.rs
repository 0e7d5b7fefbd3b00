//! Lengths that are not what they were: what came of late cannot have come from what is believed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::shape::Faded;

/// For how long what came is told window by window, s.
const LATE_S: f64 = 60.0;

/// Windows are put together up to this, s, so that there are few of them.
const SHORT_S: f64 = 5.0;

/// Requests that tell of a change at least.
const ENOUGH: f64 = 100.0;

/// How far their mean is from what was believed, in standard errors, for it to be one.
const SURE: f64 = 7.0;

/// And as a ratio: less is followed as it fades.
const GREAT: f64 = 1.5;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Drift {
    /// What came and how long it took, s, window by window, the newest last.
    windows: VecDeque<(Faded, f64)>,
}

impl Drift {
    /// Takes what came in a window, which `mean` holds already. Gives what is to be believed instead of it, if lengths of this
    /// coefficient of variation changed: what came since the moment at which that is most certain.
    pub(super) fn observe(&mut self, came: Faded, window_s: f64, mean: Faded, cv: f64) -> Option<Faded> {
        match self.windows.back_mut().filter(|(_, seconds)| seconds + window_s <= SHORT_S) {
            Some((last, seconds)) => {
                (last.sum, last.of) = (last.sum + came.sum, last.of + came.of);
                *seconds += window_s;
            }
            None => self.windows.push_back((came, window_s)),
        }
        let mut seconds: f64 = self.windows.iter().map(|(_, seconds)| seconds).sum();
        while seconds > LATE_S && self.windows.len() > 1 {
            seconds -= self.windows.pop_front().map_or(0.0, |(_, seconds)| seconds);
        }
        let mut since = Faded::default();
        let mut surest = (SURE, None);
        for (count, (came, _)) in self.windows.iter().rev().enumerate() {
            since.sum += came.sum;
            since.of += came.of;
            let before = Faded { sum: (mean.sum - since.sum).max(0.0), of: mean.of - since.of };
            let sure = certainty(before, since, cv);
            if sure > surest.0 {
                surest = (sure, Some((count + 1, since)));
            }
        }
        let (count, since) = surest.1?;
        self.windows.drain(..self.windows.len() - count);
        Some(since)
    }
}

/// How many standard errors lie between two means, where that is a great change.
fn certainty(before: Faded, since: Faded, cv: f64) -> f64 {
    if before.of < ENOUGH || since.of < ENOUGH {
        return 0.0;
    }
    let (Some(was), Some(is)) = (before.mean(), since.mean()) else { return 0.0 };
    let is_great = is > was * GREAT || was > is * GREAT;
    let error = cv * was * (1.0 / before.of + 1.0 / since.of).sqrt();
    if is_great && error > 0.0 { (is - was).abs() / error } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many requests of this length, window after window, and those after which the mean was begun anew.
    fn run(mean: &mut Faded, drift: &mut Drift, requests: f64, lengths: &[f64]) -> Vec<usize> {
        let mut anew = Vec::new();
        for (place, length) in lengths.iter().enumerate() {
            mean.fade(0.99);
            let came = Faded { sum: length * requests, of: requests };
            mean.sum += came.sum;
            mean.of += came.of;
            if let Some(since) = drift.observe(came, 10.0, *mean, 1.0) {
                *mean = since;
                anew.push(place);
            }
        }
        anew
    }

    #[test]
    fn a_change_is_followed_at_once_and_scatter_is_not() {
        let (mut mean, mut drift) = (Faded::default(), Drift::default());
        let scatter: Vec<f64> = (0..100).map(|n| if n % 3 == 0 { 1_150.0 } else { 920.0 }).collect();
        assert!(run(&mut mean, &mut drift, 120.0, &scatter).is_empty());
        assert_eq!(run(&mut mean, &mut drift, 120.0, &[4_000.0; 3]), [0]);
        assert!((mean.mean().unwrap() - 4_000.0).abs() < 1.0, "{mean:?}");
        // Back again, as soon as there is enough of it.
        assert_eq!(run(&mut mean, &mut drift, 120.0, &[1_000.0; 3]), [0]);
    }

    #[test]
    fn few_requests_tell_of_no_change() {
        let (mut mean, mut drift) = (Faded::default(), Drift::default());
        run(&mut mean, &mut drift, 120.0, &[1_000.0; 100]);
        assert!(run(&mut mean, &mut drift, 2.0, &[4_000.0; 5]).is_empty());
        assert!(run(&mut mean, &mut drift, 0.0, &[0.0; 5]).is_empty());
    }

    #[test]
    fn short_windows_are_put_together() {
        let (mut drift, came) = (Drift::default(), Faded { sum: 1_000.0, of: 1.0 });
        for _ in 0..10_000 {
            drift.observe(came, 0.01, came, 1.0);
        }
        assert!(drift.windows.len() <= 14, "{}", drift.windows.len());
    }
}
