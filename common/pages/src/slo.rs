//! Whether an SLO can be read off an engine's buckets, and which flag of the engine makes it so. Pure.
//!
//! A bucketed distribution tells exactly how many requests kept a limit only where the limit is an edge of its buckets.
//! Anywhere else the share is known but for the whole bucket that the limit splits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use plimsoll_common::{
    engine::{DistributionKind, EngineKind},
    units::{Micros, Ratio},
};

use super::page::EnginePage;

/// What an operator promises of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    /// The share of requests that must keep each limit.
    pub percentile: Ratio,
    /// Time to first token.
    pub ttft: Option<Micros>,
    /// Inter-token latency.
    pub itl: Option<Micros>,
    /// Time per output token, a mean for each request.
    pub tpot: Option<Micros>,
    /// Arrival to last token.
    pub e2e: Option<Micros>,
}

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SloMetric {
    /// Time to first token.
    Ttft,
    /// Inter-token latency.
    Itl,
    /// Time per output token.
    Tpot,
    /// Arrival to last token.
    E2e,
}

impl SloMetric {
    /// The name in configuration and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Itl => "itl",
            Self::Tpot => "tpot",
            Self::E2e => "e2e",
        }
    }

    /// Which distributions tell it, the best one first. ITL for each step, for each token and TPOT mean different
    /// things; a limit is read off the first that the engine publishes, and the answer says which one that is.
    const fn kinds(self) -> &'static [DistributionKind] {
        match self {
            Self::Ttft => &[DistributionKind::Ttft, DistributionKind::FrontendTtft],
            Self::Itl => {
                &[DistributionKind::ItlToken, DistributionKind::ItlStep, DistributionKind::FrontendItl]
            }
            Self::Tpot => &[DistributionKind::Tpot],
            Self::E2e => &[DistributionKind::E2e, DistributionKind::FrontendE2e],
        }
    }
}

impl Slo {
    /// The limits.
    pub fn limits(&self) -> impl Iterator<Item = (SloMetric, Micros)> {
        let limits = [
            (SloMetric::Ttft, self.ttft),
            (SloMetric::Itl, self.itl),
            (SloMetric::Tpot, self.tpot),
            (SloMetric::E2e, self.e2e),
        ];
        limits.into_iter().filter_map(|(metric, limit)| Some((metric, limit?)))
    }
}

/// How one limit of an SLO fits an engine's buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct SloEdge {
    /// What the limit is about.
    pub metric: SloMetric,
    /// The limit.
    pub limit: Micros,
    /// The share of requests that must keep it.
    pub percentile: Ratio,
    /// The distribution that it is read off; `None` where the engine publishes none that tells.
    pub kind: Option<DistributionKind>,
    /// Whether it is an edge of the distribution's buckets.
    pub is_edge: bool,
    /// The edges around it, in seconds.
    pub around: (Option<f64>, Option<f64>),
    /// How to start the engine so that all limits of its SLO are edges, ready to paste.
    pub flag: Option<Flag>,
}

/// An option of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Ready to paste.
    pub text: String,
    /// Where it belongs.
    pub place: &'static str,
}

/// For the log.
impl fmt::Display for SloEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = Seconds(self.limit.as_secs_f64());
        let Some(kind) = self.kind else {
            return write!(
                f,
                "the SLO's {} of {limit} can't be read: the engine publishes no such histogram",
                self.metric.as_str()
            );
        };
        if self.is_edge {
            return write!(
                f,
                "the SLO's {} of {limit} is an edge of the engine's {kind} buckets",
                self.metric.as_str()
            );
        }
        let below = Seconds(self.around.0.unwrap_or(0.0));
        write!(
            f,
            "the SLO's {} of {limit} is no edge of the engine's {kind} buckets: ",
            self.metric.as_str()
        )?;
        match self.around.1 {
            Some(above) => write!(f, "it splits the one from {below} to {}", Seconds(above))?,
            None => write!(f, "the last one begins at {below}")?,
        }
        f.write_str(", and attainment is known to that bucket only")?;
        match &self.flag {
            Some(flag) => write!(f, "; give {} {}", flag.place, flag.text),
            None => Ok(()),
        }
    }
}

struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1.0 { write!(f, "{} ms", round(self.0 * 1e3)) } else { write!(f, "{} s", round(self.0)) }
    }
}

fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// The bounds of an engine's buckets by distribution, in the published unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets(BTreeMap<DistributionKind, Vec<f64>>);

/// What a page's buckets are, compared with those known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The same.
    Nothing,
    /// Some were not known yet.
    More,
    /// Some have other bounds than before.
    Other,
}

impl Buckets {
    /// Those of a page. Where the series of a distribution differ, the first one's.
    #[must_use]
    pub fn of(page: &EnginePage) -> Self {
        let edges = page.histograms.iter().filter_map(|(kind, family)| {
            // A torn series tells nothing, not even its buckets.
            let whole = family.values().find(|series| series.counts.is_some() && !series.edges.is_empty())?;
            Some((*kind, whole.edges.clone()))
        });
        Self(edges.collect())
    }

    /// Takes a newer page's. A distribution that it lacks stays known.
    pub fn take(&mut self, newer: Self) -> Changed {
        let mut changed = Changed::Nothing;
        for (kind, edges) in newer.0 {
            match self.0.get(&kind) {
                Some(known) if *known == edges => continue,
                Some(_) => changed = Changed::Other,
                None if changed == Changed::Nothing => changed = Changed::More,
                None => {}
            }
            self.0.insert(kind, edges);
        }
        changed
    }
}

