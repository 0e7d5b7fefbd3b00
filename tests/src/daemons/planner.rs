//! Planners.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use serde_json::Value;

use super::START;
use crate::{host::Host, http::Http, process::Process, tls::Identity, wait, world::World};

/// A planner to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannerSpec {
    /// Its name, and that of its files.
    pub name: String,
    /// Where it takes reports.
    pub quic: SocketAddr,
    /// Where it serves its pages.
    pub http: SocketAddr,
    /// How it shows who it is.
    pub tls: PlannerTls,
    /// Flags besides.
    pub flags: Vec<String>,
    /// The host that it believes to be on, where that is not this machine as it is.
    pub host: Option<Host>,
}

/// How a planner shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannerTls {
    /// With a certificate; and it asks agents for one of this authority, if there is one.
    Certificate(Identity, Option<PathBuf>),
    /// With a throw-away certificate that it makes for itself.
    Dev,
}

impl PlannerSpec {
    /// A planner on free ports of the loopback interface.
    #[must_use]
    pub fn new(name: &str, tls: PlannerTls) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { name: name.to_owned(), quic: free, http: free, tls, flags: Vec::new(), host: None }
    }

    /// The command, without what is given to every process.
    #[must_use]
    pub fn command(&self, world: &World) -> Command {
        let mut command = Command::new(&world.artifacts().planner);
        command.args(["--listen-quic", &self.quic.to_string(), "--listen-http", &self.http.to_string()]);
        match &self.tls {
            PlannerTls::Dev => {
                command.arg("--dev");
            }
            PlannerTls::Certificate(identity, clients) => {
                command.arg("--tls-cert").arg(&identity.certificate).arg("--tls-key").arg(&identity.key);
                if let Some(authority) = clients {
                    command.arg("--tls-client-ca").arg(authority);
                }
            }
        }
        command.args(&self.flags);
        if let Some(host) = &self.host {
            host.hold(&mut command);
        }
        command
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up in time.
    pub async fn start(&self, world: &World, http: &Http) -> anyhow::Result<Planner> {
        let mut process = world.start(&self.name, self.command(world))?;
        let quic = process.address("quic", START).await?;
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
        Ok(Planner { process, quic, address, http: http.clone() })
    }
}

/// A running planner.
#[derive(Debug)]
pub struct Planner {
    /// The process.
    pub process: Process,
    /// Where it takes reports (UDP).
    pub quic: SocketAddr,
    /// Where it serves its pages.
    pub address: SocketAddr,
    http: Http,
}

impl Planner {
    /// A page of its JSON API.
    ///
    /// # Errors
    /// When there is none.
    pub async fn api(&self, path: &str) -> anyhow::Result<Value> {
        self.http.json(self.address, path).await
    }
}
