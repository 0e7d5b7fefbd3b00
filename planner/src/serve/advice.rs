//! The advice on the API, the page and the metrics page.

use std::{fmt::Write, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use plimsoll_core::explain::Reason;
use plimsoll_shell::{
    http::ApiError,
    metrics::{Label, MetricPage, MetricType},
};

use super::{Pages, api::json_bytes, page::escape};
use crate::advise::{Advice, PoolAdvice, StepTimes};

impl Pages {
    /// The newest advice; `None` without a policy.
    pub(super) fn advice(&self) -> Option<Arc<Advice>> {
        self.advice.as_ref().map(|advice| Arc::clone(&advice.borrow()))
    }
}

/// `/api/v1/plan`.
pub(super) async fn plan(State(pages): State<Pages>) -> Result<Response, ApiError> {
    let Some(advice) = pages.advice() else {
        return Err(ApiError {
            status: StatusCode::NOT_FOUND,
            error: "there is no plan: this planner has no policy".to_owned(),
            hint: "start it with --policy FILE; plimsoll-planner check FILE tells whether it can be used"
                .to_owned(),
        });
    };
    json_bytes(serde_json::to_vec(advice.as_ref()))
}

/// The page's part for people.
pub(super) fn section(page: &mut String, advice: &Advice) {
    let _ = write!(
        page,
        "<h2>Advice</h2><p>By {}, every {} s; nobody acts on it here.",
        escape(&advice.policy.path),
        advice.interval_seconds
    );
    if let Some(error) = &advice.policy.error {
        let _ = write!(
            page,
            "</p><p class=\"silent\">The policy's file was changed and can't be used; the one before stays: {}",
            escape(error)
        );
    }
    page.push_str("</p>");
    for finding in &advice.findings {
        let _ = write!(page, "<p class=\"stale\">{}</p>", escape(&finding.to_string()));
    }
    if advice.at.is_none() {
        page.push_str("<p>There was no step yet.</p>");
        return;
    }
    page.push_str(
        "<table><tr><th>Pool</th><th>Ready</th><th>Starting</th><th>Draining</th><th>Silent</th>\
         <th>Now</th><th>Advised</th><th>Why</th></tr>",
    );
    for pool in &advice.pools {
        let (explained, seen) = (&pool.explained, &pool.explained.seen);
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><b>{}</b></td><td>{}</td></tr>",
            escape(pool.pool.as_str()),
            seen.ready,
            seen.starting,
            seen.draining,
            seen.silent,
            explained.from,
            explained.to,
            escape(&pool.text),
        );
    }
    page.push_str("</table>");
}

/// The metrics page's part.
pub(super) fn metrics(page: &mut MetricPage, advice: &Advice) {
    let pools: Vec<(Vec<Label<'_>>, &PoolAdvice)> =
        advice.pools.iter().map(|pool| (labels(pool), pool)).collect();
    per_pool(page, &pools);
    let help =
        "Replicas of a pool of the policy, by how they are seen; silent ones are among the ready ones.";
    let mut states = page.family("plimsoll_planner_replicas", MetricType::Gauge, help);
    for (labels, pool) in &pools {
        let seen = &pool.explained.seen;
        let of = [
            ("ready", seen.ready),
            ("starting", seen.starting),
            ("draining", seen.draining),
            ("silent", seen.silent),
            ("unschedulable", seen.unschedulable),
        ];
        for (state, n) in of {
            states.sample(&with(labels, ("state", state)), u64::from(n));
        }
    }
    let help = "Why a pool's target is as it is: 1 for each reason that holds.";
    let mut reasons = page.family("plimsoll_planner_target_reason", MetricType::Gauge, help);
    for (labels, pool) in &pools {
        for reason in Reason::ALL {
            let holds = pool.explained.reasons.contains(&reason);
            reasons.sample(&with(labels, ("reason", reason.as_str())), u64::from(holds));
        }
    }
    let help = "Arrivals of a pool, requests per second: of the last bin, and the most expected when a replica asked for now would be ready.";
    let mut rates = page.family("plimsoll_planner_requests_per_second", MetricType::Gauge, help);
    for (labels, pool) in &pools {
        rates.sample(&with(labels, ("horizon", "now")), pool.explained.load.now_rps);
        rates.sample(&with(labels, ("horizon", "ahead")), pool.explained.load.ahead_rps);
    }
    steps(page, &advice.times);
    let help = "Plans that did not pass their check: the targets stayed.";
    page.counter("plimsoll_planner_plans_refused_total", help, &[], advice.refused_plans);
    let help = "When the last plan was made, Unix seconds; absent before the first.";
    page.family("plimsoll_planner_plan_timestamp_seconds", MetricType::Gauge, help)
        .maybe(&[], advice.at.map(plimsoll_common::units::Micros::as_secs_f64));
    let help =
        "Pools of the policy without engines, and pools of the fleet that are in no pool of the policy.";
    page.gauge("plimsoll_planner_findings", help, &[], advice.findings.len() as u64);
    let policy = &advice.policy;
    let help = "When the policy in force was read, Unix seconds.";
    page.gauge("plimsoll_planner_policy_timestamp_seconds", help, &[], policy.loaded.as_secs_f64());
    let help = "Times that another policy was taken from the file.";
    page.counter("plimsoll_planner_policy_reloads_total", help, &[], policy.reloads);
    let help = "Times that a changed policy could not be used.";
    page.counter("plimsoll_planner_policy_reload_failures_total", help, &[], policy.failures);
}

fn per_pool(page: &mut MetricPage, pools: &[(Vec<Label<'_>>, &PoolAdvice)]) {
    type Value = fn(&PoolAdvice) -> f64;
    let gauges: [(&str, &str, Value); 4] = [
        ("target_replicas", "Replicas that a pool should have, ready and starting ones together.", |pool| {
            f64::from(pool.explained.to)
        }),
        ("current_replicas", "Replicas that a pool has, ready and starting ones together.", |pool| {
            f64::from(pool.explained.from)
        }),
        (
            "start_up_seconds",
            "How long a replica takes to start: the 90th percentile of those seen.",
            |pool| pool.explained.believed.start_up.as_secs_f64(),
        ),
        (
            "calibration_factor",
            "How many times slower than its profile an engine is believed to be.",
            |pool| pool.explained.believed.factor,
        ),
    ];
    for (name, help, value) in gauges {
        let name = format!("plimsoll_planner_{name}");
        let mut family = page.family(&name, MetricType::Gauge, help);
        pools.iter().for_each(|(labels, pool)| family.sample(labels, value(pool)));
    }
}

fn steps(page: &mut MetricPage, times: &StepTimes) {
    let help = "Time from what was gathered to a plan, engines run ahead included.";
    let mut family = page.family("plimsoll_planner_step_seconds", MetricType::Histogram, help);
    let mut n = 0;
    for (bound, count) in StepTimes::BOUNDS.iter().zip(&times.counts) {
        n += count;
        family.suffixed("_bucket", &[("le", bound.to_string().as_str())], n);
    }
    let all: u64 = times.counts.iter().sum();
    family.suffixed("_bucket", &[("le", "+Inf")], all);
    family.suffixed("_sum", &[], times.sum);
    family.suffixed("_count", &[], all);
}

fn labels(pool: &PoolAdvice) -> Vec<Label<'_>> {
    vec![("model", pool.model.as_str()), ("pool", pool.pool.as_str()), ("role", pool.role.as_str())]
}

fn with<'l>(labels: &[Label<'l>], more: Label<'l>) -> Vec<Label<'l>> {
    labels.iter().copied().chain([more]).collect()
}
