//! How each exact source is: written by the sources, read by the pages.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use plimsoll_common::ids::EngineId;

/// What kind of source it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// Request records in files.
    RequestLog,
    /// Request spans over OTLP.
    Otlp,
    /// Forward passes over ZMQ.
    ForwardPass,
}

impl SourceKind {
    /// The name in JSON and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestLog => "request_log",
            Self::Otlp => "otlp",
            Self::ForwardPass => "forward_pass",
        }
    }
}

/// How an exact source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceState {
    /// It works, and nothing has come yet.
    #[default]
    Waiting,
    /// Something came.
    Ok,
    /// It can't work now; the detail says why.
    Failing,
}

impl SourceState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Ok, Self::Failing];

    /// The name in JSON and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ok => "ok",
            Self::Failing => "failing",
        }
    }
}

/// A source's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceKey {
    /// The engine that it speaks of; `None` for the OTLP receiver, which serves all.
    pub engine: Option<EngineId>,
    /// What it is.
    pub kind: SourceKind,
    /// Where it comes from: a folder or an address.
    pub place: String,
}

/// A source's state and what became of what it delivered, since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// How it is.
    pub state: SourceState,
    /// Why it fails or waits.
    pub detail: Option<String>,
    /// Records (spans, passes) counted.
    pub records: u64,
    /// Records that are none to be counted: aborted requests, other spans, heartbeats.
    pub skipped: u64,
    /// Records, or values in them, that can't be read or can't be true.
    pub malformed: u64,
    /// Records that were not counted for want of room.
    pub dropped: u64,
    /// Records that were sent and never came.
    pub lost: u64,
    /// Records of an engine that is not among the endpoints.
    pub unknown: u64,
    /// Bytes that are written and not read yet.
    pub behind_bytes: Option<u64>,
}

/// Every exact source of the agent, by name.
#[derive(Debug, Clone, Default)]
pub struct ExactBoard(Arc<Mutex<BTreeMap<SourceKey, SourceStatus>>>);

impl ExactBoard {
    /// The sources and how they are, ordered by name.
    #[must_use]
    pub fn all(&self) -> Vec<(SourceKey, SourceStatus)> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.iter().map(|(key, status)| (key.clone(), status.clone())).collect()
    }

    /// Enters a source; what it becomes it tells through the handle.
    #[must_use]
    pub fn enter(&self, key: SourceKey) -> SourceReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default();
        SourceReport { board: self.clone(), key }
    }
}

/// Where one source tells how it is.
#[derive(Debug, Clone)]
pub struct SourceReport {
    board: ExactBoard,
    key: SourceKey,
}

impl SourceReport {
    /// The source's name.
    #[must_use]
    pub const fn key(&self) -> &SourceKey {
        &self.key
    }

    /// Changes what is told of the source.
    pub fn update(&self, change: impl FnOnce(&mut SourceStatus)) {
        let mut board = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(board.entry(self.key.clone()).or_default());
    }

    /// The source works; a detail may say what it waits for.
    pub fn works(&self, detail: Option<String>) {
        self.change_state(detail, false);
    }

    /// The source can't work now.
    pub fn fails(&self, reason: String) {
        self.change_state(Some(reason), true);
    }

    /// A change is logged once.
    fn change_state(&self, detail: Option<String>, failing: bool) {
        let mut logged = None;
        self.update(|status| {
            let state = match (failing, status.records + status.skipped > 0) {
                (true, _) => SourceState::Failing,
                (false, true) => SourceState::Ok,
                (false, false) => SourceState::Waiting,
            };
            let was = std::mem::replace(&mut status.state, state);
            if (was == SourceState::Failing) != failing {
                logged = Some(detail.clone());
            }
            status.detail = detail;
        });
        let (source, place) = (self.key.kind.as_str(), self.key.place.as_str());
        let engine = self.key.engine.as_ref().map_or("", |engine| engine.as_str());
        match logged {
            Some(reason) if failing => {
                let reason = reason.unwrap_or_default();
                tracing::warn!(source, engine, place, %reason, "exact source fails");
            }
            Some(_) => tracing::info!(source, engine, place, "exact source works again"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_waiting_until_something_came() {
        let board = ExactBoard::default();
        let key = SourceKey { engine: None, kind: SourceKind::Otlp, place: "127.0.0.1:4317".to_owned() };
        let report = board.enter(key.clone());
        let state = || board.all()[0].1.state;
        assert_eq!(state(), SourceState::Waiting);
        report.fails("no".to_owned());
        assert_eq!((state(), board.all()[0].1.detail.as_deref()), (SourceState::Failing, Some("no")));
        report.works(None);
        assert_eq!(state(), SourceState::Waiting);
        report.update(|status| status.records += 1);
        report.works(None);
        assert_eq!((state(), board.all().len()), (SourceState::Ok, 1));
    }
}
