//! What holds for the ensemble whatever the series.

use plimsoll_common::units::Micros;
use proptest::prelude::*;

use super::{
    Ensemble, LEVELS, MemberName, Observed, Settings,
    series::{Arrivals, BIN, after, end, secs},
};

const UNKNOWN_QUANTUM: Settings = Settings { bin: BIN, sustained: Micros(30_000_000), quantum: 0.0 };

#[test]
fn before_the_first_value_there_is_no_forecast() {
    let ensemble = Ensemble::new(Settings::default());
    assert!(ensemble.predict(secs(80)).is_none());
    assert!(ensemble.upper_over(secs(80), 0.9).is_none());
    assert!(ensemble.surprise(4.0).is_none());
    assert!(ensemble.missed(secs(80)).is_none());
    assert!(ensemble.level().is_none());
}

#[test]
fn a_ramp_is_followed() {
    let rate = |bin: u64| 5.0 + 0.05 * bin as f64;
    let ensemble = after(Settings::default(), 240, rate);
    for horizon in [2, 8, 36] {
        let said = ensemble.predict(secs(10 * horizon)).unwrap().median();
        let came = rate(240 + horizon);
        assert!((said / came - 1.0).abs() < 0.05, "{horizon} bins: {said} of {came}");
    }
}

#[test]
fn a_sine_is_known_after_four_cycles() {
    let mut arrivals = Arrivals::new(5, 1.0);
    let rate = |bin: f64| 10.0 + 6.0 * (bin / 120.0 * std::f64::consts::TAU).sin();
    let ensemble = after(Settings::default(), 520, |bin| arrivals.draw(rate(bin as f64)));
    let said = ensemble.predict(secs(360)).unwrap().median();
    assert!((said - rate(556.0)).abs() < 1.6, "{said} of {}: {:?}", rate(556.0), ensemble.members(secs(360)));
    let weights = ensemble.members(secs(360));
    let cycle = weights.iter().find(|member| member.name == MemberName::Cycle).unwrap();
    assert!(cycle.weight > 0.5, "{weights:?}");
    assert!((weights.iter().map(|member| member.weight).sum::<f64>() - 1.0).abs() < 1e-9);
    let period = ensemble.period().unwrap().as_secs_f64();
    assert!((period - 1_200.0).abs() < 40.0, "{period}");
}

#[test]
fn a_step_is_a_new_level_within_a_minute_and_no_trend() {
    let mut arrivals = Arrivals::new(5, 1.0);
    let mut rate = |bin: u64| arrivals.draw(if bin <= 300 { 8.0 } else { 64.0 });
    let mut ensemble = after(Settings::default(), 300, &mut rate);
    assert!(ensemble.surprise(64.0).unwrap() > 1.0);
    for bin in 301..=306 {
        ensemble.observe(end(bin), rate(bin));
    }
    let said = ensemble.predict(secs(80)).unwrap().median();
    assert!((50.0..80.0).contains(&said), "{said}");
    assert!(ensemble.missed(secs(40)).unwrap() > 1.0);
}

#[test]
fn the_band_tells_what_left_it() {
    let mut arrivals = Arrivals::new(9, 1.0);
    let ensemble = after(Settings::default(), 720, |_| arrivals.draw(20.0));
    assert!(ensemble.surprise(20.5).unwrap().abs() < 0.5);
    assert!(ensemble.surprise(40.0).unwrap() > 1.5);
    assert!(ensemble.surprise(2.0).unwrap() < -1.5);
    assert!(ensemble.surprise(f64::NAN).is_none());
    assert!(ensemble.missed(secs(80)).unwrap().abs() < 3.0);
}

#[test]
fn a_gap_holds_the_level() {
    let mut ensemble = after(Settings::default(), 200, |_| 12.0);
    assert_eq!(ensemble.observe(end(200 + 5_000), 12.0), Observed::Learned);
    assert_eq!(ensemble.counts().missing, 4_999);
    let said = ensemble.predict(secs(360)).unwrap().median();
    assert!((said / 12.0 - 1.0).abs() < 0.01, "{said}");
}

