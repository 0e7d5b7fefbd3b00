//! Whose the GPUs are, as JSON.

use plimsoll_common::ids::GpuUuid;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::json::age_seconds;
use crate::attribution::{Attribution, PodRef, SourceStatus};

/// The pods of a GPU; `null` where nobody can tell, an empty list where there is none.
pub(super) fn of(attribution: &Attribution, gpu: &GpuUuid) -> Value {
    if !is_told(attribution) {
        return Value::Null;
    }
    attribution.gpus.get(gpu).map_or(json!([]), |pods| pods.iter().map(pod).collect())
}

/// Whether pods were told by anybody yet.
pub(super) fn is_told(attribution: &Attribution) -> bool {
    [&attribution.kubelet, &attribution.cgroup].into_iter().any(|source| source.taken.is_some())
}

/// How the sources of pods are, for `/status`.
pub(super) fn status(attribution: &Attribution, now: Instant) -> Value {
    let unplaced = attribution
        .unplaced
        .iter()
        .map(|unplaced| json!({ "pod": pod(&unplaced.pod), "device": unplaced.device, "why": unplaced.why }));
    json!({
        "kubelet": source(&attribution.kubelet, now),
        "cgroup": source(&attribution.cgroup, now),
        "asked": attribution.asked,
        "failed": attribution.failed,
        "dropped_containers": attribution.dropped,
        "unplaced": unplaced.collect::<Vec<_>>(),
    })
}

fn source(source: &SourceStatus, now: Instant) -> Value {
    json!({
        "state": source.state.as_str(),
        "detail": source.detail,
        "age_seconds": source.taken.map(|taken| age_seconds(taken, now)),
    })
}

fn pod(pod: &PodRef) -> Value {
    json!({
        "namespace": pod.namespace,
        "pod": pod.pod,
        "container": pod.container,
        "source": pod.source.as_str(),
        "mig": pod.mig,
        "claim": pod.claim,
        "pod_uid": pod.pod_uid,
        "container_id": pod.container_id,
        "pids": pod.pids,
    })
}
