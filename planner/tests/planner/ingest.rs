//! What agents may say, and what happens to those who say something else.

use plimsoll_common::{
    ids::Seq,
    wire::{CloseCode, FrameEncoder, Gap, Hello, MAX_FRAME_BYTES, Message, Report, Request},
};
use plimsoll_shell::tls;

use crate::support::{Agent, Planner, hello, hello_frame, inventory, report};

const ARRIVED: &str = "/models/0/totals/counters/requests_arrived";

fn code(code: CloseCode) -> u64 {
    u64::from(code.code())
}

#[tokio::test]
async fn every_window_counts_once_in_any_order() {
    let planner = Planner::start().await;
    let (mut agent, seq) = Agent::hello(&planner, "node-1", 7).await;
    assert_eq!(seq, Seq(0));
    agent.send(inventory(1)).await;
    for seq in [1, 2, 2, 5, 4, 3, 1, 5] {
        agent.send(report(seq, 1, 10 * seq)).await;
    }
    agent.acked(5).await;
    let json = planner.wait_for("/api/v1/agents", |json| json["agents"]["windows"]["duplicates"] == 3).await;
    assert_eq!(json["agents"]["windows"]["applied"], 5);
    assert_eq!(json["agents"]["connected"][0]["acknowledged_seq"], 5);
    let json = planner.json("/api/v1/models").await;
    assert_eq!(json.pointer(ARRIVED).unwrap(), 150);
    assert_eq!(json.pointer("/models/0/totals/distributions/ttft/count").unwrap(), 150);
    planner.stop().await;
}

#[tokio::test]
async fn an_agent_that_comes_back_goes_on_where_it_was() {
    let planner = Planner::start().await;
    let (mut first, _) = Agent::hello(&planner, "node-1", 7).await;
    first.send(inventory(1)).await;
    first.send(report(1, 1, 1)).await;
    first.acked(1).await;
    let (mut second, seq) = Agent::hello(&planner, "node-1", 7).await;
    assert_eq!(seq, Seq(1));
    assert_eq!(first.closed().await.0, code(CloseCode::Replaced));
    second.send(inventory(1)).await;
    second.send(report(1, 1, 1)).await;
    second.send(report(2, 1, 1)).await;
    second.acked(2).await;
    // A new run of the agent counts from 1 again.
    let (mut restarted, seq) = Agent::hello(&planner, "node-1", 8).await;
    assert_eq!(seq, Seq(0));
    restarted.send(inventory(1)).await;
    restarted.send(report(1, 1, 1)).await;
    restarted.acked(1).await;
    planner.wait_for("/api/v1/models", |json| json.pointer(ARRIVED).is_some_and(|n| n == 3)).await;
    assert_eq!(
        planner.metric("plimsoll_planner_connections_closed_total{reason=\"replaced\"}").await,
        Some(2.0)
    );
    planner.stop().await;
}

#[tokio::test]
async fn a_report_that_overtakes_its_inventory_waits() {
    let planner = Planner::start().await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    agent.send(report(1, 3, 4)).await;
    agent.send(inventory(3)).await;
    agent.acked(1).await;
    planner.wait_for("/api/v1/models", |json| json.pointer(ARRIVED).is_some_and(|n| n == 4)).await;
    planner.stop().await;
}

#[tokio::test]
async fn reports_without_an_inventory_end_the_connection() {
    let planner = Planner::start().await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    for seq in 1..=9 {
        agent.send(report(seq, 3, 4)).await;
    }
    let (closed, reason) = agent.closed().await;
    assert_eq!(closed, code(CloseCode::Order));
    assert!(reason.contains("generation 3"), "{reason}");
    planner.stop().await;
}

