//! The scraper against small servers on loopback, each answering by a script.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plimsoll_common::{
    engine::{EngineKind, Role},
    ids::EngineId,
    wire::EngineState,
};
use tokio::{net::TcpSocket, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    EngineReading, PageError, ScrapeError, ScrapeOptions, fixtures, spawn_scraper,
    test_server::{Reply, answer, bound, not_found, ok, serve},
};
use crate::{config::Endpoint, exposition::Limits};

fn small_page(tokens: usize) -> Vec<u8> {
    ok(format!("vllm:num_requests_running 0\nvllm:generation_tokens_total {tokens}\n").as_bytes())
}

fn options() -> ScrapeOptions {
    ScrapeOptions {
        interval: Duration::from_millis(2),
        longest_interval: Duration::from_millis(2),
        connect_timeout: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        limits: Limits { page_bytes: 100_000, ..Limits::default() },
    }
}

/// A scraper under way.
struct Scraping {
    readings: mpsc::Receiver<EngineReading>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Scraping {
    fn of(url: &str, options: ScrapeOptions) -> Self {
        Self::of_kind(EngineKind::Vllm, url, options)
    }

    fn of_kind(kind: EngineKind, url: &str, options: ScrapeOptions) -> Self {
        let endpoint = Endpoint {
            id: EngineId::parse("engine").unwrap(),
            url: url.to_owned(),
            metrics_path: "/metrics".to_owned(),
            kind: Some(kind),
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
        };
        let (tx, readings) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let task = spawn_scraper(3, endpoint, options, tx, cancel.clone());
        Self { readings, cancel, task }
    }

    fn at(address: SocketAddr) -> Self {
        Self::of(&format!("http://{address}"), options())
    }

    async fn next(&mut self) -> EngineReading {
        let reading = self.readings.recv().await.expect("the scraper runs");
        assert_eq!(reading.engine, 3);
        reading
    }

    async fn error(&mut self) -> ScrapeError {
        self.next().await.outcome.expect_err("the scrape fails")
    }
}

/// The error of a first scrape that is answered with `reply`.
async fn error_of(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> ScrapeError {
    let server = serve(bound().await, reply);
    Scraping::at(server.address).error().await
}

#[tokio::test]
async fn pages_come_over_one_connection_and_the_version_once() {
    let (before, after) = (fixtures::bytes("abort_before.prom"), fixtures::bytes("abort_after0.prom"));
    let versions = Arc::new(AtomicUsize::new(0));
    let asked = versions.clone();
    let server = serve(bound().await, move |n, path| match path {
        "/metrics" => Reply::Send(ok(if n == 0 { &before } else { &after })),
        "/version" => {
            asked.fetch_add(1, Ordering::SeqCst);
            Reply::Send(ok(br#"{"version":"0.32.0"}"#))
        }
        _ => not_found(),
    });
    let mut scraping = Scraping::at(server.address);
    let first = scraping.next().await;
    assert_eq!(first.seen.state, EngineState::Ready);
    let first = first.outcome.unwrap();
    assert_eq!(first.identity.version.as_deref(), Some("0.32.0"));
    assert_eq!(first.identity.model.unwrap().as_str(), "tiny-llama");
    assert_eq!((first.gauges.running, first.delta.arrived), (Some(3), Some(0)));
    for _ in 0..3 {
        let later = scraping.next().await.outcome.unwrap();
        assert_eq!((later.gauges.running, later.delta.arrived), (Some(0), Some(0)));
        assert_eq!(later.identity.version.as_deref(), Some("0.32.0"));
    }
    assert_eq!(versions.load(Ordering::SeqCst), 1);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    scraping.cancel.cancel();
    scraping.task.await.unwrap();
}

#[tokio::test]
async fn slow_readers_lose_nothing() {
    let versions = Arc::new(AtomicUsize::new(0));
    let asked = versions.clone();
    let server = serve(bound().await, move |n, path| match path {
        "/metrics" => Reply::Send(small_page(n)),
        _ => {
            asked.fetch_add(1, Ordering::SeqCst);
            not_found()
        }
    });
    let mut scraping = Scraping::at(server.address);
    let mut tokens = 0;
    for _ in 0..20 {
        tokens += scraping.next().await.outcome.unwrap().delta.generation_tokens.unwrap();
    }
    // Requests are numbered from 0 and each page tells its number. The second request asked for a version that the
    // server does not have, and was not repeated.
    assert_eq!((tokens, versions.load(Ordering::SeqCst)), (20, 1));
    drop(scraping.readings);
    scraping.task.await.unwrap();
}

#[tokio::test]
async fn one_redirect_within_the_host_is_followed_and_remembered() {
    let paths = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = paths.clone();
    let server = serve(bound().await, move |_, path| {
        seen.lock().unwrap().push(path.to_owned());
        match path {
            "/metrics" => Reply::Send(answer("307 Temporary Redirect", "location: /metrics/\r\n", b"")),
            "/metrics/" => Reply::Send(small_page(1)),
            _ => Reply::Send(ok(b"{}")),
        }
    });
    let mut scraping = Scraping::at(server.address);
    for _ in 0..2 {
        assert!(scraping.next().await.outcome.is_ok());
    }
    scraping.cancel.cancel();
    scraping.task.await.unwrap();
    let paths = paths.lock().unwrap();
    assert_eq!(paths.iter().filter(|path| *path == "/metrics").count(), 1, "{paths:?}");
}

#[tokio::test]
async fn other_redirects_are_refused() {
    for to in ["http://192.0.2.1/metrics", "/metrics", "https://127.0.0.1/"] {
        let headers = format!("location: {to}\r\n");
        let error = error_of(move |_, _| Reply::Send(answer("302 Found", &headers, b""))).await;
        assert!(matches!(error, ScrapeError::Redirect { .. }), "{to}: {error}");
    }
    let error = error_of(|_, _| Reply::Send(answer("308 Permanent Redirect", "", b""))).await;
    assert!(matches!(error, ScrapeError::Redirect { .. }), "{error}");
}

#[tokio::test]
async fn answers_are_bounded_while_they_are_read() {
    let told = error_of(|_, _| Reply::Send(answer("200 OK", "", &vec![b'#'; 200_000]))).await;
    assert_eq!(told, ScrapeError::TooLarge { limit: 100_000 });
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "#".repeat(60_000));
    let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}");
    let untold = error_of(move |_, _| Reply::Send(endless.clone().into_bytes())).await;
    assert_eq!(untold, ScrapeError::TooLarge { limit: 100_000 });
}

#[tokio::test]
async fn answers_cut_off_are_no_pages() {
    let whole = ok(&fixtures::bytes("before.prom"));
    let half = whole[..whole.len() / 2].to_vec();
    let error = error_of(move |_, _| Reply::SendAndClose(half.clone())).await;
    assert!(matches!(error, ScrapeError::Closed { .. }), "{error}");
    let error = error_of(|_, _| Reply::SendAndClose(Vec::new())).await;
    assert!(matches!(error, ScrapeError::Closed { .. }), "{error}");
    let error = error_of(|_, _| Reply::SendAndClose(b"SSH-2.0-OpenSSH\r\n".to_vec())).await;
    assert!(matches!(error, ScrapeError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn statuses_and_strange_pages_are_told_apart() {
    let error = error_of(|_, _| not_found()).await;
    assert_eq!(error, ScrapeError::Status { status: 404, path: "/metrics".to_owned() });
    let error = error_of(|_, _| Reply::Send(ok(b"<html></html>"))).await;
    assert!(matches!(error, ScrapeError::Page(PageError::Unparsable(_))), "{error}");
    let server = serve(bound().await, |_, _| Reply::Send(ok(b"node_load1 0.5\n")));
    let reading = Scraping::at(server.address).next().await;
    assert_eq!(reading.seen.state, EngineState::WrongEndpoint);
}

#[tokio::test]
async fn a_bad_url_is_told_with_every_reading() {
    let mut scraping = Scraping::of("https://127.0.0.1:1", options());
    for _ in 0..2 {
        let error = scraping.error().await;
        assert!(matches!(error, ScrapeError::Url { .. }), "{error}");
    }
}

#[tokio::test]
async fn connections_closed_between_scrapes_are_no_failures() {
    let server = serve(bound().await, |n, path| match path {
        "/metrics" => Reply::SendAndClose(small_page(n)),
        _ => Reply::SendAndClose(answer("404 Not Found", "", b"")),
    });
    let mut scraping = Scraping::at(server.address);
    for _ in 0..5 {
        assert!(scraping.next().await.outcome.is_ok());
    }
    assert!(server.connections.load(Ordering::SeqCst) >= 5);
}

#[tokio::test]
async fn an_engine_that_starts_while_watched_is_counted_from_zero() {
    // Bound but not listening: the port is ours, and it refuses.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut scraping = Scraping::at(address);
    let error = scraping.error().await;
    assert_eq!(error, ScrapeError::Refused(address.to_string()));
    let _server = serve(socket.listen(8).unwrap(), |_, path| match path {
        "/metrics" => Reply::Send(small_page(70)),
        _ => not_found(),
    });
    let update = loop {
        if let Ok(update) = scraping.next().await.outcome {
            break update;
        }
    };
    assert_eq!((update.delta.generation_tokens, update.delta.resets), (Some(70), 0));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_times_out_and_is_asked_again() {
    let server = serve(bound().await, |_, _| Reply::Silence);
    let mut scraping = Scraping::at(server.address);
    for _ in 0..2 {
        let late = scraping.next().await;
        assert_eq!((late.seen.state, late.took), (EngineState::Unreachable, Duration::from_secs(2)));
        assert!(matches!(late.outcome, Err(ScrapeError::Late { .. })), "told while it is waited for");
        let reading = scraping.next().await;
        assert_eq!((reading.seen.state, reading.seen.since), (EngineState::Unreachable, late.seen.since));
        assert!(matches!(reading.outcome, Err(ScrapeError::Timeout { .. })));
        assert!(reading.took >= Duration::from_secs(60));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_told_and_then_taken() {
    let server = serve(bound().await, |n, path| match path {
        "/metrics" if n == 2 => Reply::Late(Duration::from_secs(3), small_page(n)),
        "/metrics" => Reply::Send(small_page(n)),
        _ => not_found(),
    });
    let mut scraping = Scraping::at(server.address);
    let states: Vec<_> = [scraping.next().await, scraping.next().await, scraping.next().await]
        .map(|reading| (reading.seen.state, reading.outcome.is_ok()))
        .into();
    let (ready, late) = ((EngineState::Ready, true), (EngineState::Unreachable, false));
    assert_eq!(states, [ready, late, ready]);
}

#[tokio::test]
async fn an_engine_that_answers_and_moves_nothing_is_frozen() {
    let server = serve(bound().await, |_, path| match path {
        "/metrics" => Reply::Send(ok(
            b"vllm:num_requests_running 7\nvllm:prompt_tokens_total 5\nvllm:generation_tokens_total 9\n",
        )),
        _ => not_found(),
    });
    let mut scraping = Scraping::at(server.address);
    let begun = tokio::time::Instant::now();
    let frozen = loop {
        let reading = scraping.next().await;
        if reading.seen.state != EngineState::Ready {
            break reading;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(frozen.seen.state, EngineState::Frozen);
    assert!(frozen.seen.reason.contains("7 requests run"), "{}", frozen.seen.reason);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
}
#[tokio::test]
async fn sglangs_readiness_page_tells_a_drain_from_a_start() {
    let ready = Arc::new(AtomicUsize::new(503));
    let says = ready.clone();
    let server = serve(bound().await, move |_, path| match path {
        "/metrics" => Reply::Send(ok(b"sglang:num_running_reqs 0\nsglang:token_usage 0.0\n")),
        "/ready" if says.load(Ordering::SeqCst) == 200 => Reply::Send(ok(b"")),
        "/ready" => Reply::Send(answer("503 Service Unavailable", "", b"{}")),
        "/health" => panic!("a health probe generates tokens"),
        _ => not_found(),
    });
    let mut scraping =
        Scraping::of_kind(EngineKind::Sglang, &format!("http://{}", server.address), options());
    assert_eq!(scraping.next().await.seen.state, EngineState::Starting);
    for (says, state) in [(200, EngineState::Ready), (503, EngineState::Draining), (200, EngineState::Ready)]
    {
        ready.store(says, Ordering::SeqCst);
        // The scrape that was under way may have asked before.
        let mut reading = scraping.next().await;
        for _ in 0..3 {
            reading = scraping.next().await;
        }
        assert_eq!(reading.seen.state, state, "{}", reading.seen.reason);
    }
}
