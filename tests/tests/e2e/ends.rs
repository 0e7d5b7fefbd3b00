//! How daemons end: in time, and with a code that says why.

use std::{net::SocketAddr, process::Command, time::Duration};

use plimsoll_tests::{
    daemons::{AgentSpec, END, PlannerLink, PlannerTls},
    http::Http,
    process::{Process, Signal},
    wait,
    world::World,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::cluster::{PATIENCE, hgx, mutual_tls, planner, planner_shows, quick};

#[tokio::test]
async fn an_agent_ends_in_time_although_its_planner_was_killed() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let (tls, link) = mutual_tls(&world, "authority").unwrap();
    let mut planner = planner(tls).start(&world, &http).await.unwrap();
    let agent = AgentSpec {
        board: Some(hgx()),
        planner: Some(PlannerLink { address: planner.quic, ..link }),
        flags: quick(),
        ..AgentSpec::new("node")
    };
    let mut agent = agent.start(&world, &http).await.unwrap();
    let connected = |status: &serde_json::Value| status["planner"]["acknowledged_window"].as_u64() > Some(0);
    agent.status_where("connected agent", PATIENCE, connected).await.unwrap();
    planner.process.kill().unwrap();
    assert_eq!(agent.process.stop(END).await.unwrap().code(), Some(0), "{}", agent.process.log_tail());
}

#[tokio::test]
async fn a_planner_ends_in_time_with_agents_connected_and_sees_those_that_leave() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let mut planner = planner(PlannerTls::Dev).start(&world, &http).await.unwrap();
    let link = PlannerLink { address: planner.quic, authority: None, identity: None };
    let mut agents = Vec::new();
    for node in ["stays", "leaves"] {
        let spec = AgentSpec {
            board: Some(hgx()),
            planner: Some(link.clone()),
            flags: quick(),
            ..AgentSpec::new(node)
        };
        agents.push(spec.start(&world, &http).await.unwrap());
    }
    let nodes = |page: &serde_json::Value| match page["gpus"].as_array().map(Vec::len) {
        Some(16) => Ok(()),
        gpus => Err(format!("{gpus:?} GPUs")),
    };
    planner_shows(&mut planner, "GPUs of both nodes", "/api/v1/gpus", nodes).await.unwrap();
    assert_eq!(agents[1].process.stop(END).await.unwrap().code(), Some(0));
    let left = |page: &serde_json::Value| {
        let left: Vec<_> =
            page["nodes"].as_array().into_iter().flatten().map(|node| node["left"] == true).collect();
        if left == [true, false] { Ok(()) } else { Err(page.to_string()) }
    };
    planner_shows(&mut planner, "farewell", "/api/v1/nodes", left).await.unwrap();
    assert_eq!(planner.process.stop(END).await.unwrap().code(), Some(0), "{}", planner.process.log_tail());
}

/// For so long nothing more comes to somebody who reads nothing: all buffers are full.
const FULL: Duration = Duration::from_secs(3);

/// Somebody who asks for one page after the other and reads none: the answer under way is never done, and an orderly end waits
/// for it.
async fn reads_nothing(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    // Far more answers than the system keeps.
    let requests = b"GET /metrics HTTP/1.1\r\nHost: daemon\r\n\r\n".repeat(5_000);
    stream.write_all(&requests).await?;
    let (mut unread, mut since) = (0, Instant::now());
    while unread == 0 || since.elapsed() < FULL {
        let now = rustix::io::ioctl_fionread(&stream)?;
        if now != unread {
            (unread, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(stream)
}

/// Both programs, told to give an orderly end so much time.
async fn both(world: &World, http: &Http, drain: &str) -> anyhow::Result<[(Process, SocketAddr); 2]> {
    let drain = ["--shutdown-timeout", drain].map(str::to_owned);
    let mut spec = planner(PlannerTls::Dev);
    spec.flags.extend(drain.clone());
    let planner = spec.start(world, http).await?;
    let mut spec = AgentSpec { board: Some(hgx()), flags: quick(), ..AgentSpec::new("node") };
    spec.flags.extend(drain);
    let agent = spec.start(world, http).await?;
    Ok([(planner.process, planner.address), (agent.process, agent.address)])
}

#[tokio::test]
async fn an_orderly_end_has_a_deadline() {
    let (world, http) = (World::new().unwrap(), Http::default());
    for (mut process, address) in both(&world, &http, "1s").await.unwrap() {
        let _reader = reads_nothing(address).await.unwrap();
        let code = process.stop(END).await.unwrap().code();
        assert_eq!(code, Some(1), "{}", process.log_tail());
        assert!(process.log_tail().contains("did not end within 1s"), "{}", process.log_tail());
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (world, http) = (World::new().unwrap(), Http::default());
    for (mut process, address) in both(&world, &http, "1h").await.unwrap() {
        let _reader = reads_nothing(address).await.unwrap();
        process.signal(Signal::TERM).unwrap();
        wait::until("the first signal's line in the log", END, async || {
            process.check()?;
            let log = process.log_tail();
            Ok(if log.contains("a second signal ends at once") { Ok(()) } else { Err(log) })
        })
        .await
        .unwrap();
        assert_eq!(process.stop(END).await.unwrap().code(), Some(130), "{}", process.log_tail());
    }
}

#[test]
fn a_wrong_configuration_ends_with_64_and_names_the_nearest_key() {
    let world = World::new().unwrap();
    let programs = world.artifacts();
    let file = world.file("wrong.toml");
    for (program, text, says) in [
        (&programs.agent, "listen-htp = '127.0.0.1:0'\n", "did you mean 'listen-http'?"),
        (&programs.agent, "[[endpoint]]\nurl = 'http://127.0.0.1:1'\nmodle = 'm'\n", "did you mean 'model'?"),
        (&programs.agent, "planner = '127.0.0.1:1'\n", "--planner-ca"),
        (&programs.agent, "report-interval = 'soon'\n", "line 1"),
        (&programs.planner, "listen_quik = '127.0.0.1:0'\n", "did you mean 'listen-quic'?"),
        (&programs.planner, "tls-cert = 'x.pem'\n", "tls-key"),
        (&programs.planner, "listen-quic = [\n", "line"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(program).arg("--config").arg(&file).env_clear().output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{text}: {stderr}");
        assert!(stderr.contains(says), "{text}: {stderr}");
    }
}

#[test]
fn help_teaches_and_wrong_flags_end_with_64() {
    let world = World::new().unwrap();
    let run = |program: &std::path::Path, flag: &str| Command::new(program).arg(flag).output().unwrap();
    for (program, words) in [
        (&world.artifacts().agent, ["--planner", "[[endpoint]]", "9474", "9476"]),
        (&world.artifacts().planner, ["--listen-quic", "--dev", "9475", "9476"]),
    ] {
        let output = run(program, "--help");
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in words {
            assert!(help.contains(word), "{}: no {word}", program.display());
        }
        assert_eq!(run(program, "--no-such-flag").status.code(), Some(64));
    }
}
