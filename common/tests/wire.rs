//! The wire format from outside: evolution by recorded frames, and hostile bytes.
#![cfg(feature = "wire")]
#![expect(clippy::unwrap_used, clippy::unwrap_in_result, reason = "helpers of tests: a panic is the failure")]

use plimsoll_common::{
    engine::{DistributionKind, Role},
    ids::{AgentEpoch, BootId, EngineId, Generation, GpuUuid, ModelName, NodeName, PlannerRun, Seq},
    wire::{
        Ack, DomainKind, EngineInfo, Frame, FrameDecoder, FrameEncoder, Gap, GpuInfo, HEADER_BYTES, Hello,
        HistogramEntry, Inventory, MAX_FRAME_BYTES, MAX_GAP_WINDOWS, MAX_MESSAGE_BYTES, Message,
        NvLinkDomain, Report, Request, Token, WireError,
    },
};
use proptest::prelude::*;
use serde::Serialize;

/// Frames as the first release wrote them, one a line: name, then hex. Never edited; a new release appends its own.
const RECORDED: &str = include_str!("../fixtures/wire/v1.hex");

/// Frames with what engines other than vLLM publish, as the release wrote them that added it. Never edited.
const RECORDED_SIGNALS: &str = include_str!("../fixtures/wire/v1-engine-signals.hex");

fn decode(bytes: &[u8]) -> Result<Frame, WireError> {
    FrameDecoder::new().unwrap().decode(bytes)
}

fn encode(message: &Message, age_ms: u32) -> Vec<u8> {
    FrameEncoder::new().unwrap().encode(message, age_ms).unwrap()
}

/// A frame around any body, as a foreign or future sender could make it.
fn frame(kind: u8, body: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![1, kind, 0, 0, 0, 0, 0, 0];
    bytes.extend(rmp_serde::to_vec_named(body).unwrap());
    bytes
}

fn samples() -> Vec<(&'static str, Message, u32)> {
    let hello = Hello {
        node: NodeName::parse("gpu-7").unwrap(),
        boot: BootId::parse("b2c7a1d0-0f5e-4a63-9f2b-3f1d6f0e8a11").unwrap(),
        epoch: AgentEpoch(1_795_353_863_214),
        version: "0.1.0".to_owned(),
        wall_ms: Some(1_795_353_870_000),
        oldest: None,
        token: None,
    };
    let returning = Hello { oldest: Some(Seq(417)), token: Token::parse("a-token"), ..hello.clone() };
    let uuid = GpuUuid::parse("GPU-5a1c9e62-7d31-4a0e-8f54-0c2b6d9e1f33").unwrap();
    let inventory = Inventory {
        generation: Generation(2),
        gpus: vec![GpuInfo {
            uuid: uuid.clone(),
            index: 0,
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            pci_bus_id: Some("00000000:18:00.0".to_owned()),
            memory_total_bytes: Some(85_520_809_984),
            power_limit_mw: Some(700_000),
            domain: None,
        }],
        engines: vec![EngineInfo {
            id: EngineId::parse("127.0.0.1:8000").unwrap(),
            kind: "vllm".to_owned(),
            url: "http://127.0.0.1:8000".to_owned(),
            version: Some("0.32.0".to_owned()),
            model: Some(ModelName::parse("llama-3.1-8b").unwrap()),
            pool: None,
            role: Role::Aggregated,
            replica: None,
            gpus: vec![uuid],
            kv_capacity_tokens: Some(945_029),
            follower: false,
        }],
        layouts: vec![vec![0.01, 0.025, 0.05, 80.0]],
        ..Inventory::default()
    };
    let mut report = Report {
        seq: Seq(9),
        generation: Generation(2),
        begin_ms: 1_795_353_870_000,
        length_ms: 1000,
        ..Report::default()
    };
    report.gpus.state = [Some(1)].into_iter().collect();
    report.gpus.utilization_percent = [Some(97)].into_iter().collect();
    report.gpus.temperature_c = [Some(-3)].into_iter().collect();
    report.engines.state = [Some(1)].into_iter().collect();
    report.engines.running = [Some(0)].into_iter().collect();
    report.engines.generation_tokens = [Some(812)].into_iter().collect();
    report.histograms.push(&HistogramEntry {
        engine: 0,
        kind: DistributionKind::ItlStep.code(),
        layout: 1,
        cells: vec![(0, 800), (2, 12)],
        sum: 4_312_000,
    });
    let ack = Ack { epoch: AgentEpoch(1_795_353_863_214), seq: Seq(9), planner: Some(PlannerRun(0x5eed)) };
    vec![
        ("hello", Message::Hello(hello), 0),
        ("inventory", Message::Inventory(Box::new(inventory)), 0),
        ("report", Message::Report(Box::new(report)), 1500),
        ("ack", Message::Ack(Ack { planner: None, ..ack }), 0),
        ("request", Message::Request(Request { report_interval_ms: Some(250) }), 0),
        ("hello-again", Message::Hello(returning), 0),
        ("resume", Message::Ack(ack), 0),
        ("gap", Message::Gap(Gap { first: Seq(10), last: Seq(417) }), 0),
    ]
}