#[test]
fn late_and_absurd_values_are_dropped_and_counted() {
    let mut ensemble = after(Settings::default(), 30, |_| 3.0);
    let before = ensemble.clone();
    assert_eq!(ensemble.observe(end(30), 9.0), Observed::Late);
    assert_eq!(ensemble.observe(end(12), 9.0), Observed::Late);
    for absurd in [f64::NAN, f64::INFINITY, -1.0, 1e30] {
        assert_eq!(ensemble.observe(end(31), absurd), Observed::Refused);
    }
    assert_eq!((ensemble.counts().late, ensemble.counts().refused), (2, 4));
    assert_eq!(ensemble.predict(secs(80)), before.predict(secs(80)));
}

#[test]
fn a_clock_that_ran_ahead_is_not_waited_for() {
    let mut ensemble = after(Settings::default(), 100, |_| 3.0);
    assert_eq!(ensemble.observe(Micros::MAX, 3.0), Observed::Learned);
    let outcomes: Vec<_> = (101..120).map(|bin| ensemble.observe(end(bin), 3.0)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Observed::Late).count(), 7);
    assert_eq!(ensemble.counts().set_back, 1);
    let said = ensemble.predict(secs(80)).unwrap().median();
    assert!((said - 3.0).abs() < 0.03, "{said}");
}

#[test]
fn history_in_hours_tells_the_day() {
    let rate = |hour: u64| 10.0 + 8.0 * (hour as f64 / 24.0 * std::f64::consts::TAU).sin();
    let mut ensemble = Ensemble::new(Settings::default());
    ensemble.warm((0..=14 * 24).map(|hour| (secs(hour * 3_600), rate(hour))));
    for bin in 1..=360 {
        let at = secs(14 * 86_400 + 10 * bin);
        ensemble.observe(at, rate(14 * 24));
    }
    let daily =
        ensemble.members(secs(360)).into_iter().find(|member| member.name == MemberName::Daily).unwrap();
    assert!(daily.median.is_some_and(|median| median > 10.5), "{daily:?}");
}

#[test]
fn a_restored_forecaster_continues_bit_for_bit() {
    let mut arrivals = Arrivals::new(21, 4.0);
    let mut original = after(Settings::default(), 1_000, |bin| arrivals.draw(5.0 + (bin % 120) as f64 * 0.1));
    let saved = rmp_serde::to_vec_named(&original).unwrap();
    let mut restored: Ensemble = rmp_serde::from_slice(&saved).unwrap();
    assert_eq!(original, restored);
    for bin in 1_001..1_200 {
        let value = arrivals.draw(9.0);
        original.observe(end(bin), value);
        restored.observe(end(bin), value);
        let bits = |ensemble: &Ensemble| ensemble.upper_over(secs(80), 0.95).map(f64::to_bits);
        assert_eq!(bits(&original), bits(&restored));
    }
    assert_eq!(rmp_serde::to_vec_named(&original).unwrap(), rmp_serde::to_vec_named(&restored).unwrap());
}

#[test]
fn a_saved_forecaster_of_another_shape_is_refused() {
    let mut saved = serde_json::to_value(after(Settings::default(), 10, |_| 1.0)).unwrap();
    assert!(serde_json::from_value::<Ensemble>(saved.clone()).is_ok());
    saved["horizons"][0]["steps"] = 9.into();
    assert!(serde_json::from_value::<Ensemble>(saved.clone()).is_err());
    saved["horizons"] = serde_json::json!([]);
    assert!(serde_json::from_value::<Ensemble>(saved).is_err());
}

#[test]
fn what_it_holds_is_bounded() {
    let mut arrivals = Arrivals::new(2, 4.0);
    let ensemble = after(Settings::default(), 20_000, |_| arrivals.draw(7.0));
    // Saved as MessagePack every float has its own width and a byte more: near to what memory holds.
    let saved = rmp_serde::to_vec(&ensemble).unwrap();
    assert!(saved.len() < Ensemble::MOST_BYTES, "{} bytes", saved.len());
}

