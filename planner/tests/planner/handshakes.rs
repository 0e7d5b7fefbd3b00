//! Who gets how far before the planner believes in it: addresses have to prove themselves, and nothing is said early.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is set up here")]

use std::{net::SocketAddr, sync::Arc};

use plimsoll_common::wire::ALPN;
use plimsoll_shell::tls;
use quinn::{
    ClientConfig, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use tokio::{net::UdpSocket, time::timeout};

use crate::support::{Agent, PATIENCE, Planner, hello_frame};

/// A client that would send before the handshake is over, if it had leave from an earlier connection.
fn hasty() -> (Endpoint, ClientConfig) {
    let mut tls = tls::client(tls::Trust::Anybody, None, ALPN).unwrap();
    tls.enable_early_data = true;
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    (endpoint, ClientConfig::new(Arc::new(crypto)))
}

/// Connects, in 0-RTT where that may be, and says hello; whether it might be.
async fn connect(endpoint: &Endpoint, config: &ClientConfig, server: SocketAddr) -> bool {
    let connecting = endpoint.connect_with(config.clone(), server, "localhost").unwrap();
    let (connection, early) = match connecting.into_0rtt() {
        Ok((connection, _)) => (connection, true),
        Err(connecting) => (connecting.await.unwrap(), false),
    };
    let (mut up, mut down) = connection.open_bi().await.unwrap();
    let frame = hello_frame("node-1", 1);
    up.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
    up.write_all(&frame).await.unwrap();
    // The answer comes after the tickets of the handshake.
    timeout(PATIENCE, down.read_chunk(1, true)).await.unwrap().unwrap();
    connection.close(quinn::VarInt::from_u32(0), b"");
    early
}

/// A server of the same kind that gives leave, and answers every hello with a byte.
fn generous() -> Endpoint {
    let (identity, _) = tls::Identity::throw_away(&["localhost"]).unwrap();
    let mut tls = tls::server(identity, None, ALPN).unwrap();
    tls.max_early_data_size = u32::MAX;
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let config = ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let listening = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = listening.accept().await {
            let connection = incoming.await.unwrap();
            let (mut down, mut up) = connection.accept_bi().await.unwrap();
            up.read_chunk(1, true).await.unwrap();
            down.write_all(b"!").await.unwrap();
            connection.closed().await;
        }
    });
    endpoint
}

/// What is sent before a handshake is over may be sent again by anybody who saw it.
#[tokio::test]
async fn nobody_may_speak_before_the_handshake_is_over() {
    let planner = Planner::start().await;
    let (endpoint, config) = hasty();
    for _ in 0..3 {
        assert!(!connect(&endpoint, &config, planner.bound.quic).await);
    }
    // The same client at a server that allows it: it would have.
    let generous = generous();
    let (endpoint, config) = hasty();
    let address = generous.local_addr().unwrap();
    assert!(!connect(&endpoint, &config, address).await, "the first time it has no ticket");
    assert!(connect(&endpoint, &config, address).await);
    planner.stop().await;
}

#[tokio::test]
async fn an_address_that_proved_nothing_is_sent_back_and_forgotten() {
    let planner = Planner::bounded(|options| options.retry_from_pending = 0).await;
    // The first packet of a client, as somebody would send it from an address that is not its own.
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, config) = hasty();
    let _connecting = endpoint.connect_with(config, sender.local_addr().unwrap(), "localhost").unwrap();
    let mut first = [0; 2048];
    let (length, _) = timeout(PATIENCE, sender.recv_from(&mut first)).await.unwrap().unwrap();
    for _ in 0..100 {
        sender.send_to(&first[..length], planner.bound.quic).await.unwrap();
        let mut answer = [0; 2048];
        let (answered, from) = loop {
            let got = timeout(PATIENCE, sender.recv_from(&mut answer)).await.unwrap().unwrap();
            // The client still tries.
            if got.1 == planner.bound.quic {
                break got;
            }
        };
        assert_eq!(from, planner.bound.quic);
        assert_eq!(answer[0] & 0xf0, 0xf0, "no Retry packet");
        assert!(answered < length, "an answer of {answered} bytes to {length}");
    }
    assert_eq!(planner.metric("plimsoll_planner_connections_retried_total").await, Some(100.0));
    assert_eq!(planner.metric("plimsoll_planner_connections_pending").await, Some(0.0));
    // Who gets the answer shows the token in it, and is let in.
    let (_agent, _) = Agent::hello(&planner, "node-1", 1).await;
    assert_eq!(planner.metric("plimsoll_planner_connections_retried_total").await, Some(101.0));
    planner.stop().await;
}
