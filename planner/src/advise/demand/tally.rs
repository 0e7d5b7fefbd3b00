//! What metrics of a front-end say of one model: levels as they are, counters as what they gained. Pure.

use std::collections::BTreeMap;

use plimsoll_core::{
    observe::Door,
    policy::{DemandMapping, DemandSource, Metric},
};

/// The most series that are remembered of one page; what is beyond is left out.
const MOST_SERIES: usize = 4_096;

/// Which series of a page speak of a model.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    mapping: DemandMapping,
    /// Labels with the values that they must have.
    labels: BTreeMap<String, String>,
}

/// One page's values at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Values {
    /// Counters: requests, and the sums and counts of their prompt tokens, by series.
    arrivals: BTreeMap<String, f64>,
    isl_sum: BTreeMap<String, f64>,
    isl_count: BTreeMap<String, f64>,
    waiting: Option<f64>,
}

impl Reader {
    /// The series of a source that speak of `model`.
    pub(super) fn new(source: &DemandSource, mapping: DemandMapping, model: &str) -> Self {
        let mut labels = source.labels.clone();
        if let Some(label) = &mapping.model_label {
            labels.insert(label.clone(), source.model.clone().unwrap_or_else(|| model.to_owned()));
        }
        Self { mapping, labels }
    }

    /// What is asked of a Prometheus server: a selector for each metric that matters, by all its names.
    pub(super) fn selectors(&self) -> Vec<String> {
        let of = |metric: &Metric, suffix: &str| {
            let names: Vec<String> = metric.names().iter().map(|name| format!("{name}{suffix}")).collect();
            let mut selector = format!("{{__name__=~\"{}\"", names.join("|"));
            for (label, value) in &self.labels {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                selector.push_str(&format!(",{label}=\"{value}\""));
            }
            selector + "}"
        };
        let mapping = &self.mapping;
        let mut selectors = vec![of(&mapping.arrivals, "")];
        selectors.extend(mapping.waiting.as_ref().map(|metric| of(metric, "")));
        for suffix in ["_sum", "_count"] {
            selectors.extend(mapping.isl.as_ref().map(|metric| of(metric, suffix)));
        }
        selectors
    }

    /// Whether a series has the labels; `get` gives a label's value.
    pub(super) fn takes(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        self.labels.iter().all(|(label, wanted)| get(label).is_some_and(|value| value == *wanted))
    }

    /// Adds up what one page shows: `(name, labels as text, value)` of the series that [`Self::takes`]. Of a metric's names
    /// the first that the page has counts.
    pub(super) fn values(&self, series: &[(String, String, f64)]) -> Values {
        let of = |metric: Option<&Metric>, suffix: &str| -> BTreeMap<String, f64> {
            let named = |name: &String| -> BTreeMap<String, f64> {
                let wanted = format!("{name}{suffix}");
                let found = series.iter().filter(|(name, _, value)| *name == wanted && value.is_finite());
                found
                    .take(MOST_SERIES)
                    .map(|(name, labels, value)| (format!("{name}{{{labels}}}"), *value))
                    .collect()
            };
            let names = metric.map(Metric::names).unwrap_or_default();
            names.iter().map(named).find(|found| !found.is_empty()).unwrap_or_default()
        };
        let mapping = &self.mapping;
        let waiting = of(mapping.waiting.as_ref(), "");
        Values {
            arrivals: of(Some(&mapping.arrivals), ""),
            isl_sum: of(mapping.isl.as_ref(), "_sum"),
            isl_count: of(mapping.isl.as_ref(), "_count"),
            waiting: (!waiting.is_empty()).then(|| waiting.values().sum()),
        }
    }
}

