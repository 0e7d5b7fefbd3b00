//! Is the stated level covered? Generated series, each forecast judged by what came.

use super::{
    Ensemble, Settings,
    series::{Arrivals, end, secs},
};

const HOUR: u64 = 360;

/// Shares of what came that lay above the quantiles of 0.5 and 0.9, and above the greatest's upper of 0.95.
#[derive(Debug, Default)]
struct Above {
    judged: f64,
    median: f64,
    upper: f64,
    greatest: f64,
}

/// Judges by the window means that came (`truth` false) or by the true rate.
fn judge(rate: &dyn Fn(f64) -> f64, dispersion: f64, truth: bool, horizon_bins: usize, seed: u64) -> Above {
    let bins = 12 * HOUR;
    let quantum = if truth { 1.0 } else { 0.0 };
    let mut ensemble = Ensemble::new(Settings { quantum, ..Settings::default() });
    let mut arrivals = Arrivals::new(seed, dispersion);
    let drawn: Vec<f64> = (1..=bins).map(|bin| arrivals.draw(rate(bin as f64))).collect();
    let true_rates: Vec<f64> = (1..=bins).map(|bin| rate(bin as f64)).collect();
    let judged_by = if truth { &true_rates } else { &drawn };
    let width = 3.min(horizon_bins);
    let mut above = Above::default();
    for (index, value) in drawn.iter().enumerate() {
        ensemble.observe(end(index as u64 + 1), *value);
        let Some(coming) = judged_by.get(index + 1..=index + horizon_bins) else { break };
        if index < HOUR as usize * 2 {
            continue;
        }
        let means: Vec<f64> =
            coming.windows(width).map(|window| window.iter().sum::<f64>() / width as f64).collect();
        let at = means[means.len() - 1];
        let greatest = means.iter().copied().fold(0.0, f64::max);
        let horizon = secs(10 * horizon_bins as u64);
        let said = ensemble.predict(horizon).unwrap();
        let count = |missed: bool| if missed { 1.0 } else { 0.0 };
        above.judged += 1.0;
        above.median += count(at > said.median());
        above.upper += count(at > said.at(0.9));
        above.greatest += count(greatest > ensemble.upper_over(horizon, 0.95).unwrap());
    }
    above.median /= above.judged;
    above.upper /= above.judged;
    above.greatest /= above.judged;
    above
}

fn still(_: f64) -> f64 {
    8.0
}

fn sine(bin: f64) -> f64 {
    10.0 + 6.0 * (bin / 180.0 * std::f64::consts::TAU).sin()
}

/// No clean period: the sum of two sines without a common one, of which neither is strong alone.
fn wander(bin: f64) -> f64 {
    20.0 + 6.0 * (bin / 371.0 * std::f64::consts::TAU).sin()
        + 5.0 * (bin / 997.0 * std::f64::consts::TAU).sin()
}

#[test]
fn levels_are_covered_where_the_band_holds_all_noise() {
    for (name, rate) in [("still", &still as &dyn Fn(f64) -> f64), ("sine", &sine), ("wander", &wander)] {
        for dispersion in [1.0, 4.0, 20.0] {
            for horizon_bins in [2, 8, 36] {
                let above = judge(rate, dispersion, false, horizon_bins, 7);
                let place = format!("{name}, dispersion {dispersion}, {horizon_bins} bins: {above:?}");
                // Ten hours hold a hundred independent windows of the longest horizon: 0.1 ± 0.03 a standard deviation.
                assert!((0.04..0.17).contains(&above.upper), "{place}");
                assert!((0.35..0.65).contains(&above.median), "{place}");
                assert!(above.greatest < 0.11, "{place}");
            }
        }
    }
}

#[test]
fn the_true_rate_is_covered_where_queueing_pays_for_arrivals() {
    for (name, rate) in [("still", &still as &dyn Fn(f64) -> f64), ("sine", &sine), ("wander", &wander)] {
        for horizon_bins in [2, 8, 36] {
            let above = judge(rate, 1.0, true, horizon_bins, 11);
            assert!(above.greatest < 0.1, "{name}, {horizon_bins} bins: {above:?}");
        }
    }
}

#[test]
fn bursts_widen_the_band_and_poisson_noise_does_not() {
    let upper = |dispersion: f64| {
        let mut arrivals = Arrivals::new(3, dispersion);
        let mut ensemble = Ensemble::new(Settings::default());
        let mut sum = 0.0;
        for bin in 1..=(6 * HOUR) {
            ensemble.observe(end(bin), arrivals.draw(8.0));
            if bin > 3 * HOUR {
                sum += ensemble.upper_over(secs(80), 0.95).unwrap();
            }
        }
        sum / (3 * HOUR) as f64
    };
    let (poisson, bursts, heavy) = (upper(1.0), upper(4.0), upper(20.0));
    assert!(poisson < 8.0 * 1.08, "queueing pays for Poisson noise: {poisson}");
    assert!(bursts > 8.0 * 1.15 && heavy > bursts * 1.15, "{poisson} {bursts} {heavy}");
}
