//! Frames as text. Pure.

use std::fmt::Write as _;

use crate::{
    frame::{Frame, ModelLine, NodeLine},
    look::{Compared, Pair},
    sight::{Advised, PlannerEngines},
};

const GIB: f64 = (1u64 << 30) as f64;
const DASH: &str = "–";
const PERCENTILES: [&str; 3] = ["p50", "p95", "p99"];

/// A frame as the lines of a table.
#[must_use]
pub fn table(frame: &Frame) -> Vec<String> {
    let mut lines = vec![summary(frame), String::new()];
    lines.push(format!(
        "{:<16}{:>9}{:>9}{:>12}{:>9}{:>9}{:>10}",
        "MODEL", "ENGINES", "REQ/S", "TOKENS/S", "RUNNING", "WAITING", "KV CACHE"
    ));
    lines.extend(frame.models.iter().map(model_line));
    lines.push(String::new());
    if !frame.advice.is_empty() {
        lines.push(format!("{:<24}{:>8}{:>9}  {}", "POOL", "REPLICAS", "ADVISED", "WHY"));
        lines.extend(frame.advice.iter().map(advice_line));
        lines.push(String::new());
    }
    if frame.notes.is_empty() {
        lines.extend(latency_lines(&frame.models));
        lines.push(String::new());
    }
    lines.push(format!(
        "{:<10}{:<14}{:>7}{:>16}{:>10}{:>12}{:>11}{:>9}",
        "NODE", "GPUS (IN USE)", "UTIL", "MEMORY", "POWER", "REPORTS", "AGENT CPU", "RSS"
    ));
    lines.extend(frame.nodes.iter().map(node_line));
    if !frame.notes.is_empty() {
        lines.push(String::new());
        lines.extend(frame.notes.iter().cloned());
    }
    lines
}

/// How the planner sees the engines.
#[must_use]
pub fn engine_states(engines: &PlannerEngines) -> Vec<String> {
    let mut lines =
        vec![format!("{:<12}{:<18}{:<18}{:>6}{:>10}", "ENGINE", "STATE", "TOLD FROM", "FOR", "RESTARTS")];
    lines.extend(engines.engines.iter().map(|engine| {
        let held = engine.state_seconds.map_or_else(|| DASH.to_owned(), |seconds| format!("{seconds:.0} s"));
        let restarts = engine.totals.counters.get("counter_resets").copied().flatten();
        format!(
            "{:<12}{:<18}{:<18}{held:>6}{:>10}",
            engine.id,
            engine.state.as_deref().unwrap_or(DASH),
            engine.state_evidence.as_deref().unwrap_or(DASH),
            count(restarts),
        )
    }));
    lines
}

/// A frame as one line a model, for logs.
#[must_use]
pub fn plain(frame: &Frame) -> Vec<String> {
    let line = |line: &ModelLine| {
        let now = &line.now;
        let mut text = format!(
            "{} {}: {} req/s, {} running, {} waiting",
            clock(frame.elapsed_seconds),
            now.model,
            rate(line, "requests_arrived_per_second"),
            count(now.running_requests),
            count(now.waiting_requests)
        );
        if let Some(latencies) = &line.latencies {
            let _ = write!(text, "; {:.0} s ago:", latencies.ago_seconds.max(0.0));
            for (name, pairs) in [("TTFT", &latencies.ttft), ("ITL", &latencies.itl)] {
                let _ = write!(text, " {name} ms");
                for (percentile, pair) in PERCENTILES.iter().zip(pairs) {
                    let _ = write!(text, " {percentile} {} exact {}", planner(pair), exact(pair));
                }
                text.push(if name == "TTFT" { ',' } else { '.' });
            }
        }
        text
    };
    let mut lines: Vec<String> = frame.models.iter().map(line).collect();
    lines.extend(frame.advice.iter().map(|advised| {
        format!(
            "{} {}: {} replicas, {} advised ({})",
            clock(frame.elapsed_seconds),
            advised.pool,
            advised.from,
            advised.to,
            advised.text
        )
    }));
    let bytes = frame.nodes.iter().map(|node| node.report_bytes_per_second).sum::<Option<f64>>();
    let busy: Vec<String> = frame
        .nodes
        .iter()
        .map(|node| format!("{} {} util {}", node.node, in_use(node), utilization(node)))
        .collect();
    lines.push(format!(
        "{} {}; reports {}",
        clock(frame.elapsed_seconds),
        busy.join("; "),
        per_second(bytes)
    ));
    lines.extend(frame.notes.iter().filter(|line| !line.is_empty()).cloned());
    lines
}

