//! What is known while the load runs: asked of the planner, the agents and the engines' records.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use plimsoll_tests::wait;
use tokio::time::{Instant, sleep};

use crate::{
    exact::Records,
    frame::{Frame, ModelLine, NodeLine},
    load::{Load, Requests, Tally},
    look::{History, Look},
    plan::Plan,
    sight::{AgentStatus, Engines, Gpus, Models},
    stage::Stage,
    table,
};

/// How long the requests in flight, and the reports about them, may take at the end.
const SETTLE: Duration = Duration::from_secs(60);
/// The planner's window that is compared live, and the one at the end.
const LIVE: &str = "1m";
const WHOLE: &str = "5m";
/// How often a look is tried again whose two pages are not of the same instant.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(30);

/// The load, and what is known about it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) begun: Instant,
    models: Vec<Watched>,
    history: History,
    before: Vec<Option<AgentStatus>>,
}

/// A model under load.
#[derive(Debug)]
struct Watched {
    name: &'static str,
    load: Load,
    records: Records,
}

impl Watch {
    /// Begins to ask the engines.
    pub(crate) fn begin(stage: &Stage, plan: &Plan, requests: Vec<Requests>) -> Self {
        let watched = plan.models.iter().zip(requests).map(|(model, requests)| {
            let engines: Vec<_> = stage.engines.iter().filter(|engine| engine.model == model.name).collect();
            let logs =
                engines.iter().map(|engine| (engine.process.name().to_owned(), engine.request_log.clone()));
            let addresses = engines.iter().map(|engine| engine.address).collect();
            Watched {
                name: model.name,
                records: Records::new(logs),
                load: Load::start(stage.http.clone(), model.name, addresses, requests),
            }
        });
        Self {
            begun: Instant::now(),
            models: watched.collect(),
            history: History::default(),
            before: vec![None; stage.agents.len()],
        }
    }

    /// Whether all requests were sent and answered.
    pub(crate) fn is_over(&self) -> bool {
        self.models.iter().all(|model| model.load.is_over())
    }

    /// Sends nothing more.
    pub(crate) fn finish(&self) {
        self.models.iter().for_each(|model| model.load.finish());
    }

    /// Asks another replica of a model too; the number under which it is known there.
    pub(crate) fn join(&self, model: &str, address: SocketAddr) -> Option<usize> {
        Some(self.load_of(model)?.join(address))
    }

    /// The load on a model.
    pub(crate) fn load_of(&self, model: &str) -> Option<&Load> {
        self.models.iter().find(|watched| watched.name == model).map(|watched| &watched.load)
    }

    /// One look at everything.
    pub(crate) async fn frame(&mut self, stage: &Stage) -> anyhow::Result<Frame> {
        let seen = self.look(stage, LIVE).await?;
        let models = self.lines(seen, LIVE)?;
        let nodes = self.nodes(stage).await?;
        let advice = stage.advice().await?;
        let elapsed_seconds = self.begun.elapsed().as_secs_f64();
        Ok(Frame { elapsed_seconds, load: self.tally(), models, advice, nodes, notes: Vec::new() })
    }

    /// One look without latencies, and with how the engines are: where engines die and restart, the samples of planner and
    /// records are not of the same requests.
    pub(crate) async fn glance(&mut self, stage: &Stage) -> anyhow::Result<Frame> {
        let page = stage.http.get(stage.planner.address, "/api/v1/models").await?;
        let mut seen: Models = page.parse().context("/api/v1/models of the planner")?;
        let mut models = Vec::new();
        for name in self.models.iter().map(|model| model.name) {
            if let Some(at) = seen.models.iter().position(|seen| seen.model == name) {
                models.push(ModelLine { now: seen.models.swap_remove(at), latencies: None });
            }
        }
        let nodes = self.nodes(stage).await?;
        let notes = table::engine_states(&stage.states().await?);
        let advice = stage.advice().await?;
        let elapsed_seconds = self.begun.elapsed().as_secs_f64();
        Ok(Frame { elapsed_seconds, load: self.tally(), models, advice, nodes, notes })
    }

    /// Minutes and seconds since the load began.
    pub(crate) fn clock(&self) -> String {
        table::clock(self.begun.elapsed().as_secs_f64())
    }

