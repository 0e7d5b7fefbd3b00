//! The engine: requests in, iterations, tokens out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use plimsoll_common::units::Micros;

use crate::{
    cohort::Cohort,
    config::{ConfigError, EngineConfig},
    pace::Pace,
    request::{Rejected, Request, RequestFacts, RequestId},
    scheduler::Scheduler,
    slots::{Slots, State},
    step::StepStats,
    step::{Iteration, Step, Token},
    timing::StepShape,
};

/// One inference engine on virtual time.
///
/// The driver alternates [`Engine::start_iteration`] and [`Engine::finish_iteration`]; requests may be submitted and
/// aborted at any moment, during an iteration too. Time never runs backwards in the engine: an argument earlier than one
/// it has seen counts as that one.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    pub(crate) scheduler: Scheduler,
    pub(crate) slots: Slots,
    places: BTreeMap<RequestId, u32>,
    pub(crate) in_flight: Option<Iteration>,
    /// Who decodes together, where somebody does: the first of those that run.
    pub(crate) cohort: Cohort,
    pub(crate) is_together: bool,
    /// Whether blocks are such that a cohort can count them.
    pub(crate) can_gather: bool,
    pub(crate) last: Option<Iteration>,
    pub(crate) clock: Micros,
    pub(crate) totals: Totals,
    pace: Pace,
    tokens: Vec<Token>,
    pub(crate) finished: Vec<RequestFacts>,
}

/// How full the engine is at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Requests that hold KV blocks.
    pub running: u32,
    /// Requests in the queue, preempted ones included.
    pub waiting: u32,
    /// KV blocks held.
    pub kv_blocks_used: u32,
    /// KV blocks there are.
    pub kv_blocks_total: u32,
}

impl Load {
    /// The share of KV blocks held, 0 to 1.
    #[must_use]
    pub fn kv_usage(&self) -> f64 {
        f64::from(self.kv_blocks_used) / f64::from(self.kv_blocks_total.max(1))
    }
}

/// What the engine has done since it began; every number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests handed to [`Engine::submit`], refused ones included.
    pub submitted: u64,
    /// Requests refused.
    pub rejected: u64,
    /// Requests that generated all they were to.
    pub finished: u64,
    /// Requests aborted.
    pub aborted: u64,
    /// Times that a request lost its blocks.
    pub preemptions: u64,
    /// Iterations finished.
    pub iterations: u64,
    /// Prompt tokens looked up in the prefix cache, at each request's first admission.
    pub cache_query_tokens: u64,
    /// Those that it held.
    pub cache_hit_tokens: u64,
    /// Tokens computed in prefill, recomputed ones included.
    pub prefilled_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
}

impl Engine {
    /// An empty engine.
    ///
    /// # Errors
    /// What [`EngineConfig::validate`] finds.
    pub fn new(config: EngineConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let cohort = Cohort::new(config.block_size);
        Ok(Self {
            can_gather: cohort.is_some(),
            cohort: cohort.unwrap_or_default(),
            is_together: false,
            scheduler: Scheduler::new(&config),
            config,
            slots: Slots::default(),
            places: BTreeMap::new(),
            in_flight: None,
            last: None,
            clock: Micros::ZERO,
            totals: Totals::default(),
            pace: Pace::default(),
            tokens: Vec::new(),
            finished: Vec::new(),
        })
    }

    /// What the engine was given.
    #[must_use]
    pub const fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Puts a request at the end of the queue; the next iteration to start may take it up.
    ///
    /// # Errors
    /// Refuses what could never run, what would overfill the queue, and an id that is held already.
    pub fn submit(&mut self, now: Micros, request: Request) -> Result<(), Rejected> {
        let now = self.tick(now);
        self.totals.submitted += 1;
        if let Err(rejected) = self.check(&request) {
            self.totals.rejected += 1;
            return Err(rejected);
        }
        let usable = if request.prefilled { 0 } else { request.cached_tokens.min(request.prompt_tokens - 1) };
        let request = Request { cached_tokens: self.scheduler.blocks.whole_blocks(usable), ..request };
        let slot = self.slots.insert(request, now);
        self.places.insert(request.id, slot.place);
        self.scheduler.enqueue(slot);
        Ok(())
    }

