//! Everything that can happen to engines, each told alike by the agent's and the planner's API, by the real programs at
//! their default pace.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::Duration,
};

use plimsoll_tests::{
    daemons::{
        Agent, AgentSpec, END, Emulator, EmulatorSpec, EndpointSpec, Planner, PlannerLink, PlannerTls,
    },
    http::Http,
    openai::Prompt,
    process::Signal,
    wait,
    world::World,
};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::cluster::{LLAMA, PATIENCE, planner};

/// Within which a fault shows, from the moment it happens.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
const PROFILE: &str = "llama-3.1-8b-h100-tp1";

/// An agent, a planner and engines under a load that never ends.
struct Scene {
    load: Load,
    agent: Agent,
    planner: Planner,
    engines: Vec<Arc<Emulator>>,
    http: Http,
    world: World,
}

/// Keeps so many long answers in flight at an engine; who is cut off asks again.
struct Load(JoinSet<()>);

impl Load {
    fn add(&mut self, engine: &Arc<Emulator>, answers: u64) {
        for id in 0..answers {
            let engine = Arc::clone(engine);
            self.0.spawn(async move {
                for n in 0.. {
                    let prompt =
                        Prompt { id: id + n * 1000, input_tokens: 64, output_tokens: 400, shared_tokens: 0 };
                    if engine.complete(prompt).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            });
        }
    }
}

/// An endpoint with these keys besides, as TOML.
fn endpoint(id: &str, url: String, keys: &str) -> EndpointSpec {
    EndpointSpec { id: id.to_owned(), url, keys: toml::from_str(keys).unwrap(), ..EndpointSpec::default() }
}

impl Scene {
    /// Engines of these names, flags and endpoint keys, all seen as ready by agent and planner.
    async fn start(node: &str, engines: &[(&str, &[&str], &str)]) -> Self {
        let (world, http) = (World::new().unwrap(), Http::default());
        let planner = planner(PlannerTls::Dev).start(&world, &http).await.unwrap();
        let (mut endpoints, mut started) = (Vec::new(), Vec::new());
        for (name, flags, keys) in engines {
            let spec = EmulatorSpec {
                flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                ..EmulatorSpec::new(name, LLAMA, PROFILE)
            };
            let engine = spec.start(&world, &http).await.unwrap();
            endpoints.push(endpoint(
                name,
                engine.url(),
                &keys.replace("WORLD", &world.folder().to_string_lossy()),
            ));
            started.push(Arc::new(engine));
        }
        let link = PlannerLink { address: planner.quic, authority: None, identity: None };
        let flags = vec!["--gpu".to_owned(), "false".to_owned()];
        let spec = AgentSpec { endpoints, planner: Some(link), flags, ..AgentSpec::new(node) };
        let mut agent = spec.start(&world, &http).await.unwrap();
        agent.engines_ready(engines.len()).await.unwrap();
        let scene = Self { load: Load(JoinSet::new()), agent, planner, engines: started, http, world };
        wait::until("planner that sees the engines ready", PATIENCE, async || {
            let page = scene.planner.api("/api/v1/fleet").await?;
            let states = &page["fleet"]["engine_states"];
            let ready = states["ready"] == engines.len() as u64;
            Ok(if ready { Ok(()) } else { Err(states.to_string()) })
        })
        .await
        .unwrap();
        scene
    }

    /// The same, and every engine is busy.
    async fn busy_one(node: &str, engines: &[(&str, &[&str], &str)]) -> Self {
        let mut scene = Self::start(node, engines).await;
        for engine in &scene.engines {
            scene.load.add(engine, 4);
        }
        for engine in &scene.engines {
            scene.busy(engine).await;
        }
        scene
    }

    /// Ends the load, and gives the engine to who alone holds it now.
    async fn take(&mut self, name: &str) -> Emulator {
        self.load.0.shutdown().await;
        let at = self.engines.iter().position(|engine| engine.process.name() == name).unwrap();
        Arc::into_inner(self.engines.remove(at)).unwrap()
    }

    fn engine(&self, name: &str) -> Arc<Emulator> {
        Arc::clone(self.engines.iter().find(|engine| engine.process.name() == name).unwrap())
    }

