//! Handles, and what they stand for.
//!
//! A handle holds the session's generation, the GPU, its life, and for a MIG device slot and layout: so one that is kept too
//! long is found out.

use super::{Gpu, Session};
use crate::abi::{Code, Device};
use crate::machine::MigDevice;

/// Bits from the lowest: four that are zero, as in an address, then those of each part.
const BOARD_SHIFT: u32 = 4;
const SLOT_SHIFT: u32 = 11;
const LIFE_SHIFT: u32 = 15;
const GENERATION_SHIFT: u32 = 23;

const BOARD_MASK: usize = 0x7f;
const SLOT_MASK: usize = 0xf;
const LIFE_MASK: usize = 0xff;
const GENERATION_MASK: usize = 0xff;

/// What a handle stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The GPU.
    pub(crate) gpu: Gpu<'a>,
    /// The MIG device on it, if the handle is that of one.
    pub(crate) mig: Option<MigDevice>,
}

impl<'a> Target<'a> {
    /// The GPU, for calls that know no MIG devices.
    pub(crate) fn whole(self) -> Result<Gpu<'a>, Code> {
        if self.mig.is_some() { Err(Code::NOT_SUPPORTED) } else { Ok(self.gpu) }
    }
}

impl Session {
    /// The handle of a GPU, by its number in the scenario. It changes with every initialisation.
    pub(crate) fn device(&self, board: usize) -> Device {
        self.handle(board, 0, self.machine.board(board, |board| board.life))
    }

    /// The handle of a MIG device.
    pub(crate) fn mig_device(&self, board: usize, mig: &MigDevice) -> Device {
        self.handle(board, mig.slot + 1, self.machine.board(board, |board| board.mig.layout))
    }

    fn handle(&self, board: usize, slot: usize, life: usize) -> Device {
        Device(
            ((board + 1) << BOARD_SHIFT)
                | (slot << SLOT_SHIFT)
                | ((life & LIFE_MASK) << LIFE_SHIFT)
                | ((self.generation & GENERATION_MASK) << GENERATION_SHIFT),
        )
    }

    /// The GPU that a handle of this session names, by its number in the scenario, whether it is still valid or not.
    pub(crate) fn board_of(&self, device: Device) -> Option<usize> {
        let board = ((device.0 >> BOARD_SHIFT) & BOARD_MASK).checked_sub(1)?;
        let own = device.0 >> GENERATION_SHIFT == self.generation & GENERATION_MASK;
        (own && device.0 & ((1 << BOARD_SHIFT) - 1) == 0 && board < self.scenario.gpus.len()).then_some(board)
    }

    /// What a handle stands for.
    pub(crate) fn target(&self, device: Device) -> Result<Target<'_>, Code> {
        let board = self.board_of(device).ok_or(Code::INVALID_ARGUMENT)?;
        let slot = (device.0 >> SLOT_SHIFT) & SLOT_MASK;
        let life = (device.0 >> LIFE_SHIFT) & LIFE_MASK;
        self.machine.board(board, |state| {
            if state.lost || !state.present {
                return Err(Code::GPU_IS_LOST);
            }
            let gpu = Gpu::new(self, board);
            if slot == 0 {
                let current = state.life & LIFE_MASK == life;
                return if current { Ok(Target { gpu, mig: None }) } else { Err(Code::GPU_IS_LOST) };
            }
            let current = state.mig.layout & LIFE_MASK == life;
            let mig = state.mig.devices.get(slot - 1).filter(|_| current).ok_or(Code::INVALID_ARGUMENT)?;
            Ok(Target { gpu, mig: Some(*mig) })
        })
    }

    /// The whole GPU that a handle stands for.
    pub(crate) fn gpu(&self, device: Device) -> Result<Gpu<'_>, Code> {
        self.target(device)?.whole()
    }

    /// The GPU with this index.
    pub(crate) fn gpu_at(&self, index: usize) -> Result<Gpu<'_>, Code> {
        let board = *self.machine.present().get(index).ok_or(Code::INVALID_ARGUMENT)?;
        Gpu::new(self, board).reachable()
    }

    /// All GPUs in NVML's order.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = Gpu<'_>> {
        self.machine.present().into_iter().map(|board| Gpu::new(self, board))
    }
}
