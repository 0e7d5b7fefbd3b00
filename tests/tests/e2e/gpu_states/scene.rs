//! One agent on a machine of fake-nvml's, and all that its pages say of the GPUs.

use std::time::Duration;

use anyhow::Context as _;
use plimsoll_tests::{
    daemons::{Agent, AgentSpec, Board},
    http::{Http, StatusCode},
    wait,
    world::World,
};
use serde_json::Value;

/// Far more than any state takes to show: GPUs that are missing are looked for every ten seconds, and less often where
/// looking is slow, as on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// What must hold of the pages, each with its name for messages.
pub(super) type Claims = Vec<(&'static str, bool)>;

/// An agent and its machine. The agent ends before the folder that it runs in.
pub(super) struct Scene {
    pub(super) agent: Agent,
    pub(super) http: Http,
    spec: AgentSpec,
    board: Board,
    world: World,
}

impl Scene {
    /// Starts an agent on a machine to which this happened before.
    pub(super) async fn start(
        node: &str,
        scenario: &str,
        interval: &str,
        before: Option<&str>,
    ) -> anyhow::Result<Self> {
        let (world, http) = (World::new()?, Http::default());
        let board = Board { scenario: scenario.to_owned(), activity: None };
        let spec = AgentSpec {
            board: Some(board.clone()),
            flags: ["--gpu-interval", interval].map(str::to_owned).to_vec(),
            ..AgentSpec::new(node)
        };
        if let Some(command) = before {
            spec.change_gpus(&world, command)?;
        }
        let agent = spec.start(&world, &http).await?;
        Ok(Self { agent, http, spec, board, world })
    }

    /// The same with nothing that happened before; waits until all is well.
    pub(super) async fn well(node: &str) -> anyhow::Result<(Self, Seen)> {
        let mut scene = Self::start(node, "hgx-h100-8", "200ms", None).await?;
        let seen = scene.until("eight healthy GPUs", 0, all_well).await?;
        Ok((scene, seen))
    }

    /// The UUID of the GPU with this number on the board.
    pub(super) fn uuid(&self, number: usize) -> String {
        self.board.gpu(&self.spec.node, number)
    }

    /// Something happens to the machine.
    pub(super) fn say(&self, command: &str) -> anyhow::Result<()> {
        self.spec.change_gpus(&self.world, command)
    }

    /// Posts to a path that answers with 202.
    pub(super) async fn post(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.http.post(self.agent.address, path, String::new()).await?;
        anyhow::ensure!(answer.status() == StatusCode::ACCEPTED, "{path}: {}", answer.status());
        Ok(())
    }

    /// Waits until all claims about the pages hold at once; `number` is the GPU whose own page is read.
    pub(super) async fn until(
        &mut self,
        what: &str,
        number: usize,
        claims: impl Fn(&Seen) -> Claims,
    ) -> anyhow::Result<Seen> {
        let (uuid, http, address) = (self.uuid(number), self.http.clone(), self.agent.address);
        let one = format!("/v1/gpus/{uuid}");
        wait::until(what, PATIENCE, async || {
            self.agent.process.check()?;
            let seen = Seen {
                list: http.json(address, "/v1/gpus").await?,
                // There is none before the first enumeration.
                one: http.get(address, &one).await?.json()?,
                topology: http.json(address, "/v1/topology").await?,
                status: http.json(address, "/status").await?,
                metrics: http.get(address, "/metrics").await?.text,
                health: http.get(address, "/healthz").await?.text,
            };
            let mut wrong: Vec<_> =
                claims(&seen).into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name).collect();
            if seen.health.trim() != "ok" {
                wrong.push("/healthz is ok");
            }
            Ok(if wrong.is_empty() {
                Ok(seen)
            } else {
                let (gpu, cost) = (&seen.status["sources"]["gpu"], &seen.status["cost"]["nvml"]["governor"]);
                let unknown = &seen.topology["unknown"];
                Err(format!("not {wrong:?}; {gpu}; {cost}; topology unknown of {unknown}; {}", seen.one))
            })
        })
        .await
        .with_context(|| format!("the log ends with:\n{}", self.agent.process.log_tail()))
    }
}

/// What all pages say at about the same time.
#[derive(Debug)]
pub(super) struct Seen {
    /// `/v1/gpus`.
    pub(super) list: Value,
    /// `/v1/gpus/{uuid}` of one GPU.
    pub(super) one: Value,
    pub(super) topology: Value,
    pub(super) status: Value,
    metrics: String,
    health: String,
}

impl Seen {
    /// The GPUs of `/v1/gpus`.
    pub(super) fn gpus(&self) -> &[Value] {
        self.list["gpus"].as_array().map_or(&[], Vec::as_slice)
    }

    /// A GPU of `/v1/gpus`, null where it is not listed.
    pub(super) fn gpu(&self, uuid: &str) -> &Value {
        self.gpus().iter().find(|gpu| gpu["uuid"] == uuid).unwrap_or(&Value::Null)
    }

