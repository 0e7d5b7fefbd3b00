//! One series, one horizon: losses and coverage.

use std::fmt;

use plimsoll_common::units::Micros;
use plimsoll_core::forecast::{Ensemble, MemberName, Settings};

use crate::{last_value::LastValue, series::Series};

/// Horizons judged, bins.
const HORIZONS: [usize; 3] = [2, 8, 36];

/// Bins that are shown before anything is judged.
const WARM_UP: usize = 180;

/// What was measured of one series at one horizon.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    horizon_secs: usize,
    judged: f64,
    mean_rate: f64,
    last_value: f64,
    ensemble: f64,
    /// Sum of losses, and how often there was a forecast; the last value's loss at the same moments.
    members: [(f64, f64, f64); MemberName::ALL.len()],
    above_upper: f64,
    above_greatest: f64,
    /// Sum of what a decision would size for at 0.95, Poisson noise left to queueing.
    sized: f64,
}

/// The table's head.
pub(crate) fn header() -> String {
    let members: Vec<&str> = MemberName::ALL.iter().map(|name| name.as_str()).collect();
    format!(
        "| Series | Horizon | Last value, loss in % of the mean rate | **Ensemble** | {} | Above 0.9 | Greatest above 0.95 | Upper over / mean |\n\
         |---|---:|---:|{}---:|---:|---:|---:|",
        members.join(" | "),
        "---:|".repeat(members.len())
    )
}

/// Judges the ensemble, its members and the last value.
pub(crate) fn judge(series: &Series) -> Vec<Row> {
    HORIZONS.iter().map(|&bins| at(series, bins)).collect()
}

fn at(series: &Series, bins: usize) -> Row {
    // Judged by what arrived, so all noise has to be in the band; what a decision asks leaves Poisson's to queueing.
    let mut all_noise = Ensemble::new(Settings { quantum: 0.0, ..Settings::requests() });
    let mut sizing = Ensemble::new(Settings::requests());
    let mut last_value = LastValue::default();
    let horizon = Micros(10_000_000 * bins as u64);
    let width = bins.min(3);
    let rates = &series.rates;
    let mean = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64;
    let mut row = Row::new(series, bins);
    for (index, &rate) in rates.iter().enumerate() {
        let end = Micros(10_000_000 * (index as u64 + 1));
        all_noise.observe(end, rate);
        sizing.observe(end, rate);
        let now = mean(&rates[(index + 1).saturating_sub(width)..=index]);
        if let Some(then) = index.checked_sub(bins).filter(|then| *then >= width) {
            last_value.learn(now - mean(&rates[then + 1 - width..=then]));
        }
        let Some(coming) = rates.get(index + 1..=index + bins) else { break };
        if index < WARM_UP {
            continue;
        }
        let came = mean(&coming[bins - width..]);
        let greatest = coming.windows(width).map(mean).fold(0.0, f64::max);
        let by_last = loss(came, now + last_value.error_at(0.5), now + last_value.error_at(0.9));
        row.add(by_last, came, greatest, &all_noise, horizon);
        row.sized += sizing.upper_over(horizon, 0.95).unwrap_or_default();
    }
    row
}

impl Row {
    fn new(series: &Series, bins: usize) -> Self {
        Self {
            name: series.name.clone(),
            horizon_secs: bins * 10,
            judged: 0.0,
            mean_rate: 0.0,
            last_value: 0.0,
            ensemble: 0.0,
            members: [(0.0, 0.0, 0.0); MemberName::ALL.len()],
            above_upper: 0.0,
            above_greatest: 0.0,
            sized: 0.0,
        }
    }

    fn add(&mut self, by_last: f64, came: f64, greatest: f64, ensemble: &Ensemble, horizon: Micros) {
        let Some(said) = ensemble.predict(horizon) else { return };
        self.judged += 1.0;
        self.mean_rate += came;
        self.last_value += by_last;
        self.ensemble += loss(came, said.median(), said.at(0.9));
        if came > said.at(0.9) {
            self.above_upper += 1.0;
        }
        if ensemble.upper_over(horizon, 0.95).is_some_and(|upper| greatest > upper) {
            self.above_greatest += 1.0;
        }
        for (sums, member) in self.members.iter_mut().zip(ensemble.members(horizon)) {
            if let (Some(median), Some(upper)) = (member.median, member.upper) {
                sums.0 += loss(came, median, upper);
                sums.1 += 1.0;
                sums.2 += by_last;
            }
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = 100.0 * self.last_value / self.mean_rate;
        let ensemble = self.ensemble / self.last_value;
        write!(f, "| {} | {} s | {lost:.2} | **{ensemble:.2}** |", self.name, self.horizon_secs)?;
        for (sum, count, by_last) in self.members {
            // A member is compared over the moments when it had something to say.
            if count > 0.0 { write!(f, " {:.2} |", sum / by_last)? } else { write!(f, " - |")? }
        }
        let share = |count: f64| 100.0 * count / self.judged;
        let (above, greatest) = (share(self.above_upper), share(self.above_greatest));
        write!(f, " {above:.1} % | {greatest:.1} % | {:.2} |", self.sized / self.mean_rate)
    }
}

/// Pinball loss of a median and of a quantile at 0.9.
fn loss(came: f64, median: f64, upper: f64) -> f64 {
    let pinball = |error: f64, level: f64| if error >= 0.0 { level * error } else { (level - 1.0) * error };
    pinball(came - median, 0.5) + pinball(came - upper, 0.9)
}
