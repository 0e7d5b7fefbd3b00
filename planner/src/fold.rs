//! Wire messages → the core's words. Pure.

use std::{collections::BTreeSet, sync::Arc};

use plimsoll_common::{
    engine::{DistributionKind, EngineKind, SleepState, Unit},
    histogram::{BucketLayout, InvalidBuckets},
    ids::{AgentEpoch, EngineId, GpuUuid, NodeName},
    units::{Micros, Ratio},
    wire::{self, EngineColumns, GpuColumns, HistogramHead, Inventory, Report, WireError},
};
use plimsoll_core::fleet::{
    Counter, Counts, EngineGauges, EngineIdentity, EngineReading, EngineState, GpuIdentity, GpuReading,
    GpuState, HostReading, Machine, NodeInventory, NvLinkDomain, Observation, Part, PoolKey, Samples,
    SourceHealth,
};

/// Why a message that decodes can't be taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An inventory names a GPU twice.
    #[error("the inventory names GPU {0} twice")]
    GpuTwice(GpuUuid),
    /// An inventory names an engine twice.
    #[error("the inventory names engine {0} twice")]
    EngineTwice(EngineId),
    /// An inventory's bucket edges are no layout.
    #[error("bucket layout {position} of the inventory: {reason}")]
    Layout {
        /// Its position, from 1.
        position: usize,
        /// What is wrong with it.
        reason: InvalidBuckets,
    },
    /// A histogram names an engine that the inventory does not have.
    #[error("a histogram belongs to engine row {row}, the inventory has {rows}")]
    NoSuchEngine {
        /// The row it names.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// A histogram names a layout that the inventory does not have.
    #[error("a histogram is counted in layout {layout}, the inventory has {layouts}")]
    NoSuchLayout {
        /// The layout it names.
        layout: usize,
        /// How many there are.
        layouts: usize,
    },
    /// A histogram names a bucket that its layout does not have.
    #[error("a histogram names bucket {bucket}, its layout has {buckets}")]
    NoSuchBucket {
        /// The bucket it names.
        bucket: usize,
        /// How many there are.
        buckets: usize,
    },
    /// The packed histograms do not unpack.
    #[error("{0}")]
    Packed(&'static str),
}

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// An inventory in the core's words. Each wire layout stands twice, once for seconds and once for tokens: only the
/// kind of a distribution tells which one is meant.
///
/// # Errors
/// When it contradicts itself.
pub fn inventory(inventory: &Inventory) -> Result<NodeInventory, Error> {
    let mut uuids = BTreeSet::new();
    if let Some(twice) = inventory.gpus.iter().find(|gpu| !uuids.insert(&gpu.uuid)) {
        return Err(Error::GpuTwice(twice.uuid.clone()));
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = inventory.engines.iter().find(|engine| !ids.insert(&engine.id)) {
        return Err(Error::EngineTwice(twice.id.clone()));
    }
    let mut layouts = Vec::with_capacity(inventory.layouts.len() * 2);
    for (index, edges) in inventory.layouts.iter().enumerate() {
        for unit in UNITS {
            let layout = BucketLayout::new(edges, unit);
            layouts.push(layout.map_err(|reason| Error::Layout { position: index + 1, reason })?);
        }
    }
    let driver = inventory.driver.as_ref();
    Ok(NodeInventory {
        machine: Machine {
            cpus: inventory.host.cpus,
            memory_bytes: inventory.host.memory_bytes,
            kernel: inventory.host.kernel.clone(),
            driver_version: driver.map(|driver| driver.version.clone()),
            cuda_version: driver.and_then(|driver| driver.cuda.clone()),
        },
        gpus: inventory.gpus.iter().map(|gpu| Arc::new(gpu_identity(gpu))).collect(),
        engines: inventory.engines.iter().map(|engine| Arc::new(engine_identity(engine))).collect(),
        layouts,
    })
}

const UNITS: [Unit; 2] = [Unit::Seconds, Unit::Tokens];

fn gpu_identity(gpu: &wire::GpuInfo) -> GpuIdentity {
    GpuIdentity {
        uuid: gpu.uuid.clone(),
        index: gpu.index,
        name: gpu.name.clone(),
        pci_bus_id: gpu.pci_bus_id.clone(),
        memory_total_bytes: gpu.memory_total_bytes,
        power_limit_watts: gpu.power_limit_mw.map(milli),
        nvlink_domain: gpu.domain.as_ref().map(|domain| NvLinkDomain {
            kind: domain.kind.as_str(),
            id: domain.id.clone(),
            degraded: domain.degraded,
        }),
    }
}

fn engine_identity(engine: &wire::EngineInfo) -> EngineIdentity {
    EngineIdentity {
        id: engine.id.clone(),
        kind: engine.kind.clone(),
        url: engine.url.clone(),
        version: engine.version.clone(),
        pool: PoolKey { model: engine.model.clone(), pool: engine.pool.clone(), role: engine.role },
        replica: engine.replica.clone(),
        gpus: engine.gpus.clone(),
        kv_capacity_tokens: engine.kv_capacity_tokens,
        follower: engine.follower,
        front_end: EngineKind::from_name(&engine.kind).is_some_and(EngineKind::is_front_end),
    }
}

/// A report in the core's words, and how many of its distributions this build does not know the kind of.
///
/// # Errors
/// When it speaks of what its inventory does not have.
pub fn report(
    report: &Report,
    age: Micros,
    node: &NodeName,
    epoch: AgentEpoch,
    inventory: &Arc<NodeInventory>,
) -> Result<(Observation, u64), Error> {
    let (parts, unknown) = parts(report, inventory)?;
    let observation = Observation {
        windows: report.seq.0.saturating_sub(report.first_seq().0).saturating_add(1),
        age,
        length: Micros::from_millis(report.length_ms),
        host: host(report),
        gpus: (0..inventory.gpus.len()).map(|row| gpu(&report.gpus, row)).collect(),
        engines: (0..inventory.engines.len()).map(|row| engine(&report.engines, row)).collect(),
        parts,
        leaving: report.leaving,
        ..Observation::new(node.clone(), Arc::clone(inventory), epoch, report.seq)
    };
    Ok((observation, unknown))
}

fn parts(report: &Report, inventory: &NodeInventory) -> Result<(Vec<Part>, u64), Error> {
    let (rows, layouts) = (inventory.engines.len(), inventory.layouts.len() / UNITS.len());
    let (mut parts, mut unknown) = (Vec::new(), 0);
    let (mut reader, mut cells) = (report.histograms.reader(), Vec::new());
    while let Some(head) = reader.next(&mut cells) {
        let HistogramHead { engine, kind, layout, sum } = head.map_err(Error::Packed)?;
        if engine >= rows {
            return Err(Error::NoSuchEngine { row: engine, rows });
        }
        if layout > layouts {
            return Err(Error::NoSuchLayout { layout, layouts });
        }
        let Some(kind) = DistributionKind::from_code(kind) else {
            unknown += 1;
            continue;
        };
        cells.retain(|(_, n)| *n > 0);
        let counts = cells.as_slice().to_vec();
        let samples = match layout.checked_sub(1) {
            None => Samples::Cells(counts),
            Some(position) => {
                let layout = position * UNITS.len() + usize::from(kind.unit() == Unit::Tokens);
                let buckets = inventory.layouts[layout].buckets();
                if let Some((bucket, _)) = counts.last().filter(|(bucket, _)| *bucket >= buckets) {
                    return Err(Error::NoSuchBucket { bucket: *bucket, buckets });
                }
                Samples::Buckets { layout, counts }
            }
        };
        parts.push(Part { engine, kind, samples, sum });
    }
    Ok((parts, unknown))
}

fn host(report: &Report) -> HostReading {
    let cost = &report.cost;
    let length_us = report.length_ms.saturating_mul(1000);
    let share = |us: Option<u64>| us.filter(|_| length_us > 0).map(|us| us as f64 / length_us as f64);
    HostReading {
        gpu_source: wire::SourceState::from_code(u64::from(report.gpu_source)).map(|state| match state {
            wire::SourceState::Healthy => SourceHealth::Healthy,
            wire::SourceState::Degraded => SourceHealth::Degraded,
            wire::SourceState::Unsupported => SourceHealth::Unsupported,
            wire::SourceState::Failed => SourceHealth::Failed,
        }),
        cpu_utilization_ratio: cost.host_cpu_ppm.map(ratio),
        memory_used_bytes: cost.host_memory_used_bytes,
        agent_cpu_ratio: share(cost.cpu_us),
        agent_resident_bytes: cost.rss_bytes,
        agent_nvml_busy_ratio: share(cost.nvml_busy_us),
        agent_dropped_windows: cost.dropped_windows,
    }
}

fn gpu(columns: &GpuColumns, row: usize) -> GpuReading {
    GpuReading {
        state: columns.state.get(row).and_then(wire::GpuState::from_code).map(|state| match state {
            wire::GpuState::Ok => GpuState::Ok,
            wire::GpuState::Degraded => GpuState::Degraded,
            wire::GpuState::Lost => GpuState::Lost,
        }),
        utilization_percent: columns.utilization_percent.get(row),
        memory_activity_percent: columns.memory_activity_percent.get(row),
        memory_used_bytes: columns.memory_used_bytes.get(row),
        power_watts: columns.power_mw.get(row).map(milli),
        temperature_celsius: columns.temperature_c.get(row),
    }
}

fn engine(columns: &EngineColumns, row: usize) -> EngineReading {
    let usage = columns.kv_usage_ppm.get(row);
    let gauges = EngineGauges {
        state: columns.state.get(row).and_then(wire::EngineState::from_code).map(engine_state),
        state_evidence: columns
            .evidence
            .get(row)
            .and_then(wire::StateEvidence::from_code)
            .map(wire::StateEvidence::as_str),
        state_held: columns.state_ms.get(row).map(Micros::from_millis),
        running_requests: columns.running.get(row),
        waiting_requests: columns.waiting.get(row),
        waiting_for_capacity_requests: columns.waiting_capacity.get(row),
        waiting_deferred_requests: columns.waiting_deferred.get(row),
        paused_requests: columns.paused.get(row),
        kv_cache_utilization_ratio: usage.map(ratio),
        kv_cache_utilization_ratio_max: columns.kv_usage_max_ppm.get(row).or(usage).map(ratio),
        kv_offload_utilization_ratio: columns.kv_offload_ppm.get(row).map(ratio),
        prefix_cache_hit_ratio: columns.prefix_hit_ppm.get(row).map(ratio),
        spec_acceptance_ratio: columns.spec_acceptance_ppm.get(row).map(ratio),
        sleep: columns.sleep.get(row).and_then(SleepState::from_code),
        signal_age_seconds: columns.signal_age_ms.get(row).map(milli),
        frontend_inflight_requests: columns.frontend_inflight.get(row),
        frontend_queued_requests: columns.frontend_queued.get(row),
        scrape_seconds: columns.scrape_us.get(row).map(|us| Micros(us).as_secs_f64()),
        forward_pass_ranks: columns.pass_ranks.get(row),
        forward_pass_busy_ratio: columns.pass_busy_ppm.get(row).map(ratio),
        queued_prefill_requests: columns.queued_prefill_requests.get(row),
        queued_prefill_tokens: columns.queued_prefill_tokens.get(row),
        queued_decode_requests: columns.queued_decode_requests.get(row),
        age: columns.age_ms.get(row).map(Micros::from_millis),
    };
    EngineReading { gauges, gained: gained(columns, row) }
}

const fn engine_state(state: wire::EngineState) -> EngineState {
    match state {
        wire::EngineState::Ready => EngineState::Ready,
        wire::EngineState::Unreachable => EngineState::Unreachable,
        wire::EngineState::WrongEndpoint => EngineState::WrongEndpoint,
        wire::EngineState::Pending => EngineState::Pending,
        wire::EngineState::Starting => EngineState::Starting,
        wire::EngineState::Frozen => EngineState::Frozen,
        wire::EngineState::Sleeping => EngineState::Sleeping,
        wire::EngineState::Draining => EngineState::Draining,
        wire::EngineState::Gone => EngineState::Gone,
        wire::EngineState::Unauthorised => EngineState::Unauthorised,
        wire::EngineState::Follower => EngineState::Follower,
    }
}

fn gained(columns: &EngineColumns, row: usize) -> Counts {
    let mut gained = Counts::none();
    for counter in Counter::ALL {
        let column = match counter {
            Counter::Arrived => &columns.arrived,
            Counter::PromptTokens => &columns.prompt_tokens,
            Counter::GenerationTokens => &columns.generation_tokens,
            Counter::PrefixQueries => &columns.prefix_queries,
            Counter::PrefixHits => &columns.prefix_hits,
            Counter::Preemptions => &columns.preemptions,
            Counter::FinishedStop => &columns.finished_stop,
            Counter::FinishedLength => &columns.finished_length,
            Counter::Aborted => &columns.aborted,
            Counter::Errored => &columns.errored,
            Counter::Resets => &columns.resets,
            Counter::Ended => &columns.ended,
            Counter::Rejected => &columns.rejected,
            Counter::OffloadHits => &columns.offload_hits,
            Counter::DraftTokens => &columns.draft_tokens,
            Counter::AcceptedTokens => &columns.accepted_tokens,
            Counter::FrontendArrived => &columns.frontend_arrived,
            Counter::PassesLost => &columns.passes_lost,
        };
        gained.set(*counter, column.get(row));
    }
    gained
}

fn milli(value: u64) -> f64 {
    value as f64 / 1e3
}

fn ratio(ppm: u64) -> f64 {
    Ratio::from_ppm(ppm).get()
}

#[cfg(test)]
mod tests {
    use plimsoll_common::{
        engine::Role,
        ids::{Generation, Seq},
        wire::{EngineInfo, GpuInfo, HistogramEntry},
    };

    use super::*;

    fn wire_inventory() -> Inventory {
        let gpu = |i: u32| GpuInfo {
            uuid: GpuUuid::parse(&format!("GPU-{i}")).unwrap(),
            index: i,
            name: None,
            pci_bus_id: None,
            memory_total_bytes: None,
            power_limit_mw: Some(700_000),
            domain: None,
        };
        let engine = |id: &str| EngineInfo {
            id: EngineId::parse(id).unwrap(),
            kind: "vllm".to_owned(),
            url: "http://127.0.0.1:8000/metrics".to_owned(),
            version: None,
            model: None,
            pool: None,
            role: Role::Decode,
            replica: None,
            gpus: vec![],
            kv_capacity_tokens: None,
            follower: false,
        };
        Inventory {
            generation: Generation(1),
            gpus: vec![gpu(0), gpu(1)],
            engines: vec![engine("a"), engine("b")],
            layouts: vec![vec![0.1, 1.0]],
            ..Inventory::default()
        }
    }

    fn wire_report(entries: &[HistogramEntry]) -> Report {
        let mut report =
            Report { seq: Seq(7), first: Some(Seq(5)), length_ms: 2_000, gpu_source: 1, ..Report::default() };
        entries.iter().for_each(|entry| report.histograms.push(entry));
        report
    }

    fn entry(engine: usize, kind: u64, layout: usize, cell: usize) -> HistogramEntry {
        HistogramEntry { engine, kind, layout, cells: vec![(cell, 2)], sum: 9 }
    }

    fn fold(entries: &[HistogramEntry]) -> Result<(Observation, u64), Error> {
        let inventory = Arc::new(inventory(&wire_inventory())?);
        report(&wire_report(entries), Micros(5), &node(), AgentEpoch(3), &inventory)
    }

    fn node() -> NodeName {
        NodeName::parse("n").unwrap()
    }

    #[test]
    fn rows_keep_their_place_and_absence() {
        let inventory = Arc::new(inventory(&wire_inventory()).unwrap());
        assert_eq!(inventory.gpus[1].power_limit_watts, Some(700.0));
        assert_eq!(inventory.engines[0].pool.role, Role::Decode);
        let mut sent = wire_report(&[]);
        sent.gpus.power_mw = [None, Some(71_500)].into_iter().collect();
        sent.gpus.state = [Some(1), Some(250)].into_iter().collect();
        sent.engines.arrived = [Some(0)].into_iter().collect();
        sent.engines.kv_usage_ppm = [Some(250_000)].into_iter().collect();
        sent.engines.sleep = [Some(3), Some(250)].into_iter().collect();
        sent.engines.rejected = [None, Some(4)].into_iter().collect();
        sent.engines.signal_age_ms = [None, Some(1_500)].into_iter().collect();
        sent.engines.state = [Some(6), Some(250)].into_iter().collect();
        sent.engines.evidence = [Some(15), Some(250)].into_iter().collect();
        sent.engines.state_ms = [Some(4_000)].into_iter().collect();
        sent.engines.pass_busy_ppm = [None, Some(500_000)].into_iter().collect();
        sent.engines.passes_lost = [None, Some(4)].into_iter().collect();
        sent.engines.queued_prefill_requests = [None, Some(0)].into_iter().collect();
        sent.cost.cpu_us = Some(4_000);
        let (seen, _) = report(&sent, Micros(5), &node(), AgentEpoch(3), &inventory).unwrap();
        assert_eq!((seen.windows, seen.length, seen.age), (3, Micros(2_000_000), Micros(5)));
        assert_eq!((seen.gpus[0].power_watts, seen.gpus[1].power_watts), (None, Some(71.5)));
        assert_eq!((seen.gpus[0].state, seen.gpus[1].state), (Some(GpuState::Ok), None));
        assert_eq!(seen.engines[0].gained.get(Counter::Arrived), Some(0));
        assert_eq!(seen.engines[1].gained.get(Counter::Arrived), None);
        assert_eq!(seen.engines[0].gauges.kv_cache_utilization_ratio, Some(0.25));
        assert_eq!(seen.engines[0].gauges.kv_cache_utilization_ratio_max, Some(0.25));
        assert_eq!(seen.engines[0].gauges.sleep, Some(SleepState::DiscardAll));
        assert_eq!(seen.engines[1].gauges.sleep, None);
        assert_eq!(seen.engines[1].gained.get(Counter::Rejected), Some(4));
        assert_eq!(seen.engines[1].gauges.signal_age_seconds, Some(1.5));
        let [frozen, unknown] = [&seen.engines[0].gauges, &seen.engines[1].gauges];
        assert_eq!((frozen.state, frozen.state_evidence), (Some(EngineState::Frozen), Some("nothing_moves")));
        assert_eq!(frozen.state_held, Some(Micros(4_000_000)));
        assert_eq!((unknown.state, unknown.state_evidence), (None, None), "words of a newer agent");
        let passes = |row: usize| {
            let gauges = &seen.engines[row].gauges;
            (
                gauges.forward_pass_busy_ratio,
                gauges.queued_prefill_requests,
                seen.engines[row].gained.get(Counter::PassesLost),
            )
        };
        assert_eq!((passes(0), passes(1)), ((None, None, None), (Some(0.5), Some(0), Some(4))));
        assert_eq!(seen.host.agent_cpu_ratio, Some(0.002));
        assert_eq!(seen.host.gpu_source, Some(SourceHealth::Healthy));
    }

    #[test]
    fn states_have_the_same_names_on_both_sides() {
        for state in wire::EngineState::ALL {
            assert_eq!(engine_state(*state).as_str(), state.as_str());
        }
        assert_eq!(EngineState::ALL.len(), wire::EngineState::ALL.len());
    }

    #[test]
    fn a_kind_tells_which_unit_its_layout_has() {
        let (ttft, isl) = (DistributionKind::Ttft.code(), DistributionKind::Isl.code());
        let (seen, unknown) =
            fold(&[entry(0, ttft, 1, 2), entry(1, isl, 1, 0), entry(1, ttft, 0, 99), entry(0, 77, 1, 0)])
                .unwrap();
        assert_eq!(unknown, 1);
        let layout = |part: &Part| match &part.samples {
            Samples::Buckets { layout, .. } => Some(seen.inventory.layouts[*layout].unit()),
            Samples::Cells(_) => None,
        };
        let units: Vec<_> = seen.parts.iter().map(layout).collect();
        assert_eq!(units, [Some(Unit::Seconds), Some(Unit::Tokens), None]);
    }

    #[test]
    fn what_the_inventory_does_not_have_is_refused() {
        let ttft = DistributionKind::Ttft.code();
        assert_eq!(fold(&[entry(2, ttft, 1, 0)]).unwrap_err(), Error::NoSuchEngine { row: 2, rows: 2 });
        assert_eq!(fold(&[entry(0, ttft, 2, 0)]).unwrap_err(), Error::NoSuchLayout { layout: 2, layouts: 1 });
        assert_eq!(fold(&[entry(0, ttft, 1, 3)]).unwrap_err(), Error::NoSuchBucket { bucket: 3, buckets: 3 });
        let mut twice = wire_inventory();
        twice.gpus[1] = twice.gpus[0].clone();
        assert!(matches!(inventory(&twice), Err(Error::GpuTwice(_))));
        twice = wire_inventory();
        twice.engines[1] = twice.engines[0].clone();
        assert!(matches!(inventory(&twice), Err(Error::EngineTwice(_))));
        twice = wire_inventory();
        twice.layouts.push(vec![1.0, 0.5]);
        assert!(matches!(inventory(&twice), Err(Error::Layout { position: 2, .. })));
    }
}