/// An engine and its front-end, with every signal that the first release did not have.
fn signals() -> Vec<(&'static str, Message)> {
    let engine = |id: &str, kind: &str, follower: bool| EngineInfo {
        id: EngineId::parse(id).unwrap(),
        kind: kind.to_owned(),
        url: format!("http://{id}"),
        version: None,
        model: Some(ModelName::parse("llama-3.1-8b").unwrap()),
        pool: None,
        role: Role::Decode,
        replica: None,
        gpus: vec![],
        kv_capacity_tokens: None,
        follower,
    };
    let inventory = Inventory {
        generation: Generation(3),
        engines: vec![
            engine("10.0.0.1:30000", "sglang", false),
            engine("10.0.0.2:8000", "dynamo-frontend", false),
            engine("10.0.0.3:30000", "sglang", true),
        ],
        ..Inventory::default()
    };
    let mut report = Report { seq: Seq(10), generation: Generation(3), length_ms: 1000, ..Report::default() };
    let columns = &mut report.engines;
    for (number, column) in [
        &mut columns.waiting_capacity,
        &mut columns.waiting_deferred,
        &mut columns.paused,
        &mut columns.kv_usage_max_ppm,
        &mut columns.kv_offload_ppm,
        &mut columns.prefix_hit_ppm,
        &mut columns.spec_acceptance_ppm,
        &mut columns.sleep,
        &mut columns.signal_age_ms,
        &mut columns.ended,
        &mut columns.rejected,
        &mut columns.offload_hits,
        &mut columns.draft_tokens,
        &mut columns.accepted_tokens,
    ]
    .into_iter()
    .enumerate()
    {
        // Every column has another value, so that none can be taken for another.
        column.push(Some(number as u64));
    }
    for (number, column) in
        [&mut columns.frontend_inflight, &mut columns.frontend_queued, &mut columns.frontend_arrived]
            .into_iter()
            .enumerate()
    {
        column.push(None);
        column.push(Some(100 + number as u64));
    }
    report.histograms.push(&HistogramEntry {
        engine: 1,
        kind: DistributionKind::FrontendTtft.code(),
        layout: 1,
        cells: vec![(0, 1)],
        sum: 7,
    });
    vec![
        ("inventory", Message::Inventory(Box::new(inventory))),
        ("report", Message::Report(Box::new(report))),
    ]
}

#[test]
fn frames_with_more_signals_still_decode_to_the_same() {
    let mut lines = RECORDED_SIGNALS.lines();
    for (name, message) in signals() {
        assert_eq!(decode(&encode(&message, 0)).unwrap().message, message, "{name}");
        let (recorded, hex) = lines.next().unwrap().split_once(' ').unwrap();
        assert_eq!(recorded, name);
        assert_eq!(decode(&from_hex(hex)).unwrap(), Frame { age_ms: 0, message }, "{name}");
    }
    assert_eq!(lines.next(), None);
}

/// Prints what belongs into `fixtures/wire/v1-engine-signals.hex`.
#[test]
#[ignore = "prints frames to record; run by hand with --ignored --nocapture"]
fn print_signals_to_record() {
    for (name, message) in signals() {
        let hex: String = encode(&message, 0).iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name} {hex}");
    }
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_message_round_trips() {
    for (name, message, age_ms) in samples() {
        assert_eq!(decode(&encode(&message, age_ms)).unwrap(), Frame { age_ms, message }, "{name}");
    }
}

#[test]
fn frames_of_the_first_release_still_decode_to_the_same() {
    let mut lines = RECORDED.lines();
    for (name, message, age_ms) in samples() {
        let (recorded, hex) = lines.next().unwrap().split_once(' ').unwrap();
        assert_eq!(recorded, name);
        assert_eq!(decode(&from_hex(hex)).unwrap(), Frame { age_ms, message }, "{name}");
    }
    assert_eq!(lines.next(), None);
}

/// Prints what belongs into `fixtures/wire/v1.hex`, for the day a message kind is added.
#[test]
#[ignore = "prints frames to record; run by hand with --ignored --nocapture"]
fn print_frames_to_record() {
    for (name, message, age_ms) in samples() {
        let hex: String = encode(&message, age_ms).iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name} {hex}");
    }
}

