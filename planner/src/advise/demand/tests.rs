//! Against servers on loopback.

use std::{
    collections::BTreeMap as Map,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers a path with what a test wants at the moment; 404 for all others.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Map<String, String>>>);

impl Server {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let found = server.find(&path);
                let (status, body) = found.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    fn find(&self, path: &str) -> Option<String> {
        let held = self.0.lock().unwrap();
        held.iter().find(|(known, _)| path.starts_with(known.as_str())).map(|(_, body)| body.clone())
    }

    fn shows(&self, path: &str, body: &str) {
        self.0.lock().unwrap().insert(path.to_owned(), body.to_owned());
    }

    fn forgets(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }
}

fn doors(demand: &str) -> Doors {
    let text = format!("models: [{{name: m, demand: {demand}, pools: [{{name: chat, min: 0, max: 4}}]}}]");
    Doors::new(&serde_saphyr::from_str::<Policy>(&text).unwrap())
}

fn page(started: u64, queued: u64) -> String {
    format!(
        "# TYPE dynamo_frontend_requests_started_total counter\n\
         dynamo_frontend_requests_started_total{{model=\"m\"}} {started}\n\
         dynamo_frontend_requests_started_total{{model=\"other\"}} 777\n\
         dynamo_frontend_router_queue_pending_requests{{model=\"m\"}} {queued}\n"
    )
}

fn chat(told: &AtDoors) -> Option<Door> {
    told.doors.get(&PoolName::parse("chat").unwrap()).copied()
}

#[tokio::test]
async fn the_pages_of_a_front_ends_replicas_are_summed() {
    let server = Server::default();
    let address = server.start().await;
    server.shows("/a", &page(100, 2));
    server.shows("/b", &page(10, 0));
    let mut doors =
        doors(&format!("{{pages: ['http://{address}/a', 'http://{address}/b'], mapping: dynamo-frontend}}"));
    let first = doors.read(PATIENCE).await;
    assert!(chat(&first).is_none() && first.findings.is_empty(), "{first:?}");
    server.shows("/a", &page(130, 4));
    server.shows("/b", &page(5, 1));
    let told = doors.read(PATIENCE).await;
    let door = Door { arrived: Some(35), arrived_prompt_tokens: None, waiting: Some(5) };
    assert_eq!(chat(&told), Some(door), "30 more, and 5 since a restart");
    // Half of the requests is no rate; what was missed meanwhile is told later.
    server.shows("/a", &page(131, 0));
    server.forgets("/b");
    let told = doors.read(PATIENCE).await;
    assert_eq!(chat(&told), None);
    assert!(told.findings[0].to_string().contains("404"), "{:?}", told.findings);
}

#[tokio::test]
async fn a_prometheus_server_tells_the_same() {
    let server = Server::default();
    let address = server.start().await;
    let answer = |started: u64| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[
            {{"metric":{{"__name__":"dynamo_frontend_requests_started_total","model":"m"}},"value":[1.5,"{started}"]}}]}}}}"#
        )
    };
    server.shows("/api/v1/query?query=%7B__name__", &answer(3));
    let mut doors = doors(&format!("{{prometheus: 'http://{address}/', mapping: dynamo-frontend}}"));
    assert!(chat(&doors.read(PATIENCE).await).is_none());
    server.shows("/api/v1/query?query=%7B__name__", &answer(10));
    assert_eq!(chat(&doors.read(PATIENCE).await).and_then(|door| door.arrived), Some(7));
    server.shows("/api/v1/query?query=%7B__name__", r#"{"status":"error","error":"out of memory"}"#);
    let told = doors.read(PATIENCE).await;
    assert!(told.findings[0].to_string().contains("out of memory"), "{:?}", told.findings);
}

#[tokio::test]
async fn nobody_is_waited_for_and_nonsense_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut silent = doors(&format!("{{pages: ['http://{address}/'], mapping: dynamo-frontend}}"));
    let told = silent.read(Duration::from_millis(50)).await;
    assert!(told.findings[0].to_string().contains("no answer within"), "{:?}", told.findings);
    let mut https = doors("{pages: ['https://a/'], mapping: dynamo-frontend}");
    let told = https.read(PATIENCE).await;
    assert!(told.findings[0].to_string().contains("nothing else is read"), "{:?}", told.findings);
}
