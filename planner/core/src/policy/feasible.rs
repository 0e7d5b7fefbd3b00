//! What one engine can promise at best: a single request on an empty engine, and how many sequences at once keep an ITL.
//!
//! No number of replicas makes an engine faster, so that a limit below these figures is kept by none.

use plimsoll_common::{
    engine::Role,
    units::{Micros, Ratio},
};
use plimsoll_engine::{Engine, EngineConfig, Profile, Request, RequestId, StepShape};

use super::{
    ModelPolicy, PoolPolicy, Speculation, Target,
    finding::{Findings, Place},
};

/// The prompt that is computed with where a policy tells none, tokens.
const USUAL_ISL: u32 = 1_000;
/// Generated tokens where a policy tells none.
const USUAL_OSL: u32 = 200;
/// Fewer sequences at once than this make poor use of a GPU.
const FEW_SEQUENCES: u32 = 4;

/// What one engine can do at best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    /// Time to first token of one prompt on an empty engine, in as many chunks as it takes.
    pub ttft: Micros,
    /// Mean time between the tokens of a sequence that runs alone, with its context halfway through its output.
    pub itl_alone: Micros,
}

/// What an engine can do at best for a prompt of `isl` tokens, of which the share `hits` is in its prefix cache, and an
/// output of `osl`. `None` where the engine can't serve such a request at all.
#[must_use]
pub fn best(
    config: &EngineConfig,
    isl: u32,
    osl: u32,
    hits: Ratio,
    speculation: Option<Speculation>,
) -> Option<Best> {
    let mut engine = Engine::new(config.clone()).ok()?;
    let cached_tokens = (f64::from(isl) * hits.get()) as u32;
    let request = Request { cached_tokens, ..Request::new(RequestId(0), isl, 1) };
    engine.submit(Micros::ZERO, request).ok()?;
    let mut now = Micros::ZERO;
    // A chunk has at least one token, so that there are no more iterations than tokens.
    for _ in 0..=isl {
        let Some(iteration) = engine.start_iteration(now) else { break };
        now = iteration.ends_at;
        engine.finish_iteration(now)?;
    }
    let itl_alone = itl(config, 1, isl.saturating_add(osl / 2), speculation);
    (engine.totals().finished == 1).then_some(Best { ttft: now, itl_alone })
}

/// The ITL when `sequences` decode at once, each with `context` tokens of context.
fn itl(config: &EngineConfig, sequences: u32, context: u32, speculation: Option<Speculation>) -> Micros {
    let shape = StepShape {
        decode_sequences: u64::from(sequences),
        decode_context: u64::from(sequences) * u64::from(context),
        ..StepShape::default()
    };
    let iteration = config.timing.duration(&shape);
    let tokens = speculation.map_or(1.0, |speculation| speculation.tokens_per_iteration());
    Micros((iteration.0 as f64 / tokens).round() as u64)
}

/// The most sequences that may decode at once within an ITL, by time, KV cache and `maxNumSeqs`; 0 if not even one.
#[must_use]
pub fn most_sequences(
    config: &EngineConfig,
    isl: u32,
    osl: u32,
    limit: Micros,
    speculation: Option<Speculation>,
) -> u32 {
    let context = isl.saturating_add(osl / 2).max(1);
    let by_cache = config.kv_tokens() / u64::from(context);
    let most = config.max_num_seqs.min(u32::try_from(by_cache).unwrap_or(u32::MAX));
    // An iteration takes no less with more sequences, so that the answer can be halved in on.
    let (mut fits, mut exceeds) = (0, most.saturating_add(1));
    while fits + 1 < exceeds {
        let middle = fits + (exceeds - fits) / 2;
        if itl(config, middle, context, speculation) <= limit { fits = middle } else { exceeds = middle }
    }
    fits
}

/// The mean request that a model is judged by, input and output tokens: its traffic, or 1,000 and 200.
#[must_use]
pub fn usual(model: &ModelPolicy) -> (u32, u32) {
    let shape = Shape::of(model);
    (shape.isl, shape.osl)
}

/// The requests to compute with.
struct Shape {
    isl: u32,
    osl: u32,
    /// Says so where the policy tells no prompt length.
    assumed: &'static str,
}

impl Shape {
    fn of(model: &ModelPolicy) -> Self {
        let assumed = if model.traffic.isl.is_some() { "" } else { " (assumed; give traffic.isl)" };
        Self {
            isl: model.traffic.isl.unwrap_or(USUAL_ISL).max(1),
            osl: model.traffic.osl.unwrap_or(USUAL_OSL).max(1),
            assumed,
        }
    }
}

