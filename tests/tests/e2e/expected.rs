//! What a planner must show, from the exact records of the engines.

use std::collections::BTreeMap;

use plimsoll_tests::request_log::{Ended, percentile};
use serde_json::Value;

/// Logs have nanoseconds, histograms microseconds.
const ROUNDING: f64 = 1e-6;

/// Sums and samples over the requests that ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Expected {
    counters: BTreeMap<&'static str, u64>,
    samples: BTreeMap<&'static str, Vec<f64>>,
}

impl Expected {
    pub(crate) fn of(requests: &[Ended]) -> Self {
        let mut expected = Self::default();
        requests.iter().for_each(|request| expected.add(request));
        expected
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or_default()
    }

    fn add(&mut self, request: &Ended) {
        let reason = |reason: &str| u64::from(request.finish_reason == reason);
        for (counter, gained) in [
            ("requests_arrived", 1),
            ("requests_finished_stop", reason("stop")),
            ("requests_finished_length", reason("length")),
            ("prompt_tokens", request.prompt_tokens),
            ("generation_tokens", request.output_tokens),
            ("prefix_cache_queried_tokens", request.prompt_tokens),
            ("prefix_cache_hit_tokens", request.cached_tokens),
            ("preemptions", request.preemptions),
            ("requests_aborted", 0),
            ("requests_errored", 0),
            ("counter_resets", 0),
        ] {
            *self.counters.entry(counter).or_default() += gained;
        }
        for (distribution, sample) in [
            ("ttft", request.ttft_s),
            ("queue", request.queue_s),
            ("prefill", request.prefill_s),
            ("decode", request.decode_s),
            ("inference", request.inference_s),
            ("tpot", request.tpot_s),
            ("e2e", Some(request.e2e_s)),
            ("isl", Some(request.prompt_tokens as f64)),
            ("osl", Some(request.output_tokens as f64)),
        ] {
            self.samples.entry(distribution).or_default().extend(sample);
        }
        self.samples.entry("itl_step").or_default().extend(&request.itl_s);
    }

    /// Compares the `totals` of an engine, pool or model: every counter, and count and sum of every distribution.
    pub(crate) fn compare_totals(&self, totals: &Value) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (name, expected) in &self.counters {
            let seen = &totals["counters"][name];
            // Absent is not zero, but what an engine does not publish can't be anything else.
            let absent = seen.is_null() && *expected == 0;
            if seen.as_u64() != Some(*expected) && !absent {
                wrong.push(format!("{name}: {seen}, not {expected}"));
            }
        }
        for (name, samples) in &self.samples {
            let seen = &totals["distributions"][name];
            if seen["count"].as_u64() != Some(samples.len() as u64) {
                wrong.push(format!("{name}: {}, not {} samples", seen["count"], samples.len()));
            }
            let sum: f64 = samples.iter().sum();
            let (key, tolerance) = match *name {
                "isl" | "osl" => ("sum_tokens", 0.5),
                // Each report rounds its part of the sum once.
                _ => ("sum_seconds", ROUNDING * samples.len().max(100) as f64),
            };
            if seen[key].as_f64().is_none_or(|seen| (seen - sum).abs() > tolerance) {
                wrong.push(format!("{name}: {key} {}, not {sum}", seen[key]));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Compares distributions from exact sources in a window that holds everything: the same number of samples, the same
    /// mean, and percentiles within a cell of the fleet's layout of the exact ones. Returns the largest error of an
    /// estimate, as a share of the exact value.
    pub(crate) fn compare_exact(&self, window: &Value, names: &[&str]) -> Result<f64, String> {
        /// The width of a cell, and of the microsecond to which values are rounded.
        const CELL: f64 = 1.0 / 128.0;
        let mut worst = 0.0f64;
        for name in names {
            let mut samples = self.samples[name].clone();
            let seen = &window["distributions"][format!("{name}_exact")];
            let unit = if matches!(*name, "isl" | "osl") { "tokens" } else { "seconds" };
            if seen["count"].as_u64() != Some(samples.len() as u64) || seen["source"] != "exact" {
                return Err(format!("{name}: {seen}, not {} exact samples", samples.len()));
            }
            let mean = samples.iter().sum::<f64>() / samples.len() as f64;
            if seen[format!("mean_{unit}")].as_f64().is_none_or(|seen| (seen - mean).abs() > 2.0 * ROUNDING) {
                return Err(format!("{name}: mean {seen}, not {mean}"));
            }
            for (label, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
                let Some(exact) = percentile(&mut samples, share) else { continue };
                let quantile = &seen[format!("{label}_{unit}")];
                let number = |key: &str| quantile[key].as_f64().unwrap_or(f64::NAN);
                let error = (number("estimate") - exact).abs();
                let within =
                    number("low") - 2.0 * ROUNDING <= exact && exact <= number("high") + 2.0 * ROUNDING;
                if !within || error.is_nan() || error > CELL * exact + 2.0 * ROUNDING {
                    return Err(format!("{name} {label}: exactly {exact}, published {quantile}"));
                }
                // Below a millisecond the microsecond shows.
                worst = worst.max(if exact > 1e-3 { error / exact } else { 0.0 });
            }
        }
        Ok(worst)
    }

    /// Compares the percentiles of a window that holds everything: the exact ones and the published estimates lie
    /// within the published bounds. Returns the largest error of an estimate, as a share of the exact value.
    pub(crate) fn compare_percentiles(&self, window: &Value) -> Result<f64, String> {
        let mut worst = 0.0f64;
        for (name, samples) in &self.samples {
            let (unit, rounding) =
                if matches!(*name, "isl" | "osl") { ("tokens", 0.0) } else { ("seconds", ROUNDING) };
            let seen = &window["distributions"][name];
            if seen["count"].as_u64() != Some(samples.len() as u64) {
                return Err(format!(
                    "{name}: the window holds {} of {} samples",
                    seen["count"],
                    samples.len()
                ));
            }
            let mut samples = samples.clone();
            for (label, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
                let quantile = &seen[format!("{label}_{unit}")];
                let Some(exact) = percentile(&mut samples, share) else { continue };
                let number = |key: &str| quantile[key].as_f64();
                let (Some(estimate), Some(low)) = (number("estimate"), number("low")) else {
                    return Err(format!("{name} {label}: no estimate in {quantile}"));
                };
                let high = number("high").unwrap_or(f64::INFINITY);
                let holds = low - rounding <= exact
                    && exact <= high + rounding
                    && low <= estimate
                    && estimate <= high;
                if !holds {
                    return Err(format!("{name} {label}: exactly {exact}, published {quantile}"));
                }
                if matches!(*name, "ttft" | "itl_step") {
                    worst = worst.max((estimate - exact).abs() / exact);
                }
            }
        }
        Ok(worst)
    }
}
