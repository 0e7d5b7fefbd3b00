//! The address at which spans arrive.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    service::Traces,
    v1::{ExportTraceServiceRequest, trace_service_server::TraceServiceServer},
};
use crate::{
    config::{Endpoint, OtlpReceiver},
    exact::{ExactBoard, ExactReading, SourceKey, SourceKind},
};

/// The largest message that is taken; gRPC's usual limit. Exporters send some hundred kilobytes.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// How many messages are taken in at a time, over all connections.
const MAX_REQUESTS: usize = 4;
/// How many connections there may be: an engine's processes have one each.
const MAX_CONNECTIONS: usize = 64;
/// How many requests a connection may have open.
const MAX_STREAMS: u32 = 8;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
const PROTOBUF: &str = "application/x-protobuf";

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    traces: Traces,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Binds the address.
    ///
    /// # Errors
    /// When it can't be bound.
    pub async fn bind(
        receiver: &OtlpReceiver,
        endpoints: &[Endpoint],
        board: &ExactBoard,
        tx: mpsc::Sender<ExactReading>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(receiver.listen)
            .await
            .with_context(|| format!("otlp-listen: {} can't be bound", receiver.listen))?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "request spans are taken from whoever reaches this address, without authentication");
        }
        let key = SourceKey { engine: None, kind: SourceKind::Otlp, place: address.to_string() };
        let traces = Traces::new(endpoints, receiver.default_engine.as_ref(), board.enter(key), tx);
        Ok(Self { listener, traces, address })
    }
}

/// Takes spans until cancelled.
///
/// # Errors
/// Never, at present; a connection that fails is its own.
pub async fn serve(listener: Listener, cancel: CancellationToken) -> anyhow::Result<()> {
    let Listener { listener, traces, .. } = listener;
    let router = router(traces);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, router.clone()))),
                Err(error) => {
                    // Such as too many open files: it passes, and must not be asked for at full speed until then.
                    tracing::warn!(%error, "a connection for request spans could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 << 10);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for request spans ended");
    }
}

fn router(traces: Traces) -> Router {
    let grpc = TraceServiceServer::new(traces.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Router::new()
        .route_service("/opentelemetry.proto.collector.trace.v1.TraceService/Export", grpc)
        .route("/v1/traces", post(take).layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES)))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(MAX_REQUESTS)), one_of_few))
        .with_state(traces)
}

/// Bounds what requests hold in memory together, and for how long.
async fn one_of_few(State(room): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let taken = timeout(PATIENCE, async {
        let _permit = room.acquire().await;
        next.run(request).await
    });
    taken.await.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response())
}

/// OTLP over HTTP: a protobuf message as the body, uncompressed.
async fn take(State(traces): State<Traces>, headers: HeaderMap, body: Bytes) -> Response {
    let of = |name| headers.get(name).map_or("", |value| value.to_str().unwrap_or("?"));
    let content = of(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if content != PROTOBUF || !matches!(of(header::CONTENT_ENCODING), "" | "identity") {
        traces.refuse();
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send protobuf, uncompressed\n").into_response();
    }
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            let answer = traces.take(&request).encode_to_vec();
            ([(header::CONTENT_TYPE, PROTOBUF)], answer).into_response()
        }
        Err(_) => {
            traces.refuse();
            (StatusCode::BAD_REQUEST, "the body is no ExportTraceServiceRequest\n").into_response()
        }
    }
}
