//! One life of the engine's process: from its bound port to its end.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api},
    clock::Clock,
    config::Config,
    driver,
    exports::Exports,
    faults::Faults,
    gpu,
    serve::connection::Cuttable,
};

/// How long connections may take to close once everything in flight has been answered.
const CLOSING: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Holds a port while nothing listens on it: whoever connects then is refused, and nobody else is given the port.
#[derive(Debug)]
pub(super) struct Port {
    /// Never listens. Linux lets it and the listener share the port, since both are bound with SO_REUSEADDR.
    #[expect(dead_code, reason = "held for its drop")]
    placeholder: TcpSocket,
    address: SocketAddr,
}

impl Port {
    pub(super) fn take(wanted: SocketAddr) -> anyhow::Result<Self> {
        let placeholder = bound(wanted).with_context(|| format!("cannot listen on {wanted}"))?;
        let address = placeholder.local_addr()?;
        Ok(Self { placeholder, address })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&self) -> io::Result<TcpListener> {
        bound(self.address)?.listen(BACKLOG)
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A running engine and its HTTP side.
#[derive(Debug)]
pub(super) struct Incarnation {
    pub(super) api: Api,
    thread: thread::JoinHandle<()>,
    server: JoinHandle<io::Result<()>>,
    /// What tells others of the engine.
    tasks: Vec<JoinHandle<()>>,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Incarnation {
    pub(super) async fn start(config: Arc<Config>, faults: Faults, port: &Port) -> anyhow::Result<Self> {
        let listener = port.listen().with_context(|| format!("cannot listen on {}", port.address))?;
        let (exports, mut tasks) = Exports::open(&config).await?;
        let (driver, thread) = driver::spawn(&config, Clock::start(), exports)?;
        let api = Api::new(Arc::clone(&config), driver, faults);
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let server = axum::serve(Cuttable { listener, cut: cut.clone() }, api::router(api.clone()))
            .with_graceful_shutdown(closing.clone().cancelled_owned())
            .into_future();
        let server = tokio::spawn(server);
        let shared = Arc::clone(&api.driver.shared);
        tasks.push(tokio::spawn(gpu::write_activity(config, shared)));
        Ok(Self { api, thread, server, tasks, closing, cut })
    }

    /// Refuses new requests from now on with 503, lets those in flight finish, and stops.
    pub(super) async fn drain(self, at_most: Duration) {
        self.api.start_draining();
        tracing::info!(in_flight = self.api.in_flight(), "draining");
        if tokio::time::timeout(at_most, self.api.idle()).await.is_err() {
            tracing::warn!(in_flight = self.api.in_flight(), "the drain took too long: cutting off the rest");
        }
        self.closing.cancel();
        let mut this = self;
        let _ = tokio::time::timeout(CLOSING, &mut this.server).await;
        this.stop().await;
    }

    /// Stops at once: what is in flight is cut off, and every connection is reset.
    pub(super) async fn stop(self) {
        // After a drain it has ended already.
        if !self.server.is_finished() {
            self.server.abort();
            let _ = self.server.await;
        }
        self.cut.cancel();
        self.api.driver.stop();
        let thread = self.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        for task in self.tasks {
            task.abort();
            // Its port must be free before the next life.
            let _ = task.await;
        }
    }
}
