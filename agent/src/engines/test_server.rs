//! Small servers on loopback that answer by a script.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

/// What a server does with a request.
pub(super) enum Reply {
    /// These bytes, then the connection stays open.
    Send(Vec<u8>),
    /// These bytes, then the connection is closed.
    SendAndClose(Vec<u8>),
    /// These bytes after a while.
    Late(Duration, Vec<u8>),
    /// Nothing at all.
    Silence,
}

/// A server and what it saw.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

/// Serves `reply(number of the request, its path)` on the listener.
pub(super) fn serve(
    listener: TcpListener,
    reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> Server {
    serve_heads(listener, move |n, head| reply(n, head.split(' ').nth(1).unwrap()))
}

/// Serves `reply(number of the request, its head)` on the listener.
pub(super) fn serve_heads(
    listener: TcpListener,
    reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> Server {
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, reply, requests) = (connections.clone(), Arc::new(reply), Arc::new(AtomicUsize::new(0)));
    let task = tokio::spawn(async move {
        let mut clients = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            clients.spawn(talk(stream, reply.clone(), requests.clone()));
        }
    });
    Server { address, connections, _task: AbortOnDropHandle::new(task) }
}

async fn talk(mut stream: TcpStream, reply: Arc<impl Fn(usize, &str) -> Reply>, requests: Arc<AtomicUsize>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("version=0.0.4"), "{head}");
        match reply(requests.fetch_add(1, Ordering::SeqCst), &head) {
            Reply::Send(bytes) => drop(stream.write_all(&bytes).await),
            Reply::SendAndClose(bytes) => {
                drop(stream.write_all(&bytes).await);
                return;
            }
            Reply::Late(after, bytes) => {
                tokio::time::sleep(after).await;
                drop(stream.write_all(&bytes).await);
            }
            Reply::Silence => std::future::pending().await,
        }
    }
}

pub(super) async fn bound() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "content-type: text/plain; version=1.0.0; charset=utf-8\r\n", body)
}

pub(super) fn not_found() -> Reply {
    Reply::Send(answer("404 Not Found", "", b"{}"))
}
