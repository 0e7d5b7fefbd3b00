//! Time: seconds since the scenario began, and the stamps that NVML and the call log put on things.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// An epoch may lie this far back: totals are integrated from there on.
const MAX_AGE_S: f64 = 86_400.0;

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock that all processes of a machine share.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// Microseconds since 1970, NVML's stamp for samples and field values.
pub(crate) fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// When the scenario began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began_ns: i128,
}

impl Clock {
    /// A scenario that begins now.
    pub(crate) fn starting_now() -> Self {
        Self { began_ns: i128::from(monotonic_ns()) }
    }

    /// A scenario that began, or begins, at this time in seconds since 1970; it may be at most a day back.
    pub(crate) fn since_unix(epoch: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "PLIMSOLL_FAKE_NVML_EPOCH={epoch:?}: set it to seconds since 1970, at most a day back, or leave it out"
            )
        };
        let epoch_s: f64 = epoch.trim().parse().map_err(|_| fault())?;
        let age_s = unix_us() as f64 / 1e6 - epoch_s;
        if !(-MAX_AGE_S..=MAX_AGE_S).contains(&age_s) {
            return Err(fault());
        }
        Ok(Self { began_ns: i128::from(monotonic_ns()) - (age_s * 1e9) as i128 })
    }

    /// Seconds since the scenario began; 0 before it begins.
    pub(crate) fn elapsed_s(self) -> f64 {
        (i128::from(monotonic_ns()) - self.began_ns).max(0) as f64 / 1e9
    }
}

/// Keeps the processor busy, as a call that waits for the driver does.
pub(crate) fn burn(duration: Duration) {
    let until = monotonic_ns().saturating_add(duration.as_nanos() as u64);
    while monotonic_ns() < until {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_shared_and_bounded() {
        let now_s = unix_us() as f64 / 1e6;
        let clock = Clock::since_unix(&format!("{}", now_s - 100.0)).unwrap();
        assert!((99.9..110.0).contains(&clock.elapsed_s()), "{}", clock.elapsed_s());
        assert!(Clock::since_unix(&format!("{}", now_s + 60.0)).unwrap().elapsed_s() <= 0.0);
        for wrong in ["", "yesterday", "0", "nan", "inf", "-1"] {
            assert!(Clock::since_unix(wrong).is_err(), "{wrong}");
        }
    }
}
