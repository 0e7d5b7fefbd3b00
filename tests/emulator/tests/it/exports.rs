//! Exports tell exactly what the request log tells.

use std::{collections::BTreeMap, convert::Infallible, path::Path, time::Duration};

use plimsoll_emulator::exports::otlp::{
    ExportRequest, ExportResponse, KeyValue, SERVER, Span, Value as Attribute,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};
use tonic_prost::ProstCodec;
use zeromq::{Socket as _, SocketRecv as _, SubSocket};

use crate::client::{self, Harness, scratch};

/// Requests of all kinds: streamed or not, with hits or without, of one token or many.
async fn load(harness: &Harness) {
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..40_u64 {
        let caller = harness.caller.clone();
        let prompt: Vec<u64> = (0..1 + index * 37 % 300).collect();
        let body = json!({ "prompt": prompt, "max_tokens": 1 + index * 13 % 60, "stream": index % 2 == 0 });
        tasks.spawn(async move {
            let path = "/v1/completions";
            client::text(caller.send(hyper::Method::POST, path, &body.to_string()).await).await;
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("every request is answered");
    }
}

/// The request log by the requests' names.
fn log(path: &Path) -> BTreeMap<String, Value> {
    let lines = lines(path);
    lines.into_iter().map(|line| (line["id"].as_str().expect("a name").to_owned(), line)).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file of lines");
    text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
}

/// The one file of a directory.
fn only_file(directory: &Path) -> std::path::PathBuf {
    let mut files =
        std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("a file").path());
    let file = files.next().expect("a file");
    assert!(files.next().is_none());
    file
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The same to the microsecond, for what went through sums of large numbers.
fn assert_near(one: f64, other: f64, what: &str) {
    assert!((one - other).abs() < 2e-6, "{what}: {one} and {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sglangs_files_are_the_log() {
    let (path, directory) = (scratch("sglang-log.jsonl"), scratch("sglang-export"));
    let options = [
        "--engine",
        "sglang",
        "--speed",
        "20",
        "--request-log",
        path.to_str().unwrap(),
        "--export-metrics-to-file",
        "--export-metrics-to-file-dir",
        directory.to_str().unwrap(),
    ];
    let harness = client::start(&options).await;
    assert_eq!(harness.caller.get("/health").await.0, hyper::StatusCode::OK);
    load(&harness).await;
    let (log, exported) = (log(&path), lines(&only_file(&directory)));
    // Nobody's health check is in either.
    assert_eq!((log.len(), exported.len()), (40, 40));
    for record in exported {
        let line = &log[record["id"].as_str().unwrap()];
        for (ours, theirs) in [("queue_time", "queue_s"), ("e2e_latency", "e2e_s")] {
            assert_eq!(number(&record[ours]).to_bits(), number(&line[theirs]).to_bits(), "{ours}");
        }
        for (ours, theirs) in [
            ("prompt_tokens", "prompt_tokens"),
            ("completion_tokens", "output_tokens"),
            ("cached_tokens", "cached_tokens"),
            ("num_retractions", "preemptions"),
        ] {
            assert_eq!(record[ours], line[theirs], "{ours}");
        }
        assert_eq!(record["finish_reason"]["type"], line["finish_reason"]);
        let received = number(&record["request_received_ts"]);
        assert_near(received, number(&line["arrival_unix_s"]), "arrival");
        assert_near(number(&record["prefill_finished_time"]) - received, number(&line["ttft_s"]), "ttft");
        assert_near(number(&record["forward_entry_time"]) - received, number(&line["queue_s"]), "queue");
        let parameters: Value = serde_json::from_str(record["request_parameters"].as_str().unwrap()).unwrap();
        let first = number(&record["first_token_latency"]);
        if parameters["stream"] == true {
            assert_eq!(first.to_bits(), number(&line["ttft_s"]).to_bits());
        } else {
            assert!(first >= number(&line["ttft_s"]));
        }
        assert!(parameters["text"].as_str().unwrap().starts_with("PROMPT-OF-"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tensorrt_llms_file_is_the_log() {
    let (path, directory) = (scratch("trtllm-log.jsonl"), scratch("trtllm-export"));
    let options = [
        "--engine",
        "trtllm",
        "--speed",
        "20",
        "--request-log",
        path.to_str().unwrap(),
        "--return-perf-metrics",
        "--perf-metrics-output-dir",
        directory.to_str().unwrap(),
    ];
    let harness = client::start(&options).await;
    load(&harness).await;
    let exported = lines(&only_file(&directory));
    let mut logged = lines(&path);
    assert_eq!((logged.len(), exported.len()), (40, 40));
    // Both are written as requests end.
    for (record, line) in exported.iter().zip(&mut logged) {
        assert_eq!((&record["schema_version"], &record["status"]), (&json!(1), &json!("complete")));
        let timing = &record["phases"]["server"]["timing_metrics"];
        let from_arrival = |name: &str| number(&timing[name]) - number(&timing["arrival_time"]);
        assert_near(from_arrival("first_scheduled_time"), number(&line["queue_s"]), "queue");
        assert_near(from_arrival("first_token_time"), number(&line["ttft_s"]), "ttft");
        assert_near(from_arrival("last_token_time"), number(&line["e2e_s"]), "e2e");
        let blocks = &record["phases"]["server"]["kv_cache_metrics"];
        assert_near(number(&blocks["num_reused_blocks"]) * 16.0, number(&line["cached_tokens"]), "cached");
    }
}

/// A receiver that hands on what it is sent.
#[derive(Clone)]
struct Receiver(mpsc::Sender<ExportRequest>);

impl tonic::server::NamedService for Receiver {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

type Body = tonic::body::Body;

impl tower::Service<tonic::codegen::http::Request<Body>> for Receiver {
    type Response = tonic::codegen::http::Response<Body>;
    type Error = Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::codegen::http::Request<Body>) -> Self::Future {
        let method = Export(self.0.clone());
        Box::pin(async move {
            let codec = ProstCodec::<ExportResponse, ExportRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(method, request).await)
        })
    }
}

struct Export(mpsc::Sender<ExportRequest>);

impl tonic::server::UnaryService<ExportRequest> for Export {
    type Response = ExportResponse;
    type Future = tonic::codegen::BoxFuture<tonic::Response<ExportResponse>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<ExportRequest>) -> Self::Future {
        let sender = self.0.clone();
        Box::pin(async move {
            let _ = sender.send(request.into_inner()).await;
            Ok(tonic::Response::new(ExportResponse::default()))
        })
    }
}

async fn receiver() -> (String, mpsc::Receiver<ExportRequest>) {
    let (sender, received) = mpsc::channel(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(Receiver(sender));
    tokio::spawn(server.serve_with_incoming(incoming));
    (url, received)
}

fn attribute<'a>(span: &'a Span, key: &str) -> &'a Attribute {
    let found = span.attributes.iter().find(|KeyValue { key: name, .. }| name == key);
    found.and_then(|pair| pair.value.as_ref()?.value.as_ref()).unwrap_or_else(|| panic!("no {key}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn vllms_spans_are_the_log() {
    let (url, mut received) = receiver().await;
    let path = scratch("spans-log.jsonl");
    let options = ["--speed", "20", "--request-log", path.to_str().unwrap(), "--otlp-schedule-delay", "50"];
    let harness = client::start(&[&options[..], &["--otlp-traces-endpoint", &url]].concat()).await;
    load(&harness).await;
    let log = log(&path);
    let mut spans = Vec::new();
    while spans.len() < log.len() {
        let next = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
        let request = next.expect("more spans").expect("a receiver");
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        spans.extend(scopes.flat_map(|scope| scope.spans));
    }
    assert_eq!(spans.len(), 40);
    let ids: std::collections::BTreeSet<&Vec<u8>> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!(ids.len(), 40);
    for span in &spans {
        assert_eq!((span.name.as_str(), span.kind), ("llm_request", SERVER));
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        let Attribute::Text(id) = attribute(span, "gen_ai.request.id") else { panic!("an id is text") };
        let line = &log[id];
        for (key, name) in [
            ("gen_ai.latency.time_to_first_token", "ttft_s"),
            ("gen_ai.latency.e2e", "e2e_s"),
            ("gen_ai.latency.time_in_queue", "queue_s"),
            ("gen_ai.latency.time_in_model_prefill", "prefill_s"),
            ("gen_ai.latency.time_in_model_decode", "decode_s"),
            ("gen_ai.latency.time_in_model_inference", "inference_s"),
        ] {
            let Attribute::Double(seconds) = attribute(span, key) else { panic!("{key} is a number") };
            assert_eq!(seconds.to_bits(), number(&line[name]).to_bits(), "{key}");
        }
        let Attribute::Int(tokens) = attribute(span, "gen_ai.usage.completion_tokens") else {
            panic!("a count")
        };
        assert_eq!(json!(tokens), line["output_tokens"]);
        let took = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e9;
        assert_near(took, number(&line["e2e_s"]), "the span's length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_passes_are_the_engines_iterations() {
    let harness = client::start(&["--forward-pass-metrics", "127.0.0.1:0", "--speed", "5"]).await;
    let address = harness.emulator.passes().expect("a port for forward passes");
    let mut socket = SubSocket::new();
    socket.connect(&format!("tcp://{address}")).await.unwrap();
    socket.subscribe("").await.unwrap();
    let receive = async |socket: &mut SubSocket| {
        let next = tokio::time::timeout(Duration::from_secs(30), socket.recv()).await;
        let frames = next.expect("a message").expect("a connection").into_vec();
        let [topic, sequence, payload] = frames.as_slice() else { panic!("{} frames", frames.len()) };
        assert!(topic.is_empty());
        let sequence = u64::from_be_bytes(sequence.as_ref().try_into().expect("eight bytes"));
        (sequence, rmp_serde::from_slice::<Value>(payload).expect("MessagePack"))
    };
    // A sign of life: the subscription is known.
    let (mut sequence, beat) = receive(&mut socket).await;
    assert_eq!((&beat["version"], number(&beat["wall_time"]) > 0.0), (&json!(1), false));
    let body = json!({ "prompt": (0..40).collect::<Vec<u32>>(), "max_tokens": 20 });
    harness.caller.post("/v1/completions", &body).await;
    let (mut prefills, mut decodes, mut tokens) = (0, 0, 0.0);
    loop {
        let (next, pass) = receive(&mut socket).await;
        assert_eq!(next, sequence + 1);
        sequence = next;
        if number(&pass["wall_time"]) <= 0.0 {
            if decodes > 0 {
                break;
            }
            continue;
        }
        let scheduled = &pass["scheduled_requests"];
        tokens += number(&scheduled["sum_prefill_tokens"]);
        prefills += u32::from(scheduled["num_prefill_requests"] == 1);
        decodes += u32::from(scheduled["num_decode_requests"] == 1);
        assert_eq!(pass["counter_id"], prefills + decodes);
        assert_eq!(pass["queued_requests"]["num_prefill_requests"], 0);
    }
    assert_eq!((prefills, decodes), (1, 19));
    assert!((tokens - 40.0).abs() < 1e-9);
}
