//! A small reader of metrics pages, for tests alone: it panics on what it does not understand.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Families by order of appearance.
    pub(crate) order: Vec<String>,
    pub(crate) families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                page.order.push(name.to_owned());
                let before = page
                    .families
                    .insert(name.to_owned(), Family { kind: kind.to_owned(), samples: Vec::new() });
                assert!(before.is_none(), "{name} appears twice");
            } else if !line.starts_with('#') {
                let sample = Sample::parse(line);
                let family = page.order.last().expect("a family before its samples");
                assert!(sample.name.starts_with(family.as_str()), "{line} stands in {family}");
                page.families.get_mut(family).expect("a family").samples.push(sample);
            }
        }
        page
    }

    /// The sum of the samples of that name whose labels include `labels`; none if there is no such sample.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.families.values().flat_map(|family| &family.samples).filter(|sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        });
        found.map(|sample| sample.value).reduce(|one, other| one + other)
    }

    /// As [`Page::sum`], for what must be there.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.sum(name, &[]).unwrap_or_else(|| panic!("no sample {name}"))
    }

    /// Cumulative buckets of a histogram that has one series.
    pub(crate) fn buckets(&self, family: &str) -> Vec<(f64, f64)> {
        let name = format!("{family}_bucket");
        let samples = self.families[family].samples.iter().filter(|sample| sample.name == name);
        samples.map(|sample| (bound(&sample.labels["le"]), sample.value)).collect()
    }
}

impl Family {
    /// For each name of a sample in the family, the sets of label names that occur.
    pub(crate) fn label_names(&self) -> BTreeMap<&str, BTreeSet<Vec<&str>>> {
        let mut names: BTreeMap<&str, BTreeSet<Vec<&str>>> = BTreeMap::new();
        for sample in &self.samples {
            names.entry(&sample.name).or_default().insert(sample.labels.keys().map(String::as_str).collect());
        }
        names
    }

    /// The bucket bounds as written, of every series that differs in nothing else.
    pub(crate) fn bound_vectors(&self) -> BTreeSet<Vec<String>> {
        let mut series: BTreeMap<Vec<(&String, &String)>, Vec<String>> = BTreeMap::new();
        for sample in &self.samples {
            if let Some(bound) = sample.labels.get("le") {
                let others = sample.labels.iter().filter(|(key, _)| *key != "le").collect();
                series.entry(others).or_default().push(bound.clone());
            }
        }
        series.into_values().collect()
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
            None => (series, ""),
        };
        let mut parsed = BTreeMap::new();
        let mut rest = labels;
        while !rest.is_empty() {
            let (key, behind) = rest.split_once("=\"").expect("a label");
            let end = behind.find('"').expect("a closing quote");
            parsed.insert(key.to_owned(), behind[..end].to_owned());
            rest = behind[end + 1..].trim_start_matches(',');
        }
        Self { name: name.to_owned(), labels: parsed, value: bound(value) }
    }
}

/// Labels whose values the engine chooses.
const CLOSED: [&str; 17] = [
    "reason",
    "source",
    "sleep_state",
    "finished_reason",
    "engine",
    "generation",
    "mode",
    "category",
    "stage",
    "phase",
    "kind",
    "rank_state",
    "is_streaming",
    "gt",
    "component",
    "cache_source",
    "engine_type",
];

/// Families in their order, their types, samples, labels and bounds, and label values of what has a closed set of them.
pub(crate) fn assert_same_shape(captured: &Page, emulated: &Page) {
    assert_eq!(captured.order, emulated.order, "families and their order");
    for (name, family) in &captured.families {
        let other = &emulated.families[name];
        assert_eq!(family.kind, other.kind, "type of {name}");
        assert_eq!(family.label_names(), other.label_names(), "samples and labels of {name}");
        assert_eq!(family.bound_vectors(), other.bound_vectors(), "bucket bounds of {name}");
    }
    // Label values of what has a closed set of them: reasons, sources, states.
    for (name, family) in &captured.families {
        for label in CLOSED {
            let values = |page: &Page| -> Vec<Option<String>> {
                page.families[name].samples.iter().map(|sample| sample.labels.get(label).cloned()).collect()
            };
            if family.samples.iter().any(|sample| sample.labels.contains_key(label)) {
                assert_eq!(values(captured), values(emulated), "values of {label} in {name}");
            }
        }
    }
}

fn bound(text: &str) -> f64 {
    if text == "+Inf" { f64::INFINITY } else { text.parse().expect("a number") }
}
