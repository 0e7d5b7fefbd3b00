//! What a fleet shows, and what it refuses.

mod support;

use std::sync::Arc;

use plimsoll_common::{engine::DistributionKind, histogram::layout, units::Micros};
use plimsoll_core::fleet::{
    Counter, DistributionKey, EngineGauges, EngineIdentity, Fleet, Freshness, Limits, Part, Samples, Source,
    Window,
};
use support::{arrive, engine, inventory, model, node, observation, ttft};

const NOW: Micros = Micros(1_760_000_000_000_000);
const TTFT: DistributionKey = DistributionKey { kind: DistributionKind::Ttft, source: Source::Bucketed };

fn later(seconds: u64) -> Micros {
    Micros(NOW.0 + seconds * 1_000_000)
}

#[test]
fn values_age_and_are_never_new_again() {
    let mut fleet = Fleet::new(Limits::default());
    let inventory = inventory(&[("llama", None)]);
    fleet.observe(NOW, observation(0, &inventory, 1, Micros(0)));
    let status = |at| {
        let shown = fleet.snapshot(at);
        let gpu = &shown.gpus[0];
        assert_eq!(gpu.status, shown.engines[0].status);
        assert_eq!(gpu.status, shown.nodes[0].status);
        assert_eq!(gpu.reading.power_watts, Some(350.0), "the last value is shown, with its age");
        (
            gpu.status,
            gpu.age_seconds.round() as u64,
            shown.fleet.gpu_power_watts,
            shown.fleet.running_requests,
        )
    };
    assert_eq!(status(later(4)), (Freshness::Live, 4, Some(350.0), Some(1)));
    assert_eq!(status(later(6)), (Freshness::Stale, 6, None, None));
    assert_eq!(status(later(31)), (Freshness::Silent, 31, None, None));
    // Before it was observed: a clock that went backwards makes nothing older than new.
    assert_eq!(status(Micros(0)), (Freshness::Live, 0, Some(350.0), Some(1)));
}

#[test]
fn the_power_of_a_fleet_is_in_whole_milliwatts() {
    let mut fleet = Fleet::new(Limits::default());
    let inventory = inventory(&[("llama", None)]);
    for (at, watts) in [0.1, 0.2].into_iter().enumerate() {
        let mut observation = observation(at, &inventory, 1, Micros(0));
        observation.gpus[0].power_watts = Some(watts);
        fleet.observe(NOW, observation);
    }
    // 0.1 and 0.2 are 0.30000000000000004 in binary fractions.
    let power = fleet.snapshot(NOW).fleet.gpu_power_watts;
    assert_eq!(serde_json::to_string(&power).unwrap(), "0.3");
}

#[test]
fn gauges_that_could_not_be_read_again_are_as_old_as_their_page() {
    let mut fleet = Fleet::new(Limits::default());
    let inventory = inventory(&[("llama", None)]);
    let mut old = observation(0, &inventory, 1, Micros(0));
    old.engines[0].gauges.age = Some(Micros(8_000_000));
    fleet.observe(NOW, old);
    let shown = fleet.snapshot(later(1));
    assert_eq!(shown.engines[0].status, Freshness::Stale);
    assert_eq!(shown.gpus[0].status, Freshness::Live);
    assert_eq!(shown.models[0].gauges.running_requests, None);
}

#[test]
fn a_slow_reporter_is_not_stale_between_its_reports() {
    let mut fleet = Fleet::new(Limits::default());
    let mut slow = observation(0, &inventory(&[("llama", None)]), 1, Micros(0));
    slow.length = Micros(10_000_000);
    fleet.observe(NOW, slow);
    assert_eq!(fleet.snapshot(later(29)).nodes[0].status, Freshness::Live);
    assert_eq!(fleet.snapshot(later(31)).nodes[0].status, Freshness::Stale);
    assert_eq!(fleet.snapshot(later(61)).nodes[0].status, Freshness::Silent);
}

