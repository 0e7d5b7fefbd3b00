//! What a host tells of one engine, or of all engines of a pool as a whole.

use plimsoll_common::units::Micros;
use plimsoll_core::{
    observe::{Engine, Gained},
    score::Slo,
};

use super::{
    json::{Fields, Place, Refusal, SHARE, TOKENS},
    latency::{Told as Latency, buckets, share},
};

/// One of an engine's counters, by its name.
type Counter = (&'static str, fn(&mut Gained) -> &mut Option<u64>);

/// All counters.
pub(super) const COUNTERS: [Counter; 12] = [
    ("arrived", |gained| &mut gained.arrived),
    ("arrived_prompt_tokens", |gained| &mut gained.arrived_prompt_tokens),
    ("finished", |gained| &mut gained.finished),
    ("finished_prompt_tokens", |gained| &mut gained.finished_prompt_tokens),
    ("finished_output_tokens", |gained| &mut gained.finished_output_tokens),
    ("prefix_query_tokens", |gained| &mut gained.prefix_query_tokens),
    ("prefix_hit_tokens", |gained| &mut gained.prefix_hit_tokens),
    ("prefilled_tokens", |gained| &mut gained.prefilled_tokens),
    ("generated_tokens", |gained| &mut gained.generated_tokens),
    ("accepted_draft_tokens", |gained| &mut gained.accepted_draft_tokens),
    ("iterations", |gained| &mut gained.iterations),
    ("preemptions", |gained| &mut gained.preemptions),
];

/// What was told, read and not yet understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) draining: bool,
    /// Whether it told anything, be it only totals that nothing can be learned from yet.
    pub(super) tells: bool,
    pub(super) running: Option<u64>,
    pub(super) waiting: Option<u64>,
    pub(super) queued_prefill_tokens: Option<u64>,
    kv_utilization: Option<f64>,
    kv_tokens: Option<u64>,
    kv_capacity_tokens: Option<u64>,
    /// Since the line before.
    pub(super) gained: Gained,
    /// Since the engine's start.
    pub(super) totals: Gained,
    ttft: Latency,
    itl: Latency,
    queue_time: Latency,
    prompt_lengths: Vec<(u64, u64)>,
    output_lengths: Vec<(u64, u64)>,
}

