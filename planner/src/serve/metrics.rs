//! The Prometheus page: the planner itself, then the fleet, pools and models.

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    units::Micros,
};
use plimsoll_core::fleet::{
    Counter, DistributionKey, DistributionSummary, EngineState, FleetSnapshot, Freshness, PoolGauges,
    QUANTILES, Source, Tally, Totals, Window, WindowSummaries,
};
use plimsoll_shell::{
    http::{Refusals, write_refusals},
    metrics::{Label, MetricPage, MetricType},
};

use super::{OwnCost, advice, journaled};
use crate::{
    advise::Advice,
    drive::{Published, Waits, WindowStats},
    ingest::IngestStats,
    journal,
};

/// Quantiles on this page are those of the last minute.
const WINDOW: Window = Window::OneMinute;

pub(super) fn render(
    shown: &Published,
    stats: &IngestStats,
    refusals: &Refusals,
    own: OwnCost,
    uptime: Micros,
    advised: Option<&Advice>,
    journaled_totals: Option<journal::Totals>,
) -> String {
    let mut page = MetricPage::new();
    planner(&mut page, shown, own, uptime);
    write_refusals(&mut page, "plimsoll_planner", refusals);
    ingest(&mut page, stats);
    windows(&mut page, &shown.windows);
    waits(&mut page, &shown.waits);
    if let Some(advised) = advised {
        advice::metrics(&mut page, advised);
    }
    if let Some(totals) = journaled_totals {
        journaled::metrics(&mut page, &totals);
    }
    fleet(&mut page, &shown.snapshot);
    let pools = shown.snapshot.pools.iter().map(|row| Scoped {
        labels: vec![
            ("model", row.key.model.as_ref().map_or("", |model| model.as_str())),
            ("pool", row.name.as_str()),
            ("role", row.key.role.as_str()),
        ],
        gauges: &row.gauges,
        totals: &row.totals,
        windows: &row.windows,
    });
    scope(&mut page, "plimsoll_pool", "pool", &pools.collect::<Vec<_>>());
    let models = shown.snapshot.models.iter().map(|row| Scoped {
        labels: vec![("model", row.model.as_str())],
        gauges: &row.gauges,
        totals: &row.totals,
        windows: &row.windows,
    });
    scope(&mut page, "plimsoll_model", "model", &models.collect::<Vec<_>>());
    page.finish()
}

fn planner(page: &mut MetricPage, shown: &Published, own: OwnCost, uptime: Micros) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauge("plimsoll_planner_build_info", "Always 1; the label tells the version.", &version, 1u64);
    page.gauge("plimsoll_planner_uptime_seconds", "Since the planner started.", &[], uptime.as_secs_f64());
    page.family("plimsoll_planner_cpu_seconds_total", MetricType::Counter, "CPU time of the planner.")
        .maybe(&[], own.cpu_seconds);
    page.family(
        "plimsoll_planner_resident_memory_bytes",
        MetricType::Gauge,
        "Resident memory of the planner.",
    )
    .maybe(&[], own.resident_bytes);
    let build = shown.build().as_secs_f64();
    page.gauge("plimsoll_planner_snapshot_build_seconds", "Time that this snapshot took.", &[], build);
}

