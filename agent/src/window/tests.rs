//! Windows against hand-made readings.

use plimsoll_common::{
    engine::{DistributionKind, EngineKind, Role, Unit},
    histogram::BucketLayout,
    ids::{EngineId, Generation, GpuUuid},
    units::Ratio,
    wire::{DomainKind, EngineState, GpuInfo, GpuState, SourceState, StateEvidence},
};
use proptest::prelude::*;

use super::*;
use crate::engines::{
    EngineDelta, EngineGauges, EngineIdentity, EngineUpdate, HistogramDelta, PageQuality, ScrapeError, Seen,
};
use crate::{exact::ExactSamples, gpu::GpuStatus};

fn endpoint(id: &str) -> Endpoint {
    Endpoint {
        id: EngineId::parse(id).unwrap(),
        url: format!("http://{id}"),
        metrics_path: "/metrics".to_owned(),
        kind: Some(EngineKind::Vllm),
        model: None,
        pool: None,
        role: Some(Role::Aggregated),
        replica: None,
        gpus: Vec::new(),
        follower: false,
        iteration_stats: false,
        exact: crate::config::ExactSources::default(),
        bearer_token_file: None,
        slo: None,
    }
}

fn window(engines: usize) -> Window {
    let endpoints: Vec<_> = (0..engines).map(|i| endpoint(&format!("e{i}:1"))).collect();
    Window::new(&endpoints, HostInfo::default(), Instant::now(), 1000)
}

fn reading(engine: usize, delta: EngineDelta) -> EngineReading {
    let gauges = EngineGauges {
        running: Some(3),
        waiting: Some(0),
        kv_usage: Ratio::new(0.25).ok(),
        ..EngineGauges::default()
    };
    let (identity, quality) = (EngineIdentity::default(), PageQuality::default());
    let update = EngineUpdate { identity, gauges, delta, quality, requests: ExactSamples::default() };
    let now = Instant::now();
    let seen = Seen { state: EngineState::Ready, evidence: StateEvidence::PageRead, ..Seen::nothing(now) };
    EngineReading {
        engine,
        taken: now,
        took: Duration::from_millis(12),
        outcome: Ok(update),
        seen,
        slo: Arc::default(),
        layout_changes: 0,
    }
}

fn tokens(n: u64) -> EngineDelta {
    EngineDelta { generation_tokens: Some(n), ..EngineDelta::default() }
}

fn ttft(edges: &[f64], buckets: Vec<(usize, u64)>, sum: u64) -> EngineDelta {
    let layout = BucketLayout::new(edges, Unit::Seconds).unwrap();
    let delta = HistogramDelta { kind: DistributionKind::Ttft, layout, buckets, sum };
    EngineDelta { histograms: vec![delta], ..EngineDelta::default() }
}

fn no_gpus() -> GpuSnapshot {
    GpuSnapshot::empty(Instant::now(), SourceState::Unsupported, None)
}

fn one_gpu(state: GpuStatus, power_mw: Option<u64>) -> GpuSnapshot {
    let info = GpuInfo {
        uuid: GpuUuid::parse("GPU-1").unwrap(),
        index: 0,
        name: None,
        pci_bus_id: None,
        memory_total_bytes: None,
        power_limit_mw: None,
        domain: None,
    };
    let gpus = vec![GpuReading { power_mw, ..GpuReading::absent(info, state) }];
    GpuSnapshot { gpus, ..GpuSnapshot::empty(Instant::now(), SourceState::Healthy, None) }
}

fn close(window: &mut Window, gpus: &GpuSnapshot) -> Closed {
    window.close(Instant::now(), 2000, gpus, AgentCost::default())
}

