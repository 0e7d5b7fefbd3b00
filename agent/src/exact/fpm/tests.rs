//! Messages, what they add up to, and a publisher that misbehaves.

use std::time::Duration;

use plimsoll_common::{engine::DistributionKind, ids::EngineId};
use proptest::prelude::*;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::mpsc,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    ledger::{Heard, Ledger, MAX_RANKS},
    message::{ForwardPass, MessageError, Rank, Work},
    task::{Subscription, run},
    zmtp::{GREETING, Message},
};
use crate::{
    config::FpmAddress,
    exact::{
        ExactBatch, ExactBoard, ExactReading, PassGauges, PassUpdate, SourceKey, SourceKind, SourceState,
        SourceStatus,
    },
};

/// As publishers send it, with the fields that we do not read.
#[derive(Debug, Clone, Serialize)]
struct Payload {
    version: u32,
    worker_id: String,
    dp_rank: u32,
    counter_id: u64,
    wall_time: f64,
    scheduled_requests: Scheduled,
    queued_requests: Queued,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Scheduled {
    num_prefill_requests: u64,
    sum_prefill_tokens: u64,
    var_prefill_length: f64,
    sum_prefill_kv_tokens: u64,
    num_decode_requests: u64,
    sum_decode_kv_tokens: u64,
    var_decode_kv_tokens: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Queued {
    num_prefill_requests: u64,
    sum_prefill_tokens: u64,
    var_prefill_length: f64,
    num_decode_requests: u64,
    sum_decode_kv_tokens: u64,
    var_decode_kv_tokens: f64,
}

fn payload(counter_id: u64, wall_time: f64, prefill: u64, decode: u64, queued: u64) -> Payload {
    Payload {
        version: 1,
        worker_id: "worker".to_owned(),
        dp_rank: 0,
        counter_id,
        wall_time,
        scheduled_requests: Scheduled {
            num_prefill_requests: prefill,
            num_decode_requests: decode,
            ..Scheduled::default()
        },
        queued_requests: Queued {
            num_prefill_requests: queued,
            sum_prefill_tokens: queued * 100,
            ..Queued::default()
        },
    }
}

fn message(payload: &Payload) -> Message {
    let bytes = rmp_serde::to_vec_named(payload).unwrap();
    vec![Vec::new(), payload.counter_id.to_be_bytes().to_vec(), bytes]
}

fn frames(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, part) in message.iter().enumerate() {
        bytes.push(u8::from(i + 1 < message.len()) | 2);
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

fn pass(counter: u64, wall_ms: u64, work: Work, queued: u64) -> ForwardPass {
    ForwardPass {
        rank: Rank { worker: "w".into(), dp_rank: 0 },
        counter: Some(counter),
        wall_us: wall_ms * 1000,
        work,
        queue: PassGauges {
            ranks: 1,
            queued_prefill_requests: queued,
            queued_prefill_tokens: queued * 100,
            queued_decode_requests: 0,
        },
    }
}

fn update(batch: &ExactBatch) -> PassUpdate {
    batch.passes.unwrap().1
}

#[test]
fn a_message_is_read() {
    let read = |payload: &Payload| ForwardPass::read(&message(payload));
    let mixed = read(&payload(7, 0.0125, 2, 3, 4)).unwrap();
    assert_eq!((mixed.counter, mixed.wall_us, mixed.work), (Some(7), 12_500, Work::Mixed));
    assert_eq!((mixed.queue.queued_prefill_requests, mixed.queue.queued_prefill_tokens), (4, 400));
    assert_eq!(&*mixed.rank.worker, "worker");
    assert_eq!(read(&payload(8, 0.01, 1, 0, 0)).unwrap().work, Work::Prefill);
    assert_eq!(read(&payload(9, 0.01, 0, 1, 0)).unwrap().work, Work::Decode);
    assert_eq!(read(&payload(10, 0.0, 0, 0, 0)).unwrap().work, Work::Nothing);
    assert_eq!(read(&Payload { version: 2, ..payload(1, 0.1, 1, 0, 0) }), Err(MessageError::Version(2)));
}

#[test]
fn a_message_without_a_version_is_counted_by_its_frame() {
    let whole = rmp_serde::to_vec_named(&payload(0, 0.5, 1, 0, 0)).unwrap();
    let mut value: serde_json::Value = rmp_serde::from_slice(&whole).unwrap();
    let map = value.as_object_mut().unwrap();
    map.remove("version");
    map.remove("counter_id");
    let old = rmp_serde::to_vec_named(&value).unwrap();
    let read = ForwardPass::read(&vec![vec![], 41u64.to_be_bytes().to_vec(), old]).unwrap();
    assert_eq!((read.counter, read.wall_us), (Some(41), 500_000));
}

#[test]
fn hostile_messages_are_refused() {
    let read = |payload: &Payload| ForwardPass::read(&message(payload));
    for wall in [f64::NAN, f64::INFINITY, -1.0, 4000.0] {
        assert_eq!(read(&payload(1, wall, 1, 0, 0)), Err(MessageError::Impossible));
    }
    let long = Payload { worker_id: "x".repeat(200), ..payload(1, 0.1, 1, 0, 0) };
    assert_eq!(read(&long), Err(MessageError::Impossible));
    let raw = |bytes: &[u8]| ForwardPass::read(&vec![bytes.to_vec()]);
    let deep = [vec![0x81, 0xa1, b'x'], vec![0x91; 5000]].concat();
    for bad in
        [&b""[..], b"\x80", b"\xc0", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x93\x01", &deep]
    {
        assert_eq!(raw(bad), Err(MessageError::Shape), "{bad:?}");
    }
    assert_eq!(ForwardPass::read(&vec![]), Err(MessageError::Shape));
}

#[tokio::test(start_paused = true)]
async fn passes_become_histograms_queues_and_a_busy_share() {
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(ledger.observe(at(0), &pass(0, 0, Work::Nothing, 0)), Heard::Heartbeat);
    assert_eq!(ledger.observe(at(100), &pass(1, 100, Work::Prefill, 5)), Heard::Pass);
    assert_eq!(ledger.observe(at(150), &pass(2, 50, Work::Mixed, 4)), Heard::Pass);
    assert_eq!(ledger.observe(at(200), &pass(5, 50, Work::Decode, 3)), Heard::Pass);
    let batch = ledger.flush(at(400), 2);
    assert_eq!(batch.passes.unwrap().0, 2);
    let want = PassUpdate {
        lost: 2,
        busy: Duration::from_millis(200),
        watched: Duration::from_millis(400),
        gauges: Some(pass(0, 0, Work::Nothing, 3).queue),
    };
    assert_eq!(update(&batch), want);
    let sum = |kind| batch.samples.get(kind).map(|cells| (cells.count(), cells.sum()));
    assert_eq!(sum(DistributionKind::PassPrefill), Some((1, 100_000)));
    assert_eq!(sum(DistributionKind::PassMixed), Some((1, 50_000)));
    assert_eq!(sum(DistributionKind::PassDecode), Some((1, 50_000)));
    // The scheduler says that it went idle, then the publisher beats.
    ledger.observe(at(410), &pass(6, 0, Work::Nothing, 0));
    let idle = update(&ledger.flush(at(1000), 2));
    assert_eq!((idle.busy, idle.gauges.unwrap().queued_prefill_requests), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_in_a_long_pass_does_not_empty_the_queue() {
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    ledger.observe(at(0), &pass(0, 10, Work::Prefill, 9));
    let queued =
        |ledger: &mut Ledger, now| update(&ledger.flush(now, 0)).gauges.unwrap().queued_prefill_requests;
    for beat in 1..30 {
        ledger.observe(at(beat), &pass(beat, 0, Work::Nothing, 0));
        assert_eq!(queued(&mut ledger, at(beat)), 9, "{beat}");
    }
    ledger.observe(at(30), &pass(30, 0, Work::Nothing, 0));
    assert_eq!(queued(&mut ledger, at(30)), 0, "what is not confirmed for so long is over");
}

#[tokio::test(start_paused = true)]
async fn ranks_are_bounded_and_restarts_are_no_loss() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let of = |dp_rank, counter| ForwardPass {
        rank: Rank { worker: "w".into(), dp_rank },
        ..pass(counter, 1, Work::Decode, 1)
    };
    for rank in 0..MAX_RANKS as u32 {
        assert_eq!(ledger.observe(now, &of(rank, 100)), Heard::Pass);
    }
    assert_eq!(ledger.observe(now, &of(MAX_RANKS as u32, 0)), Heard::NoRoom);
    ledger.observe(now, &of(0, 3));
    ledger.observe(now, &of(0, 3));
    let flushed = update(&ledger.flush(now, 0));
    assert_eq!((flushed.lost, flushed.gauges.unwrap().ranks), (0, MAX_RANKS as u64));
    let later = now + Duration::from_secs(6);
    let silent = update(&ledger.flush(later, 0));
    assert_eq!((silent.gauges, silent.watched), (None, Duration::from_secs(5) * MAX_RANKS as u32));
}

proptest! {
    /// Invariant: however messages are lost and flushes fall, passes and losses add up to what was sent (as far as a
    /// later message shows it), and no rank is watched longer than time went by.
    #[test]
    fn counts_add_up(steps in prop::collection::vec((any::<bool>(), 0u64..400, any::<bool>()), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _guard = runtime.enter();
        let (mut ledger, mut now) = (Ledger::default(), Instant::now());
        let start = now;
        let (mut counted, mut lost, mut watched) = (0, 0, Duration::ZERO);
        let (mut heard, mut want_lost, mut gap, mut any) = (0u64, 0u64, 0u64, false);
        for (i, (arrives, pause, flush)) in steps.iter().enumerate() {
            now += Duration::from_millis(*pause);
            if *arrives {
                ledger.observe(now, &pass(i as u64, 1, Work::Decode, 0));
                heard += 1;
                want_lost += if any { gap } else { 0 };
                (gap, any) = (0, true);
            } else {
                gap += 1;
            }
            if *flush || i + 1 == steps.len() {
                let batch = ledger.flush(now, 0);
                counted += batch.samples.get(DistributionKind::PassDecode).map_or(0, |cells| cells.count());
                lost += update(&batch).lost;
                watched += update(&batch).watched;
            }
        }
        prop_assert_eq!((counted, lost), (heard, want_lost));
        prop_assert!(watched <= now - start);
    }
}

struct World {
    board: ExactBoard,
    readings: mpsc::Receiver<ExactReading>,
    _task: AbortOnDropHandle<()>,
}

impl World {
    fn new(address: FpmAddress) -> Self {
        let board = ExactBoard::default();
        let engine = EngineId::parse("e").ok();
        let key = SourceKey { engine, kind: SourceKind::ForwardPass, place: address.to_string() };
        let report = board.enter(key);
        let (tx, readings) = mpsc::channel(64);
        let subscription = Subscription { engine: 3, stream: 1, address, report, tx };
        let task = tokio::spawn(run(subscription, CancellationToken::new()));
        Self { board, readings, _task: AbortOnDropHandle::new(task) }
    }

    fn status(&self) -> SourceStatus {
        self.board.all()[0].1.clone()
    }

    /// Readings until this many decode passes were seen.
    async fn decode_passes(&mut self, wanted: u64) {
        let mut seen = 0;
        while seen < wanted {
            let reading = self.readings.recv().await.unwrap();
            assert_eq!((reading.engine, reading.batch.passes.unwrap().0), (3, 1));
            let cells = reading.batch.samples.get(DistributionKind::PassDecode);
            seen += cells.map_or(0, |cells| cells.count());
        }
    }
}

/// The publisher's side of the handshake, up to our subscription.
async fn welcome(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    const READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB";
    stream.write_all(&GREETING).await.unwrap();
    stream.write_all(READY).await.unwrap();
    let mut said = vec![0; 64 + super::zmtp::READY.len() + super::zmtp::SUBSCRIBE_ALL.len()];
    stream.read_exact(&mut said).await.unwrap();
    assert!(said.ends_with(b"\x00\x01\x01"), "it subscribes to everything");
}

async fn tcp() -> (TcpListener, FpmAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, FpmAddress::Tcp { host: "127.0.0.1".to_owned(), port })
}

#[tokio::test]
async fn a_publisher_that_comes_back_is_heard_again_and_what_was_missed_is_lost() {
    let (listener, address) = tcp().await;
    let mut world = World::new(address);
    let (mut stream, _) = listener.accept().await.unwrap();
    welcome(&mut stream).await;
    for counter in 0..3 {
        stream.write_all(&frames(&message(&payload(counter, 0.01, 0, 4, 2)))).await.unwrap();
    }
    world.decode_passes(3).await;
    assert_eq!((world.status().state, world.status().records), (SourceState::Ok, 3));
    drop(stream);
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(world.status().state, SourceState::Failing);
    welcome(&mut stream).await;
    stream.write_all(&frames(&message(&payload(10, 0.01, 0, 4, 2)))).await.unwrap();
    world.decode_passes(1).await;
    let status = world.status();
    assert_eq!((status.state, status.detail, status.lost), (SourceState::Ok, None, 7));
}

#[tokio::test]
async fn ipc_is_spoken_too_and_bad_messages_are_only_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fpm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut world = World::new(FpmAddress::Ipc(path));
    let (mut stream, _) = listener.accept().await.unwrap();
    welcome(&mut stream).await;
    stream.write_all(&frames(&vec![vec![], b"short".to_vec(), b"junk".to_vec()])).await.unwrap();
    stream.write_all(&frames(&message(&payload(0, 0.0, 0, 0, 0)))).await.unwrap();
    stream.write_all(&frames(&message(&payload(1, 0.01, 0, 1, 0)))).await.unwrap();
    world.decode_passes(1).await;
    let status = world.status();
    assert_eq!((status.records, status.skipped, status.malformed), (1, 1, 1));
}

#[tokio::test]
async fn a_peer_that_is_no_publisher_is_told_of() {
    let (listener, address) = tcp().await;
    let world = World::new(address);
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    // It hangs up, and comes again.
    let _again = listener.accept().await.unwrap();
    let status = world.status();
    assert_eq!(status.state, SourceState::Failing);
    assert!(status.detail.unwrap().contains("no ZeroMQ socket"));
}
