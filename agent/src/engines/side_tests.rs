//! Further pages against scripted servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plimsoll_common::{
    engine::{DistributionKind, EngineKind},
    ids::{EngineId, ModelName},
    wire::EngineState,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    EngineReading, ScrapeOptions, captured, spawn_scraper,
    test_server::{Reply, Server, bound, not_found, ok, serve},
};
use crate::config::{Endpoint, ExactSources};

struct Scraping {
    readings: mpsc::Receiver<EngineReading>,
    cancel: CancellationToken,
}

impl Drop for Scraping {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Scraping {
    fn of(server: &Server, change: impl FnOnce(&mut Endpoint)) -> Self {
        let mut endpoint = Endpoint {
            id: EngineId::parse("engine").unwrap(),
            url: format!("http://{}", server.address),
            metrics_path: "/metrics".to_owned(),
            kind: None,
            model: None,
            pool: None,
            role: None,
            replica: None,
            gpus: Vec::new(),
            follower: false,
            iteration_stats: false,
            exact: ExactSources::default(),
            bearer_token_file: None,
            slo: None,
        };
        change(&mut endpoint);
        let options = ScrapeOptions {
            interval: Duration::from_millis(2),
            longest_interval: Duration::from_millis(2),
            ..ScrapeOptions::default()
        };
        let (tx, readings) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        drop(spawn_scraper(0, endpoint, options, tx, cancel.clone()));
        Self { readings, cancel }
    }

