//! What does not change, or seldom.

/// What does not change while a GPU is in its slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuFacts {
    /// Architecture, such as `Hopper`.
    pub architecture: Option<String>,
    /// CUDA compute capability, major and minor.
    pub compute_capability: Option<(u32, u32)>,
    /// Serial number of the board.
    pub serial: Option<String>,
    /// Part number of the board.
    pub board_part_number: Option<String>,
    /// Version of the VBIOS.
    pub vbios: Option<String>,
    /// Number of the device file `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// NUMA node that the GPU is attached to.
    pub numa_node: Option<u32>,
    /// Position on the baseboard.
    pub module_id: Option<u32>,
    /// PCIe link now and at best.
    pub pcie: Pcie,
    /// How many NVLinks it has.
    pub nvlinks: Option<u32>,
}

/// A PCIe link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pcie {
    /// Generation now; it falls while the GPU is idle.
    pub generation: Option<u32>,
    /// Lanes now.
    pub width: Option<u32>,
    /// The best generation that GPU and slot support.
    pub max_generation: Option<u32>,
    /// The most lanes that GPU and slot support.
    pub max_width: Option<u32>,
}
