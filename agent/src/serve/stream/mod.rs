//! `/v1/stream`: server-sent events. One `gpus` event a tick with what `/v1/gpus` shows, and `state` and `xid` events when
//! something happens. A reader that falls behind is let go rather than waited for, so that it costs nobody anything.

mod changes;
mod hub;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use plimsoll_common::ids::GpuUuid;
use plimsoll_shell::http::ApiError;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::hub::Hub;
use self::{
    changes::Change,
    hub::{MAX_SUBSCRIBERS, Message, Refused},
};
use super::{Pages, gpus};
use crate::gpu::GpuSnapshot;

/// A comment goes out when nothing else did for this long, so that proxies and dead connections show.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    gpu: Option<String>,
}

pub(super) async fn stream(
    State(pages): State<Pages>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Query(filter) = query.map_err(|rejection| {
        let hint = "ask for /v1/stream, or /v1/stream?gpu=UUID for one GPU";
        ApiError::bad_request(rejection.body_text().to_lowercase(), hint)
    })?;
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let only = filter.gpu.map(|uuid| gpus::known(&snapshot, &uuid)).transpose()?;
    let first = tick(&pages, &snapshot, only.as_ref(), now);
    let messages = pages.0.hub.subscribe(only, first).map_err(|refused| ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        error: match refused {
            Refused::Full => format!("{MAX_SUBSCRIBERS} readers listen to the stream already"),
            Refused::Stopping => "the agent stops".to_owned(),
        },
        hint: "read /v1/gpus now and then, or try again later".to_owned(),
    })?;
    let events = stream::unfold(messages, async |mut messages| {
        let Message { event, data } = messages.recv().await?;
        Some((Ok(Event::default().event(event).data(data)), messages))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("nothing new")))
}

/// Publishes every new snapshot to those who listen until cancelled; then lets them go, so that the server can end.
///
/// # Errors
/// Never; the signature is a supervised part's.
pub fn run(pages: Pages, cancel: CancellationToken) -> impl Future<Output = anyhow::Result<()>> {
    // What is already there is no news, what comes from now on is, whenever the future is first polled.
    let mut snapshots = pages.0.feeds.gpus.clone();
    snapshots.mark_unchanged();
    let before = pages.gpus(Instant::now());
    follow(pages, snapshots, before, cancel)
}

async fn follow(
    pages: Pages,
    mut snapshots: watch::Receiver<Arc<GpuSnapshot>>,
    mut before: Arc<GpuSnapshot>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        // A snapshot that becomes overdue is news, though nobody publishes a new one.
        let due = before.valid_until.filter(|due| *due >= Instant::now());
        let overdue = async {
            match due {
                Some(due) => sleep_until(due + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { break },
            () = overdue => (),
            () = cancel.cancelled() => break,
        }
        let now = Instant::now();
        let after = pages.gpus(now);
        publish(&pages, &before, &after, now);
        before = after;
    }
    cancel.cancelled().await;
    pages.0.hub.close();
    Ok(())
}

fn publish(pages: &Pages, before: &GpuSnapshot, after: &GpuSnapshot, now: Instant) {
    let filters = pages.0.hub.filters();
    if filters.is_empty() {
        return;
    }
    let changes = changes::between(before, after);
    for filter in &filters {
        let concerns = |change: &&Change| match (filter, change.gpu()) {
            (Some(only), Some(gpu)) => only == gpu,
            _ => true,
        };
        let mut messages: Vec<_> = changes
            .iter()
            .filter(concerns)
            .map(|change| Message { event: change.event(), data: change.json(now).to_string().into() })
            .collect();
        messages.push(tick(pages, after, filter.as_ref(), now));
        pages.0.hub.publish(filter.as_ref(), &messages);
    }
}

fn tick(pages: &Pages, snapshot: &GpuSnapshot, only: Option<&GpuUuid>, now: Instant) -> Message {
    let data: Arc<str> = gpus::page(pages, snapshot, only, now).to_string().into();
    Message { event: "gpus", data }
}
