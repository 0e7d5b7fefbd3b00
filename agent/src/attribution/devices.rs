//! From the names of devices, as plugins and drivers give them, to GPUs.

use plimsoll_common::ids::GpuUuid;

use crate::gpu::GpuSnapshot;

/// The GPUs of the node, by everything that a device may be named after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceInventory {
    /// The GPUs, in their order.
    pub gpus: Vec<KnownGpu>,
}

/// What devices of a GPU may be named after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGpu {
    /// The GPU.
    pub uuid: GpuUuid,
    /// Its NVML index.
    pub index: u32,
    /// The number of its device file.
    pub minor: Option<u32>,
    /// Its MIG instances.
    pub mig: Vec<GpuUuid>,
}

/// A GPU, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) gpu: GpuUuid,
    /// The MIG instance: its UUID where it is known, otherwise the device's name.
    pub(super) mig: Option<String>,
}

impl DeviceInventory {
    /// The GPUs of a snapshot.
    #[must_use]
    pub fn of(snapshot: &GpuSnapshot) -> Self {
        let known = |gpu: &crate::gpu::GpuReading| KnownGpu {
            uuid: gpu.info.uuid.clone(),
            index: gpu.info.index,
            minor: gpu.facts.minor,
            mig: gpu
                .mig
                .iter()
                .flat_map(|mig| mig.instances.iter().map(|instance| instance.uuid.clone()))
                .collect(),
        };
        Self { gpus: snapshot.gpus.iter().map(known).collect() }
    }

    /// The GPU of a device that a device plugin handed out. In use are: a UUID (`GPU-…`, `MIG-…`); a UUID with the number
    /// of a time-sliced or shared replica (`GPU-…::3`, `GPU-…-3`); an older MIG name that carries the GPU's UUID
    /// (`MIG-GPU-…/1/0`); an index (`0`, and `0:1` for the MIG instance 1 of GPU 0); GKE's device file (`nvidia0`,
    /// `nvidia0/gi1`, with `/vgpu2` for a shared one).
    pub(super) fn by_device_id(&self, id: &str) -> Option<Place> {
        let id = id.split_once("::").map_or(id, |(base, _)| base);
        if let Some(rest) = id.strip_prefix("MIG-GPU-") {
            let uuid = format!("GPU-{}", rest.split('/').next()?);
            return Some(Place { gpu: GpuUuid::parse(&uuid).ok()?, mig: Some(id.to_owned()) });
        }
        if id.starts_with("MIG-") {
            return self.by_mig(without_replica(id, "MIG-"));
        }
        if id.starts_with("GPU-") {
            return GpuUuid::parse(without_replica(id, "GPU-")).ok().map(Place::whole);
        }
        if let Some(file) = id.strip_prefix("nvidia") {
            let mut parts = file.split('/');
            let gpu = self.by_minor(parts.next()?.parse().ok()?)?;
            let instance = parts.any(|part| part.starts_with("gi"));
            return Some(Place { mig: instance.then(|| id.to_owned()), ..gpu });
        }
        let (index, instance) = id.split_once(':').map_or((id, None), |(gpu, mig)| (gpu, Some(mig)));
        let index: u32 = index.parse().ok()?;
        let gpu = self.gpus.iter().find(|gpu| gpu.index == index)?;
        let mig = instance.map(|at| {
            let uuid = at.parse().ok().and_then(|at: usize| gpu.mig.get(at));
            uuid.map_or_else(|| id.to_owned(), |uuid| uuid.as_str().to_owned())
        });
        Some(Place { gpu: gpu.uuid.clone(), mig })
    }

    /// The GPU of a device that NVIDIA's DRA driver allocated: `gpu-<minor>`, `gpu-<minor>-mig-<profile>-<id>-<start>`, or
    /// `gpu-<UUID>` of early releases.
    pub(super) fn by_claim_device(&self, name: &str) -> Option<Place> {
        if let Some(uuid) = uuid_in(name) {
            return self.by_hexadecimal(uuid);
        }
        let rest = name.strip_prefix("gpu-")?;
        let (minor, instance) = rest.split_once("-mig-").map_or((rest, false), |(minor, _)| (minor, true));
        let gpu = self.by_minor(minor.parse().ok()?)?;
        Some(Place { mig: instance.then(|| name.to_owned()), ..gpu })
    }

