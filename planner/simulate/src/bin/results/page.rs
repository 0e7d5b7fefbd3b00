//! The page: who keeps the promise at what cost, cell by cell and over all.

use std::collections::BTreeMap;

use plimsoll_sim::Trial;

use crate::{
    cells::Cell,
    crew::{Crew, Done},
    judge::{GOAL, OVER_BOUND, OVER_STATIC, REVERSALS, bound, losses},
    measure::Measured,
    rows::{percent, rows, section},
};

/// What is between these lines of the page is measured.
pub(crate) const BEGIN: &str = "<!-- measured: begin -->";
/// Its end.
pub(crate) const END: &str = "<!-- measured: end -->";

/// Everything that the page tells.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    measured: Vec<(&'a Cell, &'a Measured)>,
    /// Cells for which time was up.
    missing: Vec<&'a str>,
    /// Cells without their data.
    skipped: Vec<String>,
    crew: &'a Crew,
    declared: usize,
}

/// The page's text with the measured part replaced; none if it has no such part.
pub(crate) fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{part}\n{END}{after}"))
}

impl<'a> Page<'a> {
    pub(crate) fn of(done: &'a [Done], crew: &'a Crew, declared: usize, skipped: Vec<String>) -> Self {
        let measured = done.iter().filter_map(|(cell, measured)| Some((cell, measured.as_ref()?))).collect();
        let missing = done.iter().filter(|(_, measured)| measured.is_none());
        Self {
            measured,
            missing: missing.map(|(cell, _)| cell.name.as_str()).collect(),
            skipped,
            crew,
            declared,
        }
    }

    /// Whether a judged policy lost anything.
    pub(crate) fn lost(&self) -> bool {
        let lost = |(cell, measured): &(&Cell, &Measured)| {
            let trials = measured.policies.values();
            trials.filter_map(|trial| losses(cell, &measured.base, trial)).any(|lost| !lost.is_empty())
        };
        self.measured.iter().any(lost)
    }

    /// The part of the page that is measured.
    pub(crate) fn summary(&self) -> String {
        let mut text = self.preamble();
        text += &self.over_all();
        for policy in &self.crew.policies {
            text += &self.verdict(policy);
        }
        text += &self.by_cell();
        text += &self.left_out();
        text.trim_end().to_owned() + "\n"
    }

    /// A page of its own with every row.
    pub(crate) fn every_row(&self) -> String {
        let mut text = "# Every cell: who ran in it, and how it went\n\nWritten by the command of \
             [results.md](results.md), which says what all this means. *Of causal* and *of oracle* are GPU-hours over \
             those of the bounds; ✗ marks who misses 99 % on average. A line that begins with `simulate` can be given to \
             `plimsoll-planner`, with `--initial oracle`, `--data DIR` and a `--policy`.\n\n"
            .to_owned();
        let mut group = "";
        for (cell, measured) in &self.measured {
            if cell.group != group {
                group = &cell.group;
                text += &format!("## {group}\n\n");
            }
            text += &section(cell, measured);
        }
        text.trim_end().to_owned() + "\n"
    }

    fn preamble(&self) -> String {
        let quick = self.crew.depth.quick;
        let seconds: f64 = self.measured.iter().map(|(_, measured)| measured.seconds).sum();
        let how = if quick {
            "`--quick`: one draw a cell, the coarse grid, every peer with its first setting only"
        } else {
            "the full table: as many draws as each cell declares, the whole grid, every peer with the best of its settings \
             for that very cell in hindsight"
        };
        let mut text = format!(
            "Measured: {} of {} declared cells, {how}. {:.0} minutes of cells, two at a time on a 2-core VM that others used, too.\n\n",
            self.measured.len(),
            self.declared,
            (seconds / 60.0).ceil(),
        );
        let lists = [
            ("Time was up before these cells were begun", self.missing.clone()),
            ("Left out for want of `--data`", self.skipped.iter().map(String::as_str).collect()),
        ];
        for (why, names) in lists.iter().filter(|(_, names)| !names.is_empty()) {
            text += &format!("{why}: {}.\n\n", names.join("; "));
        }
        text
    }

    /// Everybody over all cells that are judged.
    fn over_all(&self) -> String {
        let mut entrants: Vec<(&str, Entrant)> = Vec::new();
        for (_, measured) in &self.measured {
            let Some((bound, _)) = bound(&measured.base) else { continue };
            for row in rows(measured) {
                if !entrants.iter().any(|(who, _)| *who == row.who) {
                    entrants.push((row.who, Entrant::default()));
                }
                if let Some((_, entrant)) = entrants.iter_mut().find(|(who, _)| *who == row.who) {
                    entrant.add(row.trial, row.kept, bound);
                }
            }
        }
        let judged = self.measured.iter().filter(|(_, measured)| bound(&measured.base).is_some()).count();
        let mut text = format!(
            "### Over all {judged} cells that can be kept\n\n\
             | | keeps 99 % in | attained, median | worst | GPU-hours of the bound where kept, median | most | reversals/h, most \
             | aborted |\n|---|---:|---:|---:|---:|---:|---:|---:|\n"
        );
        for (who, entrant) in &mut entrants {
            text += &entrant.row(who, judged);
        }
        text + "\n*The bound* is the causal one, or the oracle where nothing of the grid keeps the promise.\n\n"
    }

