//! The tracker's and the page reader's promises on small pages.

use std::fmt::Write;

use plimsoll_common::engine::DistributionKind;
use proptest::prelude::*;

use super::{EngineTracker, EngineUpdate, fixtures::page};

/// A small vLLM page: request totals, one histogram and what else a test appends.
#[derive(Clone, Default)]
struct Engine {
    start: Option<f64>,
    running: u64,
    ended: u64,
    tokens: u64,
    /// Not cumulative: up to 0.1 s, up to 1 s, beyond.
    ttft: [u64; 3],
    sum: f64,
    more: String,
}

impl Engine {
    fn page(&self) -> String {
        let Self { running, ended, tokens, ttft, sum, .. } = self;
        let mut page = format!(
            "vllm:num_requests_running{{engine=\"0\"}} {running}\n\
             http_requests_total{{handler=\"/v1/completions\",method=\"POST\",status=\"2xx\"}} {ended}\n\
             vllm:generation_tokens_total{{engine=\"0\"}} {tokens}\n"
        );
        if let Some(start) = self.start {
            writeln!(page, "process_start_time_seconds {start}").unwrap();
        }
        page + &ttft_series("engine=\"0\"", &["0.1", "1.0"], ttft, *sum) + &self.more
    }
}

fn ttft_series(labels: &str, edges: &[&str], buckets: &[u64], sum: f64) -> String {
    let name = "vllm:time_to_first_token_seconds";
    let mut text = String::new();
    let mut cumulative = 0;
    for (edge, n) in edges.iter().copied().chain(["+Inf"]).zip(buckets) {
        cumulative += n;
        writeln!(text, "{name}_bucket{{{labels},le=\"{edge}\"}} {cumulative}").unwrap();
    }
    writeln!(text, "{name}_count{{{labels}}} {cumulative}\n{name}_sum{{{labels}}} {sum}").unwrap();
    text
}

fn observe(tracker: &mut EngineTracker, engine: &Engine) -> EngineUpdate {
    tracker.observe(&page(&engine.page()))
}

fn ttft(update: &EngineUpdate) -> Option<(Vec<(usize, u64)>, u64)> {
    let mut of_kind = update.delta.histograms.iter().filter(|delta| delta.kind == DistributionKind::Ttft);
    let delta = of_kind.next()?;
    assert!(of_kind.next().is_none(), "one delta for each layout");
    Some((delta.buckets.clone(), delta.sum))
}

fn running_engine() -> Engine {
    Engine { running: 2, ended: 10, tokens: 100, ttft: [5, 4, 1], sum: 7.5, ..Engine::default() }
}

#[test]
fn the_first_page_of_a_running_engine_is_a_baseline() {
    let mut tracker = EngineTracker::new();
    let first = observe(&mut tracker, &running_engine());
    assert_eq!((first.delta.arrived, first.delta.generation_tokens), (Some(0), Some(0)));
    assert_eq!(ttft(&first), None);
    // What the page does not tell stays untold.
    assert_eq!((first.delta.prompt_tokens, first.gauges.waiting), (None, None));
    let later = Engine { running: 3, ended: 12, tokens: 140, ttft: [5, 6, 1], sum: 8.25, ..running_engine() };
    let second = observe(&mut tracker, &later);
    assert_eq!((second.delta.arrived, second.delta.generation_tokens), (Some(3), Some(40)));
    assert_eq!(ttft(&second), Some((vec![(1, 2)], 750_000)));
    assert_eq!(second.delta.resets, 0);
}

#[test]
fn an_engine_that_appears_is_counted_from_zero() {
    let mut tracker = EngineTracker::new();
    tracker.absent();
    let first = observe(&mut tracker, &running_engine());
    assert_eq!((first.delta.arrived, first.delta.generation_tokens), (Some(12), Some(100)));
    assert_eq!(ttft(&first), Some((vec![(0, 5), (1, 4), (2, 1)], 7_500_000)));
    assert_eq!(first.delta.resets, 0);
}

