//! A folder of request logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    file::{FileId, Position},
    line::{Line, LineError},
};
use crate::exact::{
    batch::ExactSamples,
    record::RequestRecord,
    {sglang, trtllm},
};

/// How many directory entries are looked at.
const MAX_ENTRIES: usize = 65_536;
/// How many files are followed: an hour has one, so these are five months.
const MAX_FILES: usize = 4_096;
/// How many files are kept open at a time.
const MAX_OPEN: usize = 16;
/// How much is read in one poll.
const POLL_BYTES: u64 = 8 << 20;
/// For how long a renamed file is kept that no longer grows: an engine writes on in it until its hour is over.
const KEEP_RENAMED: Duration = Duration::from_hours(1);
/// For how long a deleted file is kept that no longer grows.
const KEEP_DELETED: Duration = Duration::from_secs(60);

/// Why a folder can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no such folder.
    #[error("{0} does not exist; the engine creates it, if it writes a request log")]
    Absent(String),
    /// The folder or a file can't be read.
    #[error("{path} can't be read: {error}")]
    Unreadable {
        /// What.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// What one poll gave.
#[derive(Debug, Default)]
pub struct Polled {
    /// What was measured.
    pub samples: ExactSamples,
    /// Records that were counted.
    pub records: u64,
    /// Records that are not to be counted.
    pub skipped: u64,
    /// Lines that are no record, and values that can't be true.
    pub malformed: u64,
    /// Lines that were too long, and files for which there was no room.
    pub dropped: u64,
    /// Bytes that are written and not read yet.
    pub behind_bytes: u64,
    /// The first line that was no record.
    pub first_error: Option<LineError>,
    /// The first file that can't be read.
    pub unreadable: Option<FolderError>,
    /// How many files of a request log there are.
    pub files: usize,
}

/// A folder of request logs and how far each was followed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<FileId, Tailed>,
    /// Whether the folder was looked at before: what was in it at the first look is history.
    known: bool,
}

#[derive(Debug)]
struct Tailed {
    format: Format,
    position: Position,
    /// Held while it grows, so that a file that is renamed or deleted is still read to its end.
    open: Option<File>,
    grew: Instant,
}

/// Which engine's log it is, told by the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Sglang,
    TensorRtLlm,
}

impl Format {
    fn of(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        let between = |prefix: &str, suffix: &str| name.starts_with(prefix) && name.ends_with(suffix);
        if between("sglang-request-metrics-", ".log") {
            Some(Self::Sglang)
        } else if between("perf_metrics-", ".jsonl") {
            Some(Self::TensorRtLlm)
        } else {
            None
        }
    }

    fn read(self, line: Line<'_>) -> Result<Option<RequestRecord>, LineError> {
        match self {
            Self::Sglang => sglang::read(line),
            Self::TensorRtLlm => trtllm::read(line),
        }
    }
}

impl Folder {
    /// A folder that was not looked at yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new(), known: false }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the folder and reads what was written since the last look. At the first look nothing is read: what is
    /// there is history. Blocks on the file system.
    ///
    /// # Errors
    /// When the folder itself can't be read. What was open is read all the same the next time.
    pub fn poll(&mut self, now: Instant) -> Result<Polled, FolderError> {
        let mut polled = Polled::default();
        let listed = self.list(now, &mut polled)?;
        let mut budget = POLL_BYTES;
        for tailed in self.files.values_mut().filter(|tailed| tailed.open.is_some()) {
            let read = tailed.follow(budget, now, &mut polled);
            budget = budget.saturating_sub(read);
        }
        self.forget(now, &listed);
        polled.files = listed.len();
        Ok(polled)
    }

