//! Spans over both protocols, good and hostile.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use plimsoll_common::{engine::DistributionKind, ids::EngineId};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    v1::{
        ExportTraceServiceRequest, NumberAttribute, NumberValue, Resource, ResourceSpans, ScopeSpans, Span,
        TextAttribute, TextValue, number_value::Number, trace_service_client::TraceServiceClient,
    },
    *,
};
use crate::{
    config::{Config, EndpointTable, OtlpReceiver, Settings},
    exact::{ExactBoard, ExactReading, SourceStatus},
};

struct World {
    address: String,
    board: ExactBoard,
    readings: mpsc::Receiver<ExactReading>,
    _server: AbortOnDropHandle<anyhow::Result<()>>,
}

impl World {
    /// Engines `a` (service `chat`) and `b`, which owns the rest where `default` says so.
    async fn new(default: bool, room: usize) -> Self {
        let table = |id: &str, service: Option<&str>| EndpointTable {
            url: format!("http://{id}:1"),
            id: Some(id.to_owned()),
            otlp_service: service.map(str::to_owned),
            ..EndpointTable::default()
        };
        let settings = Settings {
            node_name: Some("n".to_owned()),
            otlp_listen: Some("127.0.0.1:0".to_owned()),
            endpoint: vec![table("a", Some("chat")), table("b", None)],
            ..Settings::default()
        };
        let config = Config::load(&settings).unwrap();
        let default_engine = default.then(|| EngineId::parse("b").unwrap());
        let receiver = OtlpReceiver { default_engine, ..config.otlp.unwrap() };
        let (tx, readings) = mpsc::channel(room);
        let board = ExactBoard::default();
        let listener = Listener::bind(&receiver, &config.endpoints, &board, tx).await.unwrap();
        let address = listener.address.to_string();
        let server = tokio::spawn(serve(listener, CancellationToken::new()));
        Self { address, board, readings, _server: AbortOnDropHandle::new(server) }
    }

    fn status(&self) -> SourceStatus {
        self.board.all()[0].1.clone()
    }

    async fn post(&self, content: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let client: Client<_, Full<hyper::body::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = hyper::Request::post(format!("http://{}/v1/traces", self.address))
            .header("content-type", content)
            .body(Full::from(body))
            .unwrap();
        let response = client.request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }
}

fn span(id: u64, attributes: &[(&str, Number)]) -> Span {
    let attribute = |(key, number): &(&str, Number)| NumberAttribute {
        key: (*key).to_owned(),
        value: Some(NumberValue { number: Some(*number) }),
    };
    Span { span_id: id.to_be_bytes().to_vec(), attributes: attributes.iter().map(attribute).collect() }
}

fn request_span(id: u64) -> Span {
    span(
        id,
        &[
            ("gen_ai.latency.time_to_first_token", Number::Real(0.25)),
            ("gen_ai.latency.e2e", Number::Real(2.25)),
            ("gen_ai.latency.time_in_queue", Number::Real(0.125)),
            ("gen_ai.latency.time_in_model_prefill", Number::Real(0.125)),
            ("gen_ai.latency.time_in_model_decode", Number::Real(2.0)),
            ("gen_ai.latency.time_in_model_inference", Number::Real(2.125)),
            ("gen_ai.usage.prompt_tokens", Number::Whole(100)),
            ("gen_ai.usage.completion_tokens", Number::Whole(21)),
        ],
    )
}

fn export(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attribute =
        TextAttribute { key: "service.name".to_owned(), value: Some(TextValue { text: service.to_owned() }) };
    let resource = Some(Resource { attributes: vec![attribute] });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans: vec![ScopeSpans { spans }] }],
    }
}

async fn grpc(address: &str, request: ExportTraceServiceRequest) -> Result<i64, tonic::Status> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = TraceServiceClient::new(channel).max_encoding_message_size(64 << 20);
    let answer = client.export(request).await?.into_inner();
    Ok(answer.partial_success.map_or(0, |partial| partial.rejected_spans))
}