impl Told {
    /// Reads an engine's keys; a pool's own come besides.
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            draining: false,
            tells: false,
            running: fields.count("running")?,
            waiting: fields.count("waiting")?,
            queued_prefill_tokens: fields.count("queued_prefill_tokens")?,
            kv_utilization: fields.number("kv_utilization", SHARE)?,
            kv_tokens: fields.count("kv_tokens")?,
            kv_capacity_tokens: fields.count("kv_capacity_tokens")?,
            gained: counters(fields, "gained")?,
            totals: counters(fields, "totals")?,
            ttft: Latency::read(fields, "ttft", "ttft_mean_s")?,
            itl: Latency::read(fields, "itl", "itl_mean_s")?,
            queue_time: Latency::read(fields, "queue_time", "queue_time_mean_s")?,
            prompt_lengths: lengths(fields, "prompt_lengths")?,
            output_lengths: lengths(fields, "output_lengths")?,
        })
    }

    /// Whether nothing at all was told.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self { draining: self.draining, tells: self.tells, ..Self::default() }
    }

    /// What the pool tells as a whole, in equal parts to engines of which none tells it.
    pub(super) fn spread(whole: &Self, engines: &mut [&mut Self]) {
        let of = engines.len() as u64;
        let gauges: [fn(&mut Self) -> &mut Option<u64>; 4] = [
            |told| &mut told.running,
            |told| &mut told.waiting,
            |told| &mut told.queued_prefill_tokens,
            |told| &mut told.kv_tokens,
        ];
        let mut whole = whole.clone();
        let mut spread = |of_told: &dyn Fn(&mut Self) -> &mut Option<u64>| {
            let Some(total) = *of_told(&mut whole) else { return };
            if engines.iter_mut().all(|engine| of_told(engine).is_none()) {
                for (place, engine) in engines.iter_mut().enumerate() {
                    *of_told(engine) = Some(share(total, of, place as u64));
                }
            }
        };
        gauges.iter().for_each(|gauge| spread(gauge));
        for (_, counter) in &COUNTERS {
            spread(&|told| counter(&mut told.gained));
        }
        let latencies: [fn(&mut Self) -> &mut Latency; 3] =
            [|told| &mut told.ttft, |told| &mut told.itl, |told| &mut told.queue_time];
        for latency in latencies {
            if engines.iter_mut().all(|engine| latency(engine).is_empty()) {
                for (place, engine) in engines.iter_mut().enumerate() {
                    *latency(engine) = latency(&mut whole).part(of, place as u64);
                }
            }
        }
        for engine in engines.iter_mut() {
            engine.kv_utilization = engine.kv_utilization.or(whole.kv_utilization);
            let capacity = || whole.kv_capacity_tokens.map(|tokens| tokens / of);
            engine.kv_capacity_tokens = engine.kv_capacity_tokens.or_else(capacity);
        }
        if let Some(first) = engines.first_mut() {
            // Lengths are added up over the pool in any case.
            first.prompt_lengths.append(&mut whole.prompt_lengths);
            first.output_lengths.append(&mut whole.output_lengths);
        }
    }

    /// As the core takes it.
    pub(super) fn engine(self, window: Micros, slo: Option<Slo>, kv_tokens: Option<u64>) -> Engine {
        let capacity = self.kv_capacity_tokens.or(kv_tokens).filter(|capacity| *capacity > 0);
        let held = self.kv_tokens.zip(capacity).map(|(held, all)| (held as f64 / all as f64).min(1.0));
        let limit = |of: fn(&Slo) -> Option<Micros>| slo.as_ref().and_then(of);
        let mut engine = Engine {
            draining: self.draining,
            running: self.running,
            waiting: self.waiting,
            kv_utilization: self.kv_utilization.or(held),
            queued_prefill_tokens: self.queued_prefill_tokens,
            gained: self.gained,
            prompt_lengths: self.prompt_lengths,
            output_lengths: self.output_lengths,
            ..Engine::default()
        };
        engine.take_means(window, self.ttft.mean, self.itl.mean);
        for (told, latency, limit) in [
            (&self.ttft, &mut engine.ttft, limit(|slo| slo.ttft)),
            (&self.itl, &mut engine.itl, limit(|slo| slo.itl)),
            (&self.queue_time, &mut engine.queue_time, None),
        ] {
            if let Some(counted) = told.latency(limit) {
                *latency = counted;
            }
        }
        engine
    }
}

/// Reads one engine.
pub(super) fn read(place: Place<'_>, value: &serde_json::Value) -> Result<Told, Refusal> {
    let mut fields = Fields::of(place, value)?;
    let draining = fields.flag("draining")?;
    let told = Told::read(&mut fields)?;
    fields.finish()?;
    Ok(Told { draining, tells: !told.is_empty(), ..told })
}

fn counters(fields: &mut Fields<'_>, key: &'static str) -> Result<Gained, Refusal> {
    let mut gained = Gained::default();
    let Some(value) = fields.get(key) else { return Ok(gained) };
    let mut inner = Fields::of(Place::of(&fields.place, key), value)?;
    for (name, counter) in &COUNTERS {
        *counter(&mut gained) = inner.count(name)?;
    }
    inner.finish()?;
    Ok(gained)
}

fn lengths(fields: &mut Fields<'_>, key: &'static str) -> Result<Vec<(u64, u64)>, Refusal> {
    let buckets = buckets(fields, key, TOKENS)?;
    // The core's last edge is beyond every request.
    Ok(buckets.into_iter().map(|(edge, count)| (edge.min(16_777_216.0) as u64, count)).collect())
}
