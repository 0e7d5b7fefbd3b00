//! The burst: five times as many requests within two minutes, and back at once.

use std::time::Duration;

/// The most, as a multiple of the rate before.
pub(super) const MOST: f64 = 5.0;
/// Times at which the slope changes, seconds, and the multiple then.
const POINTS: [(f64, f64); 6] =
    [(0.0, 1.0), (20.0, 1.0), (140.0, MOST), (170.0, MOST), (180.0, 1.0), (240.0, 1.0)];
/// How long it is watched.
pub(super) const LENGTH: Duration = Duration::from_secs(240);

/// The multiple at a time: straight lines between the points.
pub(super) fn at(time: Duration) -> f64 {
    let time = time.as_secs_f64();
    let after = POINTS.windows(2).find(|pair| time < pair[1].0);
    after.map_or(1.0, |pair| {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        low + (high - low) * (time - from) / (to - from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_stays_and_falls() {
        let at = |seconds| at(Duration::from_secs(seconds));
        let rounded = [0, 20, 80, 140, 160, 180, 500].map(|seconds| (at(seconds) * 10.0).round() as u32);
        assert_eq!(rounded, [10, 10, 30, 50, 50, 10, 10]);
    }
}
