//! Engine profiles from files: our own form, and the tables that other profilers write.
//!
//! [`import`] takes files or folders and tells by their content what they are: a [`Profile`] of our own, the npz or JSON
//! files of Dynamo's profiler, or a sheet of named columns with measurements or estimates (as from AIConfigurator). Tables
//! are *fitted* by a closed form where one fits, which smooths noise and goes on sensibly beyond the table, and *kept* and
//! interpolated where none does, as for mixtures of experts. [`Imported`] says how far the profile is from every row.
//!
//! ```
//! use plimsoll_profiles::{Options, Source, import_sources};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let prefill = r#"{"prefill_isl": [100, 1000, 4000], "prefill_ttft": [12.0, 30.0, 105.0],
//!                   "prefill_thpt_per_gpu": [8333.3, 33333.3, 38095.2]}"#;
//! let decode = r#"{"x_kv_usage": [0.01, 0.5, 0.5], "y_context_length": [1000, 1000, 5000],
//!                  "z_itl": [10.0, 30.0, 24.0], "max_kv_tokens": 100000}"#;
//! let sources = [("prefill.json", prefill), ("decode.json", decode)]
//!     .map(|(name, text)| Source { name: name.to_owned(), bytes: text.into() });
//! let imported = import_sources(sources.into(), &Options::default())?;
//! assert_eq!(imported.profile.gpus, 1);
//! assert_eq!(imported.profile.kv_tokens, 100_000);
//! # Ok(())
//! # }
//! ```
//!
//! Everything but [`files`](import) is pure. What comes from outside is bounded before it is believed: bytes, members of
//! archives, what they unpack to, rows, and every number.

mod arrays;
mod assemble;
mod dynamo;
mod error;
mod files;
mod fit;
mod grid;
mod least;
mod npy;
mod npz;
mod rows;
mod sheet;
mod source;
mod tables;

pub use assemble::{Form, Imported, Keep, Options, import_sources};
pub use error::{ImportError, NpyError, NpzError, SourceError};
pub use files::{import, load, read};
pub use plimsoll_engine::Profile;
pub use rows::{Errors, PhaseErrors, Row};
pub use source::Source;
