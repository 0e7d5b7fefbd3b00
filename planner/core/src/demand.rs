//! What is asked of a pool: how many requests, of what lengths, how regularly, and how many wait already.
//!
//! All from the engines' own signals; where a front door is seen, its arrivals count instead of the engines', since it
//! also sees requests that no engine has taken yet. Where nobody counts arrivals or tells lengths, they are inferred
//! ([`infer`]).

mod drift;
mod shape;

use plimsoll_common::{engine::Role, units::Micros};
use serde::{Deserialize, Serialize};

use crate::{
    infer::{self, Flow, Inflow, Stretch, TokenLengths},
    observe::{Engine, Gained, Observation},
    perf::Mix,
};
use drift::Drift;
use shape::{Faded, Histogram, Scatter};

/// Time in which what was learned of lengths halves.
const LENGTHS_HALF_LIFE_S: f64 = 600.0;

/// Bins after which the dispersion of counts counts half.
const DISPERSION_HALF_LIFE: f64 = 60.0;

/// What one difference of counts may add, in times of what was usual: for Poisson arrivals one in 300 is more.
const MOST_DISPERSION: f64 = 9.0;

/// Prompts that make a stretch, whatever runs: a prompt is computed soon after its request is taken.
const PROMPTS: (f64, f64) = (30.0, 0.0);

/// Requests that make a stretch of outputs, and how many times those that run at its ends they are at least: of these,
/// nobody knows how far they are.
const OUTPUTS: (f64, f64) = (30.0, 20.0);

/// Requests that inferred lengths count as once lengths are told.
const INFERRED: f64 = 10.0;

/// What is left of the shape of lengths once they changed.
const STALE: f64 = 0.1;

/// What is known of a pool's demand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// Arrivals of the bin under way, and how much of it has passed, s.
    bin: (f64, f64),
    /// The count of the last whole bin.
    last: Option<f64>,
    /// The lesser of that and the one before.
    sustained: Option<f64>,
    /// Squared differences of counts next to each other, over their sums: the index of dispersion.
    dispersion: Faded,
    arrived_isl: Faded,
    finished_isl: Faded,
    osl: Faded,
    prompts: Histogram,
    outputs: Histogram,
    /// How far prompts and outputs of windows scatter.
    scatter: (Scatter, Scatter),
    /// Whether they changed: prompts as they come, prompts as they end, outputs.
    drifts: [Drift; 3],
    /// Where tokens and finished requests are counted, but nobody's length: prompts and outputs.
    stretches: (Stretch, Stretch),
    hits: Faded,
    /// The same as it must have been, where nobody tells.
    unsaid_hits: Faded,
    /// Tokens under way, where nobody counts requests.
    tokens: infer::Tokens,
    drafts: Faded,
    /// Requests that wait, as last told.
    waiting: Option<u64>,
    /// Requests in the engines' batches, as last told.
    running: Option<u64>,
    /// What the pool serves, and the tokens that the KV cache of one engine holds; for what must be inferred.
    serves: (Role, Option<u64>),
    /// How many requests come, where nobody counts them.
    inflow: Inflow,
}

impl Default for Demand {
    fn default() -> Self {
        let faded = Faded::default();
        Self {
            bin: (0.0, 0.0),
            last: None,
            sustained: None,
            // Poisson, until something else is seen.
            dispersion: Faded { sum: 20.0, of: 20.0 },
            arrived_isl: faded,
            finished_isl: faded,
            osl: faded,
            prompts: Histogram::default(),
            outputs: Histogram::default(),
            scatter: (Scatter::default(), Scatter::default()),
            drifts: Default::default(),
            stretches: (Stretch::default(), Stretch::default()),
            hits: faded,
            unsaid_hits: faded,
            tokens: infer::Tokens::default(),
            drafts: faded,
            waiting: None,
            running: None,
            serves: (Role::Aggregated, None),
            inflow: Inflow::default(),
        }
    }
}

/// How long a bin is over which arrivals are counted.
pub const BIN: Micros = Micros(10_000_000);

/// A whole bin's mean arrival rate, requests a second, or none if the bin was not seen.
pub type BinRate = Option<f64>;

