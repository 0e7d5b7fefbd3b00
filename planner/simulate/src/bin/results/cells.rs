//! The declared worlds: `planner/simulate/cells.toml`, where every cell is a command line of `plimsoll-planner simulate`.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use clap::Parser;
use plimsoll_sim::workload::spec;
use plimsoll_simulate::SimulateArgs;
use serde::{Deserialize, Serialize};

/// Flags of `simulate` without their dashes, and their values.
pub(crate) type Flags = BTreeMap<String, toml::Value>;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Flags of every cell, unless it has others.
    defaults: Flags,
    /// Other worlds of a cell, by name: flags that it then has.
    #[serde(default)]
    variations: BTreeMap<String, Flags>,
    /// Whom to measure everywhere.
    #[serde(rename = "peer")]
    pub(crate) peers: Vec<Peer>,
    #[serde(rename = "cell")]
    cells: Vec<Entry>,
}

/// A peer, and the settings of its knob.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// Its default first; in the full table the best of them in hindsight counts.
    pub(crate) tries: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    group: String,
    world: Flags,
    /// Draws; three without it.
    seeds: Option<u64>,
    /// The load's period, if it has one.
    period: Option<String>,
    /// Whether the grid is tried with the season of that period.
    #[serde(default)]
    season: bool,
    #[serde(default)]
    stationary: bool,
    #[serde(default)]
    quick: bool,
    /// Variations to measure besides.
    #[serde(default)]
    vary: Vec<String>,
}

/// One world to measure in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) flags: Flags,
    pub(crate) seeds: u64,
    pub(crate) period_s: Option<u64>,
    pub(crate) season: bool,
    pub(crate) stationary: bool,
    #[serde(skip)]
    pub(crate) quick: bool,
}

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    simulate: SimulateArgs,
}

impl File {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Every cell and its variations; each command line is understood.
    pub(crate) fn cells(&self) -> anyhow::Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = Vec::new();
        for entry in &self.cells {
            cells.push(self.cell(entry, None)?);
            for variation in &entry.vary {
                cells.push(self.cell(entry, Some(variation))?);
            }
        }
        // Groups in the order in which they first appear, each in one piece.
        let groups: Vec<String> = cells.iter().map(|cell| cell.group.clone()).collect();
        cells.sort_by_key(|cell| groups.iter().position(|group| *group == cell.group));
        for (index, cell) in cells.iter().enumerate() {
            if cells[..index].iter().any(|other| other.name == cell.name) {
                bail!("two cells are named {:?}: rename one", cell.name);
            }
            cell.arguments(1, None).with_context(|| format!("cell {}", cell.name))?;
        }
        Ok(cells)
    }

    fn cell(&self, entry: &Entry, variation: Option<&String>) -> anyhow::Result<Cell> {
        let mut flags = self.defaults.clone();
        flags.extend(entry.world.clone());
        let mut name = entry.name.clone();
        if let Some(variation) = variation {
            let Some(others) = self.variations.get(variation) else {
                bail!("cell {name}: no variation is named {variation:?}: declare [variations.{variation}]");
            };
            flags.extend(others.clone());
            name = format!("{name}, {variation}");
        }
        let period = entry.period.as_ref().map(|text| {
            spec::seconds_of(text)
                .filter(|seconds| (60.0..=604_800.0).contains(seconds))
                .with_context(|| format!("cell {name}: period {text:?} is no time from a minute to a week"))
        });
        let period_s = period.transpose()?.map(|seconds| seconds as u64);
        if entry.season && period_s.is_none() {
            bail!("cell {name}: a season needs a period");
        }
        Ok(Cell {
            name,
            group: entry.group.clone(),
            flags,
            seeds: entry.seeds.unwrap_or(3).clamp(1, 100),
            period_s,
            season: entry.season,
            stationary: entry.stationary,
            quick: entry.quick && variation.is_none(),
        })
    }
}

