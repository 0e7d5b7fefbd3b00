//! What happens to the machine while it runs: driver, GPUs and calls, as timeline and control file change them.
//!
//! A machine outlives sessions, as a real one outlives its clients.

mod apply;
mod board;
mod mig;
mod source;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use board::Board;
pub(crate) use mig::MigDevice;
use source::ControlFile;

use crate::abi::{Code, Outcome};
use crate::clock;
use crate::control::{Calls, Command, Gpus};
use crate::scenario::{Driver, Fabric, Scenario, TimelineEntry};

/// The control file is looked at no more often than this, and whoever waits looks this often.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Events that no event set has taken are kept up to this many; then the oldest go.
const MAX_EVENTS: usize = 4096;

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Scenario and number of GPUs: a scenario of another shape is another machine.
    shape: (String, usize),
    inner: Mutex<Inner>,
}

/// Something that event sets tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Counts events, from 0.
    pub(crate) number: u64,
    /// The GPU.
    pub(crate) board: usize,
    /// NVML's bit of the type.
    pub(crate) kind: u64,
    /// For an XID its number.
    pub(crate) data: u64,
    /// GPU and compute instance; all bits set where there is none.
    pub(crate) instance: (u32, u32),
}

/// How a call about a GPU, or about none, fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Runs,
    /// It blocks.
    Hangs,
    /// It returns this.
    Fails(Code),
}

#[derive(Debug)]
struct Inner {
    boards: Vec<Board>,
    /// Counts drivers: a session belongs to the one it began with.
    driver_life: usize,
    loaded: bool,
    /// Version that runs in the kernel, and that of the library, where they are not the scenario's.
    kernel: Option<String>,
    library: Option<String>,
    fabric: Option<Fabric>,
    costs: BTreeMap<String, u64>,
    any_cost_us: Option<u64>,
    slowness: f64,
    hangs: Vec<(Calls, Gpus)>,
    failures: Vec<(Calls, Gpus, Code)>,
    events: VecDeque<Event>,
    next_event: u64,
    timeline: Vec<TimelineEntry>,
    calls: BTreeMap<String, u64>,
    control: Option<ControlFile>,
    looked_ns: Option<u64>,
}

impl Machine {
    /// A machine as the scenario describes it, with the commands that `control` will hold.
    pub(crate) fn new(scenario: &Scenario, control: Option<PathBuf>) -> Self {
        let named = scenario.timeline.iter().filter_map(|entry| entry.after.as_ref());
        Self {
            shape: shape(scenario),
            inner: Mutex::new(Inner {
                boards: vec![Board::default(); scenario.gpus.len()],
                driver_life: 0,
                loaded: true,
                kernel: None,
                library: None,
                fabric: scenario.fabric.clone(),
                costs: BTreeMap::new(),
                any_cost_us: None,
                slowness: 1.0,
                hangs: Vec::new(),
                failures: Vec::new(),
                events: VecDeque::new(),
                next_event: 0,
                calls: named.map(|after| (after.call.clone(), 0)).collect(),
                timeline: scenario.timeline.clone(),
                control: control.map(ControlFile::new),
                looked_ns: None,
            }),
        }
    }

    /// Does this scenario describe this machine?
    pub(crate) fn is_of(&self, scenario: &Scenario) -> bool {
        self.shape == shape(scenario)
    }

    /// Applies what is due at `now_s` seconds since the scenario began.
    pub(crate) fn look(&self, now_s: f64) {
        let inner = &mut *self.lock();
        inner.play_timeline(now_s);
        inner.read_control(now_s);
    }

    /// Counts a call, for timelines that wait for it.
    pub(crate) fn count_call(&self, name: &str) {
        if let Some(count) = self.lock().calls.get_mut(name) {
            *count += 1;
        }
    }

    /// How this call fares now.
    pub(crate) fn fate(&self, name: &str, board: Option<usize>) -> Fate {
        let inner = self.lock();
        let about = |gpus: Gpus| gpus == Gpus::All || board.is_some_and(|board| gpus.contains(board));
        if inner.hangs.iter().any(|(calls, gpus)| calls.contains(name) && about(*gpus)) {
            return Fate::Hangs;
        }
        let failure =
            inner.failures.iter().rev().find(|(calls, gpus, _)| calls.contains(name) && about(*gpus));
        failure.map_or(Fate::Runs, |(_, _, code)| Fate::Fails(*code))
    }

    /// What the call costs now, given what it costs in the scenario.
    pub(crate) fn cost(&self, name: &str, own_us: Option<u64>) -> Duration {
        let inner = self.lock();
        let cost_us = inner.costs.get(name).copied().or(own_us).or(inner.any_cost_us).unwrap_or(0);
        Duration::from_micros((cost_us as f64 * inner.slowness) as u64)
    }

