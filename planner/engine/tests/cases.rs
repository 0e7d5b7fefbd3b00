//! Small cases computed by hand.

use plimsoll_engine::{
    ConfigError, Curve, Engine, EngineConfig, Iteration, Micros, Rejected, Request, RequestFacts, RequestId,
    Roofline, Timing,
};

/// 10 ms an iteration and 1 ms a token, so that times read off as token counts.
fn config() -> EngineConfig {
    EngineConfig {
        block_size: 4,
        kv_blocks: 16,
        max_num_seqs: 4,
        max_num_batched_tokens: 8,
        max_model_len: 64,
        max_waiting: 100,
        reserve_full_prompt: true,
        timing: Timing::new(Curve::Roofline(Roofline {
            a_ms: 10.0,
            w_ms: 0.0,
            b_ms_per_token: 1.0,
            c_ms_per_token_squared: 0.0,
            d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        })),
    }
}

fn engine(config: EngineConfig) -> Engine {
    Engine::new(config).expect("a valid configuration")
}

fn request(id: u64, prompt: u32, output: u32) -> Request {
    Request::new(RequestId(id), prompt, output)
}

/// Runs one iteration and returns it with the ids of its tokens and what finished.
fn step(engine: &mut Engine, now: &mut Micros) -> (Iteration, Vec<u64>, Vec<RequestFacts>) {
    let iteration = engine.start_iteration(*now).expect("something to compute");
    *now = iteration.ends_at;
    let step = engine.finish_iteration(*now).expect("an iteration under way");
    (iteration, step.tokens.iter().map(|token| token.id.0).collect(), step.finished.to_vec())
}

#[test]
fn one_request_prefills_in_chunks_and_decodes() {
    let mut engine = engine(config());
    let mut now = Micros(1_000);
    engine.submit(now, request(1, 10, 3)).unwrap();

    // Ten prompt tokens against a budget of eight: 10 + 8 ms without a token, then 10 + 2 ms with the first one.
    let (first, tokens, _) = step(&mut engine, &mut now);
    assert_eq!((first.ends_at.saturating_sub(first.started_at), tokens.len()), (Micros(18_000), 0));
    assert_eq!(first.stats.shape.prefill_tokens, 8);
    assert!((first.stats.shape.prefill_attention - 8.0 * 4.0).abs() < 1e-9);
    let (second, tokens, _) = step(&mut engine, &mut now);
    assert_eq!((second.ends_at.saturating_sub(second.started_at), tokens), (Micros(12_000), vec![1]));
    assert!((second.stats.shape.prefill_attention - 2.0 * (8.0 + 1.0)).abs() < 1e-9);

    // Two more tokens, one decode each of 10 + 1 ms, over contexts of 11 and 12 tokens.
    let (third, _, _) = step(&mut engine, &mut now);
    assert_eq!((third.stats.shape.decode_sequences, third.stats.shape.decode_context), (1, 11));
    let (fourth, _, finished) = step(&mut engine, &mut now);
    assert_eq!(fourth.stats.shape.decode_context, 12);
    let facts = finished[0];
    assert_eq!(facts.queue_time(), Some(Micros::ZERO));
    assert_eq!(facts.ttft(), Some(Micros(30_000)));
    assert_eq!(facts.decode_time(), Some(Micros(22_000)));
    assert_eq!(facts.e2e(), Micros(52_000));
    assert_eq!((facts.emitted_tokens, facts.prefilled_tokens, facts.preemptions), (3, 10, 0));
    assert!(engine.is_empty());
    assert_eq!(engine.load().kv_blocks_used, 0);
    assert!(engine.start_iteration(now).is_none());
}

#[test]
fn running_sequences_come_before_the_queue() {
    let mut engine = engine(config());
    let mut now = Micros::ZERO;
    engine.submit(now, request(1, 4, 5)).unwrap();
    step(&mut engine, &mut now);
    engine.submit(now, request(2, 20, 2)).unwrap();

    // One decode and seven of the newcomer's twenty prompt tokens fill the budget; then the remainder.
    let (iteration, tokens, _) = step(&mut engine, &mut now);
    assert_eq!((iteration.stats.batched_tokens, iteration.stats.shape.prefill_tokens), (8, 7));
    assert_eq!(tokens, vec![1]);
    step(&mut engine, &mut now);
    let (iteration, tokens, _) = step(&mut engine, &mut now);
    assert_eq!((iteration.stats.shape.prefill_tokens, tokens), (6, vec![1, 2]));
}

