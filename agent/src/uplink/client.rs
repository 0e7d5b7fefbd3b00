//! Finds the planners behind the configured name and keeps a link to each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use plimsoll_common::wire::Hello;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Uplink,
    link::{self, Shared},
    status::LinkStatus,
};
use crate::config::Planner;

/// Between two looks at the name when all is well, and the least time between two looks when it is not.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
const RESOLVE_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// For how long windows are kept for an address that the name no longer stands for.
const GRACE: Duration = Duration::from_secs(60);
/// More addresses than this are not connected to.
const MAX_PLANNERS: usize = 16;

/// An address that the name stands for, or did.
#[derive(Debug)]
struct Known {
    cancel: CancellationToken,
    vanished: Option<Instant>,
}

/// Runs until cancelled; connection losses are normal and never end it.
///
/// # Errors
/// When certificates can't be read at the start: what can't be shown now is not likely to be there later.
pub async fn run(
    uplink: Uplink,
    planner: Planner,
    hello: Hello,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let trouble = Arc::new(Notify::new());
    let shared = Arc::new(Shared::new(uplink, planner, hello, Arc::clone(&trouble))?);
    let mut known: BTreeMap<SocketAddr, Known> = BTreeMap::new();
    let mut links = JoinSet::new();
    while !cancel.is_cancelled() {
        let resolved = tokio::select! {
            resolved = resolve(&shared.planner.address) => resolved,
            () = cancel.cancelled() => break,
        };
        look(&shared, resolved, &mut known, &mut links, &cancel);
        let pause = if known.is_empty() { RESOLVE_AT_MOST_EVERY } else { RESOLVE_EVERY };
        tokio::select! {
            () = sleep(pause) => (),
            () = async {
                sleep(RESOLVE_AT_MOST_EVERY).await;
                trouble.notified().await;
            } => (),
            () = cancel.cancelled() => (),
        }
        while let Some(ended) = links.try_join_next() {
            ended.context("a link to a planner broke")?;
        }
    }
    while let Some(ended) = links.join_next().await {
        ended.context("a link to a planner broke")?;
    }
    Ok(())
}

async fn resolve(name: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match tokio::net::lookup_host(name).await {
        Ok(addresses) => {
            let addresses: BTreeSet<SocketAddr> = addresses.collect();
            if addresses.is_empty() { Err(format!("'{name}' resolves to no address")) } else { Ok(addresses) }
        }
        Err(error) => Err(format!("'{name}' can't be resolved: {error}")),
    }
}

/// Brings the links in line with the addresses. Where the name can't be resolved, those that are known stay.
fn look(
    shared: &Arc<Shared>,
    resolved: Result<BTreeSet<SocketAddr>, String>,
    known: &mut BTreeMap<SocketAddr, Known>,
    links: &mut JoinSet<()>,
    cancel: &CancellationToken,
) {
    let uplink = &shared.uplink;
    let addresses = match resolved {
        Ok(addresses) => {
            uplink.update(|status| status.unresolved = None);
            addresses
        }
        Err(error) => {
            if uplink.status.borrow().unresolved.is_none() {
                tracing::warn!(error, "the planner's name stands for nothing");
            }
            let since =
                uplink.status.borrow().unresolved.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            uplink.update(|status| status.unresolved = Some((since, error)));
            return;
        }
    };
    let now = Instant::now();
    for (address, link) in known.iter_mut() {
        link.vanished = if addresses.contains(address) { None } else { Some(link.vanished.unwrap_or(now)) };
    }
    known.retain(|address, link| {
        let keep = link.vanished.is_none_or(|since| now.duration_since(since) < GRACE);
        if !keep {
            tracing::info!(planner = %address, "the planner's name no longer stands for this address");
            link.cancel.cancel();
            uplink.with_spool(|spool| spool.detach(*address, uplink.now()));
            uplink.update(|status| {
                status.links.remove(address);
            });
        }
        keep
    });
    for address in addresses {
        if known.contains_key(&address) {
            continue;
        }
        if known.len() >= MAX_PLANNERS {
            tracing::warn!(planner = %address, "not connected to: {MAX_PLANNERS} planners are enough");
            continue;
        }
        uplink.with_spool(|spool| spool.attach(address));
        uplink.update(|status| {
            status.links.insert(address, LinkStatus::new(now));
        });
        let cancel = cancel.child_token();
        known.insert(address, Known { cancel: cancel.clone(), vanished: None });
        links.spawn(link::run(Arc::clone(shared), address, cancel));
    }
}
