//! One node and what stands on it.

use std::{collections::BTreeMap, sync::Arc};

use plimsoll_common::{
    ids::{AgentEpoch, EngineId, GpuUuid, Seq},
    units::Micros,
};

use super::{
    layouts::{LayoutId, Layouts},
    limits::{Freshness, Limits},
    observation::{
        EngineGauges, EngineIdentity, GpuIdentity, GpuReading, HostReading, NodeInventory, Observation,
    },
    series::Accumulator,
};

/// Which of two observations is newer: by the end of its window, then by the agent's own order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) end: Micros,
    epoch: u64,
    seq: Seq,
}

impl Stamp {
    pub(super) fn of(now: Micros, observation: &Observation) -> Self {
        let AgentEpoch(epoch) = observation.epoch;
        Self { end: now.saturating_sub(observation.age), epoch, seq: observation.seq }
    }
}

/// A GPU: its newest values.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub(super) identity: Arc<GpuIdentity>,
    pub(super) reading: GpuReading,
    pub(super) newest: Stamp,
}

/// An engine: its newest gauges, and all that it gained.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) identity: Arc<EngineIdentity>,
    pub(super) gauges: EngineGauges,
    pub(super) newest: Stamp,
    pub(super) gained: Accumulator,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) inventory: Arc<NodeInventory>,
    /// The inventory's layouts as far as they were used, as this fleet numbers them.
    interned: Vec<Option<LayoutId>>,
    pub(super) host: HostReading,
    pub(super) newest: Stamp,
    /// When the last observation came, however old its window was.
    pub(super) received: Micros,
    /// Time between two windows of the agent.
    pub(super) cadence: Micros,
    /// Since when the agent has been gone on purpose.
    pub(super) left: Option<Micros>,
    pub(super) gpus: BTreeMap<GpuUuid, Gpu>,
    pub(super) engines: BTreeMap<EngineId, Box<Engine>>,
}

impl Node {
    pub(super) fn new(inventory: Arc<NodeInventory>) -> Self {
        Self {
            interned: vec![None; inventory.layouts.len()],
            inventory,
            host: HostReading::default(),
            newest: Stamp::default(),
            received: Micros(0),
            cadence: Micros(0),
            left: None,
            gpus: BTreeMap::new(),
            engines: BTreeMap::new(),
        }
    }

    /// Takes what belongs to the node itself. An older window than the newest changes nothing but when we heard.
    pub(super) fn observe(&mut self, now: Micros, stamp: Stamp, observation: &Observation) {
        self.received = self.received.max(now);
        if stamp < self.newest {
            return;
        }
        self.newest = stamp;
        if !Arc::ptr_eq(&self.inventory, &observation.inventory) {
            self.inventory = Arc::clone(&observation.inventory);
            self.interned = vec![None; self.inventory.layouts.len()];
        }
        self.host = observation.host;
        self.cadence = Micros(observation.length.0 / observation.windows.max(1));
        self.left = observation.leaving.then_some(now);
    }

    /// This fleet's number of a layout that an observation names; `None` where it can't have one.
    pub(super) fn layout(
        &mut self,
        inventory: &Arc<NodeInventory>,
        position: usize,
        layouts: &mut Layouts,
        limits: &Limits,
    ) -> Option<LayoutId> {
        let layout = inventory.layouts.get(position)?;
        // A late window may speak of an older inventory; only the newest one's numbers are remembered.
        if !Arc::ptr_eq(inventory, &self.inventory) {
            return layouts.intern(layout, limits.max_layouts);
        }
        let known = self.interned.get_mut(position)?;
        if known.is_none() {
            *known = layouts.intern(layout, limits.max_layouts);
        }
        *known
    }

    /// How old values of such a window are, and how fresh that makes them. Windows wait for nobody: a value from the
    /// clock's future is new.
    pub(super) fn age(&self, now: Micros, newest: Stamp, limits: &Limits) -> (Micros, Freshness) {
        let age = now.saturating_sub(newest.end);
        (age, limits.freshness(age, self.cadence))
    }

    /// Up to which age the node's values are live.
    pub(super) fn fresh(&self, limits: &Limits) -> Micros {
        limits.stale_after.max(Micros(self.cadence.0.saturating_mul(3)))
    }

    /// Whether nothing was heard for so long, or the agent left so long ago, that the node is to be forgotten.
    pub(super) fn is_forgotten(&self, now: Micros, limits: &Limits) -> bool {
        let left = self.left.is_some_and(|left| now.saturating_sub(left) > limits.forget_left_after);
        left || now.saturating_sub(self.received) > limits.forget_after
    }
}
