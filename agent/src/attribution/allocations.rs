//! From the kubelet's answer to the containers of each GPU.

use std::collections::BTreeMap;

use plimsoll_common::ids::{GpuUuid, MAX_ID_BYTES};

use super::{
    DeviceInventory, MAX_PODS, PodRef, PodSource, Unplaced,
    devices::Place,
    podresources::v1::{
        ClaimResource, ContainerResources, DynamicResource, ListPodResourcesResponse, PodResources,
    },
};

/// How many devices that match no GPU are listed, for people to look at.
const MAX_UNPLACED: usize = 64;
/// The driver of whole GPUs and MIG instances; NVIDIA's others (compute domains) allocate channels.
const GPU_DRIVER: &str = "gpu.nvidia.com";

/// What the kubelet gave to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Allocations {
    pub(super) gpus: BTreeMap<GpuUuid, Vec<PodRef>>,
    pub(super) unplaced: Vec<Unplaced>,
    pub(super) dropped: usize,
    pub(super) listed: usize,
}

impl Allocations {
    pub(super) fn of(answer: &ListPodResourcesResponse, devices: &DeviceInventory) -> Self {
        let mut found = Self::default();
        for pod in &answer.pod_resources {
            for container in &pod.containers {
                found.take_devices(pod, container, devices);
                for claim in &container.dynamic_resources {
                    found.take_claim(pod, container, claim, devices);
                }
            }
        }
        for pods in found.gpus.values_mut() {
            pods.sort();
            // Replicas of one time-sliced GPU in one container are one use of it.
            pods.dedup();
        }
        found.unplaced.sort();
        found
    }

    fn take_devices(
        &mut self,
        pod: &PodResources,
        container: &ContainerResources,
        devices: &DeviceInventory,
    ) {
        for handed_out in &container.devices {
            let of_nvidia = handed_out.resource_name.starts_with("nvidia.com/");
            for id in &handed_out.device_ids {
                // Other vendors' devices may be called `0` too; a UUID is NVIDIA's whatever the resource is called.
                if of_nvidia || id.starts_with("GPU-") || id.starts_with("MIG-") {
                    let pod = of(pod, container, PodSource::DevicePlugin);
                    self.place(pod, devices.by_device_id(id), id, "no GPU of this node has this device");
                }
            }
        }
    }

    fn take_claim(
        &mut self,
        pod: &PodResources,
        container: &ContainerResources,
        claim: &DynamicResource,
        devices: &DeviceInventory,
    ) {
        for resource in &claim.claim_resources {
            let cdi = resource.cdi_devices.iter().map(|device| device.name.as_str());
            let place = match resource.driver_name.as_str() {
                GPU_DRIVER => devices.by_claim_device(&resource.device_name),
                "" => None,
                _ => continue,
            };
            let place = place.or_else(|| cdi.clone().find_map(|name| devices.by_cdi_name(name)));
            // Older kubelets tell neither driver nor device; then only the CDI name says whether it is ours.
            if place.is_none() && resource.driver_name.is_empty() && !cdi.clone().any(is_nvidia) {
                continue;
            }
            let pod = PodRef {
                claim: Some(format!("{}/{}", claim.claim_namespace, claim.claim_name)),
                ..of(pod, container, PodSource::Claim)
            };
            let why = "the claim's device names no GPU of this node";
            self.place(pod, place, &told(resource), why);
        }
    }

    fn place(&mut self, pod: PodRef, place: Option<Place>, device: &str, why: &'static str) {
        let texts = [&pod.namespace, &pod.pod, &pod.container, &pod.claim];
        let is_name =
            |text: &String| text.len() <= 2 * MAX_ID_BYTES + 1 && !text.chars().any(char::is_control);
        if self.listed >= MAX_PODS || !texts.into_iter().flatten().all(is_name) {
            self.dropped += 1;
            return;
        }
        match place {
            Some(Place { gpu, mig }) => {
                self.listed += 1;
                self.gpus.entry(gpu).or_default().push(PodRef { mig, ..pod });
            }
            None if self.unplaced.len() < MAX_UNPLACED => {
                let device = device.chars().filter(|sign| !sign.is_control()).take(MAX_ID_BYTES).collect();
                self.unplaced.push(Unplaced { pod, device, why });
            }
            None => self.dropped += 1,
        }
    }
}

fn of(pod: &PodResources, container: &ContainerResources, source: PodSource) -> PodRef {
    PodRef {
        namespace: Some(pod.namespace.clone()),
        pod: Some(pod.name.clone()),
        container: Some(container.name.clone()),
        source,
        mig: None,
        claim: None,
        pod_uid: None,
        container_id: None,
        pids: Vec::new(),
    }
}

fn is_nvidia(cdi_name: &str) -> bool {
    cdi_name.split('/').next().is_some_and(|vendor| vendor.ends_with("nvidia.com"))
}

/// A claim's device as people know it.
fn told(resource: &ClaimResource) -> String {
    if resource.device_name.is_empty() {
        return resource.cdi_devices.first().map(|device| device.name.clone()).unwrap_or_default();
    }
    format!("{}/{}/{}", resource.driver_name, resource.pool_name, resource.device_name)
}