    /// Looks at the models and their engines until both pages are of the same instant, or for long enough.
    async fn look(&mut self, stage: &Stage, window: &str) -> anyhow::Result<Models> {
        let get = async |path: &str| stage.http.get(stage.planner.address, path).await;
        let path = format!("/api/v1/engines?window={window}");
        for attempt in 1.. {
            let engines: Engines = get(&path).await?.parse().context("/api/v1/engines of the planner")?;
            let models = get("/api/v1/models").await?;
            let models: Models = models.parse().context("/api/v1/models of the planner")?;
            let look = Look::new(models, &engines, window);
            if look.is_whole() || attempt == TRIES {
                let models = look.models.clone();
                self.history.push(look);
                return Ok(models);
            }
            sleep(PAUSE).await;
        }
        anyhow::bail!("there was no look at the planner")
    }

    /// What the planner shows of each model, in the plan's order, with the comparison of its latencies.
    fn lines(&mut self, mut seen: Models, window: &str) -> anyhow::Result<Vec<ModelLine>> {
        let now = unix_seconds();
        let mut lines = Vec::new();
        for model in &mut self.models {
            // In this order: a request that is not in flight any more is in the records.
            let complete_until = model.load.oldest_in_flight().unwrap_or(now);
            model.records.catch_up()?;
            let latencies = self.history.compare(model.name, window, &model.records, complete_until, now);
            if let Some(at) = seen.models.iter().position(|seen| seen.model == model.name) {
                lines.push(ModelLine { now: seen.models.swap_remove(at), latencies });
            }
        }
        Ok(lines)
    }

    async fn nodes(&mut self, stage: &Stage) -> anyhow::Result<Vec<NodeLine>> {
        let page = stage.http.get(stage.planner.address, "/api/v1/gpus").await?;
        let gpus: Gpus = page.parse().context("/api/v1/gpus of the planner")?;
        let mut lines = Vec::new();
        for ((node, agent), before) in stage.agents.iter().zip(&mut self.before) {
            let page = stage.http.get(agent.address, "/status").await?;
            let status: AgentStatus = page.parse().with_context(|| format!("/status of {node}"))?;
            lines.push(NodeLine::new(node, &gpus.gpus, &status, before.as_ref()));
            *before = Some(status);
        }
        Ok(lines)
    }

    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in self.models.iter().map(|model| model.load.tally()) {
            sum.sent += tally.sent;
            sum.in_flight += tally.in_flight;
            sum.failed += tally.failed;
            sum.held_back += tally.held_back;
            sum.last_failure = tally.last_failure.or(sum.last_failure);
        }
        sum
    }

    /// Waits until all is answered and the planner has counted it, and says how the planner's view compares.
    pub(crate) async fn settle(&mut self, stage: &mut Stage) -> anyhow::Result<Vec<String>> {
        let counted = wait::until("planner that has counted every request", SETTLE, async || {
            stage.check()?;
            let seen = self.look(stage, WHOLE).await?;
            let in_flight = self.tally().in_flight;
            if in_flight > 0 {
                return Ok(Err(format!("{in_flight} requests are in flight")));
            }
            self.models.iter_mut().try_for_each(|model| model.records.catch_up())?;
            let counts: Vec<(String, bool)> = self.models.iter().map(|model| model.counts(&seen)).collect();
            let wrong: Vec<&str> =
                counts.iter().filter(|(_, equal)| !equal).map(|(line, _)| line.as_str()).collect();
            Ok(if wrong.is_empty() { Ok(counts) } else { Err(wrong.join("; ")) })
        });
        let mut summary = vec![String::new()];
        match counted.await {
            Ok(counts) => summary.extend(counts.into_iter().map(|(line, _)| line)),
            Err(error) => summary.push(format!("{error:#}")),
        }
        let seen = self.look(stage, WHOLE).await?;
        summary.push(String::new());
        summary.extend(table::errors(&self.lines(seen, WHOLE)?));
        Ok(summary)
    }
}

impl Watched {
    /// The counts at the planner beside the engines' own, and whether they are equal.
    fn counts(&self, models: &Models) -> (String, bool) {
        let sums = self.records.sums();
        let model = models.models.iter().find(|seen| seen.model == self.name);
        let total = |name: &str| model.map_or(0, |seen| seen.total(name));
        let finished = total("requests_finished_stop") + total("requests_finished_length");
        let seen = [total("requests_arrived"), finished, total("prompt_tokens"), total("generation_tokens")];
        let exact = [sums.requests, sums.requests, sums.prompt_tokens, sums.generation_tokens];
        let [arrived, finished, prompt, generation] = seen;
        let verdict = if seen == exact {
            "as the engines recorded".to_owned()
        } else {
            let [requests, _, prompt, generation] = exact;
            format!("but the engines recorded {requests}, {prompt} and {generation}")
        };
        let line = format!(
            "{}: the planner counted {arrived} requests arrived, {finished} finished, {prompt} prompt tokens and \
             {generation} generated tokens, {verdict}",
            self.name
        );
        (line, seen == exact)
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
