//! Who tells demand before it reaches an engine: a front-end's or gateway's metrics, by name.
//!
//! An engine tells nothing of requests that wait in front of it, and a pool without replicas tells nothing at all. A
//! [`DemandSource`] names a page or a Prometheus server, and a [`DemandMapping`] which of its metrics mean what. Two
//! mappings come with the crate.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The mappings that come with the crate, by name.
const BUILT_IN: &str = include_str!("demand_mappings.json");

/// A front-end or gateway that tells a model's demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DemandSource {
    /// The metrics pages of the front-end's replicas; their values are summed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<String>,
    /// A Prometheus server that has them, by its base URL. One of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<String>,
    /// Which metric means what.
    pub mapping: MappingRef,
    /// The model's name there, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Labels that a series must have besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Which metric means what: by a built-in mapping's name, or written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingRef {
    /// A built-in mapping's name.
    Named(String),
    /// The mapping itself.
    Inline(Box<DemandMapping>),
}

/// Which metric of a page means what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DemandMapping {
    /// The label that holds the model's name; none where a page tells of one model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_label: Option<String>,
    /// Counter: requests that arrived.
    pub arrivals: Metric,
    /// Gauge: requests in front of the engines that no engine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Metric>,
    /// Gauge: requests that arrived and have not ended, wherever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Metric>,
    /// Histogram: input sequence length, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isl: Option<Metric>,
    /// Histogram: output sequence length, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub osl: Option<Metric>,
    /// Histogram: time to first token as clients see it, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Metric>,
    /// Histogram: inter-token latency as clients see it, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl: Option<Metric>,
}

/// A metric by its names, the newest first: the first that a page has counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Metric(Vec<String>);

/// No name of a metric was given, or one that none has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a metric needs at least one name, of letters, digits, '_' and ':', not beginning with a digit{0}")]
pub struct NoMetric(String);

/// No built-in mapping has the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no demand mapping is named '{name}': choose one of {known}, or write the mapping out")]
pub struct UnknownMapping {
    /// The name asked for.
    pub name: String,
    /// The names there are.
    pub known: String,
}

impl Metric {
    /// The names, the one to be preferred first; at least one.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Metric {
    type Error = NoMetric;
    fn try_from(names: Vec<String>) -> Result<Self, NoMetric> {
        let fine = |name: &String| {
            let mut letters = name.chars();
            letters.next().is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, '_' | ':'))
                && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':'))
        };
        match names.iter().find(|name| !fine(name)) {
            Some(bad) => Err(NoMetric(format!("; '{bad}' is none"))),
            None if names.is_empty() => Err(NoMetric(String::new())),
            None => Ok(Self(names)),
        }
    }
}

impl From<Metric> for Vec<String> {
    fn from(metric: Metric) -> Self {
        metric.0
    }
}

impl DemandMapping {
    /// All mappings that come with the crate.
    #[must_use]
    pub fn all_built_in() -> BTreeMap<String, Self> {
        // A test reads them; were they unreadable, there would be none.
        serde_json::from_str(BUILT_IN).unwrap_or_default()
    }
}

impl DemandSource {
    /// The mapping, looked up.
    ///
    /// # Errors
    /// Names the known ones if there is none of that name.
    pub fn mapping(&self) -> Result<DemandMapping, UnknownMapping> {
        match &self.mapping {
            MappingRef::Inline(mapping) => Ok((**mapping).clone()),
            MappingRef::Named(name) => {
                let mut known = DemandMapping::all_built_in();
                known.remove(name).ok_or_else(|| UnknownMapping {
                    name: name.clone(),
                    known: known.into_keys().collect::<Vec<_>>().join(", "),
                })
            }
        }
    }
}

impl Serialize for MappingRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Inline(mapping) => mapping.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MappingRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = MappingRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a built-in mapping's name, or a mapping")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<MappingRef, E> {
                Ok(MappingRef::Named(name.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<MappingRef, A::Error> {
                let mapping = DemandMapping::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(MappingRef::Inline(Box::new(mapping)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_mapping_can_be_read() {
        let known = DemandMapping::all_built_in();
        assert_eq!(
            known.keys().map(String::as_str).collect::<Vec<_>>(),
            ["dynamo-frontend", "gateway-inference-extension"]
        );
        assert!(known.values().all(|mapping| mapping.waiting.is_some() && mapping.model_label.is_some()));
    }

    #[test]
    fn an_unknown_mapping_is_answered_with_the_known_ones() {
        let source: DemandSource =
            serde_json::from_str(r#"{"pages": ["http://gw:9090/metrics"], "mapping": "gateway"}"#).unwrap();
        let error = source.mapping().unwrap_err().to_string();
        assert!(error.contains("'gateway'") && error.contains("dynamo-frontend"), "{error}");
    }

    #[test]
    fn a_metric_has_a_name_that_a_page_can_have() {
        let of = |json: &str| serde_json::from_str::<Metric>(json).map_err(|error| error.to_string());
        assert!(of("[]").unwrap_err().contains("at least one name"));
        assert!(of(r#"["a-b"]"#).unwrap_err().contains("'a-b'"));
        assert!(of(r#"["1a"]"#).is_err() && of(r#"[""]"#).is_err());
        assert_eq!(of(r#"["ns:requests_total"]"#).unwrap().names(), ["ns:requests_total"]);
    }
}
