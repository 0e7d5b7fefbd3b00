//! What a page shows, and its text as vLLM and SGLang write it.

#![expect(clippy::unwrap_used, reason = "writing to a string does not fail")]

use std::{collections::BTreeMap, fmt::Write as _};

use plimsoll_common::engine::{DistributionKind, EngineKind};

/// Counters that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Total {
    PromptTokens,
    GenerationTokens,
    Finished,
}

impl Total {
    pub(crate) const ALL: [Self; 3] = [Self::PromptTokens, Self::GenerationTokens, Self::Finished];
}

/// Distributions that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Ttft,
    /// A sample a step on vLLM, a sample a token on SGLang; it had another name once.
    Itl,
    /// A sample a request.
    Tpot,
    /// On SGLang it had another name once.
    Queue,
}

impl Family {
    pub(crate) const ALL: [Self; 4] = [Self::Ttft, Self::Itl, Self::Tpot, Self::Queue];

    /// The family of a kind, of either engine.
    pub(crate) const fn of(kind: DistributionKind) -> Option<Self> {
        match kind {
            DistributionKind::Ttft => Some(Self::Ttft),
            DistributionKind::ItlStep | DistributionKind::ItlToken => Some(Self::Itl),
            DistributionKind::Tpot => Some(Self::Tpot),
            DistributionKind::Queue => Some(Self::Queue),
            _ => None,
        }
    }

    /// What its samples are on an engine. A kind that is wrong here would mix steps, tokens and requests.
    pub(crate) const fn kind(self, engine: EngineKind) -> DistributionKind {
        match (self, engine) {
            (Self::Ttft, _) => DistributionKind::Ttft,
            (Self::Itl, EngineKind::Sglang) => DistributionKind::ItlToken,
            (Self::Itl, _) => DistributionKind::ItlStep,
            (Self::Tpot, _) => DistributionKind::Tpot,
            (Self::Queue, _) => DistributionKind::Queue,
        }
    }
}

/// Which of its names a process uses for families that were renamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Names {
    #[default]
    New,
    Old,
    Both,
}

/// A page as it stands there, damage included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) start: Option<f64>,
    pub(crate) edges: Vec<f64>,
    pub(crate) names: Names,
    pub(crate) totals: BTreeMap<(Total, u8), u64>,
    pub(crate) histograms: BTreeMap<(Family, u8), Histogram>,
    /// The engine whose generated tokens stand on a line that can't be read.
    pub(crate) malformed: Option<u8>,
}

/// A histogram series.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    /// Cumulative, +Inf last.
    pub(crate) cumulative: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

/// The page's text.
pub(crate) fn render(kind: EngineKind, shown: &Shown) -> String {
    let mut text = String::new();
    let prefix = if kind == EngineKind::Sglang { "sglang" } else { "vllm" };
    let running = if kind == EngineKind::Sglang { "num_running_reqs" } else { "num_requests_running" };
    writeln!(text, "# HELP {prefix}:{running} Running requests.\n# TYPE {prefix}:{running} gauge").unwrap();
    writeln!(text, "{prefix}:{running}{{{}}} 1.0", labels(kind, 0, &[])).unwrap();
    if let Some(start) = shown.start {
        writeln!(text, "process_start_time_seconds {start:e}").unwrap();
    }
    for total in Total::ALL {
        write_total(&mut text, kind, shown, total);
    }
    for family in Family::ALL {
        let (new, old) = names_of(kind, family);
        let names: &[(&str, u64)] = match (shown.names, old) {
            (Names::Old, Some(old)) => &[(old, 1)],
            // The old family counts something else: mixed with the new one it would show.
            (Names::Both, Some(old)) => &[(old, 3), (new, 1)],
            _ => &[(new, 1)],
        };
        for (name, times) in names {
            write_family(&mut text, kind, shown, family, name, *times);
        }
    }
    text
}

