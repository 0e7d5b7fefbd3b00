//! What a scenario must satisfy beyond its types, and the parsers of the little notations in it.

use super::{Load, Scenario};
use crate::control::Gpus;

/// A node has at most this many GPUs here.
const MAX_GPUS: usize = 64;
/// NVML knows at most this many links of one GPU.
const MAX_LINKS: u32 = 36;
/// At most this many processes are listed.
const MAX_PROCESSES: usize = 4096;
/// At most this many things happen.
const MAX_TIMELINE: usize = 4096;
/// Highest processor number that an affinity may name.
const MAX_CPU: usize = 4096;

/// Key and message of the first fault.
type Fault = (String, String);

/// Checks everything that the types cannot.
pub(crate) fn check(scenario: &Scenario) -> Result<(), Fault> {
    check_device(scenario)?;
    check_load("load", &scenario.load)?;
    for (key, share) in scenario.busy.shares() {
        ensure((0.0..=1.0).contains(&share), &format!("busy.{key}"), "must be a share between 0 and 1")?;
    }
    let busy = &scenario.busy;
    for rate in [busy.nvlink_mib_per_s, busy.pcie_tx_mib_per_s, busy.pcie_rx_mib_per_s] {
        ensure(rate.is_finite() && rate >= 0.0, "busy", "rates must be finite and not negative")?;
    }
    for (call, cost_us) in &scenario.costs {
        let key = format!("costs.{call}");
        ensure(call.starts_with("nvml"), &key, "name the C function, such as nvmlDeviceGetPowerUsage")?;
        ensure(*cost_us <= 60_000_000, &key, "a call may take at most 60,000,000 microseconds")?;
    }
    check_links(scenario)?;
    check_gpus(scenario)?;
    check_timeline(scenario)
}

fn check_timeline(scenario: &Scenario) -> Result<(), Fault> {
    ensure(scenario.timeline.len() <= MAX_TIMELINE, "timeline", "there may be at most 4096 entries")?;
    for entry in &scenario.timeline {
        let when = entry.at_s.is_some() != entry.after.is_some();
        ensure(when, "timeline", "each entry must have either at_s or after")?;
        let time = entry.at_s.is_none_or(|at_s| at_s.is_finite() && at_s >= 0.0);
        ensure(time, "timeline.at_s", "must be finite and not negative")?;
        let named = entry.after.as_ref().is_none_or(|after| after.call.starts_with("nvml"));
        ensure(named, "timeline.after", "name the C function, such as nvmlDeviceGetPowerUsage")?;
        for command in &entry.commands {
            let known = match command.gpus() {
                Gpus::All => true,
                Gpus::One(gpu) => gpu < scenario.gpus.len(),
            };
            ensure(known, "timeline.do", "there is no GPU with this number")?;
        }
    }
    Ok(())
}

fn check_device(scenario: &Scenario) -> Result<(), Fault> {
    let device = &scenario.device;
    for (key, text, limit) in [
        ("name", &scenario.name, 128),
        ("driver.version", &scenario.driver.version, 79),
        ("driver.nvml", &scenario.driver.nvml, 79),
        ("device.name", &device.name, 95),
        ("device.board_part_number", &device.board_part_number, 79),
        ("device.vbios", &device.vbios, 31),
        ("device.inforom", &device.inforom, 15),
    ] {
        let fits = !text.is_empty()
            && text.len() <= limit
            && text.chars().all(|letter| (' '..='~').contains(&letter));
        ensure(fits, key, &format!("must be 1 to {limit} printable ASCII characters"))?;
    }
    ensure(device.memory_mib <= 1 << 30, "device.memory_mib", "must be at most 2^30")?;
    ensure(device.reserved_mib < device.memory_mib, "device.reserved_mib", "must be less than memory_mib")?;
    let power = &device.power;
    let order = [0.0, power.min_limit_w, power.default_limit_w, power.max_limit_w, 1e5];
    ensure(
        rising(&order),
        "device.power",
        "must satisfy 0 <= min_limit_w <= default_limit_w <= max_limit_w",
    )?;
    let order = [power.min_limit_w, power.limit_w, power.max_limit_w];
    ensure(rising(&order), "device.power.limit_w", "must lie between min_limit_w and max_limit_w")?;
    ensure(rising(&[0.0, power.idle_w, power.busy_w]), "device.power.busy_w", "must be at least idle_w")?;
    let clocks = &device.clocks;
    let order = [0, clocks.idle, clocks.busy, clocks.max];
    ensure(order.is_sorted(), "device.clocks", "must satisfy idle <= busy <= max")?;
    let heat = &device.temperature;
    let order = [-50.0, heat.idle, heat.busy, heat.slowdown, heat.shutdown, 200.0];
    ensure(rising(&order), "device.temperature", "must satisfy idle <= busy <= slowdown <= shutdown")
}

