//! `plimsoll-planner check` as people and pipelines run it.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A page of vLLM whose buckets have an edge at 0.5 s and none at 0.03 s.
const PAGE: &str = "\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"llama-3.1-8b\"} 0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.25\",model_name=\"llama-3.1-8b\"} 1
vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.5\",model_name=\"llama-3.1-8b\"} 2
vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"+Inf\",model_name=\"llama-3.1-8b\"} 2
vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"llama-3.1-8b\"} 2
vllm:time_to_first_token_seconds_sum{engine=\"0\",model_name=\"llama-3.1-8b\"} 0.5
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_bucket{engine=\"0\",le=\"0.025\",model_name=\"llama-3.1-8b\"} 1
vllm:inter_token_latency_seconds_bucket{engine=\"0\",le=\"0.05\",model_name=\"llama-3.1-8b\"} 2
vllm:inter_token_latency_seconds_bucket{engine=\"0\",le=\"+Inf\",model_name=\"llama-3.1-8b\"} 2
vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"llama-3.1-8b\"} 2
vllm:inter_token_latency_seconds_sum{engine=\"0\",model_name=\"llama-3.1-8b\"} 0.05
";

fn policy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies").join(name)
}

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plimsoll-planner")).arg("check").args(arguments).output().unwrap()
}

fn run(name: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = policy(name);
    let output = check(&[&[file.to_str().unwrap()], more].concat());
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_exit_code_tells_fine_remarks_and_refused() {
    let (code, text) = run("good/smallest.yaml", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("TTFT ≤ 500 ms") && text.contains("chat"), "{text}");
    let (code, text) = run("odd/impossible.yaml", &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("impossible"), "{text}");
    let (code, text) = run("bad/unknown-key.yaml", &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("line 6, column 9") && text.contains("'maximum'"), "{text}");
    assert_eq!(run("no-such-file.yaml", &[]).0, Some(2));
    assert_eq!(check(&[]).status.code(), Some(64));
}

#[test]
fn a_page_tells_which_limits_are_no_edge_and_the_flag_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.txt");
    std::fs::write(&page, PAGE).unwrap();
    let page = page.to_str().unwrap();
    let (code, text) = run("good/smallest.yaml", &["--page", page]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("ttft of 500 ms is an edge"), "{text}");
    assert!(text.contains("itl of 30 ms is no edge"), "{text}");
    assert!(text.contains("\"inter_token_latency\":[0.025,0.03,0.05]"), "{text}");
    let (_, text) = run("good/smallest.yaml", &["--page", page, "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["usable"], true);
    assert_eq!(json["page"]["engine"], "vllm");
    assert_eq!(json["page"]["limits"][1]["is_edge"], false);
    assert_eq!(json["understood"]["models"][0]["pools"][0]["gpus_per_replica"], 1);
}

#[test]
fn what_is_no_page_is_told() {
    let file = policy("good/smallest.yaml");
    let file = file.to_str().unwrap();
    for (page, says) in
        [(file, "no metrics page"), ("/nowhere/page", "/nowhere"), ("https://x/metrics", "http://")]
    {
        let output = check(&[file, "--page", page]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{page}: {said}");
        assert!(said.contains(says), "{page}: {said}");
    }
}
