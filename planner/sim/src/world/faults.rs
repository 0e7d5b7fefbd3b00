//! What goes wrong.

use plimsoll_common::units::Micros;

use crate::policy::PoolId;

/// Which replicas a fault strikes, among those that are ready when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The nth by id, from 0; nobody if there are fewer.
    Nth(u32),
    /// All of them, and those that become ready later.
    All,
}

/// Something that goes wrong, at times from the world's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A replica dies with all that it holds; the world asks for another.
    Death {
        /// When.
        at: Micros,
        /// Where.
        pool: PoolId,
        /// Which.
        who: Who,
    },
    /// Iterations take `factor` times as long: a throttled GPU, a noisy neighbour.
    Slow {
        /// From when.
        from: Micros,
        /// Until when; [`Micros::MAX`] for ever.
        to: Micros,
        /// Where.
        pool: PoolId,
        /// Which.
        who: Who,
        /// How much longer.
        factor: f64,
    },
    /// A whole pool becomes slower (or faster) little by little, in twenty steps, and stays so.
    Drift {
        /// From when.
        from: Micros,
        /// Over how long.
        over: Micros,
        /// Where.
        pool: PoolId,
        /// How long iterations take in the end, over how long at first.
        factor: f64,
    },
    /// The router sends a share of all requests to one replica, whatever it otherwise does.
    HotSpot {
        /// From when.
        from: Micros,
        /// Until when.
        to: Micros,
        /// Where.
        pool: PoolId,
        /// Which replica, the nth by id of those ready at each moment.
        nth: u32,
        /// Which share, 0 to 1.
        share: f64,
    },
    /// Telemetry of replicas is lost; they go on working.
    Silence {
        /// From when.
        from: Micros,
        /// Until when.
        to: Micros,
        /// Where.
        pool: PoolId,
        /// Whose.
        who: Who,
    },
}

/// Steps that a drift takes.
pub(super) const DRIFT_STEPS: u32 = 20;

impl Fault {
    /// Where it strikes.
    #[must_use]
    pub const fn pool(&self) -> PoolId {
        match self {
            Self::Death { pool, .. }
            | Self::Slow { pool, .. }
            | Self::Drift { pool, .. }
            | Self::HotSpot { pool, .. }
            | Self::Silence { pool, .. } => *pool,
        }
    }

    /// The times of its steps: the beginning is step 0.
    pub(super) fn steps(&self) -> Vec<Micros> {
        match *self {
            Self::Death { at, .. } => vec![at],
            Self::Slow { from, to, .. } | Self::HotSpot { from, to, .. } | Self::Silence { from, to, .. } => {
                vec![from, to]
            }
            Self::Drift { from, over, .. } => (1..=DRIFT_STEPS)
                .map(|step| from.saturating_add(Micros(over.0 / u64::from(DRIFT_STEPS) * u64::from(step))))
                .collect(),
        }
    }
}
