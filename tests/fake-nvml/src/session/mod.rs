//! The state between `nvmlInit` and the last `nvmlShutdown`.

mod events;
mod gpm;
mod gpu;
mod handles;
mod place;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::EventSets;
pub(crate) use gpm::GpmRecord;
use gpm::GpmSamples;
pub(crate) use gpu::{Gpu, Running, pci_info};
pub(crate) use handles::Target;

use crate::abi::{Code, EventData, EventSet, Outcome};
use crate::activity::ActivitySource;
use crate::calllog::CallLog;
use crate::clock::{self, Clock};
use crate::identity::{gpu_serial, gpu_uuid};
use crate::machine::{Fate, LOOK_EVERY, Machine};
use crate::scenario::{Driver, Scenario};
use crate::state::Counters;

/// What outlives a session: as on real hardware, counters go on when a client shuts NVML down, unloads it and comes back.
#[derive(Debug)]
struct Library {
    users: usize,
    generation: usize,
    clock: Option<Clock>,
    counters: BTreeMap<String, Counters>,
    machine: Option<Arc<Machine>>,
    session: Option<Arc<Session>>,
}

static LIBRARY: Mutex<Library> = Mutex::new(Library {
    users: 0,
    generation: 0,
    clock: None,
    counters: BTreeMap::new(),
    machine: None,
    session: None,
});

/// One life of the library.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) scenario: Scenario,
    /// Versions as this session sees them.
    pub(crate) driver: Driver,
    pub(crate) events: EventSets,
    pub(crate) gpm: GpmSamples,
    pub(crate) machine: Arc<Machine>,
    generation: usize,
    driver_life: usize,
    clock: Clock,
    identities: Vec<(String, String)>,
    counters: Vec<Mutex<Counters>>,
    activity: Option<ActivitySource>,
    log: Option<CallLog>,
    /// The driver serves one call at a time: a call that costs something holds this while it runs.
    served: Mutex<()>,
}

/// Starts the library, or counts one more user of it.
pub(crate) fn initialise(name: &str) -> Outcome {
    // Who hangs in here must not keep others from shutting down, so the library is not locked meanwhile.
    let session = lock(&LIBRARY).session.clone();
    let session = match session {
        Some(session) => session,
        None => Arc::new(Session::open(&mut lock(&LIBRARY)).map_err(|(code, message)| {
            // Standard error is all that a library without a caller's logger has; if it is closed, so be it.
            drop(writeln!(std::io::stderr(), "plimsoll-fake-nvml: {message}"));
            code
        })?),
    };
    session.run_call(name, None)?;
    let mut library = lock(&LIBRARY);
    match &library.session {
        Some(begun) => begun.machine.is_alive(begun.driver_life).or(Err(Code::DRIVER_NOT_LOADED))?,
        None => {
            let mut session = session;
            if let Some(session) = Arc::get_mut(&mut session) {
                (session.driver_life, session.driver) = session.machine.attach(&session.scenario.driver)?;
                session.generation = library.generation + 1;
            }
            library.generation += 1;
            library.session = Some(session);
        }
    }
    library.users += 1;
    Ok(())
}

/// Counts one user less; with the last one the session ends and its handles become stale.
pub(crate) fn shut_down(name: &str) -> Outcome {
    let session = current()?;
    session.run_call(name, None)?;
    let mut library = lock(&LIBRARY);
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
    /// A session that has not begun: what the scenario says, on the machine that is there.
    fn open(library: &mut Library) -> Result<Self, (Code, String)> {
        let name = variable("SCENARIO")
            .ok_or_else(|| (Code::DRIVER_NOT_LOADED, crate::scenario::Error::Unset.to_string()))?;
        let wrong = |message: String| (Code::UNKNOWN, message);
        let mut scenario = Scenario::load(&name).map_err(|error| wrong(with_sources(&error)))?;
        place::apply(&mut scenario, variable).map_err(wrong)?;
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
        let control = variable("CONTROL").map(PathBuf::from).or_else(|| scenario.control.clone());
        let node = variable("NODE").unwrap_or_default();
        let identities: Vec<_> = (0..scenario.gpus.len())
            .map(|index| (gpu_uuid(&node, &scenario.name, index), gpu_serial(&node, &scenario.name, index)))
            .collect();
        let counters =
            identities.iter().map(|(uuid, _)| library.counters.get(uuid).cloned().unwrap_or_default());
        let known = library.machine.clone().filter(|machine| machine.is_of(&scenario));
        let machine = known.unwrap_or_else(|| Arc::new(Machine::new(&scenario, control)));
        let session = Self {
            events: EventSets::default(),
            gpm: GpmSamples::default(),
            machine: Arc::clone(&machine),
            driver: scenario.driver.clone(),
            generation: 0,
            driver_life: 0,
            clock,
            counters: counters.map(Mutex::new).collect(),
            identities,
            activity: activity.map(ActivitySource::new),
            log: log.transpose()?,
            served: Mutex::new(()),
            scenario,
        };
        library.clock = Some(clock);
        library.machine = Some(machine);
        Ok(session)
    }

    /// What every call does first: it is logged, takes the time that it takes now, and ends here if the driver of the
    /// session is gone or the call is to fail. `board` is the number in the scenario of the GPU that the call is about.
    pub(crate) fn begin_call(&self, name: &str, board: Option<usize>) -> Outcome {
        self.run_call(name, board)?;
        self.machine.is_alive(self.driver_life)
    }

    fn run_call(&self, name: &str, board: Option<usize>) -> Outcome {
        if let Some(log) = &self.log {
            log.append(name, board);
        }
        self.machine.count_call(name);
        self.machine.look(self.clock.elapsed_s());
        let fate = loop {
            match self.machine.fate(name, board) {
                Fate::Hangs => std::thread::sleep(LOOK_EVERY),
                fate => break fate,
            }
            self.machine.look(self.clock.elapsed_s());
        };
        let cost = self.machine.cost(name, self.scenario.costs.get(name).copied());
        if !cost.is_zero() {
            let _served = lock(&self.served);
            clock::burn(cost);
        }
        match fate {
            Fate::Fails(code) => Err(code),
            Fate::Runs | Fate::Hangs => Ok(()),
        }
    }

    /// Waits `duration` with the driver held, without burning the processor.
    pub(crate) fn wait_in_driver(&self, duration: Duration) {
        let _served = lock(&self.served);
        std::thread::sleep(duration);
    }

    /// Waits for an event of a set.
    pub(crate) fn wait_for_event(&self, set: EventSet, timeout: Duration) -> Result<EventData, Code> {
        let period = if self.machine.may_change() { LOOK_EVERY } else { timeout };
        let event = self.events.wait(set, timeout, period, |from, wanted| {
            self.machine.look(self.clock.elapsed_s());
            self.machine.is_alive(self.driver_life)?;
            Ok(self.machine.event(from, wanted))
        })?;
        Ok(EventData {
            device: self.device(event.board),
            event_type: event.kind,
            event_data: event.data,
            gpu_instance: event.instance.0,
            compute_instance: event.instance.1,
        })
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
