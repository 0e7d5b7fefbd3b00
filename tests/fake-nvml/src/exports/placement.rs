//! Where a GPU sits: processors, NUMA nodes, and the way to its neighbours.

use std::ffi::{c_uint, c_ulong};

use crate::abi::{Code, Device, Out, Outcome};
use crate::call::exports;
use crate::scenario::{cpu_words, pci_address};
use crate::session::Gpu;

/// Bits in an element of an affinity mask.
const WORD_BITS: u32 = c_ulong::BITS;
/// `NVML_TOPOLOGY_*`: the same board, the same NUMA node, across NUMA nodes.
const INTERNAL: c_uint = 0;
const SAME_NODE: c_uint = 40;
const ACROSS_NODES: c_uint = 50;
/// Affinity by NUMA node, or by socket: here they coincide.
const MAX_SCOPE: c_uint = 1;

exports! {
    device fn nvmlDeviceGetModuleId(gpu, id: Out<c_uint>) { id.set(gpu.spec().module_id) }
    // Only where the GPU itself is a NUMA node, as beside a Grace processor.
    device fn nvmlDeviceGetNumaNodeId(gpu, node: Out<c_uint>) {
        node.set(gpu.spec().own_numa_node.ok_or(Code::NOT_SUPPORTED)?)
    }
    device fn nvmlDeviceGetMemoryAffinity(gpu, words: c_uint, mask: Out<c_ulong>, scope: c_uint) {
        if scope > MAX_SCOPE {
            return Err(Code::INVALID_ARGUMENT);
        }
        set_mask(&[1 << gpu.spec().numa_node.min(63)], words, mask)
    }
    device fn nvmlDeviceGetCpuAffinity(gpu, words: c_uint, mask: Out<c_ulong>) { set_cpus(gpu, words, mask) }
    device fn nvmlDeviceGetCpuAffinityWithinScope(gpu, words: c_uint, mask: Out<c_ulong>, scope: c_uint) {
        if scope > MAX_SCOPE {
            return Err(Code::INVALID_ARGUMENT);
        }
        set_cpus(gpu, words, mask)
    }
    device fn nvmlDeviceGetTopologyCommonAncestor(gpu, other: Device, level: Out<c_uint>) {
        let other = gpu.session().gpu(other)?;
        level.set(if other.board() == gpu.board() {
            INTERNAL
        } else if other.spec().numa_node == gpu.spec().numa_node {
            SAME_NODE
        } else {
            ACROSS_NODES
        })
    }
    // Over NVSwitches every GPU reaches every other, over a bridge its peer. Status 0 is OK, 5 not supported.
    device fn nvmlDeviceGetP2PStatus(gpu, other: Device, capability: c_uint, status: Out<c_uint>) {
        let other = gpu.session().gpu(other)?;
        let bridged = |address: &String| pci_address(address) == pci_address(&other.spec().pci);
        let linked = gpu.session().scenario.nvlink.is_some() && gpu.spec().nvlink_peer.as_ref().is_none_or(bridged);
        match capability {
            0 | 1 | 3 | 4 => status.set(0),
            2 => status.set(if linked { 0 } else { 5 }),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }
    device fn nvmlDeviceOnSameBoard(gpu, other: Device, same: Out<c_uint>) {
        let other = gpu.session().gpu(other)?;
        same.set(c_uint::from(other.board() == gpu.board()))
    }
}

fn set_cpus(gpu: &Gpu<'_>, words: c_uint, mask: Out<c_ulong>) -> Outcome {
    set_mask(&cpu_words(&gpu.spec().cpus).unwrap_or_default(), words, mask)
}

/// Fills the caller's mask; what lies beyond its end is not told.
fn set_mask(bits: &[u64], words: c_uint, mask: Out<c_ulong>) -> Outcome {
    if words == 0 {
        return Err(Code::INVALID_ARGUMENT);
    }
    for index in 0..words {
        let first = u64::from(index) * u64::from(WORD_BITS);
        let word = bits.get((first / 64) as usize).copied().unwrap_or(0) >> (first % 64);
        mask.element(index as usize).set(word as c_ulong)?;
    }
    Ok(())
}