/// Reports the promises of a model that its pools' profiles can't keep.
pub(super) fn check(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    if model.target != Target::Sla {
        return;
    }
    for pool in &model.pools {
        let Some(config) = pool.engine_config().filter(|config| config.validate().is_ok()) else { continue };
        if matches!(pool.role, Role::Aggregated | Role::Prefill) {
            ttft(model, pool, &config, place, findings);
        }
        if matches!(pool.role, Role::Aggregated | Role::Decode) {
            between_tokens(model, pool, &config, place, findings);
        }
    }
}

fn ttft(
    model: &ModelPolicy,
    pool: &PoolPolicy,
    config: &EngineConfig,
    place: &Place,
    findings: &mut Findings,
) {
    let Some(promise) = model.slo.ttft.filter(|promise| promise.limit.0 > Micros::ZERO) else { return };
    let at = place.key("slo").key("ttft").key("limit");
    let shape = Shape::of(model);
    let hits = pool.engine.prefix_hit_rate.unwrap_or_default();
    let of = |isl: u32| best(config, isl, shape.osl, hits, None).map(|best| best.ttft);
    let limit = promise.limit.0;
    match of(shape.isl) {
        Some(least) if least > limit => findings.impossible(
            &at,
            format!(
                "pool {} needs {least} for a prompt of {} tokens{} on an empty engine: promise at least that, {}",
                pool.name,
                shape.isl,
                shape.assumed,
                remedy(model, pool, &|best| best.ttft <= limit)
            ),
        ),
        Some(_) => {
            let Some(longest) = model.traffic.longest_isl.filter(|longest| *longest > shape.isl) else { return };
            if let Some(least) = of(longest).filter(|least| *least > limit) {
                let text = format!(
                    "pool {} needs {least} for the longest prompts ({longest} tokens) on an empty engine: those miss, \
                     and count against the goal of {}",
                    pool.name,
                    model.slo.goal().get()
                );
                findings.warning(&at, text);
            }
        }
        // Requests that fit no engine are told elsewhere.
        None => {}
    }
}

fn between_tokens(
    model: &ModelPolicy,
    pool: &PoolPolicy,
    config: &EngineConfig,
    place: &Place,
    findings: &mut Findings,
) {
    let Some(promise) = model.slo.itl.filter(|promise| promise.limit.0 > Micros::ZERO) else { return };
    let at = place.key("slo").key("itl").key("limit");
    let shape = Shape::of(model);
    let (limit, speculation) = (promise.limit.0, pool.engine.speculation);
    let context = shape.isl.saturating_add(shape.osl / 2);
    let alone = itl(config, 1, context, speculation);
    let most = most_sequences(config, shape.isl, shape.osl, limit, speculation);
    if alone > limit {
        findings.impossible(
            &at,
            format!(
                "pool {} needs {alone} between the tokens of a sequence that runs alone: promise at least that ({} for \
                 8 at once), {}",
                pool.name,
                itl(config, 8, context, speculation),
                remedy(model, pool, &|best| best.itl_alone <= limit)
            ),
        );
    } else if most < FEW_SEQUENCES.min(config.max_num_seqs) {
        findings.warning(
            &at,
            format!(
                "an engine of pool {} keeps it for {most} sequences at once only, of contexts of {context} tokens{}; 8 at \
                 once take {}",
                pool.name,
                shape.assumed,
                itl(config, 8, context, speculation)
            ),
        );
    }
}

/// What to do about an engine that is too slow: the smallest built-in one of the same model that is not.
fn remedy(model: &ModelPolicy, pool: &PoolPolicy, keeps: &dyn Fn(&Best) -> bool) -> String {
    let shape = Shape::of(model);
    let hits = pool.engine.prefix_hit_rate.unwrap_or_default();
    let Some(profile) = pool.profile() else { return "or give a profile".to_owned() };
    let family = family(&profile.model);
    let candidates = Profile::all_built_in().unwrap_or_default();
    let fast = candidates.iter().filter(|other| self::family(&other.model) == family).filter(|other| {
        let engine = other.engine_config();
        best(&engine, shape.isl, shape.osl, hits, pool.engine.speculation).is_some_and(|best| keeps(&best))
    });
    match fast.min_by_key(|other| (other.gpus, &other.name)) {
        Some(other) => format!("or run {} ({} × {}), which keeps it", other.name, other.gpus, other.gpu),
        None => "or choose a smaller model: no built-in profile of this one keeps it".to_owned(),
    }
}

/// A model's name without who published it and without its precision: the same model for who asks for a faster engine.
fn family(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    ["-fp8", "-nvfp4", "-fp4", "-bf16", "-awq"].iter().fold(name, |name, end| name.replace(end, ""))
}
