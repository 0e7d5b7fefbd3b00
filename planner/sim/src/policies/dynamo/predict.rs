//! Load predictors of Dynamo's planner: what a series will be one interval on.
//!
//! `arima` is its default: the last value until there are five, then an order is chosen once (the differences by a KPSS
//! test at 5 %, the rest by AIC) and kept, and its coefficients follow the series; if the order has neither past values
//! nor past errors, it is chosen again on the logarithms. What the original takes from `pmdarima.auto_arima` with moving
//! averages and exact likelihood is here autoregression by least squares, of up to two past values: with the five points
//! on which the order is chosen hardly more can be told. `constant` is the last value.

/// Points from which on there is a model.
const LEAST: usize = 5;

/// The most points that are remembered: three weeks of intervals of three minutes.
const MOST: usize = 10_000;

/// The 5 % point of the KPSS statistic for a level.
const KPSS: f64 = 0.463;

/// Which predictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predictor {
    /// The last value.
    Constant,
    /// Autoregression of differences.
    Arima,
}

/// One series and its model.
#[derive(Clone, Debug)]
pub(super) struct Series {
    predictor: Predictor,
    values: Vec<f64>,
    order: Option<Order>,
}

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    /// Past values.
    p: usize,
    /// How often differences are taken.
    d: usize,
    /// Whether logarithms are fitted.
    log: bool,
}

impl Series {
    pub(super) const fn new(predictor: Predictor) -> Self {
        Self { predictor, values: Vec::new(), order: None }
    }

    /// Adds the next value. Zeros before the first other value are not part of the series.
    pub(super) fn add(&mut self, value: f64) {
        let value = if value.is_finite() { value.clamp(0.0, 1e12) } else { 0.0 };
        if self.values.is_empty() && value <= 0.0 {
            return;
        }
        if self.values.len() == MOST {
            self.values.remove(0);
        }
        self.values.push(value);
        if self.order.is_none() && self.values.len() >= LEAST && self.predictor == Predictor::Arima {
            let plain = Order::of(&self.values, false);
            self.order = Some(if plain.p == 0 { Order::of(&self.values, true) } else { plain });
        }
    }

    /// What comes next; none of an empty series.
    pub(super) fn next(&self) -> Option<f64> {
        let last = *self.values.last()?;
        let alike = self.values.iter().all(|value| (value - last).abs() < 1e-9);
        let Some(order) = self.order.filter(|_| !alike) else { return Some(last) };
        let next = order.next(&self.values);
        Some(if next.is_finite() { next.max(0.0) } else { last })
    }
}

impl Order {
    fn of(values: &[f64], log: bool) -> Self {
        let mut series = scaled(values, log);
        let mut d = 0;
        while d < 2 && series.len() > 3 && kpss(&series) > KPSS {
            series = differences(&series);
            d += 1;
        }
        let aic = |p: usize| {
            let fit = Fit::of(&series, p, d < 2);
            let n = series.len() as f64;
            n * (fit.squares / n).max(1e-12).ln() + 2.0 * (p + 2) as f64
        };
        // A fit needs more points than it has coefficients.
        let most = (series.len().saturating_sub(2) / 2).min(2);
        let p = (0..=most).min_by(|a, b| aic(*a).total_cmp(&aic(*b))).unwrap_or_default();
        Self { p, d, log }
    }

    fn next(self, values: &[f64]) -> f64 {
        let series = scaled(values, self.log);
        let mut levels = vec![series];
        for _ in 0..self.d {
            let next = differences(levels.last().map_or(&[], Vec::as_slice));
            levels.push(next);
        }
        let top = levels.pop().unwrap_or_default();
        let step = Fit::of(&top, self.p, self.d < 2).next(&top);
        let next = step + levels.iter().filter_map(|level| level.last()).sum::<f64>();
        if self.log { next.exp_m1() } else { next }
    }
}

fn scaled(values: &[f64], log: bool) -> Vec<f64> {
    values.iter().map(|value| if log { value.max(0.0).ln_1p() } else { *value }).collect()
}

