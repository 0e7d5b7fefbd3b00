//! Looks at the planner, and which samples each of them was made of.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use crate::{
    exact::Records,
    sight::{Engines, Model, Models, Quantile, Window},
};

/// How many looks are remembered, so that one can be found whose requests have all ended.
const HISTORY: usize = 90;
const TTFT: &str = "ttft";
const ITL: &str = "itl_step";

/// One look at all models.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// What the planner showed.
    pub models: Models,
    /// By model and engine: which samples the window was made of.
    ranks: BTreeMap<String, BTreeMap<String, Ranks>>,
}

/// Which of an engine's samples a window holds, counted from 0 at the engine's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// Times to first token.
    pub ttft: Range<u64>,
    /// Inter-token latencies.
    pub itl: Range<u64>,
}

/// Latencies over one window, as the planner saw them and as they were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// How long ago the window ended, seconds.
    pub ago_seconds: f64,
    /// How long it is, seconds.
    pub seconds: f64,
    /// Time to first token: p50, p95, p99.
    pub ttft: [Pair; 3],
    /// Inter-token latency.
    pub itl: [Pair; 3],
}

/// A percentile twice.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pair {
    /// As the planner sees it.
    pub planner: Option<Quantile>,
    /// As it was, seconds.
    pub exact: Option<f64>,
}

impl Pair {
    /// How far the planner's estimate is from the truth, as a share of it.
    #[must_use]
    pub fn error(&self) -> Option<f64> {
        let (planner, exact) = self.planner.zip(self.exact)?;
        (exact > 0.0).then(|| planner.estimate / exact - 1.0)
    }

    /// Whether the truth lies within the planner's bounds; they are whole microseconds.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Some((planner, exact)) = self.planner.zip(self.exact) else { return true };
        planner.low - 1e-6 <= exact && planner.high.is_none_or(|high| exact <= high + 1e-6)
    }
}

impl Look {
    /// Puts two pages together. A model whose engines are not as they were when its own page was made is shown, but
    /// can't be compared; see [`Self::is_whole`].
    #[must_use]
    pub fn new(models: Models, engines: &Engines, window: &str) -> Self {
        let mut ranks: BTreeMap<String, BTreeMap<String, Ranks>> = BTreeMap::new();
        for model in &models.models {
            let of_model =
                engines.engines.iter().filter(|engine| engine.model.as_ref() == Some(&model.model));
            let of_model: BTreeMap<String, Ranks> = of_model
                .filter_map(|engine| {
                    let window = engine.windows.get(window)?;
                    let range = |name: &str| {
                        let end = engine.totals.samples(name);
                        end.saturating_sub(window.samples(name))..end
                    };
                    Some((engine.id.clone(), Ranks { ttft: range(TTFT), itl: range(ITL) }))
                })
                .collect();
            if is_of(model, window, &of_model) {
                ranks.insert(model.model.clone(), of_model);
            }
        }
        Self { models, ranks }
    }

    /// Whether every model can be compared.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ranks.len() == self.models.models.len()
    }
}

/// Whether the engines' samples are those that the model's window was made of.
fn is_of(model: &Model, window: &str, ranks: &BTreeMap<String, Ranks>) -> bool {
    let Some(window) = model.windows.get(window) else { return false };
    [(TTFT, (|ranks| &ranks.ttft) as fn(&Ranks) -> &Range<u64>), (ITL, |ranks| &ranks.itl)].iter().all(
        |(name, range)| {
            let held: u64 = ranks.values().map(range).map(|range| range.end - range.start).sum();
            let total: u64 = ranks.values().map(range).map(|range| range.end).sum();
            held == window.samples(name) && total == model.totals.samples(name)
        },
    )
}

/// What the planner showed over the last minutes.
#[derive(Debug, Default)]
pub struct History(VecDeque<Look>);

