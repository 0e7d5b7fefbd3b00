//! The GPUs of the node: a row each, and under it what is not needed at a glance.

use std::fmt::Write;

use plimsoll_common::units::Ratio;
use tokio::time::Instant;

use super::html::{NONE, Tone, bytes, chip, escape, facts, gib, meter, or_none, pill, rate, span};
use crate::{
    attribution::{Attribution, PodRef},
    gpu::{GpuReading, GpuSnapshot, GpuStatus, RecoveryAction, Samples},
    topology::{NvLinkDomain, Topology},
};

pub(super) fn table(
    html: &mut String,
    snapshot: &GpuSnapshot,
    topology: &Topology,
    attribution: &Attribution,
    now: Instant,
) {
    html.push_str(
        "<h2>GPUs</h2><div class=\"scroll cards\"><table><thead><tr><th>GPU</th><th>State</th><th>Utilization</th>\
         <th>Memory</th><th>Power</th><th>Temperature</th><th>Clocks</th><th>Health</th><th>Used by</th></tr></thead>",
    );
    for gpu in &snapshot.gpus {
        html.push_str("<tbody class=\"gpu\">");
        row(html, gpu, attribution.gpus.get(&gpu.info.uuid).map_or(&[], Vec::as_slice), now);
        details(html, gpu, topology);
        html.push_str("</tbody>");
    }
    for gone in &snapshot.absent {
        let seen = now.saturating_duration_since(gone.last_seen).as_secs();
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<tbody class=\"gpu\"><tr class=\"row\"><td><b>GPU {}</b><div class=\"sub\">{}</div><div class=\"mono sub\">{}</div></td>\
             <td>{}<div class=\"sub\">last seen {} ago</div></td><td colspan=\"7\" class=\"sub\">the driver no longer lists it</td></tr></tbody>",
            gone.info.index,
            or_none(gone.info.name.clone()),
            escape(gone.info.uuid.as_str()),
            pill(Tone::Bad, "absent"),
            span(seen),
        );
    }
    html.push_str("</table></div>");
}

fn row(html: &mut String, gpu: &GpuReading, pods: &[PodRef], now: Instant) {
    let info = &gpu.info;
    let _ = write!(
        html,
        "<tr class=\"row\"><td><b>GPU {}</b> <a class=\"sub\" href=\"/v1/gpus/{uuid}\">json</a><div class=\"sub\">{}</div>\
         <div class=\"mono sub\" title=\"{uuid}\">{}</div></td><td>{}<div class=\"sub\">{}</div></td>\
         <td data-k=\"Utilization\">{}</td><td data-k=\"Memory, GiB\">{}</td><td data-k=\"Power\">{}</td>\
         <td data-k=\"Temperature\">{}</td><td data-k=\"Clocks\">{}</td><td data-k=\"Health\">{}</td>\
         <td data-k=\"Used by\">{}</td></tr>",
        info.index,
        or_none(info.name.clone()),
        or_none(info.pci_bus_id.clone()),
        pill(tone(gpu.state), gpu.state.as_str()),
        escape(gpu.trouble.as_deref().unwrap_or("")),
        utilization(gpu),
        memory(gpu),
        power(gpu),
        temperature(gpu),
        clocks(gpu),
        health(gpu, now),
        users(gpu, pods),
        uuid = escape(info.uuid.as_str()),
    );
}

const fn tone(state: GpuStatus) -> Tone {
    match state {
        GpuStatus::Ok => Tone::Ok,
        GpuStatus::Degraded | GpuStatus::Stale => Tone::Warn,
        GpuStatus::Lost => Tone::Bad,
    }
}

fn utilization(gpu: &GpuReading) -> String {
    let percent = gpu.utilization_percent;
    let text = percent.map_or_else(String::new, |percent| format!("{percent} %"));
    meter("utilization", percent.map(|percent| percent as f64 / 100.0), &text, "", Tone::Ok)
}

