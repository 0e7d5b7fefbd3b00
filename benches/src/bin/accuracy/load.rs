//! Loads on a simulated engine, and every sample that its families get.

use std::collections::BTreeMap;

use anyhow::Context as _;
use plimsoll_common::engine::DistributionKind;
use plimsoll_engine::{Engine, Micros, Profile, Request, RequestFacts, RequestId, Step};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp, LogNormal};

/// When a sample became visible on the engine's page, and its value in nanoseconds.
pub(crate) type Sample = (Micros, u64);

/// A load on one engine.
#[derive(Debug)]
pub(crate) struct Load {
    /// Its name in the tables.
    pub(crate) name: &'static str,
    profile: &'static str,
    /// Requests a second; of three minutes the last has `burst` times as many.
    rate: f64,
    burst: f64,
    /// Medians of prompt and output length, tokens; both are log-normal with this σ.
    prompt: f64,
    output: f64,
    sigma: f64,
}

impl Load {
    /// From nearly idle to far beyond what the engine can do.
    pub(crate) const ALL: &'static [Self] = &[
        Self::new("chat, light", "llama-3.1-8b-h200-tp1", (4.0, 1.0), (600.0, 180.0)),
        Self::new("chat, busy", "qwen3-32b-h200-tp2", (5.0, 1.0), (900.0, 220.0)),
        Self::new("long prompts", "llama-3.3-70b-fp8-h100-tp2-measured", (0.4, 1.0), (5_000.0, 120.0)),
        Self::new("bursts", "qwen3-32b-h200-tp2", (3.0, 4.0), (900.0, 220.0)),
        Self::new("overload", "qwen3-32b-h200-tp2", (9.0, 1.0), (900.0, 220.0)),
    ];

    const fn new(
        name: &'static str,
        profile: &'static str,
        (rate, burst): (f64, f64),
        (prompt, output): (f64, f64),
    ) -> Self {
        Self { name, profile, rate, burst, prompt, output, sigma: 0.9 }
    }

    /// Runs the load.
    pub(crate) fn run(&self, seed: u64, seconds: u64) -> anyhow::Result<Run> {
        let config = Profile::built_in(self.profile)?.engine_config();
        let longest = f64::from(config.max_model_len / 2);
        let mut engine = Engine::new(config)?;
        let mut requests = self.requests(seed, seconds, longest)?.into_iter().peekable();
        let mut run =
            Run { name: self.name, profile: self.profile, samples: BTreeMap::new(), ..Run::default() };
        let mut now = Micros::ZERO;
        loop {
            while let Some((at, request)) = requests.next_if(|(at, _)| *at <= now) {
                engine.submit(at, request)?;
                run.requests += 1;
            }
            match engine.start_iteration(now) {
                Some(iteration) => {
                    // Requests that arrive while it runs wait with their true arrival.
                    while let Some((at, request)) = requests.next_if(|(at, _)| *at < iteration.ends_at) {
                        engine.submit(at, request)?;
                        run.requests += 1;
                    }
                    now = iteration.ends_at;
                    let step = engine.finish_iteration(now).context("an iteration was started")?;
                    run.record(&step);
                }
                None => match requests.peek() {
                    Some((at, _)) => now = *at,
                    None => break,
                },
            }
        }
        run.ended = now;
        Ok(run)
    }

    fn requests(&self, seed: u64, seconds: u64, longest: f64) -> anyhow::Result<Vec<(Micros, Request)>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (prompt, output) =
            (LogNormal::new(self.prompt.ln(), self.sigma)?, LogNormal::new(self.output.ln(), self.sigma)?);
        let length = |distribution: &LogNormal<f64>, rng: &mut ChaCha8Rng| {
            distribution.sample(rng).clamp(1.0, longest).round() as u32
        };
        let gap = Exp::new(1.0)?;
        let (mut at, mut requests) = (0.0, Vec::new());
        loop {
            // Two minutes of ground load, one of burst.
            let factor = if at % 180.0 >= 120.0 { self.burst } else { 1.0 };
            at += gap.sample(&mut rng) / (self.rate * factor);
            if at >= seconds as f64 {
                return Ok(requests);
            }
            // A fifth of the requests ask for a few tokens only: classification, tool calls.
            let short = rng.random_bool(0.2);
            let output = if short { rng.random_range(1..12) } else { length(&output, &mut rng) };
            let id = RequestId(requests.len() as u64 + 1);
            let request = Request::new(id, length(&prompt, &mut rng), output);
            requests.push((Micros((at * 1e6) as u64), request));
        }
    }
}

/// What a load gave.
#[derive(Debug, Default)]
pub(crate) struct Run {
    name: &'static str,
    profile: &'static str,
    /// Every sample of every family, by when it became visible.
    pub(crate) samples: BTreeMap<DistributionKind, Vec<Sample>>,
    /// TTFT and TPOT of each finished request, nanoseconds.
    pub(crate) finished: Vec<(u64, u64)>,
    requests: u64,
    busiest: u32,
    ended: Micros,
}

impl Run {
    fn record(&mut self, step: &Step<'_>) {
        let at = step.ended_at;
        self.busiest = self.busiest.max(step.load.running);
        for token in step.tokens {
            let kind = if token.is_first() { DistributionKind::Ttft } else { DistributionKind::ItlStep };
            self.push(kind, at, nanos(token.latency));
        }
        for facts in step.finished {
            self.finish(at, facts);
        }
    }

    /// What an engine observes when a request ends.
    fn finish(&mut self, at: Micros, facts: &RequestFacts) {
        let decode = facts.decode_time().map_or(0, nanos);
        let tpot = decode.checked_div(u64::from(facts.emitted_tokens.saturating_sub(1))).unwrap_or(0);
        self.push(DistributionKind::E2e, at, nanos(facts.e2e()));
        self.push(DistributionKind::Tpot, at, tpot);
        self.push(DistributionKind::Decode, at, decode);
        for (kind, value) in [
            (DistributionKind::Queue, facts.queue_time()),
            (DistributionKind::Prefill, facts.prefill_time()),
            (DistributionKind::Inference, facts.inference_time()),
        ] {
            if let Some(value) = value {
                self.push(kind, at, nanos(value));
            }
        }
        if let Some(ttft) = facts.ttft() {
            self.finished.push((nanos(ttft), tpot));
        }
    }

    fn push(&mut self, kind: DistributionKind, at: Micros, value: u64) {
        self.samples.entry(kind).or_default().push((at, value));
    }

    /// One line about the load.
    pub(crate) fn summary(&self) -> String {
        let tokens = self.samples.get(&DistributionKind::ItlStep).map_or(0, Vec::len);
        format!(
            "{:<14} {}: {} requests, {tokens} ITL samples, up to {} running, {:.0} s",
            self.name,
            self.profile,
            self.requests,
            self.busiest,
            self.ended.as_secs_f64()
        )
    }
}

const fn nanos(span: Micros) -> u64 {
    span.0.saturating_mul(1000)
}
