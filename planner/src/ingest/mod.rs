//! Agents' QUIC connections: accepted, bounded, decoded, and turned into [`Event`]s for the driver.

mod assembly;
mod bucket;
mod connection;
mod control;
mod cursor;
mod identity;
mod stats;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use plimsoll_common::wire::{
    Ack, CloseCode, Frame, FrameDecoder, FrameEncoder, Gap, Hello, Message, Request, WireError,
};
use quinn::{Incoming, TransportConfig, VarInt, crypto::rustls::QuicServerConfig};
use rustix::net::sockopt;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use assembly::{Assembly, Error as AssemblyError, Window};
pub use bucket::Bucket;
pub use cursor::{Cursor, GAP_PATIENCE, Verdict};
pub use identity::{Anybody, Certificates, Checked, Claim, Keys, NodeVerifier, Unproven, node_keys};
pub use stats::{CLOSE_LABELS, Count, Held, IngestStats, Level};

use crate::clock::Clock;

/// The most streams with a frame each that an agent may have under way. Credit for more is given back by the eighth: an agent
/// with one report a second needs a datagram for it every eighth second.
const MAX_STREAMS: u32 = 64;
/// What an agent may have under way that we have not read yet: its busiest second twenty times over, and room enough for
/// any frame, since we read on while it comes. quinn's defaults allow 1.25 MB a stream and no bound a connection.
const CONNECTION_WINDOW: u32 = 64 * 1024;
/// Half of that, so that a frame that waits for its turn leaves room for others.
const STREAM_WINDOW: u32 = CONNECTION_WINDOW / 2;
/// How many frames beyond the ordinary size are read at a time, of all agents together.
const LARGE_FRAMES: usize = 256;
/// What the socket may hold while the planner's thread is busy with something else, where the system allows it: a second of
/// 10,000 agents.
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// We send acknowledgements of a dozen bytes.
const SEND_WINDOW: u64 = 64 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// How long closing frames may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection's number within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What connections tell the driver.
#[derive(Debug)]
pub enum Event {
    /// An agent said hello. The driver answers through `answers`, at once and after every window.
    Hello {
        /// On which connection.
        connection: ConnectionId,
        /// Who it is.
        hello: Arc<Hello>,
        /// Where answers go; only the newest counts.
        answers: watch::Sender<Answer>,
    },
    /// An agent says that windows will never come.
    Gap {
        /// Who.
        hello: Arc<Hello>,
        /// Which.
        gap: Gap,
    },
    /// A window came.
    Window {
        /// From whom.
        hello: Arc<Hello>,
        /// What.
        window: Box<Window>,
    },
    /// A connection ended.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Whose it was.
        hello: Arc<Hello>,
    },
}

/// What the driver tells a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Nothing,
    /// Up to where windows were applied, and what is asked for.
    Applied(Ack, Request),
    /// The connection has to end, with this reason.
    End(CloseCode, &'static str),
}

/// Bounds of ingest.
#[derive(Debug, Clone, Copy)]
pub struct IngestOptions {
    /// The most connections at a time.
    pub max_connections: u64,
    /// From so many connections before their hello on, a peer has to prove its address first.
    pub retry_from_pending: u64,
    /// The most connections before their hello; more are refused.
    pub max_pending: u64,
    /// How long a handshake, and then the hello, may take.
    pub handshake_timeout: Duration,
    /// How long one frame may take to arrive.
    pub frame_timeout: Duration,
    /// The least time between two acknowledgements on one connection.
    pub ack_interval: Duration,
    /// How many frames of the ordinary size an agent may send at a time after a rest.
    pub burst_frames: u32,
    /// How many frames of the ordinary size an agent may send a second.
    pub frames_per_second: u32,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            max_connections: 25_000,
            retry_from_pending: 64,
            max_pending: 1024,
            handshake_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(30),
            ack_interval: Duration::from_millis(200),
            burst_frames: 1_000,
            frames_per_second: 50,
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    options: IngestOptions,
    verifier: Box<dyn NodeVerifier>,
    stats: Arc<IngestStats>,
    events: mpsc::Sender<Event>,
    clock: Clock,
    cancel: CancellationToken,
    /// One decoder for all: its scratch memory is as large as the largest message, and a frame takes microseconds.
    decoder: Mutex<FrameDecoder>,
    /// One encoder for all, for the same reason.
    encoder: Mutex<FrameEncoder>,
    /// The turns of large frames.
    large: Arc<Semaphore>,
}

impl Shared {
    /// Decodes a frame and counts what is wrong with it.
    fn decode(&self, frame: &[u8]) -> Result<Frame, WireError> {
        self.stats.frame_bytes.add(frame.len() as u64);
        self.decoder.lock().unwrap_or_else(PoisonError::into_inner).decode(frame)
    }

    fn encode(&self, message: &Message) -> Result<Vec<u8>, WireError> {
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(message, 0)
    }
}

/// Who is let in.
#[derive(Debug)]
pub struct Door {
    /// Speaks ALPN `plimsoll/1` and TLS 1.3.
    pub tls: rustls::ServerConfig,
    /// Decides who may speak for which node.
    pub verifier: Box<dyn NodeVerifier>,
}

