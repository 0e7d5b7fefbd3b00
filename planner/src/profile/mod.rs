//! `plimsoll-planner profile`: what engine profiles there are, what one says, and how one is made of a profiler's tables.

mod args;
mod hints;
mod text;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use plimsoll_profiles::{Imported, Options, Profile, Source};
use serde::Serialize;

pub use args::ProfileArgs;
use args::{Action, ImportArgs, ListArgs, ShowArgs};
pub use hints::Hints;

/// What `show --json` prints.
#[derive(Debug, Serialize)]
struct Shown {
    /// The profile and how far it is from its tables.
    #[serde(flatten)]
    imported: Imported,
    /// What an engine of it can do at best.
    at_best: Hints,
}

/// Does what the command line asks for.
///
/// # Errors
/// When a file can't be read, understood or written, with what would help.
pub fn run(args: &ProfileArgs) -> anyhow::Result<ExitCode> {
    match &args.action {
        Action::Import(args) => import(args)?,
        Action::Show(args) => show(args)?,
        Action::List(args) => list(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let imported = plimsoll_profiles::import(&args.paths, &args.told.options())?;
    let profile = serde_json::to_string_pretty(&imported.profile)? + "\n";
    let told = text::summary(&imported);
    match &args.output {
        Some(path) => {
            std::fs::write(path, profile).with_context(|| format!("{} can't be written", path.display()))?;
            print(&format!("{told}\nwritten to {0}: give it to a pool as `profile: {0}`\n", as_path(path)))
        }
        None => {
            // Whoever takes the profile from standard output may have closed the other.
            let _ = std::io::stderr().write_all(told.as_bytes());
            print(&profile)
        }
    }
}

/// A path that a policy takes for one.
fn as_path(path: &Path) -> String {
    let text = path.display().to_string();
    if Profile::names_file(&text) { text } else { format!("./{text}") }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let imported = imported(&args.profiles, &args.told.options())?;
    let hints = Hints::of(&imported.profile, (args.isl, args.osl), args.itl);
    if args.json {
        return print(&(serde_json::to_string_pretty(&Shown { imported, at_best: hints })? + "\n"));
    }
    print(&text::whole(&imported, &hints))
}

/// A single name may be a built-in profile's.
fn imported(names: &[String], options: &Options) -> anyhow::Result<Imported> {
    if let [name] = names
        && !Profile::names_file(name)
        && !Path::new(name).exists()
    {
        let profile = Profile::built_in(name)
            .map_err(|error| anyhow::Error::msg(crate::policy::unknown_profile(name, &error.to_string())))?;
        let source = Source { name: name.clone(), bytes: serde_json::to_vec(&profile)? };
        return Ok(plimsoll_profiles::import_sources(vec![source], options)?);
    }
    let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    Ok(plimsoll_profiles::import(&paths, options)?)
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let profiles = Profile::all_built_in()?;
    if args.json {
        return print(&(serde_json::to_string_pretty(&profiles)? + "\n"));
    }
    print(&text::list(&profiles))
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the result can't be written"),
    }
}
