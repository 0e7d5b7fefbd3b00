//! From the first process to the last: start, show, end.

use std::{io, process::ExitCode, time::Duration};

use plimsoll_tests::{workload::Request, world::World};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};

use crate::{
    act,
    args::{Args, Scenario},
    faults, load,
    plan::Plan,
    screen::Screen,
    stage::Stage,
    watch::Watch,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The exit code after a second signal (128 + SIGINT).
const EXIT_SECOND_SIGNAL: u8 = 130;

/// Plays the demo until its time is over, its trace is, or somebody asks it to end.
///
/// # Errors
/// When a process does not come up, or ends unasked; with the end of its log.
pub async fn run(args: &Args, world: World, trace: Option<Vec<Request>>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut screen = Screen::new(args.plain);
    let plan = if args.act { Plan::to_act() } else { Plan::new(args.nodes) };
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
        None if args.act => act::requests(&plan, args.seed),
        Some(trace) => load::dealt(&plan.models, trace, args.seed),
        None => load::synthetic(&plan.models, args.rate(), args.seed),
    };
    let mut watch = Watch::begin(&stage, &plan, requests);
    let shown = tokio::select! {
        biased;
        () = signals.next() => Ok(ExitCode::SUCCESS),
        shown = show(&mut watch, &mut stage, &mut screen, (args, &plan)) => shown,
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
            shown.and_then(|code| ended.map(|()| code))
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
    (args, plan): (&Args, &Plan),
) -> anyhow::Result<ExitCode> {
    if args.act {
        return act::play(watch, stage, screen, plan).await;
    }
    match args.scenario {
        Scenario::Steady => steady(watch, stage, screen, args.duration).await.map(|()| ExitCode::SUCCESS),
        Scenario::Faults => faulty(watch, stage, screen).await,
    }
}

/// Lets engines fail, and says what was seen of it.
async fn faulty(watch: &mut Watch, stage: &mut Stage, screen: &mut Screen) -> anyhow::Result<ExitCode> {
    let findings = faults::play(watch, stage, screen).await?;
    watch.finish();
    let (mut lines, all) = faults::summary(&findings);
    lines.insert(0, String::new());
    screen.say(&lines)?;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn steady(
    watch: &mut Watch,
    stage: &mut Stage,
    screen: &mut Screen,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let over =
        |watch: &Watch| duration.is_some_and(|duration| watch.begun.elapsed() >= duration) || watch.is_over();
    while !over(watch) {
        let left = duration.map_or(Duration::MAX, |duration| duration.saturating_sub(watch.begun.elapsed()));
        tokio::select! { _ = looks.tick() => (), () = tokio::time::sleep(left) => () }
        stage.check()?;
        let frame = watch.frame(stage).await?;
        screen.show(&frame)?;
    }
    watch.finish();
    screen.say(&[String::new(), "the load is over; waiting for the last answers and reports".to_owned()])?;
    let summary = watch.settle(stage).await?;
    screen.say(&summary)?;
    Ok(())
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
