//! Which engine a pool runs.

use std::fmt;

use plimsoll_engine::{Profile, ProfileError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An engine profile: by name or path, or written out.
#[derive(Clone, Debug, PartialEq)]
pub enum ProfileRef {
    /// A built-in profile's name, or the path of a file or folder of profiles or tables (one with a `/`, or that ends in
    /// `.json` or `.npz`).
    Named(String),
    /// The profile itself.
    Inline(Box<Profile>),
}

impl ProfileRef {
    /// The built-in profile of this name; for [`super::Policy::inline_profiles`].
    ///
    /// # Errors
    /// Names the known ones if there is none.
    pub fn built_in(name: &str) -> Result<Profile, ProfileError> {
        Profile::built_in(name)
    }
}

impl Serialize for ProfileRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Inline(profile) => profile.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ProfileRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ProfileRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a built-in profile's name, a path of a profile or of a profiler's tables, or a profile",
                )
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<ProfileRef, E> {
                Ok(ProfileRef::Named(name.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<ProfileRef, A::Error> {
                let profile = Profile::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(ProfileRef::Inline(Box::new(profile)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
