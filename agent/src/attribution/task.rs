//! When to ask, and what holds while there is no answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plimsoll_common::{ids::GpuUuid, wire::SourceState};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Attribution, AttributionOptions, DeviceInventory, MAX_PODS, PodRef, SourceStatus,
    allocations::Allocations,
    cgroup::{self, CgroupPods},
    podresources::{KubeletError, list},
};
use crate::gpu::GpuSnapshot;

/// What makes the kubelet's answer worth asking for again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Use {
    devices: DeviceInventory,
    processes: BTreeMap<GpuUuid, BTreeSet<u32>>,
}

impl Use {
    fn of(snapshot: &GpuSnapshot) -> Self {
        let processes = snapshot.gpus.iter().filter_map(|gpu| {
            let pids = gpu.processes.as_ref()?.iter().map(|process| process.pid).collect();
            Some((gpu.info.uuid.clone(), pids))
        });
        Self { devices: DeviceInventory::of(snapshot), processes: processes.collect() }
    }
}

/// Finds out whose the GPUs are until cancelled; every change is published.
///
/// # Errors
/// Never; what goes wrong is told in what is published.
pub async fn run(
    options: AttributionOptions,
    mut snapshots: watch::Receiver<Arc<GpuSnapshot>>,
    out: watch::Sender<Arc<Attribution>>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut asker = Asker::new(options);
    let mut seen = Use::of(&snapshots.borrow_and_update());
    let mut alive = true;
    loop {
        let found = tokio::select! {
            found = asker.ask(&seen) => found,
            () = cancel.cancelled() => return Ok(()),
        };
        out.send_if_modified(|published| {
            let is_new = **published != found;
            if is_new {
                *published = Arc::new(found);
            }
            is_new
        });
        let asked = Instant::now();
        // Asked again when the time has come, or when what is on the GPUs differs from what was asked for.
        let due = tokio::time::sleep_until(asked + asker.options.every);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = &mut due => break,
                changed = snapshots.changed(), if alive => {
                    alive = changed.is_ok();
                    let now = Use::of(&snapshots.borrow_and_update());
                    if now != seen {
                        let soon = (asked + AttributionOptions::AT_MOST_EVERY).min(due.deadline());
                        due.as_mut().reset(soon);
                    }
                }
            }
        }
        seen = Use::of(&snapshots.borrow_and_update());
    }
}

/// Asks both sources, and remembers the kubelet's last answer.
#[derive(Debug)]
struct Asker {
    options: AttributionOptions,
    asked: u64,
    failed: u64,
    /// The last answer and its time.
    last: Option<(Instant, Allocations)>,
    /// Whether there ever was a kubelet: a socket that is gone is then a trouble, and no sign of a node without Kubernetes.
    had_kubelet: bool,
    /// What was last logged.
    logged: Option<SourceState>,
}

impl Asker {
    const fn new(options: AttributionOptions) -> Self {
        Self { options, asked: 0, failed: 0, last: None, had_kubelet: false, logged: None }
    }

    async fn ask(&mut self, seen: &Use) -> Attribution {
        let kubelet = self.ask_kubelet(&seen.devices).await;
        let (pods, cgroup) = self.read_cgroups(&seen.processes).await;
        let allocations = self.last.as_ref().map(|(_, allocations)| allocations.clone()).unwrap_or_default();
        let mut found = Attribution {
            gpus: allocations.gpus,
            unplaced: allocations.unplaced,
            dropped: allocations.dropped,
            kubelet,
            cgroup,
            asked: self.asked,
            failed: self.failed,
        };
        let mut room = MAX_PODS.saturating_sub(found.gpus.values().map(Vec::len).sum());
        for (gpu, pods) in pods.gpus {
            let fitting = pods.len().min(room);
            found.dropped += pods.len() - fitting;
            room -= fitting;
            found.gpus.entry(gpu).or_default().extend(pods.into_iter().take(fitting));
        }
        found
    }

    async fn ask_kubelet(&mut self, devices: &DeviceInventory) -> SourceStatus {
        self.asked += 1;
        let answer = list(&self.options.socket, self.options.timeout).await;
        let now = Instant::now();
        let status = match answer {
            Ok(answer) => {
                self.had_kubelet = true;
                self.last = Some((now, Allocations::of(&answer, devices)));
                SourceStatus { state: SourceState::Healthy, detail: None, taken: Some(now) }
            }
            Err(KubeletError::Absent(path)) if !self.had_kubelet => SourceStatus {
                state: SourceState::Unsupported,
                detail: Some(format!("there is no kubelet: {path} does not exist")),
                taken: None,
            },
            Err(error) => {
                self.failed += 1;
                // An answer that is too old says nothing about now.
                self.last
                    .take_if(|(taken, _)| now.saturating_duration_since(*taken) > AttributionOptions::KEPT);
                let taken = self.last.as_ref().map(|(taken, _)| *taken);
                SourceStatus { state: SourceState::Failed, detail: Some(error.to_string()), taken }
            }
        };
        self.log(&status);
        status
    }

    async fn read_cgroups(&self, processes: &BTreeMap<GpuUuid, BTreeSet<u32>>) -> (CgroupPods, SourceStatus) {
        let Some(proc) = self.options.proc.clone() else {
            let detail = "switched off: --attribute-by-cgroup switches it on, and needs hostPID".to_owned();
            let off = SourceStatus { state: SourceState::Unsupported, detail: Some(detail), taken: None };
            return (CgroupPods::default(), off);
        };
        let processes = processes.clone();
        let read = tokio::task::spawn_blocking(move || cgroup::look_up(&proc, &processes)).await;
        let mut pods = read.unwrap_or_else(|error| CgroupPods {
            trouble: Some(format!("reading control groups ended early: {error}")),
            ..CgroupPods::default()
        });
        let trouble = pods.trouble.take();
        let state = if trouble.is_some() { SourceState::Failed } else { SourceState::Healthy };
        (pods, SourceStatus { state, detail: trouble, taken: Some(Instant::now()) })
    }

    /// Says once that something changed.
    fn log(&mut self, status: &SourceStatus) {
        if self.logged == Some(status.state) {
            return;
        }
        self.logged = Some(status.state);
        let detail = status.detail.as_deref().unwrap_or_default();
        match status.state {
            SourceState::Failed => tracing::warn!(detail, "the kubelet does not tell whose the GPUs are"),
            SourceState::Unsupported => tracing::info!(detail, "GPUs are not attributed to pods"),
            _ => {
                tracing::info!(socket = %self.options.socket.display(), "the kubelet tells whose the GPUs are")
            }
        }
    }
}

/// The containers that a GPU has or serves, for labels and pages.
impl Attribution {
    /// The containers of a GPU; empty where none is known.
    #[must_use]
    pub fn pods_of(&self, gpu: &GpuUuid) -> &[PodRef] {
        self.gpus.get(gpu).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
