//! Scenario files: what machine the library pretends to be, and how it behaves. `scenarios/*.toml` are examples.

pub(crate) mod builtin;
mod error;
mod load;
mod sections;
mod timeline;
mod validate;
mod wave;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use error::Error;
pub use load::{Busy, Load};
pub use sections::{
    Architecture, Clocks, Device, Driver, EccCounts, Fabric, FabricHealth, FabricState, Gpu, NvLink, Pci,
    Platform, Power, Process, ProcessKind, Remote, Temperature,
};
use serde::Deserialize;
pub use timeline::{AfterCalls, TimelineEntry};
pub(crate) use validate::{cluster_uuid_bytes, cpu_words, pci_address};
pub use wave::Wave;
pub(crate) use wave::splitmix;

/// A scenario file may be this long.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A complete, validated scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Goes into the UUIDs.
    pub name: String,
    /// Where noise starts.
    pub seed: u64,
    /// File that every call is appended to.
    pub call_log: Option<PathBuf>,
    /// File or folder with the load of emulated engines; it takes the place of `[load]`.
    pub activity: Option<PathBuf>,
    /// File with commands, see [`crate::control`].
    pub control: Option<PathBuf>,
    /// Driver versions.
    pub driver: Driver,
    /// What all GPUs have in common.
    pub device: Device,
    /// NVLink, where there is one.
    pub nvlink: Option<NvLink>,
    /// Multi-node NVLink, where there is one.
    pub fabric: Option<Fabric>,
    /// Place in the rack, where the platform tells.
    pub platform: Option<Platform>,
    /// What the GPUs do.
    pub load: Load,
    /// What a GPU at full utilization does.
    pub busy: Busy,
    /// Microseconds that a call takes, by its name.
    pub costs: BTreeMap<String, u64>,
    /// The GPUs in NVML's order.
    pub gpus: Vec<Gpu>,
    /// Processes on them.
    pub processes: Vec<Process>,
    /// What happens, and when.
    pub timeline: Vec<TimelineEntry>,
}

impl Scenario {
    /// Loads the scenario with this name: that of a built-in, or a path (it has a `/` or ends in `.toml`).
    ///
    /// # Errors
    /// Any of [`Error`]: nothing is repaired in silence.
    pub fn load(name: &str) -> Result<Self, Error> {
        if let Some(text) = builtin::text(name) {
            return Self::parse(text, &format!("built-in scenario {name}"), Path::new(""));
        }
        if !name.contains('/') && !name.ends_with(".toml") {
            return Err(Error::Unknown { name: name.to_owned() });
        }
        let path = PathBuf::from(name);
        let text = read_bounded(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(&text, name, path.parent().unwrap_or_else(|| Path::new("")))
    }

    /// Parses a scenario. `origin` stands in messages; relative paths in the file start at `folder`.
    ///
    /// # Errors
    /// [`Error::Parse`] and [`Error::Invalid`].
    pub fn parse(text: &str, origin: &str, folder: &Path) -> Result<Self, Error> {
        let mut document = Document::parse(text, origin)?;
        // A built-in may itself extend another, and none extends itself.
        while let Some(base) = document.extends.take() {
            let base_text = builtin::text(&base).ok_or_else(|| {
                invalid(
                    text,
                    origin,
                    "extends",
                    &format!("no built-in scenario {base:?}; take one of: {}", builtin::names()),
                )
            })?;
            document = document.or(Document::parse(base_text, &format!("built-in scenario {base}"))?);
        }
        let scenario = document.complete(text, origin, folder)?;
        validate::check(&scenario).map_err(|(key, message)| invalid(text, origin, &key, &message))?;
        Ok(scenario)
    }
}

/// The file as it is written. With `extends`, a section that is absent comes from the built-in; one that is there
/// replaces the whole section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    extends: Option<String>,
    name: Option<String>,
    seed: Option<u64>,
    call_log: Option<PathBuf>,
    activity: Option<PathBuf>,
    control: Option<PathBuf>,
    driver: Option<Driver>,
    device: Option<Device>,
    nvlink: Option<NvLink>,
    fabric: Option<Fabric>,
    platform: Option<Platform>,
    load: Option<Load>,
    busy: Option<Busy>,
    costs: Option<BTreeMap<String, u64>>,
    gpu: Option<Vec<Gpu>>,
    process: Option<Vec<Process>>,
    timeline: Option<Vec<TimelineEntry>>,
}

impl Document {
    fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|fault| {
            let before = &text[..fault.span().map_or(0, |span| span.start).min(text.len())];
            Error::Parse {
                origin: origin.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.chars().rev().take_while(|letter| *letter != '\n').count() + 1,
                message: fault.message().replace('\n', "; "),
            }
        })
    }

    fn or(self, base: Self) -> Self {
        Self {
            extends: base.extends,
            name: self.name.or(base.name),
            seed: self.seed.or(base.seed),
            call_log: self.call_log.or(base.call_log),
            activity: self.activity.or(base.activity),
            control: self.control.or(base.control),
            driver: self.driver.or(base.driver),
            device: self.device.or(base.device),
            nvlink: self.nvlink.or(base.nvlink),
            fabric: self.fabric.or(base.fabric),
            platform: self.platform.or(base.platform),
            load: self.load.or(base.load),
            busy: self.busy.or(base.busy),
            costs: self.costs.or(base.costs),
            gpu: self.gpu.or(base.gpu),
            process: self.process.or(base.process),
            timeline: self.timeline.or(base.timeline),
        }
    }

    fn complete(self, text: &str, origin: &str, folder: &Path) -> Result<Scenario, Error> {
        let missing = |key: &str| {
            invalid(text, origin, key, "missing: add it, or start with `extends = \"hgx-h100-8\"`")
        };
        Ok(Scenario {
            name: self.name.ok_or_else(|| missing("name"))?,
            seed: self.seed.unwrap_or(0),
            call_log: self.call_log.map(|path| folder.join(path)),
            activity: self.activity.map(|path| folder.join(path)),
            control: self.control.map(|path| folder.join(path)),
            driver: self.driver.ok_or_else(|| missing("driver"))?,
            device: self.device.ok_or_else(|| missing("device"))?,
            nvlink: self.nvlink,
            fabric: self.fabric,
            platform: self.platform,
            load: self.load.ok_or_else(|| missing("load"))?,
            busy: self.busy.unwrap_or_default(),
            costs: self.costs.unwrap_or_default(),
            gpus: self.gpu.ok_or_else(|| missing("gpu"))?,
            processes: self.process.unwrap_or_default(),
            timeline: self.timeline.unwrap_or_default(),
        })
    }
}

fn invalid(text: &str, origin: &str, key: &str, message: &str) -> Error {
    let last = key.rsplit('.').next().unwrap_or(key);
    let line = text.lines().position(|line| {
        let line = line.trim_start();
        line.strip_prefix(last).is_some_and(|rest| rest.trim_start().starts_with('='))
            || line.trim_matches(['[', ']']) == key
    });
    Error::Invalid {
        origin: origin.to_owned(),
        line: line.map_or(1, |line| line + 1),
        key: key.to_owned(),
        message: message.to_owned(),
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("longer than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
