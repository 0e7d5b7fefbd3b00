//! An agent that has nothing to see and nobody to tell.

use plimsoll_tests::{daemons::AgentSpec, http::Http, world::World};

use crate::cluster::quick;

#[tokio::test]
async fn without_gpus_and_planner_an_agent_stays_up_and_says_so() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let mut spec = AgentSpec { flags: quick(), ..AgentSpec::new("lonely") };
    // Also on a machine that has GPUs.
    let nowhere = world.file("nowhere/libnvidia-ml.so.1");
    spec.flags.extend(["--nvml-library".to_owned(), nowhere.display().to_string()]);
    let mut agent = spec.start(&world, &http).await.unwrap();
    let status = agent.status().await.unwrap();
    let gpu = &status["sources"]["gpu"];
    assert_eq!(gpu["state"], "unsupported", "{status}");
    assert!(gpu["detail"].as_str().is_some_and(|detail| detail.contains("libnvidia-ml")), "{status}");
    assert!(status["planner"].is_null(), "{status}");
    assert_eq!(http.json(agent.address, "/v1/gpus").await.unwrap()["gpus"], serde_json::json!([]));
    assert_eq!(http.json(agent.address, "/v1/engines").await.unwrap()["engines"], serde_json::json!([]));
    let ready = http.json(agent.address, "/readyz").await.unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    assert_eq!(http.get(agent.address, "/healthz").await.unwrap().text.trim(), "ok");
    let missing = http.get(agent.address, "/v1/gpus/GPU-0").await.unwrap();
    assert_eq!(missing.status.as_u16(), 404);
    assert!(missing.json().unwrap()["hint"].is_string(), "{}", missing.text);
    agent.process.check().unwrap();
    assert_eq!(agent.process.stop(plimsoll_tests::daemons::END).await.unwrap().code(), Some(0));
}
