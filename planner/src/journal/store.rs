//! The store: SQLite in write-ahead mode, which others may read while it is written, and which opens after a kill at any
//! byte.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use plimsoll_common::units::Micros;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};

use super::{Basis, Build, Limits, blob};

/// The store's file in the journal's folder.
pub(super) const FILE: &str = "journal.db";
/// Whoever writes holds a lock on this one.
const LOCK: &str = "journal.lock";
/// Tells SQLite files of ours from others: "PLMJ".
const APPLICATION: i32 = 0x504c_4d4a;
/// The format that this build writes and reads.
pub(super) const FORMAT: i32 = 2;
const PAGE: u64 = 4096;
/// The write-ahead log is cut back to this many bytes.
const LOG_BYTES: u64 = 4 << 20;

const SCHEMA: &str = "
    CREATE TABLE run(id INTEGER PRIMARY KEY, began INTEGER NOT NULL, build BLOB NOT NULL, basis BLOB NOT NULL);
    CREATE TABLE segment(id INTEGER PRIMARY KEY, run INTEGER NOT NULL, began INTEGER NOT NULL, seq INTEGER NOT NULL,
                         checkpoint BLOB NOT NULL);
    CREATE TABLE step(id INTEGER PRIMARY KEY, segment INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
                      seen BLOB NOT NULL, decided BLOB NOT NULL);
    CREATE INDEX step_segment ON step(segment, id);
";

/// Why the store can't be opened or written to.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Another planner writes it.
    #[error("{} is held by another planner: give each its own --journal-dir", .0.display())]
    Held(PathBuf),
    /// The folder or a file can't be used.
    #[error("{}: {error}", .path.display())]
    Folder { path: PathBuf, error: io::Error },
    /// Its format is another build's.
    #[error("the journal has format {0}, this build's is {FORMAT}")]
    Format(i32),
    /// What is there is no journal, or no longer.
    #[error("the journal is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// Anything else that SQLite says, such as that the disk is full.
    #[error("the journal can't be written: {0}")]
    Sql(rusqlite::Error),
    /// A value could not be compressed.
    #[error("a value can't be packed: {0}")]
    Pack(#[from] io::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::Damaged(error) } else { Self::Sql(error) }
    }
}

impl StoreError {
    /// Whether only a new store helps.
    pub(super) const fn needs_another(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Format(_))
    }

    /// Whether there is no room: the store's own bound, or the disk's.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

/// Whether SQLite found what it did not write.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, text) => {
            let no_table = text.as_deref().is_some_and(|text| text.starts_with("no such table"));
            no_table || matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // A column of another kind than was written.
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

/// The store, open for writing.
#[derive(Debug)]
pub(super) struct Store {
    db: Connection,
    limits: Limits,
    run: Option<i64>,
    segment: Option<Open>,
    /// Held as long as the store is.
    _lock: fs::File,
}

/// The segment that is written to.
#[derive(Debug)]
struct Open {
    id: i64,
    /// The first step's observations and decision.
    dictionary: Option<(Vec<u8>, Vec<u8>)>,
}

/// A step as it is written.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) at: Micros,
    pub(super) seen: Vec<u8>,
    pub(super) decided: Vec<u8>,
}

/// How large the store is, and since when it tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    pub(super) oldest: Micros,
}