#[test]
fn what_is_silent_is_kept_for_long_and_what_left_is_not() {
    let mut fleet = Fleet::new(Limits::default());
    let inventory = inventory(&[("llama", None)]);
    fleet.observe(NOW, observation(0, &inventory, 1, Micros(0)));
    let mut leaving = observation(1, &inventory, 1, Micros(0));
    leaving.leaving = true;
    fleet.observe(NOW, leaving);
    fleet.expire(later(59));
    assert_eq!(fleet.snapshot(later(59)).nodes.len(), 2);
    fleet.expire(later(61));
    let shown = fleet.snapshot(later(61));
    assert_eq!(shown.nodes.len(), 1);
    assert_eq!(shown.nodes[0].node, node(0));
    fleet.expire(later(3599));
    assert_eq!(fleet.snapshot(later(3599)).engines.len(), 1);
    fleet.expire(later(3601));
    let shown = fleet.snapshot(later(3601));
    assert_eq!((shown.nodes.len(), shown.pools.len(), shown.models.len()), (0, 0, 0));
    assert_eq!(shown.fleet.ledger.forgotten_nodes, 2);
}

#[test]
fn an_agent_that_comes_back_has_not_left() {
    let mut fleet = Fleet::new(Limits::default());
    let inventory = inventory(&[("llama", None)]);
    let mut leaving = observation(0, &inventory, 1, Micros(0));
    leaving.leaving = true;
    fleet.observe(NOW, leaving);
    fleet.observe(later(30), observation(0, &inventory, 2, Micros(0)));
    fleet.expire(later(100));
    assert!(!fleet.snapshot(later(100)).nodes[0].left);
}

#[test]
fn what_does_not_fit_is_counted() {
    let limits = Limits {
        max_nodes: 2,
        max_gpus: 1,
        max_engines: 2,
        max_pools: 1,
        max_layouts: 1,
        ..Limits::default()
    };
    let mut fleet = Fleet::new(limits);
    let two = inventory(&[("llama", None), ("qwen", None)]);
    let mut first = observation(0, &two, 1, Micros(0));
    first.parts = vec![
        ttft(0, &[1000]),
        Part {
            engine: 0,
            kind: DistributionKind::Isl,
            samples: Samples::Buckets { layout: 1, counts: vec![(0, 1)] },
            sum: 5,
        },
    ];
    fleet.observe(NOW, first);
    fleet.observe(NOW, observation(1, &inventory(&[("llama", None)]), 1, Micros(0)));
    fleet.observe(NOW, observation(2, &two, 1, Micros(0)));
    fleet.observe(NOW, observation(1, &inventory(&[("llama", None), ("llama", None)]), 2, Micros(0)));
    let ledger = fleet.ledger();
    assert_eq!(ledger.observed, 3);
    assert_eq!(ledger.refused_nodes, 1);
    assert_eq!(ledger.refused_pools, 1, "qwen's");
    assert_eq!(ledger.refused_engines, 1, "node 1's second");
    assert_eq!(ledger.refused_gpus, 4);
    assert_eq!(ledger.refused_layouts, 1);
    assert_eq!(fleet.snapshot(NOW).engines.len(), 2);
}

#[test]
fn late_windows_count_where_they_belong() {
    let mut fleet = Fleet::new(Limits::default());
    let inventory = inventory(&[("llama", None)]);
    let observe = |fleet: &mut Fleet, seq, age_seconds: u64| {
        let mut late = observation(0, &inventory, seq, Micros(age_seconds * 1_000_000));
        arrive(&mut late, 0, 10);
        late.parts.push(ttft(0, &[1500; 10]));
        fleet.observe(NOW, late);
    };
    for (seq, age) in [(5, 0), (4, 30), (3, 200), (2, 1000)] {
        observe(&mut fleet, seq, age);
    }
    let shown = fleet.snapshot(NOW);
    let arrived = |window| shown.models[0].windows[&window].gained.get(Counter::Arrived);
    assert_eq!(arrived(Window::TenSeconds), Some(10));
    assert_eq!(arrived(Window::OneMinute), Some(20));
    assert_eq!(arrived(Window::FiveMinutes), Some(30));
    assert_eq!(shown.models[0].totals.counts.get(Counter::Arrived), Some(40));
    assert_eq!(shown.engines[0].gauges.running_requests, Some(5), "gauges are the newest window's");
    assert_eq!(shown.fleet.ledger.outside_windows, 3);
}