fn total(observation: &Observation, of: impl Fn(&Engine) -> Option<u64>) -> Option<u64> {
    let mut told = observation.engines.values().filter_map(of).peekable();
    told.peek()?;
    Some(told.fold(0, u64::saturating_add))
}

/// Requests that arrived at the pool: as its door counts them, or else its engines.
fn arrivals(observation: &Observation) -> Option<f64> {
    let door = observation.door.and_then(|door| door.arrived).map(|arrived| arrived as f64);
    door.or_else(|| {
        let told = total(observation, |engine| engine.gained.arrived)?;
        Some((told as f64 * unheard(observation)).floor())
    })
}

/// Where some engines are silent, the others' share stands for all: by how much what they tell is multiplied.
fn unheard(observation: &Observation) -> f64 {
    let silent = f64::from(observation.replicas.silent);
    let ready = f64::from(observation.replicas.ready).max(1.0);
    let heard = (ready - silent).max(0.0);
    if heard > 0.0 { ready / heard } else { 1.0 }
}

impl Demand {
    /// A demand of which nothing is known but, perhaps, prompt and output lengths: these count as ten requests.
    #[must_use]
    pub fn expecting((isl, osl): (Option<u32>, Option<u32>)) -> Self {
        let ten = |length: Option<u32>| {
            length.map_or_else(Faded::default, |mean| Faded { sum: f64::from(mean) * 10.0, of: 10.0 })
        };
        Self { finished_isl: ten(isl), osl: ten(osl), ..Self::default() }
    }

    /// The same for engines of this role, each with a KV cache of so many tokens: what is inferred depends on it.
    #[must_use]
    pub fn serving(self, role: Role, kv_tokens: Option<u64>) -> Self {
        Self { serves: (role, kv_tokens), ..self }
    }

    /// Takes what was seen of the pool, and of the pool that hands requests over to it if there is one. Gives the rate
    /// of every bin of [`BIN`] that ended. Where nobody tells lengths and prefix hits, it asks how many tokens can be computed
    /// in the mean time to first token.
    pub fn observe(
        &mut self,
        seen: &Observation,
        before: Option<&Observation>,
        most_computed: impl FnOnce() -> Option<f64>,
    ) -> BinRate {
        let window = seen.window.as_secs_f64();
        let kept = 0.5_f64.powf(window.min(1e6) / LENGTHS_HALF_LIFE_S);
        for faded in [
            &mut self.arrived_isl,
            &mut self.finished_isl,
            &mut self.osl,
            &mut self.hits,
            &mut self.unsaid_hits,
            &mut self.drafts,
        ] {
            faded.fade(kept);
        }
        self.tokens.fade(kept);
        self.prompts.fade(kept);
        self.outputs.fade(kept);
        self.scatter.0.fade(kept);
        self.scatter.1.fade(kept);
        let known = [self.arrived_isl, self.finished_isl, self.osl];
        let cvs = self.cvs();
        if let Some(before) = before {
            self.prompts_of(before);
        }
        self.prompts_of(seen);
        // What a pool hands over was one token long when it finished there: outputs are told where they end.
        self.outputs_of(seen);
        let source = before.unwrap_or(seen);
        let are_inferred = self.infer_lengths(seen, before, most_computed);
        let door = source.door.and_then(|door| door.waiting);
        let queued = total(seen, |engine| engine.waiting);
        self.waiting = queued.map(|queued| queued + if before.is_none() { door.unwrap_or(0) } else { 0 });
        self.running = total(seen, |engine| engine.running);
        let arrived = match arrivals(source) {
            Some(arrived) => {
                self.inflow = Inflow::default();
                Some(arrived)
            }
            None => self.infer_arrivals(source, before.is_some() || self.serves.0 == Role::Prefill),
        };
        self.tell_lengths(seen, arrived);
        if !are_inferred {
            self.follow(known, cvs, window);
        }
        self.count(arrived, window)
    }

    /// How far prompts and outputs vary, as a share of their means.
    fn cvs(&self) -> (f64, f64) {
        let of = |scatter: Scatter, mean: Option<f64>| scatter.cv(mean.unwrap_or(0.0));
        (of(self.scatter.0, self.prompt_tokens()), of(self.scatter.1, self.osl.mean()))
    }

