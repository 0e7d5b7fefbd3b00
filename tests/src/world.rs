//! A temporary folder in which processes run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{artifacts::Artifacts, process::Process};

/// The name that NVML clients look for.
const NVML_NAME: &str = "libnvidia-ml.so.1";

#[derive(Debug)]
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

/// A folder with all that its processes read and write; it goes with this handle, unless it is to be kept.
#[derive(Debug)]
pub struct World {
    folder: Folder,
    artifacts: &'static Artifacts,
    own_group: bool,
}

impl World {
    /// Builds the programs where that is needed, and makes a folder.
    ///
    /// # Errors
    /// When the build fails or the folder can't be made.
    pub fn new() -> anyhow::Result<Self> {
        let artifacts = Artifacts::built()?;
        let folder = tempfile::Builder::new()
            .prefix("plimsoll-")
            .tempdir()
            .context("no temporary folder can be made; set TMPDIR to one that can be written to")?;
        Self::within(Folder::Temporary(folder), artifacts)
    }

    /// The same in a folder that stays. It is made if it is not there, and must be empty.
    ///
    /// # Errors
    /// When the build fails, or the folder can't be made or holds something.
    pub fn kept_in(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("the folder {name} can't be made"))?;
        let folder = folder.canonicalize()?;
        let mut entries = std::fs::read_dir(&folder).with_context(|| format!("{name} can't be read"))?;
        anyhow::ensure!(entries.next().is_none(), "the folder {name} is not empty; name a new one");
        Self::within(Folder::Kept(folder), Artifacts::built()?)
    }

    fn within(folder: Folder, artifacts: &'static Artifacts) -> anyhow::Result<Self> {
        let nvml = folder.path().join(NVML_NAME);
        std::os::unix::fs::symlink(&artifacts.fake_nvml, &nvml)
            .with_context(|| format!("{} can't be linked", nvml.display()))?;
        Ok(Self { folder, artifacts, own_group: false })
    }

    /// Keeps the terminal's Ctrl-C from the processes: who owns the world ends them.
    #[must_use]
    pub const fn shielded(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The programs.
    #[must_use]
    pub const fn artifacts(&self) -> &'static Artifacts {
        self.artifacts
    }

    /// The NVML library without a GPU, under the name that the real one has.
    #[must_use]
    pub fn nvml_library(&self) -> PathBuf {
        self.file(NVML_NAME)
    }

    /// Starts a command as `name`, with its log in `NAME.log`; what it listens on it is told to write by
    /// `--address-file`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, name: &str, mut command: Command) -> anyhow::Result<Process> {
        let addresses = self.file(&format!("{name}.addresses.json"));
        command.arg("--address-file").arg(&addresses).current_dir(self.folder());
        // What the user's shell says about Plimsoll is not meant for these.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("PLIMSOLL_") && command.get_envs().all(|(set, _)| set != key)
            {
                command.env_remove(key);
            }
        }
        Process::start(name, command, self.file(&format!("{name}.log")), addresses, self.own_group)
    }
}
