//! Requests that tokens belong to, where engines count both but tell nobody's length.

use serde::{Deserialize, Serialize};

use crate::observe::{Gained, Observation};

/// What flowed through a pool's engines in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Tokens.
    pub tokens: f64,
    /// Requests that finished.
    pub finished: f64,
    /// Requests in the batches when the window ended.
    pub running: f64,
    /// Engines that told.
    pub engines: u32,
}

impl Flow {
    /// The tokens of this kind, and the requests, of those engines that tell both; none if no engine does.
    pub fn of(seen: &Observation, tokens: impl Fn(&Gained) -> Option<f64>) -> Option<Self> {
        let mut flow = Self { tokens: 0.0, finished: 0.0, running: 0.0, engines: 0 };
        for engine in seen.engines.values() {
            if let (Some(finished), Some(tokens)) = (engine.gained.finished, tokens(&engine.gained)) {
                flow.finished += finished as f64;
                flow.tokens += tokens;
                flow.running += engine.running.unwrap_or(0) as f64;
                flow.engines += 1;
            }
        }
        (flow.engines > 0).then_some(flow)
    }
}

/// Windows put together until what was under way at both ends is little beside what finished between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    tokens: f64,
    requests: f64,
    /// Requests in the batches when the last window ended, and the most when any did.
    running: (f64, f64),
    /// Engines that tell; zero before any did.
    engines: u32,
}

impl Stretch {
    /// Takes a window, in which a request that came or went without finishing did `share` of its tokens. Gives the requests
    /// that the window's tokens belong to; and tokens and requests of the stretch, if it ends: when the requests are
    /// `least`, and so many times those in the batches.
    pub fn observe(
        &mut self,
        flow: &Flow,
        share: f64,
        (least, times): (f64, f64),
    ) -> (f64, Option<(f64, f64)>) {
        if self.engines != flow.engines {
            // Engines that come or go take along what they held.
            *self = Self::begin(flow);
            return (flow.finished, None);
        }
        let (before, most) = self.running;
        let requests = (flow.finished + share * (flow.running - before)).max(0.0);
        let most = most.max(flow.running);
        let (tokens, all) = (self.tokens + flow.tokens, self.requests + requests);
        let ends = all >= least.max(times * most);
        *self = if ends {
            Self::begin(flow)
        } else {
            Self { tokens, requests: all, running: (flow.running, most), ..*self }
        };
        (requests, ends.then_some((tokens, all)))
    }

    fn begin(flow: &Flow) -> Self {
        Self { tokens: 0.0, requests: 0.0, running: (flow.running, flow.running), engines: flow.engines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(tokens: f64, finished: f64, running: f64) -> Flow {
        Flow { tokens, finished, running, engines: 2 }
    }

    #[test]
    fn what_is_under_way_belongs_to_tokens_as_well() {
        let mut stretch = Stretch::default();
        assert_eq!(stretch.observe(&flow(900.0, 9.0, 4.0), 1.0, (30.0, 0.0)), (9.0, None));
        // Six more run than before: their prompts were computed, too.
        assert_eq!(stretch.observe(&flow(1_600.0, 10.0, 10.0), 1.0, (30.0, 0.0)), (16.0, None));
        assert_eq!(
            stretch.observe(&flow(1_500.0, 18.0, 7.0), 1.0, (30.0, 0.0)),
            (15.0, Some((3_100.0, 31.0)))
        );
        // Another engine: what is held now was not gained here.
        let more = Flow { engines: 3, ..flow(100.0, 1.0, 50.0) };
        assert_eq!(stretch.observe(&more, 1.0, (30.0, 0.0)), (1.0, None));
    }

    #[test]
    fn a_stretch_is_long_beside_what_runs() {
        let mut stretch = Stretch::default();
        let ends = (0..100).map(|_| stretch.observe(&flow(1e4, 10.0, 5.0), 0.5, (30.0, 20.0)).1);
        let lengths: Vec<_> = ends.flatten().collect();
        assert_eq!(lengths, vec![(1e5, 100.0); 9]);
    }
}
