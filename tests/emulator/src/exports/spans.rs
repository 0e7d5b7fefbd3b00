//! vLLM's spans, one for each request, sent in batches to an OTLP receiver.

use std::time::Duration;

use anyhow::Context as _;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    Ended,
    otlp::{
        EXPORT, ExportRequest, ExportResponse, KeyValue, Resource, ResourceSpans, SERVER, Scope, ScopeSpans,
        Span, Value,
    },
};
use crate::{
    clock::Clock,
    config::SpanConfig,
    histogram::seconds,
    state::{Latencies, nanos},
    words::mix,
};

/// Spans that may wait, and that are sent at once: as OpenTelemetry's batches have it.
const WAITING: usize = 2_048;
const BATCH: usize = 512;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to the task that sends.
#[derive(Debug)]
pub(super) struct Export {
    spans: mpsc::Sender<Span>,
    lost: u64,
}

impl Export {
    pub(super) fn start(config: &SpanConfig, model: &str) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let endpoint = tonic::transport::Endpoint::from_shared(config.endpoint.clone())
            .with_context(|| format!("--otlp-traces-endpoint {}: give a URL", config.endpoint))?;
        let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect_lazy();
        let (spans, received) = mpsc::channel(WAITING);
        let task = tokio::spawn(send_all(channel, received, config.delay, model.to_owned()));
        Ok((Self { spans, lost: 0 }, task))
    }

    pub(super) fn send(&mut self, clock: &Clock, ended: &Ended<'_>) {
        let Some(span) = span(clock, ended) else { return };
        if self.spans.try_send(span).is_err() {
            self.lost += 1;
            if self.lost.is_power_of_two() {
                tracing::warn!(lost = self.lost, "a span was lost: the receiver is too slow");
            }
        }
    }
}

fn span(clock: &Clock, ended: &Ended<'_>) -> Option<Span> {
    let (live, facts) = (ended.live, ended.facts);
    let latencies = Latencies::of(facts)?;
    let seconds = |key: &str, nanos| KeyValue::new(key, Value::Double(seconds(nanos)));
    let count = |key: &str, count: u32| KeyValue::new(key, Value::Int(count.into()));
    let unix_nanos = |seconds: f64| (seconds * 1e9) as u64;
    let attributes = vec![
        seconds("gen_ai.latency.time_to_first_token", latencies.ttft),
        seconds("gen_ai.latency.e2e", nanos(facts.e2e())),
        seconds("gen_ai.latency.time_in_queue", latencies.queue),
        seconds("gen_ai.latency.time_in_model_prefill", latencies.prefill),
        seconds("gen_ai.latency.time_in_model_decode", latencies.decode),
        seconds("gen_ai.latency.time_in_model_inference", latencies.inference),
        count("gen_ai.usage.prompt_tokens", facts.prompt_tokens),
        count("gen_ai.usage.completion_tokens", facts.emitted_tokens),
        KeyValue::new("gen_ai.request.id", Value::Text(live.name.clone())),
        count("gen_ai.request.max_tokens", live.max_tokens),
        count("gen_ai.request.n", 1),
    ];
    let arrival = clock.unix_seconds(facts.arrival);
    // Ids must differ between requests and between lives; they mean nothing.
    let id = mix(facts.id.0 ^ unix_nanos(clock.unix_seconds(plimsoll_engine::Micros::ZERO)));
    Some(Span {
        trace_id: [mix(id), mix(!id)].iter().flat_map(|half| half.to_be_bytes()).collect(),
        span_id: id.to_be_bytes().to_vec(),
        name: "llm_request".to_owned(),
        kind: SERVER,
        start_time_unix_nano: unix_nanos(arrival),
        end_time_unix_nano: unix_nanos(clock.unix_seconds(facts.ended)),
        attributes,
    })
}

/// Gathers spans for a while, or until there are many, and sends them; what a receiver does not take is lost.
async fn send_all(channel: Channel, mut spans: mpsc::Receiver<Span>, delay: Duration, model: String) {
    let mut lost = 0;
    while let Some(first) = spans.recv().await {
        let mut batch = vec![first];
        let deadline = Instant::now() + delay;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(deadline, spans.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        let sent = batch.len();
        if let Err(status) = send(channel.clone(), batch, &model).await {
            lost += sent;
            tracing::warn!(%status, lost, "spans were not taken");
        }
    }
}

async fn send(channel: Channel, spans: Vec<Span>, model: &str) -> Result<(), tonic::Status> {
    let attribute = |key: &str, value: &str| KeyValue::new(key, Value::Text(value.to_owned()));
    let attributes = vec![attribute("service.name", "vllm"), attribute("gen_ai.response.model", model)];
    let scope = Scope { name: "vllm.llm_engine".to_owned() };
    let request = ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    };
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
    client.unary(tonic::Request::new(request), PathAndQuery::from_static(EXPORT), codec).await?;
    Ok(())
}
