//! Whose each GPU is.

use plimsoll_common::wire::SourceState;
use plimsoll_shell::metrics::{MetricPage, MetricType::Gauge};
use tokio::time::Instant;

use super::{Row, states};
use crate::attribution::Attribution;

pub(super) fn write(page: &mut MetricPage, rows: &[Row<'_>], attribution: &Attribution, now: Instant) {
    let help = "A container that has the GPU or a part of it; always 1.";
    let mut family = page.family("plimsoll_gpu_pod_info", Gauge, help);
    for row in rows {
        for pod in attribution.gpus.get(&row.gpu.info.uuid).into_iter().flatten() {
            let labels = row.with([
                ("namespace", pod.namespace.as_deref().unwrap_or("")),
                ("pod", pod.pod.as_deref().unwrap_or("")),
                ("container", pod.container.as_deref().unwrap_or("")),
                ("source", pod.source.as_str()),
                ("mig", pod.mig.as_deref().unwrap_or("")),
                ("claim", pod.claim.as_deref().unwrap_or("")),
                ("pod_uid", pod.pod_uid.as_deref().unwrap_or("")),
                ("container_id", pod.container_id.as_deref().unwrap_or("")),
            ]);
            family.sample(&labels, 1u64);
        }
    }
    let sources = [("kubelet", &attribution.kubelet), ("cgroup", &attribution.cgroup)];
    let all = [SourceState::Healthy, SourceState::Degraded, SourceState::Unsupported, SourceState::Failed]
        .map(SourceState::as_str);
    let rows: Vec<_> =
        sources.iter().map(|(name, source)| (vec![("source", *name)], source.state.as_str())).collect();
    let help = "How a source of pods is; 1 for the state that holds.";
    states(page, "plimsoll_pod_source_state", help, &rows, &all);
    let help = "How old what the source told of pods is.";
    let mut age = page.family("plimsoll_pod_source_age_seconds", Gauge, help);
    for (name, source) in sources {
        let told = source.taken.map(|taken| now.saturating_duration_since(taken).as_secs_f64());
        age.maybe(&[("source", name)], told);
    }
}
