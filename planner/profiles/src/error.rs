//! What can be wrong with files of profiles and tables.

use std::path::PathBuf;

use plimsoll_engine::{ConfigError, ProfileError};

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// No built-in profile has this name.
    #[error(transparent)]
    Unknown(ProfileError),
    /// A file can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large for a profile.
    #[error("{} is larger than {} MiB, which is no profile", path.display(), most >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes that are read at most.
        most: u64,
    },
    /// A folder without anything known.
    #[error(
        "{} holds none of the files of Dynamo's profiler: selected_prefill_interpolation/raw_data.npz and \
         selected_decode_interpolation/raw_data.npz, or prefill_raw_data.json and decode_raw_data.json; give the files \
         themselves if they have other names",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing was given.
    #[error("there is nothing to import: give a file or a folder")]
    Nothing,
    /// One of the files is wrong.
    #[error("{name}: {error}")]
    Source {
        /// The file.
        name: String,
        /// What is wrong with it.
        error: SourceError,
    },
    /// The files do not add up to an engine.
    #[error("{given}: there is no table of {missing} times; {hint}")]
    Incomplete {
        /// The files.
        given: String,
        /// `prefill` or `decode`.
        missing: &'static str,
        /// What to give.
        hint: &'static str,
    },
    /// The same was given twice.
    #[error("{first} and {second} both have {what}: give one of them")]
    Twice {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// What both have.
        what: &'static str,
    },
    /// Something that the files do not tell.
    #[error("{given}: {what} is not told: give {flag} to `plimsoll-planner profile import`")]
    Untold {
        /// The files.
        given: String,
        /// What is needed.
        what: &'static str,
        /// The flag that tells it.
        flag: &'static str,
    },
    /// The prefill and the decode engine are of different sizes.
    #[error(
        "{given}: by its throughputs the prefill engine has {prefill} GPUs and the decode engine {decode}, and a profile is \
         one engine: import twice with `plimsoll-planner profile import`, --gpus-per-replica {prefill} for the prefill \
         pool and --gpus-per-replica {decode} for the decode pool"
    )]
    TwoEngines {
        /// The files.
        given: String,
        /// GPUs of the prefill engine.
        prefill: u32,
        /// GPUs of the decode engine.
        decode: u32,
    },
    /// A flag that can't be.
    #[error("{flag} cannot be {value}: {instead}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: u64,
        /// What would do.
        instead: String,
    },
    /// The tables make an engine that can't run.
    #[error("{given}: the tables make no engine: {error}")]
    Engine {
        /// The files.
        given: String,
        /// Why not.
        error: ConfigError,
    },
}

