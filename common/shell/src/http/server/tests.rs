//! What whoever connects may do. Time is paused: it goes on by itself where everybody waits.

use std::path::PathBuf;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};

use super::*;
use crate::tls::Identity;

struct Served {
    address: SocketAddr,
    refusals: Arc<Refusals>,
    cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

async fn served(access: &Access) -> Served {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), access).await.unwrap();
    let (address, refusals, cancel) =
        (server.local_addr().unwrap(), server.refusals(), CancellationToken::new());
    let long = || async { vec![b'x'; LONG_BYTES] };
    let pages = Router::new().route("/page", get(|| async { "page" })).route("/long", get(long));
    let probes = Router::new().route("/healthz", get(|| async { "ok" }));
    let task = tokio::spawn(server.serve(pages, probes, cancel.clone()));
    Served { address, refusals, cancel, task }
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes while something was sent to it may reset the connection.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// More than the system keeps for a reader.
const LONG_BYTES: usize = 64 << 20;

/// Whoever asks for an answer and does not read it is let go, after a while in which it took nothing.
#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_given_up() {
    let served = served(&Access::default()).await;
    let mut stalled = TcpStream::connect(served.address).await.unwrap();
    stalled.write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    sleep(2 * READER_PATIENCE).await;
    let mut taken = Vec::new();
    // What the system kept comes still, and then perhaps an error.
    let _ = stalled.read_to_end(&mut taken).await;
    assert!(!taken.is_empty() && taken.len() < LONG_BYTES, "{} bytes", taken.len());
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();
}

const PAGE: &[u8] = b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_let_go_and_holds_up_nobody() {
    let served = served(&Access::default()).await;
    let mut stalled = TcpStream::connect(served.address).await.unwrap();
    stalled.write_all(b"GET /page HTTP/1.1\r\nHos").await.unwrap();
    assert!(exchange(served.address, PAGE).await.ends_with("page"));
    let begun = tokio::time::Instant::now();
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).await.unwrap();
    assert!(begun.elapsed() <= 2 * PATIENCE, "{:?}", begun.elapsed());
    let huge = [b"GET /page HTTP/1.1\r\nHost: x\r\nX: ".as_slice(), &vec![b'x'; 2 * MAX_HEAD_BYTES]].concat();
    assert!(!exchange(served.address, &huge).await.contains(" 200 "));
    assert!(exchange(served.address, PAGE).await.ends_with("page"));
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_says_nothing_to_a_tls_server_is_counted_and_let_go() {
    let folder = std::env::temp_dir().join(format!("plimsoll-pages-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (cert, key): (PathBuf, PathBuf) = (folder.join("cert.pem"), folder.join("key.pem"));
    let signing = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, params.self_signed(&signing).unwrap().pem()).unwrap();
    std::fs::write(&key, signing.serialize_pem()).unwrap();
    assert!(Identity::from_pem_files(&cert, &key).is_ok());
    let access = Access { tls: Some((cert.clone(), key)), token: None };
    let served = served(&access).await;
    assert_eq!(exchange(served.address, b"").await, "");
    assert!(!exchange(served.address, PAGE).await.contains("page"), "nothing is served in the clear");
    assert_eq!(served.refusals.handshakes(), 2);
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();
    let no_key = Access { tls: Some((cert.clone(), cert)), token: None };
    assert!(Server::bind(([127, 0, 0, 1], 0).into(), &no_key).await.is_err());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_open_end_with_the_server() {
    let served = served(&Access::default()).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();
}
