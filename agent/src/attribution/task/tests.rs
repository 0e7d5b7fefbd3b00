//! Against a gRPC server on a unix socket, as the kubelet is one.

use std::{path::Path, time::Duration};

use plimsoll_common::wire::GpuInfo;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tonic::Status;

use super::*;
use crate::{
    attribution::{
        PodSource,
        fake_kubelet::{Answer, FakeKubelet, claim, devices, pod},
    },
    gpu::{Activity, GpuFacts, GpuProcess, GpuProcessKind, GpuReading, GpuStatus, Mig, MigInstance},
};

const A: &str = "GPU-5a1c9e62-7d31-4a0e-8f54-0c2b6d9e1f33";
const B: &str = "GPU-0f7d2c11-93ab-4e6d-a1c8-77e05b3d9a42";
const M: &str = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f";
const CLAIM_UID: &str = "8e942949-74a7-4c21-9f0e-3b6c1a52d7e0";

fn id(text: &str) -> GpuUuid {
    GpuUuid::parse(text).unwrap()
}

fn gpu(uuid: &str, index: u32, minor: u32, pids: &[u32]) -> GpuReading {
    let info = GpuInfo {
        uuid: id(uuid),
        index,
        name: None,
        pci_bus_id: None,
        memory_total_bytes: None,
        power_limit_mw: None,
        domain: None,
    };
    let process =
        |pid: &u32| GpuProcess { pid: *pid, kind: GpuProcessKind::Compute, memory_used_bytes: None };
    GpuReading {
        facts: Arc::new(GpuFacts { minor: Some(minor), ..GpuFacts::default() }),
        processes: Some(pids.iter().map(process).collect()),
        ..GpuReading::absent(info, GpuStatus::Ok)
    }
}

/// Two GPUs, the second of them partitioned; minor numbers are not indices.
fn snapshot(pids: &[u32]) -> Arc<GpuSnapshot> {
    let instance = MigInstance {
        uuid: id(M),
        gpu_instance_id: Some(1),
        compute_instance_id: Some(0),
        profile: None,
        memory_total_bytes: None,
        memory_used_bytes: None,
        activity: Activity::default(),
    };
    let mut gpus = vec![gpu(A, 0, 4, pids), gpu(B, 1, 0, &[])];
    gpus[1].mig = Some(Mig { enabled: true, pending: None, instances: vec![instance] });
    Arc::new(GpuSnapshot { gpus, ..GpuSnapshot::empty(Instant::now(), SourceState::Healthy, None) })
}

/// What one question finds.
async fn ask_once(socket: &Path) -> Attribution {
    let options = AttributionOptions { socket: socket.to_owned(), ..AttributionOptions::default() };
    Asker::new(options).ask(&Use::of(&snapshot(&[]))).await
}

async fn ask_about(pods: Vec<crate::attribution::podresources::v1::PodResources>) -> Attribution {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("kubelet.sock");
    let _kubelet = FakeKubelet::start(&socket, Answer::Pods(pods));
    ask_once(&socket).await
}

/// Namespace/pod and MIG instance of the containers of a GPU.
fn pods_of(found: &Attribution, gpu: &str) -> Vec<(String, Option<String>)> {
    let name = |pod: &PodRef| format!("{}/{}", pod.namespace.as_ref().unwrap(), pod.pod.as_ref().unwrap());
    found.pods_of(&id(gpu)).iter().map(|pod| (name(pod), pod.mig.clone())).collect()
}

#[tokio::test]
async fn whole_gpus_and_mig_instances() {
    let found = ask_about(vec![
        pod("ml", "prefill-0", devices("nvidia.com/gpu", &[A])),
        pod("ml", "small-0", devices("nvidia.com/mig-1g.10gb", &[M])),
        pod("ml", "nic", devices("nvidia.com/rdma", &["mlx5_0"])),
        pod("kube-system", "proxy", devices("example.com/gpu", &["0"])),
        pod("kube-system", "dns", Default::default()),
    ])
    .await;
    assert_eq!(found.kubelet.state, SourceState::Healthy, "{:?}", found.kubelet);
    assert_eq!(pods_of(&found, A), [("ml/prefill-0".to_owned(), None)]);
    assert_eq!(pods_of(&found, B), [("ml/small-0".to_owned(), Some(M.to_owned()))]);
    let whole = &found.pods_of(&id(A))[0];
    assert_eq!((whole.container.as_deref(), whole.source), (Some("main"), PodSource::DevicePlugin));
    assert_eq!((found.gpus.len(), found.dropped, found.asked, found.failed), (2, 0, 1, 0));
    let unplaced: Vec<_> = found.unplaced.iter().map(|unplaced| unplaced.device.as_str()).collect();
    assert_eq!(unplaced, ["mlx5_0"], "another vendor's device is nobody's business");
}

