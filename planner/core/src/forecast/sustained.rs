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
    fn half_a_window_is_enough_and_less_is_not() {
        let found = sustained(&[5.0, f64::NAN, 1.0, 3.0], 2).unwrap();
        assert!((found.at - 2.0).abs() < 1e-12);
        assert!((found.max - 5.0).abs() < 1e-12);
        assert!(sustained(&[1.0, f64::NAN, f64::NAN], 2).is_none());
        assert!(sustained(&[], 3).is_none());
    }
}
