//! From the tracker's updates through the agent's windows, the wire, and the planner's fold into the fleet.

use std::{sync::Arc, time::Duration};

use plimsoll_agent::{
    config::{Config, EndpointTable, Settings},
    engines::{EngineReading, EngineUpdate, Seen},
    gpu::GpuSnapshot,
    window::{Closed, Window},
};
use plimsoll_common::{
    engine::EngineKind,
    ids::{AgentEpoch, EngineId, NodeName},
    units::Micros,
    wire::{
        AgentCost, EngineState, FrameDecoder, FrameEncoder, HostInfo, Message, SourceState, StateEvidence,
    },
};
use plimsoll_core::fleet::{
    Counter, Counts, DistributionKey, Fleet, Limits, NodeInventory, Source, Window as Span,
};
use plimsoll_planner::fold;
use tokio::time::Instant;

use crate::{
    Told,
    page::{Family, Total},
};

const BEGIN: Micros = Micros(1_760_000_000_000_000);

/// An agent's windows, and the planner that folds them in.
pub(crate) struct Chain {
    kind: EngineKind,
    window: Window,
    /// When everything began on the agent's clock.
    start: Instant,
    seconds: u64,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    inventory: Arc<NodeInventory>,
    fleet: Fleet,
}

/// What the fleet holds of the engine.
pub(crate) struct Held {
    pub(crate) totals: Told,
    pub(crate) window: Told,
}

impl Chain {
    pub(crate) fn new(kind: EngineKind) -> Self {
        let endpoint = EndpointTable {
            url: "http://127.0.0.1:8000".to_owned(),
            id: Some("engine".to_owned()),
            kind: Some(kind),
            ..EndpointTable::default()
        };
        let settings =
            Settings { node_name: Some("node".to_owned()), endpoint: vec![endpoint], ..Settings::default() };
        let config = Config::load(&settings).expect("a good configuration");
        let start = Instant::now();
        Self {
            kind,
            window: Window::new(&config.endpoints, HostInfo::default(), start, BEGIN.0 / 1000),
            start,
            seconds: 0,
            encoder: FrameEncoder::new().expect("zstd works"),
            decoder: FrameDecoder::new().expect("zstd works"),
            inventory: Arc::default(),
            fleet: Fleet::new(Limits::default()),
        }
    }

    /// One scrape gave this. Every third scrape shares its window with the one before.
    pub(crate) fn observe(&mut self, update: EngineUpdate) {
        let taken = self.start + Duration::from_secs(self.seconds);
        let took = Duration::from_millis(5);
        let seen =
            Seen { state: EngineState::Ready, evidence: StateEvidence::PageRead, ..Seen::nothing(taken) };
        let (outcome, slo) = (Ok(update), Arc::default());
        self.window.observe(EngineReading { engine: 0, taken, took, outcome, seen, slo, layout_changes: 0 });
        self.seconds += 1;
        if !self.seconds.is_multiple_of(3) {
            self.close();
        }
    }

    /// Time goes on without a scrape.
    pub(crate) fn pass(&mut self) {
        self.seconds += 1;
    }

    fn close(&mut self) {
        let now = self.start + Duration::from_secs(self.seconds);
        let gpus = GpuSnapshot::empty(now, SourceState::Unsupported, None);
        let wall_ms = BEGIN.0 / 1000 + self.seconds * 1000;
        let Closed { inventory, report } = self.window.close(now, wall_ms, &gpus, AgentCost::default());
        let messages = inventory.map(|inventory| Message::Inventory(Box::new(inventory)));
        for message in messages.into_iter().chain([Message::Report(Box::new(report))]) {
            let frame = self.encoder.encode(&message, 0).expect("a message within the limits");
            let node = NodeName::parse("node").expect("a good name");
            match self.decoder.decode(&frame).expect("what was encoded").message {
                Message::Inventory(inventory) => {
                    self.inventory = Arc::new(fold::inventory(&inventory).expect("a good inventory"));
                }
                Message::Report(report) => {
                    let folded = fold::report(&report, Micros(0), &node, AgentEpoch(1), &self.inventory);
                    let (observation, unknown) = folded.expect("a good report");
                    assert_eq!(unknown, 0);
                    self.fleet.observe(Micros(BEGIN.0 + self.seconds * 1_000_000), observation);
                }
                other => panic!("{other:?} was never sent"),
            }
        }
    }

    /// Closes the last window and reads the fleet.
    pub(crate) fn finish(mut self) -> Held {
        self.close();
        let now = Micros(BEGIN.0 + self.seconds * 1_000_000);
        let node = NodeName::parse("node").expect("a good name");
        let engine = EngineId::parse("engine").expect("a good id");
        let detail = self.fleet.engine(now, &node, &engine).expect("the engine was observed");
        let window = &detail.windows[&Span::FiveMinutes];
        let mut held = Held { totals: counted(&detail.row.totals.counts), window: counted(&window.gained) };
        for family in Family::ALL {
            let key = DistributionKey { kind: family.kind(self.kind), source: Source::Bucketed };
            if let Some((_, total)) = detail.row.totals.distributions.iter().find(|(known, _)| *known == key)
            {
                held.totals.families.insert(family, (total.count, total.sum));
            }
            if let Some(shown) = window.distributions.get(&key) {
                held.window.families.insert(family, (shown.count, shown.sum));
                for quantile in shown.quantiles.iter().flatten() {
                    assert!(quantile.low <= quantile.estimate);
                    assert!(quantile.high.is_none_or(|high| quantile.estimate <= high));
                }
            }
        }
        // Nothing else was ever told: no kind of latency is mixed with another.
        let kinds = detail.row.totals.distributions.iter().map(|(key, _)| key.kind);
        assert!(
            kinds.into_iter().all(|kind| Family::ALL.iter().any(|family| family.kind(self.kind) == kind))
        );
        held
    }
}

fn counted(counts: &Counts) -> Told {
    let ended = counts.get(Counter::FinishedStop).or_else(|| counts.get(Counter::Ended));
    let totals = [
        (Total::PromptTokens, counts.get(Counter::PromptTokens)),
        (Total::GenerationTokens, counts.get(Counter::GenerationTokens)),
        (Total::Finished, ended),
    ];
    let totals = totals.into_iter().filter_map(|(total, n)| Some((total, n?))).collect();
    Told { totals, ..Told::default() }
}
