//! A plain HTTP client, and emulators to talk to.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clap::Parser as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use plimsoll_emulator::{Args, Config, Emulator};
use serde_json::Value;

use crate::page::Page;

/// Longest that a test waits for something to become true.
const PATIENCE: Duration = Duration::from_secs(30);

/// An emulator on a free port, and a client for it.
pub(crate) struct Harness {
    pub(crate) emulator: Emulator,
    pub(crate) caller: Caller,
}

/// Starts an emulator that serves the model `tiny`.
pub(crate) async fn start(options: &[&str]) -> Harness {
    let args = ["plimsoll-emulator", "--model", "tiny"].iter().chain(options);
    let args = Args::try_parse_from(args).expect("options that clap accepts");
    let config = Config::from_args(args).expect("options that make sense");
    let emulator = Emulator::start(config).await.expect("a port to serve on");
    let caller = Caller::new(emulator.address().to_string());
    Harness { emulator, caller }
}

#[derive(Clone)]
pub(crate) struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    address: String,
}

impl Caller {
    pub(crate) fn new(address: String) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &str) -> Response<Incoming> {
        self.try_send(method, path, body).await.expect("an answer")
    }

    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.expect("an answer")
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("a request");
        self.client.request(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        text(self.send(Method::GET, path, "").await).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let (status, text) = text(self.send(Method::POST, path, &body.to_string()).await).await;
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    /// The events of a streamed answer, the last one (`[DONE]`) checked and left out.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.send(Method::POST, path, &body.to_string()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            response.headers()["content-type"]
                .to_str()
                .is_ok_and(|kind| kind.starts_with("text/event-stream"))
        );
        let (_, text) = text(response).await;
        let mut events: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(events.pop(), Some("data: [DONE]"));
        let parse =
            |event: &&str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
        events.iter().map(parse).collect()
    }

    pub(crate) async fn page(&self) -> Page {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        Page::parse(&text)
    }

    /// Reads pages until one satisfies; the test fails if none does for a long while.
    pub(crate) async fn page_where(&self, satisfies: impl Fn(&Page) -> bool) -> Page {
        let search = async {
            loop {
                let page = self.page().await;
                if satisfies(&page) {
                    return page;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the page became what was waited for")
    }
}

impl Harness {
    /// A client for the admin port.
    pub(crate) fn admin(&self) -> Caller {
        Caller::new(self.emulator.admin().expect("an admin port").to_string())
    }
}

impl Caller {
    /// Switches something at an admin port.
    pub(crate) async fn order(&self, what: &str) {
        let (status, text) = text(self.send(Method::POST, "/do", what).await).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    }

    /// A page of JSON.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Asks again and again until it is so; the test fails if it is not for a long while.
    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFn(&Self) -> bool) {
        let search = async {
            while !is_so(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

pub(crate) async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

/// A file of its own for each caller, in the directory that cargo gives to integration tests.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{serial}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}
