//! The GPU source against the project's own `libnvidia-ml.so.1`: the same code path as with a GPU, another library.
//!
//! That library learns from the environment which machine it shows, and a process can't change its environment safely. So
//! every check that needs a scenario is an ignored test that its parent runs in a process of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

use plimsoll_agent::gpu::{self, Call, GpuMonitor, GpuOptions, GpuReading, GpuSnapshot, GpuStatus, Stopped};
use plimsoll_common::wire::SourceState;

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

const LIBRARY: &str = "PLIMSOLL_TEST_NVML_LIBRARY";
const SCENARIO: &str = "PLIMSOLL_FAKE_NVML_SCENARIO";
const CALL_LOG: &str = "PLIMSOLL_FAKE_NVML_CALL_LOG";

/// The library: the one that the environment names, or built once, since `cargo test` builds no cdylib of another package.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os(LIBRARY) {
            return given.into();
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "plimsoll-fake-nvml", "--message-format=json"]);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "plimsoll_fake_nvml")
            .filter_map(|message| message["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
            .find(|file| file.extension() == Some(OsStr::new("so")))
            .unwrap()
    })
}

/// Runs one of the ignored tests below in a process whose environment names the library and the scenario.
fn in_child(test: &str, scenario: Option<&str>, call_log: Option<&Path>) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--ignored", "--nocapture"]).env(LIBRARY, library());
    for (name, value) in [(SCENARIO, scenario.map(OsStr::new)), (CALL_LOG, call_log.map(Path::as_os_str))] {
        match value {
            Some(value) => child.env(name, value),
            None => child.env_remove(name),
        };
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn monitor(library: impl Into<PathBuf>) -> GpuMonitor {
    gpu::spawn(GpuOptions {
        library: Some(library.into()),
        interval: GpuOptions::MIN_INTERVAL,
        ..GpuOptions::default()
    })
}

/// A monitor of the library that the parent named.
fn child_monitor() -> GpuMonitor {
    monitor(std::env::var_os(LIBRARY).expect("run by its parent test, which sets the environment"))
}

async fn until(monitor: &GpuMonitor, wanted: impl FnMut(&Arc<GpuSnapshot>) -> bool) -> Arc<GpuSnapshot> {
    let mut snapshots = monitor.snapshots();
    let found = tokio::time::timeout(PATIENCE, snapshots.wait_for(wanted)).await;
    Arc::clone(&found.unwrap().unwrap())
}

fn check_values(gpu: &GpuReading) {
    let total = gpu.info.memory_total_bytes.unwrap();
    let limit = gpu.info.power_limit_mw.unwrap();
    assert_eq!((gpu.state, &gpu.trouble), (GpuStatus::Ok, &None), "{gpu:?}");
    assert!(gpu.utilization_percent.unwrap() <= 100, "{gpu:?}");
    assert!(gpu.memory_activity_percent.unwrap() <= 100, "{gpu:?}");
    assert!((1..=total).contains(&gpu.memory_used_bytes.unwrap()), "{gpu:?}");
    assert!((20_000..=limit).contains(&gpu.power_mw.unwrap()), "{gpu:?}");
    assert!((15..=95).contains(&gpu.temperature_c.unwrap()), "{gpu:?}");
}

fn check_inventory(snapshot: &GpuSnapshot, gpus: usize) {
    assert_eq!(snapshot.gpus.len(), gpus);
    let uuids: BTreeSet<&str> = snapshot.gpus.iter().map(|gpu| gpu.info.uuid.as_str()).collect();
    assert_eq!(uuids.len(), gpus, "{uuids:?}");
    assert!(uuids.iter().all(|uuid| uuid.starts_with("GPU-")), "{uuids:?}");
    let slots: BTreeSet<&str> =
        snapshot.gpus.iter().map(|gpu| gpu.info.pci_bus_id.as_deref().unwrap()).collect();
    assert_eq!(slots.len(), gpus, "{slots:?}");
    assert!(snapshot.gpus.iter().map(|gpu| gpu.info.index).eq(0..gpus as u32));
}

#[test]
fn an_hgx_board_is_read_whole() {
    in_child("hgx_child", Some("hgx-h100-8"), None);
}

#[tokio::test]
#[ignore = "run by an_hgx_board_is_read_whole in a process of its own"]
async fn hgx_child() {
    let monitor = child_monitor();
    let mut snapshot = until(&monitor, |now| now.source == SourceState::Healthy).await;
    check_inventory(&snapshot, 8);
    let driver = snapshot.driver.as_ref().unwrap();
    assert_eq!((driver.version.as_str(), driver.cuda.as_deref()), ("580.95.05", Some("13.0")));
    for gpu in &snapshot.gpus {
        assert_eq!(gpu.info.name.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(gpu.info.power_limit_mw, Some(700_000));
        assert!((79 << 30..=80 << 30).contains(&gpu.info.memory_total_bytes.unwrap()), "{gpu:?}");
    }
    for _ in 0..3 {
        snapshot.gpus.iter().for_each(check_values);
        let next = until(&monitor, |now| now.taken > snapshot.taken).await;
        let asked = next.calls - snapshot.calls;
        assert!(asked > 0 && asked.is_multiple_of(8 * 4), "four calls a GPU and tick, these are {asked}");
        assert_eq!(next.inventory, 1);
        assert!(next.tick_busy <= next.busy);
        snapshot = next;
    }
    let uuid_calls = snapshot.costs.iter().find(|cost| cost.call == Call::DeviceUuid).unwrap();
    assert_eq!((uuid_calls.calls, uuid_calls.failures), (8, 0));
    println!("a tick of 8 GPUs spent {:?} in NVML calls", snapshot.tick_busy);
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

#[test]
fn a_gb200_tray_is_read_whole() {
    in_child("gb200_child", Some("gb200-tray"), None);
}

#[tokio::test]
#[ignore = "run by a_gb200_tray_is_read_whole in a process of its own"]
async fn gb200_child() {
    let monitor = child_monitor();
    let snapshot = until(&monitor, |now| now.source == SourceState::Healthy).await;
    check_inventory(&snapshot, 4);
    snapshot.gpus.iter().for_each(check_values);
    assert!(snapshot.gpus.iter().all(|gpu| gpu.info.name.as_deref() == Some("NVIDIA GB200")), "{snapshot:?}");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

#[test]
fn the_driver_sees_only_what_is_planned() {
    let folder = std::env::temp_dir().join(format!("plimsoll-nvml-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let log = folder.join("calls.log");
    in_child("hgx_child", Some("hgx-h100-8"), Some(&log));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let calls: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let names: BTreeSet<&str> = calls.iter().copied().collect();
    let planned = BTreeSet::from([
        "nvmlInit_v2",
        "nvmlSystemGetDriverVersion",
        "nvmlSystemGetCudaDriverVersion_v2",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTemperature",
        "nvmlShutdown",
    ]);
    assert_eq!(names, planned);
    assert_eq!(calls.last(), Some(&"nvmlShutdown"), "the driver is released at the end");
}

#[test]
fn a_library_without_a_driver_is_unsupported() {
    in_child("driverless_child", None, None);
}

#[tokio::test]
#[ignore = "run by a_library_without_a_driver_is_unsupported in a process of its own"]
async fn driverless_child() {
    let monitor = child_monitor();
    let snapshot = until(&monitor, |now| now.source != SourceState::Failed).await;
    assert_eq!(snapshot.source, SourceState::Unsupported);
    assert!(snapshot.detail.as_ref().unwrap().contains("modprobe nvidia"), "{snapshot:?}");
    check_nothing_is_invented(&snapshot);
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

#[tokio::test]
async fn a_missing_library_is_unsupported_and_says_what_to_do() {
    let monitor = monitor("/nowhere/libnvidia-ml.so.1");
    let snapshot = until(&monitor, |now| now.source != SourceState::Failed).await;
    assert_eq!(snapshot.source, SourceState::Unsupported);
    let detail = snapshot.detail.as_ref().unwrap();
    assert!(detail.contains("/nowhere/libnvidia-ml.so.1") && detail.contains("--nvml-library"), "{detail}");
    check_nothing_is_invented(&snapshot);
    let again = until(&monitor, |now| now.calls > snapshot.calls).await;
    assert_eq!(again.source, SourceState::Unsupported, "it was tried again");
    assert_eq!(monitor.stop(PATIENCE).await, Stopped::InTime);
}

fn check_nothing_is_invented(snapshot: &GpuSnapshot) {
    assert!(snapshot.gpus.is_empty(), "{snapshot:?}");
    assert_eq!(snapshot.driver, None);
}