    /// Drops a request, wherever it is; its blocks are free at once. If an iteration is computing it, the result is
    /// thrown away. None if the engine does not hold it.
    pub fn abort(&mut self, now: Micros, id: RequestId) -> Option<RequestFacts> {
        self.settle();
        let now = self.tick(now);
        let place = self.places.remove(&id)?;
        let slot = self.slots.get_mut(place);
        let facts = slot.facts(now);
        let was = std::mem::replace(&mut slot.state, State::Done);
        self.scheduler.blocks.give_back(slot.blocks);
        if was == State::Running {
            self.scheduler.running.retain(|running| *running != place);
        } else {
            self.scheduler.forget_waiting(&self.slots);
        }
        self.slots.vacate(place);
        self.totals.aborted += 1;
        Some(facts)
    }

    /// Starts the next iteration. None if there is nothing to do; the one under way, if there is one.
    pub fn start_iteration(&mut self, now: Micros) -> Option<Iteration> {
        self.settle();
        if self.in_flight.is_some() {
            return self.in_flight;
        }
        let now = self.tick(now);
        let stats = self.scheduler.schedule(&mut self.slots, now);
        self.begin(now, stats)
    }

    /// Sets the iteration under way that was scheduled; none if it is empty.
    pub(crate) fn begin(&mut self, now: Micros, stats: StepStats) -> Option<Iteration> {
        self.totals.preemptions += u64::from(stats.preempted);
        for admission in &self.scheduler.admitted {
            if admission.prefilled {
                continue; // Nothing was looked up: the context came with the request.
            }
            self.totals.cache_query_tokens += u64::from(admission.prompt_tokens);
            self.totals.cache_hit_tokens += u64::from(admission.cached_tokens);
        }
        if stats.sequences == 0 {
            return None;
        }
        let ends_at = now.saturating_add(self.duration(&stats.shape));
        self.in_flight = Some(Iteration { started_at: now, ends_at, stats });
        self.in_flight
    }

