//! From a configuration to a served port, and back.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api},
    clock::Clock,
    config::Config,
    driver::{self, DriverHandle},
    gpu,
};

/// How long connections may take to close once everything in flight has been answered.
const CLOSING: Duration = Duration::from_secs(2);

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    api: Api,
    driver: DriverHandle,
    thread: thread::JoinHandle<()>,
    server: JoinHandle<io::Result<()>>,
    activity: JoinHandle<()>,
    closing: CancellationToken,
}

impl Emulator {
    /// Binds the port and serves. Waits for no start-up delay: [`run`] does.
    ///
    /// # Errors
    /// If the port, the request log or the address file cannot be had.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let clock = Clock::start();
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let (driver, thread) = driver::spawn(&config, clock)?;
        let api = Api::new(Arc::clone(&config), driver.clone());
        let closing = CancellationToken::new();
        let listener = listener.tap_io(|stream| {
            // Tokens are small and each must go out at once.
            let _ = stream.set_nodelay(true);
        });
        let server = axum::serve(listener, api::router(api.clone()))
            .with_graceful_shutdown(closing.clone().cancelled_owned())
            .into_future();
        let server = tokio::spawn(server);
        let activity = tokio::spawn(gpu::write_activity(Arc::clone(&config), Arc::clone(&driver.shared)));
        if let Some(path) = &config.address_file {
            let text = format!("{{\"http\":\"{address}\"}}\n");
            gpu::replace(path, &text).await.with_context(|| format!("cannot write {}", path.display()))?;
        }
        tracing::info!(%address, model = config.model, kind = ?config.kind, "serving");
        Ok(Self { address, api, driver, thread, server, activity, closing })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses new requests from now on with 503, lets those in flight finish, and stops.
    ///
    /// Those that last longer than `at_most` are cut off.
    pub async fn drain(self, at_most: Duration) {
        self.api.start_draining();
        tracing::info!(in_flight = self.api.in_flight(), "draining");
        if tokio::time::timeout(at_most, self.api.idle()).await.is_err() {
            tracing::warn!(in_flight = self.api.in_flight(), "the drain took too long: cutting off the rest");
        }
        self.closing.cancel();
        let mut emulator = self;
        let _ = tokio::time::timeout(CLOSING, &mut emulator.server).await;
        emulator.stop().await;
    }

    /// Stops at once: what is in flight is cut off.
    pub async fn stop(self) {
        self.server.abort();
        self.activity.abort();
        self.driver.stop();
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

/// Runs an emulator until SIGTERM or SIGINT.
///
/// # Errors
/// What [`Emulator::start`] meets, and a server that ends by itself.
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
        ended = &mut emulator.server => anyhow::bail!("the server ended by itself: {ended:?}"),
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
