//! `plimsoll-planner profile`, and profilers' tables wherever a profile is taken, as a person uses them.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Tables that NumPy wrote.
fn tables(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/tests/data").join(name);
    path.display().to_string()
}

fn planner(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plimsoll-planner")).args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = planner(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = planner(arguments);
    assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn policy(folder: &Path, profile: &str) -> PathBuf {
    let path = folder.join("policy.yaml");
    let text = format!(
        "models: [{{name: llama, slo: {{ttft: {{limit: 500ms}}, itl: {{limit: 30ms}}}}, \
         pools: [{{name: chat, max: 4, profile: {profile}}}]}}]"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_imported_profile_is_one_that_a_policy_takes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.json");
    let file = file.to_str().unwrap();
    let told = text(&["profile", "import", &tables("compressed"), "--name", "mine", "-o", file]);
    for words in ["2.5 % prefill, 6.2 % decode", "59063 blocks", "GPUs: 1", "`profile: "] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    let policy = policy(folder.path(), "./mine.json");
    let checked = text(&["check", policy.to_str().unwrap()]);
    assert!(checked.contains("mine") && checked.contains("fine"), "{checked}");
    // Without -o the profile goes to standard output, alone.
    let profile: Value =
        serde_json::from_str(&text(&["profile", "import", &tables("configmap.json")])).unwrap();
    assert_eq!(profile["kv_tokens"], 945_029);
}

#[test]
fn tables_are_taken_wherever_a_profile_is() {
    let folder = tempfile::tempdir().unwrap();
    let checked = text(&["check", policy(folder.path(), &tables("compressed")).to_str().unwrap()]);
    assert!(checked.contains("compressed"), "{checked}");
    let json = text(&[
        "simulate",
        "--workload",
        "poisson:rate=4,duration=1m,osl=50",
        "--profile",
        &tables("llama-3.1-8b-fp8-h200-tp1"),
        "--policy",
        "static:1",
        "--json",
    ]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(1), "{json}");
    assert!(report["runs"][0]["ttft_ms"].is_object(), "{json}");
}

#[test]
fn a_wrong_table_is_told_where_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let grid = tables("perf_data.npz");
    let output = planner(&["check", policy(folder.path(), &grid).to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("pools[0].profile") && said.contains("--gpus-per-replica"), "{said}");
    let said = refused(&["simulate", "--workload", "poisson:rate=1,duration=1m", "--profile", &grid]);
    assert!(said.contains("--gpus-per-replica"), "{said}");
    let cut = folder.path().join("cut.npz");
    let whole = std::fs::read(tables("compressed/selected_decode_interpolation/raw_data.npz")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let said = refused(&["profile", "import", cut.to_str().unwrap()]);
    assert!(said.contains("cut.npz") && said.contains("cut off"), "{said}");
    assert!(refused(&["profile", "import", "/nowhere/at/all"]).contains("/nowhere/at/all can't be read: "));
    assert!(
        refused(&["profile", "show", "llama-3.1-8b-h200"]).contains("did you mean 'llama-3.1-8b-h200-tp1'")
    );
}

#[test]
fn what_a_profile_says_is_shown() {
    let shown =
        text(&["profile", "show", &tables("compressed"), "--isl", "3000", "--osl", "300", "--itl", "30ms"]);
    for words in ["prompts of 3000", "within an ITL of 30.0 ms", "OFF", "decode   -", "19.11"] {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    let json: Value =
        serde_json::from_str(&text(&["profile", "show", "qwen3-32b-h200-tp2", "--json"])).unwrap();
    assert_eq!((&json["form"], &json["profile"]["gpus"]), (&"own".into(), &2.into()));
    assert!(json["at_best"]["most_rps"].as_f64().unwrap() > 1.0, "{json}");
    let list = text(&["profile", "list"]);
    assert!(list.contains("qwen3-32b-h200-tp2") && list.lines().count() > 20, "{list}");
    assert!(text(&["profile", "import", "--help"]).contains("kubectl get configmap"));
}
