//! Two nodes, three engines, one planner.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use plimsoll_tests::{
    daemons::{
        Agent, AgentSpec, Board, Emulator, EmulatorSpec, EndpointSpec, Planner, PlannerLink, PlannerSpec,
        PlannerTls,
    },
    http::Http,
    openai::Prompt,
    tls::Authority,
    wait,
    workload::{Lengths, Request, Synthetic},
    world::World,
};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

/// Longest that a test waits for something to become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LLAMA: &str = "llama-3.1-8b";
pub(crate) const QWEN: &str = "qwen3-32b";

pub(crate) fn hgx() -> Board {
    Board { scenario: "hgx-h100-8".to_owned(), activity: None }
}

pub(crate) fn tray() -> Board {
    Board { scenario: "gb200-tray".to_owned(), activity: None }
}

/// Flags that make agents quick, so that tests are.
pub(crate) fn quick() -> Vec<String> {
    ["--report-interval", "200ms", "--scrape-interval", "200ms", "--gpu-interval", "500ms"]
        .map(str::to_owned)
        .to_vec()
}

/// A planner that shows what it knows at once.
pub(crate) fn planner(tls: PlannerTls) -> PlannerSpec {
    let flags = ["--publish-interval", "100ms"].map(str::to_owned).to_vec();
    PlannerSpec { flags, ..PlannerSpec::new("planner", tls) }
}

/// A planner with a certificate of an authority that agents trust and that it asks agents for; and an agent's way to
/// it. The address has yet to be filled in.
pub(crate) fn mutual_tls(world: &World, name: &str) -> anyhow::Result<(PlannerTls, PlannerLink)> {
    let authority = Authority::new(world, name)?;
    let server = authority.issue(world, &format!("{name}-planner"), &["127.0.0.1", "localhost"])?;
    let nodes = ["node", "node-a", "node-b"].map(|node| format!("spiffe://plimsoll/node/{node}"));
    let client = authority.issue(world, &format!("{name}-agent"), &nodes.each_ref().map(String::as_str))?;
    let link = PlannerLink {
        address: ([127, 0, 0, 1], 0).into(),
        authority: Some(authority.certificate.clone()),
        identity: Some(client),
    };
    Ok((PlannerTls::Certificate(server, Some(authority.certificate)), link))
}

/// Fields are dropped in this order: agents say goodbye to a planner that is still there.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) agents: Vec<Agent>,
    pub(crate) planner: Planner,
    pub(crate) engines: Vec<Engine>,
    pub(crate) http: Http,
    #[expect(dead_code, reason = "the folder lives as long as the processes in it")]
    pub(crate) world: World,
}

/// An engine and what its agent was told of it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) node: &'static str,
    pub(crate) endpoint: EndpointSpec,
    pub(crate) emulator: Arc<Emulator>,
}