#[tokio::test]
async fn bad_frames_end_the_connection_with_a_reason_and_are_counted() {
    let planner = Planner::start().await;
    let good = FrameEncoder::new().unwrap().encode(&report(1, 1, 1), 0).unwrap();
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    // A field of a newer agent, nested a hundred levels deep.
    let mut deep = vec![1, 3, 0, 0, 0, 0, 0, 0, 0x81, 0xa2, b'z', b'z'];
    deep.extend(std::iter::repeat_n(0x91, 100));
    let no_range = {
        let mut report = Report { seq: Seq(1), ..Report::default() };
        report.generation.0 = 1;
        report.first = Some(Seq(5));
        FrameEncoder::new().unwrap().encode(&Message::Report(Box::new(report)), 0).unwrap()
    };
    let cases: [(Vec<u8>, CloseCode, &str); 9] = [
        (Vec::new(), CloseCode::Malformed, "truncated"),
        (good[..5].to_vec(), CloseCode::Malformed, "truncated"),
        (with(0, 9), CloseCode::Version, "version"),
        (with(2, 7), CloseCode::Malformed, "unknown_encoding"),
        (with(2, 1), CloseCode::TooLarge, "decompress"),
        (good[..good.len() - 3].to_vec(), CloseCode::Malformed, "malformed"),
        (deep, CloseCode::Malformed, "too_deep"),
        (vec![1; MAX_FRAME_BYTES + 1], CloseCode::TooLarge, "frame_too_long"),
        (no_range, CloseCode::Refused, "refused"),
    ];
    for (i, (bytes, expected, label)) in cases.into_iter().enumerate() {
        let name = format!("plimsoll_planner_frame_errors_total{{reason=\"{label}\"}}");
        let before = planner.metric(&name).await.unwrap();
        let (agent, _) = Agent::hello(&planner, &format!("node-{i}"), 1).await;
        agent.send_bytes(&bytes).await;
        let (closed, reason) = agent.closed().await;
        assert_eq!(closed, code(expected), "case {i} ({label}): {reason}");
        assert!(!reason.is_empty());
        assert_eq!(planner.metric(&name).await, Some(before + 1.0), "case {i} ({label})");
    }
    planner.stop().await;
}

#[tokio::test]
async fn what_its_inventory_does_not_have_is_refused() {
    let planner = Planner::start().await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    agent.send(inventory(1)).await;
    let Message::Report(mut bad) = report(1, 1, 1) else { unreachable!() };
    bad.histograms.push(&plimsoll_common::wire::HistogramEntry {
        engine: 5,
        kind: 1,
        layout: 1,
        cells: vec![(0, 1)],
        sum: 1,
    });
    agent.send(Message::Report(bad)).await;
    let (closed, reason) = agent.closed().await;
    assert_eq!(closed, code(CloseCode::Refused));
    assert!(reason.contains("engine row 5"), "{reason}");
    planner.stop().await;
}

#[tokio::test]
async fn a_newer_agents_messages_are_skipped() {
    let planner = Planner::start().await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    agent.send_bytes(&[1, 200, 0, 0, 0, 0, 0, 0, 0x80]).await;
    agent.say(&[1, 201, 0, 0, 0, 0, 0, 0, 0x80]).await;
    agent.send(inventory(1)).await;
    agent.send(report(1, 1, 1)).await;
    agent.acked(1).await;
    assert_eq!(planner.metric("plimsoll_planner_unknown_frames_total").await, Some(2.0));
    planner.stop().await;
}

#[tokio::test]
async fn the_control_stream_begins_with_a_hello_and_has_only_that() {
    let planner = Planner::start().await;
    let mut rude = Agent::connect(&planner, None).await;
    let frame = FrameEncoder::new().unwrap().encode(&report(1, 1, 1), 0).unwrap();
    rude.say(&frame).await;
    assert_eq!(rude.closed().await.0, code(CloseCode::Order));
    let (mut twice, _) = Agent::hello(&planner, "node-1", 1).await;
    twice.say(&hello_frame("node-1", 1)).await;
    assert_eq!(twice.closed().await.0, code(CloseCode::Order));
    let (astray, _) = Agent::hello(&planner, "node-1", 1).await;
    astray.send_bytes(&hello_frame("node-1", 1)).await;
    assert_eq!(astray.closed().await.0, code(CloseCode::Order));
    let mut huge = Agent::connect(&planner, None).await;
    huge.say(&vec![1; 32 * 1024 + 1]).await;
    let (closed, reason) = huge.closed().await;
    assert_eq!(closed, code(CloseCode::TooLarge));
    assert!(reason.contains("longer than 32768 bytes"), "{reason}");
    planner.stop().await;
}

