//! The way to one planner: a connection that comes back, and what is sent over it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use plimsoll_common::{
    ids::{AgentEpoch, Generation, PlannerRun},
    wire::{ALPN, CloseCode, Hello, Token},
};
use plimsoll_shell::tls;
use quinn::Connection;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Uplink,
    connection::{Control, FromPlanner, Link, Up, client_config, send},
    spool::Outgoing,
    status::{LinkState, LinkStatus},
};
use crate::{backoff::Backoff, config::Planner};

/// Between the first and second try; every failure doubles the longest wait, up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that lasted this long begins with short waits again when it ends.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// A planner that leaves reports unacknowledged for this long is taken for dead, whatever QUIC believes.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at what is not acknowledged.
const ACK_LOOK: Duration = Duration::from_millis(500);
/// How long the last report may wait for its acknowledgement at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Between two looks whether a planner that is connected under another address still is.
const PARKED_LOOK: Duration = Duration::from_secs(5);

/// What all links of an agent share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) uplink: Uplink,
    pub(super) planner: Planner,
    hello: Hello,
    /// Rung when a link failed: perhaps the name stands for other addresses now.
    trouble: Arc<Notify>,
    /// Under which address each run of a planner is connected: a name may stand for several addresses of one.
    owners: Mutex<BTreeMap<PlannerRun, SocketAddr>>,
    /// What could be read last of certificates and token; they may be renewed at any time.
    credentials: Mutex<Credentials>,
}

/// What the agent shows and trusts, as last read.
#[derive(Debug, Clone)]
struct Credentials {
    config: quinn::ClientConfig,
    token: Option<Token>,
}

impl Credentials {
    fn read(planner: &Planner) -> anyhow::Result<Self> {
        let trust = match &planner.ca {
            Some(ca) => tls::Trust::Roots(tls::trust(ca)?),
            None => tls::Trust::Anybody,
        };
        let identity = planner
            .identity
            .as_ref()
            .map(|(cert, key)| tls::Identity::from_pem_files(cert, key))
            .transpose()?;
        let token = planner.token.as_deref().map(read_token).transpose()?;
        Ok(Self { config: client_config(tls::client(trust, identity, ALPN)?)?, token })
    }
}

fn read_token(path: &std::path::Path) -> anyhow::Result<Token> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    Token::parse(&text)
        .with_context(|| format!("{} holds no token of 1 to {} bytes", path.display(), Token::MAX_BYTES))
}

impl Shared {
    pub(super) fn new(
        uplink: Uplink,
        planner: Planner,
        hello: Hello,
        trouble: Arc<Notify>,
    ) -> anyhow::Result<Self> {
        if planner.ca.is_none() {
            tracing::warn!(
                "--dev: any planner is trusted, nobody vouches for it; never use this outside a test"
            );
        }
        let credentials = Mutex::new(Credentials::read(&planner)?);
        Ok(Self { uplink, planner, hello, trouble, owners: Mutex::default(), credentials })
    }

    /// Certificates and token as they are now; as they were, where they can't be read.
    fn credentials(&self) -> Credentials {
        let mut kept = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        match Credentials::read(&self.planner) {
            Ok(read) => *kept = read,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "certificates or token can't be read anew; those read before are used");
            }
        }
        kept.clone()
    }

    fn owner(&self, run: PlannerRun) -> Option<SocketAddr> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&run).copied()
    }

    fn own(&self, run: Option<PlannerRun>, address: SocketAddr) {
        if let Some(run) = run {
            self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(run, address);
        }
    }

    fn disown(&self, run: Option<PlannerRun>, address: SocketAddr) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = run.filter(|run| owners.get(run) == Some(&address)) {
            owners.remove(&run);
        }
    }

    fn state(&self, address: SocketAddr, state: LinkState, error: Option<String>) {
        self.link(address, |link| {
            link.state = state;
            link.since = Instant::now();
            if error.is_some() {
                link.last_error = error;
            }
        });
    }

    fn link(&self, address: SocketAddr, change: impl FnOnce(&mut LinkStatus)) {
        self.uplink.update(|status| {
            status.links.get_mut(&address).map(change);
        });
    }
}

