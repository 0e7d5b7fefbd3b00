//! Tables made from a known profile are read back to its iteration times.

use plimsoll_engine::{Curve, Profile, StepShape, Timing};
use plimsoll_profiles::{Form, Imported, Options, Source, import_sources};
use proptest::prelude::*;
use serde_json::json;

const PROMPTS: [u64; 12] = [64, 128, 256, 512, 1_024, 2_048, 3_072, 4_096, 6_144, 8_192, 12_288, 16_384];
const SEQUENCES: [u64; 9] = [1, 4, 8, 16, 32, 64, 128, 192, 256];
const CONTEXTS: [u64; 4] = [256, 1_024, 4_096, 16_384];

fn prefill(tokens: u64, cached: u64) -> StepShape {
    let attention = tokens as f64 * (cached as f64 + tokens as f64 / 2.0);
    StepShape { prefill_tokens: tokens, prefill_attention: attention, ..StepShape::default() }
}

fn decode(sequences: u64, context: u64) -> StepShape {
    StepShape { decode_sequences: sequences, decode_context: sequences * context, ..StepShape::default() }
}

/// A time as a table has it: to the microsecond.
fn ms(timing: &Timing, shape: StepShape) -> f64 {
    timing.duration(&shape).as_millis_f64()
}

fn decodes(profile: &Profile) -> Vec<(u64, u64)> {
    let all = CONTEXTS.into_iter().flat_map(|context| SEQUENCES.map(|sequences| (sequences, context)));
    all.filter(|(sequences, context)| sequences * context <= u64::from(profile.kv_tokens)).collect()
}

/// As Dynamo's profiler writes it.
fn profiler(profile: &Profile) -> Vec<Source> {
    let (timing, capacity) = (&profile.timing, f64::from(profile.kv_tokens));
    let times = PROMPTS.map(|tokens| ms(timing, prefill(tokens, 0)));
    let rates: Vec<f64> =
        PROMPTS.iter().zip(times).map(|(n, ms)| *n as f64 / ms * 1e3 / f64::from(profile.gpus)).collect();
    let rows = decodes(profile);
    let usage: Vec<f64> = rows.iter().map(|(b, c)| (b * c) as f64 / capacity).collect();
    let contexts: Vec<u64> = rows.iter().map(|(_, context)| *context).collect();
    let itl: Vec<f64> = rows.iter().map(|(b, c)| ms(timing, decode(*b, *c))).collect();
    let prefill = json!({"prefill_isl": PROMPTS, "prefill_ttft": times, "prefill_thpt_per_gpu": rates});
    let decode =
        json!({"x_kv_usage": usage, "y_context_length": contexts, "z_itl": itl, "max_kv_tokens": [capacity]});
    [("prefill", prefill), ("decode", decode)]
        .map(|(name, value)| Source { name: name.to_owned(), bytes: value.to_string().into_bytes() })
        .into()
}

/// A sheet of named columns, mixed iterations included.
fn sheet(profile: &Profile) -> Vec<Source> {
    let timing = &profile.timing;
    let prefills = PROMPTS.map(|tokens| json!([tokens, ms(timing, prefill(tokens, 0))]));
    let prefixes = [(4_096, 1_024), (4_096, 3_072), (16_384, 8_192)]
        .map(|(total, cached)| json!([total, cached, ms(timing, prefill(total - cached, cached))]));
    let decodes: Vec<_> =
        decodes(profile).into_iter().map(|(b, c)| json!([b, c, ms(timing, decode(b, c))])).collect();
    let mixed: Vec<_> = [(256, 8), (512, 64), (2_048, 32), (8_192, 128)]
        .into_iter()
        .map(|(tokens, sequences)| {
            let both = StepShape {
                decode_sequences: sequences,
                decode_context: sequences * 1_024,
                ..prefill(tokens, 0)
            };
            json!([tokens, sequences, 1_024, ms(timing, both)])
        })
        .collect();
    let text = json!({
        "name": profile.name, "gpus_per_engine": profile.gpus, "max_kv_tokens_per_engine": profile.kv_tokens,
        "prefill_columns": ["isl", "ttft_ms"], "prefill": prefills,
        "prefill_prefix_columns": ["isl_total", "cached_prefix", "latency_ms"], "prefill_with_prefix": prefixes,
        "decode_columns": ["batch", "context_len", "itl_ms"], "decode": decodes,
        "mixed_columns": ["prefill_chunk_tokens", "decode_seqs", "context_len", "iter_ms"], "mixed": mixed,
    });
    vec![Source { name: "sheet".to_owned(), bytes: text.to_string().into_bytes() }]
}