/// What is wrong with one file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Neither an archive nor text.
    #[error(
        "it is neither JSON text nor an npz archive: give a profile or a table in JSON, or what numpy.savez wrote"
    )]
    Binary,
    /// A bare array.
    #[error(
        "it is one array (npy), and an array does not tell its name: give the npz archive that it is from"
    )]
    BareArray,
    /// JSON that can't be read as what it seems to be.
    #[error("it begins like JSON, and is none that can be used as {what}: {error}")]
    Json {
        /// As what.
        what: &'static str,
        /// Where it stops.
        error: serde_json::Error,
    },
    /// JSON of something else.
    #[error(
        "it is neither a profile (with the key timing), nor a table of Dynamo's profiler (prefill_isl, x_kv_usage), nor a \
         sheet of named columns (prefill_columns); it has {has}"
    )]
    Unrecognised {
        /// The first few of its keys.
        has: String,
    },
    /// A profile of our own that is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// An archive that is wrong.
    #[error(transparent)]
    Npz(#[from] NpzError),
    /// A key or column is missing.
    #[error("{what} {name} is missing; there are {has}")]
    Missing {
        /// `the key`, `the column` and so on.
        what: &'static str,
        /// Its name.
        name: &'static str,
        /// What there is instead.
        has: String,
    },
    /// Arrays that belong together differ in length.
    #[error("{one} has {} values and {other} has {}: they are rows of one table", lengths.0, lengths.1)]
    Lengths {
        /// The one.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// How long they are.
        lengths: (usize, usize),
    },
    /// A row is too short.
    #[error("row {row} of {table} has {cells} cells: {needed} are needed")]
    ShortRow {
        /// The table.
        table: &'static str,
        /// The row, from 1.
        row: usize,
        /// Its cells.
        cells: usize,
        /// How many it should have.
        needed: usize,
    },
    /// A number that can't be.
    #[error("row {row}: {column} is {value}: give {range}")]
    Number {
        /// The row, from 1.
        row: usize,
        /// The column or key.
        column: &'static str,
        /// What was given.
        value: f64,
        /// What is accepted.
        range: &'static str,
    },
    /// Too few rows.
    #[error("{table} has rows of {places} different sizes: at least {least} are needed to tell a curve")]
    TooFew {
        /// The table.
        table: &'static str,
        /// Different places that were measured.
        places: usize,
        /// How many are needed.
        least: usize,
    },
    /// Too many rows.
    #[error("{table} has {rows} rows: at most {most} are read")]
    TooMany {
        /// The table.
        table: &'static str,
        /// Rows there are.
        rows: usize,
        /// Rows that are read.
        most: usize,
    },
    /// Times that must be of another unit.
    #[error(
        "the longest of {table} times is {longest} ms, which no engine reaches: times are milliseconds, and these look like \
         seconds"
    )]
    Seconds {
        /// `prefill` or `decode`.
        table: &'static str,
        /// The longest, as read.
        longest: f64,
    },
}

/// What is wrong with an archive of arrays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpzError {
    /// Not a zip file, or one that is damaged.
    #[error("the archive can't be read: {0}; copy it again, it may be cut off")]
    Archive(#[from] rawzip::Error),
    /// Its directory is damaged.
    #[error("the archive's directory has {0} members of {1}: copy it again, it is damaged")]
    Directory(u64, u64),
    /// Too many members.
    #[error("the archive has more than {0} members, which no profiler writes")]
    Members(u64),
    /// Two members of one name.
    #[error("the archive has {0} twice: save it again")]
    Twice(String),
    /// A member that is packed in another way, or encrypted.
    #[error("{member} is packed as {method}: save it with numpy.savez or numpy.savez_compressed")]
    Method {
        /// The member.
        member: String,
        /// How it is packed.
        method: String,
    },
    /// A member that can't be unpacked.
    #[error("{member} can't be unpacked: {error}")]
    Unpack {
        /// The member.
        member: String,
        /// Why not.
        error: std::io::Error,
    },
    /// A member that unpacks to too much.
    #[error("{member} unpacks to more than {} MiB, which is no table", most >> 20)]
    Large {
        /// The member.
        member: String,
        /// Bytes that are unpacked at most.
        most: u64,
    },
    /// An array that can't be read.
    #[error("{member}: {error}")]
    Array {
        /// The member.
        member: String,
        /// What is wrong with it.
        error: NpyError,
    },
}

/// What is wrong with an array.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// It does not begin as an array does.
    #[error("it is no array in numpy's format")]
    Magic,
    /// A format that is not known.
    #[error("it is in version {0}.{1} of numpy's format: versions 1 to 3 are read")]
    Version(u8, u8),
    /// The header ends early or says nonsense.
    #[error("its header makes no sense at {0:?}")]
    Header(String),
    /// Values of a kind that is not read.
    #[error(
        "it holds values of type {0}: save it as float64 (numbers of 1 to 8 bytes are read, objects never)"
    )]
    Type(String),
    /// Column by column.
    #[error("it is stored column by column: save it with numpy.ascontiguousarray")]
    Order,
    /// More than two dimensions, or too many values.
    #[error("its shape is {0}: tables have one or two dimensions and at most {1} values")]
    Shape(String, usize),
    /// Less data than the shape needs.
    #[error("its shape needs {0} bytes and {1} are there: it is cut off or damaged")]
    Size(usize, usize),
}