#[tokio::test(start_paused = true)]
async fn counters_add_up_and_gauges_are_the_newest() {
    let mut window = window(2);
    window.observe(reading(1, tokens(5)));
    window.observe(reading(1, tokens(7)));
    tokio::time::advance(Duration::from_millis(400)).await;
    let report = close(&mut window, &no_gpus()).report;
    assert_eq!((report.seq.0, report.begin_ms, report.length_ms), (1, 1000, 400));
    assert_eq!(report.engines.generation_tokens.get(1), Some(12));
    assert_eq!(report.engines.generation_tokens.get(0), None, "engine 0 told nothing, which is not zero");
    assert_eq!(report.engines.state.get(0), Some(EngineState::Pending.code()));
    assert_eq!(report.engines.running.get(1), Some(3));
    assert_eq!(report.engines.kv_usage_ppm.get(1), Some(250_000));
    assert_eq!(report.engines.age_ms.get(1), Some(400));
    let next = close(&mut window, &no_gpus()).report;
    assert_eq!((next.seq.0, next.begin_ms), (2, 2000));
    assert_eq!(next.engines.generation_tokens.get(1), None, "a window's gain is told once");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_no_longer_answers_keeps_no_gauges() {
    let mut window = window(1);
    window.observe(reading(0, tokens(5)));
    let seen = Seen {
        state: EngineState::Gone,
        evidence: StateEvidence::Refused,
        patience: Duration::from_secs(9),
        ..Seen::nothing(Instant::now())
    };
    let outcome = Err(ScrapeError::Refused("e0:1".to_owned()));
    window.observe(EngineReading { outcome, seen, ..reading(0, tokens(0)) });
    tokio::time::advance(Duration::from_secs(2)).await;
    let report = close(&mut window, &no_gpus()).report;
    assert_eq!(report.engines.state.get(0), Some(EngineState::Gone.code()));
    assert_eq!(report.engines.evidence.get(0), Some(StateEvidence::Refused.code()));
    assert_eq!(report.engines.state_ms.get(0), Some(2000));
    assert_eq!(report.engines.running.get(0), None);
    assert_eq!(report.engines.generation_tokens.get(0), Some(5), "what it gained before stays gained");
    tokio::time::advance(Duration::from_secs(8)).await;
    let view = &window.views(Instant::now())[0];
    assert_eq!(view.seen.state, EngineState::Pending, "what was seen ten seconds ago is no news");
    assert!(view.seen.reason.contains("10 s") && view.seen.reason.contains("gone"), "{}", view.seen.reason);
}

#[tokio::test(start_paused = true)]
async fn distributions_name_their_layout_in_the_inventory() {
    let mut window = window(1);
    window.observe(reading(0, ttft(&[0.1, 1.0], vec![(0, 2)], 100_000)));
    window.observe(reading(0, ttft(&[0.1, 1.0], vec![(0, 1), (2, 1)], 9_000_000)));
    let closed = close(&mut window, &no_gpus());
    let inventory = closed.inventory.unwrap();
    assert_eq!(inventory.layouts, [[0.1, 1.0]]);
    assert_eq!(closed.report.generation, inventory.generation);
    let entries: Vec<_> = closed.report.histograms.iter().map(Result::unwrap).collect();
    // Two scrapes of one window stay apart, each with its own sum.
    assert_eq!(entries.len(), 2);
    assert_eq!((entries[0].layout, entries[0].sum, &*entries[0].cells), (1, 100_000, &[(0, 2)][..]));
    assert_eq!(
        (entries[1].layout, entries[1].sum, &*entries[1].cells),
        (1, 9_000_000, &[(0, 1), (2, 1)][..])
    );
    // Nothing changed: no new inventory, and no distribution without samples.
    let quiet = close(&mut window, &no_gpus());
    assert_eq!(quiet.inventory, None);
    assert!(quiet.report.histograms.is_empty());
    // Other buckets are another layout, the old one keeps its number.
    window.observe(reading(0, ttft(&[0.5], vec![(0, 1)], 1)));
    let changed = close(&mut window, &no_gpus());
    assert_eq!(changed.inventory.unwrap().layouts, [vec![0.1, 1.0], vec![0.5]]);
    assert_eq!(changed.report.histograms.iter().next().unwrap().unwrap().layout, 2);
}

#[tokio::test(start_paused = true)]
async fn many_scrapes_of_one_window_are_added_up_and_lose_nothing() {
    let mut window = window(1);
    let layouts: Vec<f64> = (1..60).map(f64::from).collect();
    for scrape in 0..9 {
        window.observe(reading(0, ttft(&[0.1, 1.0], vec![(scrape % 3, 1)], 1000)));
    }
    // Nor do many layouts, as long as there is room for one of each.
    for edge in &layouts {
        window.observe(reading(0, ttft(&[*edge], vec![(0, 1)], 1)));
    }
    let report = close(&mut window, &no_gpus()).report;
    let entries: Vec<_> = report.histograms.iter().map(Result::unwrap).collect();
    assert_eq!(entries.iter().filter(|entry| entry.layout == 1).count(), 4);
    let samples: u64 = entries.iter().flat_map(|entry| &entry.cells).map(|(_, n)| n).sum();
    assert_eq!((samples, window.views(Instant::now())[0].unplaced), (9 + layouts.len() as u64, 0));
}

#[tokio::test(start_paused = true)]
async fn the_inventory_is_told_once_and_on_change() {
    let mut window = window(0);
    assert_eq!(close(&mut window, &no_gpus()).inventory.unwrap().generation, Generation(1));
    assert_eq!(close(&mut window, &no_gpus()).inventory, None);
    let appeared = close(&mut window, &one_gpu(GpuStatus::Ok, Some(71_000)));
    assert_eq!(appeared.inventory.unwrap().generation, Generation(2));
    assert_eq!(appeared.report.gpus.power_mw.get(0), Some(71_000));
    let lost = close(&mut window, &one_gpu(GpuStatus::Lost, None));
    assert_eq!(lost.inventory, None, "a lost GPU is still the same GPU");
    assert_eq!(lost.report.gpus.state.get(0), Some(GpuState::Lost.code()));
    assert_eq!(lost.report.gpus.power_mw.get(0), None);
}

#[tokio::test(start_paused = true)]
async fn the_inventory_tells_nvlink_domains_once_they_are_known() {
    let mut window = window(0);
    let told = |closed: Closed| closed.inventory.map(|inventory| inventory.gpus[0].domain.clone());
    assert_eq!(told(close(&mut window, &one_gpu(GpuStatus::Ok, None))), Some(None), "not known is not none");
    let mut snapshot = one_gpu(GpuStatus::Ok, None);
    snapshot.gpus[0].unsupported.extend(["mig", "fabric", "links"]);
    let domain = told(close(&mut window, &snapshot)).unwrap().unwrap();
    assert_eq!((domain.kind, domain.id.as_str(), domain.degraded), (DomainKind::None, "gpu:GPU-1", false));
    assert_eq!(window.topology().domains[0].id, "gpu:GPU-1", "the pages show what the planner was told");
    assert_eq!(
        told(close(&mut window, &one_gpu(GpuStatus::Lost, None))),
        None,
        "a lost GPU keeps its domain"
    );
}

#[tokio::test(start_paused = true)]
async fn recent_distributions_reach_back_half_a_minute_and_totals_to_the_start() {
    let mut window = window(1);
    window.observe(reading(0, ttft(&[0.1], vec![(0, 2)], 10_000)));
    tokio::time::advance(Duration::from_secs(31)).await;
    window.observe(reading(0, ttft(&[0.1], vec![(0, 1)], 5_000)));
    let both = window.views(Instant::now())[0].distributions[&DistributionKind::Ttft].histogram();
    assert_eq!((both.count(), both.sum().0), (3, 15_000));
    tokio::time::advance(Duration::from_secs(31)).await;
    window.observe(reading(0, tokens(1)));
    let one = window.views(Instant::now())[0].distributions[&DistributionKind::Ttft].histogram();
    assert_eq!(one.count(), 1);
    let total = &window.views(Instant::now())[0].cumulative[&DistributionKind::Ttft];
    assert_eq!((total.counts.nonzero().collect::<Vec<_>>(), total.sum), (vec![(0, 3)], 15_000));
}

proptest! {
    /// Invariant: however scrapes fall into windows, the windows' gains add up to the scrapes'.
    #[test]
    fn nothing_is_lost_between_windows(gains in prop::collection::vec((0u64..1000, 0usize..3, 1u64..50, any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (told, sum) = runtime.block_on(async {
            let mut window = window(1);
            let mut told = (0, 0, 0);
            let mut take = |report: Report| {
                told.0 += report.engines.generation_tokens.get(0).unwrap_or(0);
                for entry in report.histograms.iter().map(Result::unwrap) {
                    told.1 += entry.cells.iter().map(|(_, n)| n).sum::<u64>();
                    told.2 += entry.sum;
                }
            };
            for (generation_tokens, bucket, n, ends) in &gains {
                let mut delta = ttft(&[0.1, 0.2], vec![(*bucket, *n)], *n);
                delta.generation_tokens = Some(*generation_tokens);
                window.observe(reading(0, delta));
                if *ends {
                    take(close(&mut window, &no_gpus()).report);
                }
            }
            take(close(&mut window, &no_gpus()).report);
            let samples: u64 = gains.iter().map(|gain| gain.2).sum();
            (told, (gains.iter().map(|gain| gain.0).sum::<u64>(), samples, samples))
        });
        prop_assert_eq!(told, sum);
    }
}

/// A reading in which the engine tells its kind and role, and whether anything moved.
fn told(kind: EngineKind, role: Option<Role>, moved: bool) -> EngineReading {
    let mut reading = reading(0, EngineDelta { arrived: Some(4), moved, ..EngineDelta::default() });
    if let Ok(update) = &mut reading.outcome {
        update.identity = EngineIdentity { kind: Some(kind), role, ..EngineIdentity::default() };
    }
    reading
}

#[test]
fn the_configuration_tells_role_and_kind_where_the_page_does_not() {
    let arrived = |configured: Option<Role>, page: Option<Role>| {
        let endpoint = Endpoint { role: configured, kind: None, ..endpoint("e0:1") };
        let mut window = Window::new(&[endpoint], HostInfo::default(), Instant::now(), 1000);
        window.observe(told(EngineKind::Sglang, page, true));
        let closed = close(&mut window, &no_gpus());
        let info = closed.inventory.unwrap().engines.remove(0);
        assert_eq!(info.kind, "sglang");
        (info.role, closed.report.engines.arrived.get(0))
    };
    assert_eq!(arrived(None, None), (Role::Aggregated, Some(4)));
    assert_eq!(arrived(None, Some(Role::Prefill)), (Role::Prefill, Some(4)));
    // The request of a decode engine came to its prefill engine.
    assert_eq!(arrived(None, Some(Role::Decode)), (Role::Decode, None));
    assert_eq!(arrived(Some(Role::Decode), Some(Role::Aggregated)), (Role::Decode, None));
    assert_eq!(arrived(Some(Role::Aggregated), Some(Role::Decode)), (Role::Aggregated, Some(4)));
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_only_moves_when_a_request_ends_grows_old() {
    for (kind, expected) in
        [(EngineKind::TensorRtLlm, [Some(0), Some(3000), Some(0)]), (EngineKind::Vllm, [None; 3])]
    {
        let mut window = window(1);
        let mut age = async |moved: bool| {
            window.observe(told(kind, None, moved));
            close(&mut window, &no_gpus()).report.engines.signal_age_ms.get(0)
        };
        let mut ages = vec![age(true).await];
        tokio::time::advance(Duration::from_secs(3)).await;
        ages.push(age(false).await);
        ages.push(age(true).await);
        assert_eq!(ages, expected, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn engines_come_and_go_and_what_they_gained_is_told() {
    let mut window = window(2);
    close(&mut window, &no_gpus());
    window.observe(reading(0, tokens(5)));
    window.remove(0);
    window.add(2, endpoint("new:1"), Instant::now());
    window.observe(reading(2, tokens(9)));
    let closed = close(&mut window, &no_gpus());
    let gained = |closed: &Closed| {
        (0..3).map(|row| closed.report.engines.generation_tokens.get(row)).collect::<Vec<_>>()
    };
    let ids = |closed: &Closed| {
        let inventory = closed.inventory.as_ref().unwrap();
        inventory.engines.iter().map(|engine| engine.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&closed), ["e0:1", "e1:1", "new:1"], "what it gained is told once more");
    assert_eq!(gained(&closed), [Some(5), None, Some(9)]);
    window.observe(reading(0, tokens(7)));
    window.observe(reading(2, tokens(1)));
    let closed = close(&mut window, &no_gpus());
    assert_eq!(ids(&closed), ["e1:1", "new:1"]);
    assert_eq!(gained(&closed), [None, Some(1), None], "a late reading of what is gone is nobody's");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_declared_anew_has_one_row() {
    let mut window = window(1);
    window.observe(reading(0, tokens(5)));
    window.remove(0);
    let mut other = endpoint("e0:1");
    other.pool = plimsoll_common::ids::PoolName::parse("chat").ok();
    window.add(1, other, Instant::now());
    let closed = close(&mut window, &no_gpus());
    let engines = closed.inventory.unwrap().engines;
    assert_eq!(engines.len(), 1);
    assert_eq!(engines[0].pool.as_ref().map(|pool| pool.as_str()), Some("chat"));
    assert_eq!(window.views(Instant::now()).len(), 1);
}
