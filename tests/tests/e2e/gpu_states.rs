//! Everything that can happen to GPUs and driver, each told alike by API, metrics and `/status`, by the real agent.

mod scene;

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_tests::daemons::END;
use tokio::time::Instant;

use self::scene::{Claims, Scene, Seen, all_stale, all_well};

#[tokio::test]
async fn a_gpu_that_fell_off_the_bus_is_lost_and_the_others_go_on() {
    let (mut scene, before) = Scene::well("gpu-xid").await.unwrap();
    let uuid = scene.uuid(3);
    scene.say("xid 3 79").unwrap();
    let lost = |seen: &Seen| -> Claims {
        let mut others = seen.gpus().iter().filter_map(|gpu| gpu["uuid"].as_str()).filter(|it| *it != uuid);
        let event = |event: &serde_json::Value| event["gpu"] == uuid.as_str() && event["xid"] == 79;
        vec![
            ("lost", seen.gpu_is(&uuid, "lost") && seen.has_no_values(&uuid)),
            ("its own page", seen.one["state"] == "lost" && seen.one["power_watts"].is_null()),
            ("its trouble", seen.one["trouble"].as_str().is_some_and(|why| why.contains("XID 79"))),
            ("counted", seen.one["xids"]["counts"]["79"] == 1),
            ("counter", xid_79(seen, &uuid) == Some(1.0)),
            ("event", seen.list["events"].as_array().is_some_and(|events| events.iter().any(event))),
            ("source degraded", seen.source_is("degraded") && seen.detail_has(&uuid)),
            ("eight GPUs", seen.gpus().len() == 8),
            (
                "the others with new values",
                others.all(|other| {
                    seen.gpu_is(other, "ok")
                        && seen.has_values(other)
                        && seen.energy(other) > before.energy(other)
                }),
            ),
        ]
    };
    let first = scene.until("a lost GPU", 3, lost).await.unwrap();
    // And they go on while it is away.
    let other = scene.uuid(4);
    let goes_on = |seen: &Seen| {
        let mut claims = lost(seen);
        claims.push(("newer values", seen.energy(&other) > first.energy(&other)));
        claims
    };
    scene.until("newer values of the others", 3, goes_on).await.unwrap();
    scene.say("return 3").unwrap();
    let back = scene.until("the lost GPU back", 3, all_well).await.unwrap();
    assert_eq!(xid_79(&back, &uuid), Some(1.0), "what was counted stays");
    assert_eq!(back.one["xids"]["counts"]["79"], 1, "{}", back.one);
}

fn xid_79(seen: &Seen, uuid: &str) -> Option<f64> {
    seen.sample("plimsoll_gpu_xid_errors_total", &[("uuid", uuid), ("xid", "79")])
}

#[tokio::test]
async fn a_call_that_hangs_fails_the_source_and_holds_nothing_up() {
    let (mut scene, _) = Scene::well("gpu-hang").await.unwrap();
    scene.say("hang nvmlDeviceGetMemoryInfo_v2").unwrap();
    let hung = |call: &'static str| {
        move |seen: &Seen| {
            let mut claims = all_stale(seen);
            let age = seen.sample("plimsoll_gpu_sample_age_seconds", &[]);
            claims.push(("source failed", seen.source_is("failed") && seen.detail_has("does not return")));
            claims.push(("the call is named", seen.detail_has(call)));
            claims.push(("old", age.is_some_and(|age| age > 1.0)));
            claims
        }
    };
    scene.until("a hung source", 0, hung("memory_info")).await.unwrap();
    scene.say("release").unwrap();
    scene.until("a source that answers again", 0, all_well).await.unwrap();
    scene.say("hang *").unwrap();
    scene.until("a source that hangs again", 0, hung("")).await.unwrap();
    let asked = Instant::now();
    assert_eq!(scene.agent.process.stop(END).await.unwrap().code(), Some(0));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?} to end");
}

