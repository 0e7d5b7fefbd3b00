//! Which replica gets a request.

use crate::policy::ReplicaId;

/// How requests are spread over the ready replicas of a pool. Requests go to a replica at once and wait there; only
/// when none is ready do they wait at the door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Router {
    /// One after the other.
    RoundRobin,
    /// The one that holds the fewest requests; the first by id among equals.
    LeastLoaded,
    /// The one with the least work: prompt tokens that it would have to compute, those that it has cached being free,
    /// and `load_weight` times the tokens that its running requests hold.
    PrefixAware {
        /// How much a held token counts against a prompt token to compute; 0 looks at the cache only.
        load_weight: f64,
    },
}

/// One replica as a router sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) id: ReplicaId,
    /// Requests that it holds or is about to.
    pub(super) held: usize,
    /// Prompt tokens of this request that it would have to compute.
    pub(super) to_compute: u32,
    /// Tokens in its KV cache, and prompt tokens in its queue.
    pub(super) load_tokens: u64,
}

impl Router {
    /// Whether the choice depends on what the replicas hold.
    pub(super) const fn looks(&self) -> bool {
        !matches!(self, Self::RoundRobin)
    }

    /// Chooses among candidates in the order of their ids; `turn` counts the requests routed so far.
    pub(super) fn choose(&self, candidates: &[Candidate], turn: u64) -> Option<ReplicaId> {
        match *self {
            Self::RoundRobin => {
                let place = turn.checked_rem(candidates.len() as u64)?;
                candidates.get(place as usize).map(|candidate| candidate.id)
            }
            Self::LeastLoaded => candidates.iter().min_by_key(|c| (c.held, c.id)).map(|c| c.id),
            Self::PrefixAware { load_weight } => {
                let cost = |c: &Candidate| f64::from(c.to_compute) + load_weight * c.load_tokens as f64;
                candidates
                    .iter()
                    .min_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.id.cmp(&b.id)))
                    .map(|c| c.id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_router_looks_at_what_it_says() {
        let candidate = |id, held, to_compute, load_tokens| Candidate {
            id: ReplicaId(id),
            held,
            to_compute,
            load_tokens,
        };
        let three = [candidate(3, 4, 100, 900), candidate(5, 2, 500, 10), candidate(8, 2, 500, 0)];
        assert_eq!(Router::RoundRobin.choose(&three, 4), Some(ReplicaId(5)));
        assert_eq!(Router::LeastLoaded.choose(&three, 0), Some(ReplicaId(5)));
        assert_eq!(Router::PrefixAware { load_weight: 0.1 }.choose(&three, 0), Some(ReplicaId(3)));
        assert_eq!(Router::PrefixAware { load_weight: 1.0 }.choose(&three, 0), Some(ReplicaId(8)));
        assert_eq!(Router::LeastLoaded.choose(&[], 0), None);
        assert_eq!(Router::RoundRobin.choose(&[], 7), None);
    }
}
