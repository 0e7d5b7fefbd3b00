//! What a policy means, as a table for people.

use std::fmt::Write as _;

use plimsoll_core::policy::{Load, Target};

use super::understood::{Model, Pool, Understood};

/// All models and pools, budgets last.
pub(super) fn table(understood: &Understood) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for model in &understood.models {
        let _ = writeln!(text, "{}: {}", model.name, promise(model));
        text.push_str(&aligned(&rows(model)));
        text.push('\n');
    }
    text.push_str(&budget(understood));
    text
}

fn promise(model: &Model) -> String {
    let mut words = Vec::new();
    if model.target == Target::Sla {
        words.extend(model.ttft_s.map(|limit| format!("TTFT ≤ {}", seconds(limit))));
        words.extend(model.itl_s.map(|limit| format!("ITL ≤ {}", seconds(limit))));
        words.extend(model.goal.map(|goal| format!("for {} % of requests", round(goal * 100.0))));
    } else {
        words.push(format!("target {}", model.target.as_str()));
        words.extend(model.thresholds.as_ref().map(thresholds));
    }
    words.push(format!("priority {}", model.priority));
    if model.demand {
        words.push("demand also from its front-end".to_owned());
    }
    words.join(", ")
}

fn thresholds(load: &Load) -> String {
    let told = [
        load.kv_cache_utilization.map(|percent| format!("KV cache {percent} %")),
        load.running_utilization.map(|percent| format!("running sequences {percent} %")),
        load.waiting_per_replica.map(|requests| format!("waiting {requests} a replica")),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn rows(model: &Model) -> Vec<Vec<String>> {
    let titles = ["POOL", "ROLE", "GPUS", "REPLICAS", "START-UP", "UP", "DOWN", "PROFILE", "AT BEST"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(model.pools.iter().map(row));
    rows
}

fn row(pool: &Pool) -> Vec<String> {
    let best = pool.best.as_ref().map_or_else(
        || "unknown".to_owned(),
        |best| {
            let (ttft, itl) = (seconds(best.ttft_s), seconds(best.itl_s));
            match pool.role {
                "prefill" => format!("TTFT {ttft}"),
                "decode" => format!("ITL {itl}, {} at once", best.sequences),
                _ => format!("TTFT {ttft}, ITL {itl}, {} at once", best.sequences),
            }
        },
    );
    vec![
        pool.name.clone(),
        pool.role.to_owned(),
        pool.gpus_per_replica.to_string(),
        format!("{}–{}", pool.min, pool.max),
        seconds(pool.start_up_s),
        pool.scale_up.clone(),
        pool.scale_down.clone(),
        pool.profile.clone().unwrap_or_else(|| "none".to_owned()),
        best,
    ]
}

fn budget(understood: &Understood) -> String {
    let (budget, min, max) = (&understood.budget, &understood.at_min, &understood.at_max);
    let line = |name: &str, limit: Option<f64>, least: Option<f64>, most: Option<f64>| {
        let limit = limit.map_or_else(|| "no limit".to_owned(), |limit| round(limit).to_string());
        let told = |number: Option<f64>| number.map_or_else(|| "?".to_owned(), |n| round(n).to_string());
        let none = least.is_none() && limit == "no limit";
        (!none).then(|| format!("{name}: {limit}; min takes {}, max {}\n", told(least), told(most)))
    };
    let lines = [
        line("GPUs", budget.gpus.map(f64::from), Some(min.gpus as f64), Some(max.gpus as f64)),
        line("watts", budget.watts.map(|watts| watts.get()), min.watts, max.watts),
        line("cost an hour", budget.cost_per_hour.map(|c| c.get()), min.cost_per_hour, max.cost_per_hour),
    ];
    let mut text = lines.into_iter().flatten().collect::<String>();
    let _ = writeln!(text, "a decision every {}", seconds(understood.interval_s));
    text
}

/// Columns as wide as their widest cell, by characters.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    text
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{} ms", round(s * 1e3)),
        s if s < 600.0 => format!("{} s", round(s)),
        s => format!("{} min", round(s / 60.0)),
    }
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
