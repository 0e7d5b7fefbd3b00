//! What each command does.

use super::{Board, Inner};
use crate::control::{Calls, Command, RemappedRows, Severity};
use crate::scenario::{Fabric, FabricHealth, FabricState};

/// The XID of a GPU that has fallen off the bus.
const XID_FALLEN_OFF: u64 = 79;

/// NVML knows at most this many links of a GPU.
const MAX_LINKS: u32 = 36;

/// Bits of NVML's event types.
const SINGLE_BIT_ERROR: u64 = 0x1;
const DOUBLE_BIT_ERROR: u64 = 0x2;
const XID: u64 = 0x8;
const MIG_CHANGE: u64 = 0x100;
const SINGLE_BIT_STORM: u64 = 0x200;
const ROW_REMAPPED: u64 = 0x400;
const ROW_REMAP_FAILED: u64 = 0x800;
const RECOVERY_ACTION: u64 = 0x8000;

impl Inner {
    /// Applies a command at `now_s` seconds since the scenario began.
    pub(super) fn apply(&mut self, command: &Command, now_s: f64) {
        match command {
            Command::Unload => self.end_driver(false, now_s),
            Command::Load => self.end_driver(true, now_s),
            Command::Upgrade(version) => {
                self.end_driver(true, now_s);
                self.kernel = Some(version.clone());
            }
            Command::Library(version) => self.library = Some(version.clone()),
            Command::Hang { calls, gpus } => self.hangs.push((calls.clone(), *gpus)),
            Command::Release(calls) => self.hangs.retain(|(hung, _)| *calls != Calls::Any && hung != calls),
            Command::Fail { calls, gpus, code } => self.failures.push((calls.clone(), *gpus, *code)),
            Command::Mend(calls) => {
                self.failures.retain(|(failing, ..)| *calls != Calls::Any && failing != calls)
            }
            Command::Cost { calls: Calls::Any, microseconds } => self.any_cost_us = Some(*microseconds),
            Command::Cost { calls: Calls::Named(name), microseconds } => {
                self.costs.insert(name.clone(), *microseconds);
            }
            Command::Slow(factor) => self.slowness = *factor,
            Command::Fabric { state, cluster } => self.set_fabric(*state, cluster.as_ref()),
            _ => {
                for board in 0..self.boards.len() {
                    if command.gpus().contains(board) {
                        self.apply_to(board, command, now_s);
                    }
                }
            }
        }
    }

    fn apply_to(&mut self, board: usize, command: &Command, now_s: f64) {
        let gpu = &mut self.boards[board];
        match command {
            Command::Xid { code, instance, .. } => {
                gpu.lost |= *code == XID_FALLEN_OFF;
                self.tell(board, XID, *code, *instance);
            }
            Command::Event { kind, data, .. } => self.tell(board, *kind, *data, None),
            Command::Lose(_) => gpu.lost = true,
            Command::Return(_) | Command::Add(_) => gpu.come_back(now_s),
            Command::Reset(_) => gpu.reset(now_s),
            Command::Remove(_) => gpu.present = false,
            Command::Ecc { severity, count, .. } => {
                gpu.add_errors(now_s, *severity, *count);
                let kind = match severity {
                    Severity::Corrected => SINGLE_BIT_ERROR,
                    Severity::Uncorrected => DOUBLE_BIT_ERROR,
                };
                self.tell(board, kind, 0, None);
            }
            Command::EccRate { severity, per_second, .. } => {
                gpu.set_error_rate(now_s, *severity, *per_second);
                if *severity == Severity::Corrected && *per_second > 0.0 {
                    self.tell(board, SINGLE_BIT_STORM, 0, None);
                }
            }
            Command::Remap { rows, .. } => self.remap(board, *rows),
            Command::Retire { pages, .. } => gpu.pages = Some(*pages),
            Command::Recovery { action, .. } => {
                gpu.recovery = *action;
                self.tell(board, RECOVERY_ACTION, (*action).into(), None);
            }
            Command::Throttle { throttle, .. } => gpu.set_throttle(now_s, *throttle),
            Command::Mig { layout, .. } => {
                gpu.mig.set(layout.as_deref());
                self.tell(board, MIG_CHANGE, 0, None);
            }
            Command::MigPending { enabled, .. } => gpu.mig.set_pending(*enabled),
            Command::Link { link, up, .. } => gpu.set_links(*link, *up),
            Command::LinkErrors { link, error, count, .. } => {
                for link in link.map_or(0..MAX_LINKS, |link| link..link + 1) {
                    *gpu.link_errors.entry((link, *error)).or_insert(0) += count;
                }
            }
            Command::PcieReplays { count, .. } => gpu.pcie_replays += count,
            // All others are about no GPU.
            _ => {}
        }
    }

    fn remap(&mut self, board: usize, rows: RemappedRows) {
        let before = std::mem::replace(&mut self.boards[board].rows, rows);
        if rows.corrected > before.corrected || rows.uncorrected > before.uncorrected {
            self.tell(board, ROW_REMAPPED, 0, None);
        }
        if rows.failed && !before.failed {
            self.tell(board, ROW_REMAP_FAILED, 0, None);
        }
    }

    /// Sessions of the driver that ran are over. A driver that starts finds the GPUs anew.
    fn end_driver(&mut self, loaded: bool, now_s: f64) {
        self.driver_life += 1;
        self.loaded = loaded;
        if loaded {
            self.boards.iter_mut().filter(|board| board.present).for_each(|board| board.come_back(now_s));
        }
    }

    fn set_fabric(&mut self, state: FabricState, cluster: Option<&(String, u32)>) {
        let fabric = self.fabric.get_or_insert_with(|| Fabric {
            state,
            cluster_uuid: "00000000-0000-0000-0000-000000000000".to_owned(),
            clique_id: 0,
            health: FabricHealth::NotSupported,
            health_mask: 0,
        });
        fabric.state = state;
        if let Some((uuid, clique)) = cluster {
            (fabric.cluster_uuid, fabric.clique_id) = (uuid.clone(), *clique);
        }
    }
}

impl Board {
    fn set_links(&mut self, link: Option<u32>, up: bool) {
        let links = link.map_or(u64::MAX, |link| 1 << link.min(63));
        self.links_down = if up { self.links_down & !links } else { self.links_down | links };
    }
}
