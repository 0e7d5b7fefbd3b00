//! What people and Prometheus read.

use std::collections::BTreeSet;

use base64::Engine as _;
use plimsoll_common::{
    histogram::LatencyHistogram,
    units::{Micros, Ratio},
};

use crate::support::{Agent, Planner, get, inventory, report};

/// A planner that has seen three seconds of ten requests each.
async fn busy() -> (Planner, Agent) {
    let planner = Planner::start().await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    agent.send(inventory(1)).await;
    for seq in 1..=3 {
        agent.send(report(seq, 1, 10)).await;
    }
    agent.acked(3).await;
    planner.wait_for("/api/v1/fleet", |json| json["fleet"]["totals"]["requests_arrived"] == 30).await;
    (planner, agent)
}

#[tokio::test]
async fn the_api_shows_the_fleet() {
    let (planner, _agent) = busy().await;
    let fleet = planner.json("/api/v1/fleet").await;
    assert_eq!(fleet["fleet"]["nodes"]["live"], 1);
    assert_eq!(fleet["fleet"]["gpu_power_watts"], 350.0);
    assert!(fleet["at_unix_seconds"].as_f64().unwrap() > 1.7e9);
    let gpu = planner.json("/api/v1/gpus/GPU-1").await;
    assert_eq!(gpu["gpu"]["node"], "node-1");
    assert_eq!(gpu["gpu"]["engines"][0], "vllm:8000");
    assert_eq!(gpu["gpu"]["nvlink_domain"]["kind"], "node_switch");
    assert_eq!(planner.json("/api/v1/gpus?node=other").await["gpus"], serde_json::json!([]));
    let engines = planner.json("/api/v1/engines?model=org/model").await;
    assert_eq!(engines["engines"][0]["running_requests"], 4);
    assert_eq!(engines["engines"][0]["windows"], serde_json::Value::Null);
    let engines = planner.json("/api/v1/engines?pool=chat&window=1m").await;
    assert_eq!(engines["engines"][0]["windows"]["1m"]["gained"]["requests_arrived"], 30);
    let engine = planner.json("/api/v1/engines/node-1/vllm:8000?window=10s").await;
    let windows = engine["engine"]["windows"].as_object().unwrap();
    assert_eq!(windows.keys().collect::<Vec<_>>(), ["10s"]);
    assert_eq!(windows["10s"]["distributions"]["ttft"]["p99_seconds"]["high"], 0.1);
    let models = planner.json("/api/v1/models?window=5m").await;
    let ttft = &models["models"][0]["windows"]["5m"]["distributions"]["ttft"];
    assert_eq!((&ttft["count"], &ttft["mean_seconds"]), (&30.into(), &0.05.into()));
    let (low, estimate) = (&ttft["p50_seconds"]["low"], ttft["p50_seconds"]["estimate"].as_f64().unwrap());
    assert_eq!(low, 0.01);
    assert!((0.01..=0.1).contains(&estimate), "{estimate}");
    let model = planner.json("/api/v1/models/org%2Fmodel").await;
    assert_eq!(model["model"]["pools"][0], "chat");
    let pools = planner.json("/api/v1/pools").await;
    assert_eq!(pools["pools"][0]["name"], "chat");
    assert_eq!(pools["pools"][0]["windows"].as_object().unwrap().len(), 3);
    assert_eq!(planner.json("/api/v1/nodes").await["nodes"][0]["status"], "live");
    planner.stop().await;
}

#[tokio::test]
async fn histograms_are_exported() {
    let (planner, _agent) = busy().await;
    let path = "/api/v1/models/org%2Fmodel/histograms/ttft";
    let (status, text) = planner.get(path).await;
    assert_eq!(status, 200, "{text}");
    let decoded = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let (_, bytes) = get(planner.bound.http, &format!("{path}?encoding=bytes&window=5m")).await;
    assert_eq!(bytes, decoded);
    let histogram = LatencyHistogram::from_v2(&bytes).unwrap();
    assert_eq!(histogram.count(), 30);
    let p50 = histogram.quantile(Ratio::new(0.5).unwrap()).unwrap();
    assert!((Micros(10_000)..=Micros(100_000)).contains(&p50), "{p50}");
    assert_eq!(planner.get(&format!("{path}?encoding=morse")).await.0, 400);
    assert_eq!(planner.get("/api/v1/models/org%2Fmodel/histograms/tttf").await.0, 404);
    planner.stop().await;
}

#[tokio::test]
async fn errors_say_what_there_is() {
    let (planner, _agent) = busy().await;
    let cases = [
        ("/api/v2/fleet", 404, "/api/v1/fleet"),
        ("/api/v1/nothing", 404, "/api/v1/models"),
        ("/api/v1/gpus/GPU-9", 404, "GPU-1"),
        ("/api/v1/engines/node-1/other", 404, "node-1/vllm:8000"),
        ("/api/v1/models/other", 404, "org/model"),
        ("/api/v1/models/org%2Fmodel/histograms/e2e_exact", 404, "ttft"),
        ("/api/v1/models?window=7s", 400, "10s, 1m, 5m"),
        ("/api/v1/models?windows=1m", 400, "?window=10s|1m|5m"),
    ];
    for (path, expected, hint) in cases {
        let (status, body) = planner.get(path).await;
        assert_eq!(status, expected, "{path}: {body}");
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(error["hint"].as_str().unwrap().contains(hint), "{path}: {body}");
    }
    planner.stop().await;
}

#[tokio::test]
async fn people_and_probes_are_answered() {
    let (planner, _agent) = busy().await;
    let (status, page) = planner.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("org/model") && page.contains("node-1") && page.contains("ttft"), "{page}");
    assert_eq!(planner.get("/healthz").await.0, 200);
    assert_eq!(planner.get("/readyz").await.0, 200);
    planner.stop().await;
}

/// What `promtool check metrics` looks at, as far as we can do without it.
#[tokio::test]
async fn the_metrics_page_is_clean() {
    let (planner, _agent) = busy().await;
    let (status, page) = planner.get("/metrics").await;
    assert_eq!(status, 200);
    let (mut families, mut current) = (BTreeSet::new(), (String::new(), String::new()));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty() && families.insert(name.to_owned()), "{line}");
            current.0 = name.to_owned();
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, metric_type) = typed.split_once(' ').unwrap();
            assert_eq!(name, current.0, "TYPE follows its HELP");
            assert_eq!(name.ends_with("_total"), metric_type == "counter", "{line}");
            current.1 = metric_type.to_owned();
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert_eq!(name, current.0, "UNIT follows its TYPE");
            assert!(name.trim_end_matches("_total").ends_with(unit), "{line}");
        } else {
            let name = &line[..line.find(['{', ' ']).unwrap()];
            let base = match current.1.as_str() {
                "summary" => name.trim_end_matches("_sum").trim_end_matches("_count"),
                "histogram" => {
                    name.trim_end_matches("_sum").trim_end_matches("_count").trim_end_matches("_bucket")
                }
                _ => name,
            };
            assert_eq!(base, current.0, "{line}");
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
        }
    }
    for wanted in [
        "plimsoll_model_ttft_seconds_count{model=\"org/model\"} 30",
        "plimsoll_model_requests_arrived_total{model=\"org/model\"} 30",
        "plimsoll_pool_engines{model=\"org/model\",pool=\"chat\",role=\"aggregated\",status=\"live\"} 1",
        "plimsoll_fleet_nodes{status=\"live\"} 1",
        "plimsoll_planner_reports_total 3",
    ] {
        assert!(page.contains(wanted), "{wanted} is missing in\n{page}");
    }
    planner.stop().await;
}
