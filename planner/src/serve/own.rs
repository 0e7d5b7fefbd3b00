//! What the planner itself costs.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// One reading.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OwnCost {
    /// CPU time since the start of the process.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
}

/// Reads the planner's own process. Where the system does not tell, values stay absent.
#[derive(Debug)]
pub(super) struct OwnSampler {
    system: Option<System>,
    pid: Pid,
}

impl OwnSampler {
    pub(super) fn new() -> Self {
        let system =
            System::new().inspect_err(|error| tracing::warn!("no figures about itself: {error}")).ok();
        Self { system, pid: Pid::from_u32(std::process::id()) }
    }

    pub(super) fn sample(&mut self) -> OwnCost {
        let Some(system) = &mut self.system else { return OwnCost::default() };
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), true, what);
        let process = system.process(self.pid);
        OwnCost {
            cpu_seconds: process.map(|process| process.accumulated_cpu_time() as f64 / 1e3),
            resident_bytes: process.map(sysinfo::Process::memory),
        }
    }
}
