//! What the agent itself costs, and the figures of its host.

mod procfs;
mod window;

use std::time::Duration;

use plimsoll_common::{units::Ratio, wire::HostInfo};
use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};
use sysinfo::{CpuRefreshKind, System};
use tokio::time::Instant;

use self::procfs::{ProcFile, host_memory, host_ticks, resident_pages};
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

/// Reads the agent's own cost. What `/proc/stat` costs the kernel grows with the processors: once a report is often enough.
#[derive(Debug)]
pub struct OwnSampler {
    statm: ProcFile,
    stat: ProcFile,
    meminfo: ProcFile,
    /// Busy ticks and all ticks of the host at the reading before.
    ticks: Option<(u64, u64)>,
}

impl Default for OwnSampler {
    fn default() -> Self {
        Self::new()
    }
}

impl OwnSampler {
    /// Nothing was read yet. What cannot be read stays absent.
    #[must_use]
    pub fn new() -> Self {
        Self {
            statm: ProcFile::open("/proc/self/statm"),
            stat: ProcFile::open("/proc/stat"),
            meminfo: ProcFile::open("/proc/meminfo"),
            ticks: None,
        }
    }

    /// Takes a reading.
    pub fn sample(&mut self) -> OwnCost {
        let begun = Instant::now();
        let page = page_size() as u64;
        // In some containers the available memory is the host's and the total is not.
        let used = |(total, available): (u64, u64)| total.saturating_sub(available);
        OwnCost {
            cpu_us_total: cpu_us_total(),
            rss_bytes: self.statm.read(resident_pages).map(|pages| pages.saturating_mul(page)),
            host_cpu: self.host_cpu(),
            host_memory_used_bytes: self.meminfo.read(host_memory).map(used),
            took: begun.elapsed(),
        }
    }

    /// The machine; what cannot be read is absent.
    #[must_use]
    pub fn host(&self) -> HostInfo {
        let mut system = System::new().inspect_err(|error| tracing::warn!("no host figures: {error}")).ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_list(CpuRefreshKind::nothing());
        }
        let cpus = system.map(|system| system.cpus().len() as u64).filter(|cpus| *cpus > 0);
        let memory_bytes = self.meminfo.read(host_memory).map(|(total, _)| total).filter(|bytes| *bytes > 0);
        HostInfo { cpus, memory_bytes, kernel: System::kernel_version().ok() }
    }

    fn host_cpu(&mut self) -> Option<Ratio> {
        let now = self.stat.read(host_ticks);
        let before = std::mem::replace(&mut self.ticks, now);
        let ((busy, all), (busy_before, all_before)) = (now?, before?);
        let all = all.checked_sub(all_before).filter(|ticks| *ticks > 0)?;
        Ratio::new((busy.saturating_sub(busy_before) as f64 / all as f64).min(1.0)).ok()
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
        // The host's clock ticks a hundred times a second, so the next reading may be too soon for a rate.
        let begun = Instant::now();
        while sampler.sample().host_cpu.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "no rate");
            std::thread::yield_now();
        }
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
