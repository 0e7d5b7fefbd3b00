//! A bad network, killed processes, certificates that run out: what was counted stays counted, and what is lost is told.

use std::time::Duration;

use plimsoll_tests::{
    daemons::{AgentSpec, END, Planner, PlannerLink, PlannerSpec, PlannerTls},
    http::Http,
    proxy::{Faults, Proxy},
    tls::Authority,
    world::World,
};
use serde_json::Value;

use crate::{
    cluster::{PATIENCE, hgx, planner, planner_shows, quick},
    restart::{Setting, free_udp_port, setting_at, shows},
};

/// An engine, an agent, and a network between it and its planner.
async fn behind_a_network(seed: u64) -> (Setting, Proxy) {
    let network = Proxy::start(free_udp_port(), seed).await.expect("a network");
    let mut setting = setting_at(network.address()).await;
    setting.spec = PlannerSpec { quic: ([127, 0, 0, 1], 0).into(), ..setting.spec };
    (setting, network)
}

async fn start(setting: &Setting, network: &Proxy, name: &str) -> Planner {
    let planner = setting.planner(name).await;
    network.lead_to(planner.quic);
    planner
}

pub(crate) fn clean(page: &Value) -> Result<(), String> {
    let windows = &page["agents"]["windows"];
    let troubles = ["overlaps", "lost", "missing"];
    if troubles.iter().all(|trouble| windows[trouble] == 0) { Ok(()) } else { Err(windows.to_string()) }
}

#[tokio::test]
async fn a_third_of_the_packets_lost_and_the_rest_out_of_order_costs_no_count() {
    let (mut setting, network) = behind_a_network(0x1055).await;
    let bad = Faults { loss: 0.3, delay: Duration::from_millis(40), cut: false };
    network.set(bad, bad);
    let mut planner = start(&setting, &network, "planner").await;
    setting.load(120, 0).await;
    shows(&mut planner, &setting.ended()).await;
    network.set(Faults::default(), Faults::default());
    setting.drained().await;
    planner_shows(&mut planner, "every window", "/api/v1/agents", clean).await.unwrap();
}

/// The planner's packets do not come through: QUIC's own timers would take half a minute, missing acknowledgements take
/// seconds.
#[tokio::test]
async fn a_one_way_partition_is_noticed_and_costs_no_count() {
    let (mut setting, network) = behind_a_network(1).await;
    let mut planner = start(&setting, &network, "planner").await;
    setting.load(40, 0).await;
    shows(&mut planner, &setting.ended()).await;
    network.set(Faults::default(), Faults { cut: true, ..Faults::default() });
    setting.load(40, 1000).await;
    setting.gone().await;
    let status = setting.agent.status().await.unwrap();
    let error = status["planner"]["last_error"].as_str().unwrap_or_default();
    assert!(!error.is_empty(), "{status}");
    network.set(Faults::default(), Faults::default());
    shows(&mut planner, &setting.ended()).await;
    setting.drained().await;
    planner_shows(&mut planner, "every window", "/api/v1/agents", clean).await.unwrap();
}

/// An agent that is killed loses what it had not sent, and the planner says that somebody was interrupted; what was
/// counted before stays counted.
#[tokio::test]
async fn a_killed_agent_is_seen_as_an_interruption() {
    let (mut setting, network) = behind_a_network(2).await;
    let mut planner = start(&setting, &network, "planner").await;
    setting.load(40, 0).await;
    let before = setting.ended();
    shows(&mut planner, &before).await;
    setting.agent.process.kill().unwrap();
    setting.agent = setting.agent_spec.start(&setting.world, &setting.http).await.unwrap();
    setting.agent.engines_ready(1).await.unwrap();
    setting.load(40, 1000).await;
    // The new run begins to count at its first page: no more than all, no less than what came since.
    let all = setting.ended();
    shows(&mut planner, &all).await;
    let interrupted = |page: &Value| {
        let row = &page["agents"]["connected"][0];
        if row["interrupted_runs"] == 1 && page["agents"]["windows"]["conflicts"] == 0 {
            Ok(())
        } else {
            Err(page.to_string())
        }
    };
    planner_shows(&mut planner, "an interruption", "/api/v1/agents", interrupted).await.unwrap();
}

#[tokio::test]
async fn both_killed_begin_anew_together() {
    let (mut setting, network) = behind_a_network(3).await;
    let mut first = start(&setting, &network, "first").await;
    setting.load(20, 0).await;
    shows(&mut first, &setting.ended()).await;
    first.process.kill().unwrap();
    setting.agent.process.kill().unwrap();
    setting.agent = setting.agent_spec.start(&setting.world, &setting.http).await.unwrap();
    setting.agent.engines_ready(1).await.unwrap();
    let mut second = start(&setting, &network, "second").await;
    setting.load(40, 1000).await;
    shows(&mut second, &setting.ended()[20..]).await;
    planner_shows(&mut second, "every window", "/api/v1/agents", clean).await.unwrap();
    second.process.stop(END).await.unwrap();
}

/// Certificates of either side run out and are replaced under the running programs.
#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let authority = Authority::new(&world, "authority").unwrap();
    let (hosts, node) = (["127.0.0.1", "localhost"], ["spiffe://plimsoll/node/node"]);
    let server = authority.issue_until(&world, "server", &hosts, Some(2020)).unwrap();
    let client = authority.issue_until(&world, "client", &node, Some(2020)).unwrap();
    let tls = PlannerTls::Certificate(server, Some(authority.certificate.clone()));
    let mut planner = planner(tls).start(&world, &http).await.unwrap();
    let link = PlannerLink {
        address: planner.quic,
        authority: Some(authority.certificate.clone()),
        identity: Some(client),
    };
    let spec =
        AgentSpec { board: Some(hgx()), planner: Some(link), flags: quick(), ..AgentSpec::new("node") };
    let mut agent = spec.start(&world, &http).await.unwrap();
    let says = |what: &'static str| {
        move |status: &Value| {
            status["planner"]["last_error"].as_str().is_some_and(|error| error.to_lowercase().contains(what))
        }
    };
    agent.status_where("planner's certificate that ran out", PATIENCE, says("expired")).await.unwrap();
    authority.issue(&world, "server", &hosts).unwrap();
    // Now the planner is believed, and does not believe the agent.
    agent.status_where("agent's certificate that ran out", PATIENCE, says("peer")).await.unwrap();
    assert_eq!(planner.api("/api/v1/agents").await.unwrap()["agents"]["connected"], serde_json::json!([]));
    authority.issue(&world, "client", &node).unwrap();
    let connected = |status: &Value| status["planner"]["acknowledged_window"].as_u64() > Some(0);
    let status = agent.status_where("acknowledgement", PATIENCE, connected).await.unwrap();
    assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
    planner_shows(&mut planner, "every window", "/api/v1/agents", clean).await.unwrap();
}
