//! Files of JSON lines.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use serde::Serialize;

/// A file that is appended to; what cannot be written is counted, and the engine goes on.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    line: Vec<u8>,
    lost: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, line: Vec::new(), lost: 0 })
    }

    /// Writes one line in one call.
    pub(super) fn write(&mut self, record: &impl Serialize) {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, record).map_err(io::Error::from).and_then(|()| {
            self.line.push(b'\n');
            self.file.write_all(&self.line)
        });
        if let Err(error) = written {
            self.lost += 1;
            if self.lost.is_power_of_two() {
                tracing::warn!(%error, lost = self.lost, "a line of an export was lost");
            }
        }
    }
}
