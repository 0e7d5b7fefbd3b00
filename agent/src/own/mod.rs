//! What the agent itself costs, and the figures of its host.

mod window;

use std::time::Duration;

use plimsoll_common::{units::Ratio, wire::HostInfo};
use rustix::time::{ClockId, clock_gettime};
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::Instant;

pub use self::window::CostWindow;

/// One reading of the agent's own cost and of its host.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OwnCost {
    /// CPU time of all threads of this process since it started, microseconds.
    pub cpu_us_total: u64,
    /// Resident memory of this process, bytes.
    pub rss_bytes: Option<u64>,
    /// Share of the host's processors that was busy since the reading before; absent in the first reading.
    pub host_cpu: Option<Ratio>,
    /// Memory of the host that is in use, bytes: what is not available to new programs.
    pub host_memory_used_bytes: Option<u64>,
    /// How long this reading took.
    pub took: Duration,
}

/// Reads the agent's own cost. Some hundred microseconds a reading (`/proc/stat` grows with the processors): once a
/// report is often enough.
#[derive(Debug)]
pub struct OwnSampler {
    system: Option<System>,
    pid: Pid,
    /// The first reading of the host's CPU time only sets the mark.
    primed: bool,
}

impl Default for OwnSampler {
    fn default() -> Self {
        Self::new()
    }
}

impl OwnSampler {
    /// Reads the host once. Where its figures cannot be read they stay absent.
    #[must_use]
    pub fn new() -> Self {
        let system = System::new().inspect_err(|error| tracing::warn!("no host figures: {error}")).ok();
        let mut sampler = Self { system, pid: Pid::from_u32(std::process::id()), primed: false };
        sampler.refresh();
        sampler
    }

    /// Takes a reading.
    pub fn sample(&mut self) -> OwnCost {
        let begun = Instant::now();
        self.refresh();
        let host_cpu = self.host_cpu();
        self.primed = true;
        OwnCost {
            cpu_us_total: cpu_us_total(),
            rss_bytes: self
                .system
                .as_ref()
                .and_then(|system| system.process(self.pid))
                .map(sysinfo::Process::memory),
            host_cpu,
            host_memory_used_bytes: self.host_memory_used(),
            took: begun.elapsed(),
        }
    }

    /// The machine; what cannot be read is absent.
    #[must_use]
    pub fn host(&self) -> HostInfo {
        let cpus = self.system.as_ref().map(|system| system.cpus().len() as u64).filter(|cpus| *cpus > 0);
        HostInfo { cpus, memory_bytes: self.host_memory(), kernel: System::kernel_version().ok() }
    }

    fn refresh(&mut self) {
        let Some(system) = &mut self.system else {
            return;
        };
        // Asking for this process' CPU makes sysinfo read the first line of /proc/stat, which is the host's; the full
        // refresh would parse a line a processor.
        let process = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, process);
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    }

    fn host_cpu(&self) -> Option<Ratio> {
        let system = self.system.as_ref().filter(|_| self.primed)?;
        let percent = f64::from(system.global_cpu_usage());
        Ratio::new((percent / 100.0).clamp(0.0, 1.0)).ok()
    }

    fn host_memory(&self) -> Option<u64> {
        self.system.as_ref().map(System::total_memory).filter(|bytes| *bytes > 0)
    }

    fn host_memory_used(&self) -> Option<u64> {
        let total = self.host_memory()?;
        // In some containers the available memory is the host's and the total is not.
        self.system.as_ref().map(|system| total.saturating_sub(system.available_memory()))
    }
}

/// The kernel's own count, to the nanosecond: the clock ticks in /proc are as long as what an idle agent uses in seconds.
fn cpu_us_total() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    secs.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reading_tells_all_but_the_rate() {
        let mut sampler = OwnSampler::new();
        let host = sampler.host();
        let first = sampler.sample();
        assert_eq!(first.host_cpu, None);
        let rss = first.rss_bytes.unwrap();
        assert!((1 << 18..1 << 34).contains(&rss), "{rss} bytes resident");
        let total = host.memory_bytes.unwrap();
        assert!(first.host_memory_used_bytes.unwrap() < total);
        assert!(host.cpus.unwrap() >= 1);
        assert!(!host.kernel.unwrap().is_empty());
        assert!(sampler.sample().host_cpu.is_some());
    }

    #[test]
    fn cpu_time_rises_with_work() {
        let mut sampler = OwnSampler::new();
        let before = sampler.sample().cpu_us_total;
        let begun = cpu_us_total();
        let mut x = 1u64;
        while cpu_us_total() < begun + 2_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(sampler.sample().cpu_us_total >= before + 2_000);
    }
}