/// What a page gained between two looks. A counter that fell began anew, and a series that was not there before began at
/// zero.
pub(super) fn gained(before: &Values, now: &Values) -> Door {
    let gain = |before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>| -> f64 {
        let of = |(series, value): (&String, &f64)| {
            let last = before.get(series).copied().unwrap_or(0.0);
            if *value >= last { value - last } else { *value }
        };
        now.iter().map(of).sum()
    };
    // A page that has no series of a counter yet has seen no request: the family appears with the first.
    let arrived = gain(&before.arrivals, &now.arrivals);
    let (tokens, requests) = (gain(&before.isl_sum, &now.isl_sum), gain(&before.isl_count, &now.isl_count));
    // Lengths may be told later than arrivals: their mean stands for those that arrived.
    let prompt_tokens = (requests > 0.0).then(|| tokens / requests * arrived);
    Door {
        arrived: Some(whole(arrived)),
        arrived_prompt_tokens: prompt_tokens.map(whole),
        waiting: now.waiting.map(whole),
    }
}

/// A float beyond the integer's range becomes its limit, and a negative one zero.
const fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader() -> Reader {
        let source: DemandSource = serde_json::from_str(
            r#"{"pages": ["http://a:1/metrics"], "mapping": "dynamo-frontend", "labels": {"ns": "x"}}"#,
        )
        .unwrap();
        Reader::new(&source, source.mapping().unwrap(), "m")
    }

    fn values(series: &[(&str, &str, f64)]) -> Values {
        let series: Vec<_> = series
            .iter()
            .map(|(name, labels, value)| ((*name).to_owned(), (*labels).to_owned(), *value))
            .collect();
        reader().values(&series)
    }

    #[test]
    fn a_series_must_have_the_model_and_every_label() {
        let has = |labels: &[(&str, &str)]| {
            let labels: BTreeMap<_, _> = labels.iter().copied().collect();
            reader().takes(|name| labels.get(name).map(|value| (*value).to_owned()))
        };
        assert!(has(&[("model", "m"), ("ns", "x"), ("other", "y")]));
        assert!(!has(&[("model", "n"), ("ns", "x")]) && !has(&[("model", "m")]));
    }

    #[test]
    fn the_preferred_name_counts_and_gains_are_told() {
        let older = ("dynamo_frontend_requests_total", "a", 1_000.0);
        let before = values(&[("dynamo_frontend_requests_started_total", "a", 5.0), older]);
        let now = values(&[
            ("dynamo_frontend_requests_started_total", "a", 9.0),
            ("dynamo_frontend_requests_started_total", "b", 2.0),
            ("dynamo_frontend_router_queue_pending_requests", "a", 3.0),
            ("dynamo_frontend_router_queue_pending_requests", "b", 1.0),
            ("dynamo_frontend_input_sequence_tokens_sum", "a", 500.0),
            ("dynamo_frontend_input_sequence_tokens_count", "a", 5.0),
            older,
        ]);
        let door = gained(&before, &now);
        assert_eq!(door, Door { arrived: Some(6), arrived_prompt_tokens: Some(600), waiting: Some(4) });
    }

    #[test]
    fn a_counter_that_fell_began_anew_and_no_queue_is_not_zero() {
        let of = |n| values(&[("dynamo_frontend_requests_started_total", "a", n)]);
        let door = gained(&of(100.0), &of(7.0));
        assert_eq!(door, Door { arrived: Some(7), arrived_prompt_tokens: None, waiting: None });
    }

    #[test]
    fn a_prometheus_server_is_asked_for_the_same() {
        let selectors = reader().selectors();
        assert_eq!(
            selectors[0],
            "{__name__=~\"dynamo_frontend_requests_started_total|dynamo_frontend_requests_total\",model=\"m\",ns=\"x\"}"
        );
        assert_eq!(selectors.len(), 4);
    }

    proptest! {
        // However a counter moves, what it is said to have gained is no more than it shows, and never panics.
        #[test]
        fn gains_are_bounded_by_what_is_shown(before in any::<f64>(), now in any::<f64>()) {
            let of = |n| values(&[("dynamo_frontend_requests_started_total", "a", n)]);
            let gained = gained(&of(before), &of(now)).arrived.unwrap();
            if now.is_finite() && now >= 0.0 && before >= 0.0 {
                prop_assert!(gained <= whole(now));
            }
        }
    }
}
