//! What a controller has learned, kept across restarts: the step after a restore is the step without one, byte for byte.

use std::collections::BTreeMap;

use plimsoll_common::ids::PoolName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;

use super::Controller;
use crate::{observe::Observation, pool::Pool, spec::FleetSpec, tuning::Tuning};

/// The learned state of a [`Controller`]. Taking one clones; writing it out, which takes longer, is for another thread.
///
/// Its form in MessagePack keeps every float as it is. Each pool is packed on its own, so that one that a later build
/// cannot read starts afresh and the others go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    /// Of the specification that it was learned under.
    fingerprint: u64,
    refused: u64,
    pools: BTreeMap<PoolName, Saved>,
    /// What was observed and not yet learned.
    pending: BTreeMap<PoolName, Observation>,
}

/// One pool.
#[derive(Clone, Debug)]
enum Saved {
    Live(Box<Pool>),
    Packed(ByteBuf),
}

/// Why a checkpoint can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It was made by a build that wrote another format.
    #[error(
        "the checkpoint has format {found}, this build reads {}: learning starts afresh",
        Checkpoint::VERSION
    )]
    Version {
        /// Its format.
        found: u32,
    },
    /// It is no checkpoint.
    #[error("the checkpoint can't be read: {0}")]
    Unreadable(String),
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Restoration {
    /// Whether the policy is the one that the checkpoint was made under.
    pub same_policy: bool,
    /// Pools that go on with what was learned.
    pub restored: Vec<PoolName>,
    /// Pools that start afresh: the checkpoint does not know them, or in a form that this build does not read.
    pub fresh: Vec<PoolName>,
    /// Pools that the policy does not know any more.
    pub dropped: Vec<PoolName>,
}

impl Serialize for Saved {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Live(pool) => {
                let packed = rmp_serde::to_vec_named(pool).map_err(serde::ser::Error::custom)?;
                serializer.serialize_bytes(&packed)
            }
            Self::Packed(packed) => packed.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Saved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ByteBuf::deserialize(deserializer).map(Self::Packed)
    }
}

impl Saved {
    fn pool(self) -> Option<Pool> {
        match self {
            Self::Live(pool) => Some(*pool),
            Self::Packed(packed) => rmp_serde::from_slice(&packed).ok(),
        }
    }
}

impl Checkpoint {
    /// The format that this build writes and reads.
    pub const VERSION: u32 = 4;

    /// The fingerprint of the specification that it was learned under ([`FleetSpec::fingerprint`]).
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// As MessagePack.
    ///
    /// # Errors
    /// When a number can't be written down, which no state of a controller holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        rmp_serde::to_vec_named(self).map_err(|error| CheckpointError::Unreadable(error.to_string()))
    }

    /// Reads what [`Checkpoint::to_bytes`] wrote.
    ///
    /// # Errors
    /// When it is another format or none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let unreadable = |error: rmp_serde::decode::Error| CheckpointError::Unreadable(error.to_string());
        let Head { version: found } = rmp_serde::from_slice(bytes).map_err(unreadable)?;
        if found != Self::VERSION {
            return Err(CheckpointError::Version { found });
        }
        rmp_serde::from_slice(bytes).map_err(unreadable)
    }
}

impl Controller {
    /// All that was learned so far.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let saved = |(name, pool): (&PoolName, &Pool)| (name.clone(), Saved::Live(Box::new(pool.clone())));
        Checkpoint {
            version: Checkpoint::VERSION,
            fingerprint: self.fingerprint,
            refused: self.refused,
            pools: self.pools.iter().map(saved).collect(),
            pending: self.pending.clone(),
        }
    }

    /// Goes on from a checkpoint under a policy that may have changed: a pool that it does not know any more is dropped,
    /// a new one starts afresh, and what the policy says of a pool counts as it says now.
    #[must_use]
    pub fn restore(spec: FleetSpec, tuning: Tuning, checkpoint: Checkpoint) -> (Self, Restoration) {
        let mut controller = Self::new(spec, tuning);
        let mut done = Restoration {
            same_policy: controller.fingerprint == checkpoint.fingerprint,
            ..Restoration::default()
        };
        for (name, saved) in checkpoint.pools {
            let Some(fresh) = controller.pools.get_mut(&name) else {
                done.dropped.push(name);
                continue;
            };
            if let Some(pool) = saved.pool() {
                *fresh = pool.adopt(fresh.spec.clone());
                done.restored.push(name);
            }
        }
        let restored = |name: &PoolName| done.restored.binary_search(name).is_ok();
        done.fresh = controller.pools.keys().filter(|name| !restored(name)).cloned().collect();
        controller.refused = checkpoint.refused;
        let known = |name: &PoolName| controller.pools.contains_key(name);
        controller.pending = checkpoint.pending.into_iter().filter(|(name, _)| known(name)).collect();
        (controller, done)
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
