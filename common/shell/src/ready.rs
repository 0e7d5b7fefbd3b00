//! Readiness as a set of latches: each part of a daemon says for itself when it can serve.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// All latches of a daemon; ready when every one is set.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Vec<(&'static str, AtomicBool)>>);

/// One part's latch.
#[derive(Debug, Clone)]
pub struct Latch {
    all: Readiness,
    index: usize,
}

impl Readiness {
    /// Latches by name, none set, in the order given.
    #[must_use]
    pub fn new<const N: usize>(names: [&'static str; N]) -> (Self, [Latch; N]) {
        let all = Self(Arc::new(names.iter().map(|name| (*name, AtomicBool::new(false))).collect()));
        let latches = std::array::from_fn(|index| Latch { all: all.clone(), index });
        (all, latches)
    }

    /// The parts that are not ready yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, set)| !set.load(Ordering::Relaxed)).map(|(name, _)| *name).collect()
    }
}

impl Latch {
    /// Says whether this part can serve.
    pub fn set(&self, ready: bool) {
        if let Some((_, latch)) = self.all.0.get(self.index) {
            latch.store(ready, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latch_counts() {
        let (readiness, [quic, http]) = Readiness::new(["quic", "http"]);
        quic.set(true);
        assert_eq!(readiness.waiting_for(), ["http"]);
        http.set(true);
        assert!(readiness.waiting_for().is_empty());
        quic.set(false);
        assert_eq!(readiness.waiting_for(), ["quic"]);
    }
}