/// Runs until cancelled.
pub(super) async fn run(shared: Arc<Shared>, address: SocketAddr, cancel: CancellationToken) {
    let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
    while !cancel.is_cancelled() {
        shared.state(address, LinkState::Connecting, None);
        let begun = Instant::now();
        let mut run = None;
        let ended = session(&shared, address, &cancel, &mut run).await;
        shared.disown(run, address);
        let Err(error) = ended else { break };
        if let Some(run) = run.filter(|run| shared.owner(*run).is_some_and(|owner| owner != address)) {
            park(&shared, address, run, &cancel).await;
            continue;
        }
        let text = format!("{error:#}");
        tracing::warn!(planner = %address, error = text, "no connection to the planner");
        shared.state(address, LinkState::Waiting, Some(text));
        shared.trouble.notify_one();
        if begun.elapsed() > STEADY_AFTER {
            backoff.reset();
        }
        tokio::select! { () = sleep(backoff.next_wait(rand::random())) => (), () = cancel.cancelled() => break }
    }
}

/// Waits for as long as this run of the planner is connected under another of its addresses.
async fn park(shared: &Shared, address: SocketAddr, run: PlannerRun, cancel: &CancellationToken) {
    tracing::info!(planner = %address, "the same planner is connected under another address");
    shared.state(address, LinkState::Parked, None);
    shared.uplink.with_spool(|spool| spool.detach(address, shared.uplink.now()));
    while shared.owner(run).is_some_and(|owner| owner != address) {
        tokio::select! { () = sleep(PARKED_LOOK) => (), () = cancel.cancelled() => return }
    }
    shared.uplink.with_spool(|spool| spool.attach(address));
}

/// One connection, to its end. `Ok` means that the agent is stopping, or has nothing to say to this address any more.
async fn session(
    shared: &Shared,
    address: SocketAddr,
    cancel: &CancellationToken,
    run: &mut Option<PlannerRun>,
) -> anyhow::Result<()> {
    let uplink = &shared.uplink;
    let (endpoint, link) = tokio::select! {
        opened = open(shared, address) => opened?,
        () = cancel.cancelled() => return Ok(()),
    };
    *run = link.run;
    shared.own(link.run, address);
    tracing::info!(planner = %address, applied = link.applied.0, "connected to the planner");
    uplink.with_spool(|spool| spool.resume(address, link.run, link.applied, uplink.now()));
    let acknowledged = uplink.with_spool(|spool| spool.acknowledged(address));
    uplink.update(|status| status.connects += 1);
    shared.link(address, |link| link.acknowledged = acknowledged.unwrap_or_default());
    shared.state(address, LinkState::Connected, None);
    let quic = link.quic.clone();
    let ended = exchange(shared, address, link, cancel).await;
    uplink.update(|status| status.udp_bytes_sent += quic.stats().udp_tx.bytes);
    shared.link(address, |link| link.asked_interval = None);
    let reason = match &ended {
        Ok(()) => "the agent is stopping".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    quic.close(quinn::VarInt::from_u32(CloseCode::Done.code()), reason.as_bytes());
    // The close frame leaves only while the endpoint is driven.
    let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    ended
}

async fn open(shared: &Shared, address: SocketAddr) -> anyhow::Result<(quinn::Endpoint, Link)> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own for each connection: what a NAT or conntrack believes of the last one does not matter.
    let endpoint = quinn::Endpoint::client(local).context("no UDP socket for the planner")?;
    let Credentials { config, token } = shared.credentials();
    let hello = Hello {
        wall_ms: Some(crate::wall_clock_ms()),
        oldest: Some(shared.uplink.with_spool(|spool| spool.oldest())),
        token,
        ..shared.hello.clone()
    };
    let link = Link::open(&endpoint, config, address, &shared.planner.name, hello).await?;
    Ok((endpoint, link))
}

/// Sends and listens until the connection ends (an error), or the agent stops and all is acknowledged.
async fn exchange(
    shared: &Shared,
    address: SocketAddr,
    link: Link,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let Link { quic, mut up, mut control, .. } = link;
    let acked = Notify::new();
    // Whichever ends first ends the connection, so that no send is dropped midway on one that goes on.
    tokio::select! {
        ended = send_all(shared, address, &quic, &mut up, &acked) => ended,
        ended = listen(shared, address, &mut control, &acked) => ended,
        () = farewell(&shared.uplink, address, cancel, &acked) => Ok(()),
    }
}

