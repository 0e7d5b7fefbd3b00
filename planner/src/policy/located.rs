//! Where each value of a document begins.

use std::fmt;

use plimsoll_core::policy::{Place, Step};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess},
};
use serde_saphyr::Spanned;

/// A document's tree with the place of each value in the text, and without the values.
#[derive(Debug)]
pub(super) struct Located {
    /// The line, from 1.
    pub(super) line: u64,
    /// The column, from 1.
    pub(super) column: u64,
    /// The place of the key, for values of a mapping.
    key: Option<(u64, u64)>,
    children: Vec<(Step, Self)>,
}

impl Located {
    /// Reads a text as far as it is a document; `None` where it is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok()
    }

    /// What stands at a place, or the innermost that contains it and was written.
    pub(super) fn find(&self, steps: &[Step]) -> &Self {
        let Some((first, rest)) = steps.split_first() else { return self };
        match self.children.iter().find(|(step, _)| step == first) {
            Some((_, child)) => child.find(rest),
            None => self,
        }
    }

    /// The innermost place that begins at or before a point of the text.
    pub(super) fn at(&self, line: u64, column: u64) -> Place {
        let mut place = Place::root();
        let mut node = self;
        let begins = |node: &Self| node.key.unwrap_or((node.line, node.column));
        while let Some((step, child)) =
            node.children.iter().rev().find(|(_, child)| begins(child) <= (line, column))
        {
            place = match step {
                Step::Key(key) => place.key(key),
                Step::Index(index) => place.index(*index),
            };
            node = child;
        }
        place
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Children>::deserialize(deserializer)?;
        let (line, column) = (referenced.line(), referenced.column());
        Ok(Self { line, column, key: None, children: value.0 })
    }
}

struct Children(Vec<(Step, Located)>);

impl<'de> Deserialize<'de> for Children {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty,)*) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<Children, E> {
            Ok(Children(Vec::new()))
        })*
    };
}

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Children;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    scalars! {
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64,
        visit_str: &str, visit_bytes: &[u8],
    }

    fn visit_unit<E: de::Error>(self) -> Result<Children, E> {
        Ok(Children(Vec::new()))
    }

    fn visit_none<E: de::Error>(self) -> Result<Children, E> {
        Ok(Children(Vec::new()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Children, D::Error> {
        Children::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Children, A::Error> {
        let mut children = Vec::new();
        while let Some(child) = seq.next_element::<Located>()? {
            children.push((Step::Index(children.len()), child));
        }
        Ok(Children(children))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Children, A::Error> {
        let mut children = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            let mut child = map.next_value::<Located>()?;
            child.key = Some((key.referenced.line(), key.referenced.column()));
            children.push((Step::Key(key.value.0), child));
        }
        Ok(Children(children))
    }
}

/// A key as text; what is no text is no key of ours.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyKey;
        impl<'de> de::Visitor<'de> for AnyKey {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                Ok(Key(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Key, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Key(String::new()))
            }
        }
        deserializer.deserialize_str(AnyKey)
    }
}