    /// Waits until the engine itself says that requests run.
    async fn busy(&self, engine: &Emulator) {
        wait::until("running requests", PATIENCE, async || {
            let state = self.http.json(engine.admin, "/state").await?;
            let running = state["engine"]["running"].as_u64();
            Ok(if running >= Some(1) { Ok(()) } else { Err(state.to_string()) })
        })
        .await
        .unwrap();
    }

    /// The engine as the agent sees it.
    async fn at_agent(&self, name: &str) -> Value {
        let page = self.http.json(self.agent.address, "/v1/engines").await.unwrap();
        row(&page, name)
    }

    /// Waits until agent and planner show the engine in this state, told from this; both within 5 s of `since`. Gives
    /// what the agent shows.
    async fn shows(&mut self, name: &str, since: Instant, state: &str, evidence: &str) -> Value {
        let mut agent_saw = None;
        let what = format!("{state} {name}");
        let shown = wait::until(&what, PATIENCE, async || {
            self.agent.process.check()?;
            let here = row(&self.http.json(self.agent.address, "/v1/engines").await?, name);
            if here["state"] != state || here["evidence"]["code"] != evidence {
                return Ok(Err(format!("agent: {} {}", here["state"], here["evidence"])));
            }
            let took = *agent_saw.get_or_insert_with(|| since.elapsed());
            let there = row(&self.planner.api("/api/v1/engines").await?, name);
            if there["state"] != state || there["state_evidence"] != evidence {
                return Ok(Err(format!("planner: {} {}", there["state"], there["state_evidence"])));
            }
            Ok(Ok((here, took, since.elapsed())))
        });
        let (here, agent, planner) = shown.await.unwrap();
        assert!(agent <= SHOWN_WITHIN && planner <= SHOWN_WITHIN, "{name} {state}: {agent:?}, {planner:?}");
        assert!(here["state_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{here}");
        let of_state =
            format!("plimsoll_engine_state{{engine=\"{name}\",model=\"{LLAMA}\",state=\"{state}\"}} 1");
        let page = self.http.get(self.agent.address, "/metrics").await.unwrap().text;
        assert!(page.lines().any(|line| line == of_state), "{of_state} is not in\n{page}");
        here
    }
}

fn row(page: &Value, name: &str) -> Value {
    let rows = page["engines"].as_array().unwrap();
    rows.iter().find(|row| row["id"] == name).unwrap_or_else(|| panic!("{name} is not in {page}")).clone()
}

fn resets(engine: &Value) -> u64 {
    engine["since_agent_start"]["counter_resets"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn an_engine_that_hangs_is_frozen_and_thaws() {
    let mut scene =
        Scene::busy_one("freezes", &[("vllm", &[], ""), ("sglang", &["--engine", "sglang"], "")]).await;
    for name in ["vllm", "sglang"] {
        let engine = scene.engine(name);
        let since = Instant::now();
        engine.order("freeze").await.unwrap();
        let frozen = scene.shows(name, since, "frozen", "nothing_moves").await;
        let text = frozen["evidence"]["text"].as_str().unwrap();
        assert!(text.contains("requests run, and no token moved for"), "{text}");
        assert!(frozen["requests_running"].as_u64() >= Some(1), "{frozen}");
        let since = Instant::now();
        engine.order("thaw").await.unwrap();
        scene.shows(name, since, "ready", "page_read").await;
    }
}

#[tokio::test]
async fn a_process_that_stops_is_unreachable_and_one_that_dies_is_gone() {
    let mut scene = Scene::busy_one("dies", &[("stops", &[], ""), ("dies", &[], "")]).await;
    let mut stops = scene.take("stops").await;
    let mut dies = scene.take("dies").await;
    let since = Instant::now();
    stops.process.signal(Signal::STOP).unwrap();
    let unreachable = scene.shows("stops", since, "unreachable", "no_answer").await;
    assert!(unreachable["requests_running"].is_null(), "values of a page that is not there");
    stops.process.signal(Signal::CONT).unwrap();
    let ready = async |scene: &Scene| scene.at_agent("stops").await["state"] == "ready";
    wait::until("the stopped engine back", PATIENCE, async || {
        Ok(if ready(&scene).await { Ok(()) } else { Err("not ready".to_owned()) })
    })
    .await
    .unwrap();
    let since = Instant::now();
    dies.process.kill().unwrap();
    let gone = scene.shows("dies", since, "gone", "refused").await;
    assert!(gone["evidence"]["text"].as_str().unwrap().contains("was open before"), "{gone}");
}

#[tokio::test]
async fn a_restart_is_an_end_and_a_new_beginning_and_other_buckets_are_noticed() {
    let mut scene = Scene::busy_one("restarts", &[("engine", &[], "")]).await;
    let engine = scene.engine("engine");
    let before = scene.at_agent("engine").await;
    let since = Instant::now();
    engine.order("restart:4").await.unwrap();
    scene.shows("engine", since, "gone", "refused").await;
    let back = since + Duration::from_secs(4);
    tokio::time::sleep_until(back).await;
    let after = scene.shows("engine", back, "ready", "page_read").await;
    assert_eq!(resets(&after), resets(&before) + 1, "{after}");
    assert_eq!(after["bucket_layout_changes"], 0);
    let body = r#"{"custom_histogram_buckets":{"time_to_first_token":[0.01,0.1,1.0,10.0]}}"#;
    let since = Instant::now();
    assert!(scene.http.post(engine.admin, "/restart", body.to_owned()).await.unwrap().status().is_success());
    let agent = scene.agent.address;
    wait::until("other buckets", SHOWN_WITHIN.saturating_sub(since.elapsed()), async || {
        let page = scene.http.json(agent, "/v1/engines").await?;
        let now = row(&page, "engine");
        let told = now["bucket_layout_changes"] == 1 && resets(&now) == resets(&before) + 2;
        Ok(if told && now["state"] == "ready" { Ok(()) } else { Err(now.to_string()) })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn sleep_and_drain_are_states_of_their_own() {
    let mut scene =
        Scene::busy_one("sleeps", &[("vllm", &[], ""), ("sglang", &["--engine", "sglang"], "")]).await;
    let engine = scene.engine("vllm");
    let since = Instant::now();
    engine.order("sleep").await.unwrap();
    let asleep = scene.shows("vllm", since, "sleeping", "sleep_state").await;
    assert_eq!(asleep["sleep"], "weights_offloaded");
    let since = Instant::now();
    engine.order("wake").await.unwrap();
    scene.shows("vllm", since, "ready", "page_read").await;
    let mut drains = scene.take("sglang").await;
    // What it is to finish: longer than it takes to see it drain.
    let (http, address) = (scene.http.clone(), drains.address);
    let long = Prompt { id: 7, input_tokens: 64, output_tokens: 2000, shared_tokens: 0 };
    let answer =
        tokio::spawn(async move { plimsoll_tests::openai::complete(&http, address, LLAMA, long).await });
    scene.busy(&drains).await;
    let since = Instant::now();
    drains.process.signal(Signal::TERM).unwrap();
    scene.shows("sglang", since, "draining", "not_ready").await;
    assert_eq!(answer.await.unwrap().unwrap().output_tokens, 2000, "it finishes what it has");
    assert_eq!(drains.process.wait(END).await.unwrap().code(), Some(0));
    scene.shows("sglang", Instant::now(), "gone", "refused").await;
}

#[tokio::test]
async fn a_key_that_changes_is_missed_and_found_again() {
    let keys = "bearer-token-file = \"WORLD/token\"";
    let mut scene = Scene::start("locked", &[("engine", &["--api-key", "second"], keys)]).await;
    let (engine, token) = (scene.engine("engine"), scene.world.file("token"));
    fs::write(&token, "first\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let since = Instant::now();
    engine.order("locked").await.unwrap();
    let locked = scene.shows("engine", since, "unauthorised", "denied").await;
    assert!(locked["evidence"]["text"].as_str().unwrap().contains("does not take the token"), "{locked}");
    let since = Instant::now();
    fs::write(&token, "second\n").unwrap();
    scene.shows("engine", since, "ready", "page_read").await;
    let log = fs::read_to_string(scene.agent.process.log()).unwrap();
    assert!(!log.contains("second"), "the token is in the log");
}

/// A port on which nobody listens, while the listener that holds it is alive: its backlog takes connections, so that it
/// is dropped before use. The kernel hands out other ports first.
fn closed_port() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_is_no_engine_is_told_from_one_that_starts() {
    let (world, http) = (World::new().unwrap(), Http::default());
    // The agent's own kind of server: it answers, but with other pages.
    let other = AgentSpec { flags: vec!["--gpu".to_owned(), "false".to_owned()], ..AgentSpec::new("other") };
    let other = other.start(&world, &http).await.unwrap();
    let url = format!("http://{}", other.address);
    let with = |id: &str, keys: &str| endpoint(id, url.clone(), keys);
    let endpoints = vec![
        with("foreign", ""),
        with("html", "metrics-path = \"/\""),
        with("missing", "metrics-path = \"/nothing\""),
        with("follower", "metrics-path = \"/no-page\"\nfollower = true"),
        endpoint("closed", format!("http://{}", closed_port()), ""),
    ];
    let flags = vec!["--gpu".to_owned(), "false".to_owned()];
    let agent = AgentSpec { endpoints, flags, ..AgentSpec::new("strange") };
    let agent = agent.start(&world, &http).await.unwrap();
    let expected = [
        ("foreign", "wrong_endpoint", "foreign_page"),
        ("html", "wrong_endpoint", "no_metrics_page"),
        ("missing", "wrong_endpoint", "not_found"),
        ("follower", "follower", "not_found"),
        ("closed", "starting", "refused"),
    ];
    wait::until("all seen for what they are", SHOWN_WITHIN, async || {
        let page = http.json(agent.address, "/v1/engines").await?;
        let wrong = expected.iter().find(|(name, state, evidence)| {
            let row = row(&page, name);
            row["state"] != *state || row["evidence"]["code"] != *evidence
        });
        Ok(match wrong {
            None => Ok(()),
            Some((name, ..)) => Err(row(&page, name).to_string()),
        })
    })
    .await
    .unwrap();
    let status = agent.status().await.unwrap();
    let engines = &status["sources"]["engines"];
    assert_eq!((&engines["wrong_endpoint"], &engines["starting"]), (&Value::from(3), &Value::from(1)));
}

/// An SLO that is no edge of the engine's buckets comes with the flag that adds it, and an engine started with that flag
/// has the edge.
#[tokio::test]
async fn the_advised_flag_adds_the_missing_edge() {
    let keys = "slo = { ttft = \"2s\", itl = \"25ms\", percentile = 99 }";
    let scene = Scene::start("slo", &[("engine", &[], keys)]).await;
    let engine = scene.at_agent("engine").await;
    let [ttft, itl] = engine["slo"].as_array().unwrap().as_slice() else { panic!("{engine}") };
    assert_eq!((&ttft["is_bucket_edge"], &itl["is_bucket_edge"]), (&Value::from(false), &Value::from(true)));
    assert_eq!(
        (&ttft["edge_below_seconds"], &ttft["edge_above_seconds"]),
        (&Value::from(1.0), &Value::from(2.5))
    );
    let status = scene.agent.status().await.unwrap();
    assert_eq!(status["sources"]["engines"]["slo_without_edge"][0]["flag"], ttft["flag"], "{status}");
    let log = fs::read_to_string(scene.agent.process.log()).unwrap();
    assert_eq!(
        log.matches("is no edge of the engine's ttft buckets").count(),
        1,
        "once, and no more:\n{log}"
    );
    // As a shell takes it apart.
    let flag = ttft["flag"].as_str().unwrap();
    let (name, json) = flag.split_once(' ').unwrap();
    let json = json.trim_matches('\'');
    let scene = Scene::start("slo-again", &[("engine", &[name, json], keys)]).await;
    let engine = scene.at_agent("engine").await;
    let edges: Vec<_> =
        engine["slo"].as_array().unwrap().iter().map(|limit| &limit["is_bucket_edge"]).collect();
    assert_eq!(edges, [true, true], "{engine}");
}
