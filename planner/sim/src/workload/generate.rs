//! Workloads of our own making.

use plimsoll_common::units::Micros;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, LogNormal};

use super::{Arrival, Workload, shape::Shape, shape::times_of};

/// The most requests that one generator makes: what is more is a mistake in the numbers.
pub const MAX_REQUESTS: f64 = 50e6;

/// Requests at a rate that changes, with lengths drawn independently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generator {
    /// The rate over time.
    pub shape: Shape,
    /// How long, s.
    pub duration_s: f64,
    /// Coefficient of variation of the times between two arrivals, where the rate is constant: 1 for a Poisson
    /// process, above for bursts (Gamma-distributed gaps), 0 for a clockwork; at most 20.
    pub gap_cv: f64,
    /// Prompt lengths.
    pub prompt: Lengths,
    /// Output lengths.
    pub output: Lengths,
    /// Who sends: none for one anonymous stream.
    pub clients: Option<Clients>,
}

/// Log-normal lengths, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// Mean, tokens; at least 1.
    pub mean: f64,
    /// Standard deviation over mean; 0 for all alike, at most 5.
    pub cv: f64,
    /// What is longer is cut to this.
    pub max: u32,
}

/// Many clients of whom a few are heavy and bursty, as in production: most of the rate's noise is theirs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clients {
    /// How many there are, 1 to 10,000.
    pub count: u32,
    /// How many of them are heavy.
    pub heavy: u32,
    /// The share of all requests that the heavy ones send together, 0 to 1.
    pub heavy_share: f64,
    /// Coefficient of variation of a heavy client's gaps, at most 20; the others are Poisson.
    pub heavy_cv: f64,
}

/// Why nothing can be generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A number is out of range.
    #[error("{name} cannot be {value}: give {wanted}")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// What was given.
        value: f64,
        /// What would do.
        wanted: &'static str,
    },
    /// Too much of everything.
    #[error(
        "about {0} requests are asked for, and {MAX_REQUESTS} is the most: lower the rate or the duration"
    )]
    TooMany(u64),
}

impl Generator {
    /// A Poisson process of constant rate with lengths like those of a chat service.
    #[must_use]
    pub const fn poisson(rate: f64, duration_s: f64, prompt_mean: f64, output_mean: f64) -> Self {
        Self {
            shape: Shape::Constant { rate },
            duration_s,
            gap_cv: 1.0,
            prompt: Lengths { mean: prompt_mean, cv: 0.8, max: 32_768 },
            output: Lengths { mean: output_mean, cv: 0.8, max: 8_192 },
            clients: None,
        }
    }

    /// Draws one workload; the same seed gives the same.
    ///
    /// # Errors
    /// Numbers that make no sense, by name.
    pub fn generate(&self, seed: u64) -> Result<Workload, GenerateError> {
        self.validate()?;
        let Some(clients) = self.clients else {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            return Ok(Workload::new(self.stream(1.0, self.gap_cv, (1.0, 1.0), 0, &mut rng)));
        };
        let mut arrivals = Vec::new();
        for client in 0..clients.count {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(1 + u64::from(client));
            let heavy = client < clients.heavy;
            let cv = if heavy { clients.heavy_cv } else { self.gap_cv };
            // Each client has prompts and outputs of its own kind, around those of the whole.
            let mut kind = || 0.5 + rng.random::<f64>();
            let kinds = (kind(), kind());
            arrivals.extend(self.stream(clients.share_of(client), cv, kinds, client, &mut rng));
        }
        Ok(Workload::new(arrivals))
    }

