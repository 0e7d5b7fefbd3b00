//! A full disk, under the little that the daemons write: logs, and at their start the files they are asked for.

use std::process::Command;

use plimsoll_tests::{
    daemons::{AgentSpec, END, PlannerLink, PlannerTls},
    http::Http,
    wait,
    world::World,
};

use crate::cluster::{PATIENCE, hgx, planner, quick};

/// A command run by a shell's script, to which it is `"$0" "$@"`.
fn scripted(command: &Command, script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// Every line of a log fails, and nothing else does.
#[tokio::test]
async fn a_full_disk_under_the_logs_stops_nothing() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let full = r#"exec "$0" "$@" --log-filter debug 2>/dev/full"#;
    let command = planner(PlannerTls::Dev).command(&world);
    let mut planner = world.start("planner", scripted(&command, full)).unwrap();
    let address = planner.address("http", PATIENCE).await.unwrap();
    let link = PlannerLink {
        address: planner.address("quic", PATIENCE).await.unwrap(),
        authority: None,
        identity: None,
    };
    let spec =
        AgentSpec { board: Some(hgx()), planner: Some(link), flags: quick(), ..AgentSpec::new("node") };
    let mut agent = world.start("agent", scripted(&spec.command(&world).unwrap(), full)).unwrap();
    wait::until("ten windows", PATIENCE, async || {
        planner.check()?;
        agent.check()?;
        let page = http.get(address, "/api/v1/agents").await?;
        let applied = page.json()?["agents"]["windows"]["applied"].as_u64();
        Ok(if applied >= Some(10) { Ok(()) } else { Err(page.text) })
    })
    .await
    .unwrap();
    for process in [&mut agent, &mut planner] {
        assert_eq!(process.stop(END).await.unwrap().code(), Some(0));
    }
}

/// A file that was asked for and can't be written ends the program at its start, with the file's name; a code says why where
/// even that can't be written.
#[test]
fn a_full_disk_under_files_that_are_asked_for_is_told_at_the_start() {
    let world = World::new().unwrap();
    // No file may grow; standard error is a pipe.
    let no_room = r#"ulimit -f 0; trap "" XFSZ; exec "$0" "$@""#;
    let addresses = world.file("addresses.json");
    let certificate = world.file("dev.pem");
    let agent = AgentSpec { flags: vec!["--gpu".to_owned(), "false".to_owned()], ..AgentSpec::new("node") };
    for (command, flag, path) in [
        (agent.command(&world).unwrap(), "--address-file", &addresses),
        (planner(PlannerTls::Dev).command(&world), "--address-file", &addresses),
        (planner(PlannerTls::Dev).command(&world), "--dev-cert-out", &certificate),
    ] {
        let output = scripted(&command, no_room).arg(flag).arg(path).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&flag[2..]) && error.contains("can't be written"), "{error}");
        assert!(!addresses.exists(), "whole or not at all");
    }
    let mute = r#"exec "$0" "$@" 2>/dev/full"#;
    for program in [&world.artifacts().agent, &world.artifacts().planner] {
        let mut wrong = Command::new(program);
        wrong.args(["--config", "/nowhere/at/all.toml"]);
        assert_eq!(scripted(&wrong, mute).output().unwrap().status.code(), Some(64));
    }
}
