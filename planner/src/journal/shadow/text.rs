//! The comparison as text.

use std::fmt::Write as _;

use plimsoll_common::{histogram::AttainmentInterval, units::Micros};

use super::{PoolShadow, Shadow, Side};
use crate::journal::time::shown;

impl Shadow {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{} to {}", shown(self.from), shown(self.to));
        self.pools.iter().for_each(|one| pool(&mut text, one));
        text
    }
}

fn pool(text: &mut String, one: &PoolShadow) {
    let _ = writeln!(
        text,
        "\n{} ({}): {} steps over {}; at {} of them the advice was not what was ready or starting",
        one.pool,
        one.model,
        one.steps,
        Micros::from_secs_f64(one.seconds).unwrap_or_default(),
        one.differed,
    );
    let _ = writeln!(text, "  {:<34}{:>12}{:>12}", "", "advised", "had");
    let (advised, had) = (&one.advised, &one.had);
    let mut row = |label: &str, of: &dyn Fn(&Side) -> String, note: &str| {
        let _ = writeln!(text, "  {label:<34}{:>12}{:>12}{note}", of(advised), of(had));
    };
    row("GPU-hours", &|side| format!("{:.2}", side.gpu_hours), &change(advised.gpu_hours, had.gpu_hours));
    if one.judged_s > 0.0 {
        row("time short of what was needed, s", &|side| format!("{:.0}", side.short_s), "");
        row("replica-hours missing", &|side| format!("{:.3}", side.missing_replica_hours), "");
        row("replica-hours to spare", &|side| format!("{:.3}", side.spare_replica_hours), "");
    }
    let share =
        |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let goal = one.goal.map(|goal| format!("   (goal {:.2} %)", goal * 100.0)).unwrap_or_default();
    row("SLO kept, by the model", &|side| share(side.attained_by_model), &goal);
    row("changes of the target", &|side| side.moves.to_string(), "");
    let _ = writeln!(
        text,
        "  {:<34}{:>12}{:>12}",
        "first token in time, as measured",
        "",
        interval(one.ttft.as_ref())
    );
    let _ = writeln!(
        text,
        "  {:<34}{:>12}{:>12}",
        "all limits kept, as measured",
        "",
        interval(one.attained.as_ref())
    );
    if one.judged_s <= 0.0 {
        let _ = writeln!(text, "  what was needed is not known: no capacity under an SLO");
    }
    for short in &one.short {
        let _ = writeln!(
            text,
            "  the advice would have been short by up to {} of {} replicas, {} to {}",
            short.missing,
            short.needed,
            shown(short.from),
            shown(short.to),
        );
    }
}

fn change(advised: f64, had: f64) -> String {
    if had > 0.0 { format!("   ({:+.0} %)", (advised / had - 1.0) * 100.0) } else { String::new() }
}

fn interval(share: Option<&AttainmentInterval>) -> String {
    let Some(share) = share else { return "not known".to_owned() };
    let (low, high) = (share.low().get() * 100.0, share.high().get() * 100.0);
    if share.width() < 5e-5 { format!("{low:.2} %") } else { format!("{low:.1}–{high:.1} %") }
}
