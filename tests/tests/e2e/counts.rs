//! What the planner shows is what happened.

use std::{collections::BTreeSet, sync::Arc};

use plimsoll_tests::request_log::Ended;
use serde_json::Value;

use crate::{
    cluster::{Cluster, Engine, LLAMA, PATIENCE, QWEN, hgx, play, requests, tray},
    expected::Expected,
};

fn of_model<'a>(cluster: &'a Cluster, model: &'a str) -> impl Iterator<Item = &'a Engine> + 'a {
    cluster.engines.iter().filter(move |engine| engine.emulator.model == model)
}

fn rows<'a>(page: &'a Value, list: &str) -> &'a [Value] {
    page[list].as_array().map_or(&[], Vec::as_slice)
}

fn ended(engines: impl Iterator<Item = impl AsRef<Engine>>) -> Vec<Ended> {
    engines.flat_map(|engine| engine.as_ref().emulator.ended().expect("a request log")).collect()
}

impl AsRef<Self> for Engine {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Issue: "counts at the planner equal the emulators' logs exactly; bucketed percentiles lie within their published
/// low/high bounds".
#[tokio::test]
async fn counts_are_the_engines_own_and_percentiles_lie_within_their_bounds() {
    let mut cluster = Cluster::start().await.unwrap();
    let engines =
        |model| of_model(&cluster, model).map(|engine| Arc::clone(&engine.emulator)).collect::<Vec<_>>();
    let (llama, qwen) = (engines(LLAMA), engines(QWEN));
    let load = async {
        tokio::try_join!(play(llama, requests(40.0, 200, 1), 0), play(qwen, requests(15.0, 75, 2), 10_000))
    };
    let uuid = cluster.engines[0].endpoint.gpus[0].clone();
    let path = format!("/api/v1/gpus/{uuid}");
    let busy = plimsoll_tests::wait::until("busy GPU", PATIENCE, async || {
        let page = cluster.planner.api(&path).await?;
        let utilization = page["gpu"]["utilization_percent"].as_u64();
        Ok(if utilization > Some(0) { Ok(()) } else { Err(page.to_string()) })
    });
    tokio::try_join!(load, busy).unwrap();

    check_engines(&mut cluster).await;
    for model in [LLAMA, QWEN] {
        let expected = Expected::of(&ended(of_model(&cluster, model)));
        assert_eq!(expected.counter("requests_arrived"), if model == LLAMA { 200 } else { 75 });
        assert!(
            expected.counter("requests_finished_stop") > 0 && expected.counter("prefix_cache_hit_tokens") > 0
        );
        let what = format!("totals of {model}");
        let path = format!("/api/v1/models/{model}?window=5m");
        let page =
            cluster.planner_shows(&what, &path, |page| expected.compare_totals(&page["model"]["totals"]));
        let page = page.await.unwrap();
        let worst = expected.compare_percentiles(&page["model"]["windows"]["5m"]).unwrap();
        println!("{model}: the worst estimate of a TTFT or ITL percentile is {:.1} % off", worst * 100.0);
        assert_eq!(page["model"]["engines_ready"], of_model(&cluster, model).count());
    }
    check_gpus(&cluster).await;
    check_agents(&mut cluster).await;
}

async fn check_engines(cluster: &mut Cluster) {
    let expected: Vec<(String, Expected)> = cluster
        .engines
        .iter()
        .map(|engine| {
            let expected = Expected::of(&engine.emulator.ended().expect("a request log"));
            (format!("/api/v1/engines/{}/{}?window=5m", engine.node, engine.endpoint.id), expected)
        })
        .collect();
    for (path, expected) in &expected {
        let compare = |page: &Value| expected.compare_totals(&page["engine"]["totals"]);
        let page =
            cluster.planner_shows(&format!("totals at {path}"), path, compare).await.expect("equal totals");
        expected.compare_percentiles(&page["engine"]["windows"]["5m"]).expect("bounds that hold");
    }
    // An engine counts a request's end before its gauges show it.
    let idle = |page: &Value| {
        let idle = |row: &Value| row["running_requests"] == 0 && row["waiting_requests"] == 0;
        if rows(page, "engines").iter().all(idle) { Ok(()) } else { Err(page.to_string()) }
    };
    let page = cluster.planner_shows("idle engines", "/api/v1/engines", idle).await.expect("idle engines");
    for (row, engine) in rows(&page, "engines").iter().zip(&cluster.engines) {
        assert_eq!(row["node"], engine.node);
        assert_eq!(row["id"], engine.endpoint.id.as_str());
        assert_eq!(row["model"], engine.emulator.model.as_str());
        assert_eq!(row["replica"], engine.endpoint.replica.as_deref().unwrap_or_default());
        assert_eq!(row["gpu_uuids"], serde_json::json!(engine.endpoint.gpus));
    }
    assert_eq!(rows(&page, "engines").len(), cluster.engines.len());
}

async fn check_gpus(cluster: &Cluster) {
    let page = cluster.planner.api("/api/v1/gpus").await.expect("GPUs");
    let seen: BTreeSet<(&str, &str)> = rows(&page, "gpus")
        .iter()
        .map(|gpu| (gpu["node"].as_str().unwrap_or_default(), gpu["uuid"].as_str().unwrap_or_default()))
        .collect();
    let scenario = |node: &'static str, board: plimsoll_tests::daemons::Board, gpus: usize| {
        (0..gpus).map(move |index| (node, board.gpu(node, index))).collect::<Vec<_>>()
    };
    let expected = [scenario("node-a", hgx(), 8), scenario("node-b", tray(), 4)].concat();
    assert_eq!(seen, expected.iter().map(|(node, uuid)| (*node, uuid.as_str())).collect());
    for gpu in rows(&page, "gpus") {
        let number = |key: &str| gpu[key].as_f64().unwrap_or(f64::NAN);
        assert_eq!((&gpu["state"], &gpu["status"]), (&Value::from("ok"), &Value::from("live")), "{gpu}");
        assert!((0.0..=100.0).contains(&number("utilization_percent")), "{gpu}");
        assert!((30.0..=1200.0).contains(&number("power_watts")), "{gpu}");
        assert!((15.0..=90.0).contains(&number("temperature_celsius")), "{gpu}");
        assert!((0.0..=number("memory_total_bytes")).contains(&number("memory_used_bytes")), "{gpu}");
        let uuid = gpu["uuid"].as_str().unwrap_or_default();
        let engine = cluster.engines.iter().find(|engine| engine.endpoint.gpus.iter().any(|gpu| gpu == uuid));
        let names: Vec<_> = engine.iter().map(|engine| engine.endpoint.id.clone()).collect();
        assert_eq!(gpu["engines"], serde_json::json!(names), "{gpu}");
        // The weights of an engine lie on its GPUs: 16 GB on one, 65.6 GB on two.
        assert_eq!(number("memory_used_bytes") > 15e9, engine.is_some(), "{gpu}");
    }
}

