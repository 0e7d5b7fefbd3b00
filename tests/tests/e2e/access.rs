//! Who may read the pages, how they travel, and what of it stands in logs.

use std::{net::SocketAddr, path::Path};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use plimsoll_tests::{
    daemons::{AgentSpec, END, PlannerLink, PlannerTls},
    http::Http,
    https,
    process::Process,
    tls::Authority,
    wait,
    world::World,
};

use crate::cluster::{PATIENCE, hgx, planner, planner_shows, quick};

/// Tokens that stand in no log, as they are or as browsers write them.
const TOKEN: &str = "b3a1f0-page-token-0123456789";
const RENEWED: &str = "77c2e9-page-token-9876543210";
const NODE_TOKEN: &str = "5d0c4b-node-token-5555555555";

/// `Basic` for somebody with this token as the password.
fn basic(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("me:{token}")))
}

/// Replaces a file as Kubernetes does it: another takes its name.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the test's own setup");
    std::fs::rename(&new, path).expect("the test's own setup");
}

async fn status(http: &Http, address: SocketAddr, path: &str, authorization: Option<&str>) -> StatusCode {
    http.get_as(address, path, authorization).await.expect("the test's own setup").status
}

/// A guarded agent and planner that prove each other who they are, and log all there is to log.
struct Guarded {
    agent: plimsoll_tests::daemons::Agent,
    planner: plimsoll_tests::daemons::Planner,
    tokens: std::path::PathBuf,
    http: Http,
    world: World,
}

