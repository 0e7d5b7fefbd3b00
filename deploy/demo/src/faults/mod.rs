//! Faults, one after the other, under the load: each is done to an engine, watched for at the agent and the planner, and
//! undone.

mod fault;
mod report;

use std::time::Duration;

use anyhow::Context;
use plimsoll_tests::{daemons::Emulator, wait};
use tokio::time::{Instant, sleep};

use self::{fault::Fault, report::Finding};
use crate::{screen::Screen, sight::EngineStates, stage::Stage, watch::Watch};

pub use self::report::{WITHIN, summary};

/// How long a fault is watched for before it counts as missed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an engine may take to be well again.
const RECOVERY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// Between two frames.
const FRAME_EVERY: Duration = Duration::from_secs(2);

/// Plays all faults, and gives what was seen of each.
///
/// # Errors
/// When a process does not come up or ends unasked, or an engine does not recover.
pub(crate) async fn play(
    watch: &mut Watch,
    stage: &mut Stage,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Finding>> {
    let mut player = Player { watch, stage, screen, framed: Instant::now(), found: Vec::new() };
    for (fault, turn) in Fault::ALL.into_iter().zip(0..) {
        player.one(fault, turn).await?;
    }
    Ok(player.found)
}

struct Player<'a> {
    watch: &'a mut Watch,
    stage: &'a mut Stage,
    screen: &'a mut Screen,
    framed: Instant,
    found: Vec<Finding>,
}

/// An engine as agent and planner show it.
struct Views {
    agent: EngineStates,
    planner: EngineStates,
}

