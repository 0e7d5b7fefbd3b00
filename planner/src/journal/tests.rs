//! What holds of every journal.

mod crash;
mod questions;

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use plimsoll_core::{
    controller::{Controller, Step},
    observe::{Engine, Gained, Latency, Observation, Replicas},
    spec::FleetSpec,
    tuning::Tuning,
};
use plimsoll_engine::Profile;
use rusqlite::Connection;

use super::{replay::Replayed, *};

const STEP: Micros = Micros(10_000_000);
const START: Micros = Micros(1_760_000_000_000_000);

/// One pool sized by the SLO and one by thresholds.
fn basis() -> Basis {
    let policy = "
        interval: 10s
        models:
          - name: llama
            slo: { ttft: { limit: 1s }, itl: { limit: 30ms } }
            traffic: { isl: 1000, osl: 200 }
            pools: [{ name: chat, profile: llama-3.1-8b-h200-tp1, min: 1, max: 20, startUp: 60s }]
          - name: qwen
            target: latency
            pools: [{ name: batch, profile: llama-3.1-8b-h200-tp1, min: 1, max: 8 }]";
    let checked =
        crate::policy::parse(policy, &mut |name| Profile::built_in(name).map_err(|error| error.to_string()));
    let policy = checked.unwrap().policy;
    Basis {
        policy: serde_json::to_string(&policy).unwrap(),
        spec: FleetSpec::from(&policy),
        tuning: Tuning::default(),
    }
}

fn controller() -> Controller {
    Controller::new(basis().spec, Tuning::default())
}

/// What both pools tell at step `n`: a load that rises and falls, an uneven share of it for each engine.
fn seen(n: u64) -> Vec<Observation> {
    let one = |pool: &str, ready: u32, rps: f64| {
        let mut seen = Observation::new(PoolName::parse(pool).unwrap(), STEP);
        seen.replicas = Replicas { target: Some(ready), ready, ..Replicas::default() };
        for id in 0..ready {
            let arrived = (rps * 10.0 / f64::from(ready)) as u64 + u64::from(id) + n % 3;
            let engine = Engine {
                running: Some(arrived / 4),
                waiting: Some(n % 2),
                kv_utilization: Some(0.1 + 0.002 * rps),
                gained: Gained {
                    arrived: Some(arrived),
                    arrived_prompt_tokens: Some(arrived * 1_000),
                    finished: Some(arrived),
                    finished_prompt_tokens: Some(arrived * 1_000),
                    finished_output_tokens: Some(arrived * 200),
                    ..Gained::default()
                },
                ttft: Latency {
                    count: arrived,
                    sum: Micros(arrived * 90_000),
                    within: Some((arrived - 1, arrived)),
                },
                ..Engine::default()
            };
            seen.engines.insert(EngineId::parse(&format!("{pool}-{id}")).unwrap(), engine);
        }
        seen
    };
    let rate = 80.0 + 60.0 * (n as f64 / 20.0).sin();
    vec![one("chat", 3, rate), one("batch", 2, 4.0)]
}

fn at(n: u64) -> Micros {
    Micros(START.0 + n * STEP.0)
}

/// Takes a controller through steps as the live planner does, and writes each down.
fn drive(writer: &mut Writer, controller: &mut Controller, steps: std::ops::Range<u64>) -> Vec<Step> {
    steps
        .map(|n| {
            if writer.checkpoint_due(at(n)) {
                writer.checkpoint(at(n), controller.checkpoint());
            }
            let seen = seen(n);
            let step = plain(controller, n);
            writer.record(at(n), &seen, &step);
            // The queue is short, and a test is quicker than any fleet.
            while writer.done() + 8 < writer.seq {
                std::thread::yield_now();
            }
            step
        })
        .collect()
}

fn plain(controller: &mut Controller, n: u64) -> Step {
    for one in seen(n) {
        controller.observe(one);
    }
    controller.step(at(n))
}

