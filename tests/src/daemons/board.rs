//! GPUs without a GPU: which machine fake-nvml plays on a node.

use std::path::PathBuf;

/// A machine of fake-nvml's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// One of its built-in scenarios.
    pub scenario: String,
    /// The folder in which engines say what they do to the GPUs; without one the scenario's own load is played.
    pub activity: Option<PathBuf>,
}

impl Board {
    /// The UUID of one of the board's GPUs on a node.
    ///
    /// This repeats the rule of `plimsoll_fake_nvml::gpu_uuid` since nothing may link that package: the file of a
    /// library that is also a cdylib has no hash in its name, so that the build which the harness starts in the middle
    /// of `cargo test` would replace the very file that the tests were compiled against.
    #[must_use]
    pub fn gpu(&self, node: &str, index: usize) -> String {
        let text = format!("plimsoll-fake-nvml/1\0{node}\0{}\0{index}", self.scenario);
        let high = (hash(&text) & !0xf000) | 0x8000;
        let low = (hash(&format!("{text}\0low")) & !(0b11 << 62)) | (0b10 << 62);
        format!(
            "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

/// 64-bit FNV-1a, then one step of SplitMix64.
fn hash(text: &str) -> u64 {
    let fnv1a = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut mixed = fnv1a.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same value stands in a test of fake-nvml, and the library itself is asked in `e2e::counts`.
    #[test]
    fn uuids_are_those_of_the_library() {
        let board = Board { scenario: "hgx-h100-8".to_owned(), activity: None };
        assert_eq!(board.gpu("node-a", 0), "GPU-52b82fca-6811-8c38-b637-9224565c90f6");
        assert_ne!(board.gpu("node-a", 1), board.gpu("node-b", 1));
    }
}
