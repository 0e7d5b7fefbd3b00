//! What happened between two snapshots.

use std::collections::BTreeMap;

use plimsoll_common::{ids::GpuUuid, wire::SourceState};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    gpu::{GpuEvent, GpuReading, GpuSnapshot, GpuStatus},
    serve::gpus,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The GPU source is another way than before.
    Source { before: SourceState, after: SourceState, detail: Option<String> },
    /// A GPU is seen another way than before; `None`: it was not, or is no longer, there.
    State {
        gpu: GpuUuid,
        index: u32,
        before: Option<GpuStatus>,
        after: Option<GpuStatus>,
        trouble: Option<String>,
    },
    /// The driver told of something.
    Event(GpuEvent),
}

impl Change {
    /// The name of the event.
    pub(super) const fn event(&self) -> &'static str {
        match self {
            Self::Source { .. } | Self::State { .. } => "state",
            Self::Event(event) if event.kind.xid().is_some() => "xid",
            Self::Event(_) => "event",
        }
    }

    /// The GPU it is about; `None`: all of them.
    pub(super) const fn gpu(&self) -> Option<&GpuUuid> {
        match self {
            Self::Source { .. } => None,
            Self::State { gpu, .. } => Some(gpu),
            Self::Event(event) => event.uuid.as_ref(),
        }
    }

    pub(super) fn json(&self, now: Instant) -> Value {
        let word = |state: &Option<GpuStatus>| state.map_or("absent", GpuStatus::as_str);
        match self {
            Self::Source { before, after, detail } => json!({
                "source": "gpu", "before": before.as_str(), "after": after.as_str(), "detail": detail,
            }),
            Self::State { gpu, index, before, after, trouble } => json!({
                "gpu": gpu, "index": index, "before": word(before), "after": word(after), "trouble": trouble,
            }),
            Self::Event(event) => gpus::one_event(event, now),
        }
    }
}

/// What happened from one snapshot to a later one: first to the source, then to the GPUs.
pub(super) fn between(before: &GpuSnapshot, after: &GpuSnapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.source != after.source {
        changes.push(Change::Source {
            before: before.source,
            after: after.source,
            detail: after.detail.clone(),
        });
    }
    let old: BTreeMap<&GpuUuid, &GpuReading> = before.gpus.iter().map(|gpu| (&gpu.info.uuid, gpu)).collect();
    for gpu in &after.gpus {
        one_gpu(old.get(&gpu.info.uuid).copied(), gpu, &mut changes);
    }
    let told = before.events.last().map_or(0, |event| event.number);
    changes.extend(after.events.iter().filter(|event| event.number > told).cloned().map(Change::Event));
    for gpu in &before.gpus {
        if !after.gpus.iter().any(|now| now.info.uuid == gpu.info.uuid) {
            changes.push(Change::State {
                gpu: gpu.info.uuid.clone(),
                index: gpu.info.index,
                before: Some(gpu.state),
                after: None,
                trouble: None,
            });
        }
    }
    changes
}

fn one_gpu(before: Option<&GpuReading>, after: &GpuReading, changes: &mut Vec<Change>) {
    let (gpu, index) = (&after.info.uuid, after.info.index);
    if before.map(|gpu| gpu.state) != Some(after.state) {
        changes.push(Change::State {
            gpu: gpu.clone(),
            index,
            before: before.map(|gpu| gpu.state),
            after: Some(after.state),
            trouble: after.trouble.clone(),
        });
    }
}
