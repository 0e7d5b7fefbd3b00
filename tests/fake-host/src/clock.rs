//! `clock_gettime`, ahead and too fast.

use std::{fs::File, os::unix::fs::FileExt as _, sync::OnceLock};

use libc::{c_int, clockid_t, timespec};

const NANOS: i128 = 1_000_000_000;

/// What was decided when the clock was read first.
#[derive(Debug)]
struct Decided {
    ahead: Option<File>,
    rate: i128,
    /// The wall clock and the monotonic clocks at that moment, nanoseconds.
    wall: i128,
    steady: i128,
}

/// Takes the C library's place.
///
/// # Safety
/// `time` must be null or point to a `timespec`, as for the function that it stands for.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the caller vouches for the pointer, as it would for the C library.
    let read = unsafe { read(clock, time) };
    if read == 0 && !time.is_null() {
        // SAFETY: the kernel has just written there.
        let time = unsafe { &mut *time };
        let shown = shown(clock, nanos(time));
        // A field is as wide as the platform has it; no moment that is shown here does not fit.
        time.tv_sec = (shown.div_euclid(NANOS)) as _;
        time.tv_nsec = (shown.rem_euclid(NANOS)) as _;
    }
    read
}

/// Asks the kernel itself.
unsafe fn read(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the caller vouches for the pointer, and the kernel checks it.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

fn now(clock: clockid_t) -> i128 {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of a local.
    unsafe { read(clock, &raw mut time) };
    nanos(&time)
}

fn nanos(time: &timespec) -> i128 {
    i128::from(time.tv_sec) * NANOS + i128::from(time.tv_nsec)
}

fn shown(clock: clockid_t, real: i128) -> i128 {
    static DECIDED: OnceLock<Decided> = OnceLock::new();
    let decided = DECIDED.get_or_init(|| Decided {
        ahead: crate::path("PLIMSOLL_FAKE_HOST_CLOCK").and_then(|path| File::open(path).ok()),
        rate: std::env::var("PLIMSOLL_FAKE_HOST_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(1),
        wall: now(libc::CLOCK_REALTIME),
        steady: now(libc::CLOCK_MONOTONIC),
    });
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            decided.wall + (real - decided.wall) * decided.rate + decided.ahead()
        }
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE => {
            decided.steady + (real - decided.steady) * decided.rate
        }
        _ => real,
    }
}

impl Decided {
    /// By how much the wall clock is ahead now. The file is written in place and in one piece.
    fn ahead(&self) -> i128 {
        let mut text = [0; 32];
        let read = self.ahead.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let seconds =
            std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse::<i128>().ok());
        seconds.unwrap_or(0) * NANOS
    }
}
