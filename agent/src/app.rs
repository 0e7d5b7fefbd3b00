//! All parts put together: bind, spawn, supervise, drain.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use plimsoll_common::{
    ids::{AgentEpoch, BootId},
    wire::{Hello, SourceState},
};
use plimsoll_shell::{address, http, ready::Readiness, supervise::Supervisor};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    attribution::{self, Attribution},
    config::{Config, Settings},
    engines::{EngineReading, Roster, ScrapeOptions},
    exact,
    gpu::{self, GpuOptions, GpuSnapshot, OnDriverUpgrade, Stopped},
    own::{OwnCost, OwnSampler},
    reporter::{self, Reporter, SharedWindow},
    serve::{self, Feeds, Pages},
    uplink::{self, Spool, Uplink},
    wall_clock_ms,
    window::Window,
};

/// How many readings may wait for the window; scrapers wait when it is full.
const READINGS: usize = 1024;
/// How long a GPU call that does not return may hold up the end.
const GPU_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the agent until cancelled. `settings` are those that the configuration was loaded from: the engines that their
/// file declares are followed.
///
/// # Errors
/// When a port can't be bound, certificates can't be read, or a part fails.
pub async fn run(config: Config, settings: Settings, cancel: CancellationToken) -> anyhow::Result<()> {
    let epoch = AgentEpoch(wall_clock_ms());
    let boot = boot_id(epoch)?;
    let server = http::Server::bind(config.listen_http, &config.access).await?;
    let bound = server.local_addr()?;
    let monitor = gpu::spawn(GpuOptions {
        enabled: config.gpu,
        library: config.nvml_library.clone(),
        interval: config.gpu_interval,
        seed: GpuOptions::seed_of(config.node.as_str()),
    });
    let own = OwnSampler::new();
    let window = Window::new(&config.endpoints, own.host(), Instant::now(), wall_clock_ms());
    let window: SharedWindow = Arc::new(Mutex::new(window));
    let mut supervisor = Supervisor::new(cancel.clone());
    let readings = spawn_scrapers(&config, settings, &window, &mut supervisor);
    let exact = exact::spawn(&config, &mut supervisor).await?;
    let uplink = spawn_uplink(&config, &boot, epoch, &mut supervisor)?;
    let (readiness, [gpus_seen]) = Readiness::new(["gpu_source"]);
    spawn_latch(&monitor, gpus_seen, &mut supervisor);
    if config.on_driver_upgrade == OnDriverUpgrade::Exit {
        supervisor.spawn("driver", gpu::end_when_outdated(monitor.snapshots(), cancel.clone()));
    }
    supervisor.spawn("release", gpu::release_on_signal(monitor.control(), cancel.clone()));
    let (costs, costs_seen) = watch::channel(OwnCost::default());
    let attributed = spawn_attribution(&config, &monitor, &mut supervisor);
    let feeds = Feeds {
        window: Arc::clone(&window),
        gpus: monitor.snapshots(),
        control: monitor.control(),
        uplink: uplink.clone(),
        costs: costs_seen,
        attribution: attributed,
        exact: exact.board,
        refusals: server.refusals(),
    };
    let pages = Pages::new(&config, boot, epoch, feeds);
    supervisor.spawn("stream", serve::run_stream(pages.clone(), cancel.clone()));
    supervisor.spawn("http", server.serve(serve::router(pages), http::probes(readiness), cancel.clone()));
    let reporter = Reporter {
        window,
        readings,
        exact: exact.readings,
        gpus: monitor.snapshots(),
        uplink,
        own,
        costs,
        interval: config.report_interval,
        seed: GpuOptions::seed_of(config.node.as_str()),
    };
    supervisor.spawn("reporter", reporter::run(reporter, cancel));
    if let Some(path) = &config.address_file {
        let mut addresses = BTreeMap::from([("http", bound)]);
        addresses.extend(exact.otlp.map(|otlp| ("otlp", otlp)));
        address::write(path, &addresses)
            .with_context(|| format!("address-file: {} can't be written", path.display()))?;
    }
    tracing::info!(node = %config.node, http = %bound, engines = config.endpoints.len(), "agent started");
    let ended = supervisor.run(config.shutdown_timeout).await;
    if monitor.stop(GPU_PATIENCE).await == Stopped::LeftBehind {
        tracing::warn!("a call into the NVIDIA driver does not return; its thread ends with the process");
    }
    ended
}

/// One task an engine, as declared now or later; what they read arrives in the channel.
fn spawn_scrapers(
    config: &Config,
    settings: Settings,
    window: &SharedWindow,
    supervisor: &mut Supervisor,
) -> mpsc::Receiver<EngineReading> {
    let (sender, readings) = mpsc::channel(READINGS);
    let options = ScrapeOptions {
        interval: config.scrape_interval,
        timeout: config.scrape_timeout,
        ..ScrapeOptions::default()
    };
    let (window, cancel) = (Arc::clone(window), supervisor.cancel().clone());
    let roster = Roster::new(&config.endpoints, options, sender, window, cancel);
    supervisor.spawn("engines", roster.run(settings));
    readings
}

fn spawn_uplink(
    config: &Config,
    boot: &BootId,
    epoch: AgentEpoch,
    supervisor: &mut Supervisor,
) -> anyhow::Result<Option<Uplink>> {
    let Some(planner) = config.planner.clone() else {
        tracing::warn!("no planner is configured: the agent only serves its own pages");
        return Ok(None);
    };
    let uplink = Uplink::new(Spool::new(config.spool_bytes)?, config.report_interval);
    let hello = Hello {
        node: config.node.clone(),
        boot: boot.clone(),
        epoch,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wall_ms: None,
        oldest: None,
        token: None,
    };
    supervisor.spawn("uplink", uplink::run(uplink.clone(), planner, hello, supervisor.cancel().clone()));
    Ok(Some(uplink))
}

/// Whose the GPUs are, found out beside everything else.
fn spawn_attribution(
    config: &Config,
    monitor: &gpu::GpuMonitor,
    supervisor: &mut Supervisor,
) -> watch::Receiver<Arc<Attribution>> {
    let (found, seen) = watch::channel(Arc::default());
    let (options, cancel) = (config.attribution.clone(), supervisor.cancel().clone());
    supervisor.spawn("attribution", attribution::run(options, monitor.snapshots(), found, cancel));
    seen
}

/// Ready once the GPU source has given its first answer, be it that there is no GPU.
fn spawn_latch(monitor: &gpu::GpuMonitor, latch: plimsoll_shell::ready::Latch, supervisor: &mut Supervisor) {
    let mut snapshots = monitor.snapshots();
    let cancel = supervisor.cancel().clone();
    supervisor.spawn("readiness", async move {
        let answered =
            |snapshot: &Arc<GpuSnapshot>| snapshot.calls > 0 || snapshot.source == SourceState::Unsupported;
        tokio::select! {
            seen = snapshots.wait_for(answered) => latch.set(seen.is_ok()),
            () = cancel.cancelled() => (),
        }
        cancel.cancelled().await;
        Ok(())
    });
}

/// The kernel's boot id; on a system without one, this run's own.
fn boot_id(epoch: AgentEpoch) -> anyhow::Result<BootId> {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let parsed = read.and_then(|text| BootId::parse(text.trim()).ok());
    Ok(parsed.map_or_else(|| BootId::parse(&format!("epoch-{}", epoch.0)), Ok)?)
}
