//! `/v1/gpus` and `/v1/gpus/{uuid}`.

use axum::{
    Json,
    extract::{Path, State},
};
use plimsoll_shell::http::ApiError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Pages, json::age_seconds, json::watts};
use crate::gpu::{GpuReading, GpuSnapshot};

pub(super) async fn list(State(pages): State<Pages>) -> Json<Value> {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    Json(json!({
        "node": pages.0.node,
        "source": source(&snapshot, now),
        "gpus": snapshot.gpus.iter().map(|gpu| one_gpu(gpu, &snapshot, now)).collect::<Vec<_>>(),
    }))
}

pub(super) async fn one(
    State(pages): State<Pages>,
    Path(uuid): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let now = Instant::now();
    let snapshot = pages.gpus(now);
    let gpu = snapshot.gpus.iter().find(|gpu| gpu.info.uuid.as_str() == uuid);
    gpu.map(|gpu| Json(one_gpu(gpu, &snapshot, now))).ok_or_else(|| {
        let known: Vec<_> = snapshot.gpus.iter().map(|gpu| gpu.info.uuid.as_str()).collect();
        let hint = if known.is_empty() {
            format!(
                "no GPU is seen here: {}",
                snapshot.detail.as_deref().unwrap_or("the source is still starting")
            )
        } else {
            format!("the GPUs of this node are {}", known.join(", "))
        };
        ApiError::not_found(format!("there is no GPU '{uuid}' on this node"), hint)
    })
}

/// The GPU source's health, as `/v1/gpus` and `/status` show it.
pub(super) fn source(snapshot: &GpuSnapshot, now: Instant) -> Value {
    json!({
        "state": snapshot.source.as_str(),
        "detail": snapshot.detail,
        "age_seconds": age_seconds(snapshot.taken, now),
        "driver_version": snapshot.driver.as_ref().map(|driver| &driver.version),
        "cuda_version": snapshot.driver.as_ref().and_then(|driver| driver.cuda.as_ref()),
    })
}

fn one_gpu(gpu: &GpuReading, snapshot: &GpuSnapshot, now: Instant) -> Value {
    json!({
        "uuid": gpu.info.uuid,
        "index": gpu.info.index,
        "name": gpu.info.name,
        "pci_bus_id": gpu.info.pci_bus_id,
        "state": gpu.state.as_str(),
        "trouble": gpu.trouble,
        "age_seconds": age_seconds(snapshot.taken, now),
        "utilization_percent": gpu.utilization_percent,
        "memory_activity_percent": gpu.memory_activity_percent,
        "memory_used_bytes": gpu.memory_used_bytes,
        "memory_total_bytes": gpu.info.memory_total_bytes,
        "power_watts": gpu.power_mw.map(watts),
        "power_limit_watts": gpu.info.power_limit_mw.map(watts),
        "temperature_celsius": gpu.temperature_c,
    })
}
