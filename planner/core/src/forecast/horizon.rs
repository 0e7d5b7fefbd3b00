//! One horizon: what each member said for it, what came, and the bands and weights that follow.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    members::MEMBERS,
    noise::Noise,
    quantiles::normal,
    residuals::{Residuals, UPPER},
    running::{Running, keep},
    sustained::Sustained,
};

/// Horizons at which forecasts are scored, bins; in between is interpolated, beyond the last the band grows by the root.
pub(super) const HORIZONS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// How fast a member's weight falls with its loss: a tenth more loss than the best is worth less than half.
const SHARPNESS: f64 = 8.0;

/// A walk of the rate that nothing is known of yet: 8 % after a minute, so half as much again within ten in one of
/// forty. It counts as much as errors of twice the horizon.
const PRIOR_A_MINUTE: f64 = 0.08;

/// The least share of a band's width that is left when the variance of Poisson arrivals is taken out.
const LEAST_WIDTH: f64 = 0.2;

/// How far coverage may stretch a band, and how fast: a miss widens, and nine hits narrow as much.
const STRETCH: (f64, f64, f64) = (0.5, 4.0, 0.05);

/// What an error counts whose window holds a step. All windows over one step tell of one event, and one is no habit:
/// sizing for a second step right after the first would double every burst. Several steps an hour still fill the band.
const STEP_WEIGHT: f64 = 0.1;

/// Which of two quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The sustained rate at the horizon.
    At,
    /// The greatest sustained rate up to the horizon.
    Max,
}

/// A forecast of both quantities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Both {
    pub(super) at: f32,
    pub(super) max: f32,
}

/// What each member says, in their fixed order; `None` where it has nothing to say.
pub(super) type Centers = [Option<Both>; MEMBERS];

/// What the members say, and the shares that a horizon gives them: worked out once, since several levels ask for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) centers: Centers,
    /// Shares of those that have something to say; all 0 when none has.
    pub(super) weights: [f64; MEMBERS],
}

/// A level with the normal deviate there.
#[derive(Debug, Clone, Copy)]
struct Level {
    level: f64,
    normal: f64,
}

/// What a member said of one quantity, and the noise at that rate.
#[derive(Debug, Clone, Copy)]
struct Center {
    kind: Kind,
    rate: f64,
    unit: f64,
}

/// What all of a horizon has in common with its neighbours when it is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) noise: &'a Noise,
    /// Length of a bin, seconds.
    pub(super) bin_secs: f64,
    /// Variance over rate that queueing pays for already; 0 leaves all noise in the band.
    pub(super) poisson: f64,
}

/// One horizon: what was said, what came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Horizon {
    steps: usize,
    pending: VecDeque<Issue>,
    scores: [Score; MEMBERS],
    stretch_at: f64,
    stretch_max: f64,
    /// How far what came last lay from what was forecast for it: 1 is the upper edge of the band.
    missed: Option<f64>,
}

/// What came at the end of a horizon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) sustained: Sustained,
    /// Bins since the last step of the level, 0 in its own bin; `None` if there never was one.
    pub(super) since_step: Option<u64>,
}

/// What was said at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Issue {
    centers: Centers,
    median: Option<Both>,
    upper: Option<Both>,
}

/// How good a member is at one horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Score {
    at: Residuals,
    max: Residuals,
    /// Squared errors over the rate.
    square: Running,
    /// Quantile loss.
    loss: Running,
}

impl Both {
    pub(super) const fn new(sustained: Sustained) -> Self {
        Self { at: sustained.at as f32, max: sustained.max as f32 }
    }

    const fn of(self, kind: Kind) -> f64 {
        match kind {
            Kind::At => self.at as f64,
            Kind::Max => self.max as f64,
        }
    }
}

impl Level {
    fn new(level: f64) -> Self {
        Self { level, normal: normal(level) }
    }
}

impl Center {
    fn new(center: Both, kind: Kind, noise: &Noise) -> Self {
        let rate = center.of(kind);
        Self { kind, rate, unit: noise.unit(rate) }
    }
}