/// How each limit of an SLO fits the buckets of such an engine.
#[must_use]
pub fn edges_of(slo: &Slo, engine: EngineKind, buckets: &Buckets) -> Vec<SloEdge> {
    let mut missing: Vec<(DistributionKind, Micros)> = Vec::new();
    let mut edges: Vec<SloEdge> = Vec::new();
    for (metric, limit) in slo.limits() {
        let kind = metric.kinds().iter().copied().find(|kind| buckets.0.contains_key(kind));
        let known = kind.and_then(|kind| buckets.0.get(&kind)).map_or(&[][..], Vec::as_slice);
        let is_edge = known.iter().any(|edge| micros(*edge) == limit.0);
        let around = (
            known.iter().copied().rfind(|edge| micros(*edge) < limit.0),
            known.iter().copied().find(|edge| micros(*edge) > limit.0),
        );
        if let Some(kind) = kind.filter(|_| !is_edge) {
            missing.push((kind, limit));
        }
        edges.push(SloEdge { metric, limit, percentile: slo.percentile, kind, is_edge, around, flag: None });
    }
    let flag = flag(engine, buckets, &missing);
    for edge in edges.iter_mut().filter(|edge| edge.kind.is_some() && !edge.is_edge) {
        edge.flag.clone_from(&flag);
    }
    edges
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// A group of histograms that share one list of buckets: the engine's name for the list, and the distributions, of which
/// the first that the page has shows the present list.
type Group = (&'static str, &'static [DistributionKind]);

/// The names within vLLM's `--custom-histogram-buckets` (0.32 and later).
const VLLM: [Group; 3] = [
    ("time_to_first_token", &[DistributionKind::Ttft]),
    ("inter_token_latency", &[DistributionKind::ItlStep, DistributionKind::Tpot]),
    (
        "request_latency",
        &[
            DistributionKind::E2e,
            DistributionKind::Queue,
            DistributionKind::Prefill,
            DistributionKind::Decode,
            DistributionKind::Inference,
        ],
    ),
];

const SGLANG: [Group; 3] = [
    ("--bucket-time-to-first-token", &[DistributionKind::Ttft]),
    ("--bucket-inter-token-latency", &[DistributionKind::ItlToken, DistributionKind::Tpot]),
    ("--bucket-e2e-request-latency", &[DistributionKind::E2e]),
];

/// Keys of `prometheus_metrics_config` in TensorRT-LLM's extra options.
const TENSORRT_LLM: [Group; 3] = [
    ("time_to_first_token_buckets", &[DistributionKind::Ttft]),
    ("time_per_output_token_buckets", &[DistributionKind::Tpot]),
    ("e2e_request_latency_buckets", &[DistributionKind::E2e]),
];

/// How to start an engine so that its buckets have these edges too. `None` where its kind has no such option.
fn flag(engine: EngineKind, buckets: &Buckets, missing: &[(DistributionKind, Micros)]) -> Option<Flag> {
    if missing.is_empty() {
        return None;
    }
    // Writing to a String cannot fail.
    let mut text = String::new();
    match engine {
        EngineKind::Vllm => {
            // The option is one for all lists: those that stay as they are stand in it too.
            for (name, list) in lists(&VLLM, buckets, missing) {
                let comma = if text.is_empty() { "" } else { "," };
                let _ = write!(text, "{comma}\"{name}\":[{}]", join(&list.edges, ","));
            }
            let text = format!("--custom-histogram-buckets '{{{text}}}'");
            Some(Flag { text, place: "vLLM (0.32 and later)" })
        }
        EngineKind::Sglang => {
            for (name, list) in lists(&SGLANG, buckets, missing).filter(|(_, list)| list.is_longer) {
                let space = if text.is_empty() { "" } else { " " };
                let _ = write!(text, "{space}{name} {}", join(&list.edges, " "));
            }
            (!text.is_empty()).then_some(Flag { text, place: "SGLang" })
        }
        EngineKind::TensorRtLlm => {
            for (name, list) in lists(&TENSORRT_LLM, buckets, missing).filter(|(_, list)| list.is_longer) {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{name}: [{}]", join(&list.edges, ", "));
            }
            let place = "the YAML file of trtllm-serve's --extra_llm_api_options";
            (!text.is_empty()).then(|| Flag { text: format!("prometheus_metrics_config: {{{text}}}"), place })
        }
        EngineKind::Triton | EngineKind::DynamoFrontend | EngineKind::DynamoWorker => None,
    }
}

struct List {
    edges: Vec<f64>,
    /// Whether it has more edges than the engine has now.
    is_longer: bool,
}

/// The groups that the page has, each with its present edges and the missing ones.
fn lists<'a>(
    groups: &'a [Group],
    buckets: &'a Buckets,
    missing: &'a [(DistributionKind, Micros)],
) -> impl Iterator<Item = (&'static str, List)> + 'a {
    groups.iter().filter_map(|(name, kinds)| {
        let now = kinds.iter().find_map(|kind| buckets.0.get(kind))?;
        let more = missing.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, limit)| limit.0);
        let mut all: BTreeSet<u64> = more.collect();
        let is_longer = !all.is_empty();
        all.extend(now.iter().map(|edge| micros(*edge)));
        let edges = all.into_iter().map(|micros| micros as f64 / 1e6).collect();
        Some((*name, List { edges, is_longer }))
    })
}

