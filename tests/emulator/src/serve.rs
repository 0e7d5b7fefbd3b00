//! From a configuration to a served port, and back.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use crate::{config::Config, gpu, script::Script};

mod admin;
mod connection;
mod incarnation;
mod supervisor;

use incarnation::Port;
use supervisor::{Control, Supervisor};

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    passes: Option<Port>,
    control: Control,
    supervisor: JoinHandle<anyhow::Result<()>>,
    /// The admin port and the script: what ends with the emulator.
    others: Vec<JoinHandle<()>>,
}

impl Emulator {
    /// Binds the port and serves. Waits for no start-up delay: [`run`] does.
    ///
    /// # Errors
    /// If a port, the request log or the address file cannot be had.
    pub async fn start(mut config: Config) -> anyhow::Result<Self> {
        let (address_file, script) = (config.address_file.clone(), config.script.clone());
        let admin = match config.admin {
            Some(wanted) => {
                Some(TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}"))?)
            }
            None => None,
        };
        let port = Port::take(config.listen)?;
        let address = port.address();
        tracing::info!(%address, model = config.model, engine = ?config.kind, "serving");
        // Held for all lives: a subscriber finds the next one where the last one was.
        let passes = config.exports.passes.map(Port::take).transpose()?;
        config.exports.passes = passes.as_ref().map(Port::address);
        let (supervisor, control) = Supervisor::start(config, port).await?;
        let supervisor = tokio::spawn(supervisor.run());
        let mut others = vec![tokio::spawn(play(script, control.clone()))];
        let mut addresses = json!({ "http": address.to_string() });
        if let Some(port) = &passes {
            addresses["fpm"] = json!(port.address().to_string());
        }
        let mut admin_address = None;
        if let Some(listener) = admin {
            let address = listener.local_addr()?;
            addresses["admin"] = json!(address.to_string());
            admin_address = Some(address);
            let router = admin::router(control.clone());
            others.push(tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::warn!(%error, "the admin port ended");
                }
            }));
        }
        if let Some(path) = address_file {
            let written = gpu::replace(&path, &format!("{addresses}\n")).await;
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self { address, admin: admin_address, passes, control, supervisor, others })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where states and faults are switched, if anywhere.
    #[must_use]
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where forward passes are published, if anywhere.
    #[must_use]
    pub fn passes(&self) -> Option<SocketAddr> {
        self.passes.as_ref().map(Port::address)
    }

    /// Refuses new requests from now on with 503, lets those in flight finish, and stops.
    ///
    /// Those that last longer than `at_most` are cut off.
    pub async fn drain(self, at_most: Duration) {
        self.control.drain(at_most).await;
        self.end().await;
    }

    /// Stops at once: what is in flight is cut off, and every connection is reset.
    pub async fn stop(self) {
        self.control.stop().await;
        self.end().await;
    }

    async fn end(self) {
        for task in self.others {
            task.abort();
        }
        match self.supervisor.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("{error:#}"),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => tracing::error!(%error, "the supervisor was cancelled"),
        }
    }
}

/// Does what the script says, when it says so.
async fn play(script: Script, control: Control) {
    let started = tokio::time::Instant::now();
    for (at, action) in script.into_steps() {
        tokio::time::sleep_until(started + at).await;
        if let Err(reason) = control.act(action).await {
            tracing::warn!(reason, "a step of the script was not done");
        }
    }
}

/// Runs an emulator until SIGTERM or SIGINT.
///
/// # Errors
/// What [`Emulator::start`] meets, and an engine that cannot be started again.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let drain = config.drain;
    if let Some(path) = &config.address_file {
        // The address of a former run must not be taken for this one's.
        let _ = tokio::fs::remove_file(path).await;
    }
    tokio::select! {
        () = tokio::time::sleep(config.startup_delay) => {}
        () = signals.next() => return Ok(()),
    }
    let mut emulator = Emulator::start(config).await?;
    tokio::select! {
        () = signals.next() => {}
        ended = &mut emulator.supervisor => return ended.context("the supervisor panicked")?,
    }
    match drain {
        None => emulator.stop().await,
        Some(at_most) => tokio::select! {
            () = emulator.drain(at_most) => {}
            () = signals.next() => tracing::warn!("second signal: leaving at once"),
        },
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