async fn check_agents(cluster: &mut Cluster) {
    let page = cluster.planner.api("/api/v1/agents").await.expect("agents");
    let page = &page["agents"];
    let nodes: Vec<_> = rows(page, "connected").iter().map(|agent| agent["node"].clone()).collect();
    assert_eq!(nodes, ["node-a", "node-b"]);
    for trouble in ["duplicates", "overlaps", "lost", "missing"] {
        assert_eq!(page["windows"][trouble], 0, "{page}");
    }
    for agent in &mut cluster.agents {
        let status = agent.status().await.expect("a status");
        assert_eq!(status["planner"]["state"], "connected", "{status}");
        assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
    }
}

/// Arrivals are right although engines do not count requests that their clients give up.
#[tokio::test]
async fn requests_that_clients_give_up_have_arrived() {
    let mut cluster = Cluster::start().await.unwrap();
    let engine = Arc::clone(&cluster.engines[0].emulator);
    let prompt =
        |id| plimsoll_tests::openai::Prompt { id, input_tokens: 100, output_tokens: 2000, shared_tokens: 0 };
    for id in 0..7 {
        plimsoll_tests::openai::hang_up(&cluster.http, engine.address, &engine.model, prompt(id), 3)
            .await
            .unwrap();
    }
    play(vec![Arc::clone(&engine)], requests(50.0, 13, 3), 100).await.unwrap();
    plimsoll_tests::wait::until("record of every request", PATIENCE, async || {
        let ended = engine.ended()?.len();
        Ok(if ended == 20 { Ok(()) } else { Err(format!("{ended} requests")) })
    })
    .await
    .unwrap();
    let expected = Expected::of(&engine.ended().unwrap());
    let page = cluster.planner_shows("arrivals", "/api/v1/engines/node-a/llama-0", |page| {
        let counters = &page["engine"]["totals"]["counters"];
        let ended = expected.counter("requests_finished_stop") + expected.counter("requests_finished_length");
        let finished =
            ["requests_finished_stop", "requests_finished_length"].map(|key| counters[key].as_u64());
        let finished = finished.into_iter().flatten().sum::<u64>();
        let right = counters["requests_arrived"] == 20 && finished == ended && ended == 13;
        if right { Ok(()) } else { Err(counters.to_string()) }
    });
    page.await.unwrap();
}