fn values() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => 0.0..1e4_f64,
        1 => Just(0.0),
        1 => proptest::num::f64::ANY,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // Whatever comes, at whatever time: no panic, and a forecast is finite, not negative and in order.
    #[test]
    fn no_input_breaks_the_forecast(
        inputs in prop::collection::vec((prop_oneof![9 => 0..2_000_u64, 1 => any::<u64>()], values()), 1..200),
        horizon in any::<u64>(),
        level in any::<f64>(),
    ) {
        let mut ensemble = Ensemble::new(Settings::default());
        for (bin, value) in inputs {
            ensemble.observe(Micros(bin.saturating_mul(BIN.0)), value);
        }
        if let Some(said) = ensemble.predict(Micros(horizon)) {
            prop_assert!(said.iter().all(|(_, value)| value.is_finite() && value >= 0.0));
            prop_assert!(said.iter().map(|(_, value)| value).is_sorted());
            let upper = ensemble.upper_over(Micros(horizon), level);
            prop_assert!(upper.is_some_and(|upper| upper.is_finite() && upper >= 0.0));
        }
    }

    // Of a rate that never moves, every quantile is that rate once the prior is outweighed, and the median at once.
    #[test]
    fn what_stands_still_is_forecast_to_stand_still(rate in 0.001..1e6_f64, bins in 1..400_u64) {
        let ensemble = after(Settings::default(), bins, |_| rate);
        for horizon in [20, 80, 360, 3_600] {
            let median = ensemble.predict(secs(horizon)).unwrap().median();
            prop_assert!((median / rate - 1.0).abs() < 0.01, "{} of {}", median, rate);
        }
    }

    // The unit of a series is not the forecaster's business: k times the values are k times the forecast. Powers of two,
    // so that no rounding puts an error on the other side of a cell's edge.
    #[test]
    fn scale_is_kept(seed in any::<u64>(), exponent in -30..30_i32) {
        let mut arrivals = Arrivals::new(seed, 4.0);
        let drawn: Vec<f64> = (0..300).map(|bin| arrivals.draw(6.0 + f64::from(bin % 60) / 10.0)).collect();
        let scale = 2.0_f64.powi(exponent);
        let one = after(UNKNOWN_QUANTUM, 300, |bin| drawn[bin as usize - 1]);
        let scaled = after(UNKNOWN_QUANTUM, 300, |bin| drawn[bin as usize - 1] * scale);
        for horizon in [20, 80, 360] {
            for (level, (first, second)) in LEVELS.into_iter().zip(
                one.predict(secs(horizon)).unwrap().iter().map(|(_, value)| value)
                    .zip(scaled.predict(secs(horizon)).unwrap().iter().map(|(_, value)| value)),
            ) {
                prop_assert!(
                    (second / scale - first).abs() < 1e-9 * first.abs().max(0.1),
                    "{}: {} and {}", level, first, second / scale
                );
            }
        }
    }

    // A further horizon never lowers what has to be held up to it by more than the bands' own sampling.
    #[test]
    fn levels_are_in_order(seed in any::<u64>()) {
        let mut arrivals = Arrivals::new(seed, 4.0);
        let ensemble = after(Settings::default(), 400, |_| arrivals.draw(6.0));
        for horizon in [20, 80, 360] {
            let uppers: Vec<f64> =
                [0.5, 0.8, 0.9, 0.95, 0.99].map(|level| ensemble.upper_over(secs(horizon), level).unwrap()).into();
            prop_assert!(uppers.is_sorted(), "{:?}", uppers);
        }
    }
}

#[test]
fn what_begins_after_nothing_is_not_taken_for_a_habit() {
    let mut forecast = Ensemble::new(Settings::requests());
    let bin = |n: u64| Micros(n * 10_000_000);
    for n in 1..=90 {
        forecast.observe(bin(n), 0.0);
    }
    for (n, rate) in (91..).zip([8.4, 6.5, 7.1, 9.8, 7.5, 8.2, 8.8, 7.4, 8.6, 7.1, 9.7, 7.8]) {
        forecast.observe(bin(n), rate);
        let upper = forecast.upper_over(Micros(70_000_000), 0.98).unwrap_or_default();
        // The first bins may be nothing lasting, or the begin of more.
        let (least, most) = if n < 96 { (0.0, 30.0) } else { (7.0, 18.0) };
        assert!((least..most).contains(&upper), "{n}: {upper}");
    }
}
