//! Keeps a connection to the planner and sends what the spool holds.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use plimsoll_common::wire::{ALPN, CloseCode, Hello};
use plimsoll_shell::tls;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{FromPlanner, Link, client_config},
    spool::Spool,
    status::{LinkState, UplinkStatus},
};
use crate::{backoff::Backoff, config::Planner};

/// Between the first and second try; every failure doubles the longest wait, up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that lasted this long begins with short waits again when it ends.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// A planner that leaves reports unacknowledged for this long is taken for dead, whatever QUIC believes.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last report may wait for its acknowledgement at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the rest of the agent shares with the uplink.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// Reports that wait. Locked for moments only, never across an await.
    pub spool: Arc<Mutex<Spool>>,
    /// Rung when the spool got something to send.
    pub ready: Arc<Notify>,
    /// Where the connection stands.
    pub status: Arc<watch::Sender<UplinkStatus>>,
    /// What interval between reports the planner would like, if any.
    pub asked_interval: Arc<watch::Sender<Option<Duration>>>,
}

impl Uplink {
    fn with_spool<T>(&self, act: impl FnOnce(&mut Spool) -> T) -> T {
        act(&mut self.spool.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self, state: LinkState, error: Option<String>) {
        self.status.send_modify(|status| {
            status.state = state;
            status.since = Instant::now();
            if error.is_some() {
                status.last_error = error;
            }
        });
    }
}

/// Runs until cancelled; connection losses are normal and never end it.
///
/// # Errors
/// When certificates can't be read or no UDP socket can be had: things that trying again does not mend.
pub async fn run(
    uplink: Uplink,
    planner: Planner,
    hello: Hello,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let config = client_config(tls_config(&planner)?)?;
    let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
    while !cancel.is_cancelled() {
        uplink.state(LinkState::Connecting, None);
        let begun = Instant::now();
        match session(&uplink, &planner, &config, &hello, &cancel).await {
            Ok(()) => break,
            Err(error) => {
                let text = format!("{error:#}");
                tracing::warn!(planner = planner.address, error = text, "no connection to the planner");
                uplink.state(LinkState::Waiting, Some(text));
            }
        }
        if begun.elapsed() > STEADY_AFTER {
            backoff.reset();
        }
        tokio::select! { () = sleep(backoff.next_wait(rand::random())) => (), () = cancel.cancelled() => break }
    }
    Ok(())
}

fn tls_config(planner: &Planner) -> anyhow::Result<rustls::ClientConfig> {
    let trust = match &planner.ca {
        Some(ca) => tls::Trust::Roots(tls::trust(ca)?),
        None => {
            tracing::warn!(
                "--dev: any planner is trusted, nobody vouches for it; never use this outside a test"
            );
            tls::Trust::Anybody
        }
    };
    let identity =
        planner.identity.as_ref().map(|(cert, key)| tls::Identity::from_pem_files(cert, key)).transpose()?;
    tls::client(trust, identity, ALPN)
}

/// One connection: from resolving the name to the connection's end. `Ok` means that the agent is stopping.
async fn session(
    uplink: &Uplink,
    planner: &Planner,
    config: &quinn::ClientConfig,
    hello: &Hello,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let opened = tokio::select! {
        opened = open(planner, config, hello) => opened?,
        () = cancel.cancelled() => return Ok(()),
    };
    let (endpoint, mut link) = opened;
    tracing::info!(planner = planner.address, applied = link.applied.0, "connected to the planner");
    uplink.with_spool(|spool| {
        spool.acknowledge(link.applied);
        spool.rewind();
    });
    uplink.status.send_modify(|status| {
        status.connects += 1;
        status.acknowledged = link.applied;
    });
    uplink.state(LinkState::Connected, None);
    let ended = exchange(uplink, &mut link, hello, cancel).await;
    uplink.status.send_modify(|status| status.udp_bytes_sent += link.quic.stats().udp_tx.bytes);
    match &ended {
        Ok(()) => link.close(CloseCode::Done, "the agent is stopping"),
        Err(error) => link.close(CloseCode::Done, &format!("{error:#}")),
    }
    // The close frame leaves only while the endpoint is driven.
    let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    ended
}

async fn open(
    planner: &Planner,
    config: &quinn::ClientConfig,
    hello: &Hello,
) -> anyhow::Result<(quinn::Endpoint, Link)> {
    let address = tokio::net::lookup_host(&planner.address)
        .await
        .with_context(|| format!("'{}' can't be resolved", planner.address))?
        .next()
        .with_context(|| format!("'{}' resolves to no address", planner.address))?;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = quinn::Endpoint::client(local).context("no UDP socket for the planner")?;
    let hello = Hello { wall_ms: Some(crate::wall_clock_ms()), ..hello.clone() };
    let link = Link::open(&endpoint, config.clone(), address, &planner.name, &hello).await?;
    Ok((endpoint, link))
}

/// Sends and listens until the connection ends (an error) or the agent stops and its last report is acknowledged.
async fn exchange(
    uplink: &Uplink,
    link: &mut Link,
    hello: &Hello,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let mut leave_by = None;
    let mut heard = Instant::now();
    loop {
        send_all(uplink, link).await?;
        let outstanding = uplink.with_spool(|spool| spool.usage().reports) > 0;
        if !outstanding {
            heard = Instant::now();
        }
        if cancel.is_cancelled() {
            let by = *leave_by.get_or_insert_with(|| Instant::now() + FAREWELL);
            if !outstanding || Instant::now() >= by {
                return Ok(());
            }
        }
        let deadline = leave_by.unwrap_or(heard + ACK_TIMEOUT);
        tokio::select! {
            () = uplink.ready.notified() => (),
            () = cancel.cancelled(), if leave_by.is_none() => (),
            message = link.control.next() => {
                heard = Instant::now();
                on_message(uplink, message?, hello);
            }
            () = sleep_until(deadline), if outstanding => {
                anyhow::ensure!(leave_by.is_some(), "reports were not acknowledged for {ACK_TIMEOUT:?}");
            }
        }
    }
}

async fn send_all(uplink: &Uplink, link: &mut Link) -> anyhow::Result<()> {
    while let Some((generation, frame)) = uplink.with_spool(|spool| spool.next(Instant::now())) {
        let mut bytes = frame.len();
        if link.must_tell(generation) {
            let inventory = uplink.with_spool(|spool| spool.inventory(generation).map(<[u8]>::to_vec));
            if let Some(inventory) = inventory {
                bytes += inventory.len();
                link.send(&inventory).await?;
            }
            link.told(generation);
        }
        link.send(&frame).await?;
        uplink.status.send_modify(|status| {
            status.reports_sent += 1;
            status.bytes_sent += bytes as u64;
            status.rtt = Some(link.quic.rtt());
        });
    }
    Ok(())
}

fn on_message(uplink: &Uplink, message: FromPlanner, hello: &Hello) {
    match message {
        FromPlanner::Applied(epoch, seq) if epoch == hello.epoch => {
            uplink.with_spool(|spool| spool.acknowledge(seq));
            uplink.status.send_modify(|status| status.acknowledged = status.acknowledged.max(seq));
        }
        FromPlanner::Applied(..) => (),
        FromPlanner::Request(request) => {
            let asked = request.report_interval_ms.map(Duration::from_millis);
            uplink.asked_interval.send_replace(asked);
        }
        FromPlanner::Unknown(error) => {
            tracing::debug!(%error, "skipped a message of a newer planner");
            uplink.status.send_modify(|status| status.bad_frames += 1);
        }
    }
}