/// Sends what the planner lacks, for as long as the connection lasts.
async fn send_all(
    shared: &Shared,
    address: SocketAddr,
    quic: &Connection,
    up: &mut Up,
    acked: &Notify,
) -> anyhow::Result<()> {
    let uplink = &shared.uplink;
    let mut pushed = uplink.pushed.subscribe();
    let mut told = None;
    loop {
        pushed.borrow_and_update();
        while let Some(outgoing) = uplink.with_spool(|spool| spool.next(address, uplink.now())) {
            match outgoing {
                Outgoing::Gap(gap) => {
                    tracing::warn!(planner = %address, first = gap.first.0, last = gap.last.0, "windows are lost to this planner");
                    up.gap(gap).await?;
                    uplink.update(|status| status.gaps_told += 1);
                }
                Outgoing::Report { generation, frame } => {
                    let inventory = tell(uplink, quic, &mut told, generation).await?;
                    send(quic, &frame).await?;
                    uplink.update(|status| {
                        status.reports_sent += 1;
                        status.bytes_sent += (inventory + frame.len()) as u64;
                        if let Some(link) = status.links.get_mut(&address) {
                            link.rtt = Some(quic.rtt());
                        }
                    });
                }
            }
        }
        tokio::select! {
            changed = pushed.changed() => changed.context("the agent has ended")?,
            () = acked.notified() => (),
        }
    }
}

/// Tells the planner an inventory that it does not know; how many bytes that took.
async fn tell(
    uplink: &Uplink,
    quic: &Connection,
    told: &mut Option<Generation>,
    generation: Generation,
) -> anyhow::Result<usize> {
    if *told == Some(generation) {
        return Ok(0);
    }
    *told = Some(generation);
    let inventory = uplink.with_spool(|spool| spool.inventory(generation).map(<[u8]>::to_vec));
    let Some(inventory) = inventory else { return Ok(0) };
    send(quic, &inventory).await?;
    Ok(inventory.len())
}

/// Takes what the planner says; ends when it says nothing although reports wait for their acknowledgement.
async fn listen(
    shared: &Shared,
    address: SocketAddr,
    control: &mut Control,
    acked: &Notify,
) -> anyhow::Result<()> {
    let uplink = &shared.uplink;
    let mut look = interval(ACK_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_since = None;
    loop {
        tokio::select! {
            message = control.next() => {
                silent_since = None;
                take(shared, address, message?, shared.hello.epoch);
                acked.notify_one();
            }
            now = look.tick() => {
                if uplink.with_spool(|spool| spool.is_outstanding(address)) {
                    let since = *silent_since.get_or_insert(now);
                    anyhow::ensure!(now.duration_since(since) < ACK_TIMEOUT, "reports were not acknowledged for {ACK_TIMEOUT:?}");
                } else {
                    silent_since = None;
                }
            }
        }
    }
}

fn take(shared: &Shared, address: SocketAddr, message: FromPlanner, epoch: AgentEpoch) {
    let uplink = &shared.uplink;
    match message {
        FromPlanner::Applied(of, seq, _) if of == epoch => {
            let acknowledged = uplink.with_spool(|spool| {
                spool.acknowledge(address, seq, uplink.now());
                spool.acknowledged(address)
            });
            shared.link(address, |link| link.acknowledged = acknowledged.unwrap_or_default());
        }
        FromPlanner::Applied(..) => (),
        FromPlanner::Request(request) => {
            shared.link(address, |link| {
                link.asked_interval = request.report_interval_ms.map(Duration::from_millis);
            });
        }
        FromPlanner::Unknown(error) => {
            tracing::debug!(%error, "skipped a message of a newer planner");
            uplink.update(|status| status.bad_frames += 1);
        }
    }
}

/// Ends once the agent stops and the planner has everything, or after a while.
async fn farewell(uplink: &Uplink, address: SocketAddr, cancel: &CancellationToken, acked: &Notify) {
    cancel.cancelled().await;
    let mut pushed = uplink.pushed.subscribe();
    let all_there = async {
        while !pushed.borrow_and_update().last {
            if pushed.changed().await.is_err() {
                return;
            }
        }
        while uplink.with_spool(|spool| spool.is_behind(address)) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(FAREWELL, all_there).await;
    acked.notify_one();
}