    /// Begins anew with lengths that changed, where they were `known` before a window and varied by `cvs`.
    fn follow(&mut self, known: [Faded; 3], (prompts, outputs): (f64, f64), window_s: f64) {
        let means = [&mut self.arrived_isl, &mut self.finished_isl, &mut self.osl];
        let cvs = [prompts, prompts, outputs];
        let mut changed = [false; 3];
        for (place, mean) in means.into_iter().enumerate() {
            let came = Faded {
                sum: (mean.sum - known[place].sum).max(0.0),
                of: (mean.of - known[place].of).max(0.0),
            };
            if let Some(since) = self.drifts[place].observe(came, window_s, *mean, cvs[place]) {
                *mean = since;
                changed[place] = true;
            }
        }
        if changed[0] || changed[1] {
            self.prompts.fade(STALE);
            self.scatter.0 = Scatter::default();
        }
        if changed[2] {
            self.outputs.fade(STALE);
            self.scatter.1 = Scatter::default();
        }
    }

    /// Requests that came though nobody counted them.
    fn infer_arrivals(&mut self, source: &Observation, is_prefill: bool) -> Option<f64> {
        let hit = self.hit();
        let prompt = self.prompt_tokens();
        let lengths = TokenLengths {
            // A prefill engine generates one token of each request, whatever the output's length.
            output: self.osl.mean().filter(|_| !is_prefill),
            to_compute: prompt.map(|prompt| prompt * (1.0 - hit)),
        };
        let came = self.inflow.observe(source, Some(&lengths))?;
        Some(came * unheard(source))
    }

    /// Lengths by whatever tells them where finished requests don't; whether it is tokens alone.
    fn infer_lengths(
        &mut self,
        seen: &Observation,
        before: Option<&Observation>,
        most_computed: impl FnOnce() -> Option<f64>,
    ) -> bool {
        let (role, kv_tokens) = self.serves;
        let source = before.unwrap_or(seen);
        let hit = self.hit();
        let prompts = |gained: &Gained| {
            let told = gained.finished_prompt_tokens.or(gained.arrived_prompt_tokens);
            let computed = || gained.prefilled_tokens.map(|tokens| tokens as f64 / (1.0 - hit));
            let queried = gained.prefix_query_tokens.map(|tokens| tokens as f64);
            queried.or_else(computed).filter(|_| told.is_none())
        };
        if let Some(flow) = Flow::of(source, prompts) {
            let (requests, stretch) = self.stretches.0.observe(&flow, 1.0, PROMPTS);
            self.finished_isl.add_sum(flow.tokens, requests);
            self.scatter.0.add_stretch(stretch, self.finished_isl.mean());
        }
        let outputs = |gained: &Gained| {
            let generated = gained.generated_tokens.map(|tokens| tokens as f64);
            generated.filter(|_| gained.finished_output_tokens.is_none())
        };
        if role != Role::Prefill
            && let Some(flow) = Flow::of(seen, outputs)
        {
            let (requests, stretch) = self.stretches.1.observe(&flow, 0.5, OUTPUTS);
            self.osl.add_sum(flow.tokens, requests);
            self.scatter.1.add_stretch(stretch, self.osl.mean());
        }
        let counted = |engine: &Engine| {
            let gained = &engine.gained;
            gained.finished.or(gained.finished_prompt_tokens).or(gained.arrived_prompt_tokens).is_some()
        };
        let told = seen.lengths.prompt.is_some() && seen.lengths.output.is_some();
        let is_counted = told || source.engines.values().any(counted);
        if role != Role::Prefill
            && !is_counted
            && (role == Role::Aggregated || before.is_some())
            && let Some(kv_tokens) = kv_tokens
        {
            let told = self.hits.mean().map(|hit| hit.clamp(0.0, 0.95));
            self.tokens.observe(seen, before, kv_tokens as f64);
            let most_computed = if told.is_none() { most_computed() } else { None };
            let known = infer::Known { hit: told, most_computed };
            if let Some(found) = self.tokens.lengths(&known) {
                let mean = |mean: f64| Faded { sum: mean * INFERRED, of: INFERRED };
                (self.finished_isl, self.osl) = (mean(found.prompt), mean(found.output));
                self.unsaid_hits = mean(found.hit);
            }
            return true;
        }
        false
    }

