//! The newest events, numbered.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use crate::gpu::{event::GpuEvent, snapshot::GpuSnapshot, source::RawEvent};

/// Keeps the newest events and numbers all.
#[derive(Debug, Default)]
pub(in crate::gpu) struct EventLog {
    newest: VecDeque<GpuEvent>,
    count: u64,
    shared: Arc<[GpuEvent]>,
}

impl EventLog {
    /// So many events are read in one tick; the others wait in the driver.
    pub(super) const LIMIT: usize = GpuSnapshot::MAX_EVENTS;

    /// Adds one.
    pub(super) fn add(&mut self, event: RawEvent, read: Instant) {
        self.count += 1;
        let event = GpuEvent { number: self.count, read, uuid: event.uuid, kind: event.kind };
        let uuid = event.uuid.as_ref().map_or("?", |uuid| uuid.as_str());
        tracing::warn!(gpu = uuid, event = event.kind.as_str(), xid = event.kind.xid(), "GPU event");
        if self.newest.len() == GpuSnapshot::MAX_EVENTS {
            self.newest.pop_front();
        }
        self.newest.push_back(event);
        self.shared = self.newest.iter().cloned().collect();
    }

    /// The newest, the oldest of them first.
    pub(in crate::gpu) fn newest(&self) -> Arc<[GpuEvent]> {
        Arc::clone(&self.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::event::GpuEventKind;

    #[test]
    fn only_the_newest_are_kept_and_numbers_go_on() {
        let mut log = EventLog::default();
        for code in 0..100 {
            log.add(RawEvent { uuid: None, kind: GpuEventKind::Xid(code) }, Instant::now());
        }
        let newest = log.newest();
        assert_eq!(newest.len(), GpuSnapshot::MAX_EVENTS);
        assert_eq!((newest[0].number, newest[0].kind), (37, GpuEventKind::Xid(36)));
        assert_eq!(newest[63].number, 100);
    }
}
