//! One GPU of a session.

use std::ffi::c_char;

use super::{Session, lock};
use crate::abi::{Code, Device, PciInfo};
use crate::machine::Board;
use crate::scenario::{self, Architecture, EccCounts, ProcessKind, pci_address};
use crate::state::{Activity, MIB, Readings, Totals};

/// One GPU, for the time of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gpu<'a> {
    session: &'a Session,
    board: usize,
}

/// A process on a GPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) kind: ProcessKind,
    pub(crate) memory_bytes: u64,
    pub(crate) sm_percent: u32,
    /// GPU instance that it runs in.
    pub(crate) gpu_instance: Option<u32>,
}

impl<'a> Gpu<'a> {
    pub(super) fn new(session: &'a Session, board: usize) -> Self {
        Self { session, board }
    }

    /// Its number in the scenario, which stays whatever is removed.
    pub(crate) fn board(&self) -> usize {
        self.board
    }

    /// NVML's index: its place among the GPUs that are enumerated.
    pub(crate) fn index(&self) -> usize {
        self.session.machine.present().iter().take_while(|board| **board < self.board).count()
    }

    /// The GPU itself unless it is lost.
    pub(crate) fn reachable(self) -> Result<Self, Code> {
        if self.state(|board| board.lost) { Err(Code::GPU_IS_LOST) } else { Ok(self) }
    }

    /// Reads what has happened to it.
    pub(crate) fn state<T>(&self, read: impl FnOnce(&Board) -> T) -> T {
        self.session.machine.board(self.board, |board| read(board))
    }

    /// The session it belongs to.
    pub(crate) fn session(&self) -> &'a Session {
        self.session
    }

    /// Its handle.
    pub(crate) fn handle(&self) -> Device {
        self.session.device(self.board)
    }

    /// Its entry in the scenario.
    pub(crate) fn spec(&self) -> &'a scenario::Gpu {
        &self.session.scenario.gpus[self.board]
    }

    /// What it has in common with the others.
    pub(crate) fn device(&self) -> &'a scenario::Device {
        &self.session.scenario.device
    }

    /// Its UUID.
    pub(crate) fn uuid(&self) -> &'a str {
        &self.session.identities[self.board].0
    }

    /// Its serial number.
    pub(crate) fn serial(&self) -> &'a str {
        &self.session.identities[self.board].1
    }

    /// Does it have the features that came with Hopper: GPM, fabric information, thermal margin?
    pub(crate) fn is_hopper_or_newer(&self) -> bool {
        matches!(self.device().architecture, Architecture::Hopper | Architecture::Blackwell)
    }

    /// Seconds since the scenario began.
    pub(crate) fn elapsed_s(&self) -> f64 {
        self.session.clock.elapsed_s()
    }

    /// What it shows now.
    pub(crate) fn readings(&self) -> Readings {
        self.readings_at(self.elapsed_s())
    }

    /// What it shows, or showed, at a time; engines are taken to do what they do now.
    pub(crate) fn readings_at(&self, elapsed_s: f64) -> Readings {
        self.read(elapsed_s, self.activity().as_ref())
    }

    fn read(&self, at_s: f64, activity: Option<&Activity>) -> Readings {
        let readings = Readings::at(&self.session.scenario, self.board, at_s, activity);
        match self.state(|board| board.throttle_at(at_s)) {
            Some(throttle) => readings.throttled(throttle),
            None => readings,
        }
    }

    /// Its counters now.
    pub(crate) fn totals(&self) -> Totals {
        let activity = self.activity();
        let read = |at_s| self.read(at_s, activity.as_ref());
        let machine = &self.session.machine;
        let mut counters = lock(&self.session.counters[self.board]);
        if let Some(due_s) = machine.board(self.board, |board| board.zero_due_s.take()) {
            let zero = counters.advance(due_s, read);
            machine.board(self.board, |board| board.zero = zero);
        }
        let zero = machine.board(self.board, |board| board.zero);
        counters.advance(self.elapsed_s(), read).since(&zero)
    }

    /// Processes on it: those of the scenario, then those of engines.
    pub(crate) fn processes(&self) -> Vec<Running> {
        let listed = self.session.scenario.processes.iter().filter(|process| process.gpu == self.board);
        let mut running: Vec<_> = listed
            .map(|process| Running {
                pid: process.pid,
                kind: process.kind,
                memory_bytes: process.memory_mib * MIB,
                sm_percent: process.sm_percent,
                gpu_instance: process.gpu_instance,
            })
            .filter(|process| self.holds(process.gpu_instance))
            .collect();
        if let Some(activity) = self.activity() {
            let sm_percent = activity.utilization_percent.clamp(0.0, 100.0).round() as u32;
            running.extend(activity.processes.iter().map(|(pid, memory_bytes)| Running {
                pid: *pid,
                kind: ProcessKind::Compute,
                memory_bytes: *memory_bytes,
                sm_percent,
                gpu_instance: None,
            }));
        }
        running
    }

    /// Is there that GPU instance? A process outside of all instances always has its place.
    fn holds(&self, gpu_instance: Option<u32>) -> bool {
        let exists = |id| self.state(|board| board.mig.devices.iter().any(|mig| mig.gpu_instance == id));
        gpu_instance.is_none_or(exists)
    }

    /// Memory errors that ECC has counted.
    pub(crate) fn ecc(&self) -> EccCounts {
        let now_s = self.elapsed_s();
        self.state(|board| board.ecc(now_s, self.spec().ecc))
    }

    /// Its PCI address and identity.
    pub(crate) fn pci_info(&self) -> PciInfo {
        let pci = &self.device().pci;
        pci_info(&self.spec().pci, pci.device_id, pci.subsystem_id)
    }

    fn activity(&self) -> Option<Activity> {
        self.session.activity.as_ref().map(|source| source.of(self.uuid()))
    }
}

/// A PCI address as NVML tells it. Scenarios are validated, so the address is well formed.
pub(crate) fn pci_info(address: &str, device_id: u32, subsystem_id: u32) -> PciInfo {
    let (domain, bus, device) = pci_address(address).unwrap_or_default();
    PciInfo {
        bus_id_legacy: characters(&format!("{:04X}:{bus:02X}:{device:02X}.0", domain & 0xffff)),
        domain,
        bus,
        device,
        pci_device_id: device_id,
        pci_subsystem_id: subsystem_id,
        bus_id: characters(&format!("{domain:08X}:{bus:02X}:{device:02X}.0")),
    }
}

/// A C string in a fixed array, cut where it would not fit.
fn characters<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (place, byte) in array.iter_mut().zip(text.bytes().take(N - 1)) {
        *place = byte as c_char;
    }
    array
}
