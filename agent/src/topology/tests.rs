//! Boxes as they are built, and the traps.

use plimsoll_common::{
    ids::GpuUuid,
    wire::{DomainKind, GpuInfo},
};
use proptest::prelude::*;
use tokio::time::{Duration, Instant};

use super::*;
use crate::gpu::{
    Fabric, FabricHealth, FabricState, GpuReading, GpuStatus, Metric, Mig, NvLink, Platform, RemoteEnd,
    RemoteKind,
};

const RACK: &str = "5b0a7c1e-93d4-4f0f-8a51-2f9d1c6e7b42";
const OTHER_RACK: &str = "0c61d2b8-7a0e-4c39-b5d3-90f4e8a7d115";
const NIL: &str = "00000000-0000-0000-0000-000000000000";

fn uuid(at: usize) -> GpuUuid {
    GpuUuid::parse(&format!("GPU-{at:02}")).unwrap()
}

fn bus(at: usize) -> String {
    format!("00000000:{:02X}:00.0", 0x10 + at)
}

/// A GPU without NVLink.
fn card(at: usize) -> Wiring {
    Wiring {
        uuid: uuid(at),
        product: Some("NVIDIA L40S".to_owned()),
        pci_bus_id: Some(bus(at)),
        numa_node: None,
        pcie_path: None,
        mig: false,
        links: Vec::new(),
        fabric: None,
        platform: None,
    }
}

fn link(up: bool, remote: Option<(RemoteKind, Option<String>)>) -> Link {
    let (remote, remote_bus_id) = remote.map_or((None, None), |(kind, bus)| (Some(kind), bus));
    Link { up, remote, remote_bus_id }
}

fn to_switch(n: usize) -> Vec<Link> {
    vec![link(true, Some((RemoteKind::Switch, None))); n]
}

fn to_gpu(other: usize, n: usize) -> Vec<Link> {
    vec![link(true, Some((RemoteKind::Gpu, Some(bus(other).replace("00000000", "0000").to_lowercase())))); n]
}

fn fabric(uuid: Option<&str>, clique_id: u32) -> Fabric {
    Fabric {
        state: FabricState::Completed,
        status: 0,
        cluster_uuid: uuid.map(str::to_owned),
        clique_id,
        health: FabricHealth::default(),
        version: 3,
    }
}

fn platform(chassis: Option<&str>, peer_type: u8) -> Platform {
    Platform {
        chassis_serial: chassis.map(str::to_owned),
        slot: 14,
        tray: 4,
        host: 1,
        peer_type,
        module_id: 2,
    }
}

/// HGX H100: switches of the node, no platform, a fabric without UUID.
fn hgx_h100() -> Vec<Wiring> {
    let gpu = |at| Wiring {
        product: Some("NVIDIA H100 80GB HBM3".to_owned()),
        links: to_switch(18),
        fabric: Some(fabric(None, 0)),
        ..card(at)
    };
    (0..8).map(gpu).collect()
}

/// HGX B200: connected to a switch, says so, but tells no chassis.
fn hgx_b200() -> Vec<Wiring> {
    let gpu = |gpu: Wiring| Wiring {
        product: Some("NVIDIA B200".to_owned()),
        platform: Some(platform(Some(""), 1)),
        ..gpu
    };
    hgx_h100().into_iter().map(gpu).collect()
}

/// A compute tray of a GB200 NVL72.
fn tray(rack: &str, clique_id: u32) -> Vec<Wiring> {
    let gpu = |at| Wiring {
        product: Some("NVIDIA GB200".to_owned()),
        links: to_switch(18),
        fabric: Some(fabric(Some(rack), clique_id)),
        platform: Some(platform(Some("1821225190039"), 1)),
        ..card(at)
    };
    (0..4).map(gpu).collect()
}

/// PCIe cards, bridged two by two with 12 of their 18 links.
fn bridged() -> Vec<Wiring> {
    let gpu = |at: usize| Wiring {
        product: Some("NVIDIA H100 PCIe".to_owned()),
        links: [to_gpu(at ^ 1, 12), vec![link(false, None); 6]].concat(),
        ..card(at)
    };
    (0..4).map(gpu).collect()
}