    /// Whether `/v1/gpus`, `/status` and the metrics agree that the source is in this state.
    pub(super) fn source_is(&self, state: &str) -> bool {
        self.list["source"]["state"] == state
            && self.status["sources"]["gpu"]["state"] == state
            && self.sample("plimsoll_gpu_source_state", &[("state", state)]) == Some(1.0)
    }

    /// Whether both pages give a reason with these words.
    pub(super) fn detail_has(&self, words: &str) -> bool {
        [&self.list["source"]["detail"], &self.status["sources"]["gpu"]["detail"]]
            .iter()
            .all(|detail| detail.as_str().is_some_and(|detail| detail.contains(words)))
    }

    /// Whether API and metrics agree that a GPU is in this state, and in no other.
    pub(super) fn gpu_is(&self, uuid: &str, state: &str) -> bool {
        let of = |state| self.sample("plimsoll_gpu_state", &[("uuid", uuid), ("state", state)]);
        let others =
            ["ok", "degraded", "lost", "stale", "absent"].into_iter().filter(|other| *other != state);
        self.gpu(uuid)["state"] == state
            && of(state) == Some(1.0)
            && others.into_iter().all(|other| of(other) == Some(0.0))
    }

    /// Whether a GPU has what is asked in every tick, in API and metrics.
    pub(super) fn has_values(&self, uuid: &str) -> bool {
        let gpu = self.gpu(uuid);
        VALUES.iter().all(|(field, family)| {
            gpu[*field].is_number() && self.sample(family, &[("uuid", uuid)]).is_some()
        })
    }

    /// Whether a GPU has no value at all: null in the API, no sample in the metrics.
    pub(super) fn has_no_values(&self, uuid: &str) -> bool {
        let gpu = self.gpu(uuid);
        VALUES
            .iter()
            .all(|(field, family)| gpu[*field].is_null() && self.sample(family, &[("uuid", uuid)]).is_none())
    }

    /// The energy that a GPU used; it rises with every answer.
    pub(super) fn energy(&self, uuid: &str) -> Option<f64> {
        self.gpu(uuid)["energy_joules"].as_f64()
    }

    /// The first sample of a family with these labels.
    pub(super) fn sample(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples(family, labels).next()
    }

    /// The samples of a family with these labels.
    pub(super) fn samples<'a>(
        &'a self,
        family: &'a str,
        labels: &[(&str, &str)],
    ) -> impl Iterator<Item = f64> + 'a {
        let wanted: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        self.metrics.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let is_it = name == family && wanted.iter().all(|label| labels.contains(label.as_str()));
            is_it.then(|| value.parse().ok())?
        })
    }
}

/// Values that are asked in every tick, as API and metrics name them.
const VALUES: [(&str, &str); 4] = [
    ("utilization_percent", "plimsoll_gpu_utilization_ratio"),
    ("memory_used_bytes", "plimsoll_gpu_memory_used_bytes"),
    ("power_watts", "plimsoll_gpu_power_watts"),
    ("energy_joules", "plimsoll_gpu_energy_joules_total"),
];

/// All eight GPUs are here with their values, and nothing is wrong.
pub(super) fn all_well(seen: &Seen) -> Claims {
    let uuids: Vec<&str> = seen.gpus().iter().filter_map(|gpu| gpu["uuid"].as_str()).collect();
    vec![
        ("eight GPUs", uuids.len() == 8),
        ("none absent", seen.list["absent"].as_array().is_some_and(Vec::is_empty)),
        ("all ok", uuids.iter().all(|uuid| seen.gpu_is(uuid, "ok"))),
        ("all with values", uuids.iter().all(|uuid| seen.has_values(uuid))),
        ("its own page ok", seen.one["state"] == "ok" && seen.one["trouble"].is_null()),
        ("source healthy", seen.source_is("healthy") && seen.list["source"]["detail"].is_null()),
        ("not released", seen.sample("plimsoll_gpu_source_released", &[]) == Some(0.0)),
        ("a driver", seen.status["sources"]["gpu"]["driver_version"] == "580.95.05"),
        ("driver in metrics", seen.sample("plimsoll_gpu_driver_info", &[("version", "580.95.05")]).is_some()),
    ]
}

/// All eight GPUs are known by name, and nothing else is.
pub(super) fn all_stale(seen: &Seen) -> Claims {
    let uuids: Vec<&str> = seen.gpus().iter().filter_map(|gpu| gpu["uuid"].as_str()).collect();
    vec![
        ("eight GPUs", uuids.len() == 8),
        ("all stale", uuids.iter().all(|uuid| seen.gpu_is(uuid, "stale"))),
        ("none with values", uuids.iter().all(|uuid| seen.has_no_values(uuid))),
        ("no value in any family", VALUES.iter().all(|(_, family)| seen.sample(family, &[]).is_none())),
        ("its own page stale", seen.one["state"] == "stale" && seen.one["power_watts"].is_null()),
        ("names", seen.one["name"] == "NVIDIA H100 80GB HBM3"),
    ]
}
