//! The Prometheus text format, as the Python client library writes it.

use std::fmt::Write as _;

use crate::histogram::Histogram;

/// A label's name and value.
pub(crate) type Label<'a> = (&'a str, &'a str);

/// A page being written. Labels are written in the order given, which the caller keeps alphabetical, unless said
/// otherwise.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    pub(crate) fn new() -> Self {
        Self { text: String::with_capacity(80 << 10) }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The two lines that open a family.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: f64) {
        self.text.push_str(name);
        if !labels.is_empty() {
            self.text.push('{');
            for (index, (label, value)) in labels.iter().enumerate() {
                if index > 0 {
                    self.text.push(',');
                }
                let _ = write!(self.text, "{label}=\"");
                self.escaped(value);
                self.text.push('"');
            }
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", number(value));
    }

    /// The family that tells when each series of `base` began: a gauge named after it. A counter's base is its name
    /// less `_total`; that of a histogram is its whole name, whatever it ends in.
    pub(crate) fn created(&mut self, base: &str, help: &str, series: &[(Vec<Label<'_>>, f64)]) {
        let created = format!("{base}_created");
        self.family(&created, "gauge", help);
        for (labels, at) in series {
            self.sample(&created, labels, *at);
        }
    }

    /// Buckets, count and sum of one series; `le` goes between `before` and `after`.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        before: &[Label<'_>],
        after: &[Label<'_>],
        histogram: &Histogram,
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            let bound = number(bound);
            let labels: Vec<Label<'_>> =
                before.iter().copied().chain([("le", bound.as_str())]).chain(after.iter().copied()).collect();
            self.sample(&bucket, &labels, count as f64);
        }
        let labels: Vec<Label<'_>> = before.iter().chain(after).copied().collect();
        self.sample(&format!("{name}_count"), &labels, histogram.count() as f64);
        self.sample(&format!("{name}_sum"), &labels, histogram.sum());
    }

    /// Sum, buckets and count of one series, as a page merged from several processes has them. Labels in any order.
    pub(crate) fn merged_histogram(&mut self, name: &str, labels: &[Label<'_>], histogram: &Histogram) {
        let mut labels = labels.to_vec();
        labels.sort_unstable();
        self.sample(&format!("{name}_sum"), &labels, histogram.sum());
        let bucket = format!("{name}_bucket");
        let place = labels.partition_point(|(label, _)| *label < "le");
        for (bound, count) in histogram.cumulative() {
            let bound = number(bound);
            let mut labels = labels.clone();
            labels.insert(place, ("le", &bound));
            self.sample(&bucket, &labels, count as f64);
        }
        self.sample(&format!("{name}_count"), &labels, histogram.count() as f64);
    }

    fn escaped(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }
}

/// A number as Python's client writes it: always with a point, and from ten million on with an exponent.
pub(crate) fn number(value: f64) -> String {
    if value == f64::INFINITY {
        return "+Inf".to_owned();
    }
    let plain = format!("{value:?}");
    let Some(point) = plain.find('.').filter(|point| value > 0.0 && *point > 7 - 1) else { return plain };
    let digits = format!("{}.{}{}", &plain[..1], &plain[1..point], &plain[point + 1..]);
    let digits = digits.trim_end_matches(['0', '.']);
    format!("{digits}e+{:02}", point - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_on_a_captured_page() {
        for (value, text) in [
            (0.0, "0.0"),
            (27_681.0, "27681.0"),
            (0.923_076_923_076_923_1, "0.9230769230769231"),
            (5_247_410_176.0, "5.247410176e+09"),
            (1_795_353_863.214_273_5, "1.7953538632142735e+09"),
            (1_000_000.0, "1e+06"),
            (100_000.0, "100000.0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::new();
        page.sample("x", &[("a", "q\"b\\s\n")], 1.0);
        assert_eq!(page.into_text(), "x{a=\"q\\\"b\\\\s\\n\"} 1.0\n");
    }
}
