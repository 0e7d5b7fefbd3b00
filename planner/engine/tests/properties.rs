//! What holds for every engine under every sequence of calls.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_engine::{
    Curve, Engine, EngineConfig, Micros, Request, RequestFacts, RequestId, Roofline, Timing, Token,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Call {
    Submit { id: u64, prompt: u32, output: u32, cached: u32 },
    Abort { id: u64 },
    Start,
    Finish,
    Wait { micros: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (0..40_u64, 0..60_u32, 0..20_u32, 0..70_u32)
            .prop_map(|(id, prompt, output, cached)| Call::Submit { id, prompt, output, cached }),
        1 => (0..40_u64).prop_map(|id| Call::Abort { id }),
        5 => Just(Call::Start),
        5 => Just(Call::Finish),
        1 => (0..50_000_u64).prop_map(|micros| Call::Wait { micros }),
    ]
}

fn config() -> impl Strategy<Value = EngineConfig> {
    (1..6_u32, 4..24_u32, 1..6_u32, 0..40_u32, any::<bool>()).prop_map(
        |(block_size, kv_blocks, max_num_seqs, spare, reserve_full_prompt)| EngineConfig {
            block_size,
            kv_blocks,
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + spare,
            max_model_len: (block_size * kv_blocks).max(2),
            max_waiting: 16,
            reserve_full_prompt,
            timing: Timing::new(Curve::Roofline(Roofline {
                a_ms: 1.0,
                w_ms: 2.0,
                b_ms_per_token: 0.1,
                c_ms_per_token_squared: 1e-4,
                d_ms_per_sequence: 0.1,
                e_ms_per_kv_token: 1e-3,
            })),
        },
    )
}

/// What a run showed, and the checks that every step must pass.
#[derive(Debug, Default, PartialEq)]
struct Record {
    tokens: Vec<Token>,
    finished: Vec<RequestFacts>,
    aborted: Vec<RequestFacts>,
    accepted: u64,
    refused: u64,
    emitted: BTreeMap<u64, u32>,
}

fn run(config: EngineConfig, calls: &[Call]) -> (Engine, Record) {
    let mut engine = Engine::new(config).expect("a valid configuration");
    let mut record = Record::default();
    let mut now = Micros::ZERO;
    for call in calls {
        apply(&mut engine, &mut record, &mut now, call);
        check_load(&engine, &record);
    }
    (engine, record)
}

fn apply(engine: &mut Engine, record: &mut Record, now: &mut Micros, call: &Call) {
    match *call {
        Call::Submit { id, prompt, output, cached } => {
            let request = Request { cached_tokens: cached, ..Request::new(RequestId(id), prompt, output) };
            if engine.submit(*now, request).is_ok() {
                record.accepted += 1;
                record.emitted.insert(id, 0);
            } else {
                record.refused += 1;
            }
        }
        Call::Abort { id } => {
            if let Some(facts) = engine.abort(*now, RequestId(id)) {
                assert_eq!(facts.emitted_tokens, record.emitted[&id]);
                record.aborted.push(facts);
            }
        }
        Call::Wait { micros } => *now = now.saturating_add(Micros(micros)),
        Call::Start => {
            let was_empty = engine.is_empty();
            // Progress: an engine that holds a request always has something to compute.
            let iteration = engine.start_iteration(*now);
            assert_eq!(iteration.is_none(), was_empty && engine.in_flight().is_none());
        }
        Call::Finish => finish(engine, record, now),
    }
}

fn finish(engine: &mut Engine, record: &mut Record, now: &mut Micros) {
    let config = engine.config().clone();
    let Some(step) = engine.finish_iteration(*now) else { return };
    *now = (*now).max(step.ended_at);
    // Limits: no iteration exceeds the token budget or the sequence limit, and every iteration computes something.
    assert!(step.stats.batched_tokens <= config.max_num_batched_tokens && step.stats.batched_tokens > 0);
    assert!(step.stats.sequences <= config.max_num_seqs);
    let parts = step.stats.shape.prefill_tokens + step.stats.shape.decode_sequences;
    assert_eq!(parts, u64::from(step.stats.batched_tokens));
    for token in step.tokens {
        let emitted = record.emitted.get_mut(&token.id.0).expect("an accepted request");
        *emitted += 1;
        assert_eq!(*emitted, token.index);
    }
    for facts in step.finished {
        // Conservation of tokens: what finished emitted exactly what was asked for, and computed its prompt.
        assert_eq!(facts.emitted_tokens, facts.output_tokens);
        assert_eq!(facts.emitted_tokens, record.emitted[&facts.id.0]);
        assert!(facts.prefilled_tokens >= u64::from(facts.prompt_tokens - facts.cached_tokens));
        assert!(facts.cached_tokens < facts.prompt_tokens && facts.cached_tokens % config.block_size == 0);
        assert!(Some(facts.arrival) <= facts.first_scheduled);
        assert!(facts.first_scheduled < facts.first_token && facts.first_token <= facts.last_token);
        assert_eq!(facts.last_token, Some(facts.ended));
    }
    record.tokens.extend_from_slice(step.tokens);
    record.finished.extend_from_slice(step.finished);
}