/// The latencies of each model, p50, p95 and p99 side by side.
fn latency_lines(models: &[ModelLine]) -> Vec<String> {
    let heads = PERCENTILES.map(|name| format!("{:>18}{:>8}", format!("{name} ms (from–to)"), "exact"));
    let mut lines = vec![
        format!("LATENCY as the planner sees it, beside what the engines recorded; {}", window(models)),
        format!("{:<19}{}", "", heads.concat()),
    ];
    for (name, metric, pairs) in rows(models) {
        let cells = pairs.map(|pair| format!("{:>18}{:>8}", planner(&pair), exact(&pair)));
        lines.push(format!("{name:<14}{metric:<5}{}", cells.concat()));
    }
    lines
}

/// The same one below the other, with how far the planner is from the truth.
#[must_use]
pub fn errors(models: &[ModelLine]) -> Vec<String> {
    let mut lines = vec![
        format!("latencies in ms, {}", window(models)),
        format!(
            "{:<14}{:<6}{:<5}{:>10}{:>18}{:>10}{:>8}",
            "", "", "", "planner", "from–to", "exact", "error"
        ),
    ];
    for (model, metric, pairs) in rows(models) {
        for (percentile, pair) in PERCENTILES.iter().zip(pairs) {
            let (estimate, bounds) =
                (milliseconds(pair.planner.map(|planner| planner.estimate)), bounds(&pair));
            let (exact, error) = (exact(&pair), error(&pair));
            lines.push(format!(
                "{model:<14}{metric:<6}{percentile:<5}{estimate:>10}{bounds:>18}{exact:>10}{error:>8}"
            ));
        }
    }
    lines
}

fn rows(models: &[ModelLine]) -> impl Iterator<Item = (&str, &'static str, [Pair; 3])> {
    models
        .iter()
        .filter_map(|line| Some((line.now.model.as_str(), line.latencies?)))
        .flat_map(|(model, Compared { ttft, itl, .. })| [(model, "TTFT", ttft), (model, "ITL", itl)])
}

fn window(models: &[ModelLine]) -> String {
    let oldest = models
        .iter()
        .filter_map(|line| line.latencies)
        .max_by(|one, two| one.ago_seconds.total_cmp(&two.ago_seconds));
    oldest.map_or_else(
        || "no window is complete yet".to_owned(),
        |of| format!("window of {:.0} s that ended {:.0} s ago", of.seconds, of.ago_seconds.max(0.0)),
    )
}

fn summary(frame: &Frame) -> String {
    let load = &frame.load;
    let mut text = format!(
        "{}  {} requests sent, {} in flight, {} failed",
        clock(frame.elapsed_seconds),
        load.sent,
        load.in_flight,
        load.failed
    );
    if load.held_back > 0 {
        let _ = write!(text, ", {} held back", load.held_back);
    }
    if let Some(failure) = &load.last_failure {
        let _ = write!(text, " (last: {failure})");
    }
    text
}

/// The text repeats the numbers: `forecast: 3 → 5; 14.2 requests a second now, …`.
fn advice_line(advised: &Advised) -> String {
    let (reasons, rest) = advised.text.split_once(": ").unwrap_or((&advised.text, ""));
    let numbers = rest.split_once("; ").map_or("", |(_, numbers)| numbers);
    format!("{:<24}{:>8}{:>9}  {reasons}: {numbers}", advised.pool, advised.from, advised.to)
}

