//! From the control groups of processes to pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::Path,
};

use plimsoll_common::ids::GpuUuid;

use super::{PodRef, PodSource, devices::is_uuid};

/// The most processes whose control group is read at once.
const MAX_PROCESSES: usize = 1024;
/// The most that is read of one file; a process in every hierarchy of version 1 needs a tenth of it.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The pod and container that a control group names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupPod {
    /// The pod's UID; absent where the control group is seen from within the same pod.
    pub pod_uid: Option<String>,
    /// The container's id at its runtime.
    pub container_id: Option<String>,
}

/// Finds pod and container in the text of `/proc/<pid>/cgroup`; `None` for a process of no pod.
///
/// Understood are control groups of version 1 and 2, by the drivers `systemd` and `cgroupfs`, of all QoS classes, of
/// containerd, CRI-O and Docker, below a node that is itself a container (kind), and seen from a control-group namespace
/// (paths that begin with `/..`).
#[must_use]
pub fn parse(text: &str) -> Option<CgroupPod> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let found = paths.map(parse_path).filter(|pod| *pod != CgroupPod::default());
    // Hierarchies of version 1 may be nested differently: the one that tells most is believed.
    found.max_by_key(|pod| (pod.pod_uid.is_some(), pod.container_id.is_some()))
}

fn parse_path(path: &str) -> CgroupPod {
    let mut pod = CgroupPod::default();
    let is_namespaced = path.starts_with("/..");
    let mut in_kubernetes = is_namespaced;
    // A slice that systemd could not create stands in one part with the container: `<slice>:cri-containerd:<id>`.
    for part in path.split(['/', ':']) {
        in_kubernetes |= part.contains("kubepods");
        if let Some(uid) = pod_uid(part) {
            pod = CgroupPod { pod_uid: Some(uid), container_id: None };
        } else if let Some(id) = container_id(part)
            && in_kubernetes
            && (pod.pod_uid.is_some() || is_namespaced)
        {
            pod.container_id = Some(id.to_owned());
        }
    }
    // A container without a pod is Kubernetes' only where a namespace hides the pod.
    if pod.pod_uid.is_none() && !is_namespaced { CgroupPod::default() } else { pod }
}

/// The UID in `pod<uid>` and `kubepods-burstable-pod<uid>.slice`: a UUID (with underscores in systemd's names), or, of a
/// static pod, 32 hexadecimal digits.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.rsplit_once("-pod") {
        Some((slice, uid)) if slice.contains("kubepods") => uid,
        _ => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let is_static = uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_static || is_uuid(&uid)).then_some(uid)
}

/// The id in `<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope` and `docker-<id>.scope`: 64 hexadecimal digits.
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit_once('-').map_or(part, |(_, id)| id);
    // CRI-O's monitor of a container is not the container.
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && !part.contains("conmon")).then_some(id)
}

/// What reading control groups gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupPods {
    pub(super) gpus: BTreeMap<GpuUuid, Vec<PodRef>>,
    /// Why nothing could be read of any process, where so.
    pub(super) trouble: Option<String>,
}

/// Finds the pods of the processes on each GPU. Reads files, so it is no work for an async thread.
pub(super) fn look_up(proc: &Path, processes: &BTreeMap<GpuUuid, BTreeSet<u32>>) -> CgroupPods {
    let pids: BTreeSet<u32> = processes.values().flatten().copied().take(MAX_PROCESSES).collect();
    let mut pods: BTreeMap<u32, CgroupPod> = BTreeMap::new();
    let (mut seen, mut trouble) = (0, None);
    for pid in &pids {
        match read(&proc.join(pid.to_string()).join("cgroup")) {
            Ok(text) => {
                seen += 1;
                pods.extend(parse(&text).map(|pod| (*pid, pod)));
            }
            Err(error) => trouble = Some(error),
        }
    }
    let mut found = CgroupPods::default();
    if seen == 0 {
        // One process may have ended meanwhile; if none is there, they are in another pid namespace.
        found.trouble = trouble.map(|error| {
            format!(
                "the processes on the GPUs are not below {}: is hostPID granted? ({error})",
                proc.display()
            )
        });
    }
    for (gpu, on_gpu) in processes {
        let mut containers: BTreeMap<&CgroupPod, Vec<u32>> = BTreeMap::new();
        for pid in on_gpu {
            if let Some(pod) = pods.get(pid) {
                containers.entry(pod).or_default().push(*pid);
            }
        }
        if !containers.is_empty() {
            let refs = containers.into_iter().map(|(pod, pids)| pod_ref(pod, pids)).collect();
            found.gpus.insert(gpu.clone(), refs);
        }
    }
    found
}