fn with(mut gpus: Vec<Wiring>, change: impl Fn(&mut Wiring)) -> Vec<Wiring> {
    gpus.iter_mut().for_each(change);
    gpus
}

fn with_fabric(gpus: Vec<Wiring>, change: impl Fn(&mut Fabric)) -> Vec<Wiring> {
    with(gpus, |gpu| change(gpu.fabric.as_mut().unwrap()))
}

/// Kind, id, number of GPUs and number of troubles of each domain.
fn seen(gpus: &[Wiring]) -> Vec<(DomainKind, String, usize, usize)> {
    let row = |domain: NvLinkDomain| (domain.kind, domain.id, domain.gpus.len(), domain.troubles.len());
    domains(gpus).into_iter().map(row).collect()
}

fn switch(gpus: usize, troubles: usize) -> Vec<(DomainKind, String, usize, usize)> {
    vec![(DomainKind::NodeSwitch, "nvswitch".to_owned(), gpus, troubles)]
}

fn rack(uuid: &str, clique: u32, troubles: usize) -> Vec<(DomainKind, String, usize, usize)> {
    vec![(DomainKind::MultiNode, format!("{uuid}.{clique}"), 4, troubles)]
}

#[test]
fn boxes_as_they_are_built() {
    assert_eq!(seen(&hgx_h100()), switch(8, 0));
    assert_eq!(seen(&hgx_b200()), switch(8, 0));
    assert_eq!(seen(&tray(RACK, 2)), rack(RACK, 2, 0));
    let a100 = with(hgx_h100(), |gpu| (gpu.links, gpu.fabric) = (to_switch(12), None));
    assert_eq!(seen(&a100), switch(8, 0), "no fabric to register with, but switches");
    let pair = |of: usize| (DomainKind::Bridge, format!("bridge:GPU-{of:02}"), 2, 0);
    assert_eq!(seen(&bridged()), [pair(0), pair(2)]);
    let alone = |of: usize| (DomainKind::None, format!("gpu:GPU-{of:02}"), 1, 0);
    assert_eq!(seen(&[card(0), card(1)]), [alone(0), alone(1)]);
    let unbridged = with(bridged(), |gpu| gpu.links = vec![link(false, None); 18]);
    assert_eq!(
        seen(&unbridged),
        [alone(0), alone(1), alone(2), alone(3)],
        "links that lead nowhere are no trouble"
    );
    assert_eq!(seen(&[]), []);
}

#[test]
fn a_mesh_of_links_is_one_domain_also_where_not_all_are_neighbours() {
    let ring =
        |at: usize| Wiring { links: [to_gpu((at + 1) % 4, 2), to_gpu((at + 3) % 4, 2)].concat(), ..card(at) };
    let gpus: Vec<Wiring> = (0..4).map(ring).collect();
    assert_eq!(seen(&gpus), [(DomainKind::Bridge, "bridge:GPU-00".to_owned(), 4, 0)]);
    let paths: Vec<_> = Topology::of(&gpus).pairs.iter().map(|pair| (pair.path, pair.nvlinks)).collect();
    let (near, far) = ((LinkPath::Direct, 2), (LinkPath::None, 0));
    assert_eq!(paths, [near, far, near, near, far, near]);
}

#[test]
fn a_uuid_alone_proves_no_multi_node_link() {
    // The driver's usual answer, and what it would be if the nil UUID came through as text.
    for nil in [None, Some(NIL), Some("")] {
        let gpus = with_fabric(hgx_h100(), |fabric| fabric.cluster_uuid = nil.map(str::to_owned));
        assert_eq!(seen(&gpus), switch(8, 0), "{nil:?}");
    }
    for platform_of in [hgx_h100, hgx_b200] {
        let gpus = with_fabric(platform_of(), |fabric| {
            (fabric.cluster_uuid, fabric.clique_id) = (Some(RACK.to_owned()), 7);
        });
        assert_eq!(seen(&gpus), switch(8, 0));
        assert!(domains(&gpus)[0].because.contains("no NVLink beyond this node"));
    }
}

