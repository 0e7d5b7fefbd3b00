//! The core on the live fleet: at each interval of the policy it is told what the reports brought, and its plan is
//! published. Nobody acts on it here.
//!
//! ```text
//! drive ── Question::Seen ──▶ Gather ── Seen ──▶ fold (pure) ── Observation a pool ──▶ Controller ── Step ──▶ Advice
//! (owns the fleet, adds reports up)            demand ── Door ──┘      (blocking pool)      (watch: API, page, metrics)
//! ```
//!
//! The driver only adds up and copies; folding and stepping, which may run engines ahead, happen on the blocking pool.

mod demand;
mod fold;
mod gather;
mod matching;
mod policy;
mod published;
mod replicas;

use std::{path::PathBuf, sync::Arc, time::Duration};

use plimsoll_common::units::Micros;
use plimsoll_core::{
    controller::{Controller, Step},
    observe::Observation,
    spec::FleetSpec,
    tuning::Tuning,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use demand::{AtDoors, Doors};
pub use fold::{Finding, Memory, fold};
pub use gather::{EngineSeen, Gains, Gather, Lengths, Seen, Told};
pub use matching::{Matching, Stranger, Wanted};
pub use policy::{InForce, PolicyFile};
pub use published::{Advice, PolicyState, PoolAdvice, StepTimes};
pub use replicas::Starts;

use crate::{
    clock::Clock,
    drive::Question,
    journal::{Basis, Writer},
};

/// Between two looks whether the policy's file was changed.
const POLICY_LOOK: Duration = Duration::from_secs(2);
/// How long front-ends may take to tell their demand, at most; and no longer than half an interval.
const DOOR_PATIENCE: Duration = Duration::from_secs(2);

/// The task that steps the core.
#[derive(Debug)]
pub struct Advisor {
    clock: Clock,
    questions: mpsc::Sender<Question>,
    file: PolicyFile,
    doors: Doors,
    /// What goes to the blocking pool and comes back with each step.
    core: Option<Core>,
    matching: Arc<Matching>,
    interval: Duration,
    advice: watch::Sender<Arc<Advice>>,
    told: Vec<Finding>,
}

/// What a step needs and changes.
#[derive(Debug)]
struct Core {
    controller: Controller,
    memory: Memory,
    journal: Option<Writer>,
}

impl Advisor {
    /// An advisor by a policy that was read, and where its advice will be seen. `resumed` is what the journal gave back,
    /// where one is kept.
    #[must_use]
    pub fn new(
        clock: Clock,
        questions: mpsc::Sender<Question>,
        path: PathBuf,
        policy: InForce,
        resumed: Option<(Writer, Controller)>,
    ) -> (Self, watch::Receiver<Arc<Advice>>) {
        let file = PolicyFile::new(path, clock.now(), policy);
        let policy = file.in_force();
        let core = match resumed {
            Some((journal, controller)) => {
                Core { controller, memory: Memory::default(), journal: Some(journal) }
            }
            None => {
                let controller = Controller::new(FleetSpec::from(&policy.policy), Tuning::default());
                Core { controller, memory: Memory::default(), journal: None }
            }
        };
        let (advice, seen) = watch::channel(Arc::new(Advice::none(file.state(), policy)));
        let advisor = Self {
            matching: Arc::new(Matching::new(&policy.policy)),
            interval: interval_of(policy),
            clock,
            questions,
            core: Some(core),
            doors: Doors::new(&policy.policy),
            file,
            advice,
            told: Vec::new(),
        };
        (advisor, seen)
    }

    /// Runs until cancelled; then what was learned is written to the journal, where one is kept.
    ///
    /// # Errors
    /// When a step panicked: its core is lost with it.
    pub async fn run(mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        self.advise(cancel).await?;
        let now = self.clock.now();
        if let Some(Core { controller, journal: Some(journal), .. }) = self.core {
            tokio::task::spawn_blocking(move || journal.finish(now, controller.checkpoint())).await?;
        }
        Ok(())
    }

    async fn advise(&mut self, cancel: CancellationToken) -> anyhow::Result<()> {
        // What front-ends show now is what they are compared with later; and from here on the driver adds up.
        tokio::select! { _ = self.at_doors() => (), () = cancel.cancelled() => return Ok(()) }
        let asked = self.ask(&cancel).await;
        let mut due = Instant::now() + self.interval;
        let mut look = Instant::now() + POLICY_LOOK;
        if asked.is_none() {
            return Ok(());
        }
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = sleep_until(due) => {
                    let told = tokio::select! {
                        told = self.at_doors() => told,
                        () = cancel.cancelled() => return Ok(()),
                    };
                    let Some(seen) = self.ask(&cancel).await else { return Ok(()) };
                    // A step is short; one that was begun is finished and recorded, also when the planner ends.
                    self.step(seen, told).await?;
                    due += self.interval;
                    if due < Instant::now() {
                        // A step that took longer than the interval is followed by a whole one.
                        due = Instant::now() + self.interval;
                    }
                }
                () = sleep_until(look) => {
                    if self.file.look(self.clock.now()).await {
                        self.take_policy();
                        due = Instant::now() + self.interval;
                    }
                    self.advice.send_modify(|advice| {
                        *advice = Arc::new(Advice { policy: self.file.state(), ..Advice::clone(advice) });
                    });
                    look = Instant::now() + POLICY_LOOK;
                }
            }
        }
    }

    async fn at_doors(&mut self) -> AtDoors {
        self.doors.read(DOOR_PATIENCE.min(self.interval / 2)).await
    }

    /// Takes what was gathered; `None` when the planner ends.
    async fn ask(&self, cancel: &CancellationToken) -> Option<Seen> {
        let (reply, answer) = oneshot::channel();
        let question = Question::Seen { matching: Arc::clone(&self.matching), reply };
        tokio::select! {
            answer = async { self.questions.send(question).await.ok()?; answer.await.ok() } => answer,
            () = cancel.cancelled() => None,
        }
    }

    /// One step, off the event loop.
    async fn step(&mut self, seen: Seen, told: AtDoors) -> anyhow::Result<()> {
        let Some(mut core) = self.core.take() else { anyhow::bail!("the core was lost in a step") };
        let matching = Arc::clone(&self.matching);
        let worked = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let now = seen.now;
            let (mut observations, mut findings) = fold(&seen, &matching, &mut core.memory);
            findings.extend(told.findings);
            fold::at_doors(&mut observations, told.doors, seen.window);
            let step = core.step(now, &observations);
            Worked { now, step, refused: core.controller.refused(), findings, took: begun.elapsed(), core }
        });
        let worked = worked.await?;
        self.core = Some(worked.core);
        self.tell(&worked.findings);
        let policy = self.file.in_force();
        let mut times = self.advice.borrow().times;
        times.add(worked.took);
        let advice =
            Advice::new(worked.now, &worked.step, worked.refused, worked.findings, policy, self.file.state());
        tell_moves(&advice);
        self.advice.send_replace(Arc::new(Advice { times, ..advice }));
        Ok(())
    }

    /// Logs what does not fit, when it changes.
    fn tell(&mut self, findings: &[Finding]) {
        for finding in findings.iter().filter(|finding| !self.told.contains(finding)) {
            tracing::warn!(%finding, "policy and fleet do not fit");
        }
        self.told = findings.to_vec();
    }

    /// Goes on by another policy, with all that was learned and still applies.
    fn take_policy(&mut self) {
        let policy = self.file.in_force();
        self.matching = Arc::new(Matching::new(&policy.policy));
        self.interval = interval_of(policy);
        self.doors = Doors::new(&policy.policy);
        if let Some(core) = &mut self.core {
            let basis = basis(policy);
            let learned = core.controller.checkpoint();
            (core.controller, _) = Controller::restore(basis.spec.clone(), basis.tuning, learned);
            if let Some(journal) = &mut core.journal {
                journal.begin(self.clock.now(), basis);
            }
        }
    }
}