    fn verdict(&self, policy: &str) -> String {
        let (mut judged, mut passed, mut lines) = (0, 0, String::new());
        for (cell, measured) in &self.measured {
            let Some(trial) = measured.policies.get(policy) else { continue };
            let Some(lost) = losses(cell, &measured.base, trial) else { continue };
            judged += 1;
            if lost.is_empty() {
                passed += 1;
                continue;
            }
            let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
            lines += &format!("| {} | {} |\n", cell.name, lost.join("; "));
        }
        let mut text = format!(
            "### Verdict on `{policy}`: {passed} of {judged} cells pass\n\nAsked: at least {:.0} % attain; at most {OVER_BOUND} × \
             the bound's GPU-hours; at most {OVER_STATIC} × the best static fleet's where the load is stationary; fewer than every \
             peer that keeps the promise; at most {REVERSALS} reversals an hour where the load is stationary or its period is half \
             an hour or more; no request aborted.\n\n",
            GOAL * 100.0
        );
        if !lines.is_empty() {
            text += &format!("| Cell | Lost |\n|---|---|\n{lines}\n");
        }
        text
    }

    fn by_cell(&self) -> String {
        let judged: String = self.crew.policies.iter().map(|policy| format!(" `{policy}` |")).collect();
        let rule: String = self.crew.policies.iter().map(|_| "---:|").collect();
        let mut text = "### Cell by cell\n\nGPU-hours, means over the draws; every cell with all who ran in it stands in \
             [results-cells.md](results-cells.md).\n\n"
            .to_owned();
        let mut group = "";
        for (cell, measured) in &self.measured {
            if cell.group != group {
                group = &cell.group;
                text += &format!(
                    "\n**{group}**\n\n| Cell | best static | oracle | causal bound | cheapest peer that keeps 99 % |{judged}\n\
                     |---|---:|---:|---:|---|{rule}\n"
                );
            }
            text += &self.line(cell, measured);
        }
        text + "\n"
    }

    fn line(&self, cell: &Cell, measured: &Measured) -> String {
        let base = &measured.base;
        let dash = || "–".to_owned();
        let hours = |trial: &Trial| format!("{:.2}", trial.gpu_hours());
        let missed = |trial: &Trial| format!("({} at {})", percent(trial.attained()), hours(trial));
        let fleet = base.static_best.as_ref().map_or_else(dash, |trial| {
            let size = trial.policy.strip_prefix("static:").unwrap_or(&trial.policy);
            format!("{} ({size})", hours(trial))
        });
        let of = |chosen: &plimsoll_sim::Chosen| {
            if chosen.kept { hours(&chosen.trial) } else { missed(&chosen.trial) }
        };
        let kept = base.peers.iter().filter(|(_, peer)| peer.kept);
        let cheapest = kept.min_by(|a, b| a.1.trial.gpu_hours().total_cmp(&b.1.trial.gpu_hours()));
        let peer = cheapest.map_or_else(
            || "none".to_owned(),
            |(name, peer)| {
                let times =
                    bound(base).map(|(bound, _)| format!(", {:.2} ×", peer.trial.gpu_hours() / bound));
                format!("{name}: {}{}", hours(&peer.trial), times.unwrap_or_default())
            },
        );
        let mut text = format!(
            "| {}{} | {fleet} | {} | {} | {peer} |",
            cell.name,
            if cell.stationary { " (stationary)" } else { "" },
            of(&base.oracle.chosen),
            of(&base.causal),
        );
        for policy in &self.crew.policies {
            text += &measured.policies.get(policy).map_or_else(
                || " – |".to_owned(),
                |trial| {
                    let verdict = match losses(cell, base, trial) {
                        None => "not judged",
                        Some(lost) if lost.is_empty() => "pass",
                        Some(_) => "**fail**",
                    };
                    format!(" {} at {}, {verdict} |", percent(trial.attained()), hours(trial))
                },
            );
        }
        text + "\n"
    }

    fn left_out(&self) -> String {
        let mut by_group: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (cell, measured) in &self.measured {
            if bound(&measured.base).is_none() {
                let attained = percent(measured.base.oracle.chosen.trial.attained());
                by_group.entry(&cell.group).or_default().push(format!("{} ({attained})", cell.name));
            }
        }
        if by_group.is_empty() {
            return "Every measured cell can be kept by the oracle or by something of the grid.\n".to_owned();
        }
        let lines: String =
            by_group.iter().map(|(group, cells)| format!("* {group}: {}\n", cells.join("; "))).collect();
        format!(
            "### Left out of pass and fail\n\nNeither the oracle's schedule, whose attainment stands in parentheses, nor anything \
             of the grid keeps 99 % here:\n\n{lines}"
        )
    }
}