#[test]
fn a_fallen_counter_or_cumulative_bucket_is_a_reset() {
    let fresh = Engine { running: 1, ended: 0, tokens: 3, ttft: [1, 0, 0], sum: 0.05, ..Engine::default() };
    // Only the count of samples up to 0.1 s fell.
    let overtaken = Engine { ttft: [4, 9, 1], sum: 9.0, ..running_engine() };
    for (engine, arrived, samples) in [(fresh, 1, 1), (overtaken, 12, 14)] {
        let mut tracker = EngineTracker::new();
        observe(&mut tracker, &running_engine());
        let update = observe(&mut tracker, &engine);
        assert_eq!(update.delta.resets, 1);
        assert_eq!(update.delta.arrived, Some(arrived));
        assert_eq!(update.delta.generation_tokens, Some(engine.tokens));
        assert_eq!(ttft(&update).unwrap().0.iter().map(|(_, n)| n).sum::<u64>(), samples);
    }
}

#[test]
fn a_bucket_that_falls_while_all_cumulative_counts_rise_is_no_reset() {
    let mut tracker = EngineTracker::new();
    observe(&mut tracker, &running_engine());
    // Written while samples came in: what is below 0.1 s by now was still seen above it.
    let update = observe(&mut tracker, &Engine { ttft: [12, 2, 0], sum: 7.9, ..running_engine() });
    assert_eq!((update.delta.resets, update.delta.generation_tokens), (0, Some(0)));
    assert_eq!(ttft(&update), Some((vec![(0, 4)], 400_000)));
}

#[test]
fn what_falls_in_a_process_that_goes_on_began_anew_alone() {
    let mut tracker = EngineTracker::new();
    let engine = |ended, tokens, ttft| Engine { start: Some(1.5e9), ended, tokens, ttft, ..running_engine() };
    observe(&mut tracker, &engine(10, 100, [5, 4, 1]));
    let update = observe(&mut tracker, &engine(11, 7, [1, 0, 0]));
    assert_eq!(update.delta.resets, 1);
    assert_eq!((update.delta.arrived, update.delta.generation_tokens), (Some(1), Some(7)));
    assert_eq!(ttft(&update).map(|(buckets, _)| buckets), Some(vec![(0, 1)]));
}

#[test]
fn a_moved_start_time_is_a_reset_even_where_counters_overtook() {
    let mut tracker = EngineTracker::new();
    observe(&mut tracker, &Engine { start: Some(1.5e9), ..running_engine() });
    let overtaken = Engine { start: Some(1.5e9 + 0.25), ended: 20, tokens: 150, ..running_engine() };
    let update = observe(&mut tracker, &overtaken);
    assert_eq!((update.delta.resets, update.delta.generation_tokens), (1, Some(150)));
    assert_eq!(update.delta.arrived, Some(22));
}

#[test]
fn absence_between_pages_is_a_restart_unless_the_start_time_denies_it() {
    for (start, resets, tokens) in [(None, 1, 150), (Some(1.5e9), 0, 50)] {
        let mut tracker = EngineTracker::new();
        observe(&mut tracker, &Engine { start, ..running_engine() });
        tracker.absent();
        let update = observe(&mut tracker, &Engine { start, tokens: 150, ..running_engine() });
        assert_eq!((update.delta.resets, update.delta.generation_tokens), (resets, Some(tokens)));
        // The absence is used up.
        let update = observe(&mut tracker, &Engine { start, tokens: 151, ..running_engine() });
        assert_eq!((update.delta.resets, update.delta.generation_tokens), (0, Some(1)));
    }
}

/// The page of an engine with other TTFT buckets.
fn relaid(engine: &Engine, buckets: &[u64]) -> String {
    let page = engine.page();
    let rest =
        page.lines().filter(|line| !line.contains("time_to_first")).fold(String::new(), |mut page, line| {
            writeln!(page, "{line}").unwrap();
            page
        });
    rest + &ttft_series("engine=\"0\"", &["0.1", "0.5", "1.0"], buckets, 0.9)
}

#[test]
fn a_restart_with_other_buckets_is_seen_by_its_start_or_by_fewer_samples() {
    for start in [Some(1.6e9), None] {
        let mut tracker = EngineTracker::new();
        observe(&mut tracker, &Engine { start: start.map(|start| start - 9.0), ..running_engine() });
        let update = tracker.observe(&page(&relaid(&Engine { start, ..running_engine() }, &[1, 2, 0, 0])));
        assert_eq!(update.delta.resets, 1);
        assert_eq!(ttft(&update), Some((vec![(0, 1), (1, 2)], 900_000)));
    }
}

