//! Names of emulated GPUs: a pure function of node, scenario and index, so that any test can know them beforehand.
//!
//! The rule, for those who must repeat it elsewhere: let `text` be `plimsoll-fake-nvml/1`, the node, the scenario's name
//! and the index in decimal digits, joined by one zero byte each. The upper half of the UUID is the hash of `text`, the
//! lower half that of `text` followed by a zero byte and `low`; the hash is 64-bit FNV-1a, then one step of SplitMix64. The
//! version nibble is then set to 8 (a layout of one's own, RFC 9562) and the variant bits to `10`.

use crate::scenario::splitmix;

/// The UUID of one emulated GPU, in NVML's spelling: `GPU-` and 36 characters.
///
/// `node` is the value of `PLIMSOLL_FAKE_NVML_NODE` (the empty string where it is not set), `scenario` the `name` in the
/// scenario file. Two nodes that play the same scenario thus have different GPUs.
///
/// ```
/// let first = plimsoll_fake_nvml::gpu_uuid("node-a", "hgx-h100-8", 0);
/// assert!(first.starts_with("GPU-") && first.len() == 40);
/// assert_ne!(first, plimsoll_fake_nvml::gpu_uuid("node-b", "hgx-h100-8", 0));
/// ```
#[must_use]
pub fn gpu_uuid(node: &str, scenario: &str, index: usize) -> String {
    format!("GPU-{}", uuid(&identity_text(node, scenario, index)))
}

/// The UUID of a MIG device: `MIG-` and 36 characters, from those of its GPU and the ids of its instances. The same instance
/// thus has the same UUID whenever it exists.
#[must_use]
pub fn mig_uuid(gpu_uuid: &str, gpu_instance: u32, compute_instance: u32) -> String {
    format!("MIG-{}", uuid(&format!("{gpu_uuid}\0{gpu_instance}\0{compute_instance}")))
}

fn uuid(text: &str) -> String {
    let high = (hash(text) & !0xf000) | 0x8000;
    let low = (hash(&format!("{text}\0low")) & !(0b11 << 62)) | (0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// The serial number of one emulated GPU: 13 decimal digits, the first of them 1.
#[must_use]
pub fn gpu_serial(node: &str, scenario: &str, index: usize) -> String {
    let text = format!("{}\0serial", identity_text(node, scenario, index));
    format!("1{:012}", hash(&text) % 1_000_000_000_000)
}

fn identity_text(node: &str, scenario: &str, index: usize) -> String {
    format!("plimsoll-fake-nvml/1\0{node}\0{scenario}\0{index}")
}

/// FNV-1a leaves texts that differ in their last letter alike; the step of SplitMix64 spreads the difference.
fn hash(text: &str) -> u64 {
    splitmix(fnv1a(text.as_bytes()))
}

/// FNV-1a with 64 bits: short, stable over releases and machines, and good enough where nobody attacks.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn uuids_are_stable() {
        // Journals and dashboards of other packages' tests may hold these: a change of the rule must be noticed.
        assert_eq!(gpu_uuid("node-a", "hgx-h100-8", 0), "GPU-52b82fca-6811-8c38-b637-9224565c90f6");
        assert_eq!(gpu_serial("node-a", "hgx-h100-8", 0), "1427384491808");
        assert_eq!(gpu_uuid("", "", 0).len(), 40);
        assert_eq!(&gpu_uuid("a", "b", 1)[18..19], "8");
    }

    #[test]
    fn names_differ_by_node_scenario_and_index() {
        let mut uuids = BTreeSet::new();
        let mut serials = BTreeSet::new();
        for node in ["", "a", "b", "node-1", "node-11"] {
            for scenario in ["hgx-h100-8", "gb200-tray"] {
                for index in 0..72 {
                    uuids.insert(gpu_uuid(node, scenario, index));
                    serials.insert(gpu_serial(node, scenario, index));
                }
            }
        }
        assert_eq!(uuids.len(), 5 * 2 * 72);
        assert_eq!(serials.len(), 5 * 2 * 72);
        assert!(serials.iter().all(|serial| serial.len() == 13));
    }

    #[test]
    fn fnv1a_has_the_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