/// One entrant over many cells.
#[derive(Debug, Default)]
struct Entrant {
    kept: usize,
    attained: Vec<f64>,
    /// GPU-hours over the bound's, where the promise is kept.
    ratios: Vec<f64>,
    reversals: f64,
    aborted: u64,
}

impl Entrant {
    fn add(&mut self, trial: &Trial, kept: bool, bound: f64) {
        self.attained.push(trial.attained());
        self.reversals = self.reversals.max(trial.reversals_per_hour());
        self.aborted += trial.aborted();
        if kept {
            self.kept += 1;
            self.ratios.push(trial.gpu_hours() / bound);
        }
    }

    fn row(&mut self, who: &str, judged: usize) -> String {
        self.attained.sort_by(f64::total_cmp);
        self.ratios.sort_by(f64::total_cmp);
        let middle = |list: &[f64]| list.get(list.len() / 2).copied();
        let share = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        format!(
            "| {who} | {} of {judged} | {} | {} | {} | {} | {:.1} | {} |\n",
            self.kept,
            share(middle(&self.attained)),
            share(self.attained.first().copied()),
            ratio(middle(&self.ratios)),
            ratio(self.ratios.last().copied()),
            self.reversals,
            self.aborted,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        cache::Cache,
        judge::tests::{base, cell, trial},
        measure::Depth,
    };

    fn crew(folder: &std::path::Path) -> Crew {
        Crew {
            depth: Depth { quick: true },
            data: None::<PathBuf>,
            peers: Vec::new(),
            policies: vec!["ours".to_owned()],
            cache: Cache::new(folder.to_owned(), false).unwrap(),
            threads: 1,
            stop_after: None,
        }
    }

    fn measured(attained: f64, gpu_hours: f64) -> Measured {
        let policies = BTreeMap::from([("ours".to_owned(), trial(attained, gpu_hours))]);
        Measured { base: base(), policies, seconds: 1.0, fresh: true }
    }

    #[test]
    fn losses_are_shown_as_plainly_as_wins() {
        let folder = tempfile::tempdir().unwrap();
        let crew = crew(folder.path());
        let other = Cell { name: "other".to_owned(), ..cell() };
        let won = vec![(cell(), Some(measured(0.995, 10.5)))];
        let page = Page::of(&won, &crew, 3, Vec::new());
        assert!(!page.lost() && page.summary().contains("Verdict on `ours`: 1 of 1 cells pass"));
        let done = vec![
            (cell(), Some(measured(0.995, 10.5))),
            (other, Some(measured(0.98, 12.0))),
            (Cell { name: "late".to_owned(), ..cell() }, None),
        ];
        let page = Page::of(&done, &crew, 5, vec!["trace".to_owned()]);
        let text = page.summary();
        assert!(page.lost());
        assert!(text.contains("Verdict on `ours`: 1 of 2 cells pass"), "{text}");
        assert!(text.contains("| other | attained 98.00 %; 1.20 × the causal bound; 1.09 × HPA |"), "{text}");
        assert!(
            text.contains("2 of 5 declared cells")
                && text.contains("begun: late.")
                && text.contains("`--data`: trace.")
        );
        assert!(text.contains("HPA: 11.00, 1.10 ×"), "{text}");
        let rows = page.every_row();
        assert!(
            rows.contains("`ours`: **pass**") && rows.contains("`ours`: **fail**: attained 98.00 %"),
            "{rows}"
        );
        assert!(rows.contains("| KPA | `p` | 90.00 % ✗ |"), "{rows}");
    }

    #[test]
    fn what_nobody_keeps_is_listed_and_not_judged() {
        let folder = tempfile::tempdir().unwrap();
        let crew = crew(folder.path());
        let mut nobody = measured(0.5, 1.0);
        nobody.base.causal.kept = false;
        nobody.base.oracle.chosen.kept = false;
        let done = vec![(cell(), Some(nobody))];
        let page = Page::of(&done, &crew, 1, Vec::new());
        assert!(!page.lost());
        assert!(page.summary().contains("* group: cell (99.50 %)"), "{}", page.summary());
        assert!(page.summary().contains("0 of 0 cells pass"));
    }

    #[test]
    fn only_the_measured_part_of_a_page_is_replaced() {
        let page = format!("by hand\n{BEGIN}\nold\n{END}\nby hand too\n");
        let new = replaced(&page, "new").unwrap();
        assert!(new.starts_with("by hand\n") && new.ends_with("by hand too\n") && !new.contains("old"));
        assert_eq!(replaced(&new, "new"), Some(new.clone()));
        assert_eq!(replaced("nothing", "new"), None);
    }
}
