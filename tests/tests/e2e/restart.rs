//! Planners come and go; what agents hold is applied once.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use plimsoll_tests::{
    daemons::{
        Agent, AgentSpec, END, Emulator, EmulatorSpec, EndpointSpec, Planner, PlannerLink, PlannerSpec,
        PlannerTls,
    },
    http::Http,
    request_log::Ended,
    world::World,
};
use serde_json::Value;

use crate::{
    cluster::{LLAMA, PATIENCE, planner, planner_shows, play, quick, requests},
    expected::Expected,
};

struct Setting {
    agent: Agent,
    engine: Arc<Emulator>,
    spec: PlannerSpec,
    http: Http,
    world: World,
}

/// A free UDP port for planners that follow one another. Between here and the planner's start somebody else could take
/// it; the kernel hands out ports of others first.
fn free_udp_port() -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("its address")
}

async fn setting() -> Setting {
    let (world, http) = (World::new().expect("programs"), Http::default());
    let engine = EmulatorSpec::new("engine", LLAMA, "llama-3.1-8b-h100-tp1");
    let engine = engine.start(&world, &http).await.expect("an engine");
    let endpoint = EndpointSpec {
        id: "engine".to_owned(),
        url: engine.url(),
        pool: Some("chat".to_owned()),
        replica: None,
        gpus: Vec::new(),
        keys: BTreeMap::new(),
    };
    let address = free_udp_port();
    let agent = AgentSpec {
        endpoints: vec![endpoint],
        planner: Some(PlannerLink { address, authority: None, identity: None }),
        flags: [quick(), vec!["--gpu".to_owned(), "false".to_owned()]].concat(),
        ..AgentSpec::new("node")
    };
    let mut agent = agent.start(&world, &http).await.expect("an agent");
    agent.engines_ready(1).await.expect("a page of the engine");
    let spec = PlannerSpec { quic: address, ..planner(PlannerTls::Dev) };
    Setting { agent, engine: Arc::new(engine), spec, http, world }
}

impl Setting {
    async fn planner(&self, name: &str) -> Planner {
        let spec = PlannerSpec { name: name.to_owned(), ..self.spec.clone() };
        spec.start(&self.world, &self.http).await.expect("a planner")
    }

    async fn load(&self, count: usize, first_id: u64) {
        play(vec![Arc::clone(&self.engine)], requests(60.0, count, first_id), first_id)
            .await
            .expect("answers");
    }

    fn ended(&self) -> Vec<Ended> {
        self.engine.ended().expect("a request log")
    }

    /// The agent holds nothing that a planner has not applied, save what happens right now.
    async fn drained(&mut self) {
        let status = self.agent.status_where("empty spool", PATIENCE, |status| {
            status["planner"]["state"] == "connected"
                && status["planner"]["spool"]["reports"].as_u64() <= Some(1)
        });
        status.await.expect("an empty spool");
    }

    async fn gone(&mut self) {
        let gone = |status: &Value| status["planner"]["state"] != "connected";
        self.agent
            .status_where("agent that misses its planner", PATIENCE, gone)
            .await
            .expect("a lost planner");
    }
}

async fn shows(planner: &mut Planner, requests: &[Ended]) {
    let expected = Expected::of(requests);
    let compare = |page: &Value| {
        let page = &page["pools"][0];
        if page["name"] != "chat" {
            return Err("no pool".to_owned());
        }
        expected.compare_totals(&page["totals"])
    };
    planner_shows(planner, "totals of the pool", "/api/v1/pools", compare).await.expect("equal totals");
}

/// A planner that comes late gets all that happened since the agent started. One that takes the place of another gets
/// what that one had not acknowledged: windows are kept until then, and forgotten after.
#[tokio::test]
async fn what_no_planner_has_acknowledged_waits_for_the_next_one() {
    let mut setting = setting().await;
    setting.load(60, 0).await;
    let before = setting.ended();
    assert_eq!(before.len(), 60);
    let mut first = setting.planner("first").await;
    shows(&mut first, &before).await;
    setting.drained().await;
    assert_eq!(first.process.stop(END).await.unwrap().code(), Some(0));
    setting.gone().await;

    setting.load(60, 1000).await;
    let mut second = setting.planner("second").await;
    shows(&mut second, &setting.ended()[60..]).await;
    let agents = second.api("/api/v1/agents").await.unwrap();
    for trouble in ["duplicates", "overlaps", "lost", "missing"] {
        assert_eq!(agents["agents"]["windows"][trouble], 0, "{agents}");
    }
    let status = setting.agent.status().await.unwrap();
    assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
}

/// The same while requests run: from the window after the last acknowledged one on, every window is applied, once.
#[tokio::test]
async fn a_planner_that_is_replaced_under_load_gets_every_window_from_the_last_acknowledged_on() {
    let mut setting = setting().await;
    let mut first = setting.planner("first").await;
    let connected = |status: &Value| status["planner"]["acknowledged_window"].as_u64() > Some(0);
    setting.agent.status_where("first acknowledgement", PATIENCE, connected).await.unwrap();
    let engine = Arc::clone(&setting.engine);
    let load = tokio::spawn(play(vec![engine], requests(40.0, 160, 5), 0));
    let half = |page: &Value| {
        let arrived = page["pools"][0]["totals"]["counters"]["requests_arrived"].as_u64();
        if arrived > Some(50) { Ok(()) } else { Err(page.to_string()) }
    };
    planner_shows(&mut first, "half of the load", "/api/v1/pools", half).await.unwrap();
    first.process.kill().unwrap();
    let killed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    setting.gone().await;
    let acknowledged =
        setting.agent.status().await.unwrap()["planner"]["acknowledged_window"].as_u64().unwrap();

    let mut second = setting.planner("second").await;
    load.await.unwrap().unwrap();
    let ended = setting.ended();
    let sent_after = ended.iter().filter(|request| request.arrival_unix_s > killed).count() as u64;
    assert!(sent_after > 0, "the load was over before the planner was killed");
    let all = Expected::of(&ended).counter("requests_arrived");
    setting.drained().await;
    let windows = |page: &Value| {
        let (agents, windows) = (&page["agents"]["connected"][0], &page["agents"]["windows"]);
        let (seq, applied) = (agents["acknowledged_seq"].as_u64(), windows["applied"].as_u64());
        let clean = ["duplicates", "overlaps", "lost", "missing"].iter().all(|trouble| windows[trouble] == 0);
        let whole = seq.zip(applied).is_some_and(|(seq, applied)| seq == acknowledged + applied);
        if clean && whole { Ok(()) } else { Err(format!("{page}, {acknowledged} acknowledged before")) }
    };
    planner_shows(&mut second, "every window", "/api/v1/agents", windows).await.unwrap();
    let page = second.api("/api/v1/pools").await.unwrap();
    let arrived = page["pools"][0]["totals"]["counters"]["requests_arrived"].as_u64().unwrap();
    assert!((sent_after..=all).contains(&arrived), "{arrived} of {all}, {sent_after} after the kill");
    let status = setting.agent.status().await.unwrap();
    assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
    second.process.stop(END).await.unwrap();
}