#[tokio::test]
async fn a_driver_that_goes_is_told_and_found_again() {
    let (mut scene, _) = Scene::well("gpu-reload").await.unwrap();
    scene.say("unload").unwrap();
    let gone = |seen: &Seen| {
        let mut claims = all_stale(seen);
        claims.push(("source failed", seen.source_is("failed")));
        claims.push(("what to do", seen.detail_has("modprobe nvidia")));
        claims.push(("no new start", seen.status["sources"]["gpu"]["restart_needed"] == false));
        claims.push(("no driver", seen.status["sources"]["gpu"]["driver_version"].is_null()));
        claims.push(("no driver in metrics", seen.sample("plimsoll_gpu_driver_info", &[]).is_none()));
        claims
    };
    scene.until("a driver that is gone", 0, gone).await.unwrap();
    scene.say("load").unwrap();
    scene.until("the driver back", 0, all_well).await.unwrap();
    assert_eq!(scene.agent.process.stop(END).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_driver_that_was_upgraded_ends_the_agent_with_a_code_of_its_own() {
    let (mut scene, _) = Scene::well("gpu-upgrade").await.unwrap();
    scene.say("upgrade 590.10").unwrap();
    let ended = scene.agent.process.wait(Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.code(), Some(75));
    let log = scene.agent.process.log_tail();
    assert!(log.contains("different versions") && log.contains("restart"), "{log}");
}

#[tokio::test]
async fn a_gpu_that_was_taken_out_is_absent_until_it_is_back() {
    let (mut scene, _) = Scene::well("gpu-plug").await.unwrap();
    let uuid = scene.uuid(2);
    scene.say("remove 2").unwrap();
    let gone = |seen: &Seen| {
        let mut left = seen.gpus().iter().filter_map(|gpu| gpu["uuid"].as_str());
        let state = |state| seen.sample("plimsoll_gpu_state", &[("uuid", &uuid), ("state", state)]);
        let absent = &seen.list["absent"][0];
        vec![
            ("seven GPUs", seen.gpus().len() == 7 && seen.gpu(&uuid).is_null()),
            ("the seven well", left.all(|uuid| seen.gpu_is(uuid, "ok") && seen.has_values(uuid))),
            ("absent", absent["uuid"] == uuid.as_str() && absent["last_seen_seconds"].is_number()),
            ("its own page", seen.one["state"] == "absent" && seen.one["last_seen_seconds"].is_number()),
            ("absent in metrics", state("absent") == Some(1.0) && state("ok") == Some(0.0)),
            ("no power", seen.sample("plimsoll_gpu_power_watts", &[("uuid", &uuid)]).is_none()),
            ("source healthy", seen.source_is("healthy")),
        ]
    };
    scene.until("an absent GPU", 2, gone).await.unwrap();
    scene.say("add 2").unwrap();
    scene.until("the GPU back", 2, all_well).await.unwrap();
}

#[tokio::test]
async fn a_gpu_that_was_partitioned_shows_its_instances() {
    let (mut scene, _) = Scene::well("gpu-mig").await.unwrap();
    let uuid = scene.uuid(0);
    scene.say("mig 0 on 3g.40gb 1 1g.10gb 2").unwrap();
    let split = |seen: &Seen| {
        let instances = seen.one["mig"]["instances"].as_array().map_or(0, Vec::len);
        let unsupported = seen.one["unsupported"].as_array();
        let of = |family| seen.sample(family, &[("uuid", &uuid)]);
        let field = [("uuid", uuid.as_str()), ("field", "utilization_percent")];
        let profile =
            |profile| seen.samples("plimsoll_mig_info", &[("uuid", &uuid), ("profile", profile)]).count();
        vec![
            ("enabled", seen.one["mig"]["enabled"] == true && of("plimsoll_gpu_mig_enabled") == Some(1.0)),
            ("instances", instances == 3 && profile("3g.40gb") == 1 && profile("1g.10gb") == 2),
            ("sizes", seen.samples("plimsoll_mig_memory_size_bytes", &[("uuid", &uuid)]).count() == 3),
            ("unsupported", unsupported.is_some_and(|all| all.iter().any(|it| it == "utilization_percent"))),
            ("unsupported in metrics", seen.sample("plimsoll_gpu_unsupported_info", &field) == Some(1.0)),
            ("no utilization", seen.one["utilization_percent"].is_null()),
            ("no utilization in metrics", of("plimsoll_gpu_utilization_ratio").is_none()),
            ("still ok", seen.gpu_is(&uuid, "ok") && of("plimsoll_gpu_power_watts").is_some()),
            ("source healthy", seen.source_is("healthy")),
        ]
    };
    scene.until("three instances", 0, split).await.unwrap();
    scene.say("mig 0 off").unwrap();
    let whole = |seen: &Seen| {
        let mut claims = all_well(seen);
        claims.push(("whole", seen.one["mig"]["enabled"] == false));
        claims.push(("no instance", seen.sample("plimsoll_mig_info", &[]).is_none()));
        claims
    };
    scene.until("a whole GPU", 0, whole).await.unwrap();
}

#[tokio::test]
async fn a_driver_that_was_released_is_free_until_it_is_taken_back() {
    let (mut scene, _) = Scene::well("gpu-release").await.unwrap();
    scene.post("/v1/gpu-source/release?seconds=600").await.unwrap();
    let free = |seen: &Seen| {
        let mut claims = all_stale(seen);
        let left = |page: &serde_json::Value| page["released"]["returns_in_seconds"].as_f64();
        let is_bounded = |left: Option<f64>| left.is_some_and(|left| left > 0.0 && left <= 600.0);
        claims.push(("source degraded", seen.source_is("degraded") && seen.detail_has("on request")));
        claims.push(("released", is_bounded(left(&seen.list["source"]))));
        claims.push(("released in /status", is_bounded(left(&seen.status["sources"]["gpu"]))));
        claims.push(("released in metrics", seen.sample("plimsoll_gpu_source_released", &[]) == Some(1.0)));
        claims
    };
    scene.until("a driver that is free", 0, free).await.unwrap();
    scene.post("/v1/gpu-source/resume").await.unwrap();
    let resumed = scene.until("the driver taken back", 0, all_well).await.unwrap();
    // A short one ends by itself.
    scene.post("/v1/gpu-source/release?seconds=1").await.unwrap();
    let again = |seen: &Seen| {
        let mut claims = all_well(seen);
        claims.push(("initialised once more", initialisations(seen) > initialisations(&resumed)));
        claims
    };
    scene.until("a release that ended by itself", 0, again).await.unwrap();
}

/// How often NVML was initialised.
fn initialisations(seen: &Seen) -> Option<u64> {
    let calls = seen.status["cost"]["nvml"]["by_call"].as_array()?;
    calls.iter().find(|call| call["call"] == "init")?["calls"].as_u64()
}

/// Waits until topology, list and metrics put all GPUs into one domain of this kind, and gives its id.
async fn one_domain(
    node: &str,
    scenario: &str,
    before: Option<&str>,
    gpus: usize,
    kind: &str,
) -> anyhow::Result<String> {
    // Faster ticks would leave little of the budget of driver calls for the many links, where calls are slow.
    let mut scene = Scene::start(node, scenario, "1s", before).await?;
    let claims = |seen: &Seen| {
        let (domains, unknown) = (seen.topology["domains"].as_array(), seen.topology["unknown"].as_array());
        let domain = &seen.topology["domains"][0];
        let id = domain["id"].as_str().unwrap_or_default();
        let labels = [("kind", kind), ("domain", id)];
        let in_it = |gpu: &serde_json::Value| {
            let own = &gpu["nvlink_domain"];
            own["id"] == id && own["kind"] == kind && own["degraded"] == false
        };
        vec![
            ("all known", unknown.is_some_and(Vec::is_empty)),
            ("one domain", domains.is_some_and(|domains| domains.len() == 1)),
            ("its kind", domain["kind"] == kind && domain["spans_nodes"] == (kind == "multi_node")),
            (
                "a cluster only where it spans nodes",
                domain["cluster_uuid"].is_string() == (kind == "multi_node"),
            ),
            ("its GPUs", domain["gpus"].as_array().is_some_and(|all| all.len() == gpus)),
            ("works as wired", domain["degraded"] == false),
            ("list", seen.gpus().len() == gpus && seen.gpus().iter().all(in_it)),
            ("metrics", seen.samples("plimsoll_gpu_nvlink_domain_info", &labels).count() == gpus),
            ("all metrics", seen.samples("plimsoll_gpu_nvlink_domain_info", &[]).count() == gpus),
            ("source healthy", seen.source_is("healthy")),
        ]
    };
    let seen = scene.until(&format!("one domain on {scenario}"), 0, claims).await?;
    Ok(seen.topology["domains"][0]["id"].as_str().context("a domain without an id")?.to_owned())
}

#[tokio::test]
async fn nvlink_that_ends_within_the_node_is_a_domain_of_the_node() {
    // The cluster UUID of the first is nil; the second has one, though no NVLink leaves the node.
    let (nil, cluster) = tokio::join!(
        one_domain("gpu-nil", "hgx-h100-8", None, 8, "node_switch"),
        one_domain("gpu-cluster", "hgx-b200-8-cluster", None, 8, "node_switch"),
    );
    assert_eq!([nil.unwrap(), cluster.unwrap()], ["nvswitch", "nvswitch"]);
}

#[tokio::test]
async fn racks_with_the_same_clique_are_different_domains() {
    let uuids = ["0c9d5b1e-7a34-4f6d-8b20-1e5fa2c37d01", "0c9d5b1e-7a34-4f6d-8b20-1e5fa2c37d02"];
    let racks = uuids.map(|uuid| format!("fabric completed {uuid} 32766"));
    let scenario = "gb200-tray-clique-32766";
    let (tray, first, second) = tokio::join!(
        one_domain("gpu-tray", "gb200-tray", None, 4, "multi_node"),
        one_domain("gpu-rack-1", scenario, Some(&racks[0]), 4, "multi_node"),
        one_domain("gpu-rack-2", scenario, Some(&racks[1]), 4, "multi_node"),
    );
    assert_eq!(tray.unwrap(), "7f5a9c1e-3b42-4d86-9e10-5c2d8a6b4f01.2");
    assert_eq!([first.unwrap(), second.unwrap()], uuids.map(|uuid| format!("{uuid}.32766")));
}

/// Claims that each of these domains of a node has so many GPUs, alike in topology, list and metrics.
fn parted(seen: &Seen, kind: &str, domains: usize, gpus: usize) -> Claims {
    let all = seen.topology["domains"].as_array().map_or(&[][..], Vec::as_slice);
    let is_one = |domain: &serde_json::Value| {
        let members = domain["gpus"].as_array().map_or(0, Vec::len);
        domain["kind"] == kind
            && members == gpus
            && domain["spans_nodes"] == false
            && domain["degraded"] == false
    };
    let own = |gpu: &serde_json::Value| {
        let id = gpu["nvlink_domain"]["id"].as_str().unwrap_or_default();
        gpu["nvlink_domain"]["kind"] == kind && all.iter().any(|domain| domain["id"] == id)
    };
    vec![
        ("all known", seen.topology["unknown"].as_array().is_some_and(Vec::is_empty)),
        ("the domains", all.len() == domains && all.iter().all(is_one)),
        ("no cluster", all.iter().all(|domain| domain["cluster_uuid"].is_null())),
        ("list", seen.gpus().len() == domains * gpus && seen.gpus().iter().all(own)),
        (
            "metrics",
            seen.samples("plimsoll_gpu_nvlink_domain_info", &[("kind", kind)]).count() == domains * gpus
                && seen.samples("plimsoll_gpu_nvlink_domain_info", &[]).count() == domains * gpus,
        ),
        ("source healthy", seen.source_is("healthy")),
    ]
}

#[tokio::test]
async fn cards_with_bridges_are_pairs_and_cards_without_are_alone() {
    for (node, scenario, kind, domains, gpus) in
        [("gpu-bridges", "pcie-a100-bridge-4", "bridge", 2, 2), ("gpu-cards", "pcie-l40s-4", "none", 4, 1)]
    {
        let mut scene = Scene::start(node, scenario, "1s", None).await.unwrap();
        let claims = |seen: &Seen| parted(seen, kind, domains, gpus);
        scene.until(scenario, 0, claims).await.unwrap();
    }
}

#[tokio::test]
async fn a_driver_that_lists_no_gpu_is_unsupported_until_one_comes() {
    let mut scene = Scene::start("gpu-none", "hgx-h100-8", "200ms", Some("remove *")).await.unwrap();
    let none = |seen: &Seen| -> Claims {
        vec![
            ("no GPU", seen.gpus().is_empty() && seen.list["absent"] == serde_json::json!([])),
            ("unsupported", seen.source_is("unsupported") && seen.detail_has("NVIDIA_VISIBLE_DEVICES")),
            ("no state in metrics", seen.sample("plimsoll_gpu_state", &[]).is_none()),
            ("no domain", seen.topology["domains"] == serde_json::json!([])),
        ]
    };
    scene.until("a driver without GPUs", 0, none).await.unwrap();
    scene.say("add *").unwrap();
    scene.until("its GPUs", 0, all_well).await.unwrap();
}