#[test]
fn an_older_sender_leaves_fields_out() {
    #[derive(Serialize)]
    struct OldReport {
        q: u64,
        g: u32,
        b: u64,
        l: u64,
    }
    let Message::Report(report) =
        decode(&frame(3, &OldReport { q: 3, g: 1, b: 5, l: 1000 })).unwrap().message
    else {
        panic!("not a report")
    };
    assert_eq!((report.seq, report.first_seq(), report.gpus.state.len()), (Seq(3), Seq(3), 0));
}

#[test]
fn nvlink_domains_travel_with_the_gpus() {
    let domain = NvLinkDomain {
        kind: DomainKind::MultiNode,
        id: "5b0a7c1e-93d4-4f0f-8a51-2f9d1c6e7b42.32766".to_owned(),
        degraded: true,
    };
    let Message::Inventory(mut inventory) = samples().swap_remove(1).1 else { panic!("not an inventory") };
    inventory.gpus[0].domain = Some(domain.clone());
    let message = Message::Inventory(inventory);
    assert_eq!(decode(&encode(&message, 0)).unwrap().message, message);
    // A kind that only the future knows is unknown, which spans no nodes: nothing is placed across nodes by mistake.
    let gpu = serde_json::json!({ "u": "GPU-1", "i": 0, "d": { "k": "photonic", "i": "x", "new": 1 } });
    let future = decode(&frame(2, &serde_json::json!({ "g": 1, "u": [gpu] }))).unwrap().message;
    let Message::Inventory(future) = future else { panic!("not an inventory") };
    let told = future.gpus[0].domain.as_ref().unwrap();
    assert_eq!((told.kind, told.kind.spans_nodes(), told.degraded), (DomainKind::Unknown, false, false));
    let gpu = serde_json::json!({ "u": "GPU-1", "i": 0, "d": { "k": "none", "i": "x".repeat(1025) } });
    let long = serde_json::json!({ "g": 1, "u": [gpu] });
    assert!(matches!(decode(&frame(2, &long)), Err(WireError::Refused(_))));
}

#[test]
fn a_newer_sender_adds_fields_anywhere() {
    #[derive(Serialize)]
    struct Nested {
        deep: Vec<(u8, String)>,
    }
    #[derive(Serialize)]
    struct NewColumns {
        s: serde_bytes::ByteBuf,
        zz: serde_bytes::ByteBuf,
    }
    #[derive(Serialize)]
    struct NewReport {
        future: Nested,
        q: u64,
        g: u32,
        b: u64,
        l: u64,
        u: NewColumns,
        xy: Option<f64>,
    }
    let new = NewReport {
        future: Nested { deep: vec![(1, "x".to_owned())] },
        q: 3,
        g: 1,
        b: 5,
        l: 1000,
        u: NewColumns { s: serde_bytes::ByteBuf::from([2, 0]), zz: serde_bytes::ByteBuf::from([9, 9]) },
        xy: Some(0.5),
    };
    let Message::Report(report) = decode(&frame(3, &new)).unwrap().message else { panic!("not a report") };
    assert_eq!((report.gpus.state.get(0), report.gpus.state.get(1)), (Some(1), None));
    // A kind of message that only the future knows is named, so that it can be skipped.
    assert_eq!(decode(&frame(77, &new)), Err(WireError::UnknownKind(77)));
    // A distribution that only the future knows stays a number, so that it can be counted.
    let mut report = Report { seq: Seq(1), ..Report::default() };
    report.histograms.push(&HistogramEntry { engine: 0, kind: 99, layout: 1, cells: vec![(3, 1)], sum: 7 });
    let Message::Report(report) = decode(&encode(&Message::Report(Box::new(report)), 0)).unwrap().message
    else {
        panic!("not a report")
    };
    assert_eq!(report.histograms.iter().next().unwrap().unwrap().kind(), None);
}

#[test]
fn what_is_wrong_is_named() {
    let good = encode(&samples()[0].1, 0);
    assert_eq!(decode(&[]), Err(WireError::Truncated(0)));
    assert_eq!(decode(&good[..HEADER_BYTES - 1]), Err(WireError::Truncated(HEADER_BYTES - 1)));
    assert!(matches!(decode(&good[..good.len() - 1]), Err(WireError::Malformed(_))));
    let mut other = good.clone();
    other[0] = 2;
    assert_eq!(decode(&other), Err(WireError::Version(2)));
    other[0] = 1;
    other[2] = 9;
    assert_eq!(decode(&other), Err(WireError::UnknownEncoding(9)));
    other[2] = 1;
    assert_eq!(decode(&other), Err(WireError::Decompress));
    assert_eq!(decode(&vec![1; MAX_FRAME_BYTES + 1]), Err(WireError::FrameTooLong));
    let empty_name = serde_json::json!({ "n": "", "b": "b", "e": 1, "v": "1" });
    assert!(matches!(decode(&frame(1, &empty_name)), Err(WireError::Malformed(_))));
    let backwards = serde_json::json!({ "q": 3, "f": 5, "g": 1, "b": 5, "l": 1 });
    assert!(matches!(decode(&frame(3, &backwards)), Err(WireError::Refused(_))));
}