#[test]
fn bucketed_and_exact_are_never_merged() {
    let mut fleet = Fleet::new(Limits::default());
    let mut both = observation(0, &inventory(&[("llama", None)]), 1, Micros(0));
    let cell = usize::from(layout::cell_of(30_000));
    both.parts = vec![
        ttft(0, &[1_500, 3_000]),
        Part {
            engine: 0,
            kind: DistributionKind::Ttft,
            samples: Samples::Cells(vec![(cell, 4)]),
            sum: 120_000,
        },
    ];
    fleet.observe(NOW, both);
    let shown = fleet.snapshot(NOW);
    let distributions = &shown.models[0].windows[&Window::OneMinute].distributions;
    let bucketed = &distributions[&TTFT];
    let exact = &distributions[&DistributionKey { source: Source::Exact, ..TTFT }];
    assert_eq!((bucketed.count, exact.count), (2, 4));
    let quantile = exact.quantiles[0].unwrap();
    assert_eq!(quantile.low, Micros(layout::lowest_in(cell as u16)));
    assert_eq!(quantile.high, Some(Micros(layout::highest_in(cell as u16))));
    assert_eq!(bucketed.quantiles[2].unwrap().high, Some(Micros(5_000)));
    assert_eq!(exact.mean(), Some(0.03));
}

#[test]
fn above_the_last_edge_nothing_bounds_a_quantile() {
    let mut fleet = Fleet::new(Limits::default());
    let mut slow = observation(0, &inventory(&[("llama", None)]), 1, Micros(0));
    slow.parts.push(ttft(0, &[1_500, 3_000_000_000]));
    fleet.observe(NOW, slow);
    let shown = fleet.snapshot(NOW);
    let ttft = &shown.models[0].windows[&Window::TenSeconds].distributions[&TTFT];
    assert_eq!(ttft.saturated, 1);
    let p99 = ttft.quantiles[2].unwrap();
    assert_eq!((p99.low, p99.high), (Micros(2_560_000_000), None));
    assert!(p99.estimate >= p99.low);
}

#[test]
fn json_has_units_in_its_names() {
    let mut fleet = Fleet::new(Limits::default());
    let mut observed = observation(0, &inventory(&[("llama", Some("chat"))]), 1, Micros(0));
    arrive(&mut observed, 0, 3);
    observed.parts.push(ttft(0, &[1_500, 2_500]));
    fleet.observe(NOW, observed);
    let json = serde_json::to_value(fleet.snapshot(later(1))).unwrap();
    let model = &json["models"][0];
    assert_eq!(model["pools"][0], "chat");
    assert_eq!(model["totals"]["counters"]["requests_arrived"], 3);
    assert_eq!(model["totals"]["counters"]["prompt_tokens"], serde_json::Value::Null);
    assert_eq!(model["totals"]["distributions"]["ttft"]["count"], 2);
    let window = &model["windows"]["1m"];
    let ttft = &window["distributions"]["ttft"];
    assert_eq!(ttft["source"], "bucketed");
    assert_eq!(ttft["mean_seconds"], 0.002);
    assert_eq!(ttft["p50_seconds"]["low"], 0.001);
    assert_eq!(ttft["p50_seconds"]["high"], 0.005);
    assert_eq!(window["rates"]["requests_arrived_per_second"], 3.0);
    assert_eq!(window["window"]["seconds"], 1.0);
    let engine = &json["engines"][0];
    assert_eq!(engine["id"], "engine-0");
    assert_eq!(engine["gpu_uuids"][0], "GPU-0");
    assert_eq!(json["gpus"][0]["engines"][0], "engine-0");
    assert_eq!(json["gpus"][0]["status"], "live");
}

