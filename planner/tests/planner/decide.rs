//! `plimsoll-planner decide` as another program runs it.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use plimsoll_planner::decide::Session;
use serde_json::{Value, json};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn start() -> Child {
    Command::new(env!("CARGO_BIN_EXE_plimsoll-planner"))
        .arg("decide")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The lines of a block of the page that is fenced by this.
fn block<'p>(page: &'p str, fence: &str) -> Vec<&'p str> {
    let begin = page.find(fence).unwrap_or_else(|| panic!("no block {fence}")) + fence.len() + 1;
    let length = page[begin..].find("\n```").unwrap();
    page[begin..begin + length].lines().collect()
}

/// Figures in explanations move with every calibration of the core; what they stand in does not.
fn without_figures(mut answer: Value) -> Value {
    if let Some(explained) = answer.get_mut("explanation").and_then(Value::as_object_mut) {
        for text in explained.values_mut() {
            let words = text.as_str().unwrap().split(|c: char| c.is_ascii_digit() || c == '.');
            *text = Value::from(words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("#"));
        }
    }
    answer
}

#[test]
fn the_example_of_the_page_is_true() {
    let page = std::fs::read_to_string(docs().join("protocol.md")).unwrap();
    let asked = block(&page, "```json lines of standard input");
    let told = block(&page, "```json lines of standard output");
    let file = std::fs::read_to_string(docs().join("examples/decide.ndjson")).unwrap();
    assert_eq!(file.lines().collect::<Vec<_>>(), asked);
    let mut child = start();
    let mut input = child.stdin.take().unwrap();
    // Each answer is there before the next line is written: nothing waits for more.
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for (line, expected) in asked.iter().zip(&told) {
        writeln!(input, "{line}").unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(without_figures(answer), without_figures(expected), "{line}");
    }
    assert_eq!(asked.len(), told.len());
    drop(input);
    assert!(answers.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_no_observation_is_answered_and_the_next_line_is_read() {
    let mut child = start();
    let mut input = child.stdin.take().unwrap();
    let policy =
        json!({ "policy": "models:\n- name: m\n  target: latency\n  pools: [{ name: a, max: 4 }]\n" })
            .to_string();
    let lines: [&[u8]; 8] = [
        b"{\"time_s\": 1, \"pools\": {}}\n",
        policy.as_bytes(),
        b"\n\xff\xfe\n\n[1]\n",
        b"{\"time_s\": NaN, \"pools\": {}}\n",
        b"{\"time_s\": 1e999, \"pools\": {}}\n",
        b"{\"time_s\": 5, \"pools\": {\"b\": {}}}\n",
        b"{\"time_s\": 5, \"pools\": {\"a\": {\"kv_utilization\": 45}}}\n",
        b"{\"time_s\": 5, \"pools\": {\"a\": {\"ready\": 3}}}",
    ];
    input.write_all(&lines.concat()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let message = |n: usize| told[n]["error"]["message"].as_str().unwrap_or_default();
    assert!(message(0).contains("'policy'") || message(0).contains("policy"), "{text}");
    assert_eq!(told[1]["pools"], json!(["a"]));
    assert!(message(2).contains("UTF-8") && message(3).contains("empty"), "{text}");
    assert!(message(4).contains("give an object"), "{text}");
    assert!(message(5).contains("no JSON") && message(6).contains("no JSON"), "{text}");
    assert!(message(7).contains("no pool 'b'"), "{text}");
    assert!(message(8).contains("a share, 0 to 1"), "{text}");
    assert_eq!(told[9]["targets"]["a"], 3);
    assert_eq!((told.len(), output.status.code()), (10, Some(0)));
}

#[test]
fn policy_and_profiles_may_be_files() {
    let folder = tempfile::tempdir().unwrap();
    let profile = plimsoll_engine::Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
    let mut profile = serde_json::to_value(&profile).unwrap();
    profile["name"] = json!("mine");
    std::fs::write(folder.path().join("mine.json"), profile.to_string()).unwrap();
    let policy =
        "models: [{ name: m, slo: { ttft: { limit: 1s } }, pools: [{ name: a, profile: mine, max: 4 }] }]";
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, policy).unwrap();
    let path = folder.path().join("mine.json");
    for profiles in [json!({ "mine": path.to_str() }), json!({ "mine": profile }), json!([profile])] {
        for policy in [json!(file.to_str()), json!(format!("{policy}\n"))] {
            let line = json!({ "policy": policy, "profiles": profiles, "history": { "a": [[-120, 3], [-60, 4.5]] } });
            let answer = Session::new(false).answer(line.to_string().as_bytes());
            assert!(answer.starts_with("{\"ready\":true"), "{answer}");
        }
    }
    let error = |line: Value| Session::new(false).answer(line.to_string().as_bytes());
    assert!(error(json!({ "policy": file.to_str() })).contains("mine"));
    assert!(error(json!({ "policy": "no/such/file" })).contains("no/such/file"));
    assert!(error(json!({ "policy": "-" })).contains("standard input"));
    assert!(error(json!({ "policy": 7 })).contains("a number"));
    assert!(error(json!({ "policy": policy, "polcy": 1 })).contains("error"));
}

const HEADER: &str = r#"{"policy": {"models": [{"name": "m", "slo": {"ttft": {"limit": "1s"}, "itl": {"limit": "30ms"}}, "traffic": {"isl": 1000, "osl": 200}, "pools": [{"name": "a", "profile": "llama-3.1-8b-h200-tp1", "max": 30}]}]}}"#;

/// What is told of the pool in the n-th line, of so many requests in the window.
type Way<'w> = &'w dyn Fn(u64, u64) -> Value;

/// Four replicas at some requests a second for so long, told in one way or another; the last answer.
fn told(rps: u64, way: Way<'_>) -> Value {
    let mut session = Session::new(true);
    session.answer(HEADER.as_bytes());
    let mut last = Value::Null;
    for n in 1..=30 {
        let line = json!({ "time_s": n * 10, "pools": { "a": way(n, rps * 10) } });
        last = serde_json::from_str(&session.answer(line.to_string().as_bytes())).unwrap();
        assert!(last.get("targets").is_some(), "{last}");
    }
    last
}

fn four(engine: &dyn Fn(u64) -> Value) -> Value {
    json!({ "ready": 4, "engines": (0..4).map(engine).collect::<Vec<_>>() })
}

#[test]
fn the_same_load_told_in_other_words_is_decided_alike() {
    let each = |requests: u64, key: &str, n: u64| {
        let mut engine =
            json!({ "running": requests / 20, "waiting": 0, "kv_utilization": 0.1, "itl_mean_s": 0.009 });
        engine[key] = json!({
            "finished": n * requests / 4, "prefilled_tokens": n * requests * 250, "generated_tokens": n * requests * 50,
        });
        engine
    };
    let ways: [(&str, Way<'_>); 5] = [
        ("gained", &|_, requests| four(&|_| each(requests, "gained", 1))),
        ("totals", &|n, requests| four(&|_| each(requests, "totals", n))),
        ("the pool as a whole", &|_, requests| {
            json!({
                "ready": 4, "running": requests as f64 / 10.0 * 1.8, "waiting": 0, "kv_utilization": 0.1, "itl_mean_s": 0.009,
                "gained": { "finished": requests, "prefilled_tokens": requests * 1_000, "generated_tokens": requests * 200 },
            })
        }),
        ("the door", &|_, requests| {
            json!({
                "ready": 4, "running": requests as f64 / 10.0 * 1.8, "waiting": 0, "kv_utilization": 0.1, "itl_mean_s": 0.009,
                "door": { "arrived": requests },
            })
        }),
        ("the pace of tokens", &|_, requests| {
            // By Little 45 ms times 200 tokens a request.
            four(
                &|_| json!({ "running": requests as f64 / 4.0 / 10.0 * 1.8, "waiting": 0, "itl_mean_s": 0.009 }),
            )
        }),
    ];
    for rps in [20, 160] {
        let targets: Vec<(u64, &str)> = ways
            .iter()
            .map(|(name, way)| (told(rps, way)["targets"]["a"].as_u64().unwrap(), *name))
            .collect();
        let (least, most) = (targets.iter().min().unwrap().0, targets.iter().max().unwrap().0);
        assert!(most <= least + least.div_ceil(4), "at {rps} requests a second: {targets:?}");
    }
}

#[test]
fn counts_after_a_refused_line_and_after_a_gap_are_no_rate() {
    let line = |time: u64, finished: u64| {
        let engine = json!({ "running": 5, "waiting": 0, "gained": { "finished": finished } });
        json!({ "time_s": time, "pools": { "a": { "ready": 2, "target": 2, "engines": { "e": engine, "f": {} } } } })
    };
    let mut session = Session::new(true);
    session.answer(HEADER.as_bytes());
    let rate = |session: &mut Session, line: &Value| {
        let answer: Value = serde_json::from_str(&session.answer(line.to_string().as_bytes())).unwrap();
        answer["details"]["a"]["load"]["now_rps"].as_f64().unwrap()
    };
    rate(&mut session, &line(10, 50));
    // One of two replicas is silent, so that what the other tells counts twice.
    assert!((rate(&mut session, &line(20, 50)) - 10.0).abs() < 1e-9);
    assert!(session.answer(b"nonsense").contains("error"));
    assert!(rate(&mut session, &line(30, 900)).abs() < 1e-9);
    rate(&mut session, &line(40, 50));
    assert!((rate(&mut session, &line(50, 50)) - 10.0).abs() < 1e-9);
    assert!(rate(&mut session, &line(50_000, 9_000_000)).abs() < 1e-9);
}
