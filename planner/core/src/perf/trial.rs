//! A few engines under a steady load, run ahead: what share of requests would keep the limits?
//!
//! The engines are those of [`plimsoll_engine`], so waiting, chunked prefill, full caches and preemption are as they
//! are; the requests are drawn from the pool's mix once a search, and only their times depend on the rate that is tried.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{Engine, EngineConfig, Request, RequestFacts, RequestId, Sink};

use super::{draw::Draw, mix::Mix};
use crate::{
    policy::Routing,
    score::{RequestTimes, Slo},
};

/// What is tried.
#[derive(Clone, Debug)]
pub(super) struct Trial<'a> {
    pub(super) engine: &'a EngineConfig,
    pub(super) role: Role,
    pub(super) routing: Routing,
    pub(super) mix: &'a Mix,
    /// Squared coefficient of variation of the gaps between requests: 1 for Poisson.
    pub(super) burstiness: f64,
    pub(super) slo: &'a Slo,
    /// Which requests of the mix.
    pub(super) draw: u64,
}

/// Requests of a trial with one replica, and of each further one.
const REQUESTS: (u32, u32) = (800, 200);

/// The share of requests, from the first on, that find engines fuller or emptier than in the long run: not counted.
const WARM_UP: f64 = 0.2;

/// The requests of a search, in the order of their times.
#[derive(Debug)]
pub(super) struct Drawn {
    /// The time before each, in means.
    gaps: Vec<f64>,
    requests: Vec<Request>,
    /// Tokens that come out of each: with speculation more than it takes iterations.
    outputs: Vec<u32>,
}

impl Drawn {
    /// When the requests come at so many a second.
    fn arrivals(&self, rate: f64) -> Vec<Micros> {
        let mut now = 0.0;
        let next = |gap: &f64| {
            now += gap / rate.max(1e-9);
            Micros((now * 1e6).min(1e15) as u64)
        };
        self.gaps.iter().map(next).collect()
    }
}

/// When a trial has shown enough: as soon as there are more misses than either of both allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enough {
    /// The share of requests that has to be kept for the trial to be of use at all.
    pub(super) kept: f64,
    /// The share of misses that is asked about: how many more there are does not matter.
    pub(super) asked: f64,
}

impl Enough {
    /// The most misses of so many requests that are counted one by one.
    fn misses_of(self, counted: u32) -> u32 {
        let of = |share: f64| (f64::from(counted) * share).floor() as u32;
        // A trace more, so that rounding never makes of a share that is just kept one that is missed.
        of(1.0 - self.kept).min(of(self.asked + 1e-9))
    }
}

/// Who wants to know how requests fared.
trait Judge {
    /// One that counts.
    fn request(&mut self, times: &RequestTimes);
    /// Whether nothing more can change the verdict; `refused` requests were taken by no engine.
    fn is_certain(&self, refused: u32) -> bool;
}

/// Counts misses, as long as the goal can be reached.
struct Misses {
    slo: Slo,
    allowed: u32,
    missed: u32,
}

impl Judge for Misses {
    fn request(&mut self, times: &RequestTimes) {
        self.missed += u32::from(!self.slo.attains(times));
    }

    fn is_certain(&self, refused: u32) -> bool {
        self.missed + refused > self.allowed
    }
}

impl Judge for Vec<RequestTimes> {
    fn request(&mut self, times: &RequestTimes) {
        self.push(*times);
    }

    fn is_certain(&self, _refused: u32) -> bool {
        false
    }
}

struct Tally<'a, J> {
    judge: &'a mut J,
    role: Role,
    uncounted: u64,
    arrivals: &'a [Micros],
    outputs: &'a [u32],
}

impl<J: Judge> Sink for Tally<'_, J> {
    fn finished(&mut self, facts: &RequestFacts) {
        if facts.id.0 < self.uncounted {
            return;
        }
        let place = facts.id.0 as usize;
        let arrival = self.arrivals.get(place).copied().unwrap_or_default();
        // A decode engine gets a request when its first token is out: what it waits there is time between tokens.
        let first_token = if self.role == Role::Decode { Some(arrival) } else { facts.first_token };
        self.judge.request(&RequestTimes {
            arrival,
            first_token,
            last_token: Some(facts.ended),
            output_tokens: self.outputs.get(place).copied().unwrap_or(1),
        });
    }
}