impl Said {
    /// One quantity of those members that have a share.
    fn centers_of(&self, kind: Kind, noise: &Noise) -> [Option<Center>; MEMBERS] {
        std::array::from_fn(|index| {
            let center = self.centers[index].filter(|_| self.weights[index] > 0.0)?;
            Some(Center::new(center, kind, noise))
        })
    }
}

impl Horizon {
    pub(super) fn new(steps: usize) -> Self {
        let score = || Score {
            at: Residuals::new(),
            max: Residuals::new(),
            square: Running::default(),
            loss: Running::default(),
        };
        Self {
            steps,
            pending: VecDeque::with_capacity(steps + 1),
            scores: std::array::from_fn(|_| score()),
            stretch_at: 1.0,
            stretch_max: 1.0,
            missed: None,
        }
    }

    pub(super) const fn steps(&self) -> usize {
        self.steps
    }

    pub(super) const fn missed(&self) -> Option<f64> {
        self.missed
    }

    /// Whether it has the shape that this build gives it.
    pub(super) fn fits(&self, steps: usize) -> bool {
        self.steps == steps
            && self.pending.len() <= steps
            && self.scores.iter().all(|score| score.at.fits() && score.max.fits())
    }

    /// Takes what came, if it is known, against what was said for it. Call once a bin, before [`Self::issue`].
    pub(super) fn score(&mut self, came: Option<Came>, asked: Asked<'_>) {
        if self.pending.len() < self.steps {
            return;
        }
        let issue = self.pending.pop_front();
        self.missed = None;
        let (Some(issue), Some(came)) = (issue, came) else { return };
        let centers = issue.centers.map(|center| {
            center.map(|center| [Kind::At, Kind::Max].map(|kind| Center::new(center, kind, asked.noise)))
        });
        let levels = [Level::new(0.5), Level::new(UPPER)];
        let losses = std::array::from_fn(|index| {
            centers[index].map(|center| self.loss(index, center, came.sustained, asked, levels))
        });
        let steps = self.steps as f64;
        self.charge(losses, keep((4.0 * steps).max(60.0)));
        let weight =
            if came.since_step.is_some_and(|since| since < self.steps as u64) { STEP_WEIGHT } else { 1.0 };
        let keep_errors = keep((40.0 * steps).max(360.0));
        for (score, center) in self.scores.iter_mut().zip(centers) {
            if let Some(center) = center {
                score.learn(center, came.sustained, asked.noise, weight, keep_errors);
            }
        }
        self.follow_coverage(issue, came.sustained, weight);
    }

    /// Remembers what the members say now. `None` in a bin of which nothing is known.
    pub(super) fn issue(&mut self, centers: Option<&Centers>, asked: Asked<'_>) {
        let raw = Asked { poisson: 0.0, ..asked };
        let centers = centers.copied().unwrap_or_default();
        let said = self.said(centers);
        let [half, high] = [Level::new(0.5), Level::new(UPPER)];
        let of = |kind| {
            let centers = said.centers_of(kind, raw.noise);
            let (median, value) =
                (self.mixed(&said, &centers, half, raw)?, self.mixed(&said, &centers, high, raw)?);
            let stretched = |value, level| self.stretched(kind, level, median, value) as f32;
            Some((stretched(median, 0.5), stretched(value, UPPER)))
        };
        let (median, upper) = match (of(Kind::At), of(Kind::Max)) {
            (Some(at), Some(max)) => {
                (Some(Both { at: at.0, max: max.0 }), Some(Both { at: at.1, max: max.1 }))
            }
            _ => (None, None),
        };
        self.pending.push_back(Issue { centers, median, upper });
        while self.pending.len() > self.steps {
            self.pending.pop_front();
        }
    }

    /// What was forecast as the median of the bin that comes next, at a horizon of one bin.
    pub(super) fn due(&self) -> Option<f64> {
        if self.pending.len() < self.steps {
            return None;
        }
        self.pending.front()?.median.map(|median| median.of(Kind::At))
    }