    /// Ends the iteration under way and hands out its tokens; None if there is none.
    ///
    /// `now` is when the tokens come out. It may be later than the model's end, for a driver on real time; earlier
    /// counts as the model's end.
    pub fn finish_iteration(&mut self, now: Micros) -> Option<Step<'_>> {
        self.settle();
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.clear();
        let finished = self.finish_each(now, |_, token| tokens.push(*token));
        self.tokens = tokens;
        let (iteration, now) = finished?;
        Some(Step {
            started_at: iteration.started_at,
            ended_at: now,
            stats: iteration.stats,
            admitted: &self.scheduler.admitted,
            preempted: &self.scheduler.preempted,
            tokens: &self.tokens,
            finished: &self.finished,
            load: self.load(),
            totals: &self.totals,
        })
    }

    /// Ends the iteration under way, shows each of its tokens with the time at which it came out, and gives the iteration
    /// and that time.
    pub(crate) fn finish_each(
        &mut self,
        now: Micros,
        mut show: impl FnMut(Micros, &Token),
    ) -> Option<(Iteration, Micros)> {
        let iteration = self.in_flight.take()?;
        self.last = Some(Iteration { ends_at: now.max(iteration.ends_at), ..iteration });
        let now = self.tick(now.max(iteration.ends_at));
        self.finished.clear();
        if self.is_together {
            self.finish_together(now);
        }
        for index in 0..self.scheduler.batch.len() {
            if let Some(token) = self.apply(index, now) {
                self.totals.generated_tokens += 1;
                show(now, &token);
            }
        }
        if !self.finished.is_empty() {
            self.forget_finished();
        }
        if self.is_together {
            self.join_together(now);
        }
        self.totals.iterations += 1;
        self.totals.finished += self.finished.len() as u64;
        Some((iteration, now))
    }

    fn forget_finished(&mut self) {
        // Members of the cohort have been let go.
        let members = if self.is_together { self.cohort.members() as usize } else { 0 };
        let mut kept = members;
        for at in members..self.scheduler.running.len() {
            let place = self.scheduler.running[at];
            if self.slots.get(place).state == State::Running {
                self.scheduler.running[kept] = place;
                kept += 1;
            }
        }
        self.scheduler.running.truncate(kept);
        for facts in &self.finished {
            if let Some(place) = self.places.remove(&facts.id) {
                self.slots.vacate(place);
            }
        }
    }

    /// How full the engine is.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.scheduler.running.len() as u32,
            waiting: self.scheduler.waiting(),
            kv_blocks_used: self.scheduler.blocks.used(),
            kv_blocks_total: self.scheduler.blocks.total(),
        }
    }

    /// What the engine has done.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The iteration under way.
    #[must_use]
    pub const fn in_flight(&self) -> Option<Iteration> {
        self.in_flight
    }

    /// The iteration that finished last.
    #[must_use]
    pub const fn last_iteration(&self) -> Option<&Iteration> {
        self.last.as_ref()
    }

    /// Requests that run or wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.places.len()
    }

    /// Makes the engine faster or slower than its profile, from the next iteration on.
    pub const fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Drops every request, in the order of their ids, as [`Engine::abort`] does: what a crash leaves.
    pub fn abort_all(&mut self, now: Micros) -> Vec<RequestFacts> {
        let ids: Vec<RequestId> = self.places.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.abort(now, id)).collect()
    }

    /// Whether nobody runs and nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How long an iteration of this shape takes, were it the next to finish.
    pub(crate) fn duration(&self, shape: &StepShape) -> Micros {
        let model = self.config.timing.duration(shape);
        match self.pace.factor_of(self.totals.iterations) {
            None => model,
            Some(factor) => Micros::from_millis_f64(model.as_millis_f64() * factor).max(Micros(1)),
        }
    }

    fn tick(&mut self, now: Micros) -> Micros {
        self.clock = self.clock.max(now);
        self.clock
    }

    fn check(&self, request: &Request) -> Result<(), Rejected> {
        if request.prompt_tokens == 0 {
            return Err(Rejected::EmptyPrompt);
        }
        if request.output_tokens <= u32::from(request.prefilled) {
            return Err(Rejected::NoOutput);
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens);
        if tokens > u64::from(self.config.max_model_len) {
            return Err(Rejected::TooLong { tokens, limit: self.config.max_model_len });
        }
        if self.places.contains_key(&request.id) {
            return Err(Rejected::DuplicateId);
        }
        if self.scheduler.waiting() >= self.config.max_waiting {
            return Err(Rejected::QueueFull { limit: self.config.max_waiting });
        }
        Ok(())
    }

    /// Advances one sequence of the batch by what the iteration computed of it, and gives its token if one came out.
    fn apply(&mut self, index: usize, now: Micros) -> Option<Token> {
        let scheduled = self.scheduler.batch[index];
        let slot = self.slots.get_mut(scheduled.slot.place);
        if slot.serial != scheduled.slot.serial || slot.state != State::Running {
            return None; // It was aborted while the iteration ran.
        }
        slot.computed += scheduled.new_tokens;
        if scheduled.prefills {
            slot.prefilled += u64::from(scheduled.new_tokens);
            self.totals.prefilled_tokens += u64::from(scheduled.new_tokens);
        }
        if slot.remaining() > 0 {
            return None; // A chunk of a longer prefill: no token yet.
        }
        slot.emitted += 1;
        let token = Token {
            id: slot.request.id,
            index: slot.emitted,
            latency: now.saturating_sub(slot.last_token.unwrap_or(slot.arrival)),
            prompt_tokens: slot.request.prompt_tokens,
            cached_tokens: slot.request.cached_tokens,
        };
        if slot.emitted <= 2 {
            // The first token of this engine is the second of a request that came prefilled.
            slot.first_token.get_or_insert(now);
        }
        slot.last_token = Some(now);
        if slot.emitted == slot.request.output_tokens {
            slot.state = State::Done;
            self.scheduler.blocks.give_back(slot.blocks);
            self.finished.push(slot.facts(now));
        }
        Some(token)
    }
}