#[tokio::test]
async fn a_time_sliced_gpu_lists_all_its_pods_once() {
    let (first, second, third) = (format!("{A}::0"), format!("{A}::1"), format!("{A}::2"));
    let found = ask_about(vec![
        pod("ml", "b", devices("nvidia.com/gpu.shared", &[&first])),
        pod("ml", "a", devices("nvidia.com/gpu", &[&second, &third])),
        pod("dev", "c", devices("nvidia.com/gpu", &[A])),
    ])
    .await;
    let names: Vec<_> = pods_of(&found, A).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["dev/c", "ml/a", "ml/b"]);
}

#[tokio::test]
async fn claims_of_dynamic_resource_allocation() {
    let cdi = |device: &str| format!("k8s.gpu.nvidia.com/claim={CLAIM_UID}-{device}");
    let found = ask_about(vec![
        pod("ml", "whole", claim("gpu.nvidia.com", "gpu-4", &cdi("gpu-4"))),
        pod("ml", "part", claim("gpu.nvidia.com", "gpu-0-mig-1g12gb-19-0", &cdi("gpu-0-mig-1g12gb-19-0"))),
        pod("ml", "old-kubelet", claim("", "", &cdi("gpu-4"))),
        pod("ml", "by-uuid", claim("gpu.nvidia.com", "gpu-x", &format!("nvidia.com/gpu={A}"))),
        pod("ml", "elsewhere", claim("gpu.nvidia.com", "gpu-6", &cdi("gpu-6"))),
        pod("ml", "channel", claim("compute-domain.nvidia.com", "channel-0", "nvidia.com/imex=channel-0")),
        pod("ml", "fpga", claim("", "", "example.com/fpga=0")),
    ])
    .await;
    let names: Vec<_> = pods_of(&found, A).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ml/by-uuid", "ml/old-kubelet", "ml/whole"]);
    assert_eq!(pods_of(&found, B), [("ml/part".to_owned(), Some("gpu-0-mig-1g12gb-19-0".to_owned()))]);
    let claimed = &found.pods_of(&id(A))[2];
    assert_eq!((claimed.source, claimed.claim.as_deref()), (PodSource::Claim, Some("ml/one-gpu")));
    assert_eq!(found.unplaced.len(), 1, "{:?}", found.unplaced);
    assert_eq!(found.unplaced[0].device, "gpu.nvidia.com/node-7/gpu-6");
}

#[tokio::test]
async fn more_pods_than_are_listed_are_counted() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("kubelet.sock");
    let many = |n: usize, name: &str| {
        (0..n).map(|at| pod("ml", &format!("{name}-{at:05}"), devices("nvidia.com/gpu", &[A]))).collect()
    };
    let kubelet = FakeKubelet::start(&socket, Answer::Pods(many(MAX_PODS + 3, "p")));
    let found = ask_once(&socket).await;
    assert_eq!((found.pods_of(&id(A)).len(), found.dropped), (MAX_PODS, 3));
    // Names that no Kubernetes gives are not carried into labels.
    kubelet.answer(Answer::Pods(vec![pod("ml", "evil\nname", devices("nvidia.com/gpu", &[A]))]));
    let found = ask_once(&socket).await;
    assert_eq!((found.gpus.len(), found.dropped), (0, 1));
    // More bytes than are taken: refused before they are read.
    kubelet.answer(Answer::Pods(many(1, &"x".repeat(5 << 20))));
    let found = ask_once(&socket).await;
    assert_eq!(found.kubelet.state, SourceState::Failed);
    let detail = found.kubelet.detail.unwrap();
    assert!(detail.contains("4194304") && detail.len() < 400, "{detail}");
}

