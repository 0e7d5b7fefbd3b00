//! An outage that is longer than the agent's spool lasts: what is dropped is counted, and told as a span.

use std::collections::BTreeMap;

use plimsoll_tests::{
    daemons::{AgentSpec, EndpointSpec, PlannerLink, PlannerSpec, PlannerTls},
    http::Http,
    proxy::{Faults, Proxy},
    world::World,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::AbortHandle,
};

use crate::{
    cluster::{PATIENCE, planner, planner_shows},
    restart::free_udp_port,
};

/// An engine that says it serves another model each time somebody asks: every window then has an inventory of its own, and
/// none can be merged with the next.
struct Restless {
    url: String,
    task: AbortHandle,
}

impl Restless {
    async fn start(seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let task = tokio::spawn(async move {
            let mut state = seed;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                // Long and hardly compressible.
                let model: String = (0..15)
                    .map(|_| {
                        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                        format!("{:016x}", state)
                    })
                    .collect();
                let page = format!("vllm:num_requests_running{{engine=\"0\",model_name=\"{model}\"}} 0.0\n");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                    page.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, task: task.abort_handle() }
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many spans a planner keeps of an agent.
const MOST_SPANS: usize = 8;

/// What the planner says of the only agent: every window up to the newest is applied, or counted as lost in a span.
fn accounted(page: &Value) -> Result<(), String> {
    let (row, windows) = (&page["agents"]["connected"][0], &page["agents"]["windows"]);
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let spans = row["lost_spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lost = number(&row["lost_windows"]);
    // Of a gap that the planner saw twice (a slow machine connects, breaks off and drops again), some windows may have come
    // in between, and when it began may be unknown. An outage that is the only one is seen whole.
    let sound = |span: &Value| {
        let length = number(&span["last_seq"]) + 1 - number(&span["first_seq"]);
        let (from, until) = (span["from_unix_seconds"].as_f64(), span["until_unix_seconds"].as_f64());
        let is_whole =
            number(&span["windows"]) == length && from.zip(until).is_some_and(|(from, until)| from < until);
        is_whole || (spans.len() > 1 && (1..=length).contains(&number(&span["windows"])) && until.is_some())
    };
    let told: u64 = spans.iter().map(|span| number(&span["windows"])).sum();
    let all = number(&windows["applied"]) + lost == number(&row["acknowledged_seq"]);
    // Only so many spans are kept.
    let all_told = told == lost || (spans.len() >= MOST_SPANS && told < lost);
    if lost > 0 && all_told && all && row["missing_windows"] == 0 && spans.iter().all(sound) {
        Ok(())
    } else {
        Err(page.to_string())
    }
}

// The engines and the proxy run beside each other, so that a busy machine does not cut what the proxy carries.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_overlong_outage_drops_is_counted_as_a_span() {
    let (world, http) = (World::new().unwrap(), Http::default());
    let network = Proxy::start(free_udp_port(), 7).await.unwrap();
    let mut engines = Vec::new();
    let mut endpoints = Vec::new();
    for seed in 0..6 {
        let engine = Restless::start(seed).await;
        endpoints.push(EndpointSpec {
            id: format!("engine-{seed}"),
            url: engine.url.clone(),
            keys: BTreeMap::from([("kind".to_owned(), json!("vllm"))]),
            ..EndpointSpec::default()
        });
        engines.push(engine);
    }
    let flags = "--report-interval 200ms --scrape-interval 200ms --spool-bytes 65536 --gpu false";
    let spec = AgentSpec {
        endpoints,
        planner: Some(PlannerLink { address: network.address(), authority: None, identity: None }),
        flags: flags.split(' ').map(str::to_owned).collect(),
        ..AgentSpec::new("node")
    };
    let mut planner = planner(PlannerTls::Dev);
    planner.flags.extend(["--adaptive-cadence".to_owned(), "false".to_owned()]);
    let mut planner = PlannerSpec { ..planner }.start(&world, &http).await.unwrap();
    network.lead_to(planner.quic);
    let mut agent = spec.start(&world, &http).await.unwrap();
    let acknowledged = |status: &Value| status["planner"]["acknowledged_window"].as_u64() > Some(10);
    agent.status_where("ten acknowledged windows", PATIENCE, acknowledged).await.unwrap();
    let cut = Faults { cut: true, ..Faults::default() };
    network.set(cut, cut);
    let dropped = |status: &Value| status["planner"]["spool"]["dropped_windows"].as_u64() > Some(30);
    let status = agent.status_where("full spool", PATIENCE, dropped).await.unwrap();
    assert!(status["planner"]["spool"]["bytes"].as_u64() <= Some(65_536), "{status}");
    network.set(Faults::default(), Faults::default());
    let page =
        planner_shows(&mut planner, "a span of lost windows", "/api/v1/agents", accounted).await.unwrap();
    let lost = page["agents"]["connected"][0]["lost_windows"].as_u64();
    let status = agent.status().await.unwrap();
    // What the planner had applied and could not acknowledge any more is dropped, and not lost.
    assert!(lost <= status["planner"]["spool"]["dropped_windows"].as_u64(), "{status}");
    assert!(lost >= Some(20), "{page}");
    assert!(status["planner"]["gaps_told"].as_u64() > Some(0), "{status}");
    drop(engines);
}