#[test]
fn the_sequence_limit_holds_the_queue_back() {
    let mut engine = engine(EngineConfig { max_num_seqs: 1, ..config() });
    let mut now = Micros::ZERO;
    engine.submit(now, request(1, 2, 2)).unwrap();
    engine.submit(now, request(2, 2, 1)).unwrap();
    assert_eq!(step(&mut engine, &mut now).1, vec![1]);
    assert_eq!((engine.load().running, engine.load().waiting), (1, 1));
    assert_eq!(step(&mut engine, &mut now).1, vec![1]);
    assert_eq!(step(&mut engine, &mut now).1, vec![2]);
}

#[test]
fn the_youngest_is_preempted_and_returns_first() {
    // Four blocks of four tokens: two requests of seven prompt tokens fill them; their ninth tokens need more.
    let mut engine =
        engine(EngineConfig { kv_blocks: 4, max_model_len: 16, max_num_batched_tokens: 16, ..config() });
    let mut now = Micros::ZERO;
    engine.submit(now, request(1, 7, 4)).unwrap();
    engine.submit(now, request(2, 7, 4)).unwrap();
    engine.submit(now, request(3, 1, 1)).unwrap();
    assert_eq!(step(&mut engine, &mut now).1, vec![1, 2]); // 7 tokens stored each
    assert_eq!(step(&mut engine, &mut now).1, vec![1, 2]); // 8 each: both blocks full

    // The ninth token of request 1 takes the blocks of request 2, which goes to the head of the queue, before 3; and
    // in such an iteration nobody is admitted.
    let iteration = engine.start_iteration(now).unwrap();
    now = iteration.ends_at;
    let report = engine.finish_iteration(now).unwrap();
    assert_eq!(report.preempted.len(), 1);
    assert_eq!((report.preempted[0].id, report.preempted[0].lost_tokens), (RequestId(2), 8));
    assert_eq!(report.tokens.len(), 1);
    assert_eq!((engine.load().running, engine.load().waiting), (1, 2));

    // Request 2 needs three blocks for its nine known tokens and only one is free: it waits, and 3 waits behind it.
    let (_, tokens, finished) = step(&mut engine, &mut now);
    assert_eq!((tokens, finished[0].id), (vec![1], RequestId(1)));

    // Then it computes all nine again and goes on with its third token; request 3 fits beside it.
    let (iteration, tokens, _) = step(&mut engine, &mut now);
    assert_eq!((iteration.stats.shape.prefill_tokens, tokens), (10, vec![2, 3]));
    let (_, _, finished) = step(&mut engine, &mut now);
    let facts = finished[0];
    assert_eq!((facts.id, facts.preemptions, facts.prefilled_tokens), (RequestId(2), 1, 7 + 9));
    assert_eq!(facts.first_scheduled, Some(Micros::ZERO));
    assert_eq!(engine.totals().preemptions, 1);
    assert_eq!(engine.totals().cache_query_tokens, 15); // first admissions only
}

#[test]
fn a_prompt_is_not_begun_that_cannot_be_finished() {
    let mut tight = EngineConfig { kv_blocks: 4, max_model_len: 16, max_num_batched_tokens: 4, ..config() };
    for (reserve, running) in [(true, 1), (false, 2)] {
        tight.reserve_full_prompt = reserve;
        let mut engine = engine(tight.clone());
        let mut now = Micros::ZERO;
        engine.submit(now, request(1, 3, 8)).unwrap();
        engine.submit(now, request(2, 14, 1)).unwrap();
        step(&mut engine, &mut now);
        // Three blocks are free: the first chunk of request 2 fits, all of it does not.
        assert_eq!(engine.load().running, running, "reserve_full_prompt = {reserve}");
    }
}

#[test]
fn a_prefix_hit_is_context_but_no_work() {
    let mut engine = engine(config());
    let mut now = Micros::ZERO;
    // Whole blocks of the hit count, so 9 of 12 become 8, and four tokens remain.
    engine.submit(now, Request { cached_tokens: 9, ..request(1, 12, 1) }).unwrap();
    // A hit on everything still leaves a token to compute, and with it its block.
    engine.submit(now, Request { cached_tokens: 8, ..request(2, 8, 1) }).unwrap();
    let (iteration, tokens, finished) = step(&mut engine, &mut now);
    assert_eq!(iteration.stats.shape.prefill_tokens, 4 + 4);
    assert!((iteration.stats.shape.prefill_attention - (4.0 * (8.0 + 2.0) + 4.0 * (4.0 + 2.0))).abs() < 1e-9);
    assert_eq!(tokens, vec![1, 2]);
    assert_eq!((finished[0].cached_tokens, finished[1].cached_tokens), (8, 4));
    assert_eq!((engine.totals().cache_query_tokens, engine.totals().cache_hit_tokens), (20, 12));
}