fn ingest(page: &mut MetricPage, stats: &IngestStats) {
    let open = stats.connections.get();
    page.gauge("plimsoll_planner_connections", "Agents that are connected.", &[], open);
    let pending = stats.pending.get();
    page.gauge("plimsoll_planner_connections_pending", "Connections before their hello.", &[], pending);
    let counters = [
        ("handshakes_total", "QUIC handshakes that ended well.", &stats.accepted),
        (
            "handshake_failures_total",
            "QUIC handshakes that failed or took too long.",
            &stats.handshake_failures,
        ),
        ("connections_refused_total", "Connection attempts refused for want of room.", &stats.refused),
        ("connections_retried_total", "Connection attempts that had to prove their address.", &stats.retried),
        ("hello_timeouts_total", "Connections that said no hello in time.", &stats.hello_timeouts),
        ("hellos_total", "Hellos taken.", &stats.hellos),
        ("inventories_total", "Inventories taken.", &stats.inventories),
        ("reports_total", "Reports taken, those sent again included.", &stats.reports),
        ("frame_bytes_total", "Bytes of frames received.", &stats.frame_bytes),
        ("acks_total", "Acknowledgements sent.", &stats.acks),
        ("unknown_frames_total", "Frames of unknown kinds, skipped.", &stats.unknown_frames),
        (
            "unknown_distributions_total",
            "Distributions of unknown kinds, skipped.",
            &stats.unknown_distributions,
        ),
        ("reset_streams_total", "Streams that an agent gave up midway.", &stats.reset_streams),
        (
            "connections_throttled_total",
            "Times that an agent sent too much and was not read for a while.",
            &stats.throttled,
        ),
        ("gaps_total", "Gaps that agents told of.", &stats.gaps),
    ];
    for (name, help, count) in counters {
        page.counter(&format!("plimsoll_planner_{name}"), help, &[], count.get());
    }
    let help = "Frames that were refused or skipped, by what was wrong with them.";
    let mut errors = page.family("plimsoll_planner_frame_errors_total", MetricType::Counter, help);
    stats.errors().for_each(|(reason, n)| errors.sample(&[("reason", reason)], n));
    let help = "Connections that the planner ended, by reason.";
    let mut closes = page.family("plimsoll_planner_connections_closed_total", MetricType::Counter, help);
    stats.closes().for_each(|(reason, n)| closes.sample(&[("reason", reason)], n));
}

fn windows(page: &mut MetricPage, windows: &WindowStats) {
    let counters = [
        ("applied", "Reports applied.", windows.applied),
        ("duplicate", "Reports dropped because they were applied before.", windows.duplicates),
        ("overlapping", "Reports dropped because a part of them was applied before.", windows.overlaps),
        ("lost", "Agent windows that can't be applied any more.", windows.lost),
    ];
    let help = "Agent runs that ended without a goodbye and were followed by another.";
    page.counter("plimsoll_planner_agent_runs_interrupted_total", help, &[], windows.interrupted_runs);
    let help = "Time that nobody looked at a node around such an end.";
    page.counter("plimsoll_planner_unobserved_seconds_total", help, &[], windows.unobserved_seconds);
    let help = "Hellos refused because another agent reports as the same node.";
    page.counter("plimsoll_planner_node_conflicts_total", help, &[], windows.conflicts);
    for (name, help, n) in counters {
        page.counter(&format!("plimsoll_planner_windows_{name}_total"), help, &[], n);
    }
    let help = "Agent windows between applied ones that have not come.";
    page.gauge("plimsoll_planner_windows_missing", help, &[], windows.missing);
}

fn waits(page: &mut MetricPage, waits: &Waits) {
    let help = "Time from a report's last byte to its place in the fleet.";
    let mut family = page.family("plimsoll_planner_apply_seconds", MetricType::Histogram, help);
    let mut n = 0;
    for (bound, count) in Waits::BOUNDS.iter().zip(&waits.counts) {
        n += count;
        family.suffixed("_bucket", &[("le", bound.as_secs_f64().to_string().as_str())], n);
    }
    let all: u64 = waits.counts.iter().sum();
    family.suffixed("_bucket", &[("le", "+Inf")], all);
    family.suffixed("_sum", &[], waits.sum.as_secs_f64());
    family.suffixed("_count", &[], all);
}

