//! Releasing the driver: from this machine only, and with texts that say what to do.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;

use super::*;

fn post(path: &str, peer: Option<&str>) -> Request<Body> {
    let mut request = Request::post(path).body(Body::empty()).unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
    }
    request
}

/// An agent whose GPU source runs, with a library that is not there.
fn running() -> (Agent, crate::gpu::GpuMonitor) {
    let options =
        GpuOptions { library: Some("/nonexistent/libnvidia-ml.so.1".into()), ..GpuOptions::default() };
    let monitor = crate::gpu::spawn(options);
    let control = monitor.control();
    let mut agent = Agent::new(no_gpu());
    let mut sources = Arc::into_inner(agent.pages.0).unwrap();
    sources.feeds.control = control;
    agent.pages = Pages(Arc::new(sources));
    (agent, monitor)
}

#[tokio::test]
async fn only_this_machine_may_release_the_driver() {
    let (agent, _monitor) = running();
    for peer in [None, Some("10.0.0.7:40000"), Some("[fe80::1]:40000")] {
        let (status, error) = agent.ask(post("/v1/gpu-source/release", peer)).await;
        assert_eq!(status, 403, "{error}");
        assert!(error.contains("127.0.0.1"), "{error}");
    }
    let mut request = post("/v1/gpu-source/release", Some("127.0.0.1:40000"));
    request.headers_mut().insert("origin", "http://elsewhere".parse().unwrap());
    assert_eq!(agent.ask(request).await.0, 403, "a web page is not this machine");
}

#[tokio::test]
async fn a_release_has_an_end_and_can_be_ended() {
    let (agent, _monitor) = running();
    for (query, seconds) in [("", 60), ("?seconds=5", 5), ("?seconds=86400", 600)] {
        let request = post(&format!("/v1/gpu-source/release{query}"), Some("127.0.0.1:40000"));
        let (status, body) = agent.ask(request).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["seconds"]), (202, &seconds.into()));
    }
    assert_eq!(agent.ask(post("/v1/gpu-source/resume", Some("[::ffff:127.0.0.1]:40000"))).await.0, 202);
}

#[tokio::test]
async fn what_cannot_be_done_says_what_can() {
    let agent = Agent::new(no_gpu());
    let local = Some("[::1]:40000");
    for (request, wanted, word) in [
        (post("/v1/gpu-source/release?seconds=soon", local), 400, "?seconds=60"),
        (post("/v1/gpu-source/release?seconds=0", local), 400, "resume"),
        (post("/v1/gpu-source/release", local), 409, "not in its way"),
        (post("/v1/gpu-source/resume", local), 409, "switched off"),
        (post("/v1/gpu-source/drop", local), 404, "/v1/gpu-source/release"),
        (Request::get("/v1/gpu-source/release").body(Body::empty()).unwrap(), 405, "curl -X POST"),
    ] {
        let (status, error) = agent.ask(request).await;
        assert_eq!(status, wanted, "{error}");
        assert!(error.contains(word), "{error}");
    }
}
