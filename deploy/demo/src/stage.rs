//! The processes: started in order, watched, ended in order.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitStatus};

use anyhow::Context;
use plimsoll_tests::{
    daemons::{
        Agent, AgentSpec, Board, END, Emulator, EmulatorSpec, EndpointSpec, Planner, PlannerLink,
        PlannerSpec, PlannerTls, START,
    },
    http::Http,
    process::{Process, Signal},
    tls::{Authority, Identity},
    wait,
    world::World,
};

use crate::{
    plan::{NodePlan, Plan, ReplicaPlan},
    sight::{AgentEngines, EngineStates, PlannerEngines},
};

/// All that runs. Dropped, it ends in the order of its fields.
#[derive(Debug)]
pub struct Stage {
    /// One a node.
    pub agents: Vec<(String, Agent)>,
    /// The planner.
    pub planner: Planner,
    /// All engines.
    pub engines: Vec<Emulator>,
    /// For pages of all of them.
    pub http: Http,
    world: World,
}

impl Stage {
    /// Starts a plan's processes: planner, engines, agents; and waits until the agents have seen every engine, so that
    /// all that happens from then on counts. `shown` is told of each step.
    ///
    /// # Errors
    /// When one does not come up; its log's end is told.
    pub async fn set(world: World, plan: &Plan, speed: f64, shown: impl Fn(&str)) -> anyhow::Result<Self> {
        let http = Http::default();
        let authority = Authority::new(&world, "authority")?;
        let identity = authority.issue(&world, "planner", &["127.0.0.1", "localhost"])?;
        let tls = PlannerTls::Certificate(identity, Some(authority.certificate.clone()));
        shown("starting the planner");
        let mut planner = PlannerSpec::new("planner", tls);
        // Often enough that a look at its models and one at its engines mostly see the same windows.
        planner.flags = ["--publish-interval", "100ms"].map(str::to_owned).to_vec();
        let planner = planner.start(&world, &http).await?;
        let mut stage = Self { agents: Vec::new(), planner, engines: Vec::new(), http, world };
        for node in &plan.nodes {
            shown(&format!("starting {}: {} and {} engines", node.name, node.scenario, node.replicas.len()));
            let agent = stage.node(node, &authority, speed).await?;
            stage.agents.push((node.name.clone(), agent));
        }
        for ((_, agent), node) in stage.agents.iter_mut().zip(&plan.nodes) {
            agent.engines_ready(node.replicas.len()).await?;
        }
        stage.planner_sees(stage.engines.len()).await?;
        Ok(stage)
    }

    /// Waits until the planner shows so many engines.
    async fn planner_sees(&mut self, engines: usize) -> anyhow::Result<()> {
        wait::until("planner that sees every engine", START, async || {
            self.check()?;
            let page = self.planner.api("/api/v1/fleet").await?;
            let live = page["fleet"]["engines"]["live"].as_u64();
            Ok(if live == Some(engines as u64) { Ok(()) } else { Err(page.to_string()) })
        })
        .await
    }

    async fn node(&mut self, node: &NodePlan, authority: &Authority, speed: f64) -> anyhow::Result<Agent> {
        let world = &self.world;
        let activity = world.file(&format!("activity-{}", node.name));
        std::fs::create_dir(&activity).with_context(|| format!("{} can't be made", activity.display()))?;
        let board = Board { scenario: node.scenario.to_owned(), activity: Some(activity.clone()) };
        let mut endpoints = Vec::new();
        for replica in &node.replicas {
            let gpus: Vec<String> = replica.gpus.iter().map(|index| board.gpu(&node.name, *index)).collect();
            let spec = EmulatorSpec {
                speed,
                gpus: gpus.clone(),
                activity: Some(activity.clone()),
                flags: ["--stop-fraction", "0.5"].map(str::to_owned).to_vec(),
                ..EmulatorSpec::new(&replica.name, replica.model, replica.profile)
            };
            let engine = spec.start(world, &self.http).await?;
            endpoints.push(endpoint(replica, engine.url(), gpus));
            self.engines.push(engine);
        }
        let spec = AgentSpec {
            board: Some(board),
            endpoints,
            planner: Some(PlannerLink {
                address: self.planner.quic,
                authority: Some(authority.certificate.clone()),
                identity: Some(agent_identity(world, authority, &node.name)?),
            }),
            ..AgentSpec::new(&node.name)
        };
        spec.start(world, &self.http).await
    }

