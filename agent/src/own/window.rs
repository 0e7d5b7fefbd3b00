//! Totals to what a window cost. Pure.

use std::time::Duration;

use plimsoll_common::{units::Ratio, wire::AgentCost};

use super::OwnCost;

/// Turns running totals into the cost of one window after the other: nothing is lost and nothing is counted twice, however
/// long a window is.
#[derive(Debug, Clone, Default)]
pub struct CostWindow {
    cpu_us: u64,
    nvml_busy_us: u64,
}

impl CostWindow {
    /// The first window starts where the process started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes a window: `cost` and `nvml_busy` are the totals at its end, `nvml_busy` absent where NVML was never asked.
    pub fn close(&mut self, cost: &OwnCost, nvml_busy: Option<Duration>, dropped_windows: u64) -> AgentCost {
        let nvml_busy_us = nvml_busy.map(|busy| u64::try_from(busy.as_micros()).unwrap_or(u64::MAX));
        AgentCost {
            cpu_us: Some(gained(&mut self.cpu_us, cost.cpu_us_total)),
            rss_bytes: cost.rss_bytes,
            nvml_busy_us: nvml_busy_us.map(|total| gained(&mut self.nvml_busy_us, total)),
            host_cpu_ppm: cost.host_cpu.map(Ratio::to_ppm),
            host_memory_used_bytes: cost.host_memory_used_bytes,
            dropped_windows: Some(dropped_windows),
        }
    }
}

/// What a total gained; one that fell (a clock that was set back) gained nothing and is the new mark.
const fn gained(mark: &mut u64, total: u64) -> u64 {
    let gain = total.saturating_sub(*mark);
    *mark = total;
    gain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_never_measured_is_absent() {
        let cost = CostWindow::new().close(&OwnCost::default(), None, 0);
        assert_eq!((cost.nvml_busy_us, cost.rss_bytes, cost.host_cpu_ppm), (None, None, None));
        assert_eq!((cost.cpu_us, cost.dropped_windows), (Some(0), Some(0)));
    }

    #[test]
    fn a_total_that_falls_gains_nothing() {
        let mut window = CostWindow::new();
        let at = |cpu_us_total| OwnCost { cpu_us_total, ..OwnCost::default() };
        assert_eq!(window.close(&at(100), None, 0).cpu_us, Some(100));
        assert_eq!(window.close(&at(40), None, 0).cpu_us, Some(0));
        assert_eq!(window.close(&at(60), None, 0).cpu_us, Some(20));
    }

    proptest! {
        /// Invariant: the windows of rising totals sum to the last total.
        #[test]
        fn windows_sum_to_the_total(gains in prop::collection::vec((0u64..1 << 40, 0u64..1 << 40), 1..50)) {
            let mut window = CostWindow::new();
            let (mut cpu, mut busy, mut cpu_sum, mut busy_sum) = (0, 0, 0, 0);
            for (cpu_gain, busy_gain) in gains {
                cpu += cpu_gain;
                busy += busy_gain;
                let total = OwnCost { cpu_us_total: cpu, ..OwnCost::default() };
                let cost = window.close(&total, Some(Duration::from_micros(busy)), 0);
                cpu_sum += cost.cpu_us.unwrap();
                busy_sum += cost.nvml_busy_us.unwrap();
            }
            prop_assert_eq!((cpu_sum, busy_sum), (cpu, busy));
        }
    }
}
