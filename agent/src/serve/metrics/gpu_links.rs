//! What connects each GPU to others.

use plimsoll_shell::metrics::{
    MetricPage,
    MetricType::{Counter, Gauge},
};

use super::Row;
use crate::{
    gpu::LinkErrors,
    topology::{NvLinkDomain, Topology},
};

pub(super) fn write(page: &mut MetricPage, rows: &[Row<'_>], topology: &Topology) {
    links(page, rows);
    domains(page, rows, topology);
    fabric(page, rows);
}

/// Sums over the links of a GPU: a sample a link would be the largest part of the page. `/v1/topology` tells which.
fn links(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "NVLinks of the GPU by state.";
    let mut family = page.family("plimsoll_gpu_nvlinks", Gauge, help);
    for row in rows {
        let in_state = |up| row.gpu.links.iter().filter(|link| link.active == Some(up)).count();
        if row.gpu.links.iter().any(|link| link.active.is_some()) {
            family.sample(&row.with([("state", "up")]), in_state(true));
            family.sample(&row.with([("state", "down")]), in_state(false));
        }
    }
    let help = "Errors of all NVLinks of the GPU since the driver was loaded; which kinds there are depends on their version.";
    let mut errors = page.family("plimsoll_gpu_nvlink_errors_total", Counter, help);
    for row in rows {
        for (kind, count) in LinkErrors::KINDS {
            let told = row.gpu.links.iter().filter_map(|link| count(&link.errors));
            errors.maybe(&row.with([("kind", kind)]), told.reduce(u64::saturating_add));
        }
    }
}

fn domains(page: &mut MetricPage, rows: &[Row<'_>], topology: &Topology) {
    let help = "The NVLink domain of the GPU; always 1.";
    let mut domains = page.family("plimsoll_gpu_nvlink_domain_info", Gauge, help);
    for row in rows {
        if let Some(domain) = topology.domain_of(&row.gpu.info.uuid) {
            domains.sample(&row.with([("kind", domain.kind.as_str()), ("domain", &domain.id)]), 1u64);
        }
    }
    let help = "Whether something keeps the NVLink domain from working as wired.";
    let mut degraded = page.family("plimsoll_gpu_nvlink_domain_degraded", Gauge, help);
    for row in rows {
        let domain = topology.domain_of(&row.gpu.info.uuid);
        degraded.maybe(&row.labels(), domain.map(NvLinkDomain::is_degraded));
    }
}

fn fabric(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "What the NVLink fabric says of the GPU; always 1.";
    let mut info = page.family("plimsoll_gpu_fabric_info", Gauge, help);
    for row in rows {
        let Some(fabric) = &row.gpu.fabric else { continue };
        let clique = fabric.clique_id.to_string();
        let labels = row.with([
            ("state", fabric.state.as_str()),
            ("cluster_uuid", fabric.cluster_uuid.as_deref().unwrap_or("")),
            ("clique_id", &clique),
            ("health", fabric.health.summary_str().unwrap_or("")),
        ]);
        info.sample(&labels, 1u64);
    }
}
