//! One model: its promises, targets, roles and demand.

use plimsoll_common::engine::Role;

use super::pool;
use crate::policy::{
    ModelPolicy, PoolPolicy, Target, feasible,
    finding::{Findings, Place},
};

pub(super) fn check(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    if model.pools.is_empty() {
        findings.error(&place.key("pools"), "no pool serves the model: give at least one");
    }
    target(model, place, findings);
    slo(model, place, findings);
    roles(model, place, findings);
    role_switch(model, place, findings);
    traffic(model, place, findings);
    demand(model, place, findings);
    for (p, one) in model.pools.iter().enumerate() {
        let pool_place = place.key("pools").index(p);
        pool::check(model, one, &pool_place, findings);
    }
    feasible::check(model, place, findings);
}

fn target(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    let promised = model.slo.ttft.is_some() || model.slo.itl.is_some();
    match model.target {
        Target::Sla if !promised => findings.error(
            &place.key("slo"),
            "target sla needs a promise: give slo.ttft or slo.itl with a limit, or take target throughput, latency or \
             load",
        ),
        Target::Sla => {}
        other if promised => findings.warning(
            &place.key("slo"),
            format!("it is shown and not planned for, since target is {}: take target sla for that", other.as_str()),
        ),
        _ => {}
    }
    match (model.target, &model.load) {
        (Target::Load, Some(load)) if !load.is_empty() => {}
        (Target::Load, _) => findings.error(
            &place.key("load"),
            "target load needs a threshold: give load.kvCacheUtilization, load.runningUtilization or \
             load.waitingPerReplica",
        ),
        (other, Some(_)) => findings.error(
            &place.key("load"),
            format!(
                "thresholds belong to target load, and target is {}: leave out one of them",
                other.as_str()
            ),
        ),
        (_, None) => {}
    }
}

fn slo(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    let slo = &model.slo;
    let place = place.key("slo");
    for (key, promise) in [("ttft", slo.ttft), ("itl", slo.itl)] {
        let Some(promise) = promise else { continue };
        if promise.limit.0.0 == 0 {
            findings.error(
                &place.key(key).key("limit"),
                "nothing takes no time: give a limit above 0, such as 500ms",
            );
        } else if promise.limit.as_secs() > 3_600.0 {
            findings.error(
                &place.key(key).key("limit"),
                "a limit of more than an hour promises nothing: give less",
            );
        }
    }
    if let (Some(ttft), Some(itl)) = (slo.ttft, slo.itl)
        && ttft.percentile.share() != itl.percentile.share()
    {
        findings.warning(
            &place,
            format!(
                "a request attains when it keeps both limits, so that the stricter percentile counts for both: {}",
                slo.goal().get() * 100.0
            ),
        );
    }
    let Some(attainment) = slo.attainment else { return };
    let at = place.key("attainment");
    if attainment.get() <= 0.0 || attainment.get() >= 1.0 {
        findings.error(
            &at,
            "it is a share of requests above 0 and below 1, such as 0.99: no finite fleet can promise all of them",
        );
    } else if attainment < slo.goal() {
        findings.warning(
            &at,
            format!(
                "{} asks for less than a percentile does, which counts: {}",
                attainment.get(),
                slo.goal().get()
            ),
        );
    }
}

fn roles(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    let first = |role: Role| model.pools.iter().position(|pool| pool.role == role);
    let role_of = |p: usize| place.key("pools").index(p).key("role");
    match (first(Role::Prefill), first(Role::Decode)) {
        (Some(prefill), None) => findings.error(
            &role_of(prefill),
            "prefill without decode: nobody generates the tokens; give a pool with role decode, or take role aggregated",
        ),
        (None, Some(decode)) => findings.error(
            &role_of(decode),
            "decode without prefill: nobody computes the prompts; give a pool with role prefill, or take role aggregated",
        ),
        (Some(apart), Some(_)) if first(Role::Aggregated).is_some() => findings.warning(
            &role_of(apart),
            "the model is served by aggregated pools, too: the planner does not route, each is sized for the requests \
             that come to it",
        ),
        _ => {}
    }
}

/// Only a replica that is like one of the other role can become one.
fn role_switch(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    let of = |role: Role| model.pools.iter().filter(move |pool| pool.role == role);
    let alike = |one: &PoolPolicy, other: &PoolPolicy| {
        let engine = one.engine_config();
        engine.is_some()
            && engine == other.engine_config()
            && one.gpus_per_replica() == other.gpus_per_replica()
            && one.engines_per_replica() == other.engines_per_replica()
    };
    let can_turn = of(Role::Prefill).any(|one| of(Role::Decode).any(|other| alike(one, other)));
    if model.role_switch && !can_turn {
        findings.warning(
            &place.key("roleSwitch"),
            "no prefill pool has the profile, parallel and engine of a decode pool, so that no replica can change its \
             role: make them alike, or leave it out",
        );
    }
}

fn traffic(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    let place = place.key("traffic");
    let traffic = &model.traffic;
    for (key, tokens) in [("isl", traffic.isl), ("longestIsl", traffic.longest_isl), ("osl", traffic.osl)] {
        if tokens == Some(0) {
            findings
                .error(&place.key(key), "a request has at least one token: give 1 or more, or leave it out");
        }
    }
    if let (Some(mean), Some(longest)) = (traffic.isl, traffic.longest_isl)
        && longest < mean
    {
        findings.error(
            &place.key("longestIsl"),
            format!("the longest prompt ({longest} tokens) can't be shorter than the mean ({mean})"),
        );
    }
}

fn demand(model: &ModelPolicy, place: &Place, findings: &mut Findings) {
    let Some(demand) = &model.demand else { return };
    let place = place.key("demand");
    match (demand.pages.is_empty(), &demand.prometheus) {
        (true, None) => findings.error(
            &place,
            "it says nowhere to look: give pages (the front-end's metrics pages) or prometheus (a server's URL)",
        ),
        (false, Some(_)) => {
            findings.error(&place, "pages and prometheus are two ways to the same numbers: give one of them");
        }
        _ => {}
    }
    if demand.pages.len() > 64 {
        findings
            .error(&place.key("pages"), "more than 64 pages: give a Prometheus server that collects them");
    }
    let pages = demand.pages.iter().enumerate().map(|(at, url)| (place.key("pages").index(at), url));
    let server = demand.prometheus.iter().map(|url| (place.key("prometheus"), url));
    for (at, url) in pages.chain(server) {
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host
            .is_none_or(|host| host.is_empty() || host.starts_with('/') || url.contains(char::is_whitespace))
        {
            findings.error(&at, format!("'{url}' is no URL: write it like http://frontend:8000/metrics"));
        }
    }
    if let Err(error) = demand.mapping() {
        findings.error(&place.key("mapping"), error.to_string());
    }
}