    /// What the members say with their shares here.
    pub(super) fn said(&self, centers: Centers) -> Said {
        Said { centers, weights: self.weights(&centers) }
    }

    /// The quantile of the ensemble; `None` while no member has anything to say.
    pub(super) fn quantile(&self, said: &Said, kind: Kind, level: f64, asked: Asked<'_>) -> Option<f64> {
        let centers = said.centers_of(kind, asked.noise);
        let median = self.mixed(said, &centers, Level::new(0.5), asked)?;
        let is_median = level.to_bits() == 0.5_f64.to_bits();
        let value = if is_median { median } else { self.mixed(said, &centers, Level::new(level), asked)? };
        Some(self.stretched(kind, level, median, value))
    }

    /// A quantile of the ensemble as coverage has stretched it.
    fn stretched(&self, kind: Kind, level: f64, median: f64, value: f64) -> f64 {
        let stretch = match kind {
            _ if level <= 0.5 => 1.0,
            Kind::At => self.stretch_at,
            Kind::Max => self.stretch_max,
        };
        (median + stretch * (value - median)).max(0.0)
    }

    /// Shares of the members that have something to say; all 0 when none has.
    fn weights(&self, centers: &Centers) -> [f64; MEMBERS] {
        let losses: [Option<f64>; MEMBERS] = std::array::from_fn(|index| {
            centers[index].map(|_| self.scores[index].loss.mean().unwrap_or_default())
        });
        let least = losses.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        // Few losses tell little: all members begin equal.
        let told = self.scores[0].loss.weight() / self.steps as f64;
        let sharpness = SHARPNESS * told / (told + 2.0);
        let weights = losses.map(|loss| match loss {
            Some(loss) if loss > least && least > 0.0 => (-sharpness * (loss / least - 1.0)).exp(),
            Some(loss) if loss > least => 0.0,
            Some(_) => 1.0,
            None => 0.0,
        });
        // What adds less than a hundredth of the best is not worth its time.
        let weights = weights.map(|weight| if weight > 1e-2 { weight } else { 0.0 });
        let total: f64 = weights.iter().sum();
        weights.map(|weight| if total > 0.0 { weight / total } else { 0.0 })
    }

    /// A member's own quantile of the rate at the horizon.
    pub(super) fn member_quantile(
        &self,
        centers: &Centers,
        member: usize,
        level: f64,
        asked: Asked<'_>,
    ) -> Option<f64> {
        let (score, center) = (self.scores.get(member)?, (*centers.get(member)?)?);
        let center = Center::new(center, Kind::At, asked.noise);
        Some((center.rate + self.offset(score, center, Level::new(level), asked)).max(0.0))
    }

    /// A member's mean recent loss.
    pub(super) fn loss_of(&self, member: usize) -> Option<f64> {
        self.scores.get(member).and_then(|score| score.loss.mean())
    }

    /// The weighted mean of the members' quantiles.
    fn mixed(
        &self,
        said: &Said,
        centers: &[Option<Center>; MEMBERS],
        level: Level,
        asked: Asked<'_>,
    ) -> Option<f64> {
        let (mut sum, mut total) = (0.0, 0.0);
        for ((score, center), &weight) in self.scores.iter().zip(centers).zip(&said.weights) {
            let Some(center) = center else { continue };
            sum += weight * (center.rate + self.offset(score, *center, level, asked));
            total += weight;
        }
        (total > 0.0).then(|| sum / total)
    }

    /// How far a member's quantile lies from its center: its own errors, and the prior while there are few.
    fn offset(&self, score: &Score, center: Center, level: Level, asked: Asked<'_>) -> f64 {
        let Center { kind, rate, unit } = center;
        let width = score.width(asked.poisson);
        let residuals = match kind {
            Kind::At => &score.at,
            Kind::Max => &score.max,
        };
        let mut learned = residuals.quantile(level.level);
        if width < 1.0 {
            // Noise moves the greatest of many means upwards; at one moment it only spreads around the median.
            let still = if kind == Kind::At { residuals.quantile(0.5) } else { 0.0 };
            learned = still + width * (learned - still);
        }
        let minutes = self.steps as f64 * asked.bin_secs / 60.0;
        let prior = rate * (PRIOR_A_MINUTE * minutes.sqrt()).min(0.5) * level.normal;
        let (known, believed) = (residuals.weight(), 2.0 * self.steps.max(3) as f64);
        (known * learned * unit + believed * prior) / (known + believed)
    }

