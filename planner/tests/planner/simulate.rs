//! `plimsoll-planner simulate`, as a person runs it.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plimsoll-planner"))
        .arg("simulate")
        .args(arguments)
        .output()
        .expect("the planner starts")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nobody watches: no progress bar is drawn.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).expect("the planner writes text")
}

#[test]
fn without_a_policy_it_says_how_many_replicas_are_needed() {
    let text = stdout(&simulate(&["--workload", "poisson:rate=30,duration=2m,osl=100", "--itl", "15ms"]));
    assert!(text.contains("This workload needs"), "{text}");
    assert!(text.contains("the smallest that keeps the SLO"), "{text}");
    let text = stdout(&simulate(&["--workload", "poisson:rate=1,duration=1m", "--ttft", "1ms"]));
    assert!(text.contains("No static fleet keeps this SLO"), "{text}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let page = |name: &str| folder.path().join(name).display().to_string();
    let run = |name: &str, seed: &str| {
        let html = page(name);
        let text = stdout(&simulate(&[
            "--workload",
            "clients:rate=4,duration=3m",
            "--policy",
            "static:1",
            "--compare",
            "static:2",
            "--noise",
            "0.1",
            "--seed",
            seed,
            "--sweep",
            "--json",
            "--html",
            &html,
        ]));
        (text, std::fs::read(html).unwrap())
    };
    let (one, again, other) = (run("a.html", "7"), run("b.html", "7"), run("c.html", "8"));
    assert!(one == again && one != other);
    let json: serde_json::Value = serde_json::from_str(&one.0).unwrap();
    assert_eq!(json["runs"][1]["policy"], "static 2");
    assert!(json["runs"][0]["score"]["gpu_hours"]["total"].as_f64().unwrap() > 0.0);
    // The page loads nothing: no element refers to anything outside.
    let html = String::from_utf8(one.1).unwrap();
    assert!(
        !html.contains("src=")
            && !html.contains("<link")
            && !html.contains("@import")
            && !html.contains("fetch(")
    );
    assert!(html.contains("application/json") && html.contains("Attainment against GPU-hours"));
}

#[test]
fn bounds_are_found_and_mishaps_happen() {
    let run = |faults: &[&str]| {
        let mut arguments =
            vec!["--workload", "square:low=1,high=20,period=4m,duration=8m,isl=1500", "--start-up", "20s"];
        arguments.extend([
            "--profile",
            "qwen3-32b-h200-tp2",
            "--ttft",
            "3s",
            "--initial",
            "oracle",
            "--json",
        ]);
        arguments.extend(["--policy", "static-best", "--compare", "causal,oracle"]);
        arguments.extend(faults);
        let json: serde_json::Value = serde_json::from_str(&stdout(&simulate(&arguments))).unwrap();
        json["runs"].as_array().unwrap().clone()
    };
    let hours = |run: &serde_json::Value| run["score"]["gpu_hours"]["total"].as_f64().unwrap();
    let name = |run: &serde_json::Value| run["policy"].as_str().unwrap().to_owned();
    let runs = run(&[]);
    let names: Vec<String> = runs.iter().map(name).collect();
    assert!(names[0].starts_with("static best: static "), "{names:?}");
    assert!(names[1].starts_with("causal bound: ") && names[2].starts_with("oracle at 0."), "{names:?}");
    assert!(hours(&runs[2]) < hours(&runs[0]), "{} {}", hours(&runs[2]), hours(&runs[0]));
    assert!(runs.iter().all(|run| run["aborted"] == 0));

    let faults = ["--fault", "death:at=210s", "--fault", "slow:from=210s,to=220s,factor=1.2"];
    let runs = run(&faults);
    assert!(runs.iter().any(|run| run["aborted"].as_u64().unwrap() > 0));
    let runs = run(&[&faults[..], &["--lost", "retry"]].concat());
    assert!(runs.iter().all(|run| run["aborted"] == 0));
}

#[test]
fn what_cannot_be_run_is_said_with_what_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    std::fs::write(&trace, "timestamp_ms,input_tokens,output_tokens\n0,10,5\n1,ten,5\n").unwrap();
    let trace = trace.display().to_string();
    for (arguments, said) in [
        (vec!["--workload", trace.as_str()], "trace.csv:3: input_tokens is \"ten\""),
        (vec!["--workload", "nothing.csv"], "there is no trace at nothing.csv"),
        (vec!["--workload", "sine:low=1"], "sine needs high="),
        (vec!["--workload", "poisson:rate=1", "--policy", "magic"], "choose one of static"),
        (vec!["--workload", "poisson:rate=1", "--policy", "static:1+2"], "names 2 numbers of replicas"),
        (vec!["--workload", "poisson:rate=1", "--profile", "gpt"], "qwen3-32b-h200-tp2"),
        (vec!["--workload", "poisson:rate=1", "--start-up", "soon"], "give a time with its unit"),
        (vec!["--workload", "poisson:rate=1", "--goal", "99"], "--goal cannot be 99"),
        (vec!["--workload", "poisson:rate=1", "--policy", "causal:period=no"], "period=SECONDS"),
        (vec!["--workload", "poisson:rate=1", "--policy", "oracle:x"], "static-best, causal and oracle"),
        (vec!["--workload", "poisson:rate=1", "--initial", "some"], "give a number, P+D, or oracle"),
        (vec!["--workload", "poisson:rate=1", "--fault", "fire:at=1m"], "one of death, slow"),
        (vec!["--workload", "poisson:rate=1", "--fault", "death:at=1m,pool=decode"], "one of aggregated"),
        (vec![], "--workload"),
    ] {
        let output = simulate(&arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
