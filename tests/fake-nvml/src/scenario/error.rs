//! What can be wrong with a scenario. Every message says where, and what to do.

use std::path::PathBuf;

/// A scenario that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No scenario was named.
    #[error(
        "no scenario: set PLIMSOLL_FAKE_NVML_SCENARIO to the path of a scenario file or to one of: {}",
        super::builtin::names()
    )]
    Unset,
    /// The name is neither a file nor built in.
    #[error(
        "no scenario {name:?}: name a file (its path has a `/` or ends in `.toml`) or one of: {}",
        super::builtin::names()
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read scenario {}: make it a readable file of at most 1 MiB", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The text is not the TOML that is expected.
    #[error("{origin}:{line}:{column}: {message}; mend this line")]
    Parse {
        /// File or built-in.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser said.
        message: String,
    },
    /// A value makes no sense.
    #[error("{origin}:{line}: {key}: {message}")]
    Invalid {
        /// File or built-in.
        origin: String,
        /// Line that the key stands on, from 1; 1 where a section is missing.
        line: usize,
        /// Key, dotted.
        key: String,
        /// What is wrong and what to do.
        message: String,
    },
}
