//! One file that is appended to.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    time::SystemTime,
};

use super::line::Line;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The longest line that is looked at; a prompt of a million tokens is a tenth of it.
pub(super) const MAX_LINE_BYTES: u64 = 64 << 20;

/// A file, whatever it is called. The time of birth tells a new file in a reused inode, where the file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
    }
}

/// What following a file gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Followed {
    /// Bytes that were read.
    pub(super) read: u64,
    /// Lines longer than [`MAX_LINE_BYTES`].
    pub(super) too_long: u64,
    /// Whether the file began again.
    pub(super) truncated: bool,
}

/// How far a file was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Where the line begins that has no end yet; `None`: within a line whose begin is history.
    line: Option<u64>,
    /// Up to where there is no newline that was not seen.
    scanned: u64,
}

impl Position {
    /// At the begin: of a file that came into being under our eyes everything counts.
    pub(super) const BEGIN: Self = Self { line: Some(0), scanned: 0 };

    /// At the end of what is there already, which is history. A line that is being written is history too.
    pub(super) fn end_of(file: &File, size: u64) -> io::Result<Self> {
        let mut last = [0u8];
        let at_line = match size.checked_sub(1) {
            None => true,
            Some(at) => file.read_at(&mut last, at)? == 1 && last[0] == b'\n',
        };
        Ok(Self { line: at_line.then_some(size), scanned: size })
    }

    /// How many bytes of a file of this size were not looked at yet.
    pub(super) const fn behind(&self, size: u64) -> u64 {
        size.saturating_sub(self.scanned)
    }

    /// Whether a file of this size holds anything new.
    pub(super) const fn differs(&self, size: u64) -> bool {
        size != self.scanned
    }

    /// Hands out the lines that ended since the last time, up to about `budget` bytes.
    pub(super) fn follow(
        &mut self,
        file: &File,
        budget: u64,
        mut take: impl FnMut(Line<'_>),
    ) -> io::Result<Followed> {
        let mut followed = Followed::default();
        if file.metadata()?.len() < self.scanned {
            // Truncated in place: what is there now is new.
            *self = Self::BEGIN;
            followed.truncated = true;
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        while followed.read < budget {
            let begin = self.scanned;
            let n = match file.read_at(&mut chunk, begin) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for newline in memchr::memchr_iter(b'\n', &chunk[..n]) {
                let end = begin + newline as u64;
                match self.line.replace(end + 1) {
                    None => {}
                    Some(from) if end - from > MAX_LINE_BYTES => followed.too_long += 1,
                    Some(from) if from >= begin => {
                        take(Line::Held(&chunk[(from - begin) as usize..newline]));
                    }
                    Some(from) => take(Line::Stored { file, from, to: end }),
                }
            }
            self.scanned += n as u64;
            followed.read += n as u64;
        }
        Ok(followed)
    }
}