impl Store {
    /// Opens or makes the store in a folder.
    pub(super) fn open(dir: &Path, limits: Limits) -> Result<Self, StoreError> {
        let folder = |path: &Path, error| StoreError::Folder { path: path.to_owned(), error };
        fs::create_dir_all(dir).map_err(|error| folder(dir, error))?;
        let path = dir.join(LOCK);
        let lock = fs::File::create(&path).map_err(|error| folder(&path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Held(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(folder(&path, error)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(dir.join(FILE), flags)?;
        prepare(&db, &limits)?;
        Ok(Self { db, limits, run: None, segment: None, _lock: lock })
    }

    pub(super) const fn db(&self) -> &Connection {
        &self.db
    }

    /// Whether there is a segment to write steps to.
    pub(super) const fn is_ready(&self) -> bool {
        self.segment.is_some()
    }

    /// What is decided from here on rests on this.
    pub(super) fn begin(&mut self, now: Micros, build: &Build, basis: &Basis) -> Result<(), StoreError> {
        (self.run, self.segment) = (None, None);
        let (build, basis) = (blob::encode(build), blob::pack(&blob::encode(basis), &[])?);
        self.db.execute(
            "INSERT INTO run(began, build, basis) VALUES(?, ?, ?)",
            params![int(now.0), build, basis],
        )?;
        self.run = Some(self.db.last_insert_rowid());
        Ok(())
    }

    /// Begins a segment with a checkpoint, which was made after the step of this number.
    pub(super) fn checkpoint(
        &mut self,
        now: Micros,
        seq: u64,
        checkpoint: &[u8],
    ) -> Result<bool, StoreError> {
        let Some(run) = self.run else { return Ok(false) };
        let packed = blob::pack(checkpoint, &[])?;
        self.make_room(now, packed.len() as u64)?;
        self.db.execute(
            "INSERT INTO segment(run, began, seq, checkpoint) VALUES(?, ?, ?, ?)",
            params![run, int(now.0), int(seq), packed],
        )?;
        self.segment = Some(Open { id: self.db.last_insert_rowid(), dictionary: None });
        Ok(true)
    }

    /// Adds steps to the segment, all or none. Answers how many bytes they take.
    pub(super) fn append(&mut self, rows: &[Row]) -> Result<u64, StoreError> {
        let Some(last) = rows.last() else { return Ok(0) };
        let raw: usize = rows.iter().map(|row| row.seen.len() + row.decided.len()).sum();
        self.make_room(last.at, raw as u64 / 4)?;
        let Some(segment) = &mut self.segment else { return Ok(0) };
        let mut dictionary = segment.dictionary.clone();
        let transaction = self.db.transaction()?;
        let bytes = insert(&transaction, segment.id, &mut dictionary, rows)?;
        transaction.commit()?;
        // Only a step that is stored can be the dictionary of others.
        segment.dictionary = dictionary;
        Ok(bytes)
    }

    /// Gives up what is too old, and the oldest until there is room for so many bytes more.
    fn make_room(&mut self, now: Micros, bytes: u64) -> Result<(), StoreError> {
        let age = Micros(u64::try_from(self.limits.age.as_micros()).unwrap_or(u64::MAX));
        let horizon = now.saturating_sub(age);
        // Room is what SQLite needs beside the values, too.
        let most = (self.limits.bytes * 3 / 4).saturating_sub(bytes);
        while let Some((oldest, next)) = self.oldest_two()? {
            let own = self.segment.as_ref().is_some_and(|open| open.id == oldest);
            if own || (next >= horizon && self.used()? <= most) {
                break;
            }
            self.give_up(oldest)?;
        }
        Ok(())
    }

    /// The oldest segment, and when the one after it began; `None` with fewer than two.
    fn oldest_two(&self) -> Result<Option<(i64, Micros)>, StoreError> {
        let mut query = self.db.prepare("SELECT id, began FROM segment ORDER BY id LIMIT 2")?;
        let rows: Vec<(i64, i64)> =
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        Ok(match rows[..] {
            [(id, _), (_, next)] => Some((id, micros(next))),
            _ => None,
        })
    }

    fn give_up(&mut self, segment: i64) -> Result<(), StoreError> {
        let transaction = self.db.transaction()?;
        transaction.execute("DELETE FROM step WHERE segment = ?", [segment])?;
        transaction.execute("DELETE FROM segment WHERE id = ?", [segment])?;
        transaction.execute(
            "DELETE FROM run WHERE id < (SELECT max(id) FROM run) AND id NOT IN (SELECT run FROM segment)",
            [],
        )?;
        transaction.commit()?;
        // Pages beyond the bound go back to the disk: the bound may have been lowered.
        if number(&self.db, "page_count")? * PAGE > self.limits.bytes * 7 / 8 {
            self.db.execute_batch("PRAGMA incremental_vacuum")?;
        }
        Ok(())
    }

    fn used(&self) -> Result<u64, StoreError> {
        let free = number(&self.db, "freelist_count")?;
        Ok(number(&self.db, "page_count")?.saturating_sub(free) * PAGE)
    }

    /// How large it is, and since when it tells.
    pub(super) fn extent(&self) -> Result<Extent, StoreError> {
        let oldest: Option<i64> =
            self.db.query_row("SELECT min(began) FROM segment", [], |row| row.get(0))?;
        Ok(Extent { bytes: self.used()?, oldest: micros(oldest.unwrap_or(0)) })
    }
}

fn insert(
    transaction: &Transaction<'_>,
    segment: i64,
    dictionary: &mut Option<(Vec<u8>, Vec<u8>)>,
    rows: &[Row],
) -> Result<u64, StoreError> {
    let mut query =
        transaction.prepare("INSERT INTO step(segment, seq, at, seen, decided) VALUES(?, ?, ?, ?, ?)")?;
    let mut bytes = 0;
    for row in rows {
        let (seen, decided) = match dictionary {
            Some((seen, decided)) => (blob::pack(&row.seen, seen)?, blob::pack(&row.decided, decided)?),
            None => {
                *dictionary = Some((row.seen.clone(), row.decided.clone()));
                (blob::pack(&row.seen, &[])?, blob::pack(&row.decided, &[])?)
            }
        };
        query.execute(params![segment, int(row.seq), int(row.at.0), seen, decided])?;
        bytes += (seen.len() + decided.len()) as u64;
    }
    Ok(bytes)
}

/// Puts a damaged store out of the way, in the place of one that was set aside before.
pub(super) fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let aside = format!("{FILE}.damaged");
    for tail in ["-wal", "-shm", ""] {
        let (from, to) = (dir.join(format!("{FILE}{tail}")), dir.join(format!("{aside}{tail}")));
        match fs::rename(&from, &to) {
            // The one that was set aside before had such a file, and this one has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => _ = fs::remove_file(&to),
            done => done?,
        }
    }
    Ok(dir.join(aside))
}

fn prepare(db: &Connection, limits: &Limits) -> Result<(), StoreError> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    // Set before the first table, or never.
    db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // A kill loses nothing; a power cut may lose the last steps, and never damages.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "journal_size_limit", int(LOG_BYTES))?;
    db.pragma_update(None, "max_page_count", int(limits.bytes * 7 / 8 / PAGE))?;
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let format: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match (application, format) {
        (APPLICATION, FORMAT) => {}
        (0, 0) => {
            // All at once: a kill in between leaves an empty file.
            db.execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
            ))?;
        }
        (_, other) => return Err(StoreError::Format(other)),
    }
    // Reading the tables' heads tells whether they are there.
    db.query_row("SELECT count(*) FROM run", [], |_| Ok(()))?;
    db.query_row("SELECT count(*) FROM segment", [], |_| Ok(()))?;
    Ok(())
}

fn number(db: &Connection, pragma: &str) -> Result<u64, StoreError> {
    let value: i64 = db.pragma_query_value(None, pragma, |row| row.get(0))?;
    Ok(u64::try_from(value).unwrap_or_default())
}

/// SQLite's integers are signed; no time or sequence of ours comes near the end.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn micros(value: i64) -> Micros {
    Micros(u64::try_from(value).unwrap_or_default())
}
