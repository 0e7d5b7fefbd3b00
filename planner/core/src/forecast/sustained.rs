//! Means over the bins that a rate has to last.

/// The sustained rate at the end of a span of bins, and the greatest within it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sustained {
    /// The mean over the last window of the span.
    pub(super) at: f64,
    /// The greatest mean over any window that lies in the span.
    pub(super) max: f64,
}

/// The sustained rate of `bins` (time runs forward), whose windows are `width` bins or the whole span where that is
/// shorter. Bins that are not a number are missing; a window counts when half of it is there. `None` when the last
/// window does not count.
pub(super) fn sustained(bins: &[f64], width: usize) -> Option<Sustained> {
    let width = width.clamp(1, bins.len().max(1));
    let mut greatest = None;
    let mut last = None;
    for window in bins.windows(width) {
        last = mean(window);
        greatest = match (greatest, last) {
            (Some(so_far), Some(now)) => Some(f64::max(so_far, now)),
            (so_far, now) => so_far.or(now),
        };
    }
    Some(Sustained { at: last?, max: greatest? })
}

/// As [`sustained`] for the first `steps` of a path of forecasts, for many lengths at once: all bins are there.
#[derive(Debug)]
pub(super) struct Path<const N: usize> {
    sums: [f64; N],
    greatest: [f64; N],
    width: usize,
}

impl<const N: usize> Path<N> {
    pub(super) fn new(bins: &[f64; N], width: usize) -> Self {
        let width = width.max(1);
        let (mut sums, mut greatest) = ([0.0; N], [0.0; N]);
        let (mut sum, mut most) = (0.0, 0.0_f64);
        for (index, bin) in bins.iter().enumerate() {
            sum += bin;
            sums[index] = sum;
            if index + 1 >= width {
                let before = if index >= width { sums[index - width] } else { 0.0 };
                most = most.max((sum - before) / width as f64);
            }
            greatest[index] = most;
        }
        Self { sums, greatest, width }
    }

    /// `None` for no bins or more than there are.
    pub(super) fn first(&self, steps: usize) -> Option<Sustained> {
        let (sum, greatest) = (*self.sums.get(steps.checked_sub(1)?)?, self.greatest[steps - 1]);
        if steps <= self.width {
            let mean = sum / steps as f64;
            return Some(Sustained { at: mean, max: mean });
        }
        // Differences of sums may end a rounding below zero.
        let at = ((sum - self.sums[steps - self.width - 1]) / self.width as f64).max(0.0);
        Some(Sustained { at, max: greatest.max(at) })
    }
}

fn mean(window: &[f64]) -> Option<f64> {
    let (mut sum, mut there) = (0.0, 0_usize);
    for value in window.iter().filter(|value| !value.is_nan()) {
        sum += value;
        there += 1;
    }
    (there * 2 >= window.len() && there > 0).then(|| sum / there as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_within_the_span() {
        let found = sustained(&[1.0, 9.0, 9.0, 2.0, 1.0], 3).unwrap();
        assert!((found.at - 4.0).abs() < 1e-12);
        assert!((found.max - 20.0 / 3.0).abs() < 1e-12);
        let short = sustained(&[2.0, 4.0], 3).unwrap();
        assert!((short.at - 3.0).abs() < 1e-12 && (short.max - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_path_says_the_same_of_every_length() {
        let bins: [f64; 24] = std::array::from_fn(|index| (index as f64 * 1.7).sin() + 1.5);
        for width in [1, 3, 5, 30] {
            let path = Path::new(&bins, width);
            for steps in 1..=24 {
                let (one, other) = (path.first(steps).unwrap(), sustained(&bins[..steps], width).unwrap());
                assert!(
                    (one.at - other.at).abs() < 1e-9 && (one.max - other.max).abs() < 1e-9,
                    "{width} {steps}"
                );
            }
            assert!(path.first(0).is_none() && path.first(25).is_none());
        }
    }

    #[test]
    fn half_a_window_is_enough_and_less_is_not() {
        let found = sustained(&[5.0, f64::NAN, 1.0, 3.0], 2).unwrap();
        assert!((found.at - 2.0).abs() < 1e-12);
        assert!((found.max - 5.0).abs() < 1e-12);
        assert!(sustained(&[1.0, f64::NAN, f64::NAN], 2).is_none());
        assert!(sustained(&[], 3).is_none());
    }
}