    /// Enters new files, and opens those that grew.
    fn list(&mut self, now: Instant, polled: &mut Polled) -> Result<BTreeSet<FileId>, FolderError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A folder that comes into being later holds nothing but news.
                self.known = true;
                return Err(FolderError::Absent(self.path.display().to_string()));
            }
            Err(error) => return Err(unreadable(&self.path, error)),
        };
        let mut listed = BTreeSet::new();
        for entry in entries.take(MAX_ENTRIES) {
            let entry = entry.map_err(|error| unreadable(&self.path, error))?;
            let Some(format) = Format::of(&entry.file_name()) else { continue };
            // Of links and pipes nothing is read. A file that is gone by now is none.
            let Some(metadata) = entry.metadata().ok().filter(Metadata::is_file) else { continue };
            let id = FileId::of(&metadata);
            listed.insert(id);
            if let Err(error) = self.enter(id, format, &entry.path(), &metadata, now, polled) {
                polled.unreadable.get_or_insert(error);
            }
        }
        self.known = true;
        Ok(listed)
    }

    fn enter(
        &mut self,
        id: FileId,
        format: Format,
        path: &Path,
        metadata: &Metadata,
        now: Instant,
        polled: &mut Polled,
    ) -> Result<(), FolderError> {
        let size = metadata.len();
        let open = || -> Result<File, FolderError> {
            let file = File::open(path).map_err(|error| unreadable(path, error))?;
            let same = file.metadata().is_ok_and(|metadata| FileId::of(&metadata) == id);
            same.then_some(file).ok_or_else(|| {
                unreadable(path, io::Error::other("it was replaced just now; it is read at the next look"))
            })
        };
        let full = self.files.len() >= MAX_FILES;
        match self.files.get_mut(&id) {
            Some(tailed) if tailed.open.is_none() && tailed.position.differs(size) => {
                tailed.open = Some(open()?);
                tailed.grew = now;
            }
            Some(_) => {}
            None if full => polled.dropped += 1,
            None if self.known => {
                let tailed = Tailed { format, position: Position::BEGIN, open: Some(open()?), grew: now };
                self.files.insert(id, tailed);
            }
            None => {
                let position = Position::end_of(&open()?, size).map_err(|error| unreadable(path, error))?;
                self.files.insert(id, Tailed { format, position, open: None, grew: now });
            }
        }
        Ok(())
    }

    /// Closes what no longer grows, and forgets what is gone.
    fn forget(&mut self, now: Instant, listed: &BTreeSet<FileId>) {
        let mut open: Vec<(Instant, FileId)> = Vec::new();
        self.files.retain(|id, tailed| {
            let Some(file) = &tailed.open else { return listed.contains(id) };
            let idle = now.saturating_duration_since(tailed.grew);
            let gone = !listed.contains(id);
            let deleted = gone && file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
            let keep = if deleted { KEEP_DELETED } else { KEEP_RENAMED };
            if idle >= keep {
                tailed.open = None;
                return !gone;
            }
            open.push((tailed.grew, *id));
            true
        });
        open.sort_unstable();
        let surplus = open.len().saturating_sub(MAX_OPEN);
        for (_, id) in &open[..surplus] {
            if listed.contains(id) {
                self.files.entry(*id).and_modify(|tailed| tailed.open = None);
            } else {
                self.files.remove(id);
            }
        }
    }
}

impl Tailed {
    /// Reads what is new; answers how many bytes that were.
    fn follow(&mut self, budget: u64, now: Instant, polled: &mut Polled) -> u64 {
        let Some(file) = &self.open else { return 0 };
        let format = self.format;
        let followed = self.position.follow(file, budget, |line| count(format, line, polled));
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        polled.behind_bytes = polled.behind_bytes.saturating_add(self.position.behind(size));
        match followed {
            Ok(followed) => {
                polled.dropped += followed.too_long;
                if followed.read > 0 || followed.truncated {
                    self.grew = now;
                }
                followed.read
            }
            Err(error) => {
                let what = || FolderError::Unreadable { path: "a request log".to_owned(), error };
                polled.unreadable.get_or_insert_with(what);
                self.open = None;
                0
            }
        }
    }
}

fn count(format: Format, line: Line<'_>, polled: &mut Polled) {
    if line.is_blank() {
        return;
    }
    match format.read(line) {
        Ok(Some(record)) => {
            let counted = record.count_into(&mut polled.samples);
            polled.records += u64::from(counted.values > 0);
            polled.malformed += counted.impossible;
        }
        Ok(None) => polled.skipped += 1,
        Err(error) => {
            polled.malformed += 1;
            polled.first_error.get_or_insert(error);
        }
    }
}

fn unreadable(path: &Path, error: io::Error) -> FolderError {
    FolderError::Unreadable { path: path.display().to_string(), error }
}