    /// Quantile loss of a member: the median and the upper level at the horizon, the upper level of the greatest.
    fn loss(
        &self,
        member: usize,
        [at, max]: [Center; 2],
        came: Sustained,
        asked: Asked<'_>,
        [half, high]: [Level; 2],
    ) -> f64 {
        let score = &self.scores[member];
        let raw = Asked { poisson: 0.0, ..asked };
        let said = |center: Center, level| center.rate + self.offset(score, center, level, raw);
        pinball(came.at - said(at, half), 0.5)
            + pinball(came.at - said(at, high), UPPER)
            + pinball(came.max - said(max, high), UPPER)
    }

    /// Adds losses. Who has nothing to say begins with the worst of the others', once over: it has to earn its weight, and
    /// soon can.
    fn charge(&mut self, losses: [Option<f64>; MEMBERS], keep: f64) {
        let known = self.scores.iter().zip(losses).filter(|(_, loss)| loss.is_some());
        let worst = known.filter_map(|(score, _)| score.loss.mean()).fold(0.0, f64::max);
        for (score, loss) in self.scores.iter_mut().zip(losses) {
            match loss {
                Some(loss) => score.loss.add(loss, keep),
                None => score.loss.set(worst, self.steps as f64),
            }
        }
    }

    /// Widens after a miss and narrows after hits, so that in the long run a tenth lies above the upper level.
    fn follow_coverage(&mut self, issue: Issue, came: Sustained, weight: f64) {
        let (Some(median), Some(upper)) = (issue.median, issue.upper) else { return };
        let (least, most, speed) = STRETCH;
        // Neighbouring windows of a long horizon miss together: each counts less.
        let speed = weight * speed / (self.steps as f64).sqrt();
        let follow = |stretch: f64, missed: bool| {
            let pull = if missed { UPPER } else { UPPER - 1.0 };
            (stretch * (speed * pull).exp()).clamp(least, most)
        };
        self.stretch_at = follow(self.stretch_at, came.at > f64::from(upper.at));
        self.stretch_max = follow(self.stretch_max, came.max > f64::from(upper.max));
        let width = f64::from(upper.at) - f64::from(median.at);
        let beyond = came.at - f64::from(median.at);
        self.missed = (width > 0.0).then(|| beyond / width);
    }
}

impl Score {
    fn learn(&mut self, [at, max]: [Center; 2], came: Sustained, noise: &Noise, weight: f64, keep: f64) {
        let error = came.at - at.rate;
        // What comes where little was expected is as noisy as what comes: the noise of nothing is no measure of it.
        self.at.add(error / at.unit.max(noise.unit(came.at)), weight, keep);
        self.max.add((came.max - max.rate) / max.unit.max(noise.unit(came.max)), weight, keep);
        let rate = noise.rate(at.rate);
        // The variance that is compared with Poisson's is that between steps.
        if rate > 0.0 && weight >= 1.0 {
            self.square.add(error * error / rate, keep);
        }
    }

    /// Share of the band's width that is left when the variance of Poisson arrivals is taken out of the errors'.
    fn width(&self, poisson: f64) -> f64 {
        let Some(square) = self.square.mean() else { return 1.0 };
        if poisson <= 0.0 {
            return 1.0;
        }
        (1.0 - poisson / square.max(f64::MIN_POSITIVE)).max(LEAST_WIDTH * LEAST_WIDTH).sqrt()
    }
}

/// The loss whose mean is least at the quantile of `level`; `error` is what came less what was said.
fn pinball(error: f64, level: f64) -> f64 {
    if error >= 0.0 { level * error } else { (level - 1.0) * error }
}
