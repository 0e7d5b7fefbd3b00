//! `/v1/topology`: NVLink domains, what lies between each two GPUs, and the links themselves.

use axum::{Json, extract::State};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Pages, gpu_json};
use crate::{
    gpu::GpuReading,
    topology::{GpuPair, NvLinkDomain, Topology},
};

pub(super) async fn topology(State(pages): State<Pages>) -> Json<Value> {
    let snapshot = pages.gpus(Instant::now());
    let topology = pages.topology();
    Json(json!({
        "node": pages.0.node,
        "domains": topology.domains.iter().map(one_domain).collect::<Vec<_>>(),
        "pairs": topology.pairs.iter().map(pair).collect::<Vec<_>>(),
        "unknown": topology.unknown,
        "gpus": snapshot.gpus.iter().map(|gpu| one_gpu(gpu, &topology)).collect::<Vec<_>>(),
    }))
}

fn one_domain(domain: &NvLinkDomain) -> Value {
    let troubles = domain.troubles.iter().map(|trouble| json!({ "gpu": trouble.gpu, "what": trouble.what }));
    json!({
        "id": domain.id,
        "kind": domain.kind.as_str(),
        "spans_nodes": domain.kind.spans_nodes(),
        "cluster_uuid": domain.cluster_uuid,
        "clique_id": domain.clique_id,
        "gpus": domain.gpus,
        "because": domain.because,
        "degraded": domain.is_degraded(),
        "troubles": troubles.collect::<Vec<_>>(),
    })
}

fn pair(pair: &GpuPair) -> Value {
    json!({
        "a": pair.a,
        "b": pair.b,
        "path": pair.path.as_str(),
        "nvlinks": pair.nvlinks,
        "affinity": pair.affinity.as_str(),
    })
}

fn one_gpu(gpu: &GpuReading, topology: &Topology) -> Value {
    json!({
        "uuid": gpu.info.uuid,
        "index": gpu.info.index,
        "pci_bus_id": gpu.info.pci_bus_id,
        "numa_node": gpu.facts.numa_node,
        "domain": topology.domain_of(&gpu.info.uuid).map(|domain| &domain.id),
        "links": gpu_json::links(gpu),
        "fabric": gpu.fabric.as_ref().map(gpu_json::fabric),
        "platform": gpu.platform.as_ref().map(gpu_json::platform),
    })
}
