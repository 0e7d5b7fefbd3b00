//! Exact sources: what engines tell of single requests and forward passes arrives exactly, beside what pages tell.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use plimsoll_tests::{
    daemons::{Agent, AgentSpec, Emulator, EmulatorSpec, EndpointSpec, Planner, PlannerLink, PlannerTls},
    http::Http,
    world::World,
};
use serde_json::{Value, json};

use crate::{
    cluster::{PATIENCE, planner, planner_shows, play, quick, requests},
    expected::Expected,
};

/// With this the emulator begins the prompts that it writes into its request log, as SGLang does.
const SECRET: &str = "PROMPT-OF-";
const REQUESTS: usize = 150;
/// A cell of the fleet's layout.
const CELL_SHARE: f64 = 0.008;

async fn engine(world: &World, http: &Http, name: &str, flags: &[&str]) -> Emulator {
    let spec = EmulatorSpec {
        speed: 4.0,
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..EmulatorSpec::new(name, name, "llama-3.1-8b-h100-tp1")
    };
    spec.start(world, http).await.expect("an engine")
}

fn endpoint(id: &str, url: String, keys: &[(&str, Value)]) -> EndpointSpec {
    let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<BTreeMap<_, _>>();
    EndpointSpec { id: id.to_owned(), url, pool: None, replica: None, gpus: Vec::new(), keys }
}

fn folder(world: &World, name: &str) -> String {
    let path = world.file(name);
    std::fs::create_dir(&path).expect("a folder");
    path.to_str().expect("a path of text").to_owned()
}

/// Waits until the planner shows all of a model's requests exactly; answers with the page, and by how much a percentile is
/// off at most.
async fn exactly(planner: &mut Planner, engine: &Emulator, names: &[&str]) -> (Value, f64) {
    let expected = Expected::of(&engine.ended().expect("a request log"));
    let path = format!("/api/v1/models/{}?window=5m", engine.model);
    let what = format!("exact distributions of {}", engine.model);
    let page = planner_shows(planner, &what, &path, |page| {
        expected.compare_exact(&page["model"]["windows"]["5m"], names).map(drop)
    });
    let page = page.await.expect("the engine's own values");
    let worst = expected.compare_exact(&page["model"]["windows"]["5m"], names).expect("as just seen");
    assert!(worst <= CELL_SHARE, "{worst}");
    (page, worst)
}

struct Setting {
    agent: Agent,
    planner: Planner,
    http: Http,
    world: World,
}

/// A planner, and an agent that reads these engines and receives spans.
async fn setting(world: World, http: Http, endpoints: Vec<EndpointSpec>) -> Setting {
    let planner = planner(PlannerTls::Dev).start(&world, &http).await.expect("a planner");
    let spec = AgentSpec {
        endpoints,
        planner: Some(PlannerLink { address: planner.quic, authority: None, identity: None }),
        flags: [quick(), ["--gpu", "false", "--otlp-listen", "127.0.0.1:0"].map(str::to_owned).to_vec()]
            .concat(),
        ..AgentSpec::new("node")
    };
    let agent = spec.start(&world, &http).await.expect("an agent");
    Setting { agent, planner, http, world }
}

/// The source of this kind on the agent's page of an engine.
async fn source(setting: &Setting, engine: usize, kind: &str) -> Value {
    let page = setting.http.json(setting.agent.address, "/v1/engines").await.expect("a page");
    let sources = page["engines"][engine]["exact_sources"].as_array().cloned().unwrap_or_default();
    sources
        .into_iter()
        .find(|source| source["source"] == kind)
        .unwrap_or_else(|| panic!("no {kind} in {page}"))
}

#[tokio::test]
async fn request_records_are_counted_exactly_and_prompts_stay_where_they_are() {
    let (world, http) = (World::new().expect("programs"), Http::default());
    let (sglang_dir, trtllm_dir) = (folder(&world, "sglang"), folder(&world, "trtllm"));
    let sglang = engine(
        &world,
        &http,
        "sglang",
        &["--engine", "sglang", "--export-metrics-to-file", "--export-metrics-to-file-dir", &sglang_dir],
    )
    .await;
    let trtllm = engine(
        &world,
        &http,
        "trtllm",
        &["--engine", "trtllm", "--return-perf-metrics", "--perf-metrics-output-dir", &trtllm_dir],
    )
    .await;
    let drained = engine(
        &world,
        &http,
        "drained",
        &[
            "--engine",
            "trtllm",
            "--engine-version",
            "1.2.0",
            "--return-perf-metrics",
            "--perf-metrics-max-requests",
            "1000",
        ],
    )
    .await;
    let endpoints = vec![
        endpoint("sglang", sglang.url(), &[("request-metrics-dir", json!(sglang_dir))]),
        endpoint(
            "trtllm",
            trtllm.url(),
            &[
                ("request-metrics-dir", json!(trtllm_dir)),
                ("kind", json!("trtllm")),
                ("model", json!("trtllm")),
            ],
        ),
        endpoint(
            "drained",
            drained.url(),
            &[("request-stats", json!(true)), ("kind", json!("trtllm")), ("model", json!("drained"))],
        ),
    ];
    let mut setting = setting(world, http, endpoints).await;
    setting.agent.engines_ready(3).await.expect("the pages of all");
    let (sglang, trtllm, drained) = (Arc::new(sglang), Arc::new(trtllm), Arc::new(drained));
    let all = vec![Arc::clone(&sglang), Arc::clone(&trtllm), Arc::clone(&drained)];
    play(all, requests(60.0, REQUESTS, 7), 0).await.expect("answers");

    let (page, worst) = exactly(&mut setting.planner, &sglang, &["ttft", "e2e", "queue", "isl", "osl"]).await;
    println!("SGLang's percentiles are off by {:.2} % at most", worst * 100.0);
    let seen = &page["model"]["windows"]["5m"]["distributions"];
    assert_eq!(seen["ttft"]["source"], "bucketed", "what the page tells stands beside: {seen}");
    assert_eq!(seen["ttft"]["count"], seen["ttft_exact"]["count"], "{seen}");
    for engine in [&trtllm, &drained] {
        let names = ["ttft", "e2e", "queue", "prefill", "decode", "inference"];
        exactly(&mut setting.planner, engine, &names).await;
    }
    for engine in 0..2 {
        let source = source(&setting, engine, "request_log").await;
        assert_eq!((&source["state"], &source["malformed"]), (&json!("ok"), &json!(0)), "{source}");
    }
    told_nothing(&setting, Path::new(&sglang_dir)).await;
}