    /// The GPU of a device by its CDI name, `vendor/class=device`: the device is named as in
    /// [`DeviceInventory::by_device_id`] or ends like a DRA device behind the claim's UID.
    pub(super) fn by_cdi_name(&self, name: &str) -> Option<Place> {
        let (kind, device) = name.split_once('=')?;
        if !kind.split('/').next().is_some_and(|vendor| vendor.ends_with("nvidia.com")) {
            return None;
        }
        let behind_claim = device.get(37..).filter(|_| device.get(..36).is_some_and(is_uuid));
        let device = behind_claim.unwrap_or(device);
        self.by_claim_device(device).or_else(|| self.by_device_id(device))
    }

    fn by_minor(&self, minor: u32) -> Option<Place> {
        self.gpus.iter().find(|gpu| gpu.minor == Some(minor)).map(|gpu| Place::whole(gpu.uuid.clone()))
    }

    fn by_mig(&self, uuid: &str) -> Option<Place> {
        let is_it = |mig: &GpuUuid| mig.as_str().eq_ignore_ascii_case(uuid);
        let gpu = self.gpus.iter().find(|gpu| gpu.mig.iter().any(is_it))?;
        Some(Place { gpu: gpu.uuid.clone(), mig: Some(uuid.to_owned()) })
    }

    /// A GPU or MIG instance by the hexadecimal part of its UUID.
    fn by_hexadecimal(&self, uuid: &str) -> Option<Place> {
        let named = |known: &GpuUuid| {
            known.as_str().split_once('-').is_some_and(|(_, known)| known.eq_ignore_ascii_case(uuid))
        };
        let whole = self.gpus.iter().find(|gpu| named(&gpu.uuid));
        whole.map(|gpu| Place::whole(gpu.uuid.clone())).or_else(|| self.by_mig(&format!("MIG-{uuid}")))
    }
}

impl Place {
    const fn whole(gpu: GpuUuid) -> Self {
        Self { gpu, mig: None }
    }
}

/// A UUID without what some plugins append to it to count replicas (`GPU-…-3`).
fn without_replica<'a>(id: &'a str, prefix: &str) -> &'a str {
    match id.get(..prefix.len() + 36) {
        Some(uuid) if is_uuid(&uuid[prefix.len()..]) => uuid,
        _ => id,
    }
}

/// The first UUID in a text.
fn uuid_in(text: &str) -> Option<&str> {
    (0..text.len().saturating_sub(35)).filter_map(|at| text.get(at..at + 36)).find(|part| is_uuid(part))
}