#[test]
fn other_buckets_without_a_restart_count_from_the_second_page_on() {
    let mut tracker = EngineTracker::new();
    observe(&mut tracker, &running_engine());
    let update = tracker.observe(&page(&relaid(&running_engine(), &[5, 4, 2, 0])));
    assert_eq!((ttft(&update), update.delta.resets), (None, 0));
    // It was a damaged page: nothing is lost.
    let update = observe(&mut tracker, &Engine { ttft: [6, 4, 1], sum: 7.6, ..running_engine() });
    assert_eq!((ttft(&update), update.delta.resets), (Some((vec![(0, 1)], 100_000)), 0));
    // They stay: the family goes on in other buckets.
    for buckets in [[5, 4, 2, 0], [5, 4, 3, 0]] {
        assert_eq!(ttft(&tracker.observe(&page(&relaid(&running_engine(), &buckets)))), None);
    }
    let update = tracker.observe(&page(&relaid(&running_engine(), &[5, 5, 3, 1])));
    assert_eq!(ttft(&update).map(|(buckets, _)| buckets), Some(vec![(1, 1), (3, 1)]));
}

/// A process that tells no start restarts unseen, and a series of the old one returns later with less.
#[test]
fn what_returns_with_less_after_a_while_began_anew_alone() {
    let mut tracker = EngineTracker::new();
    observe(&mut tracker, &running_engine());
    let without_ttft = Engine { ended: 12, tokens: 140, ..running_engine() };
    let page_of = |engine: &Engine| {
        let rest = engine.page();
        let kept = rest.lines().filter(|line| !line.contains("time_to_first"));
        kept.flat_map(|line| [line, "\n"]).collect::<String>()
    };
    let update = tracker.observe(&page(&page_of(&without_ttft)));
    assert_eq!(update.delta.generation_tokens, Some(40));
    // Were all of it counted anew, the forty tokens would count twice.
    let update = observe(&mut tracker, &Engine { ttft: [1, 0, 0], sum: 0.05, ..without_ttft });
    assert_eq!((update.delta.generation_tokens, update.delta.resets), (Some(0), 1));
    assert_eq!(ttft(&update), Some((vec![(0, 1)], 50_000)));
}

#[test]
fn what_an_incomplete_page_hid_is_no_news() {
    let mut tracker = EngineTracker::new();
    let mut engine = running_engine();
    let hidden = engine.page().replace("vllm:generation_tokens_total{", "vllm:generation_tokens_total{{");
    let first = tracker.observe(&page(&hidden));
    assert_eq!(first.quality.malformed_lines, 1);
    assert_eq!(observe(&mut tracker, &engine).delta.generation_tokens, Some(0));
    engine.tokens += 5;
    assert_eq!(observe(&mut tracker, &engine).delta.generation_tokens, Some(5));
    // The same for a histogram.
    let mut tracker = EngineTracker::new();
    tracker.observe(&page(&engine.page().replace("time_to_first_token_seconds", "time to first token")));
    assert_eq!(ttft(&observe(&mut tracker, &engine)), None);
}

#[test]
fn a_torn_series_is_told_once_it_agrees_again() {
    let torn = |engine: &Engine| {
        let page = engine.page();
        page.replace("seconds_count{engine=\"0\"} ", "seconds_count{engine=\"0\"} 9")
    };
    let mut tracker = EngineTracker::new();
    observe(&mut tracker, &running_engine());
    let mut engine = Engine { ttft: [6, 4, 1], sum: 7.6, tokens: 101, ..running_engine() };
    let update = tracker.observe(&page(&torn(&engine)));
    assert_eq!((update.quality.torn_series, update.delta.generation_tokens), (1, Some(1)));
    assert_eq!((ttft(&update), update.delta.resets), (None, 0));
    engine.ttft = [7, 4, 1];
    engine.sum = 7.7;
    let update = observe(&mut tracker, &engine);
    assert_eq!(ttft(&update), Some((vec![(0, 2)], 200_000)));

    // Torn on the very first page: its history must not come as news.
    let mut tracker = EngineTracker::new();
    tracker.observe(&page(&torn(&running_engine())));
    assert_eq!(ttft(&observe(&mut tracker, &running_engine())), None);
    assert_eq!(ttft(&observe(&mut tracker, &engine)), Some((vec![(0, 2)], 200_000)));
}

