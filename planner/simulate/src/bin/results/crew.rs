//! Who measures: as many threads as there are cores, each takes the next cell.

use std::{
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    cache::Cache,
    cells::{Cell, Peer},
    measure::{Depth, Measured, measure},
};

/// What there is to do, and with what.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) depth: Depth,
    pub(crate) data: Option<PathBuf>,
    pub(crate) peers: Vec<Peer>,
    /// Policies that are judged.
    pub(crate) policies: Vec<String>,
    pub(crate) cache: Cache,
    pub(crate) threads: usize,
    /// When no further cell is begun; what is known is still told.
    pub(crate) stop_after: Option<Duration>,
}

/// One cell, and what came of it; None if time was up before it was begun.
pub(crate) type Done = (Cell, Option<Measured>);

impl Crew {
    /// Measures every cell. One that fails does not keep the others from being measured and
    /// kept; it is told in the end.
    pub(crate) fn measure(&self, cells: &[Cell]) -> anyhow::Result<Vec<Done>> {
        let progress = Progress { began: now(), all: cells.len(), done: AtomicUsize::new(0) };
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<anyhow::Result<Measured>>>> =
            Mutex::new(cells.iter().map(|_| None).collect());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(cell) = cells.get(index) else { return };
                        let late = self.stop_after.is_some_and(|limit| progress.began.elapsed() >= limit);
                        let result = self.one(cell, late).with_context(|| format!("cell {}", cell.name));
                        let Some(result) = result.transpose() else { continue };
                        progress.tell(cell, &result, self.threads);
                        let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        if let Some(place) = results.get_mut(index) {
                            *place = Some(result);
                        }
                    }
                });
            }
        });
        let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        cells.iter().zip(results).map(|(cell, result)| Ok((cell.clone(), result.transpose()?))).collect()
    }

    /// One cell; none if it is too late for what is not known yet.
    fn one(&self, cell: &Cell, late: bool) -> anyhow::Result<Option<Measured>> {
        let file = Cache::file(cell, self.depth, &self.peers)?;
        let known = self.cache.known(&file);
        if late && !known.covers(&self.policies) {
            return Ok(None);
        }
        let measured = measure(cell, self.depth, self.data.as_deref(), &self.peers, &self.policies, known)?;
        if measured.fresh {
            self.cache.keep(&file, &measured)?;
        }
        Ok(Some(measured))
    }
}

/// The one clock of this program: what it measures is its own time.
#[expect(clippy::disallowed_methods, reason = "nothing here is asynchronous, and no test pauses the time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

struct Progress {
    began: Instant,
    all: usize,
    done: AtomicUsize,
}

impl Progress {
    #[expect(clippy::print_stderr, reason = "for the person who waits; the result is a file")]
    fn tell(&self, cell: &Cell, result: &anyhow::Result<Measured>, threads: usize) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let so_far = self.began.elapsed().as_secs_f64();
        // The last cells run side by side, so this is a little too much towards the end.
        let left = so_far / done as f64 * (self.all - done) as f64;
        let took = match result {
            Ok(measured) if measured.fresh => format!("{:.1} s", measured.seconds),
            Ok(_) => "known".to_owned(),
            Err(_) => "failed".to_owned(),
        };
        eprintln!(
            "[{done}/{}] {}: {took}; {:.0} s so far with {threads} threads, about {:.0} s left",
            self.all, cell.name, so_far, left
        );
    }
}
