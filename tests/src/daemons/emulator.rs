//! Engines without a GPU.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use anyhow::ensure;
use serde_json::Value;

use super::START;
use crate::{
    http::Http,
    openai::{self, Answer, Prompt},
    process::Process,
    request_log::{self, Ended},
    wait,
    world::World,
};

/// An engine to start.
#[derive(Debug, Clone, PartialEq)]
pub struct EmulatorSpec {
    /// Its name, and that of its files.
    pub name: String,
    /// The model it serves.
    pub model: String,
    /// One of the emulator's built-in profiles.
    pub profile: String,
    /// Iterations are this many times faster than the profile says.
    pub speed: f64,
    /// The GPUs that it pretends to use.
    pub gpus: Vec<String>,
    /// The folder in which it says what it does to them.
    pub activity: Option<PathBuf>,
    /// Where to listen; a free port if not given.
    pub listen: Option<SocketAddr>,
    /// Flags besides.
    pub flags: Vec<String>,
}

impl EmulatorSpec {
    /// An engine of this name and model, at the profile's own speed.
    #[must_use]
    pub fn new(name: &str, model: &str, profile: &str) -> Self {
        Self {
            name: name.to_owned(),
            model: model.to_owned(),
            profile: profile.to_owned(),
            speed: 1.0,
            gpus: Vec::new(),
            activity: None,
            listen: None,
            flags: Vec::new(),
        }
    }

    /// The command, without what is given to every process.
    #[must_use]
    pub fn command(&self, world: &World) -> Command {
        let mut command = Command::new(&world.artifacts().emulator);
        command.args([
            "--model",
            &self.model,
            "--profile",
            &self.profile,
            "--speed",
            &self.speed.to_string(),
        ]);
        command.args(["--admin", "127.0.0.1:0"]);
        if let Some(listen) = self.listen {
            command.args(["--listen", &listen.to_string()]);
        }
        if let (Some(folder), false) = (&self.activity, self.gpus.is_empty()) {
            command.arg("--gpu-activity").arg(folder.join(&self.name));
            command.args(self.gpus.iter().flat_map(|uuid| ["--gpu", uuid]));
        }
        command.arg("--request-log").arg(self.request_log(world)).args(&self.flags);
        command
    }

    /// Where its exact record goes.
    #[must_use]
    pub fn request_log(&self, world: &World) -> PathBuf {
        world.file(&format!("{}.requests.jsonl", self.name))
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub async fn start(&self, world: &World, http: &Http) -> anyhow::Result<Emulator> {
        self.serving(self.launch(world)?, self.request_log(world), http).await
    }

    /// Starts its process, which serves in a while.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn launch(&self, world: &World) -> anyhow::Result<Process> {
        world.start(&self.name, self.command(world))
    }

    /// Waits until a process that was launched serves.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub async fn serving(
        &self,
        mut process: Process,
        request_log: PathBuf,
        http: &Http,
    ) -> anyhow::Result<Emulator> {
        let address = process.address("http", START).await?;
        let admin = process.address("admin", START).await?;
        // Not its health: SGLang's generates a token, which its page then counts.
        wait::until(&format!("answers of {}", self.name), START, async || {
            process.check()?;
            Ok(match http.get(address, "/emulator/exact").await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status)),
                Err(error) => Err(format!("{error:#}")),
            })
        })
        .await?;
        Ok(Emulator { process, address, admin, model: self.model.clone(), request_log, http: http.clone() })
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Emulator {
    /// The process.
    pub process: Process,
    /// Where it serves.
    pub address: SocketAddr,
    /// Where states and faults are switched.
    pub admin: SocketAddr,
    /// The model it serves.
    pub model: String,
    /// Its exact record.
    pub request_log: PathBuf,
    http: Http,
}

impl Emulator {
    /// The root URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a prompt and reads the whole answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn complete(&self, prompt: Prompt) -> anyhow::Result<Answer> {
        openai::complete(&self.http, self.address, &self.model, prompt).await
    }

    /// Switches a state or a fault: `freeze`, `thaw`, `sleep`, `wake`, `restart:2`, `gone`, `back`, `slow:0.5`,
    /// `torn:mixed`, `locked`, `heal`; see `plimsoll-emulator --help`.
    ///
    /// # Errors
    /// When it can't be done.
    pub async fn order(&self, what: &str) -> anyhow::Result<()> {
        let answer = self.http.post(self.admin, "/do", what.to_owned()).await?;
        ensure!(answer.status().is_success(), "{what}: status {}", answer.status());
        Ok(())
    }

    /// What the engine itself says of its latencies.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn exact(&self) -> anyhow::Result<Value> {
        self.http.json(self.address, "/emulator/exact").await
    }

    /// The requests that ended so far.
    ///
    /// # Errors
    /// When the record can't be read.
    pub fn ended(&self) -> anyhow::Result<Vec<Ended>> {
        request_log::read(&self.request_log)
    }
}
