//! Golden scenarios: every file of `tests/golden` is a policy, what is observed, and what must be decided.
//!
//! A file describes phases; the harness writes them out as lines of `decide`, lets the replicas follow the targets where
//! `follow` says so, and holds the answers against `expect`. What is not so yet is a `known_gap` with its reason: it is
//! printed and counted, and fails once it is mended, so that it is taken out.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{collections::BTreeMap, path::Path};

use plimsoll_planner::decide::Session;
use serde::Deserialize;
use serde_json::{Value, json};

/// Seconds between two lines.
const EVERY: u32 = 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows, for whoever reads the file.
    #[serde(rename = "about")]
    _about: String,
    policy: Value,
    phases: Vec<Phase>,
    expect: Vec<Expect>,
}

/// So many seconds of the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phase {
    seconds: u32,
    /// Every so many seconds the rates are on and off in turn.
    #[serde(default)]
    square_s: Option<u32>,
    pools: BTreeMap<String, Pool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    /// Ready replicas at the begin of the phase; as before without.
    ready: Option<u32>,
    /// Whether replicas come and go as decided; after so many seconds they are ready, or never.
    start_s: Option<u32>,
    /// Requests a second in all, and in the other half of a square wave.
    rps: f64,
    #[serde(default)]
    low_rps: f64,
    isl: f64,
    osl: f64,
    /// Seconds that a request runs.
    runs_s: f64,
    itl_s: f64,
    /// The engine that has all that waits, and how much that is.
    #[serde(default)]
    hot: Option<u64>,
    /// The number of engines that tell nothing.
    #[serde(default)]
    silent: usize,
    /// The number of engines that are slower, and by how much.
    #[serde(default)]
    slow: Option<(usize, f64)>,
    #[serde(default)]
    waiting: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    pool: String,
    from_s: u32,
    to_s: u32,
    /// Targets in this time, the least and the most.
    target: Option<(u64, u64)>,
    /// A reason that is given at least once in this time.
    reason: Option<String>,
    /// A reason that is never given in this time.
    never: Option<String>,
    /// A role switch that is proposed at least once in this time: to this pool, of so many replicas.
    switch: Option<(String, u64)>,
    /// Changes of direction in this time at most.
    reversals: Option<usize>,
    /// Changes of the target upwards in this time at most.
    rises: Option<usize>,
    known_gap: Option<String>,
}

#[derive(Debug, Default)]
struct Replicas {
    ready: u32,
    /// Since when.
    starting: Vec<u32>,
    target: u32,
}

/// The answer for a pool at a time: target, reasons, and role switches from it.
type Decided = BTreeMap<(String, u32), (u64, Vec<String>, Vec<(String, u64)>)>;

/// The role switches that an answer proposes for replicas of a pool.
fn switches(answer: &Value, from: &str) -> Vec<(String, u64)> {
    let all = answer["switches"].as_array().map_or(&[][..], Vec::as_slice);
    let of = all.iter().filter(|switch| switch["from"] == from);
    of.map(|switch| (switch["to"].as_str().unwrap().to_owned(), switch["replicas"].as_u64().unwrap()))
        .collect()
}

fn observed(pool: &Pool, replicas: &Replicas, rps: f64, now: u32) -> Value {
    let count = replicas.ready as usize;
    let engine = |place: usize| {
        let slow = pool.slow.filter(|(slow, _)| place < *slow).map_or(1.0, |(_, by)| by);
        let each = rps / count.max(1) as f64 * f64::from(EVERY) / slow;
        let waiting = pool.hot.map_or(pool.waiting, |hot| if place == 0 { hot } else { 0 });
        json!({
            "running": each / f64::from(EVERY) * pool.runs_s * slow, "waiting": waiting,
            "kv_utilization": (each / f64::from(EVERY) * pool.runs_s * (pool.isl + pool.osl) / 900_000.0).min(0.9),
            "gained": {
                "arrived": rps / count.max(1) as f64 * f64::from(EVERY), "finished": each,
                "finished_prompt_tokens": each.round() * pool.isl, "finished_output_tokens": each.round() * pool.osl,
                "arrived_prompt_tokens": each.round() * pool.isl,
                "prefilled_tokens": each * pool.isl, "generated_tokens": each * pool.osl,
            },
            "itl_mean_s": pool.itl_s * slow,
        })
    };
    let engines: serde_json::Map<String, Value> =
        (pool.silent..count).map(|place| (format!("e{place}"), engine(place))).collect();
    let starting: Vec<u32> = replicas.starting.iter().map(|since| now - since).collect();
    json!({ "ready": count, "starting": starting, "target": replicas.target, "engines": engines })
}