fn memory(gpu: &GpuReading) -> String {
    let share = gpu.memory_used_bytes.zip(gpu.info.memory_total_bytes.filter(|total| *total > 0));
    let text = gpu.memory_used_bytes.map_or_else(String::new, gib);
    let beside = gpu.info.memory_total_bytes.map_or_else(String::new, |total| format!("of {}", gib(total)));
    meter("memory", share.map(|(used, total)| used as f64 / total as f64), &text, &beside, Tone::Ok)
}

fn power(gpu: &GpuReading) -> String {
    let watts = |mw: u64| (mw as f64 / 1e3).round();
    let Some(mw) = gpu.power_mw else { return NONE.to_owned() };
    let Some(limit) = gpu.info.power_limit_mw.filter(|limit| *limit > 0) else {
        return format!("{} W", watts(mw));
    };
    let share = mw as f64 / limit as f64;
    let tone = if share > 1.02 { Tone::Warn } else { Tone::Ok };
    meter("power", Some(share), &format!("{} W", watts(mw)), &format!("of {}", watts(limit)), tone)
}

/// The bar ends at 100 °C; from 80 °C on today's boards come close to slowing down.
fn temperature(gpu: &GpuReading) -> String {
    let Some(celsius) = gpu.temperature_c else { return NONE.to_owned() };
    let hottest = gpu.memory_temperature_c.map_or(celsius, |memory| memory.max(celsius));
    let tone = match hottest {
        95.. => Tone::Bad,
        85.. => Tone::Warn,
        _ => Tone::Ok,
    };
    let memory = gpu.memory_temperature_c.map_or_else(String::new, |t| format!("mem {t}"));
    meter("temperature", Some(celsius as f64 / 100.0), &format!("{celsius} °C"), &memory, tone)
}

fn clocks(gpu: &GpuReading) -> String {
    let mut html = match (gpu.clocks.sm_mhz, gpu.clocks.max_sm_mhz) {
        (Some(now), Some(max)) => format!("{now} <span class=\"sub\">of {max} MHz</span>"),
        (Some(now), None) => format!("{now} MHz"),
        (None, _) => NONE.to_owned(),
    };
    if let Some(reasons) = gpu.throttle.filter(|reasons| reasons.is_throttled()) {
        html.push_str("<div>");
        reasons.names().for_each(|name| html.push_str(&chip(Tone::Warn, &name.replace('_', " "))));
        html.push_str("</div>");
    }
    html
}

fn health(gpu: &GpuReading, now: Instant) -> String {
    let mut chips = Vec::new();
    if let Some((xid, at)) = gpu.xids.last {
        let total: u64 = gpu.xids.counts.values().sum();
        let ago = span(now.saturating_duration_since(at).as_secs());
        chips.push(chip(Tone::Bad, &format!("XID {xid}, {ago} ago")));
        if total > 1 {
            chips.push(chip(Tone::Off, &format!("{total} XIDs")));
        }
    }
    if let Some(action) = gpu.recovery_action.filter(|action| *action != RecoveryAction::None) {
        chips.push(chip(Tone::Bad, &action.as_str().replace('_', " ")));
    }
    if let Some(errors) = gpu.ecc.uncorrected_volatile.filter(|errors| *errors > 0) {
        chips.push(chip(Tone::Bad, &format!("{errors} uncorrected ECC")));
    }
    if let Some(errors) = gpu.ecc.corrected_volatile.filter(|errors| *errors > 0) {
        chips.push(chip(Tone::Warn, &format!("{errors} corrected ECC")));
    }
    if let Some(rows) = &gpu.remapped_rows {
        let words =
            [(rows.failed, Tone::Bad, "row remap failed"), (rows.pending, Tone::Warn, "row remap pending")];
        chips.extend(words.into_iter().filter(|(holds, ..)| *holds).map(|(_, tone, word)| chip(tone, word)));
    }
    let down = gpu.links.iter().filter(|link| link.active == Some(false)).count();
    if down > 0 {
        chips.push(chip(Tone::Warn, &format!("{down} NVLinks down")));
    }
    match (chips.is_empty(), gpu.state) {
        (false, _) => chips.concat(),
        (true, GpuStatus::Lost | GpuStatus::Stale) => NONE.to_owned(),
        (true, _) => "<span class=\"sub\">nothing reported</span>".to_owned(),
    }
}