/// A bound UDP port that takes agents' connections.
#[derive(Debug)]
pub struct Ingest {
    endpoint: quinn::Endpoint,
    shared: Arc<Shared>,
}

impl Ingest {
    /// Binds the port.
    ///
    /// # Errors
    /// When the port can't be bound or the TLS configuration does not do for QUIC.
    pub fn bind(
        address: SocketAddr,
        door: Door,
        options: IngestOptions,
        stats: Arc<IngestStats>,
        events: mpsc::Sender<Event>,
        clock: Clock,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let Door { tls, verifier } = door;
        let socket = socket(address).with_context(|| format!("listen-quic: {address} can't be bound"))?;
        let endpoint = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            Some(server_config(tls)?),
            socket,
            Arc::new(quinn::TokioRuntime),
        )?;
        let (decoder, encoder) = (Mutex::new(FrameDecoder::new()?), Mutex::new(FrameEncoder::new()?));
        let large = Arc::new(Semaphore::new(LARGE_FRAMES));
        let shared = Shared { options, verifier, stats, events, clock, cancel, decoder, encoder, large };
        Ok(Self { endpoint, shared: Arc::new(shared) })
    }

    /// What takes a renewed certificate while connections go on.
    #[must_use]
    pub fn renewal(&self) -> Renewal {
        Renewal(self.endpoint.clone())
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Takes connections until cancelled; then every agent is told to come back and the port is let go.
    ///
    /// # Errors
    /// When the endpoint ends by itself.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { endpoint, shared } = self;
        let mut connections = JoinSet::new();
        let mut next = 0;
        loop {
            tokio::select! {
                () = shared.cancel.cancelled() => break,
                incoming = endpoint.accept() => {
                    let incoming = incoming.context("the QUIC endpoint ended")?;
                    if admit(&shared, &incoming, connections.len() as u64) {
                        next += 1;
                        connections.spawn(connection::run(incoming, ConnectionId(next), Arc::clone(&shared)));
                    } else {
                        turn_away(&shared, incoming);
                    }
                }
                ended = connections.join_next(), if !connections.is_empty() => {
                    if let Some(Err(error)) = ended {
                        tracing::error!(%error, "a connection's task broke");
                    }
                }
            }
        }
        // Handshakes under way end here; the others have seen the cancellation and close in order.
        endpoint.set_server_config(None);
        while connections.join_next().await.is_some() {}
        drop(shared);
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        Ok(())
    }
}

/// Takes a renewed certificate for connections to come; those that stand keep the one that they were made with.
#[derive(Debug, Clone)]
pub struct Renewal(quinn::Endpoint);

impl Renewal {
    /// Shows and trusts what `tls` says from now on.
    ///
    /// # Errors
    /// When the TLS configuration does not do for QUIC; then the last one stays.
    pub fn renew(&self, tls: rustls::ServerConfig) -> anyhow::Result<()> {
        self.0.set_server_config(Some(server_config(tls)?));
        Ok(())
    }
}

/// Whether there is room for one more, and its address is believed.
fn admit(shared: &Shared, incoming: &Incoming, open: u64) -> bool {
    let pending = shared.stats.pending.get();
    open < shared.options.max_connections
        && pending < shared.options.max_pending
        && (incoming.remote_address_validated() || pending < shared.options.retry_from_pending)
}

fn turn_away(shared: &Shared, incoming: Incoming) {
    let room = shared.stats.connections.get() < shared.options.max_connections;
    if room && shared.stats.pending.get() < shared.options.max_pending && incoming.may_retry() {
        shared.stats.retried.one();
        // It fails only for peers that may not be sent back, which was asked.
        let _ = incoming.retry();
    } else {
        shared.stats.refused.one();
        incoming.refuse();
    }
}

/// A socket whose buffer takes what a fleet sends while the planner's thread does something else. The system's default of
/// 208 KiB is full after 270 small datagrams.
fn socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
    // The system doubles what it is told, for its own records.
    let granted = sockopt::socket_recv_buffer_size(&socket)? / 2;
    if granted < RECEIVE_BUFFER_BYTES {
        tracing::info!(
            granted,
            wanted = RECEIVE_BUFFER_BYTES,
            "the system limits the socket's receive buffer; for a thousand agents and more raise net.core.rmem_max"
        );
    }
    Ok(socket)
}

fn server_config(tls: rustls::ServerConfig) -> anyhow::Result<quinn::ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls).context("TLS can't be used for QUIC")?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(4096)
        .incoming_buffer_size(16 * 1024)
        .incoming_buffer_size_total(32 * 1024 * 1024);
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    transport
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keeps NAT and conntrack entries alive, and ends a connection whose agent vanished. quinn shows settings no other
    /// way.
    #[test]
    fn connections_are_kept_alive_and_end_in_silence() {
        let shown = format!("{:?}", transport());
        for setting in ["keep_alive_interval: Some(10s)", "max_idle_timeout: Some(30000)"] {
            assert!(shown.contains(setting), "{shown}");
        }
    }
}
