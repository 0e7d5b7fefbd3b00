//! What `--policy` and `--compare` name: policies, static fleets, and bounds found for the workload at hand.

use anyhow::{Context as _, anyhow};
use plimsoll_common::engine::Role;
use plimsoll_sim::{
    Experiment, Run, Trials, Watcher,
    bounds::{Grid, Oracle, grid},
    policies::{PolicyError, from_text, static_sizes},
};

/// One of them, understood.
#[derive(Debug)]
pub(super) struct Named {
    text: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The smallest static fleet that keeps the promise.
    StaticBest,
    /// The cheapest of the declared grid that keeps it.
    Causal(Grid),
    /// The clairvoyant, with the tightest headroom that keeps it.
    Oracle,
    Fleet(Vec<u32>),
    Policy,
}

impl Named {
    /// Understands a name.
    pub(super) fn read(text: &str, experiment: &Experiment<'_>) -> anyhow::Result<Self> {
        let kind = match text.split_once(':').unwrap_or((text, "")) {
            ("static-best", "") => Kind::StaticBest,
            ("oracle", "") => Kind::Oracle,
            ("causal", settings) => Kind::Causal(Grid {
                period_s: period(settings).with_context(|| format!("policy {text}"))?,
                disaggregated: experiment.config.pools.iter().any(|pool| pool.role == Role::Decode),
                coarse: false,
            }),
            _ => {
                // Static fleets too are checked against the world's pools.
                from_text(text, &experiment.config.briefing(), &experiment.slo).map_err(
                    |error| match error {
                        PolicyError::Unknown { .. } => {
                            anyhow!("{error}, or one of the bounds static-best, causal and oracle")
                        }
                        other => other.into(),
                    },
                )?;
                static_sizes(text).map_or(Kind::Policy, Kind::Fleet)
            }
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Runs it; none if it is a bound that nothing reaches.
    pub(super) fn run(
        &self,
        experiment: &Experiment<'_>,
        watcher: Watcher<'_>,
    ) -> anyhow::Result<Option<Run>> {
        let policy = |text: &str, watcher: Watcher<'_>| -> anyhow::Result<Run> {
            let mut policy = from_text(text, &experiment.config.briefing(), &experiment.slo)?;
            Ok(experiment.run(&mut *policy, watcher)?)
        };
        let (mut run, name) = match &self.kind {
            Kind::Fleet(sizes) => return Ok(Some(experiment.run_static(sizes, watcher)?)),
            Kind::Policy => return Ok(Some(policy(&self.text, watcher)?)),
            Kind::Oracle => {
                let Some(oracle) = Trials::new(std::slice::from_ref(experiment)).oracle()? else {
                    return Ok(None);
                };
                let (config, workload) = (experiment.config, experiment.workload);
                let schedule = Oracle::with_headroom(config, workload, &experiment.slo, oracle.headroom);
                (schedule.replay(experiment, watcher)?, oracle.chosen.trial.policy)
            }
            Kind::StaticBest => {
                let Some(sizes) = experiment.static_best(watcher)?.replicas else { return Ok(None) };
                let run = experiment.run_static(&sizes, watcher)?;
                let name = format!("static best: {}", run.outcome.policy);
                (run, name)
            }
            Kind::Causal(of) => {
                let bound = Trials::new(std::slice::from_ref(experiment)).causal(&grid(*of))?;
                let Some(bound) = bound.filter(|bound| bound.kept) else { return Ok(None) };
                let text = bound.trial.policy;
                (policy(&text, watcher)?, format!("causal bound: {text}"))
            }
        };
        run.outcome.policy = name;
        Ok(Some(run))
    }
}

/// The policies of a list. Commas separate policies, and settings of one: what follows as `setting=value` is a setting.
pub(super) fn separate(list: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for piece in list.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
        let setting = piece.split_once('=').is_some_and(|(name, _)| !name.contains(':'));
        match names.last_mut().filter(|_| setting) {
            Some(last) => {
                last.push(',');
                last.push_str(piece);
            }
            None => names.push(piece.to_owned()),
        }
    }
    names
}

/// `period=SECONDS`, or nothing.
fn period(settings: &str) -> anyhow::Result<Option<u64>> {
    if settings.is_empty() {
        return Ok(None);
    }
    let seconds = settings.strip_prefix("period=").and_then(|text| text.parse().ok());
    let seconds = seconds.filter(|seconds| (60..=604_800).contains(seconds));
    seconds.map(Some).context("the only setting is period=SECONDS, 60 to 604800")
}

#[cfg(test)]
mod tests {
    use super::separate;

    #[test]
    fn commas_separate_policies_and_settings_of_one() {
        assert_eq!(
            separate("static:4, dynamo:target=sla,loops=hybrid,wva,causal:period=60,oracle,"),
            ["static:4", "dynamo:target=sla,loops=hybrid", "wva", "causal:period=60", "oracle"]
        );
        assert_eq!(separate("loops=hybrid"), ["loops=hybrid"]);
        assert!(separate("").is_empty());
    }
}
