//! `/v1/gpus` and `/v1/gpus/{uuid}`.

use axum::{
    Json,
    extract::{Path, State},
};
use plimsoll_common::ids::GpuUuid;
use plimsoll_shell::http::ApiError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Pages, gpu_json, json::age_seconds, pods};
use crate::gpu::{AbsentGpu, GpuEvent, GpuReading, GpuSnapshot};

pub(super) async fn list(State(pages): State<Pages>) -> Json<Value> {
    let now = Instant::now();
    Json(page(&pages, &pages.gpus(now), None, now))
}

pub(super) async fn one(
    State(pages): State<Pages>,
    Path(uuid): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let uuid = known(&snapshot, &uuid)?;
    if let Some(gpu) = snapshot.gpus.iter().find(|gpu| gpu.info.uuid == uuid) {
        let pods = pods::of(&pages.attribution(), &uuid);
        return Ok(Json(gpu_json::gpu(gpu, &pages.topology(), pods, now)));
    }
    let gone = snapshot.absent.iter().find(|gone| gone.info.uuid == uuid);
    Ok(Json(gone.map_or(Value::Null, |gone| absent(gone, now))))
}

/// What `/v1/gpus` shows, and each tick of `/v1/stream`; `only` leaves out the other GPUs.
pub(super) fn page(pages: &Pages, snapshot: &GpuSnapshot, only: Option<&GpuUuid>, now: Instant) -> Value {
    let wanted = |uuid: &GpuUuid| only.is_none_or(|only| only == uuid);
    let (topology, attribution) = (pages.topology(), pages.attribution());
    let one_gpu =
        |gpu: &GpuReading| gpu_json::gpu(gpu, &topology, pods::of(&attribution, &gpu.info.uuid), now);
    let gpus = snapshot.gpus.iter().filter(|gpu| wanted(&gpu.info.uuid));
    let gone = snapshot.absent.iter().filter(|gone| wanted(&gone.info.uuid));
    let events = snapshot.events.iter().filter(|event| event.uuid.as_ref().is_none_or(wanted));
    json!({
        "node": pages.0.node,
        "source": source(snapshot, now),
        "gpus": gpus.map(one_gpu).collect::<Vec<_>>(),
        "absent": gone.map(|gone| absent(gone, now)).collect::<Vec<_>>(),
        "events": events.map(|event| one_event(event, now)).collect::<Vec<_>>(),
    })
}

/// The GPU with this UUID, here or absent for a while.
pub(super) fn known(snapshot: &GpuSnapshot, uuid: &str) -> Result<GpuUuid, ApiError> {
    let here = snapshot.gpus.iter().map(|gpu| &gpu.info.uuid);
    let all = || here.clone().chain(snapshot.absent.iter().map(|gone| &gone.info.uuid));
    if let Some(uuid) = all().find(|known| known.as_str() == uuid) {
        return Ok(uuid.clone());
    }
    let known: Vec<_> = all().map(GpuUuid::as_str).collect();
    let hint = if known.is_empty() {
        format!(
            "no GPU is seen here: {}",
            snapshot.detail.as_deref().unwrap_or("the source is still starting")
        )
    } else {
        format!("the GPUs of this node are {}", known.join(", "))
    };
    Err(ApiError::not_found(format!("there is no GPU '{uuid}' on this node"), hint))
}

/// The GPU source's health, as `/v1/gpus` and `/status` show it.
pub(super) fn source(snapshot: &GpuSnapshot, now: Instant) -> Value {
    json!({
        "state": snapshot.source.as_str(),
        "detail": snapshot.detail,
        "age_seconds": age_seconds(snapshot.taken, now),
        "restart_needed": snapshot.restart_needed,
        "released": snapshot.release.map(|release| json!({
            "since_seconds": age_seconds(release.since, now),
            "returns_in_seconds": age_seconds(now, release.until),
        })),
        "driver_version": snapshot.driver.as_ref().map(|driver| &driver.version),
        "cuda_version": snapshot.driver.as_ref().and_then(|driver| driver.cuda.as_ref()),
    })
}

/// One event, as `/v1/gpus` and `/v1/stream` show it.
pub(super) fn one_event(event: &GpuEvent, now: Instant) -> Value {
    json!({
        "number": event.number,
        "gpu": event.uuid,
        "kind": event.kind.as_str(),
        "xid": event.kind.xid(),
        "age_seconds": age_seconds(event.read, now),
    })
}

fn absent(gone: &AbsentGpu, now: Instant) -> Value {
    json!({
        "uuid": gone.info.uuid,
        "index": gone.info.index,
        "name": gone.info.name,
        "pci_bus_id": gone.info.pci_bus_id,
        "state": "absent",
        "last_seen_seconds": age_seconds(gone.last_seen, now),
    })
}
