//! Request logs: a folder to which an engine appends records, followed from where it ends when the agent first looks.
//!
//! [`Folder`] finds files and follows them through growth, truncation, renaming and deletion; [`run`] polls it beside the
//! event loop, since a folder may lie on a file system that does not answer.

mod file;
mod folder;
mod line;
mod task;

pub use folder::{Folder, FolderError, Polled};
pub use line::{Line, LineError};
pub use task::run;

#[cfg(test)]
mod tests;