fn begun(dir: &Path, limits: Limits) -> (Writer, Controller) {
    let (mut writer, restored) = open(dir, limits, START);
    assert!(restored.is_none());
    writer.begin(START, basis());
    (writer, controller())
}

fn replayed(dir: &Path) -> Replayed {
    let journal = Journal::open(dir).unwrap();
    let segments: Vec<Segment> =
        journal.segments().unwrap().into_iter().filter(|segment| segment.steps > 0).collect();
    replay::replay(&journal, &segments, (Micros::ZERO, Micros::MAX), &mut || ()).unwrap()
}

fn bytes(step: &Step) -> Vec<u8> {
    blob::encode(step)
}

#[test]
fn every_recorded_step_is_decided_again_byte_for_byte_across_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut controller) = begun(dir.path(), Limits::default());
    let steps = drive(&mut writer, &mut controller, 0..130);
    writer.finish(at(130), controller.checkpoint());
    let done = replayed(dir.path());
    assert_eq!((done.agree, done.differ, done.skipped, done.states_differ), (130, 0, 0, 0), "{done:?}");
    // Ten minutes each: it starts from the first and meets the others.
    assert_eq!(done.checkpoints, 1);
    let journal = Journal::open(dir.path()).unwrap();
    let segments = journal.segments().unwrap();
    assert_eq!(segments.iter().map(|segment| segment.steps).collect::<Vec<_>>(), [60, 60, 10, 0]);
    let second = journal.steps(&segments[1]).unwrap();
    assert_eq!(second[7].observations, seen(67));
    assert_eq!(bytes(&second[7].step().unwrap()), bytes(&steps[67]));
    // From the middle it starts from the checkpoint before.
    let middle = replay::replay(&journal, &segments[1..2], (at(70), at(79)), &mut || ()).unwrap();
    assert_eq!((middle.agree, middle.from, middle.to), (10, at(70), at(79)));
}

#[test]
fn what_was_changed_is_found_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut controller) = begun(dir.path(), Limits::default());
    let mut steps = drive(&mut writer, &mut controller, 0..20);
    drop(writer);
    // Somebody says that another target was advised at one step.
    let step = &mut steps[12];
    let chat = PoolName::parse("chat").unwrap();
    step.plan.targets.insert(chat, 99);
    let db = Connection::open(dir.path().join(store::FILE)).unwrap();
    let first: Vec<u8> =
        db.query_row("SELECT decided FROM step ORDER BY id LIMIT 1", [], |row| row.get(0)).unwrap();
    let changed = blob::pack(&bytes(step), &blob::unpack(&first, &[]).unwrap()).unwrap();
    db.execute("UPDATE step SET decided = ? WHERE seq = 13", [changed]).unwrap();
    drop(db);
    let done = replayed(dir.path());
    assert_eq!((done.agree, done.differ), (19, 1));
    let first = done.first.as_ref().unwrap();
    assert_eq!((first.at, first.differences.len()), (at(12), 1));
    assert_eq!(first.differences[0].place, "plan.targets.chat");
    assert!(done.text().contains("plan.targets.chat: 99 was recorded, now "), "{}", done.text());
}

#[test]
fn a_restart_goes_on_as_if_there_had_been_none() {
    for orderly in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut controller) = begun(dir.path(), Limits::default());
        drive(&mut writer, &mut controller, 0..75);
        if orderly {
            writer.finish(at(75), controller.checkpoint());
        } else {
            drop(writer);
        }
        let (mut writer, restored) = open(dir.path(), Limits::default(), at(76));
        let restored = restored.unwrap();
        assert_eq!(restored.steps(), if orderly { 0 } else { 15 });
        let (mut restored, resumed) = restored.controller(basis().spec, Tuning::default());
        assert!(resumed.restoration.same_policy && resumed.restoration.fresh.is_empty(), "{resumed:?}");
        writer.begin(at(76), basis());
        let again = drive(&mut writer, &mut restored, 76..90);
        let before: Vec<Step> = (76..90).map(|n| plain(&mut controller, n)).collect();
        assert_eq!(again.iter().map(bytes).collect::<Vec<_>>(), before.iter().map(bytes).collect::<Vec<_>>());
        drop(writer);
        let done = replayed(dir.path());
        assert_eq!((done.agree, done.differ, done.skipped), (89, 0, 0), "{done:?}");
    }
}