#[test]
fn an_engine_and_a_histogram_are_read_on_demand() {
    let mut fleet = Fleet::new(Limits::default());
    let mut observed = observation(0, &inventory(&[("llama", None)]), 1, Micros(0));
    observed.parts.push(ttft(0, &[1_500, 2_500]));
    fleet.observe(NOW, observed);
    let detail = fleet.engine(NOW, &node(0), &engine(0)).unwrap();
    assert_eq!(detail.windows[&Window::OneMinute].distributions[&TTFT].count, 2);
    assert!(fleet.engine(NOW, &node(0), &engine(9)).is_none());
    let histogram = fleet.model_histogram(NOW, &model("llama"), TTFT, Window::OneMinute).unwrap();
    assert_eq!((histogram.count(), histogram.sum()), (2, Micros(4_000)));
    assert!(fleet.model_histogram(NOW, &model("qwen"), TTFT, Window::OneMinute).is_none());
}

#[test]
fn a_front_end_is_no_engine_of_its_pool_and_its_requests_are_not_added() {
    let mut fleet = Fleet::new(Limits::default());
    let mut inventory = (*inventory(&[("llama", None), ("llama", None)])).clone();
    inventory.engines[1] =
        Arc::new(EngineIdentity { front_end: true, gpus: Vec::new(), ..(*inventory.engines[1]).clone() });
    let mut observation = observation(0, &Arc::new(inventory), 3, Micros(0));
    let [engine, front_end] = &mut observation.engines[..] else { panic!("two rows") };
    engine.gauges.waiting_requests = Some(5);
    engine.gauges.waiting_for_capacity_requests = Some(4);
    engine.gauges.kv_cache_utilization_ratio = Some(0.5);
    engine.gauges.kv_cache_utilization_ratio_max = Some(0.75);
    engine.gained.gain(Counter::Arrived, 7);
    engine.gained.gain(Counter::DraftTokens, 8);
    engine.gained.gain(Counter::AcceptedTokens, 6);
    front_end.gauges = EngineGauges {
        state: front_end.gauges.state,
        frontend_inflight_requests: Some(9),
        frontend_queued_requests: Some(2),
        ..EngineGauges::default()
    };
    front_end.gained.gain(Counter::FrontendArrived, 7);
    fleet.observe(NOW, observation);
    let pool = &fleet.snapshot(NOW).pools[0];
    let gauges = &pool.gauges;
    assert_eq!((gauges.engines.live, gauges.engines_ready, gauges.replicas), (1, 1, 1));
    assert_eq!((gauges.running_requests, gauges.waiting_requests), (Some(3), Some(5)));
    assert_eq!((gauges.waiting_for_capacity_requests, gauges.waiting_deferred_requests), (Some(4), None));
    assert_eq!((gauges.frontend_inflight_requests, gauges.frontend_queued_requests), (Some(9), Some(2)));
    assert_eq!(gauges.kv_cache_utilization_ratio_max, Some(0.75));
    let counts = &pool.totals.counts;
    assert_eq!((counts.get(Counter::Arrived), counts.get(Counter::FrontendArrived)), (Some(7), Some(7)));
    assert_eq!(pool.windows[&Window::TenSeconds].spec_acceptance_ratio, Some(0.75));
}

#[test]
fn engines_that_their_agent_no_longer_names_are_forgotten_soon() {
    let s = |seconds: u64| Micros(seconds * 1_000_000);
    let mut fleet = Fleet::new(Limits::default());
    let (two, one) = (inventory(&[("m", None), ("m", None)]), inventory(&[("m", None)]));
    fleet.observe(s(10), observation(0, &two, 1, Micros(0)));
    fleet.observe(s(60), observation(0, &one, 2, Micros(0)));
    let engines = |fleet: &mut Fleet, at| {
        fleet.expire(s(at));
        fleet
            .engines(s(at))
            .map(|engine| (engine.identity.id.to_string(), engine.is_listed))
            .collect::<Vec<_>>()
    };
    let (kept, gone) = (("engine-0".to_owned(), true), ("engine-1".to_owned(), false));
    assert_eq!(engines(&mut fleet, 70), [kept.clone(), gone]);
    assert_eq!(engines(&mut fleet, 71), std::slice::from_ref(&kept));
    // A node that is silent may come back with what it had.
    assert_eq!(engines(&mut fleet, 3_000), [kept]);
}
