//! A fleet of agents against a real planner: real QUIC connections, one report a second each, every report distinct.
//!
//! `fleet-load PLANNER-UDP AGENTS SECONDS busy|idle` prints one JSON line: reports, bytes on the wire, and how long it took
//! from a window's end to the acknowledgement that it is in the fleet.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use plimsoll_benches::fleet;
use plimsoll_common::{
    ids::{AgentEpoch, BootId, NodeName, Seq},
    wire::{ALPN, FrameDecoder, FrameEncoder, Hello, Message},
};
use plimsoll_shell::tls;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

/// Connections that share a UDP socket here; the planner sees no difference.
const CONNECTIONS_PER_SOCKET: u64 = 50;
/// Handshakes a second, so that the planner's own limits are not what is measured.
const HANDSHAKES_PER_SECOND: u64 = 500;

#[derive(Debug)]
struct Load {
    encoder: Mutex<FrameEncoder>,
    decoder: Mutex<FrameDecoder>,
    planner: SocketAddr,
    client: quinn::ClientConfig,
    busy: bool,
    /// From here on it counts.
    from: Instant,
    until: Instant,
    sent: AtomicU64,
    wire_bytes: AtomicU64,
    frame_bytes: AtomicU64,
    /// Microseconds from a window's end to its acknowledgement.
    latencies: Mutex<Vec<u32>>,
}

impl Load {
    fn encode(&self, message: &Message) -> anyhow::Result<Vec<u8>> {
        Ok(self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(message, 0)?)
    }

    fn acked(&self, frame: &[u8]) -> anyhow::Result<Option<Seq>> {
        let frame = self.decoder.lock().unwrap_or_else(PoisonError::into_inner).decode(frame)?;
        Ok(if let Message::Ack(ack) = frame.message { Some(ack.seq) } else { None })
    }
}

fn main() -> ExitCode {
    tls::install_crypto();
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(run()));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a person waits for the reason")]
fn complain(error: &anyhow::Error) {
    eprintln!("fleet-load: {error:#}");
}

#[expect(clippy::print_stdout, reason = "the result is what it is for")]
fn tell(line: &str) {
    println!("{line}");
}

async fn run() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: fleet-load PLANNER-UDP AGENTS SECONDS busy|idle");
    let (planner, agents, seconds, load) = (next()?, next()?, next()?, next()?);
    let (agents, seconds): (u64, u64) = (agents.parse()?, seconds.parse()?);
    let tls = tls::client(tls::Trust::Anybody, None, ALPN)?;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)?;
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(10)));
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport));
    let from = Instant::now() + Duration::from_secs(agents / HANDSHAKES_PER_SECOND + 10);
    let load = Arc::new(Load {
        encoder: Mutex::new(FrameEncoder::new()?),
        decoder: Mutex::new(FrameDecoder::new()?),
        planner: planner.parse()?,
        client,
        busy: load == "busy",
        from,
        until: from + Duration::from_secs(seconds),
        sent: AtomicU64::new(0),
        wire_bytes: AtomicU64::new(0),
        frame_bytes: AtomicU64::new(0),
        latencies: Mutex::new(Vec::new()),
    });
    let mut tasks = JoinSet::new();
    let mut endpoint = None;
    for node in 0..agents {
        if node % CONNECTIONS_PER_SOCKET == 0 {
            endpoint = Some(quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?);
        }
        let endpoint = endpoint.clone().context("no socket")?;
        tasks.spawn(agent(Arc::clone(&load), endpoint, node));
        sleep(Duration::from_secs(1) / HANDSHAKES_PER_SECOND as u32).await;
    }
    let mut failed = 0;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended? {
            failed += 1;
            if failed < 4 {
                complain(&error);
            }
        }
    }
    report(&load, agents, failed);
    Ok(())
}

fn report(load: &Load, agents: u64, failed: u64) {
    let mut latencies = load.latencies.lock().unwrap_or_else(PoisonError::into_inner);
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    let sent = load.sent.load(Ordering::Relaxed).max(1);
    tell(&format!(
        "{{\"agents\":{agents},\"failed\":{failed},\"reports\":{sent},\"acknowledged\":{},\"frame_bytes\":{},\"wire_bytes\":{},\
         \"p50_us\":{},\"p99_us\":{},\"max_us\":{}}}",
        latencies.len(),
        load.frame_bytes.load(Ordering::Relaxed) / sent,
        load.wire_bytes.load(Ordering::Relaxed) / sent,
        at(0.5),
        at(0.99),
        latencies.last().copied().unwrap_or(0),
    ));
}

async fn agent(load: Arc<Load>, endpoint: quinn::Endpoint, node: u64) -> anyhow::Result<()> {
    let quic = endpoint.connect_with(load.client.clone(), load.planner, "localhost")?.await?;
    let (mut up, down) = quic.open_bi().await?;
    let hello = Hello {
        node: NodeName::parse(&format!("node-{node}"))?,
        boot: BootId::parse("boot")?,
        epoch: AgentEpoch(1),
        version: "bench".to_owned(),
        wall_ms: None,
        oldest: Some(Seq(1)),
        token: None,
    };
    let frame = load.encode(&Message::Hello(hello))?;
    up.write_all(&(frame.len() as u32).to_be_bytes()).await?;
    up.write_all(&frame).await?;
    send(&quic, &load.encode(&Message::Inventory(Box::new(fleet::inventory(node)?)))?).await?;
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let listening = tokio::spawn(listen(Arc::clone(&load), down, Arc::clone(&waiting)));
    // Every agent at its own point of the second.
    let phase = Duration::from_micros(node.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000);
    let mut ticks = interval_at(Instant::now() + phase, Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = None;
    for seq in 1.. {
        let end = ticks.tick().await;
        if end >= load.until {
            break;
        }
        let frame = load.encode(&Message::Report(Box::new(fleet::report(node, seq, load.busy))))?;
        if end >= load.from {
            before.get_or_insert_with(|| quic.stats().udp_tx.bytes);
            load.sent.fetch_add(1, Ordering::Relaxed);
            load.frame_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            waiting.lock().unwrap_or_else(PoisonError::into_inner).push((seq, end));
        }
        send(&quic, &frame).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let bytes = quic.stats().udp_tx.bytes - before.unwrap_or(0);
    load.wire_bytes.fetch_add(bytes, Ordering::Relaxed);
    listening.abort();
    quic.close(quinn::VarInt::from_u32(0), b"");
    Ok(())
}

async fn send(quic: &quinn::Connection, frame: &[u8]) -> anyhow::Result<()> {
    let mut stream = quic.open_uni().await?;
    stream.write_all(frame).await?;
    stream.finish()?;
    Ok(())
}

type Waiting = Arc<Mutex<Vec<(u64, Instant)>>>;

async fn listen(load: Arc<Load>, mut down: quinn::RecvStream, waiting: Waiting) -> anyhow::Result<()> {
    loop {
        let mut length = [0; 4];
        down.read_exact(&mut length).await?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        down.read_exact(&mut frame).await?;
        let now = Instant::now();
        let Some(Seq(acked)) = load.acked(&frame)? else { continue };
        let mut latencies = load.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|(seq, end)| {
            if *seq <= acked {
                latencies.push(u32::try_from(now.duration_since(*end).as_micros()).unwrap_or(u32::MAX));
            }
            *seq > acked
        });
    }
}
