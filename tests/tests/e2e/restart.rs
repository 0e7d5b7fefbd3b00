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

pub(crate) struct Setting {
    pub(crate) agent: Agent,
    pub(crate) agent_spec: AgentSpec,
    pub(crate) engine: Arc<Emulator>,
    pub(crate) spec: PlannerSpec,
    pub(crate) http: Http,
    pub(crate) world: World,
}

/// A free UDP port for planners that follow one another. Between here and the planner's start somebody else could take
/// it; the kernel hands out ports of others first.
pub(crate) fn free_udp_port() -> SocketAddr {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("its address")
}

async fn setting() -> Setting {
    setting_at(free_udp_port()).await
}

/// An engine, and an agent that reports to this address.
pub(crate) async fn setting_at(address: SocketAddr) -> Setting {
    setting_with(address, |_, _| ()).await
}

/// The same with an agent that differs in something.
pub(crate) async fn setting_with(
    address: SocketAddr,
    change: impl FnOnce(&World, &mut AgentSpec),
) -> Setting {
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
    let mut agent_spec = AgentSpec {
        endpoints: vec![endpoint],
        planner: Some(PlannerLink { address, authority: None, identity: None }),
        flags: [quick(), vec!["--gpu".to_owned(), "false".to_owned()]].concat(),
        ..AgentSpec::new("node")
    };
    change(&world, &mut agent_spec);
    let mut agent = agent_spec.start(&world, &http).await.expect("an agent");
    agent.engines_ready(1).await.expect("a page of the engine");
    let spec = PlannerSpec { quic: address, ..planner(PlannerTls::Dev) };
    Setting { agent, agent_spec, engine: Arc::new(engine), spec, http, world }
}

impl Setting {
    pub(crate) async fn planner(&self, name: &str) -> Planner {
        let spec = PlannerSpec { name: name.to_owned(), ..self.spec.clone() };
        spec.start(&self.world, &self.http).await.expect("a planner")
    }

    pub(crate) async fn load(&self, count: usize, first_id: u64) {
        play(vec![Arc::clone(&self.engine)], requests(60.0, count, first_id), first_id)
            .await
            .expect("answers");
    }

    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.engine.ended().expect("a request log")
    }

    /// The agent holds nothing that a planner has not applied, save what happens right now.
    pub(crate) async fn drained(&mut self) {
        let status = self.agent.status_where("empty spool", PATIENCE, |status| {
            status["planner"]["state"] == "connected"
                && status["planner"]["spool"]["reports"].as_u64() <= Some(1)
        });
        status.await.expect("an empty spool");
    }

    pub(crate) async fn gone(&mut self) {
        let gone = |status: &Value| status["planner"]["state"] != "connected";
        self.agent
            .status_where("agent that misses its planner", PATIENCE, gone)
            .await
            .expect("a lost planner");
    }
}

/// The pool, once its engine's page was read: before, nobody knows its model.
fn chat(page: &Value) -> Option<&Value> {
    let pools = page["pools"].as_array()?;
    pools.iter().find(|pool| pool["name"] == "chat" && pool["model"] == LLAMA)
}

pub(crate) async fn shows(planner: &mut Planner, requests: &[Ended]) {
    let expected = Expected::of(requests);
    let compare = |page: &Value| {
        let pool = chat(page).ok_or("no pool")?;
        expected.compare_totals(&pool["totals"])
    };
    planner_shows(planner, "totals of the pool", "/api/v1/pools", compare).await.expect("equal totals");
}

/// A planner that comes late gets all that happened since the agent started. One that takes the place of another, and
/// starts empty, gets that as well: windows are kept for a while after they were acknowledged.
#[tokio::test]
async fn what_happened_waits_for_the_next_planner() {
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
    shows(&mut second, &setting.ended()).await;
    let agents = second.api("/api/v1/agents").await.unwrap();
    for trouble in ["duplicates", "overlaps", "lost", "missing"] {
        assert_eq!(agents["agents"]["windows"][trouble], 0, "{agents}");
    }
    let status = setting.agent.status().await.unwrap();
    assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
}

/// The same while requests run, with a planner that has no time to say goodbye: the next one counts every request.
#[tokio::test]
async fn a_planner_that_is_killed_under_load_is_followed_by_one_that_counts_everything() {
    let mut setting = setting().await;
    let mut first = setting.planner("first").await;
    let connected = |status: &Value| status["planner"]["acknowledged_window"].as_u64() > Some(0);
    setting.agent.status_where("first acknowledgement", PATIENCE, connected).await.unwrap();
    let engine = Arc::clone(&setting.engine);
    let load = tokio::spawn(play(vec![engine], requests(40.0, 160, 5), 0));
    let half = |page: &Value| {
        let arrived = chat(page).and_then(|pool| pool["totals"]["counters"]["requests_arrived"].as_u64());
        if arrived > Some(50) { Ok(()) } else { Err(format!("{arrived:?} requests")) }
    };
    planner_shows(&mut first, "half of the load", "/api/v1/pools", half).await.unwrap();
    first.process.kill().unwrap();
    let killed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    setting.gone().await;

    let mut second = setting.planner("second").await;
    load.await.unwrap().unwrap();
    let ended = setting.ended();
    let sent_after = ended.iter().filter(|request| request.arrival_unix_s > killed).count();
    assert!(sent_after > 0, "the load was over before the planner was killed");
    setting.drained().await;
    shows(&mut second, &ended).await;
    let windows = |page: &Value| {
        let (agents, windows) = (&page["agents"]["connected"][0], &page["agents"]["windows"]);
        let clean = ["duplicates", "overlaps", "lost", "missing"].iter().all(|trouble| windows[trouble] == 0);
        // From the first window on.
        let whole = agents["acknowledged_seq"] == windows["applied"];
        if clean && whole { Ok(()) } else { Err(page.to_string()) }
    };
    planner_shows(&mut second, "every window", "/api/v1/agents", windows).await.unwrap();
    let status = setting.agent.status().await.unwrap();
    assert_eq!(status["planner"]["spool"]["dropped_windows"], 0, "{status}");
    second.process.stop(END).await.unwrap();
}