#[tokio::test]
async fn no_socket_is_no_failure_but_no_answer_is() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("kubelet.sock");
    let found = ask_once(&socket).await;
    assert_eq!((found.kubelet.state, found.failed), (SourceState::Unsupported, 0));
    assert!(found.kubelet.detail.unwrap().contains("kubelet.sock does not exist"));
    // A socket at which nobody listens any more.
    drop(tokio::net::UnixListener::bind(&socket).unwrap());
    let found = ask_once(&socket).await;
    assert_eq!((found.kubelet.state, found.failed), (SourceState::Failed, 1));
    std::fs::remove_file(&socket).unwrap();
    let _kubelet =
        FakeKubelet::start(&socket, Answer::Error(Status::resource_exhausted("too many requests\nx")));
    let detail = ask_once(&socket).await.kubelet.detail.unwrap();
    assert_eq!(detail, "the kubelet answered: ResourceExhausted: too many requests");
}

#[tokio::test]
async fn what_is_no_grpc_is_a_failure_and_no_panic() {
    let folder = TempDir::new().unwrap();
    for (at, garbage) in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[0xff; 4096], b""].into_iter().enumerate() {
        let socket = folder.path().join(format!("{at}.sock"));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(garbage).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let found = ask_once(&socket).await;
        assert_eq!(found.kubelet.state, SourceState::Failed, "{at}");
        served.await.unwrap();
    }
}

/// The task as the agent runs it, with a snapshot that the test changes.
struct Running {
    folder: TempDir,
    gpus: watch::Sender<Arc<GpuSnapshot>>,
    seen: watch::Receiver<Arc<Attribution>>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(change: impl FnOnce(&Path, &mut AttributionOptions)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut options = AttributionOptions {
            socket: folder.path().join("kubelet.sock"),
            every: Duration::from_millis(20),
            ..AttributionOptions::default()
        };
        change(folder.path(), &mut options);
        let (gpus, gpus_seen) = watch::channel(snapshot(&[]));
        let (out, seen) = watch::channel(Arc::default());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(run(options, gpus_seen, out, cancel.clone()));
        Self { folder, gpus, seen, cancel, task }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("kubelet.sock")
    }

    async fn until(&mut self, what: impl Fn(&Attribution) -> bool) -> Arc<Attribution> {
        let wait = self.seen.wait_for(|found| what(found));
        Arc::clone(&tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap())
    }