#[test]
fn the_platform_is_recognised_by_its_chassis_or_its_superchip() {
    let preview = with(tray(RACK, 2), |gpu| gpu.product = Some("NVIDIA Graphics Device".to_owned()));
    assert_eq!(seen(&preview), rack(RACK, 2, 0), "a rack whose product has no name yet");
    let silent = with(tray(RACK, 2), |gpu| gpu.platform = None);
    assert_eq!(seen(&silent), rack(RACK, 2, 0), "a driver that tells no platform");
    let hopper = with(silent.clone(), |gpu| gpu.product = Some("NVIDIA GH200 144G HBM3e".to_owned()));
    assert_eq!(seen(&hopper), rack(RACK, 2, 0), "GH200 NVL32");
    let other = with(silent, |gpu| gpu.product = Some("NVIDIA GB2000".to_owned()));
    assert_eq!(seen(&other), switch(4, 0));
    for blank in ["", "  ", "0000000000000", "N/A"] {
        let gpus = with(preview.clone(), |gpu| gpu.platform = Some(platform(Some(blank), 1)));
        assert_eq!(seen(&gpus), switch(4, 0), "chassis '{blank}'");
    }
    let direct = with(preview, |gpu| gpu.platform = Some(platform(Some("1821225190039"), 0)));
    assert_eq!(seen(&direct), switch(4, 0), "a chassis whose GPUs are connected without switch");
}

#[test]
fn cliques_are_numbered_anew_in_every_rack() {
    assert_ne!(seen(&tray(RACK, 32766)), seen(&tray(OTHER_RACK, 32766)));
    // Partitions of one rack on one node.
    let mut gpus = tray(RACK, 1);
    gpus[2].fabric.as_mut().unwrap().clique_id = 2;
    gpus[3].fabric.as_mut().unwrap().clique_id = 2;
    let ids: Vec<_> = seen(&gpus).into_iter().map(|(kind, id, gpus, _)| (kind, id, gpus)).collect();
    assert_eq!(
        ids,
        [(DomainKind::MultiNode, format!("{RACK}.1"), 2), (DomainKind::MultiNode, format!("{RACK}.2"), 2)]
    );
    let across = Topology::of(&gpus);
    assert_eq!(across.pairs.iter().filter(|pair| pair.path == LinkPath::Switch).count(), 2);
}

#[test]
fn clique_0_is_a_clique() {
    assert_eq!(seen(&tray(RACK, 0)), rack(RACK, 0, 0));
    assert_eq!(domains(&tray(RACK, 0))[0].clique_id, Some(0));
}

#[test]
fn the_case_of_a_uuid_makes_no_other_domain() {
    assert_eq!(seen(&tray(&RACK.to_uppercase(), 2)), rack(RACK, 2, 0));
}

#[test]
fn an_unfinished_or_failed_registration_is_told_and_spans_no_nodes() {
    let cases = [
        (FabricState::NotStarted, 0, "has not started"),
        (FabricState::InProgress, 0, "in progress"),
        (FabricState::Completed, 999, "failed: NVML code 999"),
        (FabricState::Other(9), 0, "unknown state: 9"),
    ];
    for boxes in [hgx_h100(), tray(RACK, 2)] {
        for (state, status, says) in cases {
            let gpus = with_fabric(boxes.clone(), |fabric| (fabric.state, fabric.status) = (state, status));
            assert_eq!(seen(&gpus), switch(gpus.len(), gpus.len()), "{state:?}");
            let domain = &domains(&gpus)[0];
            assert!(domain.troubles[0].what.contains(says), "{state:?}: {:?}", domain.troubles);
            assert!(domain.to_wire().degraded);
        }
    }
    // A rack that registered with success and without UUID, as seen where partitions are missing.
    let gpus = with_fabric(tray(RACK, 0), |fabric| fabric.cluster_uuid = None);
    assert_eq!(seen(&gpus), switch(4, 4));
    let gpus = with_fabric(tray(RACK, 2), |fabric| fabric.state = FabricState::NotSupported);
    assert_eq!(seen(&gpus), switch(4, 0));
}

