//! One pool: its bounds, its engines, its behavior.

use plimsoll_common::engine::Role;

use crate::policy::{
    ModelPolicy, PoolPolicy, Target,
    behavior::{LONGEST_PERIOD_S, LONGEST_WINDOW_S, RateLimit, RateLimitType, ScalingRules, SelectPolicy},
    finding::{Findings, Place},
    pool::Routing,
    span::Span,
};

pub(super) fn check(model: &ModelPolicy, pool: &PoolPolicy, place: &Place, findings: &mut Findings) {
    bounds(model, pool, place, findings);
    gpus(pool, place, findings);
    engine(model, pool, place, findings);
    let behavior = place.key("behavior");
    rules(&pool.behavior.scale_up, &behavior.key("scaleUp"), findings);
    rules(&pool.behavior.scale_down, &behavior.key("scaleDown"), findings);
    let only_percent = |rules: &ScalingRules| {
        let percent = |policy: &RateLimit| policy.kind == RateLimitType::Percent;
        match rules.select_policy {
            SelectPolicy::Min => rules.policies.iter().any(percent),
            _ => !rules.policies.is_empty() && rules.policies.iter().all(percent),
        }
    };
    if pool.min == 0 && only_percent(&pool.behavior.scale_up) {
        findings.error(
            &behavior.key("scaleUp").key("policies"),
            "per cent of no replica are none, so that the pool would never leave 0: add a policy of type Replicas and \
             select Max",
        );
    }
    let closed = |rules: &ScalingRules| rules.select_policy == SelectPolicy::Disabled;
    if closed(&pool.behavior.scale_up) && closed(&pool.behavior.scale_down) {
        findings.warning(&behavior, "both directions are Disabled: the pool stays as it is");
    }
}

fn bounds(model: &ModelPolicy, pool: &PoolPolicy, place: &Place, findings: &mut Findings) {
    if pool.max == 0 {
        findings.error(&place.key("max"), "0 replicas serve nobody: give at least 1");
    } else if pool.min > pool.max {
        findings.error(
            &place.key("min"),
            format!("min {} is above max {}: lower min or raise max", pool.min, pool.max),
        );
    }
    if pool.max > 100_000 {
        findings.error(&place.key("max"), "more than 100,000 replicas: give the most that you have GPUs for");
    }
    if pool.min == 0 && model.demand.is_none() {
        findings.error(
            &place.key("min"),
            "a pool without replicas shows no demand, so that it would never come back: give min 1, or the model's \
             demand (a front-end or gateway that sees requests before an engine does)",
        );
    }
    if pool.start_up.0.0 == 0 || pool.start_up > Span::from_secs(86_400) {
        findings.error(
            &place.key("startUp"),
            "a start takes above 0 and up to 24h: give what you expect, such as 2m",
        );
    }
}

fn gpus(pool: &PoolPolicy, place: &Place, findings: &mut Findings) {
    let Some(parallel) = pool.parallel else { return };
    let at = place.key("parallel");
    let mut sound = true;
    for (key, size) in [("tp", parallel.tp), ("pp", parallel.pp), ("dp", parallel.dp)] {
        if size == 0 {
            findings.error(&at.key(key), "a size of 0 leaves no GPU: give 1 or more, or leave it out");
            sound = false;
        }
    }
    if parallel.gpus() > 65_536 {
        findings.error(&at, "tp × pp × dp is more than 65,536 GPUs");
        sound = false;
    }
    let Some(profile) = pool.profile().filter(|_| sound) else { return };
    if !parallel.gpus().is_multiple_of(profile.gpus.max(1)) {
        findings.error(
            &at,
            format!(
                "a replica has {} GPUs, and one engine of profile {} has {}: take a profile of tp × pp GPUs, or \
                 change parallel",
                parallel.gpus(),
                profile.name,
                profile.gpus
            ),
        );
    } else if profile.gpus != parallel.gpus() && profile.gpus != parallel.tp.saturating_mul(parallel.pp) {
        findings.warning(
            &at,
            format!(
                "profile {} is an engine of {} GPUs, and tp × pp is {}: the replica is taken for {} such engines",
                profile.name,
                profile.gpus,
                parallel.tp * parallel.pp,
                pool.engines_per_replica()
            ),
        );
    }
}