impl History {
    /// Remembers a look.
    pub fn push(&mut self, look: Look) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(look);
    }

    /// The newest look at a model whose window ended before `complete_until`, beside the truth: the very samples that
    /// the planner had counted. Times are seconds since 1970; the records must hold all requests that arrived before
    /// `complete_until`.
    #[must_use]
    pub fn compare(
        &self,
        model: &str,
        window: &str,
        records: &Records,
        complete_until: f64,
        now: f64,
    ) -> Option<Compared> {
        let (seen, ranks) = self.0.iter().rev().find_map(|look| {
            let seen = look.models.models.iter().find(|seen| seen.model == model)?.windows.get(window)?;
            (seen.span.to_unix_seconds < complete_until).then_some((seen, look.ranks.get(model)?))
        })?;
        let exact = records.percentiles(ranks)?;
        Some(Compared {
            ago_seconds: now - seen.span.to_unix_seconds,
            seconds: seen.span.to_unix_seconds - seen.span.from_unix_seconds,
            ttft: pairs(seen, TTFT, exact.ttft),
            itl: pairs(seen, ITL, exact.itl),
        })
    }
}

fn pairs(window: &Window, name: &str, exact: [Option<f64>; 3]) -> [Pair; 3] {
    let planner = window.quantiles(name);
    std::array::from_fn(|at| Pair { planner: planner[at], exact: exact[at] })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn window(to: f64, samples: u64) -> Value {
        let quantile = json!({ "estimate": to / 1000.0, "low": 0.0, "high": null });
        json!({ "1m": {
            "window": { "seconds": 60.0, "from_unix_seconds": to - 60.0, "to_unix_seconds": to }, "rates": {},
            "distributions": { "ttft": { "count": samples, "p50_seconds": quantile } },
        } })
    }

    fn totals(samples: u64) -> Value {
        json!({ "counters": { "requests_arrived": null }, "distributions": { "ttft": { "count": samples } } })
    }

    fn look(to: f64, of_model: u64, of_engine: u64) -> Look {
        let models = json!({ "models": [{
            "model": "m", "engines_ready": 1, "running_requests": null, "waiting_requests": null,
            "kv_cache_utilization_ratio_max": null, "totals": totals(of_model), "windows": window(to, 0),
        }] });
        let engines = json!({ "engines": [{
            "id": "e", "model": "m", "totals": totals(of_engine), "windows": window(to, 0),
        }] });
        let parse = |page| serde_json::from_value(page).unwrap();
        Look::new(parse(models), &serde_json::from_value(engines).unwrap(), "1m")
    }

    fn records() -> Records {
        Records::new([("e".to_owned(), "/nowhere".into())])
    }

    #[test]
    fn the_newest_window_is_taken_whose_requests_have_all_ended() {
        let mut history = History::default();
        (100..110).for_each(|to| history.push(look(f64::from(to), 0, 0)));
        let compared = history.compare("m", "1m", &records(), 105.5, 110.0).unwrap();
        assert_eq!(compared.ago_seconds.to_bits(), 5f64.to_bits());
        assert_eq!(compared.ttft[0].planner.map(|quantile| quantile.estimate), Some(0.105));
        assert_eq!(compared.ttft[1], Pair::default());
        assert_eq!(history.compare("m", "1m", &records(), 99.0, 110.0), None);
        assert_eq!(history.compare("x", "1m", &records(), 200.0, 110.0), None);
    }

    #[test]
    fn a_look_whose_engines_moved_on_is_not_compared() {
        assert!(look(100.0, 7, 7).is_whole());
        let moved = look(100.0, 7, 8);
        assert!(!moved.is_whole());
        let mut history = History::default();
        history.push(look(90.0, 0, 0));
        history.push(moved);
        assert_eq!(
            history.compare("m", "1m", &records(), 105.5, 110.0).map(|of| of.ago_seconds as u64),
            Some(20)
        );
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History::default();
        (0..500).for_each(|to| history.push(look(f64::from(to), 0, 0)));
        assert_eq!(history.0.len(), HISTORY);
    }

    #[test]
    fn bounds_hold_or_not() {
        let pair = |exact, high| Pair {
            planner: Some(Quantile { estimate: 0.3, low: 0.2, high }),
            exact: Some(exact),
        };
        assert!(pair(0.2, Some(0.5)).holds() && pair(0.5, Some(0.5)).holds() && pair(9.0, None).holds());
        assert!(!pair(0.19, Some(0.5)).holds() && !pair(0.51, Some(0.5)).holds());
        assert!(Pair::default().holds());
    }
}