#[tokio::test]
async fn agents_are_asked_for_an_interval() {
    let planner = Planner::with(|settings| settings.report_interval = "5s".parse().ok()).await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    assert_eq!(agent.hear().await, Message::Request(Request { report_interval_ms: Some(5_000) }));
    planner.stop().await;
}

#[tokio::test]
async fn what_an_agent_gave_up_is_counted_and_no_longer_waited_for() {
    let planner = Planner::start().await;
    let mut agent = Agent::connect(&planner, None).await;
    let hello = Hello { oldest: Some(Seq(41)), ..hello("node-1", 1) };
    agent.say(&FrameEncoder::new().unwrap().encode(&Message::Hello(hello), 0).unwrap()).await;
    assert_eq!(agent.ack().await, Seq(40), "a planner that starts empty takes what there is");
    agent.send(inventory(1)).await;
    agent.send(report(41, 1, 1)).await;
    agent.send(report(44, 1, 1)).await;
    agent.acked(41).await;
    let gap = Message::Gap(Gap { first: Seq(42), last: Seq(43) });
    agent.say(&FrameEncoder::new().unwrap().encode(&gap, 0).unwrap()).await;
    agent.acked(44).await;
    let shown = planner.wait_for("/api/v1/agents", |json| json["agents"]["windows"]["lost"] == 2).await;
    let row = &shown["agents"]["connected"][0];
    assert_eq!((&row["lost_windows"], &row["missing_windows"]), (&2.into(), &0.into()), "{shown}");
    assert_eq!(planner.metric("plimsoll_planner_gaps_total").await, Some(1.0));
    planner.stop().await;
}

#[tokio::test]
async fn two_agents_under_one_name_do_not_take_turns() {
    let planner = Planner::start().await;
    let (first, _) = Agent::hello(&planner, "node-1", 1).await;
    let (second, _) = Agent::hello(&planner, "node-1", 2).await;
    assert_eq!(first.closed().await.0, code(CloseCode::Replaced));
    let mut again = Agent::connect(&planner, None).await;
    again.say(&hello_frame("node-1", 1)).await;
    assert_eq!(again.closed().await.0, code(CloseCode::Duplicate));
    assert_eq!(
        planner.metric("plimsoll_planner_connections_closed_total{reason=\"duplicate\"}").await,
        Some(1.0)
    );
    drop(second);
    planner.wait_for("/api/v1/agents", |json| json["agents"]["connected"] == serde_json::json!([])).await;
    let (_again, _) = Agent::hello(&planner, "node-1", 1).await;
    planner.stop().await;
}

/// An agent that sends as fast as it can is held up by its own credits; a neighbour's report is in the fleet as soon as
/// ever.
#[tokio::test]
async fn an_agent_that_floods_hurts_only_itself() {
    let planner = Planner::start().await;
    let (mut quiet, _) = Agent::hello(&planner, "quiet", 1).await;
    quiet.send(inventory(1)).await;
    let (mut loud, _) = Agent::hello(&planner, "loud", 1).await;
    loud.send(inventory(1)).await;
    let quic = loud.quic.clone();
    let flood = tokio::spawn(async move {
        let mut encoder = FrameEncoder::new().unwrap();
        for seq in 1u64.. {
            let frame = encoder.encode(&report(seq, 1, 1), 0).unwrap();
            let Ok(mut stream) = quic.open_uni().await else { return seq };
            if stream.write_all(&frame).await.is_err() {
                return seq;
            }
            let _ = stream.finish();
        }
        0
    });
    let throttled = "plimsoll_planner_connections_throttled_total";
    while planner.metric(throttled).await == Some(0.0) {}
    let mut slowest = std::time::Duration::ZERO;
    for seq in 1..=20 {
        let begun = tokio::time::Instant::now();
        quiet.send(report(seq, 1, 1)).await;
        quiet.acked(seq).await;
        slowest = slowest.max(begun.elapsed());
    }
    // Acknowledgements are at most every 200 ms; the rest is the machine's.
    assert!(slowest < std::time::Duration::from_secs(1), "{slowest:?}");
    let loud_reports = planner.metric("plimsoll_planner_reports_total").await.unwrap() - 20.0;
    assert!(loud_reports < 2_000.0, "{loud_reports} reports of one agent were read");
    flood.abort();
    planner.stop().await;
}