#[test]
fn half_a_tray_may_be_registered() {
    let mut gpus = tray(RACK, 2);
    gpus[3].fabric.as_mut().unwrap().state = FabricState::InProgress;
    let kinds: Vec<_> =
        seen(&gpus).into_iter().map(|(kind, _, gpus, troubles)| (kind, gpus, troubles)).collect();
    assert_eq!(kinds, [(DomainKind::MultiNode, 3, 0), (DomainKind::NodeSwitch, 1, 1)]);
}

#[test]
fn the_fabric_s_health_is_told() {
    let health =
        |mask, summary| with_fabric(tray(RACK, 2), |fabric| fabric.health = FabricHealth { mask, summary });
    // All fields say that nothing is wrong: false, false, false, false, correct configuration.
    assert_eq!(seen(&health(Some(0x1aa), Some(1))), rack(RACK, 2, 0));
    assert_eq!(seen(&health(Some(0x1a9), Some(3))), rack(RACK, 2, 8), "degraded bandwidth, limited capacity");
    assert_eq!(seen(&health(Some(0x4aa), Some(1))), rack(RACK, 2, 4));
    let domain = domains(&health(Some(0x4aa), None)).swap_remove(0);
    assert!(domain.troubles[0].what.contains("in no partition"), "{:?}", domain.troubles);
}

#[test]
fn links_that_are_down_are_counted_against_the_peers() {
    let mut gpus = hgx_h100();
    gpus[5].links.iter_mut().take(2).for_each(|link| link.up = false);
    let domain = domains(&gpus).swap_remove(0);
    assert_eq!(domain.troubles, [Trouble { gpu: uuid(5), what: "16 of 18 NVLinks are up".to_owned() }]);
    let topology = Topology::of(&gpus);
    let of = |a, b| topology.pairs.iter().find(|pair| pair.a == uuid(a) && pair.b == uuid(b)).unwrap();
    assert_eq!((of(0, 5).path, of(0, 5).nvlinks, of(0, 4).nvlinks), (LinkPath::Switch, 16, 18));
    assert_eq!(topology.pairs.len(), 28);
    // All down: nothing to reach the others by, and that is told.
    let gpus = with(hgx_h100(), |gpu| {
        if gpu.uuid == uuid(0) {
            gpu.links.iter_mut().for_each(|link| link.up = false);
        }
    });
    assert_eq!(seen(&gpus)[1], (DomainKind::None, "gpu:GPU-00".to_owned(), 1, 1));
    // A board that uses 8 of the chip's 18 links (H800) is whole.
    let gpus = with(hgx_h100(), |gpu| gpu.links = [to_switch(8), vec![link(false, None); 10]].concat());
    assert_eq!(seen(&gpus), switch(8, 0));
    // A bridge that one side does not see.
    let mut gpus = bridged();
    gpus[1].links.iter_mut().take(4).for_each(|link| *link = self::link(false, None));
    assert_eq!(seen(&gpus)[0], (DomainKind::Bridge, "bridge:GPU-00".to_owned(), 2, 1));
}

#[test]
fn links_to_where_nobody_is_seen_make_no_domain() {
    let gpus = [Wiring { links: to_gpu(5, 4), ..card(0) }, card(1)];
    assert_eq!(seen(&gpus)[0], (DomainKind::None, "gpu:GPU-00".to_owned(), 1, 0));
    assert!(domains(&gpus)[0].because.contains("nothing that is seen here"));
}

#[test]
fn where_links_lead_may_be_hidden_from_a_virtual_machine() {
    for hidden in [None, Some((RemoteKind::Unknown, None))] {
        let gpus = with(hgx_b200(), |gpu| gpu.links = vec![link(true, hidden.clone()); 18]);
        assert_eq!(seen(&gpus), switch(8, 0), "{hidden:?}");
    }
    let gpus = with(hgx_h100(), |gpu| gpu.links = Vec::new());
    assert_eq!(seen(&gpus), switch(8, 0), "only switches have a fabric to register with");
}

