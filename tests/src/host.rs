//! A host whose clocks and names a test decides, under the real programs.

use std::{
    fs::{self, OpenOptions},
    net::IpAddr,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    process::Command,
};

use anyhow::Context;

use crate::world::World;

/// What a program believes about the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    library: PathBuf,
    clock: PathBuf,
    names: PathBuf,
    rate: u32,
}

impl Host {
    /// A host that is as the machine is, for now. Its files begin with `name`.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn new(world: &World, name: &str) -> anyhow::Result<Self> {
        let host = Self {
            library: world.artifacts().fake_host.clone(),
            clock: world.file(&format!("{name}.clock")),
            names: world.file(&format!("{name}.names")),
            rate: 1,
        };
        fs::write(&host.clock, format!("{:>20}\n", 0))?;
        fs::write(&host.names, "")?;
        Ok(host)
    }

    /// All clocks run so many times too fast from a program's start on.
    #[must_use]
    pub const fn fast(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    /// Sets the wall clock ahead by so many seconds, of running programs too.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn set_clock(&self, ahead_s: i64) -> anyhow::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.clock).context("no clock to be set")?;
        // In one piece and as long as before, so that nobody reads a half of it.
        file.write_all_at(format!("{ahead_s:>20}\n").as_bytes(), 0)?;
        Ok(())
    }

    /// What a name stands for from now on; nothing makes it unknown.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn set_name(&self, name: &str, addresses: &[IpAddr]) -> anyhow::Result<()> {
        let mut line = name.to_owned();
        for address in addresses {
            line.push_str(&format!(" {address}"));
        }
        let new = self.names.with_extension("names.new");
        fs::write(&new, line + "\n")?;
        fs::rename(&new, &self.names)?;
        Ok(())
    }

    /// Puts a program on this host.
    pub fn hold(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("PLIMSOLL_FAKE_HOST_CLOCK", &self.clock)
            .env("PLIMSOLL_FAKE_HOST_NAMES", &self.names)
            .env("PLIMSOLL_FAKE_HOST_RATE", self.rate.to_string());
    }
}