fn fleet(page: &mut MetricPage, snapshot: &FleetSnapshot) {
    let fleet = &snapshot.fleet;
    let tallies = [
        ("nodes", "Nodes by freshness of what they report.", &fleet.nodes),
        ("gpus", "GPUs by freshness of their values.", &fleet.gpus),
        ("engines", "Engines by freshness of their values.", &fleet.engines),
    ];
    for (name, help, tally) in tallies {
        by_status(page, &format!("plimsoll_fleet_{name}"), help, &[(&[], tally)]);
    }
    let help = "Engines by the state in which their agents see them.";
    let mut states = page.family("plimsoll_fleet_engine_states", MetricType::Gauge, help);
    for state in EngineState::ALL {
        states.sample(&[("state", state.as_str())], fleet.engine_states.get(state));
    }
    page.gauge("plimsoll_fleet_gpus_lost", "Live GPUs that their agents see as lost.", &[], fleet.gpus_lost);
    page.gauge("plimsoll_fleet_pools", "Pools.", &[], fleet.pools);
    page.gauge("plimsoll_fleet_models", "Models.", &[], fleet.models);
    let sums = [
        ("running_requests", "Requests in the running batches of live engines.", fleet.running_requests),
        ("waiting_requests", "Requests waiting in live engines.", fleet.waiting_requests),
        ("gpu_memory_used_bytes", "Frame buffer in use on live GPUs.", fleet.gpu_memory_used_bytes),
    ];
    for (name, help, value) in sums {
        page.family(&format!("plimsoll_fleet_{name}"), MetricType::Gauge, help).maybe(&[], value);
    }
    page.family("plimsoll_fleet_gpu_power_watts", MetricType::Gauge, "Power draw of live GPUs.")
        .maybe(&[], fleet.gpu_power_watts);
    let ledger = &fleet.ledger;
    page.counter("plimsoll_fleet_observations_total", "Windows folded into the fleet.", &[], ledger.observed);
    let help = "What did not fit the fleet's limits, in rows of windows.";
    let mut refused = page.family("plimsoll_fleet_refused_total", MetricType::Counter, help);
    let reasons = [
        ("nodes", ledger.refused_nodes),
        ("gpus", ledger.refused_gpus),
        ("engines", ledger.refused_engines),
        ("pools", ledger.refused_pools),
        ("layouts", ledger.refused_layouts),
    ];
    reasons.iter().for_each(|(what, n)| refused.sample(&[("what", what)], *n));
    let help = "Windows too late or too long for at least one sliding window; totals have them.";
    page.counter("plimsoll_fleet_outside_windows_total", help, &[], ledger.outside_windows);
    page.counter("plimsoll_fleet_forgotten_nodes_total", "Nodes forgotten.", &[], ledger.forgotten_nodes);
}