#[test]
fn contradictions_of_all_kinds_are_torn() {
    let base = "vllm:num_requests_running 1\n";
    let name = "vllm:time_to_first_token_seconds";
    let bucket = |le: &str, n: &str| format!("{name}_bucket{{le=\"{le}\"}} {n}\n");
    let ends = |count: u64| format!("{}{name}_count {count}\n{name}_sum 1\n", bucket("+Inf", "3"));
    for series in [
        bucket("0.1", "3") + &bucket("1", "2") + &ends(3),
        bucket("0.1", "4") + &ends(3),
        bucket("0.1", "1") + &ends(4),
        bucket("1", "1") + &bucket("0.1", "2") + &ends(3),
        bucket("0.1", "1") + &bucket("0.1", "2") + &ends(3),
        bucket("-1", "1") + &ends(3),
        bucket("x", "1") + &ends(3),
        bucket("0.1", "-1") + &ends(3),
        bucket("0.1", "NaN") + &ends(3),
        ends(3),
        bucket("0.1", "1"),
        (bucket("0.1", "1") + &ends(3)).replace("_sum 1", "_sum NaN"),
        format!("{name} 7\n{}{}", bucket("0.1", "1"), ends(3)),
    ] {
        let page = page(&format!("{base}{series}"));
        assert_eq!(page.quality.torn_series, 1, "{series}");
        assert_eq!(EngineTracker::new().observe(&page).delta.histograms, []);
    }
}

#[test]
fn data_parallel_engines_are_merged_after_each_was_compared() {
    let both = |first: [u64; 3], second: [u64; 3], tokens: (u64, u64)| {
        let mut text = String::from(
            "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\n\
             vllm:num_requests_waiting{engine=\"0\"} 0\nvllm:num_requests_waiting{engine=\"1\"} 5\n\
             vllm:kv_cache_usage_perc{engine=\"0\"} 1\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.2\n\
             vllm:cache_config_info{engine=\"0\",num_gpu_blocks=\"10\",block_size=\"16\"} 1\n\
             vllm:cache_config_info{engine=\"1\",num_gpu_blocks=\"30\",block_size=\"16\"} 1\n",
        );
        writeln!(text, "vllm:prompt_tokens_total{{engine=\"0\"}} {}", tokens.0).unwrap();
        writeln!(text, "vllm:prompt_tokens_total{{engine=\"1\"}} {}", tokens.1).unwrap();
        text + &ttft_series("engine=\"0\"", &["0.1", "1"], &first, 1.0)
            + &ttft_series("engine=\"1\"", &["0.1", "1"], &second, 2.0)
    };
    let mut tracker = EngineTracker::new();
    tracker.observe(&page(&both([1, 1, 0], [0, 0, 0], (10, 20))));
    let update = tracker.observe(&page(&both([2, 1, 0], [3, 0, 1], (11, 22))));
    assert_eq!((update.gauges.running, update.gauges.waiting), (Some(7), Some(5)));
    assert_eq!(update.gauges.kv_usage.map(|usage| usage.to_ppm()), Some(400_000));
    assert_eq!(update.identity.kv_capacity_tokens, Some(640));
    assert_eq!(update.delta.prompt_tokens, Some(3));
    assert_eq!(ttft(&update).unwrap().0, [(0, 4), (2, 1)]);
    // No counter of ended requests on this page: arrivals are untold, not zero.
    assert_eq!(update.delta.arrived, None);
}

#[test]
fn old_and_new_names_are_never_added_up() {
    let old = ttft_series("engine=\"0\"", &["0.1", "1"], &[9, 0, 0], 0.5)
        .replace("time_to_first_token_seconds", "time_per_output_token_seconds");
    let new = ttft_series("engine=\"0\"", &["0.1", "1"], &[4, 0, 0], 0.2)
        .replace("time_to_first_token_seconds", "inter_token_latency_seconds");
    let usage_old = "vllm:gpu_cache_usage_perc 0.9\n";
    let usage_new = "vllm:kv_cache_usage_perc 0.3\n";
    for text in [format!("{old}{new}{usage_old}{usage_new}"), format!("{new}{old}{usage_new}{usage_old}")] {
        let mut tracker = EngineTracker::new();
        tracker.absent();
        let update = tracker.observe(&page(&text));
        assert_eq!(update.delta.histograms.len(), 1);
        let itl = &update.delta.histograms[0];
        assert_eq!((itl.kind, &*itl.buckets, itl.sum), (DistributionKind::ItlStep, &[(0, 4)][..], 200_000));
        assert_eq!(update.gauges.kv_usage.map(|usage| usage.to_ppm()), Some(300_000));
    }
}