fn engine(model: &ModelPolicy, pool: &PoolPolicy, place: &Place, findings: &mut Findings) {
    let settings = &pool.engine;
    let at = place.key("engine");
    if let Some(Err(error)) = pool.engine_config().map(|config| config.validate()) {
        findings.error(&at, format!("no engine starts like that: {error}"));
    }
    if pool.profile.is_none() && model.target == Target::Sla {
        findings.warning(
            place,
            "without a profile nothing is known of its engines until they were seen under load: give the nearest one",
        );
    }
    if settings.speculation.is_some_and(|speculation| speculation.tokens == 0 || speculation.tokens > 64) {
        findings.error(
            &at.key("speculation").key("tokens"),
            "give 1 to 64 drafted tokens, or leave speculation out",
        );
    }
    if settings.prefix_cache == Some(false) {
        if settings.prefix_hit_rate.is_some_and(|rate| rate.get() > 0.0) {
            findings.error(
                &at.key("prefixHitRate"),
                "nothing is found in a cache that is off: leave out one of them",
            );
        }
        if pool.routing == Routing::PrefixAware {
            findings.error(
                &place.key("routing"),
                "prefixAware needs engines that keep prefixes, and engine.prefixCache is false: leave out one of them",
            );
        }
    }
    if pool.role == Role::Prefill && settings.speculation.is_some() {
        findings.warning(&at.key("speculation"), "a prefill pool generates nothing: it has no effect");
    }
    too_long(model, pool, place, findings);
}

/// Requests as the model's traffic has them must fit an engine.
fn too_long(model: &ModelPolicy, pool: &PoolPolicy, place: &Place, findings: &mut Findings) {
    let Some(config) = pool.engine_config() else { return };
    let traffic = &model.traffic;
    let prompt = traffic.longest_isl.or(traffic.isl).unwrap_or(0);
    let tokens = u64::from(prompt) + u64::from(traffic.osl.unwrap_or(0));
    if tokens > u64::from(config.max_model_len) {
        findings.error(
            place,
            format!(
                "the model's traffic has requests of {tokens} tokens, and an engine of this pool takes {}: raise \
                 engine.maxModelLen or engine.kvTokens, take a profile with more memory, or shorten traffic.longestIsl",
                config.max_model_len
            ),
        );
    }
}

fn rules(rules: &ScalingRules, place: &Place, findings: &mut Findings) {
    if rules.stabilization_window_seconds.is_some_and(|seconds| seconds > LONGEST_WINDOW_S) {
        findings.error(
            &place.key("stabilizationWindowSeconds"),
            format!("give 0 to {LONGEST_WINDOW_S}, as in Kubernetes"),
        );
    }
    if rules.policies.len() > 16 {
        findings.error(&place.key("policies"), "more than 16 policies: keep those that matter");
    }
    if rules.select_policy == SelectPolicy::Disabled && !rules.policies.is_empty() {
        findings.warning(&place.key("policies"), "selectPolicy is Disabled: they have no effect");
    }
    for (at, policy) in rules.policies.iter().enumerate() {
        let place = place.key("policies").index(at);
        if policy.value == 0 {
            findings.error(
                &place.key("value"),
                "0 allows nothing: give at least 1, or selectPolicy Disabled to close the direction",
            );
        }
        if policy.period_seconds == 0 || policy.period_seconds > LONGEST_PERIOD_S {
            findings.error(
                &place.key("periodSeconds"),
                format!("give 1 to {LONGEST_PERIOD_S}, as in Kubernetes"),
            );
        }
    }
}
