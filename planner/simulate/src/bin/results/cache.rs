//! What was measured already: one file a cell, so that a run that was cut off goes on where it was, and a policy under
//! development is measured against peers and bounds that are known.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    cells::{Cell, Peer},
    measure::{Depth, Known, Measured},
};

/// The folder of the files.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Of this program: what another build measured is not what this one would.
    build: u64,
    /// Believe what other builds measured of peers and bounds.
    reuse: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    build: u64,
    measured: Measured,
}

impl Cache {
    /// In that folder, for this very program.
    pub(crate) fn new(folder: PathBuf, reuse: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
        let program =
            std::env::current_exe().and_then(std::fs::read).context("this program can't be read")?;
        Ok(Self { folder, build: fnv(&program), reuse })
    }

    /// What is known of a cell: peers and bounds, and policies by their text.
    pub(crate) fn known(&self, file: &str) -> Known {
        let text = std::fs::read_to_string(self.folder.join(file)).ok();
        // What does not read was written by another build, or not to its end: it is measured again.
        let Some(kept) = text.and_then(|text| serde_json::from_str::<Kept>(&text).ok()) else {
            return Known::default();
        };
        let same = kept.build == self.build;
        let policies = if same { kept.measured.policies } else { BTreeMap::new() };
        let base = (same || self.reuse).then_some(kept.measured.base);
        let seconds = if base.is_some() { kept.measured.seconds } else { 0.0 };
        Known { base, policies, seconds }
    }

    /// Keeps what was measured, whole or not at all.
    pub(crate) fn keep(&self, file: &str, measured: &Measured) -> anyhow::Result<()> {
        let kept = Kept { build: self.build, measured: measured.clone() };
        let (path, partial) = (self.folder.join(file), self.folder.join(format!("{file}.partial")));
        let context = || format!("{} can't be written", path.display());
        std::fs::write(&partial, serde_json::to_string(&kept)?).with_context(context)?;
        std::fs::rename(&partial, &path).with_context(context)
    }

    /// The file of a cell: another one for whatever changes what is measured in it.
    pub(crate) fn file(cell: &Cell, depth: Depth, peers: &[Peer]) -> anyhow::Result<String> {
        let tries: Vec<(&str, &[String])> =
            peers.iter().map(|peer| (peer.name.as_str(), depth.tries(peer))).collect();
        let all = serde_json::to_string(&(cell, depth.draws(cell), depth.grid(cell), tries))?;
        Ok(format!("{:016x}.json", fnv(all.as_bytes())))
    }
}

/// FNV-1a: enough to tell files apart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