    async fn next(&mut self) -> EngineReading {
        self.readings.recv().await.expect("the scraper runs")
    }
}

fn page(fixture: &str, name: &str) -> Vec<u8> {
    let pages = captured::pages(fixture);
    pages.into_iter().find(|page| page.name == name).expect("the page was captured").text.into_bytes()
}

/// The snapshot of the moment when nine requests ran and 31 waited.
fn snapshot() -> Vec<u8> {
    let lines = String::from_utf8(page("sglang-0.5.23.pages.zst", "loads_during")).unwrap();
    let line =
        lines.lines().find(|line| line.contains("\"num_running_reqs\":9,\"num_waiting_reqs\":31")).unwrap();
    line.split_once(' ').unwrap().1.as_bytes().to_vec()
}

#[tokio::test]
async fn sglangs_snapshot_is_preferred_over_its_gauges() {
    let (metrics, loads) = (page("sglang-0.5.23.pages.zst", "during_05"), snapshot());
    let server = serve(bound().await, move |_, path| match path {
        "/metrics" => Reply::Send(ok(&metrics)),
        path if path.starts_with("/v1/loads?include=core") => Reply::Send(ok(&loads)),
        _ => not_found(),
    });
    let update = Scraping::of(&server, |_| ()).next().await.outcome.unwrap();
    assert_eq!(update.identity.kind, Some(EngineKind::Sglang));
    assert_eq!(update.identity.version.as_deref(), Some("0.5.23"));
    assert_eq!((update.gauges.running, update.gauges.waiting), (Some(9), Some(31)));
    assert!(update.gauges.snapshot_time.is_some());
    assert_eq!(update.delta.ended, Some(0), "the counters are the metrics page's");
}

#[tokio::test]
async fn a_server_that_shows_no_snapshot_is_read_by_its_page_and_not_asked_again() {
    let metrics = page("sglang-0.5.23.pages.zst", "during_06");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let server = serve(bound().await, move |_, path| match path {
        "/metrics" => Reply::Send(ok(&metrics)),
        path if path.starts_with("/v1/loads") => {
            counted.fetch_add(1, Ordering::SeqCst);
            Reply::SendAndClose(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec())
        }
        _ => not_found(),
    });
    let mut scraping = Scraping::of(&server, |_| ());
    for _ in 0..5 {
        let gauges = scraping.next().await.outcome.unwrap().gauges;
        assert_eq!((gauges.running, gauges.waiting, gauges.snapshot_time), (Some(9), Some(31), None));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_a_metrics_page_sglang_still_tells_its_load() {
    let loads = snapshot();
    let server = serve(bound().await, move |_, path| match path {
        path if path.starts_with("/v1/loads") => Reply::Send(ok(&loads)),
        _ => not_found(),
    });
    let reading = Scraping::of(&server, |_| ()).next().await;
    assert_eq!(reading.seen.state, EngineState::Ready);
    let update = reading.outcome.unwrap();
    assert_eq!((update.gauges.running, update.gauges.waiting), (Some(9), Some(31)));
    assert_eq!((update.identity.kind, update.delta.arrived), (Some(EngineKind::Sglang), None));
    // Any other engine's missing page is an error, and so is SGLang's without a snapshot.
    let server = serve(bound().await, |_, _| not_found());
    assert!(Scraping::of(&server, |_| ()).next().await.outcome.is_err());
}

#[tokio::test]
async fn iterations_are_drained_only_where_the_operator_says_so() {
    let drained = Arc::new(AtomicUsize::new(0));
    let counted = drained.clone();
    let server = serve(bound().await, move |_, path| {
        match path {
        "/prometheus/metrics" => Reply::Send(ok(
            b"trtllm_num_requests_running{model_name=\"m\"} 1\ntrtllm_request_success_total{finished_reason=\"stop\"} 5\n",
        )),
        "/metrics" => {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            let iteration = format!("[{{\"iter\": {n}, \"numActiveRequests\": 7, \"numQueuedRequests\": 2, \
                \"inflightBatchingStats\": {{\"numGenRequests\": 7}}}}]");
            Reply::Send(ok(iteration.as_bytes()))
        }
        _ => not_found(),
    }
    });
    let trtllm = |drain: bool| {
        move |endpoint: &mut Endpoint| {
            endpoint.kind = Some(EngineKind::TensorRtLlm);
            endpoint.metrics_path = "/prometheus/metrics".to_owned();
            endpoint.iteration_stats = drain;
        }
    };
    let mut plain = Scraping::of(&server, trtllm(false));
    for _ in 0..3 {
        let gauges = plain.next().await.outcome.unwrap().gauges;
        assert_eq!((gauges.running, gauges.waiting), (Some(1), None));
    }
    assert_eq!(drained.load(Ordering::SeqCst), 0);
    drop(plain);
    let mut draining = Scraping::of(&server, trtllm(true));
    let first = draining.next().await.outcome.unwrap();
    assert_eq!((first.gauges.running, first.gauges.waiting), (Some(7), Some(2)));
    assert_eq!(first.delta.generation_tokens, Some(0), "what was there before is a baseline");
    let second = draining.next().await.outcome.unwrap();
    assert_eq!((second.delta.generation_tokens, second.delta.progress), (Some(7), Some(true)));
}

#[tokio::test]
async fn ended_requests_are_drained_only_where_the_operator_says_so() {
    let entry = |id: usize| {
        format!(
            "{{\"request_id\": {id}, \"perf_metrics\": {{\"timing_metrics\": {{\"arrival_time\": 10.0, \
             \"first_scheduled_time\": 10.25, \"first_token_time\": 10.5, \"last_token_time\": 12.5}}}}}}"
        )
    };
    let drained = Arc::new(AtomicUsize::new(0));
    let counted = drained.clone();
    let server = serve(bound().await, move |_, path| match path {
        "/prometheus/metrics" => Reply::Send(ok(b"trtllm_num_requests_running{model_name=\"m\"} 1\n")),
        "/perf_metrics" => Reply::Send(ok(match counted.fetch_add(1, Ordering::SeqCst) {
            0 => format!("[{},{}]", entry(1), entry(2)),
            1 => format!("[{},{{\"perf_metrics\": 7}}]", entry(3)),
            2 => "[]".to_owned(),
            _ => "no page".to_owned(),
        }
        .as_bytes())),
        _ => not_found(),
    });
    let trtllm = |drain: bool| {
        move |endpoint: &mut Endpoint| {
            endpoint.kind = Some(EngineKind::TensorRtLlm);
            endpoint.metrics_path = "/prometheus/metrics".to_owned();
            endpoint.exact.request_stats = drain;
        }
    };
    let mut plain = Scraping::of(&server, trtllm(false));
    for _ in 0..3 {
        assert!(plain.next().await.outcome.unwrap().requests.is_empty());
    }
    assert_eq!(drained.load(Ordering::SeqCst), 0);
    drop(plain);
    let mut draining = Scraping::of(&server, trtllm(true));
    let first = draining.next().await.outcome.unwrap();
    assert!(first.requests.is_empty(), "what lay there before is history");
    let second = draining.next().await.outcome.unwrap();
    let ttft = second.requests.get(DistributionKind::Ttft).unwrap();
    assert_eq!((ttft.count(), ttft.sum(), second.quality.malformed_lines), (1, 500_000, 1));
    for _ in 0..5 {
        let update = draining.next().await.outcome.unwrap();
        assert!(update.requests.is_empty(), "what is no such page costs nothing of the metrics page");
        assert_eq!(update.gauges.running, Some(1));
    }
    assert_eq!(drained.load(Ordering::SeqCst), 4, "and is left alone");
}

#[tokio::test]
async fn a_front_ends_page_is_read_for_one_model() {
    let text =
        "dynamo_frontend_active_requests{model=\"a\"} 3\ndynamo_frontend_active_requests{model=\"b\"} 4\n";
    let server = serve(bound().await, move |_, path| match path {
        "/metrics" => Reply::Send(ok(text.as_bytes())),
        _ => not_found(),
    });
    let mut of_b = Scraping::of(&server, |endpoint| endpoint.model = ModelName::parse("b").ok());
    assert_eq!(of_b.next().await.outcome.unwrap().gauges.frontend_inflight, Some(4));
    let update = Scraping::of(&server, |_| ()).next().await.outcome.unwrap();
    assert_eq!((update.gauges.frontend_inflight, update.identity.model), (Some(7), None));
}