fn check_load(engine: &Engine, record: &Record) {
    let (load, totals) = (engine.load(), engine.totals());
    // Conservation of requests: each submitted one is refused, waiting, running, finished or aborted.
    assert_eq!(totals.submitted, record.accepted + record.refused);
    assert_eq!(totals.rejected, record.refused);
    let ended = totals.finished + totals.aborted;
    assert_eq!(record.accepted, u64::from(load.running) + u64::from(load.waiting) + ended);
    assert_eq!(
        (totals.finished, totals.aborted),
        (record.finished.len() as u64, record.aborted.len() as u64)
    );
    assert_eq!(totals.generated_tokens, record.tokens.len() as u64);
    // Conservation of blocks: never more than there are, none when nobody runs, at least one for each that runs.
    assert!(load.kv_blocks_used <= load.kv_blocks_total);
    assert!(load.running <= load.kv_blocks_used);
    assert!(load.running > 0 || load.kv_blocks_used == 0);
    assert_eq!(engine.is_empty(), load.running + load.waiting == 0);
}

proptest! {
    /// Every call sequence keeps the invariants that [`apply`] and [`check_load`] state, and the same sequence gives
    /// the same record.
    #[test]
    fn invariants_hold_and_runs_repeat(config in config(), calls in prop::collection::vec(call(), 0..400)) {
        let (_, record) = run(config.clone(), &calls);
        let (_, again) = run(config, &calls);
        prop_assert_eq!(record, again);
    }

    /// Left alone, an engine finishes all that it holds, and holds no block afterwards.
    #[test]
    fn everything_finishes(config in config(), calls in prop::collection::vec(call(), 0..200)) {
        let (mut engine, mut record) = run(config, &calls);
        let mut now = Micros::ZERO;
        let mut steps = 0_u32;
        while !engine.is_empty() || engine.in_flight().is_some() {
            apply(&mut engine, &mut record, &mut now, &Call::Start);
            apply(&mut engine, &mut record, &mut now, &Call::Finish);
            steps += 1;
            prop_assert!(steps < 100_000, "no end in sight");
        }
        check_load(&engine, &record);
        prop_assert_eq!(engine.load().kv_blocks_used, 0);
        // Latencies add up: the first one is the TTFT, and together they reach from the arrival to the last token.
        for facts in &record.finished {
            prop_assert!(facts.ttft().unwrap() <= facts.e2e());
        }
    }

    /// Requests without any output limit on sense: nothing panics, whatever the numbers are.
    #[test]
    fn absurd_input_never_panics(
        config in config(),
        numbers in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>()), 0..50),
    ) {
        let mut engine = Engine::new(config).unwrap();
        for (id, prompt, output, cached, time) in numbers {
            let request = Request { cached_tokens: cached, ..Request::new(RequestId(id), prompt, output) };
            let _ = engine.submit(Micros(time), request);
            let _ = engine.submit(Micros(time), Request { output_tokens: output % 5, prompt_tokens: prompt % 9, ..request });
            let _ = engine.start_iteration(Micros(time / 2));
            let _ = engine.abort(Micros(time), RequestId(id / 3));
            let _ = engine.finish_iteration(Micros(time));
        }
        prop_assert!(engine.load().kv_blocks_used <= engine.load().kv_blocks_total);
    }

    /// A configuration either is refused or runs; no number makes it panic.
    #[test]
    fn absurd_configurations_never_panic(
        block_size in any::<u32>(), kv_blocks in any::<u32>(), seqs in any::<u32>(), tokens in any::<u32>(),
        len in any::<u32>(), factor in any::<f64>(), a_ms in any::<f64>(),
    ) {
        let curve = Curve::Roofline(Roofline {
            a_ms, w_ms: 0.0, b_ms_per_token: 0.0, c_ms_per_token_squared: 0.0, d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        });
        let config = EngineConfig {
            block_size, kv_blocks, max_num_seqs: seqs, max_num_batched_tokens: tokens, max_model_len: len,
            max_waiting: 10, reserve_full_prompt: true, timing: Timing { curve, factor },
        };
        if let Ok(mut engine) = Engine::new(config) {
            engine.submit(Micros::MAX, Request::new(RequestId(1), 1, 1)).unwrap();
            prop_assert!(engine.start_iteration(Micros::MAX).is_some());
        }
    }
}

#[test]
fn ids_are_unique_in_a_step() {
    let config = EngineConfig {
        block_size: 16,
        kv_blocks: 1_000,
        max_num_seqs: 64,
        max_num_batched_tokens: 512,
        max_model_len: 4_096,
        max_waiting: 1_000,
        reserve_full_prompt: true,
        timing: Timing::new(Curve::Roofline(Roofline {
            a_ms: 1.0,
            w_ms: 0.0,
            b_ms_per_token: 0.0,
            c_ms_per_token_squared: 0.0,
            d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        })),
    };
    let mut engine = Engine::new(config).unwrap();
    for id in 0..200 {
        engine.submit(Micros::ZERO, Request::new(RequestId(id), 1 + (id as u32 * 37) % 900, 10)).unwrap();
    }
    let mut now = Micros::ZERO;
    while let Some(iteration) = engine.start_iteration(now) {
        now = iteration.ends_at;
        let step = engine.finish_iteration(now).unwrap();
        let ids: BTreeSet<RequestId> = step.tokens.iter().map(|token| token.id).collect();
        assert_eq!(ids.len(), step.tokens.len());
    }
    assert_eq!(engine.totals().finished, 200);
    assert_eq!(engine.totals().generated_tokens, 2_000);
}
