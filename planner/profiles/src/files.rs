//! The way in from the file system: the only part of this crate that is not pure.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use plimsoll_engine::Profile;

use crate::{
    assemble::{self, Imported, Options},
    error::ImportError,
    source::Source,
};

/// The largest file that is read, bytes: a table of 100,000 rows is about 4 MB.
const MOST_BYTES: u64 = 16 << 20;

/// Where a profiler's folder has its prompts and its decodes, the first that is there.
const IN_FOLDER: [&[&str]; 2] = [
    &["selected_prefill_interpolation/raw_data.npz", "prefill_raw_data.json"],
    &["selected_decode_interpolation/raw_data.npz", "decode_raw_data.json"],
];

/// A profile by its name or path, as `--profile` takes it: a name among the built-in ones; a path if it has a `/` or ends in
/// `.json` or `.npz`.
///
/// # Errors
/// Names the known ones if there is none, or says what is wrong with the file.
pub fn load(name: &str) -> Result<Profile, ImportError> {
    if Profile::names_file(name) {
        read(Path::new(name))
    } else {
        Profile::built_in(name).map_err(ImportError::Unknown)
    }
}

/// A profile from a file or folder, nothing said beside it.
///
/// # Errors
/// Says what is wrong, where, and what to do.
pub fn read(path: &Path) -> Result<Profile, ImportError> {
    import(&[path.to_owned()], &Options::default()).map(|imported| imported.profile)
}

/// A profile from files or folders that belong to one engine.
///
/// # Errors
/// Says what is wrong, where, and what to do.
pub fn import(paths: &[PathBuf], options: &Options) -> Result<Imported, ImportError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            sources.extend(folder(path)?);
        } else {
            sources.push(file(path)?);
        }
    }
    let name = paths.first().and_then(|path| name_of(path)).unwrap_or_else(|| "imported".to_owned());
    assemble::named(sources, options, &name)
}

/// A profile's name after its file or folder. What is always the same names nothing.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let stem = [".json", ".npz"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let usual = stem == "raw_data" || stem.ends_with("_raw_data") || stem.ends_with("_interpolation");
    if usual { name_of(path.parent()?) } else { Some(stem.to_owned()) }
}

fn folder(path: &Path) -> Result<Vec<Source>, ImportError> {
    let mut sources = Vec::new();
    for names in IN_FOLDER {
        if let Some(found) = names.iter().map(|name| path.join(name)).find(|path| path.is_file()) {
            sources.push(file(&found)?);
        }
    }
    // One of the folders of the profiler's folder.
    let alone = path.join("raw_data.npz");
    if sources.is_empty() && alone.is_file() {
        sources.push(file(&alone)?);
    }
    if sources.is_empty() { Err(ImportError::Folder { path: path.to_owned() }) } else { Ok(sources) }
}

fn file(path: &Path) -> Result<Source, ImportError> {
    let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(unreadable)?;
    opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ImportError::TooLarge { path: path.to_owned(), most: MOST_BYTES });
    }
    Ok(Source { name: path.display().to_string(), bytes })
}