/// What a step gives back.
struct Worked {
    now: Micros,
    core: Core,
    step: Step,
    refused: u64,
    findings: Vec<Finding>,
    took: Duration,
}

impl Core {
    /// Tells the controller what was seen and lets it decide: the one place where observations and steps pass, in order.
    fn step(&mut self, now: Micros, observations: &[Observation]) -> Step {
        if let Some(journal) = self.journal.as_mut().filter(|journal| journal.checkpoint_due(now)) {
            journal.checkpoint(now, self.controller.checkpoint());
        }
        for observation in observations {
            self.controller.observe(observation.clone());
        }
        let step = self.controller.step(now);
        if let Some(journal) = &mut self.journal {
            journal.record(now, observations, &step);
        }
        step
    }
}

/// What decisions by a policy rest on.
#[must_use]
pub fn basis(policy: &InForce) -> Basis {
    Basis {
        // Every policy is JSON; without it people miss something and the core does not.
        policy: serde_json::to_string(&policy.policy).unwrap_or_default(),
        spec: FleetSpec::from(&policy.policy),
        tuning: Tuning::default(),
    }
}

fn interval_of(policy: &InForce) -> Duration {
    Duration::from_micros(policy.policy.interval.0.0).max(Duration::from_secs(1))
}

fn tell_moves(advice: &Advice) {
    for pool in advice.pools.iter().filter(|pool| pool.explained.from != pool.explained.to) {
        tracing::info!(pool = %pool.pool, explanation = %pool.explained, "another number of replicas is advised");
    }
}