fn join(edges: &[f64], between: &str) -> String {
    edges.iter().map(f64::to_string).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of its TTFT, with one more at 2 s.
    const VLLM_TTFT: &str =
        "0.001,0.005,0.01,0.02,0.04,0.06,0.08,0.1,0.25,0.5,0.75,1,2,2.5,5,7.5,10,20,40,80,160,640,2560";

    fn slo(ttft: Option<u64>, itl: Option<u64>) -> Slo {
        let millis = |ms: Option<u64>| ms.map(Micros::from_millis);
        let percentile = Ratio::new(0.95).unwrap();
        Slo { percentile, ttft: millis(ttft), itl: millis(itl), tpot: None, e2e: None }
    }

    /// The buckets that vLLM 0.32 has.
    fn vllm() -> Buckets {
        let list = |edges: &str| edges.split(',').map(|edge| edge.parse().unwrap()).collect::<Vec<f64>>();
        let itl = "0.01,0.025,0.05,0.075,0.1,0.15,0.2,0.3,0.4,0.5,0.75,1,2.5,5,7.5,10,20,40,80";
        let e2e = "0.3,0.5,0.8,1,1.5,2,2.5,5,10,15,20,30,40,50,60,120,240,480,960,1920,7680";
        buckets(&[
            (DistributionKind::Ttft, &list(&VLLM_TTFT.replace(",2,", ","))),
            (DistributionKind::ItlStep, &list(itl)),
            (DistributionKind::E2e, &list(e2e)),
        ])
    }

    fn buckets(of: &[(DistributionKind, &[f64])]) -> Buckets {
        Buckets(of.iter().map(|(kind, edges)| (*kind, edges.to_vec())).collect())
    }

    #[test]
    fn an_edge_of_vllms_own_buckets_needs_no_flag() {
        let edges = edges_of(&slo(Some(500), Some(25)), EngineKind::Vllm, &vllm());
        assert!(edges.iter().all(|edge| edge.is_edge && edge.flag.is_none()), "{edges:?}");
        assert_eq!(edges[1].kind, Some(DistributionKind::ItlStep));
    }

    #[test]
    fn vllms_flag_is_whole_and_ready_to_paste() {
        let edges = edges_of(&slo(Some(2000), Some(25)), EngineKind::Vllm, &vllm());
        let [ttft, itl] = &edges[..] else { panic!("{edges:?}") };
        assert!(!ttft.is_edge && itl.is_edge && itl.flag.is_none());
        assert_eq!(ttft.around, (Some(1.0), Some(2.5)));
        let flag = &ttft.flag.as_ref().unwrap().text;
        let json = flag.split('\'').nth(1).unwrap();
        let lists: BTreeMap<String, Vec<f64>> = serde_json::from_str(json).unwrap();
        assert!(flag.starts_with("--custom-histogram-buckets '{"), "{flag}");
        assert!(json.contains(&format!("\"time_to_first_token\":[{VLLM_TTFT}]")), "{json}");
        assert_eq!(lists["inter_token_latency"].len(), 19, "as it is");
        assert_eq!(lists["request_latency"].len(), 21, "as it is");
        let text = ttft.to_string();
        assert!(text.contains("ttft of 2 s is no edge") && text.contains("from 1 s to 2.5 s"), "{text}");
    }

    #[test]
    fn sglangs_flags_name_only_what_changes() {
        let known = buckets(&[
            (DistributionKind::Ttft, &[0.1, 0.2, 0.4]),
            (DistributionKind::ItlToken, &[0.002, 0.004]),
            (DistributionKind::E2e, &[1.0]),
        ]);
        let edges = edges_of(&slo(Some(300), Some(3)), EngineKind::Sglang, &known);
        let flag =
            "--bucket-time-to-first-token 0.1 0.2 0.3 0.4 --bucket-inter-token-latency 0.002 0.003 0.004";
        assert!(
            edges.iter().all(|edge| edge.flag.as_ref().is_some_and(|given| given.text == flag)),
            "{edges:?}"
        );
    }

    #[test]
    fn tensorrt_llm_takes_options_in_a_file() {
        let known = buckets(&[(DistributionKind::Ttft, &[0.5, 0.75])]);
        let edges = edges_of(&slo(Some(2000), Some(30)), EngineKind::TensorRtLlm, &known);
        let flag = &edges[0].flag.as_ref().unwrap().text;
        assert!(
            flag.contains("prometheus_metrics_config: {time_to_first_token_buckets: [0.5, 0.75, 2]}"),
            "{flag}"
        );
        assert_eq!((edges[0].around, edges[1].kind), ((Some(0.75), None), None));
        assert!(edges[1].to_string().contains("publishes no such histogram"), "{}", edges[1]);
        assert_eq!(edges_of(&slo(Some(7), None), EngineKind::DynamoFrontend, &known)[0].flag, None);
    }

    #[test]
    fn changes_of_buckets_are_noticed() {
        let mut known = Buckets::default();
        let ttft = |edges| buckets(&[(DistributionKind::Ttft, edges)]);
        assert_eq!(known.take(ttft(&[1.0])), Changed::More);
        assert_eq!(known.take(ttft(&[1.0])), Changed::Nothing);
        assert_eq!(known.take(Buckets::default()), Changed::Nothing, "an absent one is still known");
        assert_eq!(known.take(ttft(&[1.0, 2.0])), Changed::Other);
        assert_eq!(known.take(ttft(&[1.0, 2.0])), Changed::Nothing);
    }
}