fn users(gpu: &GpuReading, pods: &[PodRef]) -> String {
    let mut html = String::new();
    for pod in pods.iter().take(4) {
        let name = |part: &Option<String>| part.clone().unwrap_or_else(|| "?".to_owned());
        html.push_str(&chip(Tone::Off, &format!("{}/{}", name(&pod.namespace), name(&pod.pod))));
    }
    if pods.len() > 4 {
        let _ = write!(html, "<span class=\"sub\">and {} more</span>", pods.len() - 4);
    }
    if let Some(mig) = gpu.mig.as_ref().filter(|mig| mig.enabled) {
        html.push_str(&chip(Tone::Off, &format!("MIG, {} instances", mig.instances.len())));
    }
    match &gpu.processes {
        Some(all) if all.is_empty() => html.push_str("<span class=\"sub\">no process</span>"),
        Some(all) => {
            for process in all.iter().take(4) {
                let memory =
                    process.memory_used_bytes.map_or_else(String::new, |n| format!(" · {}", bytes(n)));
                html.push_str(&chip(Tone::Off, &format!("pid {}{memory}", process.pid)));
            }
            if all.len() > 4 {
                let _ = write!(html, "<span class=\"sub\">and {} more</span>", all.len() - 4);
            }
        }
        None if html.is_empty() => html.push_str(NONE),
        None => (),
    }
    html
}

fn details(html: &mut String, gpu: &GpuReading, topology: &Topology) {
    let _ = write!(
        html,
        "<tr><td colspan=\"9\"><details id=\"{}\"><summary>activity, NVLink, facts</summary><div class=\"groups\">",
        escape(gpu.info.uuid.as_str()),
    );
    html.push_str(&activity(gpu));
    html.push_str(&interconnect(gpu, topology));
    html.push_str(&identity(gpu));
    mig(html, gpu);
    html.push_str("</div>");
    if !gpu.unsupported.is_empty() {
        let names: Vec<_> = gpu.unsupported.iter().copied().collect();
        let _ =
            write!(html, "<p class=\"sub\">Not supported by this GPU or driver: {}.</p>", names.join(", "));
    }
    html.push_str("</details></td></tr>");
}

fn activity(gpu: &GpuReading) -> String {
    let percent = |ratio: Option<Ratio>| ratio.map(|ratio| format!("{:.1} %", ratio.get() * 100.0));
    let (it, mhz) = (&gpu.activity, |mhz: Option<u64>| mhz.map(|mhz| format!("{mhz} MHz")));
    facts(
        "Activity",
        &[
            ("SM", percent(it.sm)),
            ("SM occupancy", percent(it.sm_occupancy)),
            ("tensor cores", percent(it.tensor)),
            ("device memory", percent(it.dram)),
            ("FP16 / FP32 / FP64", all_three(percent(it.fp16), percent(it.fp32), percent(it.fp64))),
            ("utilization, mean and peak", gpu.samples.utilization_percent.map(mean_and_peak)),
            ("video encoder / decoder", encoder_decoder(gpu)),
            ("memory clock", mhz(gpu.clocks.memory_mhz)),
            ("performance state", gpu.performance_state.map(|state| format!("P{state}"))),
            ("energy since driver load", gpu.energy_mj.map(|mj| format!("{:.1} kWh", mj as f64 / 3.6e9))),
        ],
    )
}