#[test]
fn a_series_that_appears_later_counts_from_zero_and_a_pause_loses_nothing() {
    let reason =
        |reason: &str, n: u64| format!("vllm:request_success_total{{finished_reason=\"{reason}\"}} {n}\n");
    let mut tracker = EngineTracker::new();
    let mut engine = Engine { more: reason("length", 5), ..running_engine() };
    let update = observe(&mut tracker, &engine);
    assert_eq!((update.delta.finished_length, update.delta.aborted), (Some(0), Some(0)));
    engine.more = reason("length", 6) + &reason("abort", 2) + &reason("repetition", 1) + &reason("error", 1);
    let delta = observe(&mut tracker, &engine).delta;
    assert_eq!((delta.finished_length, delta.aborted, delta.errored), (Some(1), Some(2), Some(1)));
    assert_eq!(delta.finished_stop, Some(1), "a request that repeats itself is stopped");
    engine.more = reason("length", 6);
    assert_eq!(observe(&mut tracker, &engine).delta.aborted, Some(0));
    engine.more = reason("length", 6) + &reason("abort", 3);
    assert_eq!(observe(&mut tracker, &engine).delta.aborted, Some(1));
}

#[test]
fn a_clock_set_back_takes_no_samples_away() {
    let mut tracker = EngineTracker::new();
    observe(&mut tracker, &running_engine());
    let update = observe(&mut tracker, &Engine { ttft: [6, 4, 1], sum: -3600.0, ..running_engine() });
    assert_eq!((ttft(&update), update.delta.resets), (Some((vec![(0, 1)], 0)), 0));
    let update = observe(&mut tracker, &Engine { ttft: [7, 4, 1], sum: -3599.9, ..running_engine() });
    assert_eq!(ttft(&update), Some((vec![(0, 1)], 100_000)));
}

proptest! {
    /// Invariant: over any run of steps, restarts and gaps, the deltas add up to what the engine did since the first
    /// page; a restart of which the agent saw only the result loses nothing either.
    #[test]
    fn deltas_add_up(steps in prop::collection::vec((0u64..9, 0u64..9, 0u64..9, 0u64..9, prop::bool::weighted(0.1)), 1..40)) {
        let mut tracker = EngineTracker::new();
        let mut engine = Engine { start: Some(1.0), ..Engine::default() };
        observe(&mut tracker, &engine);
        let (mut arrived, mut tokens, mut samples, mut sum) = (0, 0, 0, 0);
        let (mut all_arrived, mut all_tokens, mut all_samples, mut all_sum) = (0, 0, 0, 0.0);
        for (arrive, end, token, fast, restart) in steps {
            if restart {
                engine = Engine { start: engine.start.map(|start| start + 1.0), ..Engine::default() };
            }
            let end = end.min(engine.running + arrive);
            engine.running = engine.running + arrive - end;
            engine.ended += end;
            engine.tokens += token;
            engine.ttft[0] += fast;
            engine.ttft[1] += end;
            let gain = 0.05 * fast as f64 + 0.51 * end as f64;
            engine.sum += gain;
            all_arrived += arrive;
            all_tokens += token;
            all_samples += fast + end;
            all_sum += gain;
            let update = observe(&mut tracker, &engine);
            prop_assert_eq!(update.delta.resets, u64::from(restart));
            arrived += update.delta.arrived.unwrap();
            tokens += update.delta.generation_tokens.unwrap();
            if let Some((buckets, s)) = ttft(&update) {
                samples += buckets.iter().map(|(_, n)| n).sum::<u64>();
                sum += s;
            }
        }
        prop_assert_eq!((arrived, tokens, samples), (all_arrived, all_tokens, all_samples));
        // Each process may end with less than one unit untold.
        prop_assert!((sum as f64 - all_sum * 1e6).abs() <= 41.0);
    }

    /// Invariant: damaged pages never panic, and whatever was damaged, the tracker goes on.
    #[test]
    fn damaged_pages_never_panic(damage in prop::collection::vec((0usize..65_000, any::<u8>()), 0..60)) {
        let mut bytes = super::fixtures::bytes("load2_10.prom");
        for (at, with) in damage {
            bytes[at] = with;
        }
        let mut tracker = EngineTracker::new();
        let kind = Some(plimsoll_common::engine::EngineKind::Vllm);
        for limits in [crate::exposition::Limits::default(), crate::exposition::Limits { series: 300, ..Default::default() }] {
            if let Ok(page) = super::read_page(kind, &bytes, limits) {
                tracker.observe(&page);
            }
        }
        tracker.observe(&page(std::str::from_utf8(&super::fixtures::bytes("abort_after0.prom")).unwrap()));
    }
}