#[test]
fn an_abort_frees_at_once_and_its_result_is_thrown_away() {
    let mut engine = engine(config());
    engine.submit(Micros::ZERO, request(1, 4, 9)).unwrap();
    engine.submit(Micros::ZERO, request(2, 4, 1)).unwrap();
    engine.submit(Micros::ZERO, request(3, 60, 1)).unwrap();
    let iteration = engine.start_iteration(Micros::ZERO).unwrap();
    let facts = engine.abort(Micros(5), RequestId(1)).unwrap();
    assert_eq!((facts.emitted_tokens, facts.ended, facts.first_token), (0, Micros(5), None));
    assert!(engine.abort(Micros(5), RequestId(3)).is_some());
    assert!(engine.abort(Micros(5), RequestId(1)).is_none());
    // The same id may come back at once; the iteration under way does not know it.
    engine.submit(Micros(6), request(1, 4, 9)).unwrap();
    assert_eq!(engine.load().kv_blocks_used, 1);
    let step = engine.finish_iteration(iteration.ends_at).unwrap();
    assert_eq!(step.tokens.iter().map(|token| token.id.0).collect::<Vec<_>>(), vec![2]);
    assert_eq!((engine.load().running, engine.load().waiting), (0, 1));
    assert_eq!(engine.totals().aborted, 2);
}

#[test]
fn real_time_may_be_late_but_never_early() {
    let mut engine = engine(config());
    engine.submit(Micros(100), request(1, 1, 2)).unwrap();
    let iteration = engine.start_iteration(Micros(50)).unwrap(); // The clock never runs backwards.
    assert_eq!(iteration.started_at, Micros(100));
    assert_eq!(engine.start_iteration(Micros(200)), Some(iteration));
    let step = engine.finish_iteration(Micros::ZERO).unwrap();
    assert_eq!(step.ended_at, Micros(11_100));
    assert!(engine.finish_iteration(Micros(20_000)).is_none());
    let _ = engine.start_iteration(Micros(20_000)).unwrap();
    let step = engine.finish_iteration(Micros(99_000)).unwrap();
    assert_eq!(step.tokens[0].latency, Micros(99_000 - 11_100));
}

#[test]
fn what_can_never_run_is_refused() {
    let mut engine = engine(EngineConfig { max_waiting: 1, ..config() });
    let now = Micros::ZERO;
    assert_eq!(engine.submit(now, request(1, 0, 1)), Err(Rejected::EmptyPrompt));
    assert_eq!(engine.submit(now, request(1, 1, 0)), Err(Rejected::NoOutput));
    assert_eq!(engine.submit(now, request(1, 60, 5)), Err(Rejected::TooLong { tokens: 65, limit: 64 }));
    let absurd = request(1, u32::MAX, u32::MAX);
    assert!(matches!(engine.submit(now, absurd), Err(Rejected::TooLong { .. })));
    engine.submit(now, request(1, 1, 1)).unwrap();
    assert_eq!(engine.submit(now, request(1, 1, 1)), Err(Rejected::DuplicateId));
    assert_eq!(engine.submit(now, request(2, 1, 1)), Err(Rejected::QueueFull { limit: 1 }));
    assert_eq!((engine.totals().submitted, engine.totals().rejected), (7, 6));
}

#[test]
fn a_configuration_that_cannot_run_is_refused_by_name() {
    let bad = EngineConfig { block_size: 0, ..config() };
    assert!(matches!(bad.validate(), Err(ConfigError::OutOfRange { name: "block_size", .. })));
    let bad = EngineConfig { max_num_batched_tokens: 2, ..config() };
    assert!(matches!(bad.validate(), Err(ConfigError::BudgetBelowSequences { tokens: 2, seqs: 4 })));
    let bad = EngineConfig { max_model_len: 65, ..config() };
    let error = bad.validate().unwrap_err();
    assert!(error.to_string().contains("hold 64 tokens"), "{error}");
}
