//! What is wrong with the HTTP side at the moment. Outlives restarts of the engine.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::script::Torn;

/// The faults that are switched on; shared by whoever serves and whoever switches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<RwLock<Set>>);

/// What a request must know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Set {
    /// How long a metrics page takes besides.
    pub(crate) slow: Duration,
    pub(crate) torn: Option<Torn>,
    /// Whether every path asks for the bearer token.
    pub(crate) locked: bool,
}

impl Faults {
    pub(crate) fn now(&self) -> Set {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Set)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A page whose histograms mix two moments: in each, the count is one above the last bucket, and the last finite bucket
/// that holds anything is one below what it should be, and so perhaps below the one before it.
pub(crate) fn mixed(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let lines: Vec<&str> = page.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let next_is_last = lines.get(index + 1).is_some_and(|next| next.contains("le=\"+Inf\""));
        let change = if line.starts_with('#') {
            0.0
        } else if next_is_last {
            -1.0
        } else if is_histogram_count(line, &lines) {
            1.0
        } else {
            0.0
        };
        match line.rsplit_once(' ').and_then(|(series, value)| Some((series, value.parse::<f64>().ok()?))) {
            Some((series, value)) if change > 0.0 || (change < 0.0 && value > 0.0) => {
                out.push_str(&format!("{series} {:?}", value + change));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Whether this is the count of a histogram, not of a summary.
fn is_histogram_count(line: &str, lines: &[&str]) -> bool {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    let Some(base) = name.strip_suffix("_count") else { return false };
    let bucket = format!("{base}_bucket");
    lines.iter().any(|other| other.starts_with(&bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_page_breaks_what_readers_may_rely_on() {
        let page = "# TYPE h histogram\nh_bucket{le=\"1.0\"} 3.0\nh_bucket{le=\"2.0\"} 3.0\nh_bucket{le=\"+Inf\"} 4.0\n\
                    h_count 4.0\nh_sum 9.0\n# TYPE s summary\ns_count 7.0\n";
        let mixed = mixed(page);
        assert!(
            mixed.contains("h_bucket{le=\"2.0\"} 2.0\n") && mixed.contains("h_bucket{le=\"+Inf\"} 4.0\n")
        );
        assert!(
            mixed.contains("h_count 5.0\n")
                && mixed.contains("s_count 7.0\n")
                && mixed.contains("h_sum 9.0\n")
        );
    }
}
