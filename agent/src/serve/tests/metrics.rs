//! `/metrics`: base units, no sample where there is no value, and DCGM's names on request.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::{fixture::*, *};
use crate::gpu::{AbsentGpu, GpuStatus};

fn dcgm(snapshot: GpuSnapshot) -> Agent {
    Agent::with(snapshot, |settings| settings.dcgm_names = Some(true))
}

fn everything(now: Instant) -> GpuSnapshot {
    let lost = full("GPU-3", 2, now).without_values(GpuStatus::Lost, "fell off the bus");
    let gpus = vec![full("GPU-1", 0, now), partitioned("GPU-2", 1, now), lost];
    let gone = AbsentGpu { info: info("GPU-4", 3), last_seen: now };
    GpuSnapshot { absent: vec![gone], ..snapshot(gpus, now) }
}

#[tokio::test]
async fn a_gpu_that_tells_nothing_has_its_name_and_its_state_only() {
    let now = Instant::now();
    let (_, page) = dcgm(snapshot(vec![silent("GPU-1", 0)], now)).get("/metrics").await;
    let mut names: Vec<_> = page.lines().filter(|line| line.contains("GPU-1")).collect();
    names.retain(|line| !line.starts_with("plimsoll_gpu_state{"));
    // The exporter tells 0 for "no XID".
    let told: Vec<_> = names.iter().filter_map(|line| line.split('{').next()).collect();
    assert_eq!(told, ["plimsoll_gpu_info", "DCGM_FI_DEV_XID_ERRORS"], "{page}");
}

