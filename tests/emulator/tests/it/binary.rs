//! The program: its command line, its address file, its signals.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use hyper::StatusCode;

use crate::client::{Caller, scratch};

fn run(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plimsoll-emulator")).args(options).output().expect("a program that runs")
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(options: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll-emulator"));
    Running(command.args(options).stderr(Stdio::null()).spawn().expect("a program that starts"))
}

async fn address(path: &Path) -> String {
    let written = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(path) {
                let address: serde_json::Value = serde_json::from_str(&text).expect("whole JSON");
                return address["http"].as_str().expect("an address").to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.expect("an address file")
}

#[test]
fn bad_usage_ends_with_64_and_says_what_to_do() {
    for (options, says) in [
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--profile", "gpt-9"], "qwen3-32b-h200-tp2"),
        (vec!["--speed=-1"], "--speed"),
        (vec!["--gpu-activity", "x"], "--gpu"),
        (vec!["--max-num-seqs", "0"], "max_num_seqs"),
    ] {
        let output = run(&options);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{options:?}: {stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn help_teaches() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    // Lines are wrapped to the terminal.
    let help = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["four bytes of UTF-8", "--startup-delay", "Example:"] {
        assert!(help.contains(word), "{word}");
    }
}

#[tokio::test]
async fn it_binds_after_its_delay_and_leaves_on_sigterm() {
    let path = scratch("address.json");
    let started = tokio::time::Instant::now();
    let mut child = spawn(&["--startup-delay", "0.3", "--address-file", path.to_str().unwrap()]);
    let address = address(&path).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    let caller = Caller::new(address);
    assert_eq!(caller.get("/health").await.0, StatusCode::OK);
    let killed = Command::new("kill").arg(child.0.id().to_string()).status().unwrap();
    assert!(killed.success());
    let gone = tokio::task::spawn_blocking(move || child.0.wait()).await.unwrap().unwrap();
    assert_eq!(gone.code(), Some(0));
    assert!(caller.try_send(hyper::Method::GET, "/health", "").await.is_err());
}