fn by_status(page: &mut MetricPage, name: &str, help: &str, tallies: &[(&[Label<'_>], &Tally)]) {
    let mut family = page.family(name, MetricType::Gauge, help);
    for (labels, tally) in tallies {
        for freshness in Freshness::ALL {
            let mut labels = labels.to_vec();
            labels.push(("status", freshness.as_str()));
            family.sample(&labels, tally.get(*freshness));
        }
    }
}

/// A pool or a model.
struct Scoped<'a> {
    labels: Vec<Label<'a>>,
    gauges: &'a PoolGauges,
    totals: &'a Totals,
    windows: &'a WindowSummaries,
}

impl Scoped<'_> {
    fn with<'l>(&'l self, more: &[Label<'l>]) -> Vec<Label<'l>> {
        self.labels.iter().chain(more).copied().collect()
    }
}

/// The families of all pools, or of all models; `prefix` names them and `what` stands in the help.
fn scope(page: &mut MetricPage, prefix: &str, what: &str, rows: &[Scoped<'_>]) {
    let tallies: Vec<_> = rows.iter().map(|row| (row.labels.as_slice(), &row.gauges.engines)).collect();
    let help = format!("Engines of the {what} by freshness.");
    by_status(page, &format!("{prefix}_engines"), &help, &tallies);
    type Gauge = fn(&PoolGauges) -> Option<u64>;
    let gauges: &[(&str, &str, Gauge)] = &[
        ("engines_ready", "Live engines that serve", |g| Some(g.engines_ready)),
        ("replicas", "Replicas", |g| Some(g.replicas)),
        ("gpus", "GPUs, where they are declared,", |g| g.gpus),
        ("running_requests", "Requests in the running batches of live engines", |g| g.running_requests),
        ("waiting_requests", "Requests waiting in live engines", |g| g.waiting_requests),
        ("waiting_for_capacity_requests", "Waiting requests for which there is no room", |g| {
            g.waiting_for_capacity_requests
        }),
        ("waiting_deferred_requests", "Waiting requests that wait for something else than room", |g| {
            g.waiting_deferred_requests
        }),
        ("paused_requests", "Requests that keep their place in paused engines", |g| g.paused_requests),
        ("frontend_inflight_requests", "Requests within live front-ends", |g| g.frontend_inflight_requests),
        ("frontend_queued_requests", "Requests without a first token in live front-ends", |g| {
            g.frontend_queued_requests
        }),
        ("queued_prefill_requests", "Requests queued for prefill by the schedulers of live engines", |g| {
            g.queued_prefill_requests
        }),
        ("queued_prefill_tokens", "Prompt tokens queued by the schedulers of live engines", |g| {
            g.queued_prefill_tokens
        }),
        ("queued_decode_requests", "Requests queued for decode by the schedulers of live engines", |g| {
            g.queued_decode_requests
        }),
    ];
    for (name, help, value) in gauges {
        let (name, help) = (format!("{prefix}_{name}"), format!("{help} of the {what}."));
        let mut family = page.family(&name, MetricType::Gauge, &help);
        rows.iter().for_each(|row| family.maybe(&row.labels, value(row.gauges)));
    }
    let (name, help) = (
        format!("{prefix}_engine_states"),
        format!(
            "Engines of the {what} by the state in which their agents see them; states without any are left out."
        ),
    );
    let mut states = page.family(&name, MetricType::Gauge, &help);
    for row in rows {
        for (state, n) in row.gauges.engine_states.iter() {
            states.sample(&row.with(&[("state", state.as_str())]), n);
        }
    }
    let (name, help) = (
        format!("{prefix}_kv_cache_utilization_ratio"),
        format!("KV-cache utilization of live engines of the {what}: mean and highest."),
    );
    let mut kv = page.family(&name, MetricType::Gauge, &help);
    for row in rows {
        kv.maybe(&row.with(&[("stat", "mean")]), row.gauges.kv_cache_utilization_ratio_mean);
        kv.maybe(&row.with(&[("stat", "max")]), row.gauges.kv_cache_utilization_ratio_max);
    }
    highest(page, prefix, what, rows);
    for counter in Counter::ALL {
        let name = format!("{prefix}_{}_total", counter.as_str());
        let help = format!("{} of the {what}, since first seen by this planner.", words(counter.as_str()));
        let mut family = page.family(&name, MetricType::Counter, &help);
        rows.iter().for_each(|row| family.maybe(&row.labels, row.totals.counts.get(*counter)));
    }
    for source in [Source::Bucketed, Source::Exact] {
        for kind in DistributionKind::ALL {
            summary(page, prefix, what, DistributionKey { kind: *kind, source }, rows);
        }
    }
    for unit in [Unit::Seconds, Unit::Tokens] {
        bounds(page, prefix, what, unit, rows);
    }
    saturated(page, prefix, what, rows);
}

/// What is told of the engine that has most of it.
fn highest(page: &mut MetricPage, prefix: &str, what: &str, rows: &[Scoped<'_>]) {
    type Highest = fn(&PoolGauges) -> Option<f64>;
    let highest: [(&str, &str, Highest); 3] = [
        ("kv_offload_utilization_ratio", "Highest utilization of the tier below the KV cache", |g| {
            g.kv_offload_utilization_ratio_max
        }),
        (
            "forward_pass_busy_ratio",
            "Highest share of the last window in forward passes of a live engine",
            |g| g.forward_pass_busy_ratio_max,
        ),
        ("signal_age_seconds", "Oldest signal of engines whose gauges only move when a request ends", |g| {
            g.signal_age_seconds_max
        }),
    ];
    for (name, help, value) in highest {
        let (name, help) = (format!("{prefix}_{name}"), format!("{help}, of the {what}."));
        let mut family = page.family(&name, MetricType::Gauge, &help);
        rows.iter().for_each(|row| family.maybe(&row.labels, value(row.gauges)));
    }
}

/// `requests_arrived` → `Requests arrived`.
fn words(name: &str) -> String {
    let mut chars = name.chars().map(|c| if c == '_' { ' ' } else { c });
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

const fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Tokens => "tokens",
    }
}

fn summary(page: &mut MetricPage, prefix: &str, what: &str, key: DistributionKey, rows: &[Scoped<'_>]) {
    let unit = key.kind.unit();
    let name = format!("{prefix}_{key}_{}", unit_name(unit));
    let help = format!(
        "{} of the {what}: estimated quantiles of the last minute, sum and count since first seen.",
        key.to_string().to_uppercase()
    );
    let mut family = page.family(&name, MetricType::Summary, &help);
    for row in rows {
        let Some((_, total)) = row.totals.distributions.iter().find(|(known, _)| *known == key) else {
            continue;
        };
        if let Some(shown) = row.windows.get(&WINDOW).and_then(|window| window.distributions.get(&key)) {
            for ((_, q), quantile) in QUANTILES.iter().zip(&shown.quantiles) {
                let estimate = quantile.map_or(f64::NAN, |quantile| shown.published(quantile.estimate));
                family.sample(&row.with(&[("quantile", &q.to_string())]), estimate);
            }
        }
        family.suffixed("_sum", &row.labels, total.sum as f64 / unit.per_published());
        family.suffixed("_count", &row.labels, total.count);
    }
}

/// Between what the quantiles certainly lie.
fn bounds(page: &mut MetricPage, prefix: &str, what: &str, unit: Unit, rows: &[Scoped<'_>]) {
    let name = format!("{prefix}_quantile_bound_{}", unit_name(unit));
    let help = format!(
        "Between what the quantiles of the last minute of the {what} certainly lie; +Inf where nothing bounds one."
    );
    let mut family = page.family(&name, MetricType::Gauge, &help);
    for row in rows {
        let shown = row.windows.get(&WINDOW).into_iter().flat_map(|window| window.distributions.values());
        for distribution in shown.filter(|distribution| distribution.key.kind.unit() == unit) {
            sample_bounds(&mut family, row, distribution);
        }
    }
}

/// How much of the last minute lies above the highest bucket edge, where nothing bounds it.
fn saturated(page: &mut MetricPage, prefix: &str, what: &str, rows: &[Scoped<'_>]) {
    let help = format!(
        "Samples of the last minute of the {what} above the highest bucket edge: how long they took is not known."
    );
    let name = format!("{prefix}_saturated_samples");
    let mut family = page.family(&name, MetricType::Gauge, &help);
    for row in rows {
        let shown = row.windows.get(&WINDOW).into_iter().flat_map(|window| window.distributions.values());
        for distribution in shown {
            let key = distribution.key.to_string();
            family.sample(&row.with(&[("distribution", &key)]), distribution.saturated);
        }
    }
}

fn sample_bounds(
    family: &mut plimsoll_shell::metrics::Family<'_>,
    row: &Scoped<'_>,
    shown: &DistributionSummary,
) {
    let key = shown.key.to_string();
    for ((_, q), quantile) in QUANTILES.iter().zip(&shown.quantiles) {
        let Some(quantile) = quantile else { continue };
        let q = q.to_string();
        let labels = |bound| row.with(&[("distribution", &key), ("q", &q), ("bound", bound)]);
        family.sample(&labels("low"), shown.published(quantile.low));
        let high = quantile.high.map_or(f64::INFINITY, |high| shown.published(high));
        family.sample(&labels("high"), high);
    }
}
