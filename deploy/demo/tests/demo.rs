//! The demo itself, from its first line to its last.

use std::{fs, net::TcpStream, path::Path, process::Command, time::Duration};

use plimsoll_tests::{
    process::{Process, Signal},
    wait,
};

/// The programs may have to be built first.
const PATIENCE: Duration = Duration::from_secs(600);

/// A demo whose temporary folders are in `folder`.
fn start(folder: &Path, args: &[&str]) -> Process {
    let temporary = folder.join("tmp");
    fs::create_dir(&temporary).expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll-demo"));
    command.args(args).env("TMPDIR", temporary);
    Process::start("demo", command, folder.join("log"), folder.join("addresses.json"), false).expect("a demo")
}

fn log(demo: &Process) -> String {
    fs::read_to_string(demo.log()).expect("its log")
}

/// Nothing is left: no folder, and nobody listens where the log says that somebody did.
fn left_nothing(folder: &Path, log: &str) {
    let left: Vec<_> = fs::read_dir(folder.join("tmp")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    let addresses: Vec<&str> =
        log.split("http://").skip(1).filter_map(|rest| rest.split(['/', ' ', '\n']).next()).collect();
    assert!(addresses.len() >= 5, "{log}");
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "somebody listens on {address}");
    }
}

#[tokio::test]
async fn it_ends_by_itself_with_counts_that_are_the_engines_own_and_bounds_that_hold() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = start(folder.path(), &["--duration", "6s", "--rate", "20"]);
    let status = demo.wait(PATIENCE).await.unwrap();
    let log = log(&demo);
    assert_eq!(status.code(), Some(0), "{log}");
    for model in ["llama-3.1-8b", "qwen3-32b"] {
        let counted = |line: &&str| {
            line.starts_with(&format!("{model}: the planner")) && line.ends_with("as the engines recorded")
        };
        assert_eq!(log.lines().filter(counted).count(), 1, "{log}");
        let percentiles = log.lines().filter(|line| line.starts_with(model) && line.ends_with('%')).count();
        assert_eq!(percentiles, 6, "{log}");
    }
    // Marks a value outside the planner's bounds.
    assert!(!log.contains('!'), "{log}");
    left_nothing(folder.path(), &log);
}

#[tokio::test]
async fn faults_are_shown_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = start(folder.path(), &["--scenario", "faults", "--plain"]);
    let status = demo.wait(PATIENCE).await.unwrap();
    let log = log(&demo);
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(
        log.lines().filter(|line| line.starts_with("all 8 shown for what they are")).count(),
        1,
        "{log}"
    );
    assert!(!log.contains("MISSED"), "{log}");
    left_nothing(folder.path(), &log);
}

/// Whether the SLO is held depends on what else this machine does at the moment: the demo says so by its exit code, and here
/// counts that the advice was followed up and down.
#[tokio::test]
async fn the_advice_is_followed_through_a_burst() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = start(folder.path(), &["--act", "--plain"]);
    let status = demo.wait(PATIENCE).await.unwrap();
    let log = log(&demo);
    assert!(matches!(status.code(), Some(0 | 1)), "{log}");
    let lines = |piece: &str| log.lines().filter(|line| line.contains(piece)).count();
    let held = usize::from(status.success());
    assert_eq!((lines("SLO held"), lines("SLO MISSED")), (held, 1 - held), "{log}");
    let (started, stopped) = (lines(": started on GPU"), lines(": stopped, nothing was in flight"));
    assert!(started >= 1 && stopped >= 1, "{started} started, {stopped} stopped\n{log}");
    assert_eq!(lines(" GPU-hours; saved "), 1, "{log}");
    assert!(log.contains(", 0 failed"), "{log}");
    left_nothing(folder.path(), &log);
}

#[tokio::test]
async fn an_interrupt_ends_it_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = start(folder.path(), &["--nodes", "1"]);
    wait::until("running demo", PATIENCE, async || {
        demo.check()?;
        let log = log(&demo);
        Ok(if log.contains("req/s") { Ok(()) } else { Err(log) })
    })
    .await
    .unwrap();
    demo.signal(Signal::INT).unwrap();
    let status = demo.wait(Duration::from_secs(30)).await.unwrap();
    let log = log(&demo);
    assert_eq!(status.code(), Some(0), "{log}");
    left_nothing(folder.path(), &log);
}

#[tokio::test]
async fn a_trace_that_makes_no_sense_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    fs::write(&trace, "timestamp_ms,input_tokens,output_tokens\n0,many,1\n").unwrap();
    let mut demo = start(folder.path(), &["--workload", trace.to_str().unwrap()]);
    assert_eq!(demo.wait(PATIENCE).await.unwrap().code(), Some(64));
    assert!(log(&demo).contains("line 2, column 2 (input_tokens): 'many' is no number"), "{}", log(&demo));
}