impl Player<'_> {
    async fn one(&mut self, fault: Fault, turn: usize) -> anyhow::Result<()> {
        let engine = self.choose(fault, turn)?;
        self.recovered(&engine).await?;
        self.busy(&engine).await?;
        let before = self.views(&engine).await?;
        let clock = self.watch.clock();
        self.screen.say(&[format!("{clock} {engine}: {}", fault.what())])?;
        let since = self.inject(fault, &engine).await?;
        let (mut agent, mut planner) = (None, None);
        while since.elapsed() < PATIENCE && (agent.is_none() || planner.is_none()) {
            let now = self.views(&engine).await?;
            let shown = |seen: bool| seen.then(|| since.elapsed());
            agent = agent.or_else(|| shown(fault.shows_at_agent(&before.agent, &now.agent)));
            planner = planner.or_else(|| shown(fault.shows_at_planner(&before.planner, &now.planner)));
            self.pulse().await?;
            sleep(PAUSE).await;
        }
        let finding = Finding { fault: fault.what(), engine, shown_as: fault.shown_as(), agent, planner };
        self.screen.say(&[format!("{} {}", self.watch.clock(), finding.line())])?;
        self.heal(fault, &finding.engine).await?;
        self.found.push(finding);
        Ok(())
    }

    /// The engine that a fault befalls: by turns, and the last one dies.
    fn choose(&self, fault: Fault, turn: usize) -> anyhow::Result<String> {
        let engines = &self.stage.engines;
        // What follows a fault befalls the same engine.
        if let (true, Some(before)) = (fault.follows(), self.found.last()) {
            return Ok(before.engine.clone());
        }
        let at =
            if fault == Fault::Die { engines.len().saturating_sub(1) } else { turn % engines.len().max(1) };
        let engine = engines.get(at).context("there is no engine")?;
        Ok(engine.process.name().to_owned())
    }

    fn engine(&mut self, name: &str) -> anyhow::Result<&mut Emulator> {
        let found = self.stage.engines.iter_mut().find(|engine| engine.process.name() == name);
        found.with_context(|| format!("there is no engine {name}"))
    }

    /// Does it, and gives when it happened.
    async fn inject(&mut self, fault: Fault, name: &str) -> anyhow::Result<Instant> {
        let mut since = Instant::now();
        match fault {
            Fault::Freeze => {
                // An engine that freezes idle shows nothing: there is nothing that should move.
                loop {
                    since = Instant::now();
                    self.engine(name)?.order("freeze").await?;
                    if self.running(name).await? > 0 {
                        break;
                    }
                    self.engine(name)?.order("thaw").await?;
                    self.busy(name).await?;
                }
            }
            Fault::Stop => self.engine(name)?.process.signal(plimsoll_tests::process::Signal::STOP)?,
            Fault::Sleep => self.engine(name)?.order("sleep").await?,
            Fault::Lock => self.engine(name)?.order("locked").await?,
            Fault::Restart => self.engine(name)?.order("restart:4").await?,
            Fault::Return => {
                wait::until("engine that is back", RECOVERY, async || {
                    let state = self.admin(name).await?;
                    Ok(if state["engine"].is_null() { Err(state.to_string()) } else { Ok(()) })
                })
                .await?;
                since = Instant::now();
            }
            Fault::Rebucket => {
                let admin = self.engine(name)?.admin;
                let answer = self.stage.http.post(admin, "/restart", fault::OTHER_BUCKETS.to_owned()).await?;
                anyhow::ensure!(answer.status().is_success(), "restart: status {}", answer.status());
            }
            Fault::Die => self.stage.kill_engine(name)?,
        }
        Ok(since)
    }

    async fn heal(&mut self, fault: Fault, name: &str) -> anyhow::Result<()> {
        match fault {
            Fault::Freeze => self.engine(name)?.order("thaw").await?,
            Fault::Stop => self.engine(name)?.process.signal(plimsoll_tests::process::Signal::CONT)?,
            Fault::Sleep => self.engine(name)?.order("wake").await?,
            Fault::Lock => self.engine(name)?.order("heal").await?,
            Fault::Restart | Fault::Return | Fault::Rebucket | Fault::Die => return Ok(()),
        }
        self.recovered(name).await
    }

    /// Waits until agent and planner show that an engine serves; one that is about to be back is not waited for.
    async fn recovered(&mut self, name: &str) -> anyhow::Result<()> {
        if self
            .found
            .last()
            .is_some_and(|last| last.engine == name && last.shown_as == Fault::Restart.shown_as())
        {
            return Ok(());
        }
        let deadline = Instant::now() + RECOVERY;
        loop {
            let now = self.views(name).await?;
            if now.agent.state == "ready" && now.planner.state == "ready" {
                return Ok(());
            }
            let (agent, planner) = (&now.agent.state, &now.planner.state);
            anyhow::ensure!(
                Instant::now() < deadline,
                "{name} is not ready again after {RECOVERY:?}: {agent} at the agent, {planner} at the planner"
            );
            self.pulse().await?;
            sleep(PAUSE).await;
        }
    }

    /// Waits until requests run, unless the engine is down.
    async fn busy(&mut self, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + RECOVERY;
        while !self.admin(name).await?["engine"].is_null() && self.running(name).await? == 0 {
            anyhow::ensure!(Instant::now() < deadline, "no request runs on {name}; raise --rate");
            self.pulse().await?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn running(&mut self, name: &str) -> anyhow::Result<u64> {
        Ok(self.admin(name).await?["engine"]["running"].as_u64().unwrap_or(0))
    }

    async fn admin(&mut self, name: &str) -> anyhow::Result<serde_json::Value> {
        let admin = self.engine(name)?.admin;
        self.stage.http.json(admin, "/state").await
    }

    async fn views(&mut self, name: &str) -> anyhow::Result<Views> {
        self.stage.check()?;
        Ok(Views { agent: self.stage.at_agent(name).await?, planner: self.stage.at_planner(name).await? })
    }

    /// Shows a frame where one is due.
    async fn pulse(&mut self) -> anyhow::Result<()> {
        if self.framed.elapsed() < FRAME_EVERY {
            return Ok(());
        }
        self.framed = Instant::now();
        let mut frame = self.watch.glance(self.stage).await?;
        frame.notes.extend(report::so_far(&self.found));
        self.screen.show(&frame)?;
        Ok(())
    }
}
