//! The world against queueing theory, where there is a formula.

use plimsoll_common::units::Micros;
use plimsoll_engine::{Curve, EngineConfig, Profile, Roofline, Timing};
use plimsoll_sim::{
    Outcome, PoolConfig, World, WorldConfig,
    policies::Fixed,
    workload::{Arrival, Generator, Workload},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One engine that runs `sequences` requests at a time; an iteration takes `a_ms`, and `b_ms` a token.
fn run(sequences: u32, a_ms: f64, b_ms: f64, workload: &Workload) -> Outcome {
    let profile = Profile::built_in("llama-3.1-8b-h200-tp1").expect("a built-in profile");
    let mut pool = PoolConfig::new("pool", &profile);
    pool.engine = EngineConfig {
        max_num_seqs: sequences,
        timing: Timing::new(Curve::Roofline(Roofline {
            a_ms,
            w_ms: 0.0,
            b_ms_per_token: b_ms,
            c_ms_per_token_squared: 0.0,
            d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        })),
        ..pool.engine
    };
    World::new(&WorldConfig::aggregated(pool), workload).expect("a valid world").run(&mut Fixed::new(vec![1]))
}

fn mean_ttft_ms(outcome: &Outcome) -> f64 {
    let ttft = outcome.requests.iter().filter_map(plimsoll_sim::RequestRecord::ttft);
    ttft.map(Micros::as_millis_f64).sum::<f64>() / outcome.requests.len() as f64
}

/// Poisson arrivals and constant service, one at a time: the mean wait is ρ D / (2 (1 − ρ)) (Pollaczek and Khinchine).
#[test]
fn one_prompt_at_a_time_is_m_d_1() {
    let (service_ms, prompt) = (10.0 + 0.1 * 400.0, 400.0);
    for load in [0.3, 0.6, 0.8, 0.9] {
        let rate = load / (service_ms / 1e3);
        let mut generator = Generator::poisson(rate, 150_000.0 / rate, prompt, 1.0);
        (generator.prompt.cv, generator.output.cv) = (0.0, 0.0);
        let outcome = run(1, 10.0, 0.1, &generator.generate(11).expect("a generator"));
        let wait = mean_ttft_ms(&outcome) - service_ms;
        let theory = load * service_ms / (2.0 * (1.0 - load));
        println!("M/D/1 at {load}: {wait:.2} ms, theory {theory:.2} ms");
        assert!((wait / theory - 1.0).abs() < 0.05, "load {load}: {wait} ms against {theory} ms");
    }
}

/// Poisson arrivals and exponential service by the places of a batch whose iterations take equally long however full
/// they are: the mean wait is Erlang's C / (c μ − λ).
#[test]
fn the_places_of_a_batch_are_the_servers_of_m_m_c() {
    let (iteration_ms, tokens, places) = (1.0, 200.0, 8_u32);
    for load in [0.6, 0.8, 0.9] {
        let service_s = tokens * iteration_ms / 1e3;
        let rate = load * f64::from(places) / service_s;
        let mut generator = Generator::poisson(rate, 100_000.0 / rate, 1.0, tokens);
        generator.prompt.cv = 0.0;
        // Waits of one long queue hang together: the mean of several runs is nearer to the truth than of one.
        let waits = (0..4).map(|seed| {
            let times = generator.generate(seed).expect("a generator");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            // Exponential lengths: minus the logarithm of an even number.
            let mut arrival = |a: &Arrival| {
                let length = (-tokens * (1.0 - rng.random::<f64>()).ln()).round().clamp(1.0, 16_000.0) as u32;
                Arrival { output_tokens: length, ..*a }
            };
            let workload = Workload::new(times.arrivals().iter().map(&mut arrival).collect());
            // A request waits for the iteration under way, half of one on average, and its own first one.
            mean_ttft_ms(&run(places, iteration_ms, 0.0, &workload)) - 1.5 * iteration_ms
        });
        let wait = waits.sum::<f64>() / 4.0;
        let theory =
            erlang_c(places, load * f64::from(places)) * service_s * 1e3 / (f64::from(places) * (1.0 - load));
        println!("M/M/{places} at {load}: {wait:.2} ms, theory {theory:.2} ms");
        assert!((wait - theory).abs() < 0.07 * theory + 1.0, "load {load}: {wait} ms against {theory} ms");
    }
}

/// The probability that all servers are busy, for an offered load of `erlangs`.
fn erlang_c(servers: u32, erlangs: f64) -> f64 {
    let mut blocked = 1.0;
    for n in 1..=servers {
        blocked = erlangs * blocked / (f64::from(n) + erlangs * blocked);
    }
    let load = erlangs / f64::from(servers);
    blocked / (1.0 - load * (1.0 - blocked))
}