    /// The share of prompts found in prefix caches: as told, or what must have been.
    fn hit(&self) -> f64 {
        let hit = self.hits.mean().or_else(|| self.unsaid_hits.mean());
        hit.unwrap_or(0.0).clamp(0.0, 0.95)
    }

    /// Takes mean lengths that somebody tells, for as many requests as came.
    fn tell_lengths(&mut self, seen: &Observation, arrived: Option<f64>) {
        let requests = arrived.unwrap_or(1.0).max(1.0);
        if let Some(prompt) = seen.lengths.prompt {
            self.finished_isl.add_mean(prompt, requests);
        }
        if let Some(output) = seen.lengths.output {
            self.osl.add_mean(output, requests);
        }
    }

    fn prompts_of(&mut self, from: &Observation) {
        let door = from.door.unwrap_or_default();
        self.arrived_isl.add(door.arrived_prompt_tokens, door.arrived);
        for engine in from.engines.values() {
            let gained = &engine.gained;
            self.arrived_isl.add(gained.arrived_prompt_tokens, gained.arrived);
            let mean = self.finished_isl.mean();
            self.scatter.0.add(gained.finished_prompt_tokens, gained.finished, mean);
            self.finished_isl.add(gained.finished_prompt_tokens, gained.finished);
            self.prompts.add(&engine.prompt_lengths);
            self.hits.add(gained.prefix_hit_tokens, gained.prefix_query_tokens);
        }
    }

    fn outputs_of(&mut self, from: &Observation) {
        for engine in from.engines.values() {
            let gained = &engine.gained;
            self.scatter.1.add(gained.finished_output_tokens, gained.finished, self.osl.mean());
            self.osl.add(gained.finished_output_tokens, gained.finished);
            self.outputs.add(&engine.output_lengths);
            self.drafts.add(gained.accepted_draft_tokens, gained.generated_tokens);
        }
    }

    fn count(&mut self, arrived: Option<f64>, window: f64) -> BinRate {
        let Some(arrived) = arrived else {
            // A bin with a hole in it says nothing.
            self.bin = (0.0, 0.0);
            self.last = None;
            self.sustained = None;
            return None;
        };
        self.bin.0 += arrived;
        self.bin.1 += window;
        if self.bin.1 < BIN.as_secs_f64() * 0.999 {
            return None;
        }
        let (count, seconds) = std::mem::take(&mut self.bin);
        let rate = count / seconds;
        let count = rate * BIN.as_secs_f64();
        if let Some(last) = self.last.filter(|last| last + count > 0.0) {
            // A step of the rate is one great difference and no habit: bursts that are one come again and again.
            let most = MOST_DISPERSION * self.dispersion.mean().unwrap_or(1.0).max(1.0);
            self.dispersion.fade(0.5_f64.powf(1.0 / DISPERSION_HALF_LIFE));
            self.dispersion.sum += ((count - last).powi(2) / (count + last)).min(most);
            self.dispersion.of += 1.0;
        }
        self.sustained = self.last.map(|last| last.min(count));
        self.last = Some(count);
        Some(rate)
    }

    /// The index of dispersion of counts in a bin, variance over mean, from their differences, so that a trend is no
    /// dispersion: 1 for Poisson, above for bursts. From 1 to 30.
    #[must_use]
    pub fn dispersion(&self) -> f64 {
        (self.dispersion.mean().unwrap_or(1.0) - self.inflow.error()).clamp(1.0, 30.0)
    }

    /// What one arrival adds to the variance of counts where arrivals are Poisson: 1, and more where they are inferred.
    #[must_use]
    pub fn quantum(&self) -> f64 {
        1.0 + self.inflow.error()
    }

    /// The mean length of prompts, tokens; none before any is known.
    #[must_use]
    pub fn prompt_tokens(&self) -> Option<f64> {
        self.arrived_isl.mean().or_else(|| self.finished_isl.mean())
    }