    /// Fails if a process has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.processes().try_for_each(Process::check)
    }

    /// Ends all in order: agents say goodbye to a planner that is still there.
    ///
    /// # Errors
    /// When one does not end in time or ends badly; the others are ended all the same.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        let agents = end(self.agents.iter_mut().map(|(_, agent)| &mut agent.process)).await;
        let planner = end([&mut self.planner.process]).await;
        let engines = end(self.engines.iter_mut().map(|engine| &mut engine.process)).await;
        agents.and(planner).and(engines)
    }

    /// Ends all at once.
    pub fn kill(&mut self) {
        // What can't be killed is already gone.
        self.processes().for_each(|process| drop(process.kill()));
    }

    /// Kills an engine's process, which is no longer part of the stage then.
    ///
    /// # Errors
    /// When there is no such engine, or it can't be killed.
    pub fn kill_engine(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.engines.iter().position(|engine| engine.process.name() == name);
        let mut engine = self.engines.remove(at.with_context(|| format!("there is no engine {name}"))?);
        engine.process.kill().map(drop)
    }

    /// How the agent of an engine's node sees it.
    ///
    /// # Errors
    /// When no agent knows it, or one does not answer.
    pub async fn at_agent(&self, engine: &str) -> anyhow::Result<EngineStates> {
        for (name, agent) in &self.agents {
            let page = self.http.get(agent.address, "/v1/engines").await?;
            let page: AgentEngines = page.parse().with_context(|| format!("/v1/engines of {name}"))?;
            if let Some(found) = page.find(engine) {
                return Ok(found);
            }
        }
        anyhow::bail!("no agent knows an engine {engine}")
    }

    /// How the planner sees an engine.
    ///
    /// # Errors
    /// When it does not know it, or does not answer.
    pub async fn at_planner(&self, engine: &str) -> anyhow::Result<EngineStates> {
        let found = self.states().await?.find(engine);
        found.with_context(|| format!("the planner knows no engine {engine}"))
    }

    /// How the planner sees the engines.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn states(&self) -> anyhow::Result<PlannerEngines> {
        let page = self.http.get(self.planner.address, "/api/v1/engines").await?;
        page.parse().context("/api/v1/engines of the planner")
    }

    /// Where the logs are.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.world.folder().to_owned()
    }

    /// Where people and programs may look, as lines.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        let url = |address: &SocketAddr, path: &str| format!("http://{address}{path}");
        let planner = &self.planner.address;
        let mut lines = vec![
            format!("planner   {}", url(planner, "/")),
            format!(
                "  API     {}  (also gpus, engines, pools, nodes, fleet)",
                url(planner, "/api/v1/models")
            ),
            format!("  metrics {}", url(planner, "/metrics")),
        ];
        for (name, agent) in &self.agents {
            lines.push(format!(
                "{name:<9} {}  (also /v1/gpus, /v1/engines, /metrics)",
                url(&agent.address, "/status")
            ));
        }
        for engine in &self.engines {
            let page = url(&engine.address, "/metrics");
            lines.push(format!(
                "{:<9} {page}  (also /emulator/exact, and the OpenAI API)",
                engine.process.name()
            ));
        }
        lines.push(format!("logs      {}", self.world.file("*.log").display()));
        lines
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let agents = self.agents.iter_mut().map(|(_, agent)| &mut agent.process);
        agents
            .chain([&mut self.planner.process])
            .chain(self.engines.iter_mut().map(|engine| &mut engine.process))
    }
}

fn endpoint(replica: &ReplicaPlan, url: String, gpus: Vec<String>) -> EndpointSpec {
    EndpointSpec {
        id: replica.name.clone(),
        url,
        pool: None,
        replica: Some(replica.name.clone()),
        gpus,
        keys: BTreeMap::new(),
    }
}

async fn end(processes: impl IntoIterator<Item = &mut Process>) -> anyhow::Result<()> {
    let mut processes: Vec<&mut Process> = processes.into_iter().collect();
    let mut result = Ok(());
    for process in &mut processes {
        let told = process.signal(Signal::TERM);
        result = result.and(told);
    }
    for process in processes {
        let ended = process.wait(END).await.and_then(|status| well(process, status));
        result = result.and(ended);
    }
    result
}

fn well(process: &Process, status: ExitStatus) -> anyhow::Result<()> {
    anyhow::ensure!(status.success(), "{} ended badly ({status}):\n{}", process.name(), process.log_tail());
    Ok(())
}

/// A certificate that says which node its agent is on.
fn agent_identity(world: &World, authority: &Authority, node: &str) -> anyhow::Result<Identity> {
    authority.issue(world, &format!("agent-{node}"), &[&format!("spiffe://plimsoll/node/{node}")])
}