#[test]
fn partitioned_gpus_have_no_nvlink() {
    for boxes in [hgx_h100(), tray(RACK, 2), bridged()] {
        let mut gpus = boxes;
        gpus[1].mig = true;
        let found = domains(&gpus);
        let alone = found.iter().find(|domain| domain.gpus == [uuid(1)]).unwrap();
        assert_eq!((alone.kind, alone.troubles.len()), (DomainKind::None, 0));
        assert!(alone.because.contains("MIG"));
    }
}

#[test]
fn affinity_comes_from_the_pcie_tree_or_from_numa() {
    let path = |text: &str| PciePath::parse(text);
    let mut gpus = [card(0), card(1), card(2), card(3)];
    gpus[0].pcie_path = path("/sys/devices/pci0000:15/0000:15:01.0/0000:17:00.0/0000:18:00.0");
    gpus[1].pcie_path = path("/sys/devices/pci0000:15/0000:15:01.0/0000:17:01.0/0000:19:00.0");
    gpus[2].pcie_path = path("/sys/devices/pci0000:3a/0000:3a:01.0/0000:3b:00.0");
    for (gpu, numa) in gpus.iter_mut().zip([Some(0), Some(0), Some(0), Some(1)]) {
        gpu.numa_node = numa;
    }
    let seen: Vec<_> = Topology::of(&gpus).pairs.iter().map(|pair| pair.affinity).collect();
    let (near, node, far) = (Affinity::PcieSwitch, Affinity::NumaNode, Affinity::System);
    assert_eq!(seen, [near, node, far, node, far, far]);
    let dark = Topology::of(&[card(0), card(1)]);
    assert_eq!(dark.pairs[0].affinity, Affinity::Unknown);
}

fn reading(at: usize, now: Instant, remotes: bool) -> GpuReading {
    let info = GpuInfo {
        uuid: uuid(at),
        index: u32::try_from(at).unwrap(),
        name: Some("NVIDIA H100 PCIe".to_owned()),
        pci_bus_id: Some(bus(at)),
        memory_total_bytes: None,
        power_limit_mw: None,
        domain: None,
    };
    let remote = remotes.then(|| RemoteEnd { kind: RemoteKind::Gpu, pci_bus_id: Some(bus(at ^ 1)) });
    let link = |index| NvLink { index, active: Some(true), remote: remote.clone(), ..NvLink::default() };
    let mut reading =
        GpuReading { links: (0..12).map(link).collect(), ..GpuReading::absent(info, GpuStatus::Ok) };
    reading.taken.set(Metric::Links, Some(now));
    reading.unsupported.extend(["mig", "fabric"]);
    reading
}

#[test]
fn a_lost_gpu_keeps_its_domain_and_a_removed_one_is_forgotten() {
    let now = Instant::now();
    let mut memory = TopologyMemory::new(std::path::Path::new("/nonexistent"));
    memory.observe(now, &[reading(0, now, true), reading(1, now, true)]);
    let whole = memory.topology();
    assert_eq!(whole.domain_of(&uuid(1)).unwrap().kind, DomainKind::Bridge);
    let lost = reading(1, now, true).without_values(GpuStatus::Lost, "fell off the bus");
    memory.observe(now, &[reading(0, now, true), lost]);
    assert!(std::sync::Arc::ptr_eq(&memory.topology(), &whole), "nothing is worked out anew");
    memory.observe(now, &[reading(0, now, true)]);
    assert_eq!(memory.topology().domain_of(&uuid(0)).unwrap().kind, DomainKind::None);
    let mut partitioned = reading(0, now, true);
    partitioned.mig = Some(Mig { enabled: true, ..Mig::default() });
    memory.observe(now, &[partitioned, reading(1, now, true)]);
    assert!(memory.topology().domain_of(&uuid(0)).unwrap().because.contains("MIG"));
}