fn imported(sources: Vec<Source>) -> Imported {
    import_sources(sources, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The greatest distance at places that the tables do not have, as a share.
fn apart(one: &Profile, other: &Profile) -> f64 {
    let prompts = [100, 700, 1_500, 5_000, 10_000, 15_000].map(|tokens| prefill(tokens, 0));
    let decodes = [(2, 300), (12, 700), (50, 2_000), (100, 1_500), (150, 600)].map(|(b, c)| decode(b, c));
    let distance = |shape: StepShape| (ms(&one.timing, shape) / ms(&other.timing, shape) - 1.0).abs();
    prompts.into_iter().chain(decodes).map(distance).fold(0.0, f64::max)
}

#[test]
fn every_built_in_profile_comes_back() {
    let mut furthest = 0.0_f64;
    for truth in Profile::all_built_in().unwrap() {
        for (form, sources) in [("profiler", profiler(&truth)), ("sheet", sheet(&truth))] {
            let read = imported(sources);
            assert_ne!(read.form, Form::Table, "{} {form}", truth.name);
            assert_eq!(
                (read.profile.gpus, read.profile.kv_tokens),
                (truth.gpus, truth.kv_tokens),
                "{}",
                truth.name
            );
            let apart = apart(&truth, &read.profile);
            assert!(apart < 0.002, "{} {form}: {apart}", truth.name);
            furthest = furthest.max(apart);
        }
    }
    println!("at most {:.3} % apart", furthest * 100.0);
}

#[test]
fn what_no_closed_form_fits_is_kept() {
    // Small batches already read most experts: 8 sequences take three times as long as one, 256 little more than 8.
    let of = |batch: f64, context: f64| 10.0 + 30.0 * (1.0 - (-batch / 4.0).exp()) + 2e-5 * batch * context;
    let (batches, contexts) = ([1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0], [500.0, 4_000.0]);
    let decode: Vec<_> =
        contexts.into_iter().flat_map(|c| batches.map(|b| json!([b, c, of(b, c)]))).collect();
    let prefill: Vec<_> = PROMPTS.map(|n| json!([n, 25.0 + 0.04 * n as f64])).into();
    let text = json!({
        "gpus_per_engine": 8, "max_kv_tokens_per_engine": 1_000_000, "prefill_columns": ["isl", "ttft_ms"],
        "prefill": prefill, "decode_columns": ["batch", "context_len", "itl_ms"], "decode": decode,
    });
    let read = imported(vec![Source { name: "moe".to_owned(), bytes: text.to_string().into_bytes() }]);
    assert_eq!(read.form, Form::Table);
    assert!(read.errors.unwrap().decode.worst < 1e-3, "{:?}", read.errors);
    assert!(read.remarks.iter().any(|remark| remark.contains("no closed form")), "{:?}", read.remarks);
    let fitted = Options { keep: plimsoll_profiles::Keep::Fit, ..Options::default() };
    let source = Source { name: "moe".to_owned(), bytes: text.to_string().into_bytes() };
    let fitted = import_sources(vec![source], &fitted).unwrap();
    assert!(matches!(fitted.profile.timing.curve, Curve::Phases(_) | Curve::Roofline(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Noise of 5 % on every row moves no iteration time by more than 8 %, and the order of rows moves none.
    #[test]
    fn noise_is_smoothed_and_order_is_irrelevant(seed in any::<u64>()) {
        let truth = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
        let noise = |place: usize| {
            let bits = (seed ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            1.0 + 0.05 * (bits as f64 / (1_u64 << 23) as f64 - 1.0)
        };
        let rows = decodes(&truth);
        let table = |turn: usize| {
            let mut prompts: Vec<_> = PROMPTS
                .iter().enumerate()
                .map(|(n, tokens)| json!([tokens, ms(&truth.timing, prefill(*tokens, 0)) * noise(n)]))
                .collect();
            let mut decodes: Vec<_> = rows
                .iter().enumerate()
                .map(|(n, (b, c))| json!([b, c, ms(&truth.timing, decode(*b, *c)) * noise(100 + n)]))
                .collect();
            let lengths = (prompts.len(), decodes.len());
            prompts.rotate_left(turn % lengths.0);
            decodes.rotate_left(turn % lengths.1);
            let text = json!({
                "gpus_per_engine": 1, "max_kv_tokens_per_engine": truth.kv_tokens,
                "prefill_columns": ["isl", "ttft_ms"], "prefill": prompts,
                "decode_columns": ["batch", "context_len", "itl_ms"], "decode": decodes,
            });
            imported(vec![Source { name: "noisy".to_owned(), bytes: text.to_string().into_bytes() }])
        };
        let read = table(0);
        let apart = apart(&truth, &read.profile);
        prop_assert!(apart < 0.08, "{apart}");
        prop_assert_eq!(table(seed as usize % 97).profile, read.profile);
    }
}
