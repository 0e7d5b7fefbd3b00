//! The NVLink domains of machines as they are built, and of those that set traps, all the way from NVML.

use std::sync::Arc;

use plimsoll_agent::topology::{LinkPath, Topology, TopologyMemory};
use plimsoll_common::wire::DomainKind;
use tokio::time::Instant;

use crate::support::{Machine, until};

crate::support::on_machines! {
    the_switches_of_an_hgx_h100_are_one_domain_in_spite_of_a_nil_uuid on Some("hgx-h100-8") => super::hgx;
    the_switches_of_an_hgx_a100_are_one_domain_without_a_fabric on Some("hgx-a100-8") => super::hgx;
    the_switches_of_an_hgx_b200_are_one_domain on Some("hgx-b200-8") => super::hgx;
    a_cluster_uuid_alone_spans_no_nodes on Some("hgx-b200-8-cluster") => super::cluster_uuid_alone;
    a_tray_is_part_of_its_rack on Some("gb200-tray") => super::tray;
    the_default_clique_is_the_rack_s_own on Some("gb200-tray-clique-32766") => super::default_clique;
    bridges_join_two_by_two on Some("pcie-a100-bridge-4") => super::bridges;
    an_unfinished_registration_spans_no_nodes on Some("gb200-tray") => super::unfinished;
    links_that_are_down_and_partitions_are_told on Some("hgx-h100-8") => super::links_and_partitions;
    cards_without_links_are_alone on Some("pcie-l40s-4") => super::cards;
    a_lost_gpu_keeps_its_domain on Some("hgx-h100-8") => super::lost;
}

/// The topology, once every GPU has told its links.
async fn settled(machine: &Machine) -> Arc<Topology> {
    let monitor = machine.monitor();
    let mut memory = TopologyMemory::new(std::path::Path::new("/nonexistent"));
    until(&monitor, |now| {
        memory.observe(Instant::now(), &now.gpus);
        !now.gpus.is_empty() && memory.topology().unknown.is_empty()
    })
    .await;
    memory.topology()
}

/// Kind, id, GPUs and whether it works as wired, of each domain.
fn seen(topology: &Topology) -> Vec<(DomainKind, &str, usize, bool)> {
    let domains = topology.domains.iter();
    domains
        .map(|domain| (domain.kind, domain.id.as_str(), domain.gpus.len(), !domain.is_degraded()))
        .collect()
}

async fn hgx(machine: Machine) {
    let topology = settled(&machine).await;
    assert_eq!(seen(&topology), [(DomainKind::NodeSwitch, "nvswitch", 8, true)], "{topology:?}");
    assert!(topology.pairs.iter().all(|pair| pair.path == LinkPath::Switch && pair.nvlinks >= 12));
}

async fn cluster_uuid_alone(machine: Machine) {
    let topology = settled(&machine).await;
    assert_eq!(seen(&topology), [(DomainKind::NodeSwitch, "nvswitch", 8, true)], "{topology:?}");
    assert!(topology.domains[0].because.contains("no NVLink beyond this node"));
    assert_eq!(topology.domains[0].cluster_uuid, None);
}

async fn tray(machine: Machine) {
    let topology = settled(&machine).await;
    let id = "7f5a9c1e-3b42-4d86-9e10-5c2d8a6b4f01.2";
    assert_eq!(seen(&topology), [(DomainKind::MultiNode, id, 4, true)], "{topology:?}");
}

async fn unfinished(machine: Machine) {
    machine.say("fabric in_progress");
    let topology = settled(&machine).await;
    assert_eq!(seen(&topology), [(DomainKind::NodeSwitch, "nvswitch", 4, false)], "{topology:?}");
    assert!(topology.domains[0].troubles[0].what.contains("in progress"), "{topology:?}");
}

async fn links_and_partitions(machine: Machine) {
    machine.say("link 5 0 down");
    machine.say("mig 2 on 3g.40gb 1 1g.10gb 2");
    let topology = settled(&machine).await;
    let rows = seen(&topology);
    assert_eq!((rows.len(), rows[0]), (2, (DomainKind::NodeSwitch, "nvswitch", 7, false)), "{topology:?}");
    assert!(topology.domains[0].troubles[0].what.contains("17 of 18"), "{topology:?}");
    assert!(topology.domains[1].because.contains("MIG"), "{topology:?}");
}

async fn default_clique(machine: Machine) {
    let topology = settled(&machine).await;
    let id = "7f5a9c1e-3b42-4d86-9e10-5c2d8a6b4f01.32766";
    assert_eq!(seen(&topology), [(DomainKind::MultiNode, id, 4, true)], "{topology:?}");
    assert_eq!(topology.domains[0].clique_id, Some(32766));
}

async fn bridges(machine: Machine) {
    let topology = settled(&machine).await;
    let kinds: Vec<_> = topology.domains.iter().map(|domain| (domain.kind, domain.gpus.len())).collect();
    assert_eq!(kinds, [(DomainKind::Bridge, 2), (DomainKind::Bridge, 2)], "{topology:?}");
    let linked: Vec<_> = topology.pairs.iter().filter(|pair| pair.path == LinkPath::Direct).collect();
    assert!(linked.len() == 2 && linked.iter().all(|pair| pair.nvlinks == 12), "{linked:?}");
}

async fn cards(machine: Machine) {
    let topology = settled(&machine).await;
    let kinds: Vec<_> =
        seen(&topology).into_iter().map(|(kind, _, gpus, works)| (kind, gpus, works)).collect();
    assert_eq!(kinds, [(DomainKind::None, 1, true); 4], "{topology:?}");
}

async fn lost(machine: Machine) {
    let monitor = machine.monitor();
    let mut memory = TopologyMemory::new(std::path::Path::new("/nonexistent"));
    let mut observe = |gpus: &[plimsoll_agent::gpu::GpuReading]| {
        memory.observe(Instant::now(), gpus);
        memory.topology()
    };
    let whole = until(&monitor, |now| {
        let topology = observe(&now.gpus);
        topology.domains.len() == 1 && topology.unknown.is_empty()
    })
    .await;
    let before = observe(&whole.gpus);
    machine.say("xid 3 79");
    let lost = until(&monitor, |now| now.gpus[3].links.is_empty()).await;
    assert!(Arc::ptr_eq(&before, &observe(&lost.gpus)), "{:?}", lost.gpus[3]);
}
