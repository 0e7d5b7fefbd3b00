//! A fleet of agents against a real planner: real QUIC connections, one report a second each, every report distinct.
//!
//! `fleet-load PLANNER-UDP AGENTS SECONDS busy|idle` prints one JSON line: reports, bytes on the wire, and how long it took
//! from a window's end to the acknowledgement that it is in the fleet. It counts once all agents are connected and a pause is
//! over; a line before that says so. How late it was itself, and what it spent, tell how much to believe it.

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
use plimsoll_benches::{
    fleet,
    program::{self, cpu_of_process as cpu},
};
use plimsoll_common::{
    ids::{AgentEpoch, BootId, NodeName, Seq},
    wire::{ALPN, FrameDecoder, FrameEncoder, Hello, Message},
};
use plimsoll_shell::tls;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep},
};

/// How it names itself.
const PROGRAM: &str = "fleet-load";
/// Connections that share a UDP socket here; the planner sees no difference.
const CONNECTIONS_PER_SOCKET: u64 = 50;
/// Handshakes a second, so that the planner's own limits are not what is measured.
const HANDSHAKES_PER_SECOND: u32 = 300;
/// Handshakes under way at a time: where the machine is slow they wait for each other, and the planner refuses none.
const HANDSHAKES_AT_A_TIME: usize = 64;
/// Between the last handshake and the first report that counts: what handshakes held up is over by then.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Load {
    encoder: Mutex<FrameEncoder>,
    decoder: Mutex<FrameDecoder>,
    planner: SocketAddr,
    client: quinn::ClientConfig,
    busy: bool,
    /// When it counts, from and until; unknown while agents connect.
    counted: watch::Sender<Option<(Instant, Instant)>>,
    handshakes: Semaphore,
    connected: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
    wire_bytes: AtomicU64,
    frame_bytes: AtomicU64,
    /// Microseconds from a window's end to its acknowledgement.
    latencies: Mutex<Vec<u32>>,
    /// Microseconds from a window's end until we looked at it.
    late: Mutex<Vec<u32>>,
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
    program::end(PROGRAM, ended)
}

async fn run() -> anyhow::Result<String> {
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
    let load = Arc::new(Load {
        encoder: Mutex::new(FrameEncoder::new()?),
        decoder: Mutex::new(FrameDecoder::new()?),
        planner: planner.parse()?,
        client,
        busy: load == "busy",
        counted: watch::Sender::new(None),
        handshakes: Semaphore::new(HANDSHAKES_AT_A_TIME),
        connected: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        wire_bytes: AtomicU64::new(0),
        frame_bytes: AtomicU64::new(0),
        latencies: Mutex::default(),
        late: Mutex::default(),
    });
    let (mut tasks, mut endpoint) = (JoinSet::new(), None);
    let mut turn = interval(Duration::from_secs(1) / HANDSHAKES_PER_SECOND);
    for node in 0..agents {
        if node % CONNECTIONS_PER_SOCKET == 0 {
            endpoint = Some(quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?);
        }
        let endpoint = endpoint.clone().context("no socket")?;
        turn.tick().await;
        tasks.spawn(agent(Arc::clone(&load), endpoint, node));
    }
    while load.connected.load(Ordering::Relaxed) + load.failed.load(Ordering::Relaxed) < agents {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(PAUSE).await;
    program::tell(&format!("{{\"connected\":{}}}", load.connected.load(Ordering::Relaxed)));
    let (from, begun) = (Instant::now(), cpu());
    load.counted.send_replace(Some((from, from + Duration::from_secs(seconds))));
    sleep(Duration::from_secs(seconds)).await;
    let spent = cpu() - begun;
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(report(&load, agents, spent))
}

/// The value below which a share of the values is; 0 where there is none.
fn at(values: &Mutex<Vec<u32>>, share: f64) -> u32 {
    let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get(((values.len() as f64 * share) as usize).min(last)).copied().unwrap_or(0)
}

fn report(load: &Load, agents: u64, spent: Duration) -> String {
    let sent = load.sent.load(Ordering::Relaxed).max(1);
    let latencies = &load.latencies;
    let acknowledged = latencies.lock().unwrap_or_else(PoisonError::into_inner).len();
    format!(
        "{{\"agents\":{agents},\"failed\":{},\"reports\":{sent},\"acknowledged\":{acknowledged},\"frame_bytes\":{},\
         \"wire_bytes\":{},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{},\"generator_p99_late_us\":{},\
         \"generator_cpu_us\":{:.1}}}",
        load.failed.load(Ordering::Relaxed),
        load.frame_bytes.load(Ordering::Relaxed) / sent,
        load.wire_bytes.load(Ordering::Relaxed) / sent,
        at(latencies, 0.5),
        at(latencies, 0.99),
        at(latencies, 0.999),
        at(latencies, 1.0),
        at(&load.late, 0.99),
        spent.as_secs_f64() * 1e6 / sent as f64,
    )
}

/// One agent; that it failed is told and counted.
async fn agent(load: Arc<Load>, endpoint: quinn::Endpoint, node: u64) {
    if let Err(error) = live(&load, endpoint, node).await
        && load.failed.fetch_add(1, Ordering::Relaxed) < 3
    {
        program::complain(PROGRAM, &error);
    }
}

async fn live(load: &Arc<Load>, endpoint: quinn::Endpoint, node: u64) -> anyhow::Result<()> {
    let handshake = load.handshakes.acquire().await?;
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
    let listening = tokio::spawn(listen(Arc::clone(load), down, Arc::clone(&waiting)));
    drop(handshake);
    load.connected.fetch_add(1, Ordering::Relaxed);
    let ended = talk(load, &quic, node, &waiting).await;
    listening.abort();
    if ended.is_err() {
        load.connected.fetch_sub(1, Ordering::Relaxed);
    }
    ended?;
    quic.close(quinn::VarInt::from_u32(0), b"");
    Ok(())
}

/// Reports once a second until it no longer counts.
async fn talk(load: &Load, quic: &quinn::Connection, node: u64, waiting: &Waiting) -> anyhow::Result<()> {
    // Every agent at its own point of the second.
    let phase = Duration::from_micros(node.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000);
    let mut ticks = interval_at(Instant::now() + phase, Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = None;
    for seq in 1.. {
        let end = ticks.tick().await;
        let counted = *load.counted.borrow();
        if counted.is_some_and(|(_, until)| end >= until) {
            break;
        }
        let late = micros(end.elapsed());
        let frame = load.encode(&Message::Report(Box::new(fleet::report(node, seq, load.busy))))?;
        if counted.is_some_and(|(from, _)| end >= from) {
            before.get_or_insert_with(|| quic.stats().udp_tx.bytes);
            load.sent.fetch_add(1, Ordering::Relaxed);
            load.frame_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            load.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
            waiting.lock().unwrap_or_else(PoisonError::into_inner).push((seq, end));
        }
        send(quic, &frame).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let bytes = quic.stats().udp_tx.bytes - before.unwrap_or(0);
    load.wire_bytes.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
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
                latencies.push(micros(now.duration_since(*end)));
            }
            *seq > acked
        });
    }
}
