//! Prometheus text format 0.0.4, written family by family.
//!
//! Our pages re-export a snapshot that changes as a whole once a second, so there is no registry of live counters to
//! keep: a page is written from the snapshot, top to bottom, and a family without samples leaves no trace.

use std::fmt::{self, Write};

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// Goes up and down.
    Gauge,
    /// Only goes up; the name must end in `_total`.
    Counter,
    /// Quantiles with `_sum` and `_count`.
    Summary,
    /// Cumulative `le` buckets with `_sum` and `_count`.
    Histogram,
}

impl MetricType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }
}

/// A label: name and value. Values are escaped, names are ours.
pub type Label<'a> = (&'a str, &'a str);

/// A page under construction.
#[derive(Debug, Default)]
pub struct MetricPage {
    text: String,
}

impl MetricPage {
    /// An empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a family; its samples follow through the handle. Every family has its own name on a page.
    pub fn family<'p>(&'p mut self, name: &'p str, metric_type: MetricType, help: &'p str) -> Family<'p> {
        Family { page: self, name, metric_type, help, started: false }
    }

    /// One gauge without a family of samples.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: impl Number) {
        self.family(name, MetricType::Gauge, help).sample(labels, value);
    }

    /// One counter without a family of samples.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: impl Number) {
        self.family(name, MetricType::Counter, help).sample(labels, value);
    }

    /// The page's text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

/// One family of a page. HELP and TYPE are written with the first sample.
#[derive(Debug)]
pub struct Family<'p> {
    page: &'p mut MetricPage,
    name: &'p str,
    metric_type: MetricType,
    help: &'p str,
    started: bool,
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Number) {
        self.suffixed("", labels, value);
    }

    /// Adds a sample where there is a value; absent values leave no sample.
    pub fn maybe(&mut self, labels: &[Label<'_>], value: Option<impl Number>) {
        if let Some(value) = value {
            self.sample(labels, value);
        }
    }

    /// Adds a sample under the family's name and a suffix (`_sum`, `_count`, `_bucket`).
    pub fn suffixed(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Number) {
        self.start();
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        for (i, (label, value)) in labels.iter().enumerate() {
            text.push(if i == 0 { '{' } else { ',' });
            text.push_str(label);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        text.push(' ');
        // Writing to a String cannot fail.
        let _ = value.write(text);
        text.push('\n');
    }

    fn start(&mut self) {
        if self.started {
            return;
        }
        self.started = true;
        let text = &mut self.page.text;
        let _ = write!(text, "# HELP {} ", self.name);
        escape(text, self.help, false);
        let _ = writeln!(text, "\n# TYPE {} {}", self.name, self.metric_type.as_str());
        if let Some(unit) = unit_of(self.name) {
            let _ = writeln!(text, "# UNIT {} {unit}", self.name);
        }
    }
}

/// The unit at the end of a name of ours; `None` where it counts things. Readers of text format 0.0.4 take the UNIT line
/// for a comment, readers of OpenMetrics for what it is.
fn unit_of(name: &str) -> Option<&'static str> {
    const UNITS: &[&str] =
        &["seconds", "bytes", "bytes_per_second", "joules", "watts", "celsius", "hertz", "ratio", "tokens"];
    let name = name.strip_suffix("_total").unwrap_or(name);
    let ends = |unit: &&&str| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_'));
    UNITS.iter().find(ends).copied()
}

fn escape(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

/// What can be a sample's value.
pub trait Number: Copy {
    /// Writes it as Prometheus reads it.
    ///
    /// # Errors
    /// When the writer fails.
    fn write(self, text: &mut String) -> fmt::Result;
}

impl Number for u64 {
    fn write(self, text: &mut String) -> fmt::Result {
        write!(text, "{self}")
    }
}

impl Number for i64 {
    fn write(self, text: &mut String) -> fmt::Result {
        write!(text, "{self}")
    }
}

impl Number for usize {
    fn write(self, text: &mut String) -> fmt::Result {
        write!(text, "{self}")
    }
}

impl Number for bool {
    fn write(self, text: &mut String) -> fmt::Result {
        text.write_str(if self { "1" } else { "0" })
    }
}

impl Number for f64 {
    fn write(self, text: &mut String) -> fmt::Result {
        if self.is_nan() {
            text.write_str("NaN")
        } else if self.is_infinite() {
            text.write_str(if self > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(text, "{self}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = MetricPage::new();
        page.family("unused", MetricType::Gauge, "Never sampled.").maybe(&[], None::<u64>);
        let mut power = page.family("gpu_power_watts", MetricType::Gauge, "Power draw.");
        power.sample(&[("gpu", "GPU-1"), ("name", "a \"b\" \\ c\nd")], 71.5);
        power.sample(&[], f64::INFINITY);
        page.counter("reports_total", "Reports.", &[], 3u64);
        let want = "# HELP gpu_power_watts Power draw.\n# TYPE gpu_power_watts gauge\n# UNIT gpu_power_watts watts\n\
                    gpu_power_watts{gpu=\"GPU-1\",name=\"a \\\"b\\\" \\\\ c\\nd\"} 71.5\ngpu_power_watts +Inf\n\
                    # HELP reports_total Reports.\n# TYPE reports_total counter\nreports_total 3\n";
        assert_eq!(page.finish(), want);
    }

    #[test]
    fn a_unit_is_the_end_of_a_name() {
        assert_eq!(unit_of("plimsoll_gpu_energy_joules_total"), Some("joules"));
        assert_eq!(unit_of("plimsoll_gpu_pcie_transmit_bytes_per_second"), Some("bytes_per_second"));
        assert_eq!(unit_of("plimsoll_agent_reports_sent_total"), None);
        assert_eq!(unit_of("seconds"), None);
    }
}