/// Replicas become ready, and their number follows the target.
fn follow(replicas: &mut Replicas, pool: &Pool, target: Option<u32>, now: u32) {
    let Some(start_s) = pool.start_s else { return };
    let ready = replicas.starting.iter().filter(|since| now - **since >= start_s).count() as u32;
    replicas.starting.retain(|since| now - *since < start_s);
    replicas.ready += ready;
    replicas.target = target.unwrap_or(replicas.target);
    let coming = replicas.ready + replicas.starting.len() as u32;
    if replicas.target > coming {
        replicas.starting.extend(vec![now; (replicas.target - coming) as usize]);
    }
    while replicas.target < replicas.ready + replicas.starting.len() as u32 {
        if replicas.starting.pop().is_none() {
            replicas.ready -= 1;
        }
    }
}

fn run(scenario: &Scenario) -> Decided {
    let mut session = Session::new(false);
    let ready = session.answer(json!({ "policy": scenario.policy }).to_string().as_bytes());
    assert!(ready.starts_with("{\"ready\""), "{ready}");
    let mut replicas: BTreeMap<String, Replicas> = BTreeMap::new();
    let (mut now, mut decided) = (0, Decided::new());
    for phase in &scenario.phases {
        for (name, pool) in &phase.pools {
            let held = replicas.entry(name.clone()).or_default();
            if let Some(ready) = pool.ready {
                *held = Replicas { ready, target: ready, starting: Vec::new() };
            }
        }
        let end = now + phase.seconds;
        while now < end {
            now += EVERY;
            let high = phase.square_s.is_none_or(|half| (now / half).is_multiple_of(2));
            let told: serde_json::Map<String, Value> = phase
                .pools
                .iter()
                .map(|(name, pool)| {
                    let rps = if high { pool.rps } else { pool.low_rps };
                    (name.clone(), observed(pool, &replicas[name], rps, now))
                })
                .collect();
            let line = json!({ "time_s": now, "pools": told }).to_string();
            let answer: Value = serde_json::from_str(&session.answer(line.as_bytes())).unwrap();
            for (name, pool) in &phase.pools {
                let target = answer["targets"][name].as_u64().unwrap_or_else(|| panic!("{answer}"));
                let reasons = serde_json::from_value(answer["reasons"][name].clone()).unwrap();
                decided.insert((name.clone(), now), (target, reasons, switches(&answer, name)));
                let held = replicas.entry(name.clone()).or_default();
                follow(held, pool, u32::try_from(target).ok(), now);
            }
        }
    }
    decided
}

/// What is not as expected.
fn misses(expect: &Expect, decided: &Decided) -> Vec<String> {
    let in_time = || {
        let of_pool = decided.iter().filter(|((pool, _), _)| *pool == expect.pool);
        of_pool.filter(|((_, at), _)| (expect.from_s..=expect.to_s).contains(at))
    };
    let within: Vec<(u32, u64, &Vec<String>)> =
        in_time().map(|((_, at), (target, reasons, _))| (*at, *target, reasons)).collect();
    assert!(!within.is_empty(), "nothing was decided then: {expect:?}");
    let mut misses = Vec::new();
    if let Some((least, most)) = expect.target
        && let Some((at, target, reasons)) =
            within.iter().find(|(_, target, _)| !(least..=most).contains(target))
    {
        misses.push(format!("at {at} s the target is {target} ({reasons:?}), not {least} to {most}"));
    }
    if let Some(reason) = &expect.reason
        && !within.iter().any(|(_, _, reasons)| reasons.contains(reason))
    {
        misses.push(format!("{reason} is never a reason; at the end it is {:?}", within.last().unwrap().2));
    }
    if let Some(never) = &expect.never
        && let Some((at, _, _)) = within.iter().find(|(_, _, reasons)| reasons.contains(never))
    {
        misses.push(format!("{never} is a reason at {at} s"));
    }
    if let Some(switch) = &expect.switch
        && !in_time().any(|(_, (_, _, switches))| switches.contains(switch))
    {
        misses.push(format!("{switch:?} is never proposed"));
    }
    let moves: Vec<bool> =
        within.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].1 > pair[0].1).collect();
    let reversals = moves.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let rises = moves.iter().filter(|up| **up).count();
    if expect.reversals.is_some_and(|most| reversals > most) {
        misses.push(format!("{reversals} reversals"));
    }
    if expect.rises.is_some_and(|most| rises > most) {
        let targets: Vec<u64> = within.iter().map(|(_, target, _)| *target).collect();
        misses.push(format!("{rises} rises: {targets:?}"));
    }
    misses
}

#[test]
fn every_golden_scenario_is_decided_as_it_must() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    let (mut wrong, mut gaps) = (Vec::new(), 0);
    for file in files {
        let scenario: Scenario = serde_json::from_str(&std::fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let decided = run(&scenario);
        for expect in &scenario.expect {
            let misses = misses(expect, &decided);
            match &expect.known_gap {
                None => wrong.extend(misses.into_iter().map(|miss| format!("{}: {miss}", file.display()))),
                Some(why) if misses.is_empty() => {
                    wrong.push(format!("{}: mended, take it out: {why}", file.display()));
                }
                Some(why) => {
                    gaps += 1;
                    println!("KNOWN GAP: {}: {why}: {misses:?}", file.display());
                }
            }
        }
    }
    println!("{gaps} known gaps");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
