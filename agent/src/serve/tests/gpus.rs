//! `/v1/gpus`: absent is null, and the four ways of having no value are told apart.

use std::time::Duration;

use serde_json::{Value, json};

use super::{fixture::*, *};
use crate::gpu::{AbsentGpu, GpuStatus, Metric, Release};

/// The names of all fields of an object, nested ones with their path.
fn leaves(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| leaves(&format!("{path}.{name}"), value, found));
        }
        value => found.push((path.to_owned(), value.clone())),
    }
}

#[tokio::test]
async fn a_gpu_that_tells_nothing_has_every_field_and_no_value() {
    let now = Instant::now();
    let agent = Agent::new(snapshot(vec![silent("GPU-1", 3)], now));
    let (status, gpu) = agent.json("/v1/gpus/GPU-1").await;
    assert_eq!(status, 200);
    let mut found = Vec::new();
    leaves("", &gpu, &mut found);
    let told: Vec<_> =
        found.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(told, [".uuid", ".index", ".state", ".xids.counts", ".unsupported", ".ages_seconds"]);
    assert_eq!(gpu["xids"]["counts"], json!({}));
}

#[tokio::test]
async fn a_gpu_that_tells_everything_has_no_null() {
    let now = Instant::now();
    let (_, gpu) = Agent::new(snapshot(vec![full("GPU-1", 3, now)], now)).json("/v1/gpus/GPU-1").await;
    let mut found = Vec::new();
    leaves("", &gpu, &mut found);
    let missing: Vec<_> = found.iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name).collect();
    assert_eq!(missing, [".trouble", ".pods"]);
    assert_eq!(gpu["power_watts"], 512.5);
    assert_eq!(gpu["energy_joules"], 7_200_000.123);
    assert_eq!(gpu["throttle_reasons"], json!(["sw_power_cap", "hw_thermal_slowdown"]));
    assert_eq!(gpu["activity"]["tensor_activity"], 0.25);
    assert_eq!(gpu["activity"]["fp64_activity"], 0.0, "a real zero stays one");
    assert_eq!(
        gpu["utilization_samples"],
        json!({ "mean_percent": 88.25, "max_percent": 100, "count": 60, "span_seconds": 10.0 })
    );
    assert_eq!(
        (&gpu["power_samples"]["mean_watts"], &gpu["power_samples"]["max_watts"]),
        (&json!(498.0), &json!(699.5))
    );
    assert_eq!(gpu["decoder_utilization_percent"], 12);
    assert_eq!(gpu["retired_pages"], json!({ "single_bit": 2, "double_bit": 0, "pending": true }));
    assert_eq!(
        (&gpu["links"][0]["errors"]["receive"], &gpu["links"][0]["tx_bytes"]),
        (&json!(7), &json!(5000))
    );
    assert_eq!(gpu["xids"]["counts"], json!({ "31": 2, "79": 1 }));
    assert_eq!(gpu["recovery_action"], "gpu_reset");
    assert_eq!(gpu["links"][0]["remote"], json!({ "kind": "nvswitch", "pci_bus_id": "00000000:07:00.0" }));
    assert_eq!(gpu["fabric"]["health"], "healthy");
    assert_eq!(gpu["fabric"]["degraded_bandwidth"], false);
    assert_eq!(gpu["nvlink_domain"]["kind"], "multi_node");
    assert_eq!(gpu["processes"][1], json!({ "pid": 4712, "kind": "compute", "memory_used_bytes": null }));
    assert_eq!(gpu["unsupported"], json!(["fan_speed_percent"]));
}

#[tokio::test]
async fn what_a_gpu_does_not_support_is_told_in_the_words_of_this_page() {
    let now = Instant::now();
    let (_, gpu) = Agent::new(snapshot(vec![full("GPU-1", 3, now)], now)).json("/v1/gpus/GPU-1").await;
    let mut found = Vec::new();
    leaves("", &gpu, &mut found);
    // Processes are one list here, asked by two calls, and parts tell their own.
    let lists = ["compute_processes", "graphics_processes", "mig_activity", "link_errors"];
    for field in Metric::ALL.iter().flat_map(|metric| metric.fields()).filter(|field| !lists.contains(field))
    {
        let known = found.iter().any(|(name, _)| name.split('.').any(|part| part == *field));
        assert!(known, "{field} is no field of this page");
    }
}

#[tokio::test]
async fn groups_tell_their_own_age() {
    let taken = Instant::now();
    let mut gpu = full("GPU-1", 0, taken);
    gpu.taken.set(Metric::Ecc, None);
    gpu.taken.set(Metric::Links, taken.checked_sub(Duration::from_secs(42)));
    let (_, gpu) = Agent::new(snapshot(vec![gpu], taken)).json("/v1/gpus/GPU-1").await;
    let ages = &gpu["ages_seconds"];
    assert!(ages["links"].as_f64().unwrap() >= 42.0, "{ages}");
    assert!(ages["power"].as_f64().unwrap() < 42.0, "{ages}");
    assert_eq!(ages["ecc"], Value::Null);
}