/// The prompt stands in the engine's file, and nowhere on a page or in a log of ours.
async fn told_nothing(setting: &Setting, folder: &Path) {
    let file = std::fs::read_dir(folder)
        .expect("the folder")
        .next()
        .expect("a request log")
        .expect("its name")
        .path();
    assert!(std::fs::read_to_string(file).expect("its text").contains(SECRET), "the emulator writes prompts");
    let mut texts = Vec::new();
    for path in ["/", "/metrics", "/v1/engines", "/status"] {
        texts.push(setting.http.get(setting.agent.address, path).await.expect("a page").text);
    }
    for path in ["/", "/metrics", "/api/v1/engines?window=5m", "/api/v1/agents"] {
        texts.push(setting.http.get(setting.planner.address, path).await.expect("a page").text);
    }
    for process in [&setting.agent.process, &setting.planner.process] {
        texts.push(std::fs::read_to_string(process.log()).expect("a log"));
    }
    assert!(texts.iter().all(|text| !text.contains(SECRET)));
    assert!(texts[1].contains("plimsoll_engine_ttft_exact_seconds_count"), "{}", texts[1]);
}

#[tokio::test]
async fn spans_and_forward_passes_are_counted_exactly() {
    let (world, http) = (World::new().expect("programs"), Http::default());
    let mut scheduler = engine(&world, &http, "scheduler", &["--forward-pass-metrics", "127.0.0.1:0"]).await;
    let published = scheduler.process.address("fpm", PATIENCE).await.expect("a publisher");
    // The traced engine starts last, since it has to be told where spans are received; its page is not read.
    let endpoints = vec![
        endpoint(
            "scheduler",
            scheduler.url(),
            &[("forward-pass-metrics", json!([format!("tcp://{published}")]))],
        ),
        endpoint(
            "traced",
            "http://127.0.0.1:9".to_owned(),
            &[("otlp-service", json!("vllm")), ("model", json!("traced"))],
        ),
    ];
    let mut setting = setting(world, http, endpoints).await;
    let receiver = setting.agent.process.address("otlp", PATIENCE).await.expect("a receiver");
    let url = format!("http://{receiver}");
    let flags = ["--otlp-traces-endpoint", &url, "--otlp-schedule-delay", "100"];
    let traced = engine(&setting.world, &setting.http, "traced", &flags).await;
    setting.agent.engines_ready(1).await.expect("the page of the scheduler");
    let (scheduler, traced) = (Arc::new(scheduler), Arc::new(traced));
    let both = vec![Arc::clone(&scheduler), Arc::clone(&traced)];
    play(both, requests(60.0, REQUESTS, 8), 0).await.expect("answers");

    let names = ["ttft", "e2e", "queue", "prefill", "decode", "inference", "tpot", "isl", "osl"];
    let (_, worst) = exactly(&mut setting.planner, &traced, &names).await;
    println!("vLLM's percentiles are off by {:.2} % at most", worst * 100.0);
    let idle = |page: &Value| {
        let engine = &page["engine"];
        let queued = engine["queued_prefill_requests"] == 0 && engine["forward_pass_ranks"] == 1;
        if queued && engine["forward_pass_busy_ratio"] == 0.0 { Ok(()) } else { Err(page.to_string()) }
    };
    let path = "/api/v1/engines/node/scheduler?window=5m";
    let page =
        planner_shows(&mut setting.planner, "an idle scheduler", path, idle).await.expect("it went idle");
    let seen = &page["engine"]["windows"]["5m"]["distributions"];
    let passes: u64 = ["prefill", "decode", "mixed"]
        .iter()
        .filter_map(|kind| seen[format!("pass_{kind}_exact")]["count"].as_u64())
        .sum();
    let source = source(&setting, 0, "forward_pass").await;
    assert_eq!(
        (&source["state"], &source["lost"], &source["malformed"]),
        (&json!("ok"), &json!(0), &json!(0))
    );
    assert!(passes > 100 && source["records"].as_u64() == Some(passes), "{passes} of {source}");
}
