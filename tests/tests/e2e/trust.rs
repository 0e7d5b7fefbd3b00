//! Who talks to whom.

use plimsoll_tests::{
    daemons::{AgentSpec, PlannerLink, PlannerTls},
    http::Http,
    tls::Authority,
    world::World,
};
use serde_json::Value;

use crate::cluster::{PATIENCE, hgx, mutual_tls, planner, planner_shows, quick};

fn refused(status: &Value) -> bool {
    status["planner"]["last_error"].as_str().is_some_and(|error| !error.is_empty())
}

#[tokio::test]
async fn a_planner_that_nobody_vouches_for_gets_nothing_and_the_agent_says_why() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let (tls, link) = mutual_tls(&world, "right").unwrap();
    let planner = planner(tls).start(&world, &http).await.unwrap();
    let wrong = Authority::new(&world, "wrong").unwrap();
    let link = PlannerLink { address: planner.quic, authority: Some(wrong.certificate), ..link };
    let spec =
        AgentSpec { board: Some(hgx()), planner: Some(link), flags: quick(), ..AgentSpec::new("node") };
    let mut agent = spec.start(&world, &http).await.unwrap();
    let status = agent.status_where("refusal", PATIENCE, refused).await.unwrap();
    let error = status["planner"]["last_error"].as_str().unwrap();
    assert!(error.contains("certificate") || error.contains("issuer"), "{error}");
    assert_ne!(status["planner"]["state"], "connected");
    assert_eq!(status["planner"]["reports_sent"], 0);
    assert_eq!(planner.api("/api/v1/gpus").await.unwrap()["gpus"], serde_json::json!([]));
}

#[tokio::test]
async fn an_agent_that_nobody_vouches_for_is_not_let_in() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let (tls, link) = mutual_tls(&world, "right").unwrap();
    let planner = planner(tls).start(&world, &http).await.unwrap();
    let wrong = Authority::new(&world, "wrong").unwrap().issue(&world, "stranger", &["agent"]).unwrap();
    for (name, identity) in [("nameless", None), ("stranger", Some(wrong))] {
        let link = PlannerLink { address: planner.quic, identity, ..link.clone() };
        let spec =
            AgentSpec { board: Some(hgx()), planner: Some(link), flags: quick(), ..AgentSpec::new(name) };
        let mut agent = spec.start(&world, &http).await.unwrap();
        let status = agent.status_where("refusal", PATIENCE, refused).await.unwrap();
        assert_eq!(status["planner"]["acknowledged_window"], 0, "{status}");
    }
    assert_eq!(planner.api("/api/v1/nodes").await.unwrap()["nodes"], serde_json::json!([]));
}

#[tokio::test]
async fn with_dev_two_programs_find_each_other_without_certificates_and_say_that_it_is_not_safe() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let mut planner = planner(PlannerTls::Dev).start(&world, &http).await.unwrap();
    let link = PlannerLink { address: planner.quic, authority: None, identity: None };
    let spec =
        AgentSpec { board: Some(hgx()), planner: Some(link), flags: quick(), ..AgentSpec::new("node") };
    let agent = spec.start(&world, &http).await.unwrap();
    let eight = |page: &Value| match page["gpus"].as_array().map(Vec::len) {
        Some(8) => Ok(()),
        gpus => Err(format!("{gpus:?} GPUs")),
    };
    planner_shows(&mut planner, "eight GPUs", "/api/v1/gpus", eight).await.unwrap();
    for log in [agent.process.log_tail(), planner.process.log_tail()] {
        assert!(log.contains("WARN") && log.contains("dev"), "{log}");
    }
}
