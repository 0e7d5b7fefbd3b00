//! From the first process to the last: start, show, end.

use std::{
    io,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use plimsoll_tests::{wait, workload::Request, world::World};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};

use crate::{
    args::Args,
    exact::Record,
    frame::{Frame, History, ModelLine, NodeLine},
    load::{self, Load, Tally},
    plan::Plan,
    screen::Screen,
    sight::{AgentStatus, Gpus, Models},
    stage::Stage,
    table,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the requests in flight, and the reports about them, may take at the end.
const SETTLE: Duration = Duration::from_secs(60);
/// The exit code after a second signal (128 + SIGINT).
const EXIT_SECOND_SIGNAL: u8 = 130;
/// The planner's window that is compared live, and the one at the end.
const LIVE: &str = "1m";
const WHOLE: &str = "5m";

/// Plays the demo until its time is over, its trace is, or somebody asks it to end.
///
/// # Errors
/// When a process does not come up, or ends unasked; with the end of its log.
pub async fn run(args: &Args, world: World, trace: Option<Vec<Request>>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut screen = Screen::new(args.plain);
    let plan = Plan::new(args.nodes);
    let say = |line: &str| drop(Screen::new(true).say(&[line.to_owned()]));
    let mut stage = tokio::select! {
        stage = Stage::set(world.shielded(), &plan, args.speed, say) => stage?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let mut places = stage.places();
    places.insert(0, String::new());
    places.push(String::new());
    screen.say(&places)?;
    let requests = match &trace {
        Some(trace) => load::dealt(&plan.models, trace, args.seed),
        None => load::synthetic(&plan.models, args.rate(), args.seed),
    };
    let mut watch = Watch::begin(&stage, &plan, requests);
    let shown = tokio::select! {
        biased;
        () = signals.next() => Ok(()),
        shown = show(&mut watch, &mut stage, &mut screen, args.duration) => shown,
    };
    drop(watch);
    screen.say(&[
        "ending the agents, the planner and the engines; Ctrl-C once more ends them at once".to_owned()
    ])?;
    tokio::select! {
        ended = stage.end() => {
            if let Some(folder) = &args.keep_logs {
                screen.say(&[format!("everything is kept in {}", folder.display())])?;
            }
            shown.and(ended).map(|()| ExitCode::SUCCESS)
        }
        () = signals.next() => {
            stage.kill();
            Ok(ExitCode::from(EXIT_SECOND_SIGNAL))
        }
    }
}

async fn show(
    watch: &mut Watch,
    stage: &mut Stage,
    screen: &mut Screen,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let over = |watch: &Watch| {
        duration.is_some_and(|duration| watch.begun.elapsed() >= duration)
            || watch.loads.iter().all(Load::is_over)
    };
    while !over(watch) {
        let left = duration.map_or(Duration::MAX, |duration| duration.saturating_sub(watch.begun.elapsed()));
        tokio::select! { _ = looks.tick() => (), () = tokio::time::sleep(left) => () }
        stage.check()?;
        let frame = watch.frame(stage).await?;
        screen.show(&frame)?;
    }
    watch.loads.iter().for_each(Load::finish);
    screen.say(&[String::new(), "the load is over; waiting for the last answers and reports".to_owned()])?;
    let summary = watch.settle(stage).await?;
    screen.say(&summary)?;
    Ok(())
}

/// The load, and what is known about it.
struct Watch {
    begun: Instant,
    models: Vec<&'static str>,
    loads: Vec<Load>,
    records: Vec<Record>,
    history: History,
    before: Vec<Option<AgentStatus>>,
}

impl Watch {
    fn begin(stage: &Stage, plan: &Plan, requests: Vec<load::Requests>) -> Self {
        let (mut loads, mut records) = (Vec::new(), Vec::new());
        for (model, requests) in plan.models.iter().zip(requests) {
            let engines: Vec<_> = stage.engines.iter().filter(|engine| engine.model == model.name).collect();
            records.push(Record::new(engines.iter().map(|engine| engine.request_log.clone()).collect()));
            let addresses = engines.iter().map(|engine| engine.address).collect();
            loads.push(Load::start(stage.http.clone(), model.name, addresses, requests));
        }
        Self {
            begun: Instant::now(),
            models: plan.models.iter().map(|model| model.name).collect(),
            loads,
            records,
            history: History::default(),
            before: vec![None; stage.agents.len()],
        }
    }

    async fn frame(&mut self, stage: &Stage) -> anyhow::Result<Frame> {
        let models = self.look(stage).await?;
        let latencies = self.compare(LIVE)?;
        let now = |model: &&str| models.models.iter().find(|seen| seen.model == **model).cloned();
        let lines = self
            .models
            .iter()
            .zip(latencies)
            .filter_map(|(model, latencies)| Some(ModelLine { now: now(model)?, latencies }));
        let lines = lines.collect();
        let nodes = self.nodes(stage).await?;
        Ok(Frame {
            elapsed_seconds: self.begun.elapsed().as_secs_f64(),
            load: self.tally(),
            models: lines,
            nodes,
        })
    }

    async fn look(&mut self, stage: &Stage) -> anyhow::Result<Models> {
        let page = stage.http.get(stage.planner.address, "/api/v1/models").await?;
        let models: Models = page.parse().context("/api/v1/models of the planner")?;
        self.history.push(models.clone());
        Ok(models)
    }

    /// The latencies of each model.
    fn compare(&mut self, window: &str) -> anyhow::Result<Vec<Option<crate::frame::Compared>>> {
        let now = unix_seconds();
        let mut compared = Vec::new();
        for ((model, load), record) in self.models.iter().zip(&self.loads).zip(&mut self.records) {
            // In this order: a request that is not in flight any more is in the record.
            let complete_until = load.oldest_in_flight().unwrap_or(now);
            record.catch_up()?;
            compared.push(self.history.compare(model, window, record, complete_until, now));
        }
        Ok(compared)
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

    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in self.loads.iter().map(Load::tally) {
            sum.sent += tally.sent;
            sum.in_flight += tally.in_flight;
            sum.failed += tally.failed;
            sum.held_back += tally.held_back;
            sum.last_failure = tally.last_failure.or(sum.last_failure);
        }
        sum
    }

    /// Waits until all is answered and the planner has counted it, and says how the planner's view compares.
    async fn settle(&mut self, stage: &mut Stage) -> anyhow::Result<Vec<String>> {
        let counted = wait::until("planner that has counted every request", SETTLE, async || {
            stage.check()?;
            let models = self.look(stage).await?;
            let in_flight = self.tally().in_flight;
            if in_flight > 0 {
                return Ok(Err(format!("{in_flight} requests are in flight")));
            }
            self.records.iter_mut().try_for_each(Record::catch_up)?;
            let lines = self.counts(&models);
            Ok(if lines.iter().all(|(_, equal)| *equal) { Ok(lines) } else { Err(joined(&lines)) })
        });
        let mut summary = vec![String::new()];
        match counted.await {
            Ok(lines) => summary.extend(lines.into_iter().map(|(line, _)| line)),
            Err(error) => summary.push(format!("{error:#}")),
        }
        let models = self.look(stage).await?;
        let latencies = self.compare(WHOLE)?;
        let lines: Vec<ModelLine> = models
            .models
            .into_iter()
            .filter_map(|now| {
                let at = self.models.iter().position(|model| *model == now.model)?;
                Some(ModelLine { latencies: latencies[at], now })
            })
            .collect();
        summary.push(String::new());
        summary.extend(table::errors(&lines));
        Ok(summary)
    }

    /// Each model's counts at the planner beside the engines' own, and whether they are equal.
    fn counts(&self, models: &Models) -> Vec<(String, bool)> {
        let count = |(model, record): (&&str, &Record)| {
            let sums = record.sums();
            let seen = models.models.iter().find(|seen| seen.model == **model);
            let total = |name: &str| seen.map_or(0, |seen| seen.total(name));
            let finished = total("requests_finished_stop") + total("requests_finished_length");
            let seen =
                [total("requests_arrived"), finished, total("prompt_tokens"), total("generation_tokens")];
            let exact = [sums.requests, sums.requests, sums.prompt_tokens, sums.generation_tokens];
            let [arrived, finished, prompt, generation] = seen;
            let verdict = if seen == exact {
                "as the engines recorded".to_owned()
            } else {
                format!(
                    "but the engines recorded {}, {} and {}",
                    sums.requests, sums.prompt_tokens, sums.generation_tokens
                )
            };
            let line = format!(
                "{model}: the planner counted {arrived} requests arrived, {finished} finished, {prompt} prompt tokens and \
                 {generation} generated tokens, {verdict}"
            );
            (line, seen == exact)
        };
        self.models.iter().zip(&self.records).map(count).collect()
    }
}

fn joined(lines: &[(String, bool)]) -> String {
    lines.iter().filter(|(_, equal)| !equal).map(|(line, _)| line.as_str()).collect::<Vec<_>>().join("; ")
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => (), _ = hangup.recv() => () }
    }
}