fn pod_ref(pod: &CgroupPod, pids: Vec<u32>) -> PodRef {
    PodRef {
        namespace: None,
        pod: None,
        container: None,
        source: PodSource::Cgroup,
        mig: None,
        claim: None,
        pod_uid: pod.pod_uid.clone(),
        container_id: pod.container_id.clone(),
        pids,
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "5a1c9e62-7d31-4a0e-8f54-0c2b6d9e1f33";
    const STATIC: &str = "3f0c9b7e1d5a48e2a6c4f8b2d0e91c57";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    /// The text with `U` for the UID, `_U_` for systemd's form, `S` for a static pod's UID and `C` for a container's id.
    fn told(template: &str) -> Option<(Option<String>, Option<String>)> {
        let text = template
            .replace("_U_", &UID.replace('-', "_"))
            .replace("<U>", UID)
            .replace("<S>", STATIC)
            .replace("<C>", &id());
        parse(&text).map(|pod| (pod.pod_uid, pod.container_id))
    }

    #[test]
    fn control_groups_of_pods() {
        let whole = Some((Some(UID.to_owned()), Some(id())));
        let table = [
            // Version 2, systemd: burstable, best effort, guaranteed.
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_U_.slice/cri-containerd-<C>.scope",
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod_U_.slice/crio-<C>.scope",
            "0::/kubepods.slice/kubepods-pod_U_.slice/docker-<C>.scope",
            "0::/kubepods.slice/kubepods-pod_U_.slice/crio-<C>.scope/container",
            // Version 2, cgroupfs.
            "0::/kubepods/burstable/pod<U>/<C>",
            "0::/kubepods/besteffort/pod<U>/<C>",
            "0::/kubepods/pod<U>/<C>",
            "0::/kubepods/pod<U>/<C>/init.scope",
            // Version 1: many hierarchies, one of which may be elsewhere.
            "12:devices:/kubepods/burstable/pod<U>/<C>\n1:name=systemd:/kubepods/burstable/pod<U>/<C>\n0::/",
            "11:rdma:/\n4:memory:/kubepods.slice/kubepods-pod_U_.slice/docker-<C>.scope\n0::/system.slice/containerd.service",
            "0::/system.slice/containerd.service\n3:cpu,cpuacct:/kubepods/pod<U>/<C>",
            // containerd below its own service, with systemd's names.
            "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-pod_U_.slice:cri-containerd:<C>",
            // A node that is a container.
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod_U_.slice/cri-containerd-<C>.scope",
            "0::/docker/ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff/kubelet/kubepods/besteffort/pod<U>/<C>",
            // Seen from the control-group namespace of another pod.
            "0::/../../kubepods-besteffort-pod_U_.slice/cri-containerd-<C>.scope",
            "0::/../../../burstable/pod<U>/<C>",
        ];
        for text in table {
            assert_eq!(told(text), whole, "{text}");
        }
        assert_eq!(
            told(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<S>.slice/crio-<C>.scope"
            ),
            Some((Some(STATIC.to_owned()), Some(id())))
        );
        let pod_only = Some((Some(UID.to_owned()), None));
        assert_eq!(told("0::/kubepods/pod<U>"), pod_only);
        assert_eq!(told("0::/kubepods.slice/kubepods-pod_U_.slice/crio-conmon-<C>.scope"), pod_only);
        assert_eq!(
            told("0::/../cri-containerd-<C>.scope"),
            Some((None, Some(id()))),
            "another container of our own pod"
        );
    }

    #[test]
    fn control_groups_of_no_pod() {
        let table = [
            "",
            "0::/",
            "0::/init.scope",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/docker/<C>",
            "0::/system.slice/docker-<C>.scope",
            "0::/machine.slice/libpod-<C>.scope",
            "0::/kubepods/burstable",
            "0::/kubepods/podnothing/<C>",
            "0::/kubepods.slice/kubepods-pod1234.slice/cri-containerd-<C>.scope",
            "0::/../../system.slice/sshd.service",
            "no colons",
            "0:",
            "::",
        ];
        for text in table {
            assert_eq!(told(text), None, "{text}");
        }
    }

    #[test]
    fn processes_are_looked_up_and_grouped_by_container() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, text: &str| {
            std::fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            std::fs::write(proc.path().join(format!("{pid}/cgroup")), text).unwrap();
        };
        process(10, &format!("0::/kubepods/pod{UID}/{}\n", id()));
        process(11, &format!("0::/kubepods/pod{UID}/{}\n", id()));
        process(12, "0::/user.slice\n");
        let gpu = |text| GpuUuid::parse(text).unwrap();
        let processes = |pids: &[u32]| BTreeMap::from([(gpu("GPU-1"), pids.iter().copied().collect())]);
        let found = look_up(proc.path(), &processes(&[10, 11, 12, 99]));
        assert_eq!(found.trouble, None, "99 has ended meanwhile");
        let pods = &found.gpus[&gpu("GPU-1")];
        assert_eq!(pods.len(), 1);
        assert_eq!((pods[0].pod_uid.as_deref(), pods[0].pids.as_slice()), (Some(UID), &[10, 11][..]));
        assert_eq!(look_up(proc.path(), &processes(&[12])), CgroupPods::default());
        assert_eq!(look_up(proc.path(), &processes(&[])), CgroupPods::default());
        let elsewhere = look_up(proc.path(), &processes(&[4711]));
        assert!(elsewhere.trouble.unwrap().contains("hostPID"));
    }

    proptest! {
        /// Invariant: no text is a panic, and only a UID or a container's id makes a pod.
        #[test]
        fn any_text_is_parsed(text in "\\PC{0,200}|([0-9]:[a-z]*:(/[-_.:a-f0-9podkubepods]{0,80}){0,5}\n){0,4}") {
            if let Some(pod) = parse(&text) {
                prop_assert!(pod != CgroupPod::default());
                prop_assert!(pod.pod_uid.is_none_or(|uid| uid.len() == 32 || is_uuid(&uid)));
                prop_assert!(pod.container_id.is_none_or(|id| id.len() == 64));
            }
        }
    }
}
