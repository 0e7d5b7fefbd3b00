//! The domain of one GPU as far as it can be told without the others, and what is wrong with it.

use super::Wiring;
use crate::gpu::{Fabric, FabricState, RemoteKind};

/// The domain of one GPU, before it meets the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// A clique of a fabric that spans nodes.
    MultiNode { cluster_uuid: String, clique_id: u32 },
    /// The NVSwitches of the node; why it is not more.
    NodeSwitch(&'static str),
    /// Perhaps linked to other GPUs; why it is not more.
    Direct(&'static str),
    /// Alone, and why.
    Alone(&'static str),
}

pub(super) fn classify(gpu: &Wiring) -> Class {
    if gpu.mig {
        return Class::Alone("MIG is on: its instances have no NVLink");
    }
    let fabric = gpu.fabric.as_ref().filter(|fabric| fabric.state != FabricState::NotSupported);
    let (key, why_not) = match fabric {
        None => (None, "there is no NVLink fabric to register with"),
        Some(fabric) => multi_node(gpu, fabric),
    };
    if let Some((cluster_uuid, clique_id)) = key {
        return Class::MultiNode { cluster_uuid, clique_id };
    }
    let up = |kind: RemoteKind| gpu.links.iter().any(|link| link.up && link.remote == Some(kind));
    let up_to_something = gpu.links.iter().any(|link| {
        link.up && matches!(link.remote, None | Some(RemoteKind::Unknown)) && link.remote_bus_id.is_none()
    });
    let behind_switch = fabric.is_some() || is_switch_connected(gpu);
    if up(RemoteKind::Switch) || (behind_switch && (up_to_something || gpu.links.is_empty())) {
        return Class::NodeSwitch(why_not);
    }
    if gpu.links.iter().any(|link| link.up) {
        Class::Direct(why_not)
    } else {
        Class::Alone("no NVLink is up")
    }
}

/// The key of a domain beyond the node, or why there is none.
fn multi_node(gpu: &Wiring, fabric: &Fabric) -> (Option<(String, u32)>, &'static str) {
    if fabric.state != FabricState::Completed {
        return (None, "registration with the NVLink fabric has not completed");
    }
    if fabric.status != 0 {
        return (None, "registration with the NVLink fabric failed");
    }
    let Some(uuid) = fabric.cluster_uuid.as_ref().filter(|uuid| !is_nil(uuid)) else {
        return (None, "the cluster UUID is nil: the fabric ends at this node");
    };
    if !reaches_other_nodes(gpu) {
        return (None, "there is a cluster UUID, but the platform has no NVLink beyond this node");
    }
    (Some((uuid.to_ascii_lowercase(), fabric.clique_id)), "")
}

/// Whether the platform has NVLink beyond the node: see the rule in the module's documentation.
fn reaches_other_nodes(gpu: &Wiring) -> bool {
    const SUPERCHIPS: [&str; 3] = ["GH200", "GB200", "GB300"];
    let product = gpu.product.as_deref().unwrap_or_default();
    is_in_rack(gpu) || product.split_whitespace().any(|word| SUPERCHIPS.contains(&word))
}

/// Whether the platform says that it is part of a rack with NVSwitches of its own.
fn is_in_rack(gpu: &Wiring) -> bool {
    let chassis = gpu.platform.as_ref().and_then(|platform| platform.chassis_serial.as_deref());
    is_switch_connected(gpu) && chassis.is_some_and(|serial| !is_nil(serial.trim()))
}

fn is_switch_connected(gpu: &Wiring) -> bool {
    gpu.platform.as_ref().is_some_and(|platform| platform.peer_type == 1)
}

/// Whether an identifier says nothing: empty, or nothing but zeros.
fn is_nil(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0' | b'-')) || text.eq_ignore_ascii_case("n/a")
}

/// What keeps the NVLinks of a GPU from working as wired, as far as the fabric tells.
pub(super) fn fabric_troubles(gpu: &Wiring) -> Vec<String> {
    let Some(fabric) = &gpu.fabric else { return Vec::new() };
    let mut troubles = Vec::new();
    let mut say = |text: &str| troubles.push(text.to_owned());
    match fabric.state {
        FabricState::NotSupported => return Vec::new(),
        FabricState::NotStarted => {
            say("registration with the NVLink fabric has not started: is the fabric manager running?");
        }
        FabricState::InProgress => say("registration with the NVLink fabric is in progress"),
        FabricState::Completed if fabric.status != 0 => {
            say(&format!("registration with the NVLink fabric failed: NVML code {}", fabric.status));
        }
        FabricState::Completed => {
            if is_in_rack(gpu) && fabric.cluster_uuid.as_deref().is_none_or(is_nil) {
                say("the platform is a rack, but its NVLink fabric tells no cluster UUID");
            }
        }
        FabricState::Other(code) => say(&format!("the NVLink fabric is in an unknown state: {code}")),
    }
    match fabric.health.summary {
        Some(2) => say("the NVLink fabric says that it is unhealthy"),
        Some(3) => say("the NVLink fabric has limited capacity"),
        _ => {}
    }
    if let Some(mask) = fabric.health.mask {
        mask_troubles(mask).into_iter().for_each(say);
    }
    troubles
}

/// NVML's health mask: fields of 2 bits (1 true, 2 false, 0 not supported), and one of 4 bits for the configuration.
fn mask_troubles(mask: u32) -> Vec<&'static str> {
    const FLAGS: [(u32, &str); 4] = [
        (0, "the bandwidth of the NVLink fabric is degraded"),
        (2, "a route of the NVLink fabric is being recovered"),
        (4, "a route of the NVLink fabric is unhealthy"),
        (6, "the NVLink fabric recovers from access timeouts"),
    ];
    let flags = FLAGS.into_iter().filter(|(shift, _)| (mask >> shift) & 0b11 == 1).map(|(_, text)| text);
    let configuration = match (mask >> 8) & 0b1111 {
        2 => Some("the NVLink fabric has a wrong system GUID"),
        3 => Some("the NVLink fabric has a wrong chassis serial number"),
        4 => Some("the GPU is in no partition of the NVLink fabric"),
        5 => Some("the NVLink fabric has too few links"),
        6 => Some("the GPU's firmware does not fit the NVLink fabric"),
        7 => Some("the GPU's place in the NVLink fabric is invalid"),
        8 => Some("the GPU's state is invalid to the NVLink fabric"),
        _ => None,
    };
    flags.chain(configuration).collect()
}
