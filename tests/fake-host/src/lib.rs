//! A host whose clocks and names a test decides, for programs that know nothing of it.
//!
//! The library goes into a program's `LD_PRELOAD` and stands before the C library's `clock_gettime` and `getaddrinfo`. What it
//! says stands in files and the environment:
//!
//! | Variable | Meaning |
//! |---|---|
//! | `PLIMSOLL_FAKE_HOST_CLOCK` | file with the seconds, perhaps negative, by which the wall clock is ahead; may change at any time |
//! | `PLIMSOLL_FAKE_HOST_RATE` | how many times too fast wall and monotonic clocks run, since the program's start; default 1 |
//! | `PLIMSOLL_FAKE_HOST_NAMES` | file with a line `NAME [ADDRESS...]` for each name; one without an address can't be resolved. Other names are those of the machine; may be replaced at any time |
//!
//! Clocks of CPU time stay as they are, and so do timers of the kernel: a program on a fast clock wakes at its usual times and
//! believes that more has passed. For Linux with glibc, whose lists of addresses may be put together node by node.

#![expect(unsafe_code, reason = "it takes the place of functions of the C library")]

mod clock;
mod names;

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// A variable of the environment as a path.
fn path(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name)?;
    (!value.is_empty()).then(|| PathBuf::from(OsString::from_vec(value.into_vec())))
}