impl Cluster {
    /// Two replicas of one model on an HGX board, one of another over two GPUs of a GB200 tray; agents have seen every
    /// engine, so that all that happens from now on counts.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (world, http) = (World::new()?, Http::default());
        let (tls, link) = mutual_tls(&world, "authority")?;
        let planner = planner(tls).start(&world, &http).await?;
        let link = PlannerLink { address: planner.quic, ..link };
        let (mut agents, mut engines) = (Vec::new(), Vec::new());
        for (node, board, replicas) in [
            ("node-a", hgx(), vec![("llama-0", LLAMA, vec![0]), ("llama-1", LLAMA, vec![1])]),
            ("node-b", tray(), vec![("qwen-0", QWEN, vec![0, 1])]),
        ] {
            let activity = world.file(&format!("activity-{node}"));
            std::fs::create_dir(&activity)?;
            let board = Board { activity: Some(activity.clone()), ..board };
            let mut endpoints = Vec::new();
            for (name, model, gpus) in replicas {
                let gpus: Vec<String> = gpus.into_iter().map(|index| board.gpu(node, index)).collect();
                let engine = start_engine(&world, &http, (name, model), &gpus, &activity).await?;
                let endpoint = EndpointSpec {
                    id: name.to_owned(),
                    url: engine.url(),
                    pool: None,
                    replica: Some(format!("replica-{name}")),
                    gpus,
                    keys: BTreeMap::new(),
                };
                endpoints.push(endpoint.clone());
                engines.push(Engine { node, endpoint, emulator: Arc::new(engine) });
            }
            let agent = AgentSpec {
                board: Some(board),
                endpoints,
                planner: Some(link.clone()),
                flags: quick(),
                ..AgentSpec::new(node)
            };
            agents.push(agent.start(&world, &http).await?);
        }
        for (agent, engines) in agents.iter_mut().zip([2, 1]) {
            agent.engines_ready(engines).await?;
        }
        let mut cluster = Self { agents, planner, engines, http, world };
        let all = |page: &Value| {
            let (gpus, engines) = (&page["fleet"]["gpus"]["live"], &page["fleet"]["engines"]["live"]);
            if gpus == 12 && engines == 3 { Ok(()) } else { Err(page.to_string()) }
        };
        cluster.planner_shows("twelve GPUs and three engines", "/api/v1/fleet", all).await?;
        Ok(cluster)
    }

    /// Waits until a page of the planner's API is as it should be; `look` says what is missing.
    pub(crate) async fn planner_shows(
        &mut self,
        what: &str,
        path: &str,
        look: impl Fn(&Value) -> Result<(), String>,
    ) -> anyhow::Result<Value> {
        planner_shows(&mut self.planner, what, path, look).await
    }
}

pub(crate) async fn planner_shows(
    planner: &mut Planner,
    what: &str,
    path: &str,
    look: impl Fn(&Value) -> Result<(), String>,
) -> anyhow::Result<Value> {
    wait::until(what, PATIENCE, async || {
        planner.process.check()?;
        let page = planner.api(path).await?;
        Ok(look(&page).map(|()| page))
    })
    .await
}

async fn start_engine(
    world: &World,
    http: &Http,
    (name, model): (&str, &str),
    gpus: &[String],
    activity: &std::path::Path,
) -> anyhow::Result<Emulator> {
    let profile = if model == QWEN { "qwen3-32b-h200-tp2" } else { "llama-3.1-8b-h100-tp1" };
    let spec = EmulatorSpec {
        gpus: gpus.to_vec(),
        activity: Some(PathBuf::from(activity)),
        flags: ["--stop-fraction", "0.3"].map(str::to_owned).to_vec(),
        ..EmulatorSpec::new(name, model, profile)
    };
    spec.start(world, http).await
}

/// Requests short enough to be over in seconds, long enough to be batched.
pub(crate) fn requests(rate: f64, count: usize, seed: u64) -> Vec<Request> {
    let input = Lengths { median: 300.0, sigma: 0.8, least: 16, most: 3000 };
    let output = Lengths { median: 30.0, sigma: 0.6, least: 1, most: 150 };
    Synthetic::new(rate, None, input, output, seed).take(count).collect()
}

/// Sends each request at its time to the engines in turn, and waits for all answers.
pub(crate) async fn play(
    engines: Vec<Arc<Emulator>>,
    requests: Vec<Request>,
    first_id: u64,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut answers = JoinSet::new();
    for (request, id) in requests.iter().zip(first_id..) {
        tokio::time::sleep_until(begun + request.at).await;
        let engine = Arc::clone(&engines[id as usize % engines.len()]);
        let prompt = Prompt {
            id,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            // Every third begins as the others of them do: prefix-cache hits.
            shared_tokens: if id % 3 == 0 { 128 } else { 0 },
        };
        answers.spawn(async move {
            let answer = engine.complete(prompt).await?;
            anyhow::ensure!(
                answer.prompt_tokens == u64::from(prompt.input_tokens),
                "{answer:?} to {prompt:?}"
            );
            Ok(())
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer??;
    }
    Ok(())
}