impl Guarded {
    async fn start() -> Self {
        let (world, http) = (World::new().expect("the test's own setup"), Http::default());
        let authority = Authority::new(&world, "authority").expect("the test's own setup");
        let server = authority.issue(&world, "server", &["127.0.0.1"]).expect("the test's own setup");
        let [tokens, node_token, keys] =
            ["pages.token", "node.token", "node.keys"].map(|name| world.file(name));
        std::fs::write(&tokens, format!("{TOKEN}\n")).expect("the test's own setup");
        std::fs::write(&node_token, NODE_TOKEN).expect("the test's own setup");
        let hash = digest(&SHA256, NODE_TOKEN.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(&keys, format!("node {hash}\n")).expect("the test's own setup");
        let flags = |more: &[&Path]| {
            let names = ["--http-token", "--node-keys", "--planner-token"];
            let mut flags = vec!["--log-filter".to_owned(), "trace".to_owned()];
            for (name, path) in names.iter().zip(more).filter(|(_, path)| !path.as_os_str().is_empty()) {
                flags.extend([(*name).to_owned(), path.display().to_string()]);
            }
            flags
        };
        let mut spec = planner(PlannerTls::Certificate(server, None));
        spec.flags.extend(flags(&[&tokens, &keys]));
        let planner = spec.start(&world, &http).await.expect("the test's own setup");
        let link = PlannerLink {
            address: planner.quic,
            authority: Some(authority.certificate.clone()),
            identity: None,
        };
        let flags = [quick(), flags(&[&tokens, Path::new(""), &node_token])].concat();
        let spec = AgentSpec { board: Some(hgx()), planner: Some(link), flags, ..AgentSpec::new("node") };
        let agent = spec.start(&world, &http).await.expect("the test's own setup");
        Self { agent, planner, tokens, http, world }
    }

    async fn counted(&self, address: SocketAddr, name: &str, token: &str) -> u64 {
        let page = self
            .http
            .get_as(address, "/metrics", Some(&format!("Bearer {token}")))
            .await
            .expect("the test's own setup");
        let value = page.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("a counter").parse().expect("a number")
    }
}

#[tokio::test]
async fn pages_are_read_with_a_token_probes_without_and_no_log_repeats_it() {
    let mut guarded = Guarded::start().await;
    let (agent, planner) = (guarded.agent.address, guarded.planner.address);
    let bearer = |token: &str| format!("Bearer {token}");
    let pages = [
        (agent, vec!["/", "/metrics", "/status", "/v1/gpus", "/v1/stream", "/nowhere"]),
        (planner, vec!["/", "/metrics", "/api/v1/fleet", "/api/v1/agents", "/nowhere"]),
    ];
    for (address, paths) in &pages {
        for path in paths {
            let http = &guarded.http;
            let query = format!("{path}?token={TOKEN}");
            for (path, shown) in [(*path, None), (path, Some(bearer("wrong"))), (&query, None)] {
                let refused = status(http, *address, path, shown.as_deref()).await;
                assert_eq!(refused, StatusCode::UNAUTHORIZED, "{path} with {shown:?}");
            }
        }
        for probe in ["/healthz", "/readyz"] {
            assert_eq!(status(&guarded.http, *address, probe, None).await, StatusCode::OK, "{probe}");
        }
    }
    for (address, path, name) in [
        (agent, "/v1/gpus", "plimsoll_agent_http_unauthorized_total"),
        (planner, "/api/v1/fleet", "plimsoll_planner_http_unauthorized_total"),
    ] {
        for shown in [bearer(TOKEN), basic(TOKEN)] {
            assert_eq!(status(&guarded.http, address, path, Some(&shown)).await, StatusCode::OK);
        }
        let refused =
            pages.iter().find(|(of, _)| *of == address).map_or(0, |(_, paths)| 3 * paths.len() as u64);
        assert_eq!(guarded.counted(address, name, TOKEN).await, refused);
        assert_eq!(
            status(&guarded.http, address, "/nowhere", Some(&bearer(TOKEN))).await,
            StatusCode::NOT_FOUND
        );
    }
    // The node's own token was believed, too.
    wait::until("report of the node", PATIENCE, async || {
        let answer = guarded.http.get_as(planner, "/api/v1/agents", Some(&bearer(TOKEN))).await?;
        Ok(if answer.json()?["agents"]["connected"][0]["node"] == "node" { Ok(()) } else { Err(answer.text) })
    })
    .await
    .unwrap();
    replace(&guarded.tokens, &format!("{RENEWED}\n"));
    for (address, path) in [(agent, "/status"), (planner, "/api/v1/agents")] {
        assert_eq!(
            status(&guarded.http, address, path, Some(&bearer(TOKEN))).await,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(status(&guarded.http, address, path, Some(&bearer(RENEWED))).await, StatusCode::OK);
    }
    for process in [&mut guarded.agent.process, &mut guarded.planner.process] {
        assert_eq!(process.stop(END).await.unwrap().code(), Some(0), "{}", process.log_tail());
        holds_no_secret(process);
    }
    drop(guarded.world);
}

fn holds_no_secret(process: &Process) {
    let log = std::fs::read_to_string(process.log()).expect("a log");
    assert!(log.contains("TRACE"), "{} logged too little to tell", process.name());
    for secret in [TOKEN, RENEWED, NODE_TOKEN] {
        let encoded = STANDARD.encode(format!("me:{secret}"));
        for text in [secret, encoded.as_str()] {
            assert!(!log.contains(text), "{} logged {text}", process.name());
        }
    }
}

#[tokio::test]
async fn pages_travel_by_tls_and_a_renewed_certificate_counts_at_once() {
    let world = World::new().unwrap();
    let (old, new) = (Authority::new(&world, "old").unwrap(), Authority::new(&world, "new").unwrap());
    let pages = old.issue(&world, "pages", &["127.0.0.1"]).unwrap();
    let tokens = world.file("pages.token");
    std::fs::write(&tokens, TOKEN).unwrap();
    let guard = |command: &mut std::process::Command| {
        command.arg("--http-tls-cert").arg(&pages.certificate).arg("--http-tls-key").arg(&pages.key);
        command.arg("--http-token").arg(&tokens);
    };
    let agent = AgentSpec { board: Some(hgx()), flags: quick(), ..AgentSpec::new("node") };
    let mut started = Vec::new();
    for (name, mut command, page) in [
        ("agent", agent.command(&world).unwrap(), "/v1/gpus"),
        ("planner", planner(PlannerTls::Dev).command(&world), "/api/v1/fleet"),
    ] {
        guard(&mut command);
        let mut process = world.start(name, command).unwrap();
        let address = process.address("http", PATIENCE).await.unwrap();
        started.push((process, address, page));
    }
    let bearer = format!("Bearer {TOKEN}");
    for (process, address, page) in &mut started {
        wait::until("ready pages", PATIENCE, async || {
            process.check()?;
            let answer = https::get(*address, "/readyz", &old.certificate, None).await?;
            Ok(if answer.status.is_success() { Ok(()) } else { Err(answer.text) })
        })
        .await
        .unwrap();
        let read = https::get(*address, page, &old.certificate, Some(&bearer)).await.unwrap();
        assert_eq!(read.status, StatusCode::OK);
        let refused = https::get(*address, page, &old.certificate, None).await.unwrap();
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(Http::default().get(*address, "/healthz").await.is_err(), "nothing is served in the clear");
        assert!(https::get(*address, page, &new.certificate, Some(&bearer)).await.is_err());
    }
    let address = started[0].1;
    let mut stream = https::ask(address, "/v1/stream", &old.certificate, Some(&bearer)).await.unwrap();
    let event = stream.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(b"event: gpus"), "{event:?}");
    // Another authority's certificate takes the place of the first one, file by file.
    assert_eq!(new.issue(&world, "pages", &["127.0.0.1"]).unwrap(), pages);
    for (_, address, page) in &started {
        let read = https::get(*address, page, &new.certificate, Some(&bearer)).await.unwrap();
        assert_eq!(read.status, StatusCode::OK);
        assert!(https::get(*address, page, &old.certificate, Some(&bearer)).await.is_err());
    }
    assert!(stream.body_mut().frame().await.unwrap().is_ok(), "what is open goes on");
    for (process, ..) in &mut started {
        // A reader of the stream holds up nobody's end.
        assert_eq!(process.stop(END).await.unwrap().code(), Some(0), "{}", process.log_tail());
    }
}

/// What is not asked for is not open: the defaults listen on this machine alone.
#[tokio::test]
async fn by_default_nobody_else_can_reach_a_page_and_who_opens_them_is_told() {
    let (world, http) = (World::new().unwrap(), Http::default());
    for program in [&world.artifacts().agent, &world.artifacts().planner] {
        let help = std::process::Command::new(program).arg("--help").output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let listening = help.split("--listen-").skip(1);
        for flag in listening {
            let told = flag.split("\n      --").next().unwrap_or_default();
            let default = told.split("[default: ").nth(1);
            assert!(default.is_none_or(|default| default.starts_with("127.0.0.1:")), "--listen-{told}");
        }
    }
    let mut open = planner(PlannerTls::Dev);
    open.http = ([0, 0, 0, 0], 0).into();
    let mut open = open.start(&world, &http).await.unwrap();
    planner_shows(&mut open, "a fleet", "/api/v1/fleet", |_| Ok(())).await.unwrap();
    assert!(open.process.log_tail().contains("--http-token guards them"), "{}", open.process.log_tail());
}
