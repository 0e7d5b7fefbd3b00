//! SGLang's page: 0.5.23, merged from the front process, the scheduler and the detokenizer.

use plimsoll_engine::Micros;

use crate::{
    api::HttpStats,
    config::Config,
    histogram::Histogram,
    page::text::{Label, Page},
    state::{EngineState, sglang::Sglang},
};

mod counters;
mod gauges;
mod histograms;
mod older;

/// What the page is written from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) config: &'a Config,
    pub(crate) state: &'a EngineState,
    pub(crate) shown: &'a Sglang,
    pub(crate) http: &'a HttpStats,
    pub(crate) now: Micros,
}

/// Writes every family. Counters come first, then gauges, but for histograms that come where their process wrote them.
pub(crate) fn write(page: &mut Page, sight: &Sight<'_>) {
    let mut families = Families { page, model: &sight.config.model };
    if !sight.config.version.at_least(0, 5, 23) {
        older::write(&mut families, sight);
        return;
    }
    counters::http(&mut families, sight.http);
    counters::answers(&mut families, sight);
    counters::startup(&mut families, sight.config);
    counters::scheduler(&mut families, sight);
    histograms::scheduler(&mut families, sight.shown);
    gauges::http(&mut families, sight.http);
    gauges::capacity(&mut families, sight);
    gauges::load(&mut families, sight);
    gauges::pools(&mut families, sight.shown);
    gauges::unused(&mut families);
    gauges::routing_keys(&mut families);
    gauges::paused(&mut families, sight.state);
    histograms::front(&mut families, sight);
}

/// The page with the labels that both processes put on everything.
struct Families<'a> {
    page: &'a mut Page,
    model: &'a str,
}

impl Families<'_> {
    fn open(&mut self, name: &str, kind: &str, help: &str) {
        self.page.family(name, kind, help);
    }

    /// A sample without any label of the process.
    fn bare(&mut self, name: &str, labels: &[Label<'_>], value: f64) {
        self.page.sample(name, labels, value);
    }

    /// A sample of the front process.
    fn front(&mut self, name: &str, extra: &[Label<'_>], value: f64) {
        let mut labels = vec![("engine_type", "unified"), ("model_name", self.model)];
        labels.extend(extra);
        labels.sort_unstable();
        self.page.sample(name, &labels, value);
    }

    /// A sample of the scheduler.
    fn scheduler(&mut self, name: &str, extra: &[Label<'_>], value: f64) {
        let labels = scheduler_labels(self.model, extra);
        self.page.sample(name, &labels, value);
    }

    /// A family of the scheduler with one sample.
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.open(name, "gauge", help);
        self.scheduler(name, &[], value);
    }

    /// A family of the scheduler with one sample for each value of a label.
    fn series(&mut self, name: &str, kind: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        self.open(name, kind, help);
        for (value, number) in values {
            self.scheduler(name, &[(label, value)], *number);
        }
    }

    fn scheduler_histogram(&mut self, name: &str, extra: &[Label<'_>], histogram: &Histogram) {
        let labels = scheduler_labels(self.model, extra);
        self.page.merged_histogram(name, &labels, histogram);
    }

    fn front_histogram(&mut self, name: &str, extra: &[Label<'_>], histogram: &Histogram) {
        let mut labels = vec![("engine_type", "unified"), ("model_name", self.model)];
        labels.extend(extra);
        self.page.merged_histogram(name, &labels, histogram);
    }
}

fn scheduler_labels<'a>(model: &'a str, extra: &[Label<'a>]) -> Vec<Label<'a>> {
    let mut labels = vec![
        ("engine_type", "unified"),
        ("model_name", model),
        ("moe_ep_rank", "0"),
        ("pp_rank", "0"),
        ("tp_rank", "0"),
    ];
    labels.extend(extra);
    labels.sort_unstable();
    labels
}

/// The label of the two ways in which clients read.
const STREAMING: [&str; 2] = ["false", "true"];
