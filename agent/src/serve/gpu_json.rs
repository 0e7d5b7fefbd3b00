//! One GPU as JSON. Every field is there in every answer: `null` where there is no value, never a zero or a sentinel.
//! `unsupported` names the fields that this GPU or driver does not have, and `ages_seconds` tells how old each group is.

use plimsoll_common::units::Ratio;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::json::{age_seconds, joules, round, seconds, watts};
use crate::{
    gpu::{
        Activity, Clocks, Ecc, Fabric, GpuFacts, GpuProcess, GpuReading, LinkErrors, Metric, Mig, NvLink,
        Pcie, Platform, RecoveryAction, RemappedRows, RetiredPages, Samples, ThrottleReasons,
    },
    topology::{NvLinkDomain, Topology},
};

/// One GPU, with the NVLink domain that the topology found and its pods.
pub(super) fn gpu(gpu: &GpuReading, topology: &Topology, pods: Value, now: Instant) -> Value {
    let mut object = values(gpu);
    let groups = [
        ("clocks", clocks(&gpu.clocks)),
        ("throttle_reasons", json!(gpu.throttle.map(|reasons| reasons.names().collect::<Vec<_>>()))),
        ("throttled", json!(gpu.throttle.map(ThrottleReasons::is_throttled))),
        ("activity", activity(&gpu.activity)),
        ("ecc", ecc(&gpu.ecc)),
        ("remapped_rows", json!(gpu.remapped_rows.as_ref().map(remapped_rows))),
        ("retired_pages", retired_pages(gpu.retired_pages)),
        ("pcie_replays", json!(gpu.pcie_replays)),
        ("xids", xids(gpu, now)),
        ("recovery_action", json!(gpu.recovery_action.map(RecoveryAction::as_str))),
        ("links", json!(links(gpu))),
        ("nvlink_tx_bytes", json!(gpu.nvlink_tx_bytes)),
        ("nvlink_rx_bytes", json!(gpu.nvlink_rx_bytes)),
        ("nvlink_domain", json!(topology.domain_of(&gpu.info.uuid).map(domain))),
        ("fabric", json!(gpu.fabric.as_ref().map(fabric))),
        ("platform", json!(gpu.platform.as_ref().map(platform))),
        ("mig", json!(gpu.mig.as_ref().map(mig))),
        ("processes", json!(gpu.processes.as_ref().map(|all| all.iter().map(process).collect::<Vec<_>>()))),
        ("pods", pods),
        ("facts", facts(&gpu.facts)),
        ("pcie", pcie(&gpu.facts.pcie)),
        ("unsupported", json!(gpu.unsupported)),
        ("ages_seconds", ages(gpu, now)),
    ];
    object.extend(groups.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

fn values(gpu: &GpuReading) -> Map<String, Value> {
    let fields = [
        ("uuid", json!(gpu.info.uuid)),
        ("index", json!(gpu.info.index)),
        ("name", json!(gpu.info.name)),
        ("pci_bus_id", json!(gpu.info.pci_bus_id)),
        ("state", json!(gpu.state.as_str())),
        ("trouble", json!(gpu.trouble)),
        ("utilization_percent", json!(gpu.utilization_percent)),
        ("memory_activity_percent", json!(gpu.memory_activity_percent)),
        ("utilization_samples", json!(gpu.samples.utilization_percent.map(percent_samples))),
        ("memory_activity_samples", json!(gpu.samples.memory_activity_percent.map(percent_samples))),
        ("encoder_utilization_percent", json!(gpu.video.encoder_percent)),
        ("decoder_utilization_percent", json!(gpu.video.decoder_percent)),
        ("memory_used_bytes", json!(gpu.memory_used_bytes)),
        ("memory_reserved_bytes", json!(gpu.memory_reserved_bytes)),
        ("memory_total_bytes", json!(gpu.info.memory_total_bytes)),
        ("power_watts", json!(gpu.power_mw.map(watts))),
        ("power_samples", json!(gpu.samples.power_mw.map(power_samples))),
        ("power_limit_watts", json!(gpu.info.power_limit_mw.map(watts))),
        ("energy_joules", json!(gpu.energy_mj.map(joules))),
        ("temperature_celsius", json!(gpu.temperature_c)),
        ("memory_temperature_celsius", json!(gpu.memory_temperature_c)),
        ("performance_state", json!(gpu.performance_state)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How long ago each group was asked; a group that has no value is not among them.
fn ages(gpu: &GpuReading, now: Instant) -> Value {
    let age = |metric: &Metric| {
        gpu.taken.of(*metric).map(|taken| (metric.as_str().to_owned(), json!(age_seconds(taken, now))))
    };
    Value::Object(Metric::ALL.iter().filter_map(age).collect())
}

fn clocks(clocks: &Clocks) -> Value {
    json!({
        "sm_mhz": clocks.sm_mhz,
        "memory_mhz": clocks.memory_mhz,
        "graphics_mhz": clocks.graphics_mhz,
        "video_mhz": clocks.video_mhz,
        "max_sm_mhz": clocks.max_sm_mhz,
        "max_memory_mhz": clocks.max_memory_mhz,
    })
}

/// What the driver sampled since the last look; `span_seconds` tells how much of that time the samples cover.
fn percent_samples(samples: Samples) -> Value {
    json!({
        "mean_percent": round(samples.mean, 1e3),
        "max_percent": samples.max,
        "count": samples.count,
        "span_seconds": seconds(samples.span),
    })
}

fn power_samples(samples: Samples) -> Value {
    json!({
        "mean_watts": round(samples.mean / 1e3, 1e3),
        "max_watts": watts(samples.max),
        "count": samples.count,
        "span_seconds": seconds(samples.span),
    })
}

fn shares(activity: &Activity) -> Map<String, Value> {
    let shares = [
        ("graphics_activity", activity.graphics),
        ("sm_activity", activity.sm),
        ("sm_occupancy", activity.sm_occupancy),
        ("tensor_activity", activity.tensor),
        ("dram_activity", activity.dram),
        ("fp16_activity", activity.fp16),
        ("fp32_activity", activity.fp32),
        ("fp64_activity", activity.fp64),
    ];
    let window = ("window_seconds".to_owned(), json!(activity.window.map(seconds)));
    let shares = shares.into_iter().map(|(name, share)| (name.to_owned(), json!(share.map(Ratio::get))));
    shares.chain([window]).collect()
}

fn activity(activity: &Activity) -> Value {
    let rates = [
        ("pcie_tx_bytes_per_second", activity.pcie_tx_bytes_per_second),
        ("pcie_rx_bytes_per_second", activity.pcie_rx_bytes_per_second),
        ("nvlink_tx_bytes_per_second", activity.nvlink_tx_bytes_per_second),
        ("nvlink_rx_bytes_per_second", activity.nvlink_rx_bytes_per_second),
    ];
    let mut object = shares(activity);
    object.extend(rates.map(|(name, rate)| (name.to_owned(), json!(rate))));
    Value::Object(object)
}

fn ecc(ecc: &Ecc) -> Value {
    json!({
        "enabled": ecc.enabled,
        "corrected_volatile": ecc.corrected_volatile,
        "uncorrected_volatile": ecc.uncorrected_volatile,
        "corrected_aggregate": ecc.corrected_aggregate,
        "uncorrected_aggregate": ecc.uncorrected_aggregate,
    })
}

fn remapped_rows(rows: &RemappedRows) -> Value {
    json!({
        "corrected": rows.corrected,
        "uncorrected": rows.uncorrected,
        "pending": rows.pending,
        "failed": rows.failed,
    })
}

fn retired_pages(pages: RetiredPages) -> Value {
    json!({ "single_bit": pages.single_bit, "double_bit": pages.double_bit, "pending": pages.pending })
}

/// `null` where the driver tells no events of this GPU: that none was told does not mean that none came.
fn xids(gpu: &GpuReading, now: Instant) -> Value {
    let xids = &gpu.xids;
    if gpu.unsupported.contains("events") {
        return Value::Null;
    }
    let counts: Map<_, _> = xids.counts.iter().map(|(xid, n)| (xid.to_string(), json!(n))).collect();
    json!({
        "counts": counts,
        "last": xids.last.map(|(xid, at)| json!({ "xid": xid, "age_seconds": age_seconds(at, now) })),
    })
}

/// `null` as long as the links were not asked, an empty list for a GPU without any.
pub(super) fn links(gpu: &GpuReading) -> Option<Vec<Value>> {
    let asked =
        gpu.taken.of(Metric::Links).is_some() || gpu.facts.nvlinks == Some(0) || !gpu.links.is_empty();
    asked.then(|| gpu.links.iter().map(link).collect())
}

fn link(link: &NvLink) -> Value {
    json!({
        "index": link.index,
        "active": link.active,
        "version": link.version,
        "remote": link.remote.as_ref().map(|remote| json!({
            "kind": remote.kind.as_str(),
            "pci_bus_id": remote.pci_bus_id,
        })),
        "tx_bytes": link.traffic.tx_bytes,
        "rx_bytes": link.traffic.rx_bytes,
        "errors": link_errors(&link.errors),
    })
}

fn link_errors(errors: &LinkErrors) -> Value {
    LinkErrors::KINDS.into_iter().map(|(kind, count)| (kind.to_owned(), json!(count(errors)))).collect()
}

fn domain(domain: &NvLinkDomain) -> Value {
    json!({ "kind": domain.kind.as_str(), "id": domain.id, "degraded": domain.is_degraded() })
}

/// What the fabric says of a GPU.
pub(super) fn fabric(fabric: &Fabric) -> Value {
    json!({
        "state": fabric.state.as_str(),
        "status": fabric.status,
        "cluster_uuid": fabric.cluster_uuid,
        "clique_id": fabric.clique_id,
        "health": fabric.health.summary_str(),
        "health_mask": fabric.health.mask,
        "degraded_bandwidth": fabric.health.degraded_bandwidth(),
        "structure_version": fabric.version,
    })
}

/// A GPU's place in chassis and rack.
pub(super) fn platform(platform: &Platform) -> Value {
    json!({
        "chassis_serial": platform.chassis_serial,
        "slot": platform.slot,
        "tray": platform.tray,
        "host": platform.host,
        "peer_type": platform.peer_type,
        "module_id": platform.module_id,
    })
}

fn mig(mig: &Mig) -> Value {
    let instance = |instance: &crate::gpu::MigInstance| {
        json!({
            "uuid": instance.uuid,
            "gpu_instance_id": instance.gpu_instance_id,
            "compute_instance_id": instance.compute_instance_id,
            "profile": instance.profile,
            "memory_total_bytes": instance.memory_total_bytes,
            "memory_used_bytes": instance.memory_used_bytes,
            "activity": shares(&instance.activity),
        })
    };
    json!({
        "enabled": mig.enabled,
        "pending": mig.pending,
        "instances": mig.instances.iter().map(instance).collect::<Vec<_>>(),
    })
}

fn process(process: &GpuProcess) -> Value {
    json!({ "pid": process.pid, "kind": process.kind.as_str(), "memory_used_bytes": process.memory_used_bytes })
}

fn facts(facts: &GpuFacts) -> Value {
    json!({
        "architecture": facts.architecture,
        "compute_capability": facts.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
        "serial": facts.serial,
        "board_part_number": facts.board_part_number,
        "vbios": facts.vbios,
        "minor": facts.minor,
        "numa_node": facts.numa_node,
        "module_id": facts.module_id,
        "nvlinks": facts.nvlinks,
    })
}

fn pcie(pcie: &Pcie) -> Value {
    json!({
        "generation": pcie.generation,
        "width": pcie.width,
        "max_generation": pcie.max_generation,
        "max_width": pcie.max_width,
    })
}
