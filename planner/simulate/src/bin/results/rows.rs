//! The rows of one cell: everybody who ran in it.

use plimsoll_sim::{Chosen, Trial};

use crate::{
    cells::Cell,
    judge::{bound, losses},
    measure::Measured,
};

/// One entrant in one cell.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Whose row.
    pub(crate) who: &'a str,
    /// What it was set to; empty where that says nothing.
    pub(crate) setting: &'a str,
    pub(crate) trial: &'a Trial,
    /// Whether it kept the promise on average.
    pub(crate) kept: bool,
}

/// Everybody of a cell: judged policies, bounds, peers.
pub(crate) fn rows(measured: &Measured) -> Vec<Row<'_>> {
    let base = &measured.base;
    let chosen = |who, chosen: &'_ Chosen| (who, chosen.kept);
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (text, trial) in &measured.policies {
        let kept = trial.attained() >= crate::judge::GOAL - 1e-12;
        rows.push(Row { who: text, setting: "", trial, kept });
    }
    for (who, of) in [("oracle", &base.oracle.chosen), ("causal bound", &base.causal)] {
        let (who, kept) = chosen(who, of);
        rows.push(Row { who, setting: &of.trial.policy, trial: &of.trial, kept });
    }
    if let Some(trial) = &base.static_best {
        rows.push(Row { who: "static best", setting: &trial.policy, trial, kept: true });
    }
    for (name, peer) in &base.peers {
        rows.push(Row { who: name, setting: &peer.trial.policy, trial: &peer.trial, kept: peer.kept });
    }
    rows
}

/// A cell's table, with its command line.
pub(crate) fn section(cell: &Cell, measured: &Measured) -> String {
    let base = &measured.base;
    let sizes: Vec<String> = base.initial.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "### {}\n\n`simulate {}`\n\n{} requests, at most {:.1} a second over ten seconds; {} draws; begins with {}.\n\n\
         | | setting | attained | least to most | GPU-hours | of causal | of oracle | actions | reversals/h | aborted |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        cell.name,
        cell.words().join(" "),
        base.requests,
        base.peak_rps,
        base.oracle.chosen.trial.draws.len(),
        sizes.join("+"),
    );
    let causal = base.causal.kept.then(|| base.causal.trial.gpu_hours());
    let oracle = base.oracle.chosen.kept.then(|| base.oracle.chosen.trial.gpu_hours());
    for row in rows(measured) {
        let hours = row.trial.gpu_hours();
        let of = |bound: Option<f64>| {
            bound.map_or_else(|| "–".to_owned(), |bound| format!("{:.2}", hours / bound))
        };
        let (low, high) = row.trial.range();
        let mark = if row.kept { "" } else { " ✗" };
        let setting = if row.setting.is_empty() { String::new() } else { format!("`{}`", row.setting) };
        text += &format!(
            "| {} | {setting} | {}{mark} | {} to {} | {hours:.2} | {} | {} | {:.0} | {:.1} | {} |\n",
            row.who,
            percent(row.trial.attained()),
            percent(low),
            percent(high),
            of(causal),
            of(oracle),
            row.trial.actions(),
            row.trial.reversals_per_hour(),
            row.trial.aborted(),
        );
    }
    text += "\n";
    if bound(base).is_none() {
        text += "Left out: neither the oracle nor anything of the grid keeps the promise here.\n\n";
    }
    for (policy, trial) in &measured.policies {
        text += &match losses(cell, base, trial) {
            None => format!("`{policy}` is not judged here.\n\n"),
            Some(lost) if lost.is_empty() => format!("`{policy}`: **pass**\n\n"),
            Some(lost) => {
                let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
                format!("`{policy}`: **fail**: {}\n\n", lost.join("; "))
            }
        };
    }
    text
}

/// A share as people read it; what is not quite all is not rounded to all.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share < 1.0 && percent > 99.994 { "99.99 %".to_owned() } else { format!("{percent:.2} %") }
}
