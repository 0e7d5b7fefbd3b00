//! Names of things. An id is parsed once, at the edge; from then on its type says what it names.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest id that is accepted, in bytes: a DNS name's length, which is also Kubernetes' limit for object names.
pub const MAX_ID_BYTES: usize = 253;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text was empty.
    #[error("a {what} must not be empty")]
    Empty {
        /// What the text was to name.
        what: &'static str,
    },
    /// The text was longer than [`MAX_ID_BYTES`].
    #[error("a {what} has at most {MAX_ID_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// What the text was to name.
        what: &'static str,
        /// How long it was.
        bytes: usize,
    },
    /// The text held a control character, which would break logs and metric labels.
    #[error("a {what} must not hold control characters")]
    Control {
        /// What the text was to name.
        what: &'static str,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong { what, bytes: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidId::Control { what });
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text as an id.
            ///
            /// # Errors
            /// When the text is empty, longer than [`MAX_ID_BYTES`] or holds control characters.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_id!(
    /// A machine with GPUs, by the name its cluster gives it.
    NodeName,
    "node name"
);
text_id!(
    /// One boot of a node's kernel (`/proc/sys/kernel/random/boot_id`).
    BootId,
    "boot id"
);
text_id!(
    /// A GPU's or MIG instance's UUID as NVML prints it (`GPU-…`, `MIG-…`). Indexes change with a reboot, UUIDs do not.
    GpuUuid,
    "GPU UUID"
);
text_id!(
    /// One serving process on a node: unique within its node, not within the fleet.
    EngineId,
    "engine id"
);
text_id!(
    /// A served model's name, as clients ask for it.
    ModelName,
    "model name"
);
text_id!(
    /// Replicas of one model, role and hardware that are scaled together.
    PoolName,
    "pool name"
);
text_id!(
    /// The unit of scaling: one tensor/pipeline-parallel group. A replica may span engines and nodes.
    ReplicaId,
    "replica id"
);

/// One run of an agent process: its start as Unix milliseconds. With the [`BootId`] it names a sequence of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentEpoch(pub u64);

/// One run of a planner process: a random number. A planner that starts anew has applied nothing of what an earlier one had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlannerRun(pub u64);

/// The number of a window within one agent epoch, from 1 without gaps. 0 means "none yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The number of an inventory within one agent epoch, from 1. Reports name the inventory that explains their columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_at_the_edge() {
        assert_eq!(NodeName::parse("gpu-7").unwrap().as_str(), "gpu-7");
        assert_eq!(NodeName::parse(""), Err(InvalidId::Empty { what: "node name" }));
        assert_eq!(PoolName::parse("a\nb"), Err(InvalidId::Control { what: "pool name" }));
        let long = "x".repeat(MAX_ID_BYTES + 1);
        assert_eq!(
            EngineId::parse(&long),
            Err(InvalidId::TooLong { what: "engine id", bytes: MAX_ID_BYTES + 1 })
        );
    }

    #[test]
    fn a_bad_id_is_refused_while_decoding() {
        assert!(serde_json::from_str::<GpuUuid>("\"\"").is_err());
        assert_eq!(serde_json::to_string(&GpuUuid::parse("GPU-1").unwrap()).unwrap(), "\"GPU-1\"");
    }
}
