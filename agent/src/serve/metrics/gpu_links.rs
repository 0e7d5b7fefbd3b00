//! What connects each GPU to others.

use plimsoll_shell::metrics::{
    MetricPage,
    MetricType::{Counter, Gauge},
};

use super::Row;
use crate::gpu::NvLink;

pub(super) fn write(page: &mut MetricPage, rows: &[Row<'_>]) {
    links(page, rows);
    fabric(page, rows);
}

fn links(page: &mut MetricPage, rows: &[Row<'_>]) {
    let each = || {
        rows.iter().flat_map(|row| row.gpu.links.iter().map(move |link| (row, link, link.index.to_string())))
    };
    let mut up = page.family("plimsoll_gpu_nvlink_up", Gauge, "Whether an NVLink is up.");
    for (row, link, index) in each() {
        let remote = link.remote.as_ref().map_or("", |remote| remote.kind.as_str());
        up.maybe(&row.with([("link", &index), ("remote", remote)]), link.active);
    }
    type Count = fn(&NvLink) -> Option<u64>;
    let kinds: [(&str, Count); 3] = [
        ("replay", |link| link.errors.replay),
        ("recovery", |link| link.errors.recovery),
        ("crc", |link| link.errors.crc),
    ];
    let help = "Errors of an NVLink since the driver was loaded.";
    let mut errors = page.family("plimsoll_gpu_nvlink_errors_total", Counter, help);
    for (row, link, index) in each() {
        for (kind, count) in kinds {
            errors.maybe(&row.with([("link", &index), ("kind", kind)]), count(link));
        }
    }
}

fn fabric(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "The NVLink domain of the GPU; always 1.";
    let mut domains = page.family("plimsoll_gpu_nvlink_domain_info", Gauge, help);
    for row in rows {
        if let Some(domain) = &row.gpu.info.domain {
            domains.sample(&row.with([("kind", domain.kind.as_str()), ("domain", &domain.id)]), 1u64);
        }
    }
    let help = "Whether something keeps the NVLink domain from working as wired.";
    let mut degraded = page.family("plimsoll_gpu_nvlink_domain_degraded", Gauge, help);
    for row in rows {
        degraded.maybe(&row.labels(), row.gpu.info.domain.as_ref().map(|domain| domain.degraded));
    }
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