fn differences(series: &[f64]) -> Vec<f64> {
    series.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// The KPSS statistic of a series against a level: sums of deviations that wander far speak for differences.
fn kpss(series: &[f64]) -> f64 {
    let n = series.len() as f64;
    let mean = series.iter().sum::<f64>() / n;
    let deviations: Vec<f64> = series.iter().map(|value| value - mean).collect();
    let mut sum = 0.0;
    let wandered: f64 = deviations
        .iter()
        .map(|deviation| {
            sum += deviation;
            sum * sum
        })
        .sum();
    let lags = (3.0 * n.sqrt() / 13.0) as usize;
    let product =
        |lag: usize| deviations.iter().zip(deviations.iter().skip(lag)).map(|(a, b)| a * b).sum::<f64>();
    let weighted = |lag: usize| 2.0 * (1.0 - lag as f64 / (lags + 1) as f64) * product(lag);
    let variance = (product(0) + (1..=lags).map(weighted).sum::<f64>()) / n;
    if variance > 0.0 { wandered / (n * n * variance) } else { 0.0 }
}

/// `y = intercept + Σ coefficient · earlier y`, by least squares.
#[derive(Clone, Debug)]
struct Fit {
    intercept: f64,
    coefficients: Vec<f64>,
    /// The sum of squared errors, as of the whole series.
    squares: f64,
}

impl Fit {
    fn of(series: &[f64], p: usize, with_intercept: bool) -> Self {
        let targets = series.get(p..).unwrap_or_default();
        let n = targets.len().max(1) as f64;
        let mean = |values: &[f64]| if with_intercept { values.iter().sum::<f64>() / n } else { 0.0 };
        let lagged = |lag: usize| series.get(p - lag..series.len() - lag).unwrap_or_default();
        let (center, centers): (f64, Vec<f64>) =
            (mean(targets), (1..=p).map(|lag| mean(lagged(lag))).collect());
        let dot = |a: &[f64], am: f64, b: &[f64], bm: f64| -> f64 {
            a.iter().zip(b).map(|(a, b)| (a - am) * (b - bm)).sum()
        };
        let with = |lag: usize| dot(lagged(lag), centers[lag - 1], targets, center);
        let between = |a: usize, b: usize| dot(lagged(a), centers[a - 1], lagged(b), centers[b - 1]);
        let coefficients = match p {
            0 => Vec::new(),
            1 => vec![divided(with(1), between(1, 1))],
            _ => {
                let determinant = between(1, 1) * between(2, 2) - between(1, 2).powi(2);
                let first = with(1) * between(2, 2) - with(2) * between(1, 2);
                let second = with(2) * between(1, 1) - with(1) * between(1, 2);
                vec![divided(first, determinant), divided(second, determinant)]
            }
        };
        let shift: f64 = coefficients.iter().zip(&centers).map(|(c, m)| c * m).sum();
        let mut fit = Self { intercept: center - shift, coefficients, squares: 0.0 };
        let errors = (p..series.len()).map(|at| (series[at] - fit.at(series, at)).powi(2));
        fit.squares = errors.sum::<f64>() * series.len() as f64 / n;
        fit
    }

    fn at(&self, series: &[f64], at: usize) -> f64 {
        let past = self.coefficients.iter().enumerate().map(|(lag, c)| c * series[at - lag - 1]);
        self.intercept + past.sum::<f64>()
    }

    fn next(&self, series: &[f64]) -> f64 {
        self.at(series, series.len())
    }
}

fn divided(a: f64, b: f64) -> f64 {
    if b.abs() > 1e-12 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(values: &[f64]) -> f64 {
        let mut series = Series::new(Predictor::Arima);
        values.iter().for_each(|value| series.add(*value));
        series.next().unwrap()
    }

    #[test]
    fn until_there_are_five_the_last_value_counts() {
        assert_eq!(Series::new(Predictor::Arima).next(), None);
        assert!((next(&[1.0, 2.0, 3.0, 9.0]) - 9.0).abs() < 1e-12);
        // Zeros at the start are no part of it.
        assert!((next(&[0.0, 0.0, 3.0, 4.0, 5.0, 6.0]) - 6.0).abs() < 1e-12);
        assert!((next(&[7.0; 12]) - 7.0).abs() < 1e-12);
    }

    #[test]
    fn a_line_goes_on_and_noise_around_a_level_does_not() {
        let line: Vec<f64> = (0..12).map(|i| 10.0 + 3.0 * f64::from(i)).collect();
        assert!((next(&line) - 46.0).abs() < 1.0, "{}", next(&line));
        let noise = [10.0, 12.0, 9.0, 11.0, 8.0, 12.0, 10.0, 9.0, 11.0, 10.0];
        assert!((next(&noise) - 10.2).abs() < 1.5, "{}", next(&noise));
    }

    #[test]
    fn the_order_is_chosen_once() {
        let mut series = Series::new(Predictor::Arima);
        // Five points without a pattern: a level, whatever comes after.
        [10.0, 9.0, 11.0, 10.5, 9.5].iter().for_each(|value| series.add(*value));
        let order = series.order;
        assert_eq!(order.map(|order| (order.p, order.d)), Some((0, 0)));
        (0..20).for_each(|i| series.add(10.0 + 5.0 * f64::from(i)));
        assert_eq!(series.order, order);
        // So it lags far behind a ramp.
        assert!(series.next().unwrap() < 80.0, "{:?}", series.next());
    }

    #[test]
    fn whatever_comes_in_something_finite_and_not_negative_comes_out() {
        let mut series = Series::new(Predictor::Arima);
        for value in [5.0, f64::NAN, 1e300, 0.0, f64::INFINITY, -4.0, 1e-300, 7.0] {
            series.add(value);
            assert!(series.next().unwrap().is_finite() && series.next().unwrap() >= 0.0);
        }
        let mut constant = Series::new(Predictor::Constant);
        (1..9).for_each(|i| constant.add(f64::from(i)));
        assert_eq!(constant.next(), Some(8.0));
    }
}
