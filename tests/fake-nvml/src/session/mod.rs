//! The state between `nvmlInit` and the last `nvmlShutdown`.

mod events;
mod gpm;
mod gpu;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::EventSets;
pub(crate) use gpm::GpmRecord;
use gpm::GpmSamples;
pub(crate) use gpu::{Gpu, Running, pci_info};

use crate::abi::{Code, Device, Outcome};
use crate::activity::ActivitySource;
use crate::calllog::CallLog;
use crate::clock::{self, Clock};
use crate::identity::{gpu_serial, gpu_uuid};
use crate::scenario::Scenario;
use crate::state::Counters;

/// What outlives a session: as on real hardware, counters go on when a client shuts NVML down, unloads it and comes back.
#[derive(Debug)]
struct Library {
    users: usize,
    generation: usize,
    clock: Option<Clock>,
    counters: BTreeMap<String, Counters>,
    session: Option<Arc<Session>>,
}

static LIBRARY: Mutex<Library> =
    Mutex::new(Library { users: 0, generation: 0, clock: None, counters: BTreeMap::new(), session: None });

/// One life of the library.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) scenario: Scenario,
    pub(crate) events: EventSets,
    pub(crate) gpm: GpmSamples,
    generation: usize,
    clock: Clock,
    identities: Vec<(String, String)>,
    counters: Vec<Mutex<Counters>>,
    activity: Option<ActivitySource>,
    log: Option<CallLog>,
    /// The driver serves one call at a time: a call that costs something holds this while it runs.
    driver: Mutex<()>,
}

/// Starts the library, or counts one more user of it.
pub(crate) fn initialise(name: &str) -> Outcome {
    let mut library = lock(&LIBRARY);
    let session = match &library.session {
        Some(session) => Arc::clone(session),
        None => {
            let session = Arc::new(Session::open(&mut library).map_err(|(code, message)| {
                // Standard error is all that a library without a caller's logger has; if it is closed, so be it.
                drop(writeln!(std::io::stderr(), "plimsoll-fake-nvml: {message}"));
                code
            })?);
            library.session = Some(Arc::clone(&session));
            session
        }
    };
    library.users += 1;
    session.begin_call(name, None);
    Ok(())
}

/// Counts one user less; with the last one the session ends and its handles become stale.
pub(crate) fn shut_down(name: &str) -> Outcome {
    let mut library = lock(&LIBRARY);
    let session = library.session.clone().ok_or(Code::UNINITIALIZED)?;
    session.begin_call(name, None);
    library.users = library.users.saturating_sub(1);
    if library.users == 0 {
        session.events.close();
        for ((uuid, _), counters) in session.identities.iter().zip(&session.counters) {
            library.counters.insert(uuid.clone(), lock(counters).clone());
        }
        library.session = None;
    }
    Ok(())
}

/// The session in progress.
pub(crate) fn current() -> Result<Arc<Session>, Code> {
    lock(&LIBRARY).session.clone().ok_or(Code::UNINITIALIZED)
}

impl Session {
    fn open(library: &mut Library) -> Result<Self, (Code, String)> {
        let name = variable("SCENARIO")
            .ok_or_else(|| (Code::DRIVER_NOT_LOADED, crate::scenario::Error::Unset.to_string()))?;
        let wrong = |message: String| (Code::UNKNOWN, message);
        let scenario = Scenario::load(&name).map_err(|error| wrong(with_sources(&error)))?;
        let clock = match (library.clock, variable("EPOCH")) {
            (Some(clock), _) => clock,
            (None, Some(epoch)) => Clock::since_unix(&epoch).map_err(wrong)?,
            (None, None) => Clock::starting_now(),
        };
        let log_path = variable("CALL_LOG").map(PathBuf::from).or_else(|| scenario.call_log.clone());
        let log = log_path.map(|path| {
            CallLog::open(&path).map_err(|error| {
                wrong(format!("cannot write the call log {}: {error}; choose another file", path.display()))
            })
        });
        let activity = variable("ACTIVITY").map(PathBuf::from).or_else(|| scenario.activity.clone());
        let node = variable("NODE").unwrap_or_default();
        let identities: Vec<_> = (0..scenario.gpus.len())
            .map(|index| (gpu_uuid(&node, &scenario.name, index), gpu_serial(&node, &scenario.name, index)))
            .collect();
        let counters =
            identities.iter().map(|(uuid, _)| library.counters.get(uuid).cloned().unwrap_or_default());
        let session = Self {
            events: EventSets::default(),
            gpm: GpmSamples::default(),
            generation: library.generation + 1,
            clock,
            counters: counters.map(Mutex::new).collect(),
            identities,
            activity: activity.map(ActivitySource::new),
            log: log.transpose()?,
            driver: Mutex::new(()),
            scenario,
        };
        library.clock = Some(clock);
        library.generation = session.generation;
        Ok(session)
    }

    /// What every call does first: it is logged, and takes the time that the scenario says.
    pub(crate) fn begin_call(&self, name: &str, device: Option<usize>) {
        if let Some(log) = &self.log {
            log.append(name, device);
        }
        if let Some(cost_us) = self.scenario.costs.get(name).filter(|cost_us| **cost_us > 0) {
            let _driver = lock(&self.driver);
            clock::burn(Duration::from_micros(*cost_us));
        }
    }

    /// Waits `duration` with the driver held, without burning the processor.
    pub(crate) fn wait_in_driver(&self, duration: Duration) {
        let _driver = lock(&self.driver);
        std::thread::sleep(duration);
    }

    /// The GPU that a handle stands for.
    pub(crate) fn gpu(&self, device: Device) -> Result<Gpu<'_>, Code> {
        (0..self.scenario.gpus.len())
            .find(|index| self.device(*index) == device)
            .map(|index| Gpu::new(self, index))
            .ok_or(Code::INVALID_ARGUMENT)
    }

    /// The GPU with this index.
    pub(crate) fn gpu_at(&self, index: usize) -> Result<Gpu<'_>, Code> {
        if index < self.scenario.gpus.len() { Ok(Gpu::new(self, index)) } else { Err(Code::INVALID_ARGUMENT) }
    }

    /// All GPUs in NVML's order.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = Gpu<'_>> {
        (0..self.scenario.gpus.len()).map(|index| Gpu::new(self, index))
    }

    /// The handle of a GPU. It changes with every initialisation, so that a client which keeps one too long is found out.
    pub(crate) fn device(&self, index: usize) -> Device {
        Device(((self.generation & 0xffff) << 12) | ((index + 1) << 4))
    }
}

/// Locks, also after a panic elsewhere: what these mutexes guard is valid after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of our environment variables, if it is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(format!("PLIMSOLL_FAKE_NVML_{name}")).ok().filter(|value| !value.is_empty())
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
