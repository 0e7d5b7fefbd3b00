//! Running ahead equals iteration by iteration.

use plimsoll_engine::{
    Admission, Curve, Engine, EngineConfig, Load, Micros, Pace, Preemption, Request, RequestFacts, RequestId,
    Roofline, Sink, Timing, Token, Totals,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Submit { id: u64, prompt: u32, output: u32, cached: u32, prefilled: bool },
    Abort { id: u64 },
    Look,
    Pace { factor: f64, noise: f64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..60_u64, 1..60_u32, 1..120_u32, 0..70_u32, prop::bool::weighted(0.2)).prop_map(
            |(id, prompt, output, cached, prefilled)| Event::Submit { id, prompt, output, cached, prefilled }
        ),
        1 => (0..60_u64).prop_map(|id| Event::Abort { id }),
        4 => Just(Event::Look),
        1 => (0.5..2.0_f64, 0.0..0.3_f64).prop_map(|(factor, noise)| Event::Pace { factor, noise }),
    ]
}

fn config() -> impl Strategy<Value = EngineConfig> {
    (1..17_u32, 8..80_u32, 1..12_u32, 0..40_u32, any::<bool>()).prop_map(
        |(block_size, kv_blocks, max_num_seqs, spare, reserve_full_prompt)| EngineConfig {
            block_size,
            kv_blocks,
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + spare,
            max_model_len: (block_size * kv_blocks).max(2),
            max_waiting: 16,
            reserve_full_prompt,
            timing: Timing::new(Curve::Roofline(Roofline {
                a_ms: 0.9,
                w_ms: 2.0,
                b_ms_per_token: 0.1,
                c_ms_per_token_squared: 1e-4,
                d_ms_per_sequence: 0.1,
                e_ms_per_kv_token: 1.3e-3,
            })),
        },
    )
}

/// All that an engine says about a run, its end included. Later tokens of one moment are one entry.
#[derive(Debug, Default, PartialEq)]
struct Log {
    admitted: Vec<(Micros, Admission)>,
    preempted: Vec<(Micros, Preemption)>,
    first: Vec<(Micros, Token)>,
    later: Vec<(Micros, Micros, u32)>,
    finished: Vec<RequestFacts>,
    aborted: Vec<Option<RequestFacts>>,
    looks: Vec<(Load, Totals, Option<Micros>)>,
}

impl Sink for Log {
    fn admitted(&mut self, at: Micros, admission: &Admission) {
        self.admitted.push((at, *admission));
    }

    fn preempted(&mut self, at: Micros, preemption: &Preemption) {
        self.preempted.push((at, *preemption));
    }

    fn first_token(&mut self, at: Micros, token: &Token) {
        self.first.push((at, *token));
    }

    fn later_tokens(&mut self, at: Micros, latency: Micros, count: u32) {
        match self.later.last_mut() {
            Some((when, gap, n)) if (*when, *gap) == (at, latency) => *n += count,
            _ => self.later.push((at, latency, count)),
        }
    }

    fn finished(&mut self, facts: &RequestFacts) {
        self.finished.push(*facts);
    }
}

/// The reference: no run, no shortcut.
fn step_to(engine: &mut Engine, clock: &mut Micros, until: Micros, log: &mut Log) {
    loop {
        if let Some(iteration) = engine.in_flight() {
            if iteration.ends_at > until {
                return;
            }
            *clock = iteration.ends_at;
            let step = engine.finish_iteration(*clock).expect("one is under way");
            step.admitted.iter().for_each(|x| log.admitted(step.ended_at, x));
            step.preempted.iter().for_each(|x| log.preempted(step.ended_at, x));
            for token in step.tokens {
                if token.is_first() {
                    log.first_token(step.ended_at, token);
                } else {
                    log.later_tokens(step.ended_at, token.latency, 1);
                }
            }
            step.finished.iter().for_each(|x| log.finished(x));
        } else if engine.is_empty() || *clock >= until || engine.start_iteration(*clock).is_none() {
            return;
        }
    }
}

fn play(config: EngineConfig, events: &[(u64, Event)], ahead: bool) -> Log {
    let mut engine = Engine::new(config).expect("a valid configuration");
    let (mut log, mut clock, mut now) = (Log::default(), Micros::ZERO, Micros::ZERO);
    let go = |engine: &mut Engine, log: &mut Log, clock: &mut Micros, until: Micros| {
        if ahead { engine.advance(until, log) } else { step_to(engine, clock, until, log) }
    };
    for (gap, event) in events {
        now = now.saturating_add(Micros(*gap));
        go(&mut engine, &mut log, &mut clock, now);
        match *event {
            Event::Submit { id, prompt, output, cached, prefilled } => {
                let request = Request {
                    cached_tokens: cached,
                    prefilled,
                    ..Request::new(RequestId(id), prompt, output)
                };
                let _ = engine.submit(now, request);
                clock = clock.max(now);
            }
            Event::Abort { id } => {
                log.aborted.push(engine.abort(now, RequestId(id)));
                clock = clock.max(now);
            }
            Event::Look => log.looks.push((engine.load(), *engine.totals(), engine.busy_until())),
            Event::Pace { factor, noise } => engine.set_pace(Pace { factor, noise, seed: 9 }),
        }
    }
    go(&mut engine, &mut log, &mut clock, Micros::MAX);
    log.looks.push((engine.load(), *engine.totals(), engine.busy_until()));
    log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever comes and goes whenever: the same tokens at the same times, the same facts, totals and loads.
    #[test]
    fn running_ahead_changes_nothing(
        config in config(),
        events in prop::collection::vec((prop_oneof![Just(0_u64), 1..20_000_u64, 1..400_000_u64], event()), 1..80),
    ) {
        prop_assert_eq!(play(config.clone(), &events, true), play(config, &events, false));
    }
}

#[test]
fn a_prefilled_request_decodes_from_its_second_token() {
    let config = EngineConfig {
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
    };
    let mut engine = Engine::new(config).unwrap();
    let request = Request { prefilled: true, ..Request::new(RequestId(1), 40, 5) };
    engine.submit(Micros(500), request).unwrap();
    let mut log = Log::default();
    engine.advance(Micros(11_500), &mut log);
    // Forty tokens came computed: one decode over a context of 41 tokens, 10 + 1 ms.
    assert_eq!(engine.load().kv_blocks_used, 11);
    assert_eq!(
        (log.first.len(), log.later.as_slice()),
        (0, [(Micros(11_500), Micros(11_000), 1)].as_slice())
    );
    engine.advance(Micros::MAX, &mut log);
    let facts = log.finished[0];
    assert_eq!((facts.emitted_tokens, facts.prefilled_tokens), (5, 0));
    assert_eq!((facts.first_token, facts.ended), (Some(Micros(11_500)), Micros(44_500)));
    assert_eq!(engine.totals().generated_tokens, 4);
    assert_eq!((engine.totals().cache_query_tokens, engine.totals().cache_hit_tokens), (0, 0));
    // The first token was another's: asking for that alone asks for nothing.
    let nothing = Request { prefilled: true, ..Request::new(RequestId(2), 40, 1) };
    assert!(engine.submit(Micros(500), nothing).is_err());
}