#[tokio::test]
async fn values_are_in_base_units() {
    let now = Instant::now();
    let (_, page) = Agent::new(everything(now)).get("/metrics").await;
    let gpu = "{gpu=\"0\",uuid=\"GPU-1\"";
    for line in [
        format!("plimsoll_gpu_energy_joules_total{gpu}}} 7200000.123"),
        format!("plimsoll_gpu_sm_clock_hertz{gpu}}} 1830000000"),
        format!("plimsoll_gpu_utilization_ratio{gpu}}} 0.97"),
        format!("plimsoll_gpu_throttle_reason{gpu},reason=\"sw_power_cap\"}} 1"),
        format!("plimsoll_gpu_throttle_reason{gpu},reason=\"hw_slowdown\"}} 0"),
        format!("plimsoll_gpu_xid_errors_total{gpu},xid=\"79\"}} 1"),
        format!("plimsoll_gpu_ecc_errors_total{gpu},kind=\"corrected\"}} 3"),
        format!("plimsoll_gpu_remapped_rows{gpu},kind=\"uncorrected\"}} 2"),
        format!("plimsoll_gpu_tensor_activity_ratio{gpu}}} 0.25"),
        format!("plimsoll_gpu_utilization_window_mean_ratio{gpu}}} 0.8825"),
        format!("plimsoll_gpu_power_window_max_watts{gpu}}} 699.5"),
        format!("plimsoll_gpu_decoder_utilization_ratio{gpu}}} 0.12"),
        format!("plimsoll_gpu_pcie_replays_total{gpu}}} 4"),
        format!("plimsoll_gpu_retired_pages{gpu},kind=\"single_bit\"}} 2"),
        format!("plimsoll_gpu_nvlink_errors_total{gpu},kind=\"receive\"}} 7"),
        "plimsoll_mig_tensor_activity_ratio{gpu=\"1\",uuid=\"GPU-2\",mig_uuid=\"MIG-1\"} 0.125".to_owned(),
        format!("plimsoll_gpu_nvlinks{gpu},state=\"up\"}} 1"),
        format!("plimsoll_gpu_nvlink_domain_info{gpu},kind=\"multi_node\",domain=\"fabric.5\"}} 1"),
        format!("plimsoll_gpu_recovery_action_info{gpu},action=\"gpu_reset\"}} 1"),
        format!("plimsoll_gpu_process_memory_bytes{gpu},pid=\"4711\",kind=\"compute\"}} 53687091200"),
        format!("plimsoll_gpu_unsupported_info{gpu},field=\"fan_speed_percent\"}} 1"),
        "plimsoll_mig_memory_used_bytes{gpu=\"1\",uuid=\"GPU-2\",mig_uuid=\"MIG-1\"} 1073741824".to_owned(),
        "plimsoll_gpu_state{gpu=\"2\",uuid=\"GPU-3\",state=\"lost\"} 1".to_owned(),
        "plimsoll_gpu_state{gpu=\"3\",uuid=\"GPU-4\",state=\"absent\"} 1".to_owned(),
        "# UNIT plimsoll_gpu_energy_joules_total joules".to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    assert!(!page.contains("pid=\"4712\""), "no memory is known of it");
    assert!(!page.contains("DCGM_"), "only on request");
}

#[tokio::test]
async fn dcgm_names_carry_the_exporters_labels_and_units() {
    let now = Instant::now();
    let (_, page) = dcgm(everything(now)).get("/metrics").await;
    let labels = "gpu=\"0\",UUID=\"GPU-1\",pci_bus_id=\"00000000:1B:00.0\",device=\"nvidia5\",\
                  modelName=\"a \\\"GPU\\\" <80GB>\",Hostname=\"node<1>\",DCGM_FI_DRIVER_VERSION=\"580.95.05\"";
    for (name, value) in [
        ("DCGM_FI_DEV_SM_CLOCK", "1830"),
        ("DCGM_FI_DEV_POWER_USAGE", "512.5"),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "7200000123"),
        ("DCGM_FI_DEV_GPU_UTIL", "97"),
        ("DCGM_FI_DEV_FB_USED", "61440"),
        ("DCGM_FI_DEV_FB_FREE", "19968"),
        ("DCGM_FI_DEV_FB_RESERVED", "512"),
        ("DCGM_FI_DEV_DEC_UTIL", "12"),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "4"),
        ("DCGM_FI_DEV_RETIRED_SBE", "2"),
        ("DCGM_FI_DEV_RETIRED_PENDING", "1"),
        ("DCGM_FI_DEV_NVLINK_COUNT_RX_SYMBOL_ERRORS", "9"),
        ("DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", "5000"),
        ("DCGM_FI_DEV_XID_ERRORS", "79"),
        ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "68"),
        ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "200"),
        ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "0.25"),
    ] {
        let line = format!("{name}{{{labels}}} {value}");
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    let instance =
        page.lines().find(|line| line.starts_with("DCGM_FI_DEV_FB_USED") && line.contains("GPU-2"));
    let instance = instance.unwrap();
    assert!(
        instance.contains("GPU_I_PROFILE=\"1g.10gb\",GPU_I_ID=\"9\"") && instance.ends_with(" 1024"),
        "{instance}"
    );
    let lost = |line: &&str| line.starts_with("DCGM_FI_DEV_GPU_UTIL") && line.contains("GPU-3");
    assert_eq!(page.lines().find(lost), None, "no sentinel, no zero");
}

/// What Prometheus' own tool says of a page; `None` where it is not installed.
fn promtool(page: &str) -> Option<(bool, Vec<String>)> {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    tool.stdin.take()?.write_all(page.as_bytes()).ok()?;
    let output = tool.wait_with_output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
    Some((output.status.success(), said))
}

#[tokio::test]
async fn promtool_reads_the_page_and_finds_nothing_but_the_exporters_own_names() {
    let now = Instant::now();
    let (_, page) = Agent::new(everything(now)).get("/metrics").await;
    let Some((clean, said)) = promtool(&page) else {
        println!("SKIPPED: promtool is not installed (Debian package prometheus)");
        return;
    };
    assert!(clean && said.is_empty(), "{said:#?}");
    let (_, page) = dcgm(everything(now)).get("/metrics").await;
    let (_, said) = promtool(&page).unwrap();
    let ours: Vec<_> = said.iter().filter(|line| !line.starts_with("DCGM_FI_")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    // The exporter's labels and counters are named as they are.
    let known = |line: &&String| {
        line.contains("\"_total\" suffix") || line.contains("camelCase") || line.contains("should not")
    };
    let unknown: Vec<_> = said.iter().filter(|line| !known(line)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}
