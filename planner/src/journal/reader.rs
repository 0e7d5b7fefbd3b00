//! The journal as it is read, also while a planner writes it.

use std::path::{Path, PathBuf};

use plimsoll_common::units::Micros;
use plimsoll_core::{
    controller::{Checkpoint, CheckpointError, Step},
    observe::Observation,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{
    Basis, Build,
    blob::{self, BlobError},
    store::{FILE, FORMAT, is_damage, micros},
};

/// Why a journal can't be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is none.
    #[error("{} is no journal: give the planner's --journal-dir", .0.display())]
    Missing(PathBuf),
    /// Another build wrote it.
    #[error("the journal has format {found}, this build reads {FORMAT}: use the build that wrote it")]
    Format {
        /// Its format.
        found: i32,
    },
    /// What is there is no journal, or no longer.
    #[error("the journal is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// SQLite can't read it.
    #[error("the journal can't be read: {0}")]
    Sql(rusqlite::Error),
    /// A value in it can't be read.
    #[error(transparent)]
    Value(#[from] BlobError),
    /// A checkpoint in it can't be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error) } else { Self::Sql(error) }
    }
}

/// A journal.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
}

/// One policy and one build.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its number.
    pub id: i64,
    /// When it began.
    pub began: Micros,
    /// What decided.
    pub build: Build,
    /// By what.
    pub basis: Basis,
}

/// A checkpoint and the steps that followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub id: i64,
    /// The run that it belongs to.
    pub run: i64,
    /// When its checkpoint was made.
    pub began: Micros,
    /// The number of the step after which its checkpoint was made.
    pub seq: u64,
    /// Its steps.
    pub steps: u64,
    /// When its last step was.
    pub last: Option<Micros>,
}

/// One step as it was.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its number within the run of the process; one that is left out was dropped.
    pub seq: u64,
    /// When it was.
    pub at: Micros,
    /// What was observed since the step before, in this order.
    pub observations: Vec<Observation>,
    /// What was decided, and why: a [`Step`] as MessagePack.
    pub decided: Vec<u8>,
}

impl Recorded {
    /// What was decided, and why.
    ///
    /// # Errors
    /// When another build wrote it in another form.
    pub fn step(&self) -> Result<Step, JournalError> {
        Ok(blob::decode(&self.decided)?)
    }
}

impl Journal {
    /// Opens the journal in a folder; nothing in it is changed.
    ///
    /// # Errors
    /// When there is none that this build reads.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Err(JournalError::Missing(dir.to_owned()));
        }
        // With nobody writing there is no log, and reading must not make one that belongs to somebody else.
        let quiet = !dir.join(format!("{FILE}-wal")).exists();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = if quiet {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{}?immutable=1", escaped(&path)), flags)?
        } else {
            Connection::open_with_flags(&path, flags)?
        };
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        let found: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found != FORMAT {
            return Err(JournalError::Format { found });
        }
        Ok(Self { db })
    }

    /// A run by its number.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn run(&self, id: i64) -> Result<Run, JournalError> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let (began, build, basis): (i64, Vec<u8>, Vec<u8>) =
            self.db.query_row("SELECT began, build, basis FROM run WHERE id = ?", [id], read)?;
        let basis = blob::decode(&blob::unpack(&basis, &[])?)?;
        Ok(Run { id, began: micros(began), build: blob::decode(&build)?, basis })
    }

    /// All segments, the oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn segments(&self) -> Result<Vec<Segment>, JournalError> {
        segments(&self.db)
    }

    /// A segment's checkpoint.
    ///
    /// # Errors
    /// When it can't be read, or another build wrote it.
    pub fn checkpoint(&self, segment: &Segment) -> Result<Checkpoint, JournalError> {
        Ok(Checkpoint::from_bytes(&self.checkpoint_bytes(segment)?)?)
    }

    /// A segment's checkpoint as it was written.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn checkpoint_bytes(&self, segment: &Segment) -> Result<Vec<u8>, JournalError> {
        checkpoint(&self.db, segment.id)
    }

    /// A segment's steps, in their order. They are read one by one; the first that can't be read is the last.
    ///
    /// # Errors
    /// When the segment can't be looked up.
    pub fn steps(&self, segment: &Segment) -> Result<Vec<Recorded>, JournalError> {
        steps(&self.db, segment.id)
    }
}

pub(super) fn segments(db: &Connection) -> Result<Vec<Segment>, JournalError> {
    let mut query = db.prepare(
        "SELECT id, run, began, (SELECT count(*) FROM step WHERE segment = segment.id),
                (SELECT max(at) FROM step WHERE segment = segment.id), seq
         FROM segment ORDER BY id",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let (steps, seq): (i64, i64) = (row.get(3)?, row.get(5)?);
        Ok(Segment {
            id: row.get(0)?,
            run: row.get(1)?,
            began: micros(row.get(2)?),
            seq: u64::try_from(seq).unwrap_or_default(),
            steps: u64::try_from(steps).unwrap_or_default(),
            last: row.get::<_, Option<i64>>(4)?.map(micros),
        })
    };
    Ok(query.query_map([], read)?.collect::<Result<_, _>>()?)
}

pub(super) fn checkpoint(db: &Connection, segment: i64) -> Result<Vec<u8>, JournalError> {
    let packed: Vec<u8> =
        db.query_row("SELECT checkpoint FROM segment WHERE id = ?", [segment], |row| row.get(0))?;
    Ok(blob::unpack(&packed, &[])?)
}

pub(super) fn steps(db: &Connection, segment: i64) -> Result<Vec<Recorded>, JournalError> {
    let first = "SELECT seen, decided FROM step WHERE segment = ? ORDER BY id LIMIT 1";
    let first: Option<(Vec<u8>, Vec<u8>)> =
        db.query_row(first, [segment], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((seen, decided)) = first else { return Ok(Vec::new()) };
    let dictionary = (blob::unpack(&seen, &[])?, blob::unpack(&decided, &[])?);
    let mut query = db.prepare("SELECT seq, at, seen, decided FROM step WHERE segment = ? ORDER BY id")?;
    let mut rows = query.query([segment])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        let (seq, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (seen, decided): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        let (seen, decided) = if steps.is_empty() {
            dictionary.clone()
        } else {
            (blob::unpack(&seen, &dictionary.0)?, blob::unpack(&decided, &dictionary.1)?)
        };
        let (seq, at) = (u64::try_from(seq).unwrap_or_default(), micros(at));
        steps.push(Recorded { seq, at, observations: blob::decode(&seen)?, decided });
    }
    Ok(steps)
}

/// A path as a part of SQLite's URI.
fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
