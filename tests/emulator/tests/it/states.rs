//! States and faults, switched at run time.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::client::{self, Harness};

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

async fn start(options: &[&str]) -> Harness {
    client::start(&[&ADMIN[..], options].concat()).await
}

fn long() -> String {
    json!({ "prompt": [1, 2, 3, 4], "max_tokens": 5000, "stream": true }).to_string()
}

/// What the engine itself says: neither HTTP nor the process, which live on while it is stuck.
fn engine_lines(page: &str) -> String {
    let lines = page.lines().filter(|line| {
        ["vllm:", "sglang:"].iter().any(|prefix| line.starts_with(prefix))
            && !line.contains("http_")
            && !line.contains("_seconds_total")
            && !line.contains("get_loads_duration")
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_engine_says_the_same_byte_for_byte_and_goes_on_when_it_thaws() {
    for engine in ["vllm", "sglang"] {
        let harness = start(&["--engine", engine, "--speed", "2"]).await;
        let admin = harness.admin();
        let mut streamed = harness.caller.send(Method::POST, "/v1/completions", &long()).await;
        assert!(streamed.frame().await.unwrap().is_ok());
        admin.order("freeze").await;
        assert_eq!(admin.json("/state").await["engine"]["frozen"], true);
        let (_, before) = harness.caller.get("/metrics").await;
        let loads = || async { harness.caller.get("/v1/loads").await.1 };
        let inner = |text: &str| text.split("\"loads\":").nth(1).unwrap_or_default().to_owned();
        let loads_before = inner(&loads().await);
        // Many iterations' worth.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (status, after) = harness.caller.get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(engine_lines(&before).lines().count() > 100);
        assert_eq!(engine_lines(&before), engine_lines(&after), "{engine}");
        assert_eq!(loads_before, inner(&loads().await));
        if engine == "vllm" {
            assert_eq!(harness.caller.get("/health").await.0, StatusCode::OK);
        }
        admin.order("thaw").await;
        harness
            .caller
            .until("moving again", async |caller| {
                engine_lines(&caller.get("/metrics").await.1) != engine_lines(&after)
            })
            .await;
        drop(streamed);
        harness.emulator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_engine_tells_so_and_what_comes_waits() {
    let harness = start(&["--speed", "50"]).await;
    let admin = harness.admin();
    let streamed = harness.caller.send(Method::POST, "/v1/completions", &long()).await;
    admin.order("sleep:2").await;
    let page = harness
        .caller
        .page_where(|page| {
            page.sum("vllm:engine_sleep_state", &[("sleep_state", "discard_all")]).is_some_and(|is| is > 0.5)
        })
        .await;
    assert!(page.sum("vllm:engine_sleep_state", &[("sleep_state", "awake")]).is_some_and(|is| is < 0.5));
    assert!(page.value("vllm:num_requests_running") < 0.5 && page.value("vllm:kv_cache_usage_perc") < 1e-9);
    assert!(streamed.into_body().collect().await.is_err());
    let caller = harness.caller.clone();
    let body = json!({ "prompt": [1], "max_tokens": 2 });
    let waiting = tokio::spawn(async move { caller.post("/v1/completions", &body).await.0 });
    harness.caller.page_where(|page| page.value("vllm:num_requests_waiting") > 0.5).await;
    admin.order("wake").await;
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_begins_at_zero_perhaps_with_other_bounds_on_the_same_port() {
    let harness = start(&["--speed", "50"]).await;
    let admin = harness.admin();
    harness.caller.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 3 })).await;
    let slow = harness.caller.send(Method::POST, "/v1/completions", &long()).await;
    let before = harness.caller.page().await;
    assert!(before.value("vllm:prompt_tokens_total") > 1.5);
    let buckets = json!({ "custom_histogram_buckets": { "time_to_first_token": [0.3, 2.0] } });
    let answer = admin.send(Method::POST, "/restart", &buckets.to_string()).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(slow.into_body().collect().await.is_err(), "what was in flight is cut");
    harness
        .caller
        .until("back", async |caller| caller.try_send(Method::GET, "/health", "").await.is_ok())
        .await;
    let after = harness.caller.page().await;
    assert!(after.value("vllm:prompt_tokens_total") < 0.5);
    let expected: Vec<String> = ["0.3", "2.0", "+Inf"].map(str::to_owned).to_vec();
    assert!(after.families["vllm:time_to_first_token_seconds"].bound_vectors().contains(&expected));
    assert!(after.value("process_start_time_seconds") > before.value("process_start_time_seconds"));
    assert_eq!(admin.json("/state").await["lives"], 2);

    let wrong = json!({ "custom_histogram_buckets": { "request_latency": [2, 1] } });
    let answer = admin.send(Method::POST, "/restart", &wrong.to_string()).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gone_engine_refuses_even_those_who_were_connected() {
    let harness = start(&[]).await;
    let admin = harness.admin();
    harness.caller.get("/health").await;
    admin.order("gone").await;
    let refused = harness.caller.try_send(Method::GET, "/health", "").await;
    assert!(refused.is_err());
    assert!(admin.json("/state").await["engine"].is_null());
    let (status, _) = client::text(admin.send(Method::POST, "/do", "freeze").await).await;
    assert_eq!(status, StatusCode::CONFLICT);
    admin.order("back").await;
    assert_eq!(harness.caller.get("/health").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_slow_torn_and_locked_until_healed() {
    let harness = start(&["--speed", "50", "--api-key", "sesame"]).await;
    let admin = harness.admin();
    assert_eq!(harness.caller.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(harness.caller.get("/metrics").await.0, StatusCode::OK);
    admin.order("locked").await;
    assert_eq!(harness.caller.get("/metrics").await.0, StatusCode::UNAUTHORIZED);
    let request = hyper::Request::get(format!("http://{}/metrics", harness.emulator.address()))
        .header("authorization", "Bearer sesame")
        .body(http_body_util::Full::default());
    assert_eq!(harness.caller.request(request.unwrap()).await.status(), StatusCode::OK);
    admin.order("heal").await;

    let (_, whole) = harness.caller.get("/metrics").await;
    admin.order("torn:short").await;
    let (_, short) = harness.caller.get("/metrics").await;
    assert!(short.len() < whole.len() && !short.ends_with('\n'));
    admin.order("torn:cut").await;
    let cut = harness.caller.send(Method::GET, "/metrics", "").await;
    assert!(cut.into_body().collect().await.is_err());
    admin.order("torn:mixed").await;
    let mixed = harness.caller.page().await;
    let last = mixed.buckets("vllm:time_to_first_token_seconds").last().copied().unwrap().1;
    assert!((mixed.value("vllm:time_to_first_token_seconds_count") - last - 1.0).abs() < 1e-9);
    admin.order("heal").await;

    admin.order("slow:0.3").await;
    let begun = tokio::time::Instant::now();
    harness.caller.get("/metrics").await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let state = admin.json("/state").await;
    assert_eq!((&state["torn"], &state["locked"]), (&json!(null), &json!(false)));
    for nonsense in ["melt", "", "slow:now"] {
        let status = admin.send(Method::POST, "/do", nonsense).await.status();
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_switches_by_itself() {
    let harness = start(&["--at", "0.3=gone", "--at", "0.6=back"]).await;
    let admin = harness.admin();
    admin.until("gone", async |admin| admin.json("/state").await["engine"].is_null()).await;
    admin.until("back", async |admin| admin.json("/state").await["lives"] == 2).await;
    assert_eq!(harness.caller.get("/health").await.0, StatusCode::OK);
}