#[tokio::test]
async fn spans_are_counted_for_their_engine_over_both_protocols() {
    let mut world = World::new(false, 8).await;
    assert_eq!(
        grpc(&world.address, export("chat", vec![request_span(1), request_span(2)])).await.unwrap(),
        0
    );
    let reading = world.readings.recv().await.unwrap();
    assert_eq!(reading.engine, 0);
    let sum = |kind| reading.batch.samples.get(kind).map(|cells| (cells.count(), cells.sum()));
    assert_eq!(sum(DistributionKind::Ttft), Some((2, 500_000)));
    assert_eq!(sum(DistributionKind::Tpot), Some((2, 200_000)));
    assert_eq!(sum(DistributionKind::Osl), Some((2, 42)));
    let (status, answer) =
        world.post("application/x-protobuf", export("chat", vec![request_span(3)]).encode_to_vec()).await;
    assert_eq!((status, answer.len()), (200, 0), "an answer without a complaint is empty");
    assert_eq!(world.readings.recv().await.unwrap().engine, 0);
    assert_eq!(world.status().records, 3);
}

#[tokio::test]
async fn unknown_other_and_repeated_spans_are_told_apart() {
    let world = World::new(false, 8).await;
    grpc(&world.address, export("elsewhere", vec![request_span(1)])).await.unwrap();
    let other = span(2, &[("gen_ai.usage.prompt_tokens", Number::Whole(3))]);
    grpc(&world.address, export("chat", vec![other, request_span(3), request_span(3)])).await.unwrap();
    let status = world.status();
    assert_eq!((status.records, status.unknown, status.skipped), (1, 1, 2));
    let mut world = World::new(true, 8).await;
    grpc(&world.address, export("elsewhere", vec![request_span(1)])).await.unwrap();
    assert_eq!(world.readings.recv().await.unwrap().engine, 1, "the default engine's");
}

#[tokio::test]
async fn sglang_s_spans_tell_no_prefill() {
    let mut world = World::new(true, 8).await;
    let mut span = request_span(1);
    span.attributes.retain(|attribute| attribute.key != "gen_ai.latency.time_in_queue");
    grpc(&world.address, export("sglang", vec![span])).await.unwrap();
    let samples = world.readings.recv().await.unwrap().batch.samples;
    assert!(
        samples.get(DistributionKind::Prefill).is_none()
            && samples.get(DistributionKind::Inference).is_none()
    );
    assert!(samples.get(DistributionKind::Ttft).is_some() && samples.get(DistributionKind::Decode).is_some());
}

#[tokio::test]
async fn what_there_is_no_room_for_is_dropped_counted_and_told() {
    let world = World::new(true, 1).await;
    assert_eq!(grpc(&world.address, export("x", vec![request_span(1)])).await.unwrap(), 0);
    assert_eq!(grpc(&world.address, export("x", vec![request_span(2), request_span(3)])).await.unwrap(), 2);
    let status = world.status();
    assert_eq!((status.records, status.dropped), (1, 2));
}

#[tokio::test]
async fn hostile_messages_are_refused() {
    let world = World::new(true, 8).await;
    for bad in [vec![0xff; 64], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], vec![0x0b; 4096]] {
        assert_eq!(world.post("application/x-protobuf", bad).await.0, 400);
    }
    assert_eq!(world.post("application/json", b"{}".to_vec()).await.0, 415);
    assert_eq!(world.post("application/x-protobuf", vec![0; 5 << 20]).await.0, 413);
    let large = export(&"x".repeat(5 << 20), vec![]);
    assert_eq!(grpc(&world.address, large).await.unwrap_err().code(), tonic::Code::OutOfRange);
    let impossible = [f64::NAN, f64::INFINITY, -1.0, 1e12];
    let spans = impossible.map(|value| span(0, &[("gen_ai.latency.e2e", Number::Real(value))]));
    let tokens = span(
        9,
        &[("gen_ai.latency.e2e", Number::Whole(1)), ("gen_ai.usage.prompt_tokens", Number::Whole(-5))],
    );
    grpc(&world.address, export("x", spans.into_iter().chain([tokens]).collect())).await.unwrap();
    let status = world.status();
    assert_eq!((status.records, status.malformed), (1, 4 + 5));
}

#[tokio::test]
async fn a_sender_that_stalls_holds_up_nobody_for_long() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new(true, 8).await;
    let mut stalled = Vec::new();
    for _ in 0..6 {
        let mut stream = tokio::net::TcpStream::connect(&world.address).await.unwrap();
        let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\nx";
        stream.write_all(head.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    // The clock runs by itself once nothing else can happen.
    tokio::time::pause();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(60), stalled[0].read_exact(&mut answer)).await;
    read.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}