fn all_three(a: Option<String>, b: Option<String>, c: Option<String>) -> Option<String> {
    Some(format!("{} / {} / {}", a?, b?, c?))
}

/// Of what the driver sampled since it was asked before.
fn mean_and_peak(samples: Samples) -> String {
    format!("{:.0} % and {} % in {:.0} s", samples.mean, samples.max, samples.span.as_secs_f64())
}

fn encoder_decoder(gpu: &GpuReading) -> Option<String> {
    Some(format!("{} % / {} %", gpu.video.encoder_percent?, gpu.video.decoder_percent?))
}

fn interconnect(gpu: &GpuReading, topology: &Topology) -> String {
    let up = gpu.links.iter().filter(|link| link.active == Some(true)).count();
    let told = gpu.links.iter().any(|link| link.active.is_some());
    let both = |tx: Option<u64>, rx: Option<u64>| Some(format!("{} / {}", rate(tx?), rate(rx?)));
    let pcie = &gpu.facts.pcie;
    let link = |generation: Option<u32>, width: Option<u32>| Some(format!("gen {} ×{}", generation?, width?));
    let fabric = gpu.fabric.as_ref();
    let clique =
        fabric.and_then(|it| Some(format!("{} · clique {}", it.cluster_uuid.as_ref()?, it.clique_id)));
    facts(
        "Interconnect",
        &[
            ("NVLink domain", topology.domain_of(&gpu.info.uuid).map(domain)),
            ("NVLinks up", told.then(|| format!("{up} of {}", gpu.links.len()))),
            (
                "NVLink out / in",
                both(gpu.activity.nvlink_tx_bytes_per_second, gpu.activity.nvlink_rx_bytes_per_second),
            ),
            ("fabric", fabric.map(|it| it.state.as_str().replace('_', " "))),
            ("fabric cluster", clique),
            ("PCIe", link(pcie.generation, pcie.width)),
            ("PCIe replays", gpu.pcie_replays.map(|count| count.to_string())),
            ("PCIe at best", link(pcie.max_generation, pcie.max_width)),
            (
                "PCIe out / in",
                both(gpu.activity.pcie_tx_bytes_per_second, gpu.activity.pcie_rx_bytes_per_second),
            ),
        ],
    )
}

fn domain(domain: &NvLinkDomain) -> String {
    let more = if domain.is_degraded() { ", degraded" } else { "" };
    format!("{}{more}", domain.kind.as_str().replace('_', " "))
}

fn identity(gpu: &GpuReading) -> String {
    let it = &gpu.facts;
    let number = |n: Option<u32>| n.map(|n| n.to_string());
    let place = gpu.platform.as_ref().map(|p| {
        format!("{} slot {} tray {}", p.chassis_serial.as_deref().unwrap_or("chassis ?"), p.slot, p.tray)
    });
    facts(
        "Identity",
        &[
            ("UUID", Some(gpu.info.uuid.as_str().to_owned())),
            ("architecture", it.architecture.clone()),
            ("compute capability", it.compute_capability.map(|(major, minor)| format!("{major}.{minor}"))),
            ("serial", it.serial.clone()),
            ("VBIOS", it.vbios.clone()),
            ("NUMA node", number(it.numa_node)),
            ("module", number(it.module_id)),
            ("place", place),
        ],
    )
}

fn mig(html: &mut String, gpu: &GpuReading) {
    let Some(mig) = gpu.mig.as_ref().filter(|mig| mig.enabled) else { return };
    let rows: Vec<_> = mig
        .instances
        .iter()
        .map(|instance| {
            let name = instance.profile.as_deref().unwrap_or(instance.uuid.as_str());
            let used = instance.memory_used_bytes.zip(instance.memory_total_bytes);
            (name, used.map(|(used, total)| format!("{} of {}", bytes(used), bytes(total))))
        })
        .collect();
    html.push_str(&facts("MIG instances", &rows));
}
