//! The call log: one line per NVML call, so that a test can assert what a client asks for, how often and how spaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::clock;

/// One process writes at most this much; the last line then says so.
const MAX_BYTES: usize = 64 << 20;

/// A file that calls are appended to. Several processes may share it: each line is one write.
#[derive(Debug)]
pub(crate) struct CallLog {
    sink: Mutex<Sink>,
}

#[derive(Debug)]
struct Sink {
    file: File,
    left: usize,
}

impl CallLog {
    /// Opens the file, and creates it where it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { sink: Mutex::new(Sink { file, left: MAX_BYTES }) })
    }

    /// Appends `<monotonic nanoseconds> <call> <device index, or ->`. A disk that is full costs lines, not calls.
    pub(crate) fn append(&self, call: &str, device: Option<usize>) {
        let device = device.map_or_else(|| "-".to_owned(), |index| index.to_string());
        let mut line = format!("{} {call} {device}\n", clock::monotonic_ns());
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if sink.left == 0 {
            return;
        }
        if line.len() > sink.left {
            sink.left = 0;
            line = format!("{} log-full -\n", clock::monotonic_ns());
        } else {
            sink.left -= line.len();
        }
        drop(sink.file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_time_call_and_device() {
        let path = std::env::temp_dir().join(format!("plimsoll-call-log-{}", std::process::id()));
        let log = CallLog::open(&path).unwrap();
        log.append("nvmlDeviceGetName", Some(3));
        log.append("nvmlShutdown", None);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        assert_eq!(rows[0][1..], ["nvmlDeviceGetName", "3"]);
        assert_eq!(rows[1][1..], ["nvmlShutdown", "-"]);
        assert!(rows[0][0].parse::<u64>().unwrap() <= rows[1][0].parse::<u64>().unwrap());
    }
}
