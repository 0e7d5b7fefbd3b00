//! Agents.

use std::{
    collections::BTreeMap, fs::OpenOptions, io::Write as _, net::SocketAddr, path::PathBuf, process::Command,
};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::{Board, START};
use crate::{host::Host, http::Http, process::Process, tls::Identity, wait, world::World};

/// An agent to start.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSpec {
    /// Its name, and that of its files.
    pub name: String,
    /// The node it says it is on.
    pub node: String,
    /// The GPUs of that node; without them the agent looks for the machine's own, in vain.
    pub board: Option<Board>,
    /// The engines that it reads.
    pub endpoints: Vec<EndpointSpec>,
    /// The planner that it reports to.
    pub planner: Option<PlannerLink>,
    /// Flags besides.
    pub flags: Vec<String>,
    /// The host that it believes to be on, where that is not this machine as it is.
    pub host: Option<Host>,
}

/// One engine, as the agent's configuration declares it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EndpointSpec {
    /// Its name on the node.
    pub id: String,
    /// The server's root URL.
    pub url: String,
    /// The pool it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The replica it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// The GPUs it runs on.
    pub gpus: Vec<String>,
    /// Further keys of its table.
    #[serde(flatten)]
    pub keys: BTreeMap<String, Value>,
}

/// How an agent finds its planner and trusts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannerLink {
    /// Where it takes reports.
    pub address: SocketAddr,
    /// The authority that vouches for it; without one any planner is trusted (`--dev`).
    pub authority: Option<PathBuf>,
    /// What the agent shows of itself.
    pub identity: Option<Identity>,
}

#[derive(Serialize)]
struct File<'a> {
    endpoint: &'a [EndpointSpec],
}

impl AgentSpec {
    /// An agent that has nothing to read and nobody to report to.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            name: format!("agent-{node}"),
            node: node.to_owned(),
            board: None,
            endpoints: Vec::new(),
            planner: None,
            flags: Vec::new(),
            host: None,
        }
    }

    /// The file with the commands that change the node's GPUs; see [`AgentSpec::change_gpus`].
    #[must_use]
    pub fn gpu_control(&self, world: &World) -> PathBuf {
        world.file(&format!("{}.gpus", self.name))
    }

    /// Changes the board's GPUs or their driver by a command of fake-nvml's, such as `xid 3 79`; before the agent starts,
    /// too. It holds from the first NVML call a few milliseconds later on.
    ///
    /// # Errors
    /// When the command can't be written.
    pub fn change_gpus(&self, world: &World, command: &str) -> anyhow::Result<()> {
        let path = self.gpu_control(world);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // In one write, so that no half of a command is ever seen.
        let written = file.and_then(|mut file| file.write_all(format!("{command}\n").as_bytes()));
        written.with_context(|| format!("{} can't be written", path.display()))
    }

    /// Writes the file that declares the engines, whole or not at all: a running agent follows it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn declare(&self, world: &World) -> anyhow::Result<PathBuf> {
        let (config, new) =
            (world.file(&format!("{}.toml", self.name)), world.file(&format!("{}.toml.new", self.name)));
        let written = std::fs::write(&new, toml::to_string(&File { endpoint: &self.endpoints })?)
            .and_then(|()| std::fs::rename(&new, &config));
        written.with_context(|| format!("{} can't be written", config.display()))?;
        Ok(config)
    }

    /// The command, without what is given to every process. Endpoints go into a TOML file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn command(&self, world: &World) -> anyhow::Result<Command> {
        let mut command = Command::new(&world.artifacts().agent);
        command.arg("--config").arg(self.declare(world)?).args([
            "--node-name",
            &self.node,
            "--listen-http",
            "127.0.0.1:0",
        ]);
        if let Some(board) = &self.board {
            command.arg("--nvml-library").arg(world.nvml_library());
            command.env("PLIMSOLL_FAKE_NVML_SCENARIO", &board.scenario);
            command.env("PLIMSOLL_FAKE_NVML_NODE", &self.node);
            command.env("PLIMSOLL_FAKE_NVML_CONTROL", self.gpu_control(world));
            if let Some(activity) = &board.activity {
                command.env("PLIMSOLL_FAKE_NVML_ACTIVITY", activity);
            }
        }
        if let Some(planner) = &self.planner {
            command.args(["--planner", &planner.address.to_string()]);
            match &planner.authority {
                Some(authority) => command.arg("--planner-ca").arg(authority),
                None => command.arg("--dev"),
            };
            if let Some(identity) = &planner.identity {
                command.arg("--tls-cert").arg(&identity.certificate).arg("--tls-key").arg(&identity.key);
            }
        }
        command.args(&self.flags);
        if let Some(host) = &self.host {
            host.hold(&mut command);
        }
        Ok(command)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub async fn start(&self, world: &World, http: &Http) -> anyhow::Result<Agent> {
        let mut process = world.start(&self.name, self.command(world)?)?;
        let address = process.address("http", START).await?;
        wait::until(&format!("ready {}", self.name), START, async || {
            process.check()?;
            Ok(match http.get(address, "/readyz").await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(answer.text),
                Err(error) => Err(format!("{error:#}")),
            })
        })
        .await?;
        Ok(Agent { process, address, http: http.clone() })
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Process,
    /// Where it serves its pages.
    pub address: SocketAddr,
    http: Http,
}

impl Agent {
    /// `/status`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn status(&self) -> anyhow::Result<Value> {
        self.http.json(self.address, "/status").await
    }

    /// Waits until `/status` is as it should be, and gives it.
    ///
    /// # Errors
    /// When it is not in time, or the agent ends.
    pub async fn status_where(
        &mut self,
        what: &str,
        within: std::time::Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        wait::until(what, within, async || {
            self.process.check()?;
            let status = self.http.json(self.address, "/status").await?;
            Ok(if holds(&status) { Ok(status) } else { Err(status.to_string()) })
        })
        .await
    }

    /// Waits until every engine's page was read: from then on, all that happens there counts.
    ///
    /// # Errors
    /// When one was not in time.
    pub async fn engines_ready(&mut self, engines: usize) -> anyhow::Result<()> {
        let what = format!("{engines} engines ready at {}", self.process.name());
        let ready = |status: &Value| status["sources"]["engines"]["ready"].as_u64() == Some(engines as u64);
        self.status_where(&what, START, ready).await.map(drop)
    }
}
