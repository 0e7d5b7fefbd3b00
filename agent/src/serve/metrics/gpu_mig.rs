//! MIG: how each GPU is partitioned, and what its instances do.

use plimsoll_common::units::Ratio;
use plimsoll_shell::metrics::{MetricPage, MetricType::Gauge};

use super::Row;
use crate::gpu::MigInstance;

/// A family with one sample an instance: name, help, value.
type Field = (&'static str, &'static str, fn(&MigInstance) -> Option<f64>);

const FIELDS: [Field; 10] = [
    ("plimsoll_mig_memory_used_bytes", "Device memory of a MIG instance in use.", |i| {
        i.memory_used_bytes.map(|bytes| bytes as f64)
    }),
    ("plimsoll_mig_memory_size_bytes", "Device memory of a MIG instance.", |i| {
        i.memory_total_bytes.map(|bytes| bytes as f64)
    }),
    (
        "plimsoll_mig_graphics_activity_ratio",
        "As plimsoll_gpu_graphics_activity_ratio, of a MIG instance.",
        |i| i.activity.graphics.map(Ratio::get),
    ),
    ("plimsoll_mig_sm_activity_ratio", "As plimsoll_gpu_sm_activity_ratio, of a MIG instance.", |i| {
        i.activity.sm.map(Ratio::get)
    }),
    ("plimsoll_mig_sm_occupancy_ratio", "As plimsoll_gpu_sm_occupancy_ratio, of a MIG instance.", |i| {
        i.activity.sm_occupancy.map(Ratio::get)
    }),
    (
        "plimsoll_mig_tensor_activity_ratio",
        "As plimsoll_gpu_tensor_activity_ratio, of a MIG instance.",
        |i| i.activity.tensor.map(Ratio::get),
    ),
    ("plimsoll_mig_dram_activity_ratio", "As plimsoll_gpu_dram_activity_ratio, of a MIG instance.", |i| {
        i.activity.dram.map(Ratio::get)
    }),
    ("plimsoll_mig_fp16_activity_ratio", "As plimsoll_gpu_fp16_activity_ratio, of a MIG instance.", |i| {
        i.activity.fp16.map(Ratio::get)
    }),
    ("plimsoll_mig_fp32_activity_ratio", "As plimsoll_gpu_fp32_activity_ratio, of a MIG instance.", |i| {
        i.activity.fp32.map(Ratio::get)
    }),
    ("plimsoll_mig_fp64_activity_ratio", "As plimsoll_gpu_fp64_activity_ratio, of a MIG instance.", |i| {
        i.activity.fp64.map(Ratio::get)
    }),
];

pub(super) fn write(page: &mut MetricPage, rows: &[Row<'_>]) {
    let help = "Whether the GPU is partitioned (MIG).";
    let mut enabled = page.family("plimsoll_gpu_mig_enabled", Gauge, help);
    for row in rows {
        enabled.maybe(&row.labels(), row.gpu.mig.as_ref().map(|mig| mig.enabled));
    }
    let instances = || {
        let of = |row| -> (&Row<'_>, &[MigInstance]) {
            let row: &Row<'_> = row;
            (row, row.gpu.mig.as_ref().map_or(&[], |mig| &mig.instances))
        };
        rows.iter().map(of).flat_map(|(row, all)| all.iter().map(move |instance| (row, instance)))
    };
    let help = "A MIG instance; always 1.";
    let mut info = page.family("plimsoll_mig_info", Gauge, help);
    for (row, instance) in instances() {
        let id = instance.gpu_instance_id.map_or_else(String::new, |id| id.to_string());
        let profile = instance.profile.as_deref().unwrap_or("");
        let labels = [("mig_uuid", instance.uuid.as_str()), ("gpu_instance", &id), ("profile", profile)];
        info.sample(&row.with(labels), 1u64);
    }
    for (name, help, value) in FIELDS {
        let mut family = page.family(name, Gauge, help);
        for (row, instance) in instances() {
            family.maybe(&row.with([("mig_uuid", instance.uuid.as_str())]), value(instance));
        }
    }
}