/// A frame may be many times what an agent may have under way: it is read while it comes.
#[tokio::test]
async fn the_largest_frames_come_through_small_windows() {
    let planner = Planner::start().await;
    let (mut agent, _) = Agent::hello(&planner, "node-1", 1).await;
    // Of a kind that this planner does not know: skipped, and counted.
    let mut frame = vec![0; MAX_FRAME_BYTES];
    frame[..2].copy_from_slice(&[1, 200]);
    for _ in 0..6 {
        agent.send_bytes(&frame).await;
    }
    agent.send(inventory(1)).await;
    agent.send(report(1, 1, 1)).await;
    agent.acked(1).await;
    while planner.metric("plimsoll_planner_unknown_frames_total").await != Some(6.0) {}
    planner.stop().await;
}

#[tokio::test]
async fn a_full_planner_says_so() {
    let planner = Planner::with(|settings| settings.max_nodes = Some(1)).await;
    let (_first, _) = Agent::hello(&planner, "node-1", 1).await;
    let mut second = Agent::connect(&planner, None).await;
    second.say(&hello_frame("node-2", 1)).await;
    assert_eq!(second.closed().await.0, code(CloseCode::Busy));
    let crowded = Planner::with(|settings| settings.max_connections = Some(1)).await;
    let (_only, _) = Agent::hello(&crowded, "node-1", 1).await;
    assert!(Agent::try_connect(&crowded, None).await.is_err());
    assert_eq!(crowded.metric("plimsoll_planner_connections_refused_total").await, Some(1.0));
    planner.stop().await;
    crowded.stop().await;
}

#[tokio::test]
async fn with_an_authority_agents_must_show_a_certificate() {
    let (identity, pem) = tls::Identity::throw_away(&["spiffe://plimsoll/node/node-1"]).unwrap();
    let directory = std::env::temp_dir().join(format!("plimsoll-planner-mtls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let planner = Planner::with(|settings| settings.tls_client_ca = Some(ca)).await;
    let shown = tls::Identity { chain: identity.chain.clone(), key: identity.key.clone_key() };
    let mut known = Agent::connect(&planner, Some(shown)).await;
    known.say(&hello_frame("node-1", 1)).await;
    assert_eq!(known.ack().await, Seq(0));
    let again = tls::Identity { chain: identity.chain.clone(), key: identity.key.clone_key() };
    let mut pretender = Agent::connect(&planner, Some(again)).await;
    pretender.say(&hello_frame("node-2", 1)).await;
    let (closed, reason) = pretender.closed().await;
    assert_eq!(closed, code(CloseCode::Unproven));
    assert!(reason.contains("spiffe://plimsoll/node/node-2"), "{reason}");
    let (stranger, _) = tls::Identity::throw_away(&["node-1"]).unwrap();
    for shown in [None, Some(stranger)] {
        // In TLS 1.3 the client believes in the connection until the server has seen its certificate.
        if let Ok(agent) = Agent::try_connect(&planner, shown).await {
            assert!(matches!(agent.quic.closed().await, quinn::ConnectionError::ConnectionClosed(_)));
        }
    }
    assert_eq!(planner.metric("plimsoll_planner_handshake_failures_total").await, Some(2.0));
    planner.stop().await;
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_planner_that_ends_says_so() {
    let planner = Planner::start().await;
    let (agent, _) = Agent::hello(&planner, "node-1", 1).await;
    planner.stop().await;
    assert_eq!(agent.closed().await.0, code(CloseCode::Done));
}