#[test]
fn a_decompression_bomb_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 64 * MAX_MESSAGE_BYTES], 19).unwrap();
    assert!(bomb.len() < MAX_FRAME_BYTES, "the bomb is small: {} bytes", bomb.len());
    let mut bytes = vec![1, 3, 1, 0, 0, 0, 0, 0];
    bytes.extend(bomb);
    assert_eq!(decode(&bytes), Err(WireError::Decompress));
}

#[test]
fn deep_nesting_is_refused_also_where_it_is_skipped() {
    let mut body = vec![0x81, 0xa1, b'y'];
    body.extend([0x91; 100_000]);
    body.push(0xc0);
    let mut bytes = vec![1, 3, 0, 0, 0, 0, 0, 0];
    bytes.extend(body);
    assert_eq!(decode(&bytes), Err(WireError::TooDeep));
}

#[test]
fn claimed_lengths_allocate_nothing() {
    // A byte string of 4 GiB, an array of 4 G elements, a map of 4 G pairs: all in a few bytes.
    for claim in
        [[0xc6, 0xff, 0xff, 0xff, 0xff], [0xdd, 0xff, 0xff, 0xff, 0xff], [0xdf, 0xff, 0xff, 0xff, 0xff]]
    {
        for key in [b'h', b'u', b'l', b'z'] {
            for kind in [2, 3] {
                let mut bytes = vec![1, kind, 0, 0, 0, 0, 0, 0, 0x81, 0xa1, key];
                bytes.extend(claim);
                assert!(decode(&bytes).is_err());
            }
        }
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    let engine = serde_json::json!({ "i": "e", "k": "vllm", "e": "http://h:1" });
    let inventory = serde_json::json!({ "g": 1, "n": vec![engine; 257] });
    assert!(matches!(decode(&frame(2, &inventory)), Err(WireError::Refused(_))));
    let inventory = serde_json::json!({ "g": 1, "l": [vec![1.0; 513]] });
    assert!(matches!(decode(&frame(2, &inventory)), Err(WireError::Refused(_))));
    let mut report = Report { seq: Seq(1), ..Report::default() };
    report.histograms.push(&HistogramEntry { engine: 0, kind: 1, layout: 0, cells: vec![(4000, 1)], sum: 1 });
    assert!(matches!(decode(&frame(3, &report)), Err(WireError::Refused(_))));
    let hello =
        serde_json::json!({ "n": "n", "b": "b", "e": 1, "v": "1", "k": "x".repeat(Token::MAX_BYTES + 1) });
    assert!(matches!(decode(&frame(1, &hello)), Err(WireError::Refused(_))));
    for (first, last) in [(0, 3), (4, 3), (1, u64::MAX), (1, MAX_GAP_WINDOWS + 1)] {
        let gap = serde_json::json!({ "f": first, "q": last });
        assert!(matches!(decode(&frame(6, &gap)), Err(WireError::Refused(_))), "{first} to {last}");
    }
}

proptest! {
    /// Invariant: arbitrary bytes are an error or a message, never a panic.
    #[test]
    fn any_bytes_decode_or_are_refused(kind in 0u8..8, encoding in 0u8..3, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![1, kind, encoding, 0, 0, 0, 0, 0];
        bytes.extend(body);
        let _ = decode(&bytes);
    }

    /// Invariant: a damaged real frame is an error or a message, never a panic.
    #[test]
    fn damaged_frames_decode_or_are_refused(which in 0usize..8, at in 0usize..600, flip: u8, cut in 0usize..600) {
        let mut bytes = encode(&samples()[which].1, 7);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let _ = decode(&bytes);
    }

    /// Invariant: packed distributions come back as they were.
    #[test]
    fn distributions_round_trip(
        entries in prop::collection::vec(
            (0usize..256, 0u64..20, 1usize..1000, prop::collection::btree_map(0usize..513, 1u64..u64::MAX, 1..30), any::<u64>()),
            0..20,
        )
    ) {
        let mut report = Report { seq: Seq(1), ..Report::default() };
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(engine, kind, layout, cells, sum)| HistogramEntry { engine, kind, layout, cells: cells.into_iter().collect(), sum })
            .collect();
        entries.iter().for_each(|entry| report.histograms.push(entry));
        let Message::Report(report) = decode(&encode(&Message::Report(Box::new(report)), 0)).unwrap().message else {
            panic!("not a report")
        };
        let back: Vec<_> = report.histograms.iter().map(Result::unwrap).collect();
        prop_assert_eq!(back, entries);
    }
}