    /// The mean length of prompts as who computes them has to take it, tokens: whole where it knows itself what is found
    /// in its prefix caches, and otherwise what is left to compute.
    #[must_use]
    pub fn prompt_to_compute(&self) -> Option<f64> {
        let hit = if self.hits.mean().is_some() { 0.0 } else { self.hit() };
        Some((self.prompt_tokens()? * (1.0 - hit)).max(1.0))
    }

    /// What requests are like; none before any told its lengths.
    #[must_use]
    pub fn mix(&self, role: Role) -> Option<Mix> {
        let isl = self.prompt_tokens()?;
        let osl = match (role, self.osl.mean()) {
            (Role::Prefill, osl) => osl.unwrap_or(1.0),
            (_, osl) => osl?,
        };
        // Tokens a step: every token that was not accepted from a draft took a step of its own.
        let accepted = self.drafts.mean().unwrap_or(0.0).clamp(0.0, 0.9);
        Some(Mix {
            isl: self.prompts.lengths(isl, self.scatter.0),
            osl: self.outputs.lengths(osl, self.scatter.1),
            hit: self.hit(),
            tokens_per_step: 1.0 / (1.0 - accepted),
        })
    }

    /// The arrival rate of the last whole bin, requests a second.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        self.last.map(|count| count / BIN.as_secs_f64())
    }

    /// The rate that both of the last two bins had, requests a second.
    #[must_use]
    pub fn sustained(&self) -> Option<f64> {
        self.sustained.map(|count| count / BIN.as_secs_f64())
    }

    /// Requests that wait in front of the pool's engines or in their queues.
    #[must_use]
    pub const fn waiting(&self) -> Option<u64> {
        self.waiting
    }

    /// Requests in the engines' batches.
    #[must_use]
    pub const fn running(&self) -> Option<u64> {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::ids::EngineId;

    use super::*;

    fn pool(name: &str, finished: u64, output: u64, buckets: &[(u64, u64)]) -> Observation {
        let gained = Gained {
            arrived: Some(finished),
            finished: Some(finished),
            finished_prompt_tokens: Some(finished * 1_000),
            finished_output_tokens: Some(finished * output),
            ..Gained::default()
        };
        let engine = Engine { gained, output_lengths: buckets.to_vec(), ..Engine::default() };
        let mut seen = Observation::new(name.parse().unwrap(), Micros(10_000_000));
        seen.engines.insert(EngineId::parse(name).unwrap(), engine);
        seen
    }

    #[test]
    fn lengths_whose_windows_do_not_scatter_are_alike_whatever_their_bucket_spans() {
        let at = |outputs: [u64; 2], level: f64| {
            let mut demand = Demand::default();
            for n in 0..40 {
                demand.observe(&pool("a", 100, outputs[n % 2], &[(200, 0), (500, 100)]), None, || None);
            }
            let mix = demand.mix(Role::Aggregated).unwrap();
            mix.osl.at(level) / mix.osl.mean
        };
        assert!((at([300, 300], 0.99) - 1.0).abs() < 1e-3, "{}", at([300, 300], 0.99));
        // A hundred answers whose mean is off by a sixth are not alike at all: the bucket counts.
        assert!(at([250, 350], 0.99) > 1.4, "{}", at([250, 350], 0.99));
        // Off by as much as answers that vary by a thirtieth: no wider than twice that.
        let some = at([299, 301], 0.99);
        assert!(some > 1.03 && some < 1.25, "{some}");
    }

    #[test]
    fn answers_are_as_long_as_where_they_end() {
        let mut demand = Demand::default();
        let (prefill, decode) =
            (pool("prefill", 100, 1, &[(1, 100)]), pool("decode", 100, 200, &[(500, 100)]));
        demand.observe(&decode, Some(&prefill), || None);
        let mix = demand.mix(Role::Decode).unwrap();
        assert!((mix.osl.mean - 200.0).abs() < 1e-9 && mix.osl.at(0.01) > 50.0, "{mix:?}");
        assert!((mix.isl.mean - 1_000.0).abs() < 1e-9);
    }
}