    async fn end(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_kubelet_comes_goes_and_comes_back() {
    let mut running = Running::start(|_, _| ());
    running.until(|found| found.kubelet.state == SourceState::Unsupported).await;
    let first = pod("ml", "first", devices("nvidia.com/gpu", &[A]));
    let kubelet = FakeKubelet::start(&running.socket(), Answer::Pods(vec![first]));
    let found = running.until(|found| found.kubelet.state == SourceState::Healthy).await;
    assert_eq!(pods_of(&found, A).len(), 1);
    drop(kubelet);
    let gone = running.until(|found| found.kubelet.state == SourceState::Failed).await;
    assert_eq!(pods_of(&gone, A).len(), 1, "the last answer holds for a while, with its time");
    assert_eq!(gone.kubelet.taken.is_some(), gone.kubelet.taken >= found.kubelet.taken);
    let kubelet = FakeKubelet::start(&running.socket(), Answer::Pods(Vec::new()));
    running.until(|found| found.kubelet.state == SourceState::Healthy && found.gpus.is_empty()).await;
    drop(kubelet);
    running.end().await;
}

#[tokio::test]
async fn a_slow_kubelet_is_given_up_and_does_not_hold_up_the_end() {
    let mut running = Running::start(|_, options| options.timeout = Duration::from_millis(50));
    let kubelet = FakeKubelet::start(&running.socket(), Answer::Silence);
    let slow = running.until(|found| found.kubelet.state == SourceState::Failed).await;
    assert!(slow.kubelet.detail.as_ref().unwrap().contains("50ms"), "{:?}", slow.kubelet);
    kubelet.answer(Answer::Pods(vec![pod("ml", "late", devices("nvidia.com/gpu", &[B]))]));
    let found = running.until(|found| found.kubelet.state == SourceState::Healthy).await;
    assert_eq!(pods_of(&found, B).len(), 1);
    running.end().await;
    let patient = Running::start(|_, options| options.timeout = Duration::from_secs(3600));
    let _kubelet = FakeKubelet::start(&patient.socket(), Answer::Silence);
    patient.end().await;
}

#[tokio::test]
async fn new_processes_and_new_gpus_are_reason_to_ask_again() {
    let mut running = Running::start(|_, options| options.every = Duration::from_secs(3600));
    running.until(|found| found.asked == 1).await;
    let kubelet = FakeKubelet::start(
        &running.socket(),
        Answer::Pods(vec![pod("ml", "new", devices("nvidia.com/gpu", &["0"]))]),
    );
    running.gpus.send_replace(snapshot(&[4711]));
    let found = running.until(|found| found.asked == 2).await;
    assert_eq!(pods_of(&found, A).len(), 1);
    // The same GPUs in another order: what is named by index is another one.
    let mut turned = (*snapshot(&[4711])).clone();
    (turned.gpus[0].info.index, turned.gpus[1].info.index) = (1, 0);
    running.gpus.send_replace(Arc::new(turned));
    let found = running.until(|found| found.asked == 3).await;
    assert_eq!((pods_of(&found, A).len(), pods_of(&found, B).len()), (0, 1));
    drop(kubelet);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_does_not_hold_forever() {
    let options =
        AttributionOptions { socket: "/nonexistent/kubelet.sock".into(), ..AttributionOptions::default() };
    let mut asker = Asker::new(options);
    asker.had_kubelet = true;
    let held = Allocations { dropped: 7, ..Allocations::default() };
    asker.last = Some((Instant::now(), held));
    let nobody = Use::default();
    tokio::time::advance(AttributionOptions::KEPT).await;
    assert_eq!(asker.ask(&nobody).await.dropped, 7);
    tokio::time::advance(Duration::from_secs(1)).await;
    let found = asker.ask(&nobody).await;
    assert_eq!((found.dropped, found.kubelet.taken, found.failed), (0, None, 2));
}

#[tokio::test]
async fn control_groups_add_pods_that_the_kubelet_does_not_know() {
    let uid = "5a1c9e62-7d31-4a0e-8f54-0c2b6d9e1f33";
    let mut running = Running::start(|folder, options| {
        std::fs::create_dir_all(folder.join("proc/4711")).unwrap();
        let group = format!("0::/kubepods/burstable/pod{uid}/{}\n", "ab".repeat(32));
        std::fs::write(folder.join("proc/4711/cgroup"), group).unwrap();
        options.proc = Some(folder.join("proc"));
    });
    let _kubelet = FakeKubelet::start(
        &running.socket(),
        Answer::Pods(vec![pod("ml", "told", devices("nvidia.com/gpu", &[A]))]),
    );
    running.gpus.send_replace(snapshot(&[4711]));
    let found = running.until(|found| found.pods_of(&id(A)).len() == 2).await;
    let pods = found.pods_of(&id(A));
    assert_eq!((pods[0].source, pods[0].pod.as_deref()), (PodSource::DevicePlugin, Some("told")));
    assert_eq!((pods[1].source, pods[1].pod_uid.as_deref()), (PodSource::Cgroup, Some(uid)));
    assert_eq!(pods[1].pids, [4711]);
    assert_eq!(found.cgroup.state, SourceState::Healthy);
    running.gpus.send_replace(snapshot(&[9999]));
    let blind = running.until(|found| found.cgroup.state == SourceState::Failed).await;
    assert!(blind.cgroup.detail.as_ref().unwrap().contains("hostPID"));
    running.end().await;
}

#[tokio::test]
async fn control_groups_are_left_alone_unless_asked_for() {
    let found = ask_once(Path::new("/nonexistent/kubelet.sock")).await;
    assert_eq!(found.cgroup.state, SourceState::Unsupported);
    assert!(found.cgroup.detail.unwrap().contains("--attribute-by-cgroup"));
}