fn model_line(line: &ModelLine) -> String {
    let now = &line.now;
    let kv = now
        .kv_cache_utilization_ratio_max
        .map_or_else(|| DASH.to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
    format!(
        "{:<16}{:>9}{:>9}{:>12}{:>9}{:>9}{kv:>10}",
        now.model,
        now.engines_ready,
        rate(line, "requests_arrived_per_second"),
        rate(line, "generation_tokens_per_second"),
        count(now.running_requests),
        count(now.waiting_requests),
    )
}

fn node_line(line: &NodeLine) -> String {
    let sum = |value: fn(&crate::sight::Gpu) -> Option<f64>| line.gpus.iter().filter_map(value).sum::<f64>();
    let memory = format!(
        "{:.0}/{:.0} GiB",
        sum(|gpu| gpu.memory_used_bytes) / GIB,
        sum(|gpu| gpu.memory_total_bytes) / GIB
    );
    let name = line.gpus.iter().find_map(|gpu| gpu.name.as_deref()).unwrap_or(DASH);
    // The middle word tells machines apart: "NVIDIA H100 80GB HBM3".
    let name = name.split(' ').nth(1).unwrap_or(name);
    format!(
        "{:<10}{:<14}{:>7}{memory:>16}{:>10}{:>12}{:>11}{:>9}{}",
        line.node,
        format!("{name} {}", in_use(line)),
        utilization(line),
        format!("{:.1} kW", sum(|gpu| gpu.power_watts) / 1e3),
        per_second(line.report_bytes_per_second),
        line.agent_cpu_ratio.map_or_else(|| DASH.to_owned(), |ratio| format!("{:.1} %", ratio * 100.0)),
        line.agent_resident_bytes
            .map_or_else(|| DASH.to_owned(), |bytes| format!("{:.0} MiB", bytes / GIB * 1024.0)),
        if line.link == "connected" { String::new() } else { format!("  {}", line.link) },
    )
}

fn used(line: &NodeLine) -> impl Iterator<Item = &crate::sight::Gpu> {
    line.gpus.iter().filter(|gpu| !gpu.engines.is_empty())
}

fn in_use(line: &NodeLine) -> String {
    format!("{} ({})", line.gpus.len(), used(line).count())
}

/// The mean utilization of the GPUs that engines run on.
fn utilization(line: &NodeLine) -> String {
    let values: Vec<f64> = used(line).filter_map(|gpu| gpu.utilization_percent).collect();
    if values.is_empty() {
        return DASH.to_owned();
    }
    format!("{:.0} %", values.iter().sum::<f64>() / values.len() as f64)
}

/// Minutes and seconds.
pub(crate) fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| DASH.to_owned(), |value| value.to_string())
}

fn rate(line: &ModelLine, name: &str) -> String {
    let rate = line.now.windows.get("10s").and_then(|window| window.rates.get(name).copied().flatten());
    rate.map_or_else(
        || DASH.to_owned(),
        |rate| if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") },
    )
}

fn per_second(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| DASH.to_owned(), |bytes| format!("{:.2} kB/s", bytes / 1e3))
}

fn milliseconds(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return DASH.to_owned() };
    let ms = seconds * 1e3;
    if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

fn planner(pair: &Pair) -> String {
    let estimate = milliseconds(pair.planner.map(|planner| planner.estimate));
    if pair.planner.is_some() { format!("{estimate} ({})", bounds(pair)) } else { estimate }
}

/// The exact value, with a mark where the planner's bounds do not hold it.
fn exact(pair: &Pair) -> String {
    let mark = if pair.holds() { "" } else { "!" };
    format!("{}{mark}", milliseconds(pair.exact))
}

fn bounds(pair: &Pair) -> String {
    let Some(planner) = pair.planner else { return DASH.to_owned() };
    let bound = |seconds: f64| {
        let ms = seconds * 1e3;
        if ms < 10.0 && ms.fract() > 0.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
    };
    let high = planner.high.map_or_else(|| "∞".to_owned(), bound);
    format!("{}–{high}", bound(planner.low))
}

