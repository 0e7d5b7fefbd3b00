//! Peers that are let in and then do nothing, or half of something: they are sent away, and nobody else notices.

use std::time::Duration;

use plimsoll_common::{ids::Seq, wire::CloseCode};
use quinn::{TransportConfig, VarInt};

use crate::support::{Agent, Planner, hello_frame, inventory, report};

/// What a stalling peer is given in these tests, instead of seconds.
const SHORT: Duration = Duration::from_millis(300);

fn code(code: CloseCode) -> u64 {
    u64::from(code.code())
}

/// An agent whose windows are taken at once while something else goes on.
async fn neighbour(planner: &Planner) -> Agent {
    let (mut agent, _) = Agent::hello(planner, "neighbour", 1).await;
    agent.send(inventory(1)).await;
    agent
}

async fn takes(agent: &mut Agent, seq: u64) {
    agent.send(report(seq, 1, 1)).await;
    agent.acked(seq).await;
}

#[tokio::test]
async fn whoever_says_no_whole_hello_is_sent_away() {
    let planner = Planner::bounded(|options| options.handshake_timeout = SHORT).await;
    let mut other = neighbour(&planner).await;
    let silent = Agent::connect(&planner, None).await;
    let mut halfway = Agent::connect(&planner, None).await;
    halfway.say_bytes(&[0, 0, 0, 40, 1, 1, 0]).await;
    takes(&mut other, 1).await;
    for agent in [silent, halfway] {
        let (closed, reason) = agent.closed().await;
        assert_eq!(closed, code(CloseCode::Order));
        assert!(reason.contains("no hello came in time"), "{reason}");
    }
    takes(&mut other, 2).await;
    assert_eq!(planner.metric("plimsoll_planner_hello_timeouts_total").await, Some(2.0));
    assert_eq!(planner.metric("plimsoll_planner_connections_pending").await, Some(0.0));
    planner.stop().await;
}

#[tokio::test]
async fn whoever_opens_streams_and_stalls_is_sent_away() {
    let planner = Planner::bounded(|options| options.frame_timeout = SHORT).await;
    let mut other = neighbour(&planner).await;
    let (stalling, _) = Agent::hello(&planner, "stalls", 1).await;
    let mut streams = Vec::new();
    // More than are read at a time, and none of them ends.
    for _ in 0..12 {
        let mut stream = stalling.quic.open_uni().await.unwrap();
        stream.write_all(&[1, 3, 0, 0]).await.unwrap();
        streams.push(stream);
    }
    takes(&mut other, 1).await;
    let (closed, reason) = stalling.closed().await;
    assert_eq!(closed, code(CloseCode::Malformed));
    assert!(reason.contains("did not arrive in time"), "{reason}");
    takes(&mut other, 2).await;
    assert_eq!(planner.metric("plimsoll_planner_frame_errors_total{reason=\"truncated\"}").await, Some(1.0));
    planner.stop().await;
}

/// Its credits are worth two acknowledgements; what it sends is applied until the planner sees that nobody listens.
#[tokio::test]
async fn whoever_takes_no_acknowledgements_is_sent_away() {
    let planner = Planner::start().await;
    let mut other = neighbour(&planner).await;
    let mut narrow = TransportConfig::default();
    narrow.stream_receive_window(VarInt::from_u32(64)).receive_window(VarInt::from_u32(64));
    let mut deaf = Agent::connect_by(&planner, None, narrow).await.unwrap();
    deaf.say(&hello_frame("deaf", 1)).await;
    deaf.send(inventory(1)).await;
    let mut seq = 0;
    let closed = loop {
        seq += 1;
        takes(&mut other, seq).await;
        if deaf.quic.close_reason().is_some() {
            break deaf.closed().await;
        }
        deaf.try_send(report(seq, 1, 1)).await;
        assert!(seq < 1_000, "nobody minds");
    };
    assert_eq!(closed.0, code(CloseCode::Busy), "{}", closed.1);
    assert!(closed.1.contains("not taken"), "{}", closed.1);
    let busy = "plimsoll_planner_connections_closed_total{reason=\"busy\"}";
    assert_eq!(planner.metric(busy).await, Some(1.0));
    // It may come back, and goes on where it was.
    let (_back, seq) = Agent::hello(&planner, "deaf", 1).await;
    assert!(seq > Seq(0), "what it had sent was applied");
    planner.stop().await;
}

/// With many that have not said hello, addresses have to prove themselves; with too many, nobody else is let in until they
/// are gone.
#[tokio::test]
async fn too_many_unfinished_connections_hold_up_nobody_who_is_there() {
    let planner =
        Planner::bounded(|options| (options.retry_from_pending, options.max_pending) = (2, 4)).await;
    let mut other = neighbour(&planner).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(Agent::connect(&planner, None).await);
    }
    assert_eq!(planner.metric("plimsoll_planner_connections_retried_total").await, Some(2.0));
    assert!(Agent::try_connect(&planner, None).await.is_err());
    assert_eq!(planner.metric("plimsoll_planner_connections_refused_total").await, Some(1.0));
    takes(&mut other, 1).await;
    for agent in waiting {
        agent.quic.close(VarInt::from_u32(0), b"");
    }
    while planner.metric("plimsoll_planner_connections_pending").await != Some(0.0) {}
    let (_new, _) = Agent::hello(&planner, "new", 1).await;
    planner.stop().await;
}
