//! Arrays by name, from an archive or from JSON.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::error::SourceError;

/// The arrays that profilers write.
const KNOWN: [&str; 12] = [
    "prefill_isl",
    "prefill_ttft",
    "prefill_ttft_ms",
    "prefill_thpt_per_gpu",
    "x_kv_usage",
    "y_context_length",
    "z_itl",
    "z_thpt_per_gpu",
    "max_kv_tokens",
    "decode_active_kv_tokens",
    "decode_context_length",
    "decode_itl",
];

/// Numbers in at most two dimensions, row by row. A single number has no dimension.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// The known arrays of a file, and the names of all that it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrays {
    known: BTreeMap<&'static str, Option<Array>>,
    names: Vec<String>,
}

impl Arrays {
    /// Notes a name, and says where the array of that name goes if it is a known one.
    pub(crate) fn place(&mut self, name: &str) -> Option<&mut Option<Array>> {
        self.names.push(name.to_owned());
        let known = KNOWN.iter().find(|known| **known == name)?;
        Some(self.known.entry(known).or_default())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Array> {
        self.known.get(name)?.as_ref()
    }

    /// The values of a name.
    pub(crate) fn need(&self, name: &'static str) -> Result<&[f64], SourceError> {
        let missing = || SourceError::Missing { what: "the key", name, has: listed(&self.names) };
        Ok(&self.get(name).ok_or_else(missing)?.values)
    }

    /// Whether there is anything that is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All names, for messages.
    pub(crate) fn names(&self) -> String {
        listed(&self.names)
    }
}

/// The first few names, in words.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<String> =
        names.iter().take(12).map(|name| name.as_ref().chars().take(40).collect::<String>()).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > shown.len() => format!("{} and {} more", shown.join(", "), n - shown.len()),
        _ => shown.join(", "),
    }
}

impl<'de> Deserialize<'de> for Arrays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Arrays;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of arrays")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Arrays, A::Error> {
                let mut arrays = Arrays::default();
                while let Some(name) = map.next_key::<String>()? {
                    match arrays.place(&name) {
                        Some(place) => *place = Some(map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(arrays)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nested).map(|(shape, values)| Self { shape, values })
    }
}

/// A number, a list of numbers, or a list of lists of the same length.
struct Nested;

impl<'de> Visitor<'de> for Nested {
    type Value = (Vec<usize>, Vec<f64>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a list of numbers or a list of such lists")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok((Vec::new(), vec![number]))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_f64(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut count, mut inner) = (Vec::new(), 0, None::<Vec<usize>>);
        while let Some(Array { shape, values: mut more }) = seq.next_element()? {
            if shape.len() > 1 || inner.as_ref().is_some_and(|inner| *inner != shape) {
                return Err(de::Error::custom("lists within a list differ in length or are nested too deep"));
            }
            inner = Some(shape);
            values.append(&mut more);
            count += 1;
        }
        let shape = [vec![count], inner.unwrap_or_default()].concat();
        Ok((shape, values))
    }
}
