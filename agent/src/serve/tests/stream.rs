//! `/v1/stream`: an event a tick, XIDs and states as they come, and an end.

use axum::body::BodyDataStream;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{fixture::*, *};
use crate::gpu::GpuStatus;

/// A reader of the stream.
struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(agent: &Agent, path: &str) -> Self {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(agent.pages.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event's name and data; `None` when the stream ends.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let name = field("event:").unwrap_or("comment").to_owned();
                return Some((name, serde_json::from_str(field("data:").unwrap_or("null")).unwrap()));
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn names(&mut self, n: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..n {
            names.push(self.next().await.unwrap().0);
        }
        names
    }
}

#[tokio::test]
async fn a_tick_an_xid_and_a_lost_gpu_reach_the_readers_whom_they_concern() {
    let now = Instant::now();
    let both = || vec![full("GPU-1", 0, now), full("GPU-2", 1, now)];
    let agent = Agent::new(snapshot(both(), now));
    let cancel = CancellationToken::new();
    let run = tokio::spawn(run_stream(agent.pages.clone(), cancel.clone()));
    let mut all = Reader::open(&agent, "/v1/stream").await;
    let mut one = Reader::open(&agent, "/v1/stream?gpu=GPU-2").await;
    let (name, first) = all.next().await.unwrap();
    assert_eq!((name.as_str(), first["gpus"].as_array().unwrap().len()), ("gpus", 2));
    let (_, first) = one.next().await.unwrap();
    assert_eq!(first["gpus"].as_array().unwrap().len(), 1);

    let lost = vec![full("GPU-1", 0, now).without_values(GpuStatus::Lost, "gone"), full("GPU-2", 1, now)];
    let events = Arc::from([xid(1, "GPU-1", 79, now)]);
    agent.snapshots.send_replace(Arc::new(GpuSnapshot { events, ..snapshot(lost, now) }));
    let (name, state) = all.next().await.unwrap();
    assert_eq!((name.as_str(), &state["before"], &state["after"]), ("state", &"ok".into(), &"lost".into()));
    let (name, event) = all.next().await.unwrap();
    assert_eq!((name.as_str(), &event["gpu"], &event["xid"]), ("xid", &"GPU-1".into(), &79.into()));
    assert_eq!(all.names(1).await, ["gpus"]);
    assert_eq!(one.names(1).await, ["gpus"], "the other GPU's trouble is not this reader's");

    agent.snapshots.send_replace(Arc::new(snapshot(vec![full("GPU-2", 1, now)], now)));
    let (name, state) = all.next().await.unwrap();
    assert_eq!((name.as_str(), &state["gpu"], &state["after"]), ("state", &"GPU-1".into(), &"absent".into()));

    cancel.cancel();
    run.await.unwrap().unwrap();
    assert_eq!(all.names(1).await, ["gpus"]);
    assert!(all.next().await.is_none(), "the stream ends when the agent stops");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_stops_answering_is_told_though_nothing_new_comes() {
    let now = Instant::now();
    let due = Some(now + std::time::Duration::from_secs(3));
    let agent = Agent::new(GpuSnapshot { valid_until: due, ..snapshot(vec![full("GPU-1", 0, now)], now) });
    let run = tokio::spawn(run_stream(agent.pages.clone(), CancellationToken::new()));
    let mut reader = Reader::open(&agent, "/v1/stream").await;
    assert_eq!(reader.names(4).await, ["gpus", "state", "state", "gpus"]);
    assert_eq!(now.elapsed().as_secs(), 3);
    let (name, _) = reader.next().await.unwrap();
    assert_eq!(
        (name.as_str(), now.elapsed().as_secs()),
        ("comment", 18),
        "a sign of life after 15 s without news"
    );
    run.abort();
}

#[tokio::test]
async fn a_stream_of_a_gpu_that_is_not_here_is_refused() {
    let agent = Agent::new(no_gpu());
    assert_eq!(agent.get("/v1/stream?gpu=GPU-1").await.0, 404);
    let (status, error) = agent.json("/v1/stream?uuid=GPU-1").await;
    assert_eq!(status, 400);
    assert!(error["hint"].as_str().unwrap().contains("?gpu=UUID"), "{error}");
}
