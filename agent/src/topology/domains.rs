//! From GPUs to domains.

use std::collections::BTreeMap;

use plimsoll_common::{ids::GpuUuid, wire::DomainKind};

use super::{
    NvLinkDomain, Trouble, Wiring,
    classify::{Class, classify, fabric_troubles},
};

/// The NVLink domains of GPUs: every GPU is in exactly one.
#[must_use]
pub fn domains(gpus: &[Wiring]) -> Vec<NvLinkDomain> {
    let classes: Vec<Class> = gpus.iter().map(classify).collect();
    let components = components(gpus, &classes);
    // Keyed as they are ordered.
    let mut found: BTreeMap<(DomainKind, String), NvLinkDomain> = BTreeMap::new();
    for (at, (gpu, class)) in gpus.iter().zip(&classes).enumerate() {
        let domain = begin(gpu, class, &components[at]);
        let domain = found.entry((domain.kind, domain.id.clone())).or_insert(domain);
        domain.gpus.push(gpu.uuid.clone());
        let troubles = troubles(gpu, gpus, domain.kind);
        domain.troubles.extend(troubles.into_iter().map(|what| Trouble { gpu: gpu.uuid.clone(), what }));
    }
    found.into_values().collect()
}

/// A domain without GPUs, as the first of its GPUs tells it.
fn begin(gpu: &Wiring, class: &Class, component: &[GpuUuid]) -> NvLinkDomain {
    let plain = |kind, id: String, because| NvLinkDomain {
        id,
        kind,
        cluster_uuid: None,
        clique_id: None,
        gpus: Vec::new(),
        because,
        troubles: Vec::new(),
    };
    let alone = |because| plain(DomainKind::None, format!("gpu:{}", gpu.uuid.as_str()), because);
    match class {
        Class::MultiNode { cluster_uuid, clique_id } => NvLinkDomain {
            cluster_uuid: Some(cluster_uuid.clone()),
            clique_id: Some(*clique_id),
            ..plain(
                DomainKind::MultiNode,
                format!("{cluster_uuid}.{clique_id}"),
                "registered with an NVLink fabric that spans nodes",
            )
        },
        Class::NodeSwitch(because) => plain(DomainKind::NodeSwitch, "nvswitch".to_owned(), because),
        Class::Direct(_) if component.len() < 2 => alone("its NVLinks lead to nothing that is seen here"),
        Class::Direct(because) => {
            // The lowest UUID names the component: it does not depend on the order of enumeration.
            let lowest = component.iter().min().unwrap_or(&gpu.uuid);
            plain(DomainKind::Bridge, format!("bridge:{}", lowest.as_str()), because)
        }
        Class::Alone(because) => alone(because),
    }
}

/// For every GPU, the GPUs that it reaches by links from GPU to GPU, itself among them.
fn components(gpus: &[Wiring], classes: &[Class]) -> Vec<Vec<GpuUuid>> {
    let mut label: Vec<usize> = (0..gpus.len()).collect();
    let direct = |at: usize| matches!(classes[at], Class::Direct(_));
    for a in 0..gpus.len() {
        for b in a + 1..gpus.len() {
            let linked = gpus[a].links_to(&gpus[b]) > 0 || gpus[b].links_to(&gpus[a]) > 0;
            if linked && direct(a) && direct(b) && label[a] != label[b] {
                let (from, to) = (label[b], label[a]);
                label.iter_mut().filter(|label| **label == from).for_each(|label| *label = to);
            }
        }
    }
    let members = |of: usize| {
        let together = gpus.iter().zip(&label).filter(|(_, label)| **label == of);
        together.map(|(gpu, _)| gpu.uuid.clone()).collect()
    };
    label.iter().map(|label| members(*label)).collect()
}

fn troubles(gpu: &Wiring, gpus: &[Wiring], kind: DomainKind) -> Vec<String> {
    if gpu.mig {
        return Vec::new();
    }
    let mut troubles = fabric_troubles(gpu);
    let (up, mut expected) = (gpu.links_up(), gpu.links_wired());
    if matches!(kind, DomainKind::MultiNode | DomainKind::NodeSwitch) {
        // Boards do not always use all links of a chip, so the measure is the best GPU of the same product.
        let peers = gpus.iter().filter(|peer| peer.product == gpu.product && !peer.mig);
        expected = peers.map(Wiring::links_up).max().unwrap_or(0).max(expected);
    }
    let is_wired = expected > 0 && (kind != DomainKind::None || gpu.links_wired() > 0);
    if is_wired && up < expected {
        troubles.push(format!("{up} of {expected} NVLinks are up"));
    }
    let one_sided = |peer: &&Wiring| !peer.mig && gpu.links_to(peer) > peer.links_to(gpu);
    if kind == DomainKind::Bridge
        && let Some(peer) = gpus.iter().find(one_sided)
    {
        troubles.push(format!("{} does not see all links that lead to it", peer.uuid.as_str()));
    }
    troubles
}