/// Whether a text is a UUID: hexadecimal groups of 8, 4, 4, 4 and 12 digits.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "GPU-5a1c9e62-7d31-4a0e-8f54-0c2b6d9e1f33";
    const B: &str = "GPU-0f7d2c11-93ab-4e6d-a1c8-77e05b3d9a42";
    const M: &str = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f";
    const CLAIM: &str = "8e942949-74a7-4c21-9f0e-3b6c1a52d7e0";

    fn inventory() -> DeviceInventory {
        let id = |text| GpuUuid::parse(text).unwrap();
        DeviceInventory {
            gpus: vec![
                KnownGpu { uuid: id(A), index: 0, minor: Some(4), mig: vec![] },
                KnownGpu { uuid: id(B), index: 1, minor: Some(0), mig: vec![id(M)] },
            ],
        }
    }

    fn told(place: Option<Place>) -> Option<(String, Option<String>)> {
        place.map(|place| (place.gpu.as_str().to_owned(), place.mig))
    }

    fn at(gpu: &str, mig: Option<&str>) -> Option<(String, Option<String>)> {
        Some((gpu.to_owned(), mig.map(str::to_owned)))
    }

    #[test]
    fn device_plugins_name_devices_in_many_ways() {
        let unlisted = "GPU-99999999-9999-4999-8999-999999999999";
        let old = format!("MIG-{A}/1/0");
        let table = [
            (A.to_owned(), at(A, None)),
            (format!("{A}::0"), at(A, None)),
            (format!("{A}::17"), at(A, None)),
            (format!("{A}-3"), at(A, None)),
            (unlisted.to_owned(), at(unlisted, None)),
            ("GPU-short".to_owned(), at("GPU-short", None)),
            (M.to_owned(), at(B, Some(M))),
            (format!("{M}::2"), at(B, Some(M))),
            ("MIG-00000000-0000-0000-0000-000000000000".to_owned(), None),
            (old.clone(), at(A, Some(&old))),
            ("0".to_owned(), at(A, None)),
            ("1::4".to_owned(), at(B, None)),
            ("1:0".to_owned(), at(B, Some(M))),
            ("1:5".to_owned(), at(B, Some("1:5"))),
            ("9".to_owned(), None),
            ("nvidia0".to_owned(), at(B, None)),
            ("nvidia4/vgpu2".to_owned(), at(A, None)),
            ("nvidia0/gi3".to_owned(), at(B, Some("nvidia0/gi3"))),
            ("nvidia0/gi3/vgpu1".to_owned(), at(B, Some("nvidia0/gi3/vgpu1"))),
            ("nvidia7".to_owned(), None),
            ("nvidiactl".to_owned(), None),
            ("".to_owned(), None),
            ("-1".to_owned(), None),
            ("GPU-".to_owned(), at("GPU-", None)),
        ];
        for (id, expected) in table {
            assert_eq!(told(inventory().by_device_id(&id)), expected, "{id}");
        }
    }

    #[test]
    fn claims_name_devices_by_their_minor_number() {
        let table = [
            ("gpu-4", at(A, None)),
            ("gpu-0", at(B, None)),
            ("gpu-0-mig-1g12gb-19-0", at(B, Some("gpu-0-mig-1g12gb-19-0"))),
            ("gpu-5a1c9e62-7d31-4a0e-8f54-0c2b6d9e1f33", at(A, None)),
            ("gpu-5A1C9E62-7D31-4A0E-8F54-0C2B6D9E1F33", at(A, None)),
            ("mig-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", at(B, Some(M))),
            ("gpu-1", None),
            ("gpu-vfio-0", None),
            ("channel-0", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(told(inventory().by_claim_device(name)).map(lower), expected.map(lower), "{name}");
        }
    }

    fn lower((gpu, mig): (String, Option<String>)) -> (String, Option<String>) {
        (gpu.to_lowercase(), mig.map(|mig| mig.to_lowercase()))
    }

    #[test]
    fn cdi_names_carry_the_device_behind_the_class_and_the_claim() {
        let table = [
            (format!("nvidia.com/gpu={A}"), at(A, None)),
            ("nvidia.com/gpu=1".to_owned(), at(B, None)),
            ("k8s.gpu.nvidia.com/device=gpu-4".to_owned(), at(A, None)),
            (format!("k8s.gpu.nvidia.com/claim={CLAIM}-gpu-0"), at(B, None)),
            (
                format!("k8s.gpu.nvidia.com/claim={CLAIM}-gpu-0-mig-1g12gb-19-0"),
                at(B, Some("gpu-0-mig-1g12gb-19-0")),
            ),
            (format!("k8s.gpu.nvidia.com/claim={CLAIM}"), None),
            ("nvidia.com/gpu=all".to_owned(), None),
            ("example.com/gpu=gpu-4".to_owned(), None),
            ("notnvidia.company/gpu=0".to_owned(), None),
            ("gpu-4".to_owned(), None),
        ];
        for (name, expected) in table {
            assert_eq!(told(inventory().by_cdi_name(&name)), expected, "{name}");
        }
    }

    proptest! {
        /// Invariant: whatever a device is called, there is an answer and no panic.
        #[test]
        fn any_name_is_answered(name in "\\PC{0,80}|(GPU|MIG|gpu|nvidia)[-0-9a-f:/é]{0,60}") {
            let inventory = inventory();
            let _ = (inventory.by_device_id(&name), inventory.by_claim_device(&name), inventory.by_cdi_name(&name));
        }
    }
}