impl Cell {
    /// Whether it needs a trace or a profile from outside.
    pub(crate) fn needs_data(&self) -> bool {
        let text = |name: &str| self.flags.get(name).and_then(toml::Value::as_str);
        !text("workload").is_some_and(spec::is_spec)
            || text("profile").is_some_and(|name| name.ends_with(".json"))
    }

    /// Whether prefill and decode have pools of their own.
    pub(crate) fn disaggregated(&self) -> bool {
        self.flags.contains_key("disaggregated")
    }

    /// What `simulate` is given, as one would type it.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (name, value) in &self.flags {
            let values = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
            for value in values {
                let word = match value {
                    toml::Value::Boolean(false) => continue,
                    toml::Value::Boolean(true) => None,
                    toml::Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
                words.push(format!("--{name}"));
                words.extend(word);
            }
        }
        words
    }

    /// The command line of one draw.
    pub(crate) fn arguments(&self, seed: u64, data: Option<&Path>) -> anyhow::Result<SimulateArgs> {
        let mut words = vec!["simulate".to_owned()];
        // Bare names of profiles are files of the same folder as the traces.
        words.extend(self.words().into_iter().map(|word| match data {
            Some(data) if word.ends_with(".json") && !word.contains('/') => {
                data.join("profiles").join(word).display().to_string()
            }
            _ => word,
        }));
        words.extend(["--seed".to_owned(), seed.to_string()]);
        if let Some(data) = data {
            words.extend(["--data".to_owned(), data.display().to_string()]);
        }
        Ok(CommandLine::try_parse_from(words)?.simulate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [defaults]
        profile = "qwen3-32b-h200-tp2"
        start-up = "60s"
        [variations.slow]
        start-up = "300s"
        [[peer]]
        name = "HPA"
        tries = ["hpa:queue=5"]
        [[cell]]
        name = "sine"
        group = "waves"
        world = { workload = "sine:low=1,high=2", disaggregated = true, fault = ["death:at=1m", "death:at=2m"] }
        period = "20m"
        quick = true
        vary = ["slow"]
    "#;

    fn cells(text: &str) -> anyhow::Result<Vec<Cell>> {
        toml::from_str::<File>(text)?.cells()
    }

    #[test]
    fn a_cell_is_a_command_line() {
        let cells = cells(TEXT).unwrap();
        let names: Vec<&str> = cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names, ["sine", "sine, slow"]);
        assert_eq!(cells[0].period_s, Some(1_200));
        assert!(cells[0].quick && !cells[1].quick && !cells[0].needs_data() && cells[0].disaggregated());
        let arguments = cells[1].arguments(7, None).unwrap();
        assert_eq!((arguments.seed, arguments.start_up, arguments.faults.len()), (7, 300.0, 2));
        assert!(arguments.disaggregated.is_some());
        assert!(cells[0].words().join(" ").contains("--fault death:at=1m --fault death:at=2m"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |from: &str, to: &str| format!("{:#}", cells(&TEXT.replace(from, to)).unwrap_err());
        assert!(error("start-up = \"60s\"", "startup = \"60s\"").contains("--startup"));
        assert!(error("[\"slow\"]", "[\"slower\"]").contains("no variation is named \"slower\""));
        assert!(error("\"20m\"", "\"soon\"").contains("period \"soon\""));
        assert!(error("quick = true", "quick = true\nfoo = 1").contains("foo"));
        let twice = TEXT.replace("vary = [\"slow\"]", "vary = [\"slow\", \"slow\"]");
        assert!(format!("{:#}", cells(&twice).unwrap_err()).contains("two cells are named"));
    }

    #[test]
    fn the_declared_cells_can_be_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cells.toml");
        let file = File::read(&path).unwrap();
        let cells = file.cells().unwrap();
        assert!(cells.len() > 40 && cells.iter().filter(|cell| cell.quick).count() > 8, "{}", cells.len());
        assert!(cells.iter().any(Cell::disaggregated) && cells.iter().any(|cell| cell.stationary));
        assert!(file.peers.iter().all(|peer| !peer.tries.is_empty()));
    }
}