    fn stream(
        &self,
        share: f64,
        gap_cv: f64,
        kinds: (f64, f64),
        client: u32,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Arrival> {
        if share <= 0.0 {
            return Vec::new();
        }
        let gaps = (gap_cv > 0.0).then(|| Gamma::new(gap_cv.powi(-2), gap_cv.powi(2) / share));
        let gap = |rng: &mut ChaCha8Rng| match &gaps {
            Some(Ok(gamma)) => gamma.sample(rng).max(1e-12),
            _ => 1.0 / share,
        };
        // Where in its first gap a stream begins is anybody's guess.
        let mut first = Some(rng.random::<f64>());
        let times = times_of(&self.shape, self.duration_s, || first.take().unwrap_or(1.0) * gap(rng));
        let draws = (self.prompt.draw(kinds.0), self.output.draw(kinds.1));
        let arrival =
            |at: Micros| Arrival { client, ..Arrival::new(at, draws.0.sample(rng), draws.1.sample(rng)) };
        times.into_iter().map(arrival).collect()
    }

    fn validate(&self) -> Result<(), GenerateError> {
        let check = |name, value: f64, fine: bool, wanted| {
            if value.is_finite() && fine {
                Ok(())
            } else {
                Err(GenerateError::OutOfRange { name, value, wanted })
            }
        };
        for (name, value, positive) in self.shape.numbers() {
            let wanted = if positive { "a positive number" } else { "a number that is not negative" };
            check(name, value, value > 0.0 || (!positive && value >= 0.0), wanted)?;
        }
        let cv = "a number from 0 to 20";
        check("duration", self.duration_s, self.duration_s > 0.0, "a positive time")?;
        check("cv", self.gap_cv, (0.0..=20.0).contains(&self.gap_cv), cv)?;
        for (mean, spread, lengths) in [("isl", "isl_cv", self.prompt), ("osl", "osl_cv", self.output)] {
            check(mean, lengths.mean, (1.0..=1e7).contains(&lengths.mean), "1 to 10 million tokens")?;
            check(spread, lengths.cv, (0.0..=5.0).contains(&lengths.cv), "a number from 0 to 5")?;
        }
        if let Some(clients) = &self.clients {
            let count = f64::from(clients.count);
            check("clients", count, (1..=10_000).contains(&clients.count), "1 to 10,000")?;
            check("heavy", f64::from(clients.heavy), clients.heavy <= clients.count, "no more than clients")?;
            let share = clients.heavy_share;
            check("heavy_share", share, (0.0..=1.0).contains(&share), "a share from 0 to 1")?;
            check("heavy_cv", clients.heavy_cv, (0.0..=20.0).contains(&clients.heavy_cv), cv)?;
        }
        let rates =
            (0..1_000).map(|i| self.shape.rate_at(self.duration_s * f64::from(i) / 1e3, self.duration_s));
        let expected = rates.sum::<f64>() / 1e3 * self.duration_s;
        if expected > MAX_REQUESTS { Err(GenerateError::TooMany(expected as u64)) } else { Ok(()) }
    }
}

impl Clients {
    /// The share of all requests that a client sends: heavy ones, and then the others, like 1, 1/2, 1/3, ….
    fn share_of(&self, client: u32) -> f64 {
        let zipf = |place: u32, of: u32| {
            let all: f64 = (1..=of).map(|i| 1.0 / f64::from(i)).sum();
            1.0 / f64::from(place + 1) / all
        };
        let light = self.count - self.heavy;
        let heavy_share = match (self.heavy, light) {
            (0, _) => 0.0,
            (_, 0) => 1.0,
            _ => self.heavy_share,
        };
        if client < self.heavy {
            heavy_share * zipf(client, self.heavy)
        } else {
            (1.0 - heavy_share) * zipf(client - self.heavy, light)
        }
    }
}

impl Lengths {
    fn draw(&self, kind: f64) -> Draw {
        let mean = (self.mean * kind).max(1.0);
        let variance = self.cv.mul_add(self.cv, 1.0).ln();
        let spread = LogNormal::new(mean.ln() - variance / 2.0, variance.sqrt()).ok();
        Draw { mean, spread: spread.filter(|_| self.cv > 0.0), max: self.max.max(1) }
    }
}

struct Draw {
    mean: f64,
    spread: Option<LogNormal<f64>>,
    max: u32,
}

impl Draw {
    fn sample(&self, rng: &mut ChaCha8Rng) -> u32 {
        let tokens = self.spread.as_ref().map_or(self.mean, |spread| spread.sample(rng));
        (tokens.round() as u32).clamp(1, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap_cv(workload: &Workload) -> f64 {
        let times: Vec<f64> = workload.arrivals().iter().map(|a| a.at.as_secs_f64()).collect();
        let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        variance.sqrt() / mean
    }

    #[test]
    fn a_generator_keeps_rate_burstiness_and_lengths() {
        for cv in [0.0, 0.5, 1.0, 3.0] {
            let generator = Generator { gap_cv: cv, ..Generator::poisson(20.0, 2_000.0, 1_000.0, 200.0) };
            let workload = generator.generate(3).unwrap();
            let n = workload.len() as f64;
            assert!((n / 40_000.0 - 1.0).abs() < 0.06, "cv {cv}: {n}");
            assert!((gap_cv(&workload) - cv).abs() < 0.1 + cv * 0.05, "cv {cv}: {}", gap_cv(&workload));
            let mean = workload.arrivals().iter().map(|a| f64::from(a.prompt_tokens)).sum::<f64>() / n;
            assert!((mean / 1_000.0 - 1.0).abs() < 0.03, "{mean}");
            assert_eq!(workload, generator.generate(3).unwrap());
            assert!(cv < 0.1 || workload != generator.generate(4).unwrap());
        }
    }

    #[test]
    fn heavy_clients_carry_their_share_and_burst() {
        let clients = Clients { count: 100, heavy: 4, heavy_share: 0.6, heavy_cv: 5.0 };
        let plain = Generator::poisson(20.0, 4_000.0, 500.0, 100.0);
        let mixed = Generator { clients: Some(clients), ..plain }.generate(1).unwrap();
        let heavy = mixed.arrivals().iter().filter(|a| a.client < 4).count() as f64;
        assert!((heavy / mixed.len() as f64 - 0.6).abs() < 0.06, "{heavy} of {}", mixed.len());
        assert!(gap_cv(&mixed) > 1.3 * gap_cv(&plain.generate(1).unwrap()));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let plain = Generator::poisson(1.0, 10.0, 100.0, 10.0);
        let error = |generator: Generator| generator.generate(1).unwrap_err().to_string();
        assert!(error(Generator { duration_s: f64::NAN, ..plain }).contains("duration"));
        assert!(error(Generator { gap_cv: 21.0, ..plain }).contains("cv"));
        assert!(error(Generator { shape: Shape::Constant { rate: -1.0 }, ..plain }).contains("rate"));
        assert!(error(Generator { shape: Shape::Constant { rate: 1e12 }, ..plain }).contains("requests"));
        let lengths = Lengths { mean: 0.0, ..plain.prompt };
        assert!(error(Generator { prompt: lengths, ..plain }).contains("isl"));
    }
}
