//! The result as text.

use std::fmt::Write as _;

use plimsoll_sim::report::{Report, RunReport, share};

/// The report as a table for a terminal.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    let workload = &report.workload;
    line(
        &mut text,
        format_args!(
            "{} requests in {:.0} min, mean {:.2} and peak {:.2} a second; ISL mean {:.0}, p99 {}; OSL mean {:.0}, p99 {}",
            workload.requests,
            workload.span_s / 60.0,
            workload.mean_rps,
            workload.peak_rps,
            workload.isl.mean,
            workload.isl.p99,
            workload.osl.mean,
            workload.osl.p99
        ),
    );
    if let Some(best) = &report.static_best {
        line(&mut text, format_args!(""));
        static_part(&mut text, report, best);
    }
    if !report.runs.is_empty() {
        line(&mut text, format_args!(""));
        runs(&mut text, report);
    }
    text
}

fn static_part(text: &mut String, report: &Report, best: &plimsoll_sim::report::StaticReport) {
    line(text, format_args!("{:<14}{:>10}{:>12}", "static fleet", "attained", "GPU-hours"));
    for point in &best.tried {
        let size: Vec<String> = point.replicas.iter().map(ToString::to_string).collect();
        let chosen = if best.replicas.as_ref() == Some(&point.replicas) {
            "  ← the smallest that keeps the SLO"
        } else {
            ""
        };
        line(
            text,
            format_args!(
                "{:<14}{:>9.2}%{:>12.2}{chosen}",
                size.join(" + "),
                point.attained * 100.0,
                point.gpu_hours
            ),
        );
    }
    let goal = report.slo.goal.get() * 100.0;
    match &best.replicas {
        Some(replicas) => {
            let names: Vec<String> = replicas.iter().map(ToString::to_string).collect();
            line(
                text,
                format_args!(
                    "\nThis workload needs {} replicas for {goal} % of requests within their SLO.",
                    names.join(" + ")
                ),
            );
        }
        None => line(
            text,
            format_args!(
                "\nNo static fleet keeps this SLO for {goal} % of requests: one replica alone is too slow for some of them, \
                 or --max-replicas is too low."
            ),
        ),
    }
}

fn runs(text: &mut String, report: &Report) {
    let width = report.runs.iter().map(|run| run.policy.chars().count()).max().unwrap_or(6).max(6) + 2;
    line(
        text,
        format_args!(
            "{:<width$}{:>9}{:>11}{:>11}{:>9}{:>11}{:>19}{:>19}{:>9}{:>12}",
            "policy",
            "attained",
            "GPU-hours",
            "goodput/s",
            "actions",
            "reversals",
            "TTFT p50/p99 ms",
            "ITL p50/p99 ms",
            "aborted",
            "unfinished"
        ),
    );
    for run in &report.runs {
        let pair = |p: &plimsoll_sim::report::Percentiles| {
            let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
            format!("{}/{}", ms(p.p50), ms(p.p99))
        };
        let RunReport { policy, score, ttft_ms, itl_ms, aborted, unfinished, .. } = run;
        line(
            text,
            format_args!(
                "{policy:<width$}{:>8.2}%{:>11.2}{:>11.2}{:>9}{:>11}{:>19}{:>19}{aborted:>9}{unfinished:>12}",
                share(score) * 100.0,
                score.gpu_hours.total,
                score.goodput_rps,
                score.actions,
                score.reversals,
                pair(ttft_ms),
                pair(itl_ms),
            ),
        );
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{arguments}");
}