#[test]
fn another_policy_is_another_run_and_what_was_learned_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut controller) = begun(dir.path(), Limits::default());
    drive(&mut writer, &mut controller, 0..30);
    let mut changed = basis();
    changed.spec.pools[0].bounds = (4, 6);
    let (mut next, done) = Controller::restore(changed.spec.clone(), changed.tuning, controller.checkpoint());
    assert!(!done.same_policy && done.fresh.is_empty());
    writer.begin(at(30), changed);
    let steps = drive(&mut writer, &mut next, 30..40);
    drop(writer);
    assert!(steps.iter().all(|step| step.explanation.pools.values().all(|pool| pool.load.now_rps > 0.0)));
    let done = replayed(dir.path());
    assert_eq!((done.agree, done.differ, done.checkpoints), (40, 0, 2), "{done:?}");
}

#[test]
fn the_store_stays_within_its_bound_and_its_age_and_can_still_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let limits =
        Limits { bytes: Limits::LEAST_BYTES, checkpoint_every: Duration::from_secs(60), ..Limits::default() };
    let (mut writer, mut controller) = begun(dir.path(), limits);
    // A checkpoint a minute is far more than the bound holds.
    drive(&mut writer, &mut controller, 0..1_200);
    let stats = writer.stats();
    drop(writer);
    let totals = stats.totals();
    assert_eq!((totals.steps_dropped, totals.checkpoints_dropped, totals.errors), (0, 0, 0), "{totals:?}");
    let size = std::fs::metadata(dir.path().join(store::FILE)).unwrap().len();
    assert!(size <= limits.bytes && totals.bytes <= limits.bytes, "{size} {totals:?}");
    assert!(totals.oldest > START.0, "the oldest went");
    let done = replayed(dir.path());
    assert!(done.agree > 100 && done.agree < 1_200 && done.differ == 0, "{done:?}");

    let (mut writer, restored) =
        open(dir.path(), Limits { age: Duration::from_secs(900), ..limits }, at(1_200));
    let (mut controller, _) = restored.unwrap().controller(basis().spec, Tuning::default());
    writer.begin(at(1_200), basis());
    drive(&mut writer, &mut controller, 1_200..1_220);
    let stats = writer.stats();
    // What waits in the queue is written, too.
    drop(writer);
    let (oldest, kept) = (stats.totals().oldest, 900_000_000 + 60_000_000);
    assert!(oldest + kept >= at(1_219).0 - 60_000_000, "what is older than 15 minutes went: {oldest}");
}

#[test]
fn without_room_steps_are_dropped_and_counted_and_the_planner_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 96 << 10, ..Limits::default() };
    let mut store = store::Store::open(dir.path(), limits).unwrap();
    store.begin(START, &Build::this(), &basis()).unwrap();
    store.checkpoint(START, 0, &[7; 100]).unwrap();
    let noise = |n: u64| (0..4_000_u64).map(|i| (i * i * (n + 3) % 251) as u8).collect::<Vec<u8>>();
    let row = |n: u64| store::Row { seq: n, at: at(n), seen: noise(n), decided: noise(n + 1) };
    let error = (0..200).find_map(|n| store.append(&[row(n)]).err()).unwrap();
    assert!(error.is_full() && !error.needs_another(), "{error}");
    // The next checkpoint makes room: what was before goes.
    store.checkpoint(at(300), 300, &[8; 100]).unwrap();
    store.append(&[row(301)]).unwrap();
}

