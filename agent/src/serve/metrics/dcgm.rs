//! The names, labels and units of NVIDIA's dcgm-exporter, for dashboards, alert rules and clients that ask for them.
//!
//! What the exporter calls a counter is called one here, whether or not its name ends in `_total`. A value that is absent
//! has no sample: the exporter's blank sentinels are not imitated.

mod fields;

use std::collections::BTreeSet;

use plimsoll_shell::metrics::{Family, Label, MetricPage, MetricType::Gauge};

use self::fields::{FIELDS, PARTS};
use super::Row;
use crate::{
    attribution::{Attribution, PodRef},
    gpu::{GpuSnapshot, MigInstance},
};

pub(super) fn write(
    page: &mut MetricPage,
    rows: &[Row<'_>],
    snapshot: &GpuSnapshot,
    attribution: &Attribution,
    node: &str,
) {
    let driver = snapshot.driver.as_ref().map_or("", |driver| driver.version.as_str());
    let common: Vec<_> = rows.iter().map(|row| Common::new(row, attribution, node, driver)).collect();
    for field in FIELDS {
        let mut family = page.family(field.name, field.metric_type, field.help);
        for gpu in &common {
            gpu.samples(&mut family, None, (field.value)(gpu.row.gpu));
        }
    }
    for field in PARTS {
        let mut family = page.family(field.name, Gauge, field.help);
        for gpu in &common {
            let reading = gpu.row.gpu;
            let Some(mig) = reading.mig.as_ref().filter(|mig| mig.enabled) else {
                gpu.samples(&mut family, None, field.of_gpu(reading));
                continue;
            };
            for instance in &mig.instances {
                let id = instance.gpu_instance_id.map_or_else(String::new, |id| id.to_string());
                gpu.samples(&mut family, Some((instance, &id)), field.of_instance(instance));
            }
        }
    }
}

/// A GPU's labels, in the exporter's order.
struct Common<'a> {
    row: &'a Row<'a>,
    device: String,
    node: &'a str,
    driver: &'a str,
    pods: &'a [PodRef],
}

impl<'a> Common<'a> {
    fn new(row: &'a Row<'a>, attribution: &'a Attribution, node: &'a str, driver: &'a str) -> Self {
        let minor = row.gpu.facts.minor.unwrap_or(row.gpu.info.index);
        let pods = attribution.gpus.get(&row.gpu.info.uuid).map_or(&[][..], Vec::as_slice);
        Self { row, device: format!("nvidia{minor}"), node, driver, pods }
    }

    /// A sample, or, where containers have the GPU or this part of it, one for each of them.
    fn samples(&self, family: &mut Family<'_>, instance: Option<(&MigInstance, &str)>, value: Option<f64>) {
        let Some(value) = value else { return };
        let part = instance.map(|(instance, _)| instance.uuid.as_str());
        let name = |name: &'a Option<String>| name.as_deref().unwrap_or("");
        let containers: BTreeSet<_> = self
            .pods
            .iter()
            .filter(|pod| part.is_none_or(|part| pod.mig.as_deref() == Some(part)))
            .map(|pod| (name(&pod.container), name(&pod.namespace), name(&pod.pod)))
            .collect();
        let labels = self.labels(instance);
        if containers.is_empty() {
            family.sample(&labels, value);
        }
        for (container, namespace, pod) in containers {
            let more = [("container", container), ("namespace", namespace), ("pod", pod)];
            family.sample(&[labels.as_slice(), &more].concat(), value);
        }
    }

    fn labels<'b>(&'b self, instance: Option<(&'b MigInstance, &'b str)>) -> Vec<Label<'b>> {
        let info = &self.row.gpu.info;
        let mut labels = vec![
            ("gpu", self.row.index.as_str()),
            ("UUID", info.uuid.as_str()),
            ("pci_bus_id", info.pci_bus_id.as_deref().unwrap_or("")),
            ("device", &self.device),
            ("modelName", info.name.as_deref().unwrap_or("")),
        ];
        if let Some((instance, id)) = instance {
            labels.push(("GPU_I_PROFILE", instance.profile.as_deref().unwrap_or("")));
            labels.push(("GPU_I_ID", id));
        }
        labels.extend([("Hostname", self.node), ("DCGM_FI_DRIVER_VERSION", self.driver)]);
        labels
    }
}
