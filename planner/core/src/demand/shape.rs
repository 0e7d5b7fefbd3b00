//! How long requests are, by what fades: means, how far they scatter, and histograms.

use serde::{Deserialize, Serialize};

use crate::perf::Lengths;

/// Coefficient of variation of lengths where nothing tells it: between 0.8 and 1.4 in published traces.
const ASSUMED_CV: f64 = 1.0;

/// The least that lengths count as varying by where a change is to be told from scatter: those of few clients vary little for
/// a while.
const LEAST_CV: f64 = 1.0;

/// A sum that fades: what is old counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Faded {
    pub(super) sum: f64,
    pub(super) of: f64,
}

impl Faded {
    pub(super) fn fade(&mut self, kept: f64) {
        self.sum *= kept;
        self.of *= kept;
    }

    pub(super) fn add(&mut self, sum: Option<u64>, of: Option<u64>) {
        if let (Some(sum), Some(of)) = (sum, of) {
            self.sum += sum as f64;
            self.of += of as f64;
        }
    }

    pub(super) fn add_mean(&mut self, mean: f64, weight: f64) {
        if mean >= 1.0 && mean.is_finite() && weight > 0.0 && weight.is_finite() {
            self.sum += mean * weight;
            self.of += weight;
        }
    }

    /// Takes what so many requests have in all. They may be none, but not the first.
    pub(super) fn add_sum(&mut self, sum: f64, of: f64) {
        let is_some = of > 0.0 || self.of > 0.0;
        if is_some && sum >= 0.0 && sum.is_finite() && of >= 0.0 && of.is_finite() {
            self.sum += sum;
            self.of += of;
        }
    }

    pub(super) fn mean(self) -> Option<f64> {
        (self.of > 0.0).then(|| self.sum / self.of)
    }
}

/// How far the means of windows scatter, which tells how far single lengths do: the variance of a mean of n is an n-th of
/// theirs. A bucket from 20,000 to 50,000 tokens says nothing of whether all prompts in it are alike; this does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Scatter {
    squares: f64,
    windows: f64,
}

/// Windows from which their scatter is believed.
const SCATTERED: f64 = 8.0;

/// What lengths may vary by beyond what the scatter of so many windows says, in shares: this over their root. The error of a
/// deviation of n normal values is 0.7 of that; lengths have longer tails.
const DOUBT: f64 = 2.8;

impl Scatter {
    pub(super) fn fade(&mut self, kept: f64) {
        self.squares *= kept;
        self.windows *= kept;
    }

    pub(super) fn add(&mut self, sum: Option<u64>, of: Option<u64>, mean: Option<f64>) {
        let stretch = sum.zip(of).map(|(sum, of)| (sum as f64, of as f64));
        self.add_stretch(stretch, mean);
    }

    /// Takes what so many requests have in all, where their mean is believed to be `mean`.
    pub(super) fn add_stretch(&mut self, stretch: Option<(f64, f64)>, mean: Option<f64>) {
        if let (Some((sum, of)), Some(mean)) = (stretch.filter(|(_, of)| *of > 0.0), mean) {
            self.squares += (sum / of - mean).powi(2) * of;
            self.windows += 1.0;
        }
    }

    /// The coefficient of variation of lengths of this mean, as far as windows tell; at least 1.
    pub(super) fn cv(self, mean: f64) -> f64 {
        let is_known = self.windows >= SCATTERED && mean > 0.0;
        if is_known { ((self.squares / self.windows).sqrt() / mean).max(LEAST_CV) } else { ASSUMED_CV }
    }

    /// The greatest coefficient of variation that lengths of this mean can have; none before enough was seen.
    pub(super) fn most_cv(self, mean: f64) -> Option<f64> {
        (self.windows >= SCATTERED)
            .then(|| (1.0 + DOUBT / self.windows.sqrt()) * (self.squares / self.windows).sqrt() / mean)
    }
}

/// Upper edges of the buckets that lengths are kept in, tokens: those of engines' own histograms.
const EDGES: [u64; 20] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 16_777_216,
];

/// Requests by length, fading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Histogram([f64; 20]);

impl Histogram {
    pub(super) fn fade(&mut self, kept: f64) {
        self.0.iter_mut().for_each(|count| *count *= kept);
    }

    pub(super) fn add(&mut self, buckets: &[(u64, u64)]) {
        for (edge, count) in buckets {
            let place = EDGES.partition_point(|known| known < edge).min(EDGES.len() - 1);
            self.0[place] += *count as f64;
        }
    }

    /// Lengths of this mean; of the usual shape where too few were seen, and no wider than windows scatter.
    pub(super) fn lengths(&self, mean: f64, scatter: Scatter) -> Lengths {
        let buckets: Vec<(f64, f64)> =
            EDGES.iter().zip(self.0).map(|(edge, count)| (*edge as f64, count)).collect();
        let seen: f64 = self.0.iter().sum();
        let by_buckets = Lengths::of_buckets(mean, &buckets).filter(|_| seen >= ENOUGH);
        let lengths = by_buckets.unwrap_or_else(|| Lengths::log_normal(mean, ASSUMED_CV));
        scatter.most_cv(mean).map_or(lengths, |most| lengths.narrowed(most))
    }
}

/// Requests from which the shape of their lengths is believed.
const ENOUGH: f64 = 50.0;