#[test]
fn two_planners_never_write_one_journal_and_the_second_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (first, mut controller) = begun(dir.path(), Limits::default());
    let (mut second, restored) = open(dir.path(), Limits::default(), START);
    assert!(restored.is_none());
    second.begin(START, basis());
    drive(&mut second, &mut controller, 0..3);
    drop(first);
    // It looks again after half a minute, and begins with a checkpoint.
    drive(&mut second, &mut controller, 3..20);
    let stats = second.stats();
    drop(second);
    let totals = stats.totals();
    assert!(totals.steps_dropped >= 3 && totals.steps_written > 0 && totals.errors >= 1, "{totals:?}");
    assert!(!totals.failing);
    assert_eq!(replayed(dir.path()).differ, 0);
}

/// A journal of 45 steps whose store somebody else holds from the sixth on, until the last value is dropped.
fn blocked(dir: &Path) -> (Writer, Controller, Connection) {
    let (mut writer, mut controller) = begun(dir, Limits::default());
    drive(&mut writer, &mut controller, 0..5);
    while writer.stats().totals().steps_written < 5 {
        std::thread::yield_now();
    }
    let blocker = Connection::open(dir.join(store::FILE)).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 5..45 {
        let step = plain(&mut controller, n);
        writer.record(at(n), &seen(n), &step);
    }
    (writer, controller, blocker)
}

#[test]
fn when_the_store_is_slow_steps_are_dropped_and_the_next_checkpoint_comes_soon() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut controller, blocker) = blocked(dir.path());
    // Two batches are at most in the thread's hands, and the queue is full.
    let dropped = writer.dropped();
    assert!(dropped > 0, "{dropped}");
    drop(blocker);
    assert!(!writer.checkpoint_due(at(45)) || at(45).0 - START.0 >= 60_000_000);
    assert!(writer.checkpoint_due(at(70)), "a tenth of ten minutes is over");
    drive(&mut writer, &mut controller, 70..80);
    drop(writer);
    let done = replayed(dir.path());
    assert_eq!(done.differ, 0);
    assert!(done.agree >= 15, "{done:?}");
}

#[test]
fn a_step_that_is_missing_right_after_a_checkpoint_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store::Store::open(dir.path(), Limits::default()).unwrap();
    store.begin(START, &Build::this(), &basis()).unwrap();
    let mut controller = controller();
    for n in 0..20 {
        if n % 10 == 0 {
            store.checkpoint(at(n), n, &controller.checkpoint().to_bytes().unwrap()).unwrap();
        }
        let (seen, decided) = (blob::encode(&seen(n)), bytes(&plain(&mut controller, n)));
        if n != 10 {
            store.append(&[store::Row { seq: n + 1, at: at(n), seen, decided }]).unwrap();
        }
    }
    drop(store);
    let done = replayed(dir.path());
    assert_eq!((done.agree, done.differ, done.skipped), (10, 0, 9), "{done:?}");
}

#[test]
fn no_step_is_recorded_under_a_policy_that_it_was_not_decided_by() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, controller, blocker) = blocked(dir.path());
    // The policy changes while there is no room in the queue.
    let mut changed = basis();
    changed.spec.pools[0].bounds = (4, 6);
    let (mut next, _) = Controller::restore(changed.spec.clone(), changed.tuning, controller.checkpoint());
    writer.begin(at(45), changed);
    drop(blocker);
    while writer.done() < 45 {
        std::thread::yield_now();
    }
    drive(&mut writer, &mut next, 45..60);
    drop(writer);
    let done = replayed(dir.path());
    assert_eq!((done.differ, done.checkpoints), (0, 2), "{done:?}");
    assert!(done.agree >= 20, "{done:?}");
}

impl Writer {
    /// Steps that were written or dropped.
    fn done(&self) -> u64 {
        let totals = self.stats().totals();
        totals.steps_written + totals.steps_dropped
    }

    /// Steps that were dropped so far.
    fn dropped(&self) -> u64 {
        self.stats().steps_dropped.load(Ordering::Relaxed)
    }
}