fn error(pair: &Pair) -> String {
    pair.error().map_or_else(|| DASH.to_owned(), |error| format!("{:+.0} %", error * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        load::Tally,
        sight::{Gpu, Model, Quantile, Totals},
    };

    fn frame() -> Frame {
        let pair = |estimate: f64, high| Pair {
            planner: Some(Quantile { estimate, low: estimate / 2.0, high }),
            exact: Some(estimate * 1.25),
        };
        let compared = Compared {
            ago_seconds: 3.2,
            seconds: 60.0,
            ttft: [pair(0.04, Some(0.06)), pair(0.2, Some(0.25)), pair(3.0, None)],
            itl: [pair(0.01, Some(0.025)), Pair::default(), Pair::default()],
        };
        let now = Model {
            model: "llama-3.1-8b".to_owned(),
            engines_ready: 3,
            running_requests: Some(9),
            waiting_requests: None,
            kv_cache_utilization_ratio_max: Some(0.0123),
            totals: Totals::default(),
            windows: [].into(),
        };
        let gpu = |engines: &[&str], utilization| Gpu {
            node: "node-a".to_owned(),
            name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            utilization_percent: utilization,
            memory_used_bytes: Some(16.0 * GIB),
            memory_total_bytes: Some(80.0 * GIB),
            power_watts: Some(350.0),
            engines: engines.iter().map(|engine| (*engine).to_owned()).collect(),
        };
        Frame {
            elapsed_seconds: 83.9,
            load: Tally {
                sent: 512,
                in_flight: 14,
                failed: 1,
                held_back: 0,
                last_failure: Some("cut off".to_owned()),
            },
            models: vec![ModelLine { now, latencies: Some(compared) }],
            advice: vec![Advised {
                pool: "llama-3.1-8b-h100-tp1".to_owned(),
                from: 2,
                to: 3,
                text: "forecast: 2 → 3; 21.4 requests a second now, 24.9 ahead, 10.2 a replica".to_owned(),
            }],
            nodes: vec![NodeLine {
                node: "node-a".to_owned(),
                gpus: vec![gpu(&["llama-a0"], Some(40.0)), gpu(&[], Some(0.0))],
                report_bytes_per_second: Some(1234.0),
                agent_cpu_ratio: Some(0.004),
                agent_resident_bytes: None,
                link: "waiting".to_owned(),
            }],
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_table_has_a_column_for_everything() {
        let text = table(&frame()).join("\n");
        for piece in [
            "1:23  512 requests sent, 14 in flight, 1 failed (last: cut off)",
            "llama-3.1-8b            3        –           –        9        –     1.2 %",
            "llama-3.1-8b-h100-tp1          2        3  forecast: 21.4 requests a second now, 24.9 ahead, 10.2 a replica",
            "window of 60 s that ended 3 s ago",
            "llama-3.1-8b  TTFT       40.0 (20–60)    50.0     200 (100–250)     250     3000 (1500–∞)    3750",
            "llama-3.1-8b  ITL         10.0 (5–25)    12.5                 –       –                 –       –",
            "H100 2 (1)",
            "40 %",
            "32/160 GiB    0.7 kW   1.23 kB/s      0.4 %        –  waiting",
        ] {
            assert!(text.contains(piece), "{piece:?} is not in\n{text}");
        }
    }

    #[test]
    fn columns_stand_below_their_names() {
        let lines = table(&frame());
        let end = |line: &str, word: &str| {
            let at = line.find(word).unwrap_or_else(|| panic!("{word} is not in {line}"));
            line[..at + word.len()].chars().count()
        };
        assert_eq!(end(&lines[2], "KV CACHE"), end(&lines[3], "1.2 %"));
        let node = lines.iter().position(|line| line.starts_with("NODE")).unwrap();
        assert_eq!(end(&lines[node], "REPORTS"), end(&lines[node + 1], "kB/s"));
        assert_eq!(end(&lines[node], "MEMORY"), end(&lines[node + 1], "GiB"));
    }

    #[test]
    fn engines_states_take_the_place_of_latencies() {
        let page = r#"{"engines":[{"id":"llama-a0","state":"frozen","state_evidence":"nothing_moves",
            "state_seconds":4.4,"totals":{"counters":{"counter_resets":1},"distributions":{}}},
            {"id":"b","state":null,"state_evidence":null,"state_seconds":null,"totals":{"counters":{},"distributions":{}}}]}"#;
        let states = engine_states(&serde_json::from_str(page).unwrap());
        assert_eq!(states[1], "llama-a0    frozen            nothing_moves        4 s         1");
        assert_eq!(states[2], "b           –                 –                      –         –");
        let text = table(&Frame { notes: states, ..frame() }).join("\n");
        assert!(text.contains("frozen") && !text.contains("LATENCY"), "{text}");
    }

    #[test]
    fn plain_lines_say_the_same() {
        let lines = plain(&frame());
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with(
            "1:23 llama-3.1-8b: – req/s, 9 running, – waiting; 3 s ago: TTFT ms p50 40.0 (20–60) exact 50.0"
        ));
        assert!(lines[1].contains("2 replicas, 3 advised (forecast: 2 → 3"), "{}", lines[1]);
        assert!(lines[2].contains("node-a 2 (1) util 40 %"), "{}", lines[2]);
    }

    #[test]
    fn without_a_complete_window_there_are_only_heads() {
        let mut frame = frame();
        frame.models[0].latencies = None;
        let lines = latency_lines(&frame.models);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("no window is complete yet"));
    }

    #[test]
    fn errors_are_shares_of_the_truth() {
        let lines = errors(&frame().models);
        assert_eq!(lines.len(), 2 + 6);
        assert_eq!(lines[2], "llama-3.1-8b  TTFT  p50        40.0             20–60      50.0   -20 %");
        assert_eq!(lines[6], "llama-3.1-8b  ITL   p95           –                 –         –       –");
        assert!(table(&frame()).iter().all(|line| line.chars().count() <= 110), "{:#?}", table(&frame()));
    }
}
