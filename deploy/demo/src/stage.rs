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
    plan::{NodePlan, Plan, ReplicaPlan, Scaling},
    policy,
    sight::{Advice, Advised, AgentEngines, EngineStates, PlannerEngines},
};

/// All that runs. Dropped, it ends in the order of its fields.
#[derive(Debug)]
pub struct Stage {
    /// One a node.
    pub agents: Vec<(String, Agent)>,
    /// The planner.
    pub planner: Planner,
    /// All engines that serve.
    pub engines: Vec<Emulator>,
    /// For pages of all of them.
    pub http: Http,
    /// What the agents were started with, in their order.
    specs: Vec<AgentSpec>,
    speed: f64,
    scaling: Scaling,
    world: World,
}

/// An engine that was launched and does not serve yet. Dropped, it ends.
#[derive(Debug)]
pub struct Starting {
    spec: EmulatorSpec,
    process: Process,
    address: SocketAddr,
}

impl Starting {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.process.name()
    }
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
        let policy = world.file("policy.yaml");
        std::fs::write(&policy, policy::policy(plan))
            .with_context(|| format!("{} can't be written", policy.display()))?;
        planner.flags.extend(["--policy".to_owned(), policy.display().to_string()]);
        let planner = planner.start(&world, &http).await?;
        let mut stage = Self {
            agents: Vec::new(),
            planner,
            engines: Vec::new(),
            http,
            specs: Vec::new(),
            speed,
            scaling: plan.scaling,
            world,
        };
        for node in &plan.nodes {
            shown(&format!("starting {}: {} and {} engines", node.name, node.scenario, node.replicas.len()));
            let agent = stage.node(node, &authority).await?;
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

    async fn node(&mut self, node: &NodePlan, authority: &Authority) -> anyhow::Result<Agent> {
        let world = &self.world;
        let activity = world.file(&format!("activity-{}", node.name));
        std::fs::create_dir(&activity).with_context(|| format!("{} can't be made", activity.display()))?;
        let board = Board { scenario: node.scenario.to_owned(), activity: Some(activity.clone()) };
        let mut endpoints = Vec::new();
        for replica in &node.replicas {
            let spec = self.engine(replica, &node.name, &board);
            let engine = spec.start(world, &self.http).await?;
            endpoints.push(endpoint(replica, engine.url(), spec.gpus));
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
        let agent = spec.start(world, &self.http).await?;
        self.specs.push(spec);
        Ok(agent)
    }

    /// An engine of a node.
    fn engine(&self, replica: &ReplicaPlan, node: &str, board: &Board) -> EmulatorSpec {
        let mut flags = vec!["--stop-fraction".to_owned(), "0.5".to_owned()];
        if let Some(max_num_seqs) = self.scaling.max_num_seqs {
            flags.extend(["--max-num-seqs".to_owned(), max_num_seqs.to_string()]);
        }
        if self.scaling.start_up_s > 0 {
            flags.extend(["--startup-delay".to_owned(), self.scaling.start_up_s.to_string()]);
        }
        EmulatorSpec {
            speed: self.speed,
            gpus: replica.gpus.iter().map(|index| board.gpu(node, *index)).collect(),
            activity: board.activity.clone(),
            flags,
            ..EmulatorSpec::new(&replica.name, replica.model, replica.profile)
        }
    }

    /// Starts another engine on a node, and declares it to the node's agent at once. It serves in a while.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn launch(&mut self, node: usize, replica: &ReplicaPlan) -> anyhow::Result<Starting> {
        let agent = self.specs.get(node).context("there is no such node")?;
        let board = agent.board.as_ref().context("the node has no GPUs")?;
        // The agent is to know where the engine will be before it is there.
        let address = free_address()?;
        let spec = EmulatorSpec { listen: Some(address), ..self.engine(replica, &agent.node, board) };
        let process = spec.launch(&self.world)?;
        self.declare(node, |endpoints| {
            endpoints.push(endpoint(replica, format!("http://{address}"), spec.gpus.clone()));
        })?;
        Ok(Starting { spec, process, address })
    }

    /// Takes an engine in that was launched, if it serves by now.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn take_in(&mut self, mut starting: Starting) -> anyhow::Result<Option<Starting>> {
        starting.process.check()?;
        let answer = self.http.get(starting.address, "/emulator/exact").await;
        if !answer.is_ok_and(|answer| answer.status.is_success()) {
            return Ok(Some(starting));
        }
        let Starting { spec, process, .. } = starting;
        let log = spec.request_log(&self.world);
        self.engines.push(spec.serving(process, log, &self.http).await?);
        Ok(None)
    }

    /// Ends an engine that serves, in order, and declares it no longer.
    ///
    /// # Errors
    /// When there is no such engine, or it does not end.
    pub async fn retire(&mut self, node: usize, name: &str) -> anyhow::Result<()> {
        self.undeclare(node, name)?;
        let at = self.engines.iter().position(|engine| engine.process.name() == name);
        let mut engine = self.engines.remove(at.with_context(|| format!("there is no engine {name}"))?);
        end([&mut engine.process]).await
    }

    /// Declares an engine no longer.
    ///
    /// # Errors
    /// When its agent's file can't be written.
    pub fn undeclare(&mut self, node: usize, name: &str) -> anyhow::Result<()> {
        self.declare(node, |endpoints| endpoints.retain(|endpoint| endpoint.id != name))
    }

    fn declare(&mut self, node: usize, change: impl FnOnce(&mut Vec<EndpointSpec>)) -> anyhow::Result<()> {
        let agent = self.specs.get_mut(node).context("there is no such node")?;
        change(&mut agent.endpoints);
        agent.declare(&self.world).map(drop)
    }

    /// What the planner advises.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn advice(&self) -> anyhow::Result<Vec<Advised>> {
        let page = self.http.get(self.planner.address, "/api/v1/plan").await?;
        let advice: Advice = page.parse().context("/api/v1/plan of the planner")?;
        Ok(advice.pools)
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
                "  API     {}  (also plan, gpus, engines, pools, nodes, fleet)",
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
        pool: Some(replica.profile.to_owned()),
        replica: Some(replica.name.clone()),
        gpus,
        keys: BTreeMap::new(),
    }
}

/// A port that is free now. Somebody else may take it before it is used, which ends the demo with a reason.
fn free_address() -> anyhow::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(socket.local_addr()?)
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
