//! What becomes of received spans.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use plimsoll_common::ids::EngineId;
use tokio::{sync::mpsc, time::Instant};
use tonic::{Request, Response, Status, async_trait};

use super::{
    seen::Seen,
    span,
    v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, Span,
        trace_service_server::TraceService,
    },
};
use crate::{
    config::Endpoint,
    exact::{ExactBatch, ExactReading, ExactSamples, SourceReport},
};

/// Counts spans for their engines.
#[derive(Debug, Clone)]
pub(super) struct Traces(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The engine's row by the name of its service.
    services: BTreeMap<String, usize>,
    default_engine: Option<usize>,
    report: SourceReport,
    tx: mpsc::Sender<ExactReading>,
    seen: Mutex<Seen>,
}

/// What one request held.
#[derive(Debug, Default)]
struct Tally {
    by_engine: BTreeMap<usize, (ExactSamples, u64)>,
    skipped: u64,
    malformed: u64,
    unknown: u64,
}

impl Traces {
    pub(super) fn new(
        endpoints: &[Endpoint],
        default_engine: Option<&EngineId>,
        report: SourceReport,
        tx: mpsc::Sender<ExactReading>,
    ) -> Self {
        let services = endpoints
            .iter()
            .enumerate()
            .filter_map(|(row, endpoint)| Some((endpoint.exact.otlp_service.clone()?, row)))
            .collect();
        let row = |id: &EngineId| endpoints.iter().position(|endpoint| endpoint.id == *id);
        let default_engine = default_engine.and_then(row);
        Self(Arc::new(Shared { services, default_engine, report, tx, seen: Mutex::default() }))
    }

    /// Counts what a request holds. Where the window does not take readings as fast as they come, spans are dropped,
    /// counted, and the sender is told: it must not wait, since it is an engine.
    pub(super) fn take(&self, request: &ExportTraceServiceRequest) -> ExportTraceServiceResponse {
        let shared = &self.0;
        let mut tally = Tally::default();
        for resource in &request.resource_spans {
            let named = span::services(resource.resource.as_ref()).find_map(|name| shared.services.get(name));
            let engine = named.copied().or(shared.default_engine);
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                self.count(span, engine, &mut tally);
            }
        }
        let (mut records, mut dropped) = (0, 0);
        for (engine, (samples, n)) in tally.by_engine {
            let batch = ExactBatch { samples, passes: None };
            let reading = ExactReading { engine, taken: Instant::now(), batch };
            match shared.tx.try_send(reading) {
                Ok(()) => records += n,
                Err(_) => dropped += n,
            }
        }
        shared.report.update(|status| {
            status.records += records;
            status.skipped += tally.skipped;
            status.malformed += tally.malformed;
            status.unknown += tally.unknown;
            status.dropped += dropped;
        });
        shared.report.works(None);
        let rejected = ExportTracePartialSuccess {
            rejected_spans: i64::try_from(dropped).unwrap_or(i64::MAX),
            error_message: "more spans than the agent takes; they are not counted".to_owned(),
        };
        ExportTraceServiceResponse { partial_success: (dropped > 0).then_some(rejected) }
    }

    fn count(&self, span: &Span, engine: Option<usize>, tally: &mut Tally) {
        let Some(record) = span::request(span) else {
            tally.skipped += 1;
            return;
        };
        let Some(engine) = engine else {
            tally.unknown += 1;
            return;
        };
        let new = |id| self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).is_new(id);
        if !span::id(span).is_none_or(new) {
            tally.skipped += 1;
            return;
        }
        let mut samples = ExactSamples::default();
        let counted = record.count_into(&mut samples);
        tally.malformed += counted.impossible;
        if counted.values > 0 {
            let (all, n) = tally.by_engine.entry(engine).or_default();
            all.merge(&samples);
            *n += 1;
        }
    }

    /// Counts a request that could not be decoded.
    pub(super) fn refuse(&self) {
        self.0.report.update(|status| status.malformed += 1);
    }
}

#[async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(self.take(request.get_ref())))
    }
}