fn check_load(section: &str, load: &Load) -> Result<(), Fault> {
    for (key, wave) in load.waves() {
        if let Some(fault) = wave.fault() {
            return Err((format!("{section}.{key}"), fault.to_owned()));
        }
    }
    ensure(load.shift_per_gpu_s.is_finite(), &format!("{section}.shift_per_gpu_s"), "must be finite")
}

fn check_links(scenario: &Scenario) -> Result<(), Fault> {
    if let Some(nvlink) = &scenario.nvlink {
        ensure((1..=MAX_LINKS).contains(&nvlink.links), "nvlink.links", "must be 1 to 36")?;
        for address in nvlink.remote_pci.iter().flatten() {
            pci_address(address).ok_or_else(|| fault("nvlink.remote_pci", PCI_FORM))?;
        }
        let complete = nvlink.remote_pci.as_ref().is_none_or(|list| list.len() == nvlink.links as usize);
        ensure(complete, "nvlink.remote_pci", "must have one address per link")?;
    }
    if let Some(fabric) = &scenario.fabric {
        cluster_uuid_bytes(&fabric.cluster_uuid)
            .ok_or_else(|| fault("fabric.cluster_uuid", "must be 8-4-4-4-12 hexadecimal digits"))?;
    }
    if let Some(platform) = &scenario.platform {
        let serial = &platform.chassis_serial;
        ensure(
            serial.len() <= 16 && serial.is_ascii(),
            "platform.chassis_serial",
            "must be at most 16 ASCII characters",
        )?;
    }
    Ok(())
}

fn check_gpus(scenario: &Scenario) -> Result<(), Fault> {
    let gpus = &scenario.gpus;
    ensure((1..=MAX_GPUS).contains(&gpus.len()), "gpu", "there must be 1 to 64 [[gpu]] entries")?;
    for (index, gpu) in gpus.iter().enumerate() {
        let address = pci_address(&gpu.pci).ok_or_else(|| fault("gpu.pci", PCI_FORM))?;
        let unique = gpus[..index].iter().all(|other| pci_address(&other.pci) != Some(address));
        ensure(unique, "gpu.pci", "two GPUs have the same PCI address: give each its own")?;
        if let Some(peer) = &gpu.nvlink_peer {
            let known = gpus.iter().any(|other| pci_address(&other.pci) == pci_address(peer));
            ensure(
                known && scenario.nvlink.is_some(),
                "gpu.nvlink_peer",
                "there is no GPU with this PCI address",
            )?;
        }
        cpu_words(&gpu.cpus).ok_or_else(|| fault("gpu.cpus", "must be ranges such as \"0-55,112-167\""))?;
        if let Some(load) = &gpu.load {
            check_load("gpu.load", load)?;
        }
    }
    ensure(
        scenario.processes.len() <= MAX_PROCESSES,
        "process",
        "there may be at most 4096 [[process]] entries",
    )?;
    let known = scenario.processes.iter().all(|process| process.gpu < gpus.len());
    ensure(known, "process.gpu", "there is no GPU with this index")
}

const PCI_FORM: &str = "must be domain:bus:device.function in hexadecimal, such as 00000000:1B:00.0";

fn fault(key: &str, message: &str) -> Fault {
    (key.to_owned(), message.to_owned())
}

fn ensure(holds: bool, key: &str, message: &str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(fault(key, message)) }
}

fn rising(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite()) && values.is_sorted()
}

/// Domain, bus and device of `domain:bus:device[.function]`; the domain may be left out.
pub(crate) fn pci_address(text: &str) -> Option<(u32, u32, u32)> {
    let text = text.split('.').next()?;
    let mut parts = text.rsplit(':').map(|part| u32::from_str_radix(part, 16).ok());
    let device = parts.next()??;
    let bus = parts.next()??;
    let domain = match parts.next() {
        Some(domain) => domain?,
        None => 0,
    };
    (parts.next().is_none() && bus <= 0xff && device <= 0x1f).then_some((domain, bus, device))
}

/// The 16 bytes of a UUID.
pub(crate) fn cluster_uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits = groups.concat();
    digits.chars().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// Processor ranges as a bit mask of 64-bit words.
pub(crate) fn cpu_words(ranges: &str) -> Option<Vec<u64>> {
    let mut words = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_CPU {
            return None;
        }
        words.resize(words.len().max(last / 64 + 1), 0);
        for cpu in first..=last {
            words[cpu / 64] |= 1 << (cpu % 64);
        }
    }
    Some(words)
}