    /// Can anything happen that no call causes?
    pub(crate) fn may_change(&self) -> bool {
        let inner = self.lock();
        inner.control.is_some() || !inner.timeline.is_empty()
    }

    /// May a session begin? Then the number of the driver's life, and the versions that it sees.
    pub(crate) fn attach(&self, own: &Driver) -> Result<(usize, Driver), Code> {
        let inner = self.lock();
        if !inner.loaded {
            return Err(Code::DRIVER_NOT_LOADED);
        }
        let library = inner.library.as_ref().unwrap_or(&own.version);
        if inner.kernel.as_ref().is_some_and(|kernel| kernel != library) {
            return Err(Code::LIB_RM_VERSION_MISMATCH);
        }
        Ok((inner.driver_life, own.with_version(library)))
    }

    /// Does the driver of that life still run?
    pub(crate) fn is_alive(&self, driver_life: usize) -> Outcome {
        let inner = self.lock();
        if inner.loaded && inner.driver_life == driver_life { Ok(()) } else { Err(Code::UNINITIALIZED) }
    }

    /// Fabric of the node.
    pub(crate) fn fabric(&self) -> Option<Fabric> {
        self.lock().fabric.clone()
    }

    /// Reads or changes a GPU.
    pub(crate) fn board<T>(&self, board: usize, read: impl FnOnce(&mut Board) -> T) -> T {
        read(&mut self.lock().boards[board])
    }

    /// The GPUs that are enumerated, in NVML's order.
    pub(crate) fn present(&self) -> Vec<usize> {
        let inner = self.lock();
        (0..inner.boards.len()).filter(|board| inner.boards[*board].present).collect()
    }

    /// The number that the next event will have.
    pub(crate) fn next_event(&self) -> u64 {
        self.lock().next_event
    }

    /// The first event from this number on that `wanted` takes.
    pub(crate) fn event(&self, from: u64, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        self.lock().events.iter().find(|event| event.number >= from && wanted(event)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Applies entries whose time has come, in the order of their times, those after calls last; each once.
    fn play_timeline(&mut self, now_s: f64) {
        if self.timeline.is_empty() {
            return;
        }
        let calls = &self.calls;
        let due = |entry: &TimelineEntry| match (&entry.at_s, &entry.after) {
            (Some(at_s), _) => *at_s <= now_s,
            (None, Some(after)) => calls.get(&after.call).is_some_and(|count| *count >= after.count),
            (None, None) => false,
        };
        let mut played: Vec<TimelineEntry> = self.timeline.extract_if(.., |entry| due(entry)).collect();
        played.sort_by(|left, right| left.at_s.unwrap_or(now_s).total_cmp(&right.at_s.unwrap_or(now_s)));
        for entry in played {
            for command in &entry.commands {
                self.apply(command, entry.at_s.unwrap_or(now_s));
            }
        }
    }

    fn read_control(&mut self, now_s: f64) {
        let now_ns = clock::monotonic_ns();
        let fresh = |looked_ns| u128::from(now_ns.saturating_sub(looked_ns)) < LOOK_EVERY.as_nanos();
        let Some(control) = &mut self.control else { return };
        if self.looked_ns.is_some_and(fresh) {
            return;
        }
        self.looked_ns = Some(now_ns);
        for line in control.new_lines() {
            if line.split('#').next().is_none_or(|text| text.trim().is_empty()) {
                continue;
            }
            match line.parse::<Command>() {
                Ok(command) => match command.gpus() {
                    Gpus::One(gpu) if gpu >= self.boards.len() => {
                        warn(&format!("{line:?}: there is no GPU {gpu}"))
                    }
                    _ => self.apply(&command, now_s),
                },
                Err(error) => warn(&error.to_string()),
            }
        }
    }

    fn tell(&mut self, board: usize, kind: u64, data: u64, instance: Option<(u32, u32)>) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        let instance = instance.unwrap_or((u32::MAX, u32::MAX));
        self.events.push_back(Event { number: self.next_event, board, kind, data, instance });
        self.next_event += 1;
    }
}

fn shape(scenario: &Scenario) -> (String, usize) {
    (scenario.name.clone(), scenario.gpus.len())
}

/// Standard error is all that a library without a caller's logger has; if it is closed, so be it.
fn warn(message: &str) {
    drop(writeln!(std::io::stderr(), "plimsoll-fake-nvml: {message}"));
}

#[cfg(test)]
mod tests;