#[tokio::test]
async fn mig_instances_are_listed_with_their_gpu() {
    let now = Instant::now();
    let (_, gpu) = Agent::new(snapshot(vec![partitioned("GPU-1", 0, now)], now)).json("/v1/gpus/GPU-1").await;
    assert_eq!(gpu["mig"]["enabled"], true);
    assert_eq!(gpu["mig"]["instances"][0]["profile"], "1g.10gb");
    assert_eq!(gpu["mig"]["instances"][0]["memory_used_bytes"], 1 << 30);
    assert_eq!(gpu["mig"]["instances"][0]["activity"]["tensor_activity"], 0.125);
    assert_eq!(gpu["mig"]["instances"][0]["activity"]["sm_activity"], Value::Null);
}

#[tokio::test]
async fn lost_stale_and_absent_gpus_keep_their_names_and_lose_their_values() {
    let now = Instant::now();
    let lost = full("GPU-1", 0, now).without_values(GpuStatus::Lost, "fell off the bus");
    let stale = full("GPU-2", 1, now).without_values(GpuStatus::Stale, "the driver does not answer");
    let gone = AbsentGpu { info: info("GPU-3", 2), last_seen: now };
    let agent = Agent::new(GpuSnapshot { absent: vec![gone], ..snapshot(vec![lost, stale], now) });
    let (_, page) = agent.json("/v1/gpus").await;
    assert_eq!((&page["gpus"][0]["state"], &page["gpus"][1]["state"]), (&json!("lost"), &json!("stale")));
    assert_eq!(page["gpus"][0]["power_watts"], Value::Null);
    assert_eq!(page["gpus"][0]["trouble"], "fell off the bus");
    assert_eq!(page["gpus"][0]["xids"]["counts"]["79"], 1, "what was counted stays counted");
    assert_eq!(page["absent"][0]["uuid"], "GPU-3");
    let (status, gone) = agent.json("/v1/gpus/GPU-3").await;
    assert_eq!((status, &gone["state"]), (200, &json!("absent")));
    let (_, html) = agent.get("/").await;
    for word in ["lost", "stale", "absent", "fell off the bus"] {
        assert!(html.contains(&format!(">{word}<")), "{word}");
    }
}

#[tokio::test]
async fn a_driver_that_does_not_answer_makes_every_value_stale() {
    let taken = Instant::now();
    let due = taken.checked_sub(Duration::from_secs(1));
    let agent =
        Agent::new(GpuSnapshot { valid_until: due, ..snapshot(vec![full("GPU-1", 0, taken)], taken) });
    let (_, page) = agent.json("/v1/gpus").await;
    assert_eq!((&page["source"]["state"], &page["gpus"][0]["state"]), (&json!("failed"), &json!("stale")));
    assert_eq!(page["gpus"][0]["utilization_percent"], Value::Null);
    let (_, metrics) = agent.get("/metrics").await;
    assert!(
        metrics.contains("plimsoll_gpu_state{gpu=\"0\",uuid=\"GPU-1\",state=\"stale\"} 1\n"),
        "{metrics}"
    );
    assert!(!metrics.contains("plimsoll_gpu_power_watts"), "{metrics}");
}

#[tokio::test]
async fn a_release_says_when_it_ends() {
    let now = Instant::now();
    let release = Release { since: now, until: now + Duration::from_secs(60) };
    let agent = Agent::new(GpuSnapshot { release: Some(release), ..no_gpu() });
    let (_, page) = agent.json("/v1/gpus").await;
    let left = page["source"]["released"]["returns_in_seconds"].as_f64().unwrap();
    assert!((1.0..=60.0).contains(&left), "{page}");
    assert!(agent.get("/metrics").await.1.contains("plimsoll_gpu_source_released 1\n"));
    assert!(agent.get("/").await.1.contains("NVML is released"));
}

#[tokio::test]
async fn a_gpu_that_is_not_here_is_a_404_that_names_those_that_are() {
    let now = Instant::now();
    let (status, error) = Agent::new(snapshot(vec![silent("GPU-1", 0)], now)).json("/v1/gpus/GPU-2").await;
    assert_eq!(status, 404);
    assert!(error["hint"].as_str().unwrap().contains("GPU-1"), "{error}");
    let (_, error) = Agent::new(no_gpu()).json("/v1/gpus/GPU-2").await;
    assert!(error["hint"].as_str().unwrap().contains("no NVIDIA driver"), "{error}");
}

#[tokio::test]
async fn the_topology_names_domains_pairs_and_links() {
    let now = Instant::now();
    let agent = Agent::new(snapshot(vec![full("GPU-1", 0, now), full("GPU-2", 1, now)], now));
    let (_, topology) = agent.json("/v1/topology").await;
    let domain = &topology["domains"][0];
    assert_eq!((&domain["kind"], &domain["clique_id"]), (&json!("multi_node"), &json!(5)));
    assert_eq!(domain["gpus"], json!(["GPU-1", "GPU-2"]));
    assert_eq!(topology["pairs"][0]["path"], "switch");
    assert_eq!(topology["gpus"][1]["links"][0]["errors"]["crc"], 2);
    assert_eq!(topology["gpus"][1]["domain"], domain["id"]);
}

#[tokio::test]
async fn a_gpu_without_events_has_no_xids_rather_than_none() {
    let now = Instant::now();
    let mut gpu = silent("GPU-1", 0);
    gpu.unsupported.insert("events");
    let agent = Agent::with(snapshot(vec![gpu], now), |settings| settings.dcgm_names = Some(true));
    assert_eq!(agent.json("/v1/gpus/GPU-1").await.1["xids"], Value::Null);
    assert!(!agent.get("/metrics").await.1.contains("DCGM_FI_DEV_XID_ERRORS"));
}