const fn names_of(kind: EngineKind, family: Family) -> (&'static str, Option<&'static str>) {
    match (kind, family) {
        (EngineKind::Sglang, Family::Ttft) => ("sglang:time_to_first_token_seconds", None),
        (EngineKind::Sglang, Family::Itl) => {
            ("sglang:inter_token_latency_seconds", Some("sglang:time_per_output_token_seconds"))
        }
        (EngineKind::Sglang, Family::Tpot) => ("sglang:request_time_per_output_token_seconds", None),
        (EngineKind::Sglang, Family::Queue) => ("sglang:queue_time_seconds", Some("sglang:queue_time_s")),
        (_, Family::Ttft) => ("vllm:time_to_first_token_seconds", None),
        (_, Family::Itl) => ("vllm:inter_token_latency_seconds", Some("vllm:time_per_output_token_seconds")),
        (_, Family::Tpot) => ("vllm:request_time_per_output_token_seconds", None),
        (_, Family::Queue) => ("vllm:request_queue_time_seconds", None),
    }
}

/// Labels in the order of the alphabet, as the Python client writes them.
fn labels(kind: EngineKind, engine: u8, more: &[(&str, &str)]) -> String {
    let engine = engine.to_string();
    let mut labels = vec![("model_name", "tiny \\\"llama\\\"")];
    match kind {
        EngineKind::Sglang => labels.extend([
            ("dp_rank", engine.as_str()),
            ("engine_type", "unified"),
            ("pp_rank", "0"),
            ("tp_rank", "0"),
        ]),
        _ => labels.push(("engine", engine.as_str())),
    }
    labels.extend(more);
    labels.sort_unstable();
    labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",")
}

fn write_total(text: &mut String, kind: EngineKind, shown: &Shown, total: Total) {
    let (name, more): (&str, &[(&str, &str)]) = match (kind, total) {
        (EngineKind::Sglang, Total::PromptTokens) => ("sglang:prompt_tokens_total", &[]),
        (EngineKind::Sglang, Total::GenerationTokens) => ("sglang:generation_tokens_total", &[]),
        (EngineKind::Sglang, Total::Finished) => ("sglang:num_requests_total", &[]),
        (_, Total::PromptTokens) => ("vllm:prompt_tokens_total", &[]),
        (_, Total::GenerationTokens) => ("vllm:generation_tokens_total", &[]),
        (_, Total::Finished) => ("vllm:request_success_total", &[("finished_reason", "stop")]),
    };
    writeln!(text, "# HELP {name} Counted.\n# TYPE {name} counter").unwrap();
    for ((of, engine), value) in &shown.totals {
        if *of == total {
            writeln!(text, "{name}{{{}}} {value}.0", labels(kind, *engine, more)).unwrap();
        }
    }
    if let (Total::GenerationTokens, Some(engine)) = (total, shown.malformed) {
        writeln!(text, "{name}{{{} 17.0", labels(kind, engine, more)).unwrap();
    }
    let created = name.trim_end_matches("_total");
    writeln!(text, "# TYPE {created}_created gauge\n{created}_created{{{}}} 1.7e+09", labels(kind, 0, more))
        .unwrap();
}

fn write_family(text: &mut String, kind: EngineKind, shown: &Shown, family: Family, name: &str, times: u64) {
    writeln!(text, "# HELP {name} Seconds.\n# TYPE {name} histogram").unwrap();
    for ((of, engine), histogram) in &shown.histograms {
        if *of != family {
            continue;
        }
        let edges = shown.edges.iter().map(|edge| format!("{edge:?}")).chain(["+Inf".to_owned()]);
        for (edge, n) in edges.zip(&histogram.cumulative) {
            let labels = labels(kind, *engine, &[("le", &edge)]);
            writeln!(text, "{name}_bucket{{{labels}}} {}.0", n * times).unwrap();
        }
        let labels = labels(kind, *engine, &[]);
        writeln!(text, "{name}_count{{{labels}}} {}.0", histogram.count * times).unwrap();
        writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum * times as f64).unwrap();
        writeln!(text, "{name}_created{{{labels}}} 1.7e+09").unwrap();
    }
}
