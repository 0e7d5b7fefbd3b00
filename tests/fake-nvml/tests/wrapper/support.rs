//! Finding the library, and processes of one's own.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nvml_wrapper::Nvml;

const PREFIX: &str = "PLIMSOLL_FAKE_NVML_";

/// The shared library that Cargo has built beside this test.
pub(crate) fn library() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let found = executable.ancestors().skip(1).take(2).map(|folder| folder.join("libplimsoll_fake_nvml.so"));
    found.into_iter().find(|path| path.exists()).unwrap()
}

/// NVML as the agent starts it.
pub(crate) fn nvml() -> Nvml {
    Nvml::builder().lib_path(library().as_os_str()).init().unwrap()
}

/// Runs one ignored case of this binary with these variables of ours, and no others.
pub(crate) fn in_child(case: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([case, "--exact", "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with(PREFIX)) {
        command.env_remove(name);
    }
    command.envs(variables.iter().map(|(name, value)| (format!("{PREFIX}{name}"), value)));
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{case}:\n{told}\n{warned}");
}

/// A path that only this run of this binary uses.
pub(crate) fn scratch(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("wrapper-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name).to_str().unwrap().to_owned()
}

/// A scenario file with this text.
pub(crate) fn scenario(name: &str, text: &str) -> String {
    let path = scratch(&format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// The value of one of our variables in a case.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(format!("{PREFIX}{name}")).unwrap()
}

/// Seconds since 1970, some time ago.
pub(crate) fn seconds_ago(seconds: u64) -> String {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - seconds).to_string()
}

/// The time that passes for real: the library has no other.
#[expect(clippy::disallowed_methods, reason = "there is no runtime here whose clock could be paused")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
