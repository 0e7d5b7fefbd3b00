//! The real binaries: built once by the same cargo and in the same profile as whoever asks for them.
//!
//! `cargo test --workspace` builds neither another package's binaries nor a library that is only a cdylib, so that the
//! harness asks cargo for them and reads from its messages where they are.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, bail};
use serde::Deserialize;

const PACKAGES: [&str; 5] =
    ["plimsoll-agent", "plimsoll-planner", "plimsoll-emulator", "plimsoll-fake-nvml", "plimsoll-fake-host"];

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// `plimsoll-agent`.
    pub agent: PathBuf,
    /// `plimsoll-planner`.
    pub planner: PathBuf,
    /// `plimsoll-emulator`.
    pub emulator: PathBuf,
    /// The shared library of `plimsoll-fake-nvml`.
    pub fake_nvml: PathBuf,
    /// The shared library of `plimsoll-fake-host`.
    pub fake_host: PathBuf,
}

impl Artifacts {
    /// Builds what is not built yet; the first call of a process does it, the others wait for it. Cargo tells on
    /// standard error what it does. It takes as long as cargo takes: seconds where all is there, minutes at first.
    ///
    /// # Errors
    /// When cargo can't be run or the build fails.
    pub fn built() -> anyhow::Result<&'static Self> {
        static BUILT: OnceLock<Result<Artifacts, String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
        built.as_ref().map_err(|error| anyhow::anyhow!(error.clone()))
    }
}

fn build() -> anyhow::Result<Artifacts> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command.args(["build", "--message-format=json-render-diagnostics"]);
    command.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    command.args(["--profile", &profile_of(&env::current_exe()?)]);
    command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} can't be run to build the programs", cargo.display()))?;
    let mut found = Found::default();
    if let Some(messages) = child.stdout.take() {
        for line in BufReader::new(messages).lines() {
            found.take(&line?);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the build of {} failed: {status}; see cargo's messages above", PACKAGES.join(", "));
    }
    found.complete()
}

/// Cargo's profile that a program in this place was built in: the name of its folder, save that of `dev`.
fn profile_of(program: &Path) -> String {
    let folder =
        program.parent().map(|folder| if folder.ends_with("deps") { folder.parent() } else { Some(folder) });
    let name = folder.flatten().and_then(Path::file_name).and_then(|name| name.to_str());
    match name {
        Some("debug") | None => "dev".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// One of cargo's messages, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Default)]
struct Found {
    agent: Option<PathBuf>,
    planner: Option<PathBuf>,
    emulator: Option<PathBuf>,
    fake_nvml: Option<PathBuf>,
    fake_host: Option<PathBuf>,
}

impl Found {
    fn take(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Message>(line) else { return };
        let Some(target) = message.target.filter(|_| message.reason == "compiler-artifact") else { return };
        if let Some(program) = message.executable {
            match target.name.as_str() {
                "plimsoll-agent" => self.agent = Some(program),
                "plimsoll-planner" => self.planner = Some(program),
                "plimsoll-emulator" => self.emulator = Some(program),
                _ => {}
            }
        } else if target.kind.iter().any(|kind| kind == "cdylib") {
            let shared =
                |name: &PathBuf| name.extension().is_some_and(|ext| ext == env::consts::DLL_EXTENSION);
            let library = message.filenames.into_iter().find(shared);
            match target.name.as_str() {
                "plimsoll_fake_nvml" => self.fake_nvml = library,
                "plimsoll_fake_host" => self.fake_host = library,
                _ => {}
            }
        }
    }

    fn complete(self) -> anyhow::Result<Artifacts> {
        Ok(Artifacts {
            agent: self.agent.context("cargo told of no program plimsoll-agent")?,
            planner: self.planner.context("cargo told of no program plimsoll-planner")?,
            emulator: self.emulator.context("cargo told of no program plimsoll-emulator")?,
            fake_nvml: self.fake_nvml.context("cargo told of no shared library of plimsoll-fake-nvml")?,
            fake_host: self.fake_host.context("cargo told of no shared library of plimsoll-fake-host")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_read_off_the_folder() {
        for (path, profile) in [
            ("/w/target/debug/deps/e2e-0123", "dev"),
            ("/w/target/debug/plimsoll-demo", "dev"),
            ("/w/target/release/plimsoll-demo", "release"),
            ("/w/target/aarch64-unknown-linux-gnu/bench/deps/x-1", "bench"),
        ] {
            assert_eq!(profile_of(Path::new(path)), profile, "{path}");
        }
    }

    #[test]
    fn programs_and_the_library_are_found_among_other_messages() {
        let mut found = Found::default();
        for line in [
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"plimsoll_agent"},"filenames":["/t/libplimsoll_agent.rlib"],"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"plimsoll-agent"},"filenames":["/t/plimsoll-agent"],"executable":"/t/plimsoll-agent"}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"plimsoll-planner"},"filenames":[],"executable":"/t/plimsoll-planner"}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"plimsoll-emulator"},"filenames":[],"executable":"/t/plimsoll-emulator"}"#,
            r#"{"reason":"build-script-executed","package_id":"x"}"#,
            "not JSON at all",
        ] {
            found.take(line);
        }
        let library = format!("/t/libplimsoll_fake_nvml.{}", env::consts::DLL_EXTENSION);
        found.take(&format!(
            r#"{{"reason":"compiler-artifact","target":{{"kind":["cdylib","rlib"],"name":"plimsoll_fake_nvml"}},"filenames":["/t/a.rlib","{library}"],"executable":null}}"#
        ));
        let host = format!("/t/libplimsoll_fake_host.{}", env::consts::DLL_EXTENSION);
        found.take(&format!(
            r#"{{"reason":"compiler-artifact","target":{{"kind":["cdylib"],"name":"plimsoll_fake_host"}},"filenames":["{host}"],"executable":null}}"#
        ));
        let artifacts = found.complete().unwrap();
        assert_eq!(artifacts.fake_host, Path::new(&host));
        assert_eq!(artifacts.agent, Path::new("/t/plimsoll-agent"));
        assert_eq!(artifacts.fake_nvml, Path::new(&library));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Found::default().complete().unwrap_err();
        assert!(error.to_string().contains("plimsoll-agent"), "{error}");
    }
}
