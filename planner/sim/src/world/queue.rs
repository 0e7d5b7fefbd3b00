//! What is to happen, by time.

use std::{cmp::Reverse, collections::BinaryHeap};

use plimsoll_common::units::Micros;

use crate::policy::ReplicaId;

/// Something that happens at a time. Arrivals are not here: they come from the workload, and before everything else of
/// the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A prefill replica's iteration ends.
    PrefillStep(ReplicaId),
    /// A request's keys and values arrive at a decode replica.
    Delivered { request: u32, replica: ReplicaId },
    /// A replica that was asked for takes requests, or fails to.
    Started { replica: ReplicaId, fails: bool },
    /// A draining replica has had its time.
    Stop(ReplicaId),
    /// A step of a fault: the place of the fault, and which of its steps.
    Fault { index: u32, step: u32 },
    /// The policy is asked.
    Tick,
}

/// Events by time; those of one moment in the order in which they were planned.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    planned: u64,
}

impl Queue {
    pub(super) fn plan(&mut self, at: Micros, event: Event) {
        self.heap.push(Reverse((at, self.planned, event)));
        self.planned += 1;
    }

    pub(super) fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
