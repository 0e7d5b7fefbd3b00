//! Pods: nobody can tell, nobody has it, and several have it, are three things.

use serde_json::json;

use super::{fixture::*, *};
use crate::attribution::{PodRef, PodSource};

fn pod(name: &str, mig: Option<&str>) -> PodRef {
    PodRef {
        namespace: Some("ml".to_owned()),
        pod: Some(name.to_owned()),
        container: Some("engine".to_owned()),
        source: PodSource::DevicePlugin,
        mig: mig.map(str::to_owned),
        claim: None,
        pod_uid: None,
        container_id: None,
        pids: Vec::new(),
    }
}

fn told(gpus: &[(&str, Vec<PodRef>)], now: Instant) -> Arc<Attribution> {
    let gpus = gpus.iter().map(|(uuid, pods)| (info(uuid, 0).uuid, pods.clone())).collect();
    let mut attribution = Attribution { gpus, ..Attribution::default() };
    attribution.kubelet.taken = Some(now);
    attribution.kubelet.state = SourceState::Healthy;
    Arc::new(attribution)
}

#[tokio::test]
async fn pods_are_null_until_they_are_told_and_a_shared_gpu_lists_them_all() {
    let now = Instant::now();
    let agent = Agent::new(snapshot(vec![full("GPU-1", 0, now), full("GPU-2", 1, now)], now));
    assert_eq!(agent.json("/v1/gpus/GPU-1").await.1["pods"], Value::Null);
    agent.attribution.send_replace(told(&[("GPU-1", vec![pod("a-0", None), pod("b-0", None)])], now));
    let (_, page) = agent.json("/v1/gpus").await;
    let names: Vec<_> = page["gpus"][0]["pods"].as_array().unwrap().iter().map(|pod| &pod["pod"]).collect();
    assert_eq!(names, ["a-0", "b-0"]);
    assert_eq!(page["gpus"][1]["pods"], json!([]), "told, and nobody has it");
    let (_, status) = agent.json("/status").await;
    assert_eq!(status["sources"]["attribution"]["kubelet"]["state"], "healthy");
    assert!(agent.get("/").await.1.contains("ml/a-0"));
}

#[tokio::test]
async fn metrics_carry_pods_as_info_and_as_the_exporters_labels() {
    let now = Instant::now();
    let gpus = vec![full("GPU-1", 0, now), partitioned("GPU-2", 1, now)];
    let agent = Agent::with(snapshot(gpus, now), |settings| settings.dcgm_names = Some(true));
    let pods =
        [("GPU-1", vec![pod("a-0", None), pod("b-0", None)]), ("GPU-2", vec![pod("c-0", Some("MIG-1"))])];
    agent.attribution.send_replace(told(&pods, now));
    let (_, page) = agent.get("/metrics").await;
    let lines = |start: &str, part: &str| {
        page.lines().filter(|line| line.starts_with(start) && line.contains(part)).count()
    };
    assert_eq!(lines("plimsoll_gpu_pod_info", "GPU-1"), 2);
    assert_eq!(lines("DCGM_FI_DEV_GPU_UTIL", "container=\"engine\",namespace=\"ml\",pod=\"a-0\"} 97"), 1);
    assert_eq!(lines("DCGM_FI_DEV_GPU_UTIL", "GPU-1"), 2);
    assert_eq!(lines("DCGM_FI_DEV_FB_USED", "GPU_I_ID=\"9\""), 1);
    assert_eq!(lines("DCGM_FI_DEV_FB_USED", "pod=\"c-0\"} 1024"), 1);
}