impl Trial<'_> {
    /// The share of these requests that keep the limits with so many replicas at so many requests a second in all. Stops
    /// early, with too small a share, when it is clear that there are too many misses.
    pub(super) fn attained(&self, drawn: &Drawn, replicas: u32, rate: f64, enough: Enough) -> f64 {
        let (requests, uncounted) = Self::counts(replicas);
        let counted = requests - uncounted;
        let allowed = enough.misses_of(counted);
        let mut misses = Misses { slo: self.promise(), allowed, missed: 0 };
        let Some(refused) = self.drive(drawn, replicas, rate, &mut misses) else { return 0.0 };
        1.0 - f64::from((misses.missed + refused).min(counted)) / f64::from(counted)
    }

    /// When the requests that count came, began and ended with so many replicas at so many requests a second in all; none
    /// without an engine that starts.
    pub(super) fn times(&self, replicas: u32, rate: f64) -> Option<Vec<RequestTimes>> {
        let mut times = Vec::new();
        self.drive(&self.draw(replicas), replicas, rate, &mut times).map(|_| times)
    }

    /// Requests of a trial, and how many of them, from the first on, do not count.
    fn counts(replicas: u32) -> (u32, u32) {
        let requests = REQUESTS.0 + REQUESTS.1 * (replicas.max(1) - 1);
        (requests, (f64::from(requests) * WARM_UP) as u32)
    }

    /// What of the promise this role keeps.
    pub(super) fn promise(&self) -> Slo {
        match self.role {
            Role::Prefill => Slo { itl: None, ..*self.slo },
            Role::Decode => Slo { ttft: None, ..*self.slo },
            _ => *self.slo,
        }
    }

    /// Runs the engines until all requests have ended, or the verdict is certain; those that no engine took.
    fn drive(&self, drawn: &Drawn, replicas: u32, rate: f64, judge: &mut impl Judge) -> Option<u32> {
        let (_, uncounted) = Self::counts(replicas);
        let (role, uncounted, arrivals) = (self.role, u64::from(uncounted), drawn.arrivals(rate));
        let mut tally = Tally { judge, role, uncounted, arrivals: &arrivals, outputs: &drawn.outputs };
        let mut engines = self.engines(replicas)?;
        let mut refused = 0;
        for (turn, (at, request)) in arrivals.iter().zip(&drawn.requests).enumerate() {
            let chosen = match self.routing {
                Routing::RoundRobin => turn % engines.len(),
                // Where a prefix is cached is not modelled: hits come as a share.
                Routing::LeastLoaded | Routing::PrefixAware => {
                    engines.iter_mut().for_each(|engine| engine.advance(*at, &mut tally));
                    (0..engines.len()).min_by_key(|place| engines[*place].held()).unwrap_or_default()
                }
            };
            let engine = &mut engines[chosen];
            engine.advance(*at, &mut tally);
            refused += u32::from(engine.submit(*at, *request).is_err() && turn as u64 >= uncounted);
            if tally.judge.is_certain(refused) {
                return Some(refused);
            }
        }
        for engine in &mut engines {
            if !tally.judge.is_certain(refused) {
                engine.advance(Micros(u64::MAX / 2), &mut tally);
            }
        }
        Some(refused)
    }

    fn engines(&self, replicas: u32) -> Option<Vec<Engine>> {
        (0..replicas.max(1)).map(|_| Engine::new(self.engine.clone()).ok()).collect()
    }

    /// The requests that so many replicas are tried with.
    pub(super) fn draw(&self, replicas: u32) -> Drawn {
        let (count, _) = Self::counts(replicas);
        let mut draw = Draw::new(0x0050_4C49_4D53_4F4C ^ (self.draw << 8));
        // Nothing is left to decode of an answer of one token.
        let least: u32 = if self.role == Role::Decode { 2 } else { 1 };
        // What is longer comes to no engine: a gateway or the engine's front refuses it.
        let longest = f64::from(self.engine.max_model_len.saturating_sub(least).max(1));
        let (mut gaps, mut requests, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..count {
            gaps.push(draw.gap(self.burstiness));
            let prompt = self.mix.isl.at(draw.unit()).round().clamp(1.0, longest);
            let output = self.mix.osl.at(draw.unit()).round();
            let output = output.clamp(1.0, longest - prompt + f64::from(least));
            let steps = if self.role == Role::Prefill { 1.0 } else { output / self.mix.tokens_per_step };
            requests.push(Request {
                id: RequestId(u64::from(id)),
                prompt_tokens: prompt as u32,
                output_tokens: (steps.ceil() as u32).max(least),
                cached_tokens: (prompt * self.mix.hit) as u32,
                prefilled: self.role == Role::Decode,
            });
            outputs.push(output as u32);
        }
        Drawn { gaps, requests, outputs }
    }
}
