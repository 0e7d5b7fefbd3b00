//! `replay`, `explain` and `shadow` as people and pipelines run them.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{
    path::Path,
    process::{Command, Output},
};

use plimsoll_common::{
    ids::{EngineId, PoolName},
    units::Micros,
};
use plimsoll_core::{
    controller::Controller,
    observe::{Engine, Gained, Observation, Replicas},
    plan::Limits as Budget,
    policy::{Load, Policy},
    spec::FleetSpec,
    tuning::Tuning,
};
use plimsoll_planner::journal::{self, Basis, Limits};
use serde_json::Value;

const START: Micros = Micros(1_760_000_000_000_000);

fn run(command: &str, dir: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_plimsoll-planner"))
        .arg(command)
        .arg("--journal")
        .arg(dir)
        .args(more)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// A pool by thresholds: three replicas, busier from step to step.
fn spec() -> FleetSpec {
    let policy =
        "{\"models\": [{\"name\": \"llama\", \"target\": \"load\", \"load\": {\"waitingPerReplica\": 4},
        \"pools\": [{\"name\": \"chat\", \"min\": 1, \"max\": 9, \"parallel\": {\"tp\": 2}}]}]}";
    let policy: Policy = serde_json::from_str(policy).unwrap();
    FleetSpec::from(&policy)
}

/// A journal of forty steps, ten seconds apart; the last step tells another target than was decided where `lie` says so.
fn recorded(lie: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, controller) = journal::resume(
        dir.path(),
        Limits::default(),
        START,
        Basis { policy: String::new(), spec: spec(), tuning: Tuning::default() },
    );
    let mut controller: Controller = controller;
    let chat = PoolName::parse("chat").unwrap();
    for n in 0..40_u64 {
        let now = Micros(START.0 + n * 10_000_000);
        if writer.checkpoint_due(now) {
            writer.checkpoint(now, controller.checkpoint());
        }
        let mut seen = Observation::new(chat.clone(), Micros(10_000_000));
        seen.replicas = Replicas { target: Some(3), ready: 3, ..Replicas::default() };
        let engine = Engine {
            waiting: Some(n),
            gained: Gained { arrived: Some(n + 1), ..Gained::default() },
            ..Engine::default()
        };
        seen.engines.insert(EngineId::parse("e").unwrap(), engine);
        controller.observe(seen.clone());
        let mut step = controller.step(now);
        if lie && n == 39 {
            step.plan.targets.insert(chat.clone(), 77);
        }
        writer.record(now, &[seen], &step);
        // The queue is shorter than this test is quick.
        let written = |stats: journal::Totals| stats.steps_written + stats.steps_dropped;
        while written(writer.stats().totals()) + 4 < n {
            std::thread::yield_now();
        }
    }
    drop(writer);
    dir
}

#[test]
fn the_policy_of_these_tests_is_sized_by_thresholds() {
    assert_eq!(spec().limits, Budget::default());
    let waiting = spec().pools[0].thresholds.map(|load: Load| load.waiting_per_replica.is_some());
    assert_eq!(waiting, Some(true));
}

#[test]
fn a_replay_agrees_with_exit_code_0_and_differs_with_1() {
    let honest = recorded(false);
    let (code, text) = run("replay", honest.path(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("40 steps decided again from 1 checkpoint: 40 agree, 0 differ"), "{text}");
    let (code, text) = run("replay", honest.path(), &["--from", "2025-10-09T08:55:00Z", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["agree"], &json["first"]), (Some(0), &Value::from(30), &Value::Null));

    let lying = recorded(true);
    let (code, text) = run("replay", lying.path(), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("39 agree, 1 differ") && text.contains("plan.targets.chat: 77 was recorded, now"),
        "{text}"
    );
}

#[test]
fn a_pool_is_explained_and_advice_is_scored() {
    let dir = recorded(false);
    let (code, text) = run("explain", dir.path(), &["--pool", "chat", "--at", "2025-10-09T08:54:00Z"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.starts_with("chat at 2025-10-09T08:54:00Z: ") && text.contains("thresholds: sized by"),
        "{text}"
    );
    let (code, text) = run("explain", dir.path(), &["--pool", "chat", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["observed"]["replicas"]["ready"]), (Some(0), &Value::from(3)));
    let (code, text) = run("shadow", dir.path(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("chat (llama): 40 steps over 390.00 s") && text.contains("GPU-hours"), "{text}");
    // Three replicas of two GPUs.
    let (_, text) = run("shadow", dir.path(), &["--json", "--pool", "chat"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let had = json["pools"][0]["had"]["gpu_hours"].as_f64().unwrap();
    assert!((had - 6.0 * 390.0 / 3_600.0).abs() < 1e-9, "{had}");
}

#[test]
fn what_cannot_be_answered_is_told_with_exit_code_64() {
    let nowhere = tempfile::tempdir().unwrap();
    let dir = recorded(false);
    for (command, dir, more, part) in [
        ("replay", nowhere.path(), &[][..], "is no journal"),
        ("replay", dir.path(), &["--to", "2001-01-01T00:00:00Z"][..], "no step in this time"),
        ("replay", dir.path(), &["--from", "1m ago", "--to", "2m ago"][..], "is after --to"),
        ("replay", dir.path(), &["--from", "yesterday"][..], "'yesterday' is no time"),
        ("explain", dir.path(), &["--pool", "chatt"][..], "did you mean 'chat'?"),
        ("explain", dir.path(), &["--pool", "chat", "--at", "5"][..], "the journal begins only at"),
        ("shadow", dir.path(), &["--pool", "chatt"][..], "no step of such a pool"),
    ] {
        let (code, text) = run(command, dir, more);
        assert_eq!(code, Some(64), "{command} {more:?}: {text}");
        assert!(text.contains(part), "{command} {more:?}: {text}");
    }
}