#[test]
fn what_is_not_yet_told_is_unknown_and_not_none() {
    let now = Instant::now();
    let mut memory = TopologyMemory::new(std::path::Path::new("/nonexistent"));
    let mut early = reading(0, now, true);
    early.taken.set(Metric::Links, None);
    memory.observe(now, &[early]);
    assert_eq!((memory.topology().domains.len(), memory.topology().unknown.as_slice()), (0, &[uuid(0)][..]));
    // Links are told before their other ends: they are waited for, but not forever.
    let mut ends_missing = [reading(0, now, false), reading(1, now, false)];
    let told = reading(0, now, true).links[0].clone();
    ends_missing[0].links = ends_missing[0]
        .links
        .iter()
        .map(|link| if link.index == 0 { told.clone() } else { link.clone() })
        .collect();
    memory.observe(now, &ends_missing);
    assert_eq!(memory.topology().unknown.len(), 2);
    memory.observe(now + Duration::from_mins(3), &ends_missing);
    assert_eq!(
        (memory.topology().domains.len(), memory.topology().unknown.len()),
        (1, 0),
        "what is told is used"
    );
}

fn any_wiring(at: usize) -> impl Strategy<Value = Wiring> {
    let remote = prop_oneof![
        Just(None),
        Just(Some((RemoteKind::Switch, None))),
        Just(Some((RemoteKind::Unknown, None))),
        (0usize..6).prop_map(|other| Some((RemoteKind::Gpu, Some(bus(other))))),
    ];
    let links =
        prop::collection::vec((any::<bool>(), remote).prop_map(|(up, remote)| link(up, remote)), 0..6);
    let fabric = prop::option::of((0u8..5, 0u32..2, 0usize..3, 0u32..3, any::<Option<u32>>()).prop_map(
        |(state, status, uuid, clique_id, mask)| Fabric {
            state: FabricState::from_code(state),
            status,
            health: FabricHealth { mask, summary: None },
            ..fabric([None, Some(RACK), Some(NIL)][uuid], clique_id)
        },
    ));
    let platform = prop::option::of(
        (any::<bool>(), 0u8..3).prop_map(|(rack, peer)| platform(rack.then_some("18"), peer)),
    );
    (links, fabric, platform, any::<bool>()).prop_map(move |(links, fabric, platform, mig)| Wiring {
        links,
        fabric,
        platform,
        mig,
        ..card(at)
    })
}

proptest! {
    /// Invariants: every GPU is in exactly one domain; ids are not shared; only a clique with a UUID that is not nil spans
    /// nodes; and the order in which GPUs are enumerated changes nothing but the order within a domain.
    #[test]
    fn every_gpu_has_one_domain(gpus in (1usize..6).prop_flat_map(|n| (0..n).map(any_wiring).collect::<Vec<_>>())) {
        let found = domains(&gpus);
        for gpu in &gpus {
            prop_assert_eq!(found.iter().filter(|domain| domain.gpus.contains(&gpu.uuid)).count(), 1);
        }
        for domain in &found {
            prop_assert_eq!(found.iter().filter(|other| other.id == domain.id).count(), 1);
            prop_assert_eq!(domain.kind.spans_nodes(), domain.cluster_uuid.is_some());
            prop_assert!(domain.cluster_uuid.as_deref() != Some(NIL));
            prop_assert!(domain.kind != DomainKind::None || domain.gpus.len() == 1);
            prop_assert!(domain.kind != DomainKind::Bridge || domain.gpus.len() > 1);
        }
        let sorted = |gpus: &[Wiring]| {
            let mut found = domains(gpus);
            found.iter_mut().for_each(|domain| { domain.gpus.sort(); domain.troubles.sort(); });
            found.into_iter().map(|domain| (domain.kind, domain.id, domain.gpus)).collect::<Vec<_>>()
        };
        let reversed: Vec<Wiring> = gpus.iter().rev().cloned().collect();
        prop_assert_eq!(sorted(&gpus), sorted(&reversed));
    }
}
