//! The demo's actuator: engines are started and stopped as the planner advises, while the load has a burst.
//!
//! `orders` (pure) says what is to be done about a target, `shape` is the burst, and `score` what came of it.

mod orders;
mod score;
mod shape;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::{
    orders::{Order, Phase, orders},
    score::Score,
};
use crate::{
    load::{self, Load, Requests},
    plan::{Plan, ReplicaPlan},
    screen::Screen,
    stage::{Stage, Starting},
    watch::Watch,
};

/// Between two looks at the advice.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A frame each so many looks.
const FRAME_EVERY: u32 = 2;
/// How long the last answers may take.
const SETTLE: Duration = Duration::from_secs(60);
/// Requests a second before the burst: what the two first engines take easily.
const RATE: f64 = 3.0;
/// GPUs of the board.
const GPUS: usize = 8;
/// The only node.
const NODE: usize = 0;

/// The burst: the same for the same seed.
#[must_use]
pub fn requests(plan: &Plan, seed: u64) -> Vec<Requests> {
    let of = |model| load::shaped(model, RATE, shape::MOST, shape::at, seed);
    plan.models.iter().map(of).collect()
}

/// Follows the advice until the load is over; says what was attained and what it took. The exit code tells whether the SLO
/// was held.
///
/// # Errors
/// When a process does not come up or ends unasked.
pub(crate) async fn play(
    watch: &mut Watch,
    stage: &mut Stage,
    screen: &mut Screen,
    plan: &Plan,
) -> anyhow::Result<ExitCode> {
    let mut actor = Actor::new(stage, plan)?;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = 0;
    while watch.begun.elapsed() < shape::LENGTH {
        looks.tick().await;
        stage.check()?;
        actor.act(watch, stage, screen).await?;
        if looked % FRAME_EVERY == 0 {
            let frame = watch.glance(stage).await?;
            screen.show(&frame)?;
        }
        looked += 1;
    }
    watch.finish();
    let took = actor.took();
    let settled = timeout(SETTLE, async {
        while !watch.is_over() {
            looks.tick().await;
        }
    });
    if settled.await.is_err() {
        screen.say(&["some requests were never answered; they count as missed".to_owned()])?;
    }
    actor.starting.clear();
    let model = plan.models.first().context("the plan has no model")?;
    let score = Score::read(&actor.logs, watch.tally(), model)?;
    let mut lines = vec![String::new()];
    lines.extend(score.lines(model, &took));
    screen.say(&lines)?;
    Ok(if score.is_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a pool took of the board.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Took {
    /// How long the demo watched, seconds.
    pub(crate) seconds: f64,
    /// Seconds of all engines together, from the start of their process to its end.
    pub(crate) engine_seconds: f64,
    /// The most engines at a time.
    pub(crate) most: usize,
    /// Engines that were started, and stopped.
    pub(crate) started: usize,
    pub(crate) stopped: usize,
}

/// An engine that was asked for.
#[derive(Debug)]
struct Replica {
    plan: ReplicaPlan,
    phase: Phase,
    /// Its number at the load, once it serves.
    at_load: Option<usize>,
    since: Instant,
}

/// Whoever starts and stops engines.
#[derive(Debug)]
struct Actor {
    replicas: Vec<Replica>,
    first: ReplicaPlan,
    number: u32,
    starting: Vec<Starting>,
    logs: Vec<PathBuf>,
    begun: Instant,
    /// Seconds of the engines that ended.
    ended: f64,
    most: usize,
    started: usize,
    stopped: usize,
}

impl Actor {
    fn new(stage: &Stage, plan: &Plan) -> anyhow::Result<Self> {
        let node = plan.nodes.get(NODE).context("the plan has no node")?;
        let first = node.replicas.first().context("the node has no engine")?.clone();
        let now = Instant::now();
        let replicas = node.replicas.iter().enumerate().map(|(at, replica)| Replica {
            plan: replica.clone(),
            phase: Phase::Serving,
            at_load: Some(at),
            since: now,
        });
        Ok(Self {
            replicas: replicas.collect(),
            first,
            number: node.replicas.len() as u32 - 1,
            starting: Vec::new(),
            logs: stage.engines.iter().map(|engine| engine.request_log.clone()).collect(),
            begun: now,
            ended: 0.0,
            most: node.replicas.len(),
            started: 0,
            stopped: 0,
        })
    }

    /// Takes in what started since the last look, and does what the advice asks for.
    async fn act(&mut self, watch: &Watch, stage: &mut Stage, screen: &mut Screen) -> anyhow::Result<()> {
        for starting in std::mem::take(&mut self.starting) {
            let name = starting.name().to_owned();
            match stage.take_in(starting).await? {
                Some(starting) => self.starting.push(starting),
                None => self.serves(&name, watch, stage)?,
            }
        }
        let advice = stage.advice().await?;
        let Some(advised) = advice.iter().find(|advised| advised.pool == self.first.profile) else {
            return Ok(());
        };
        let load = watch.load_of(self.first.model).context("there is no load on the model")?;
        let in_flight = |replica: &Replica| replica.at_load.map_or(0, |at| load.in_flight_at(at));
        let seen: Vec<_> = self.replicas.iter().map(|replica| (replica.phase, in_flight(replica))).collect();
        let orders = orders(advised.to as usize, &seen);
        for order in &orders {
            let done = self.follow(*order, load, stage).await?;
            screen.say(&[format!("{} {done} ({})", watch.clock(), advised.text)])?;
        }
        self.replicas.retain(|replica| replica.phase != Phase::Stopped);
        self.most = self.most.max(self.replicas.len());
        Ok(())
    }

    fn serves(&mut self, name: &str, watch: &Watch, stage: &Stage) -> anyhow::Result<()> {
        let engine = stage.engines.iter().find(|engine| engine.process.name() == name);
        let engine = engine.with_context(|| format!("{name} is gone"))?;
        let replica = self.replicas.iter_mut().find(|replica| replica.plan.name == name);
        let replica = replica.with_context(|| format!("nobody asked for {name}"))?;
        replica.at_load = watch.join(replica.plan.model, engine.address);
        replica.phase = Phase::Serving;
        self.logs.push(engine.request_log.clone());
        Ok(())
    }

    /// Does one thing; in words.
    async fn follow(&mut self, order: Order, load: &Load, stage: &mut Stage) -> anyhow::Result<String> {
        let open = |replica: &Replica, is_open| {
            if let Some(at) = replica.at_load {
                load.open(at, is_open);
            }
        };
        match order {
            Order::Launch => self.launch(stage),
            Order::Drain(at) => {
                let replica = &mut self.replicas[at];
                open(replica, false);
                replica.phase = Phase::Draining;
                Ok(format!("{}: no new requests", replica.plan.name))
            }
            Order::Reopen(at) => {
                let replica = &mut self.replicas[at];
                open(replica, true);
                replica.phase = Phase::Serving;
                Ok(format!("{}: new requests again", replica.plan.name))
            }
            Order::Stop(at) => {
                let replica = &mut self.replicas[at];
                stage.retire(NODE, &replica.plan.name).await?;
                replica.phase = Phase::Stopped;
                self.ended += replica.since.elapsed().as_secs_f64();
                self.stopped += 1;
                Ok(format!("{}: stopped, nothing was in flight", replica.plan.name))
            }
        }
    }

    fn launch(&mut self, stage: &mut Stage) -> anyhow::Result<String> {
        let taken: BTreeSet<usize> =
            self.replicas.iter().flat_map(|replica| replica.plan.gpus.iter().copied()).collect();
        let Some(gpu) = (0..GPUS).find(|gpu| !taken.contains(gpu)) else {
            return Ok("every GPU of the board is taken".to_owned());
        };
        self.number += 1;
        self.started += 1;
        let plan = Plan::another(&self.first, self.number, gpu);
        self.starting.push(stage.launch(NODE, &plan)?);
        let done = format!("{}: started on GPU {gpu}", plan.name);
        self.replicas.push(Replica { plan, phase: Phase::Starting, at_load: None, since: Instant::now() });
        Ok(done)
    }

    fn took(&self) -> Took {
        let running: f64 = self.replicas.iter().map(|replica| replica.since.elapsed().as_secs_f64()).sum();
        Took {
            seconds: self.begun.elapsed().as_secs_f64(),
            engine_seconds: self.ended + running,
            most: self.most,
            started: self.started,
            stopped: self.stopped,
        }
    }
}
