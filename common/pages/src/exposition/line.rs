//! One line of a page.

use super::{
    error::Fault,
    float,
    labels::{Labels, scan, skip_blanks},
};

/// One sample, borrowed from the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// The name of the series, such as `vllm:e2e_request_latency_seconds_bucket`.
    pub name: &'a str,
    /// Its labels.
    pub labels: Labels<'a>,
    /// Its value; NaN and the infinities are values too.
    pub value: f64,
    /// The timestamp as written: milliseconds in the Prometheus text format, seconds in OpenMetrics.
    pub timestamp: Option<f64>,
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// Only ever rises, until its process starts again.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative `le` buckets with a sum and a count.
    Histogram,
    /// Buckets that may fall.
    GaugeHistogram,
    /// Quantiles with a sum and a count.
    Summary,
    /// Labels with a value of 1.
    Info,
    /// One series a state.
    StateSet,
    /// Not told (`untyped`, `unknown`).
    Untyped,
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry<'a> {
    /// A sample.
    Sample(Sample<'a>),
    /// A family's type.
    Type {
        /// The family.
        name: &'a str,
        /// Its type.
        metric: MetricType,
    },
    /// A family's description, escapes unresolved.
    Help {
        /// The family.
        name: &'a str,
        /// The description.
        text: &'a str,
    },
    /// A family's unit (OpenMetrics).
    Unit {
        /// The family.
        name: &'a str,
        /// The unit, such as `seconds`.
        unit: &'a str,
    },
}

impl<'a> Entry<'a> {
    /// The sample, if it is one.
    #[must_use]
    pub const fn into_sample(self) -> Option<Sample<'a>> {
        match self {
            Self::Sample(sample) => Some(sample),
            _ => None,
        }
    }
}

/// Reads a line without its line feed; `None` for blank lines and comments.
pub(super) fn parse<'a>(
    line: &'a str,
    max_labels: usize,
    names: &mut Vec<&'a str>,
) -> Result<Option<Entry<'a>>, Fault> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let start = skip_blanks(line.as_bytes(), 0);
    match line.as_bytes().get(start) {
        None => Ok(None),
        Some(b'#') => comment(&line[start + 1..]),
        Some(_) => sample(&line[start..], max_labels, names).map(|sample| Some(Entry::Sample(sample))),
    }
}

fn sample<'a>(line: &'a str, max_labels: usize, names: &mut Vec<&'a str>) -> Result<Sample<'a>, Fault> {
    let bytes = line.as_bytes();
    let name_end = bytes.iter().take_while(|byte| is_name_byte(**byte)).count();
    if name_end == 0 || bytes[0].is_ascii_digit() {
        return Err(Fault::Name);
    }
    let name = &line[..name_end];
    let mut at = skip_blanks(bytes, name_end);
    let mut labels = Labels::default();
    if bytes.get(at) == Some(&b'{') {
        let (found, length) = scan(&line[at + 1..], max_labels, names)?;
        labels = found;
        at = skip_blanks(bytes, at + 1 + length);
    } else if at == name_end && at < bytes.len() {
        return Err(Fault::Name);
    }
    let (token, at) = token(line, at);
    if token.is_empty() {
        return Err(Fault::NoValue);
    }
    let value = float::parse(token).ok_or(Fault::Value)?;
    let timestamp = timestamp(line, at)?;
    Ok(Sample { name, labels, value, timestamp })
}

/// What follows a value: nothing, a timestamp, an exemplar (which is not read), or both.
fn timestamp(line: &str, at: usize) -> Result<Option<f64>, Fault> {
    let (first, at) = token(line, at);
    if first.is_empty() || first.starts_with('#') {
        return Ok(None);
    }
    let timestamp = float::parse(first).ok_or(Fault::Timestamp)?;
    let (second, _) = token(line, at);
    if second.is_empty() || second.starts_with('#') { Ok(Some(timestamp)) } else { Err(Fault::Trailing) }
}

/// Reads what follows a `#`: TYPE, HELP and UNIT lines; anything else, `# EOF` included, is a mere comment.
fn comment(text: &str) -> Result<Option<Entry<'_>>, Fault> {
    let (keyword, at) = token(text, skip_blanks(text.as_bytes(), 0));
    if !matches!(keyword, "TYPE" | "HELP" | "UNIT") {
        return Ok(None);
    }
    let (name, at) = token(text, at);
    if name.is_empty() || !name.bytes().all(is_name_byte) || name.as_bytes()[0].is_ascii_digit() {
        return Err(Fault::Comment);
    }
    if keyword == "HELP" {
        return Ok(Some(Entry::Help { name, text: &text[at..] }));
    }
    let (word, at) = token(text, at);
    if !token(text, at).0.is_empty() {
        return Err(Fault::Comment);
    }
    if keyword == "UNIT" {
        return Ok(Some(Entry::Unit { name, unit: word }));
    }
    let metric = match word {
        "counter" => MetricType::Counter,
        "gauge" => MetricType::Gauge,
        "histogram" => MetricType::Histogram,
        "gaugehistogram" => MetricType::GaugeHistogram,
        "summary" => MetricType::Summary,
        "info" => MetricType::Info,
        "stateset" => MetricType::StateSet,
        "untyped" | "unknown" => MetricType::Untyped,
        _ => return Err(Fault::Comment),
    };
    Ok(Some(Entry::Type { name, metric }))
}

/// The text from `at` up to the next blank, and where the next token starts.
fn token(text: &str, at: usize) -> (&str, usize) {
    let bytes = text.as_bytes();
    let length = bytes[at..].iter().take_while(|byte| !matches!(byte, b' ' | b'\t')).count();
    (&text[at..at + length], skip_blanks(bytes, at + length))
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Option<Entry<'_>>, Fault> {
        parse(line, 8, &mut Vec::new())
    }

    fn sample_of(line: &str) -> Sample<'_> {
        of(line).unwrap().and_then(Entry::into_sample).unwrap()
    }

    #[test]
    fn samples_as_engines_write_them() {
        let bucket = r#"vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="a{}\"b"} 5576.0"#;
        let sample = sample_of(bucket);
        assert_eq!(sample.name, "vllm:iteration_tokens_total_bucket");
        assert_eq!(sample.labels.get("le").unwrap().raw(), "+Inf");
        assert!(sample.labels.get("model_name").unwrap() == "a{}\"b");
        assert!(sample.value.to_bits() == 5576f64.to_bits());
        assert!(sample_of("x NaN").value.is_nan());
        assert!(sample_of("x{} -Inf").value.is_infinite());
        assert!(sample_of("\t x \t 1e-05 \t\r").value.to_bits() == 1e-5f64.to_bits());
        assert!(sample_of(":x{a=\"\"}3").value.to_bits() == 3f64.to_bits());
    }

    #[test]
    fn timestamps_and_exemplars() {
        assert_eq!(sample_of("x 1 1395066363000").timestamp, Some(1_395_066_363_000.0));
        assert_eq!(sample_of("x 1 # {trace=\"a b\"} 0.5 1.5").timestamp, None);
        assert_eq!(sample_of("x{le=\"1\"} 1 12.5 # {} 0.5").timestamp, Some(12.5));
        assert_eq!(of("x 1 z"), Err(Fault::Timestamp));
        assert_eq!(of("x 1 2 3"), Err(Fault::Trailing));
    }

    #[test]
    fn comments() {
        assert_eq!(
            of("# TYPE vllm:x counter"),
            Ok(Some(Entry::Type { name: "vllm:x", metric: MetricType::Counter }))
        );
        assert_eq!(
            of("#\tHELP x  two words \\n"),
            Ok(Some(Entry::Help { name: "x", text: "two words \\n" }))
        );
        assert_eq!(of("# HELP x"), Ok(Some(Entry::Help { name: "x", text: "" })));
        assert_eq!(
            of("# UNIT x_seconds seconds"),
            Ok(Some(Entry::Unit { name: "x_seconds", unit: "seconds" }))
        );
        for ignored in ["# EOF", "#", "# a word", "# TYPED x", "", " \t", "\r"] {
            assert_eq!(of(ignored), Ok(None), "{ignored:?}");
        }
        for malformed in ["# TYPE", "# TYPE x", "# TYPE x thing", "# TYPE x gauge y", "# HELP", "# HELP 1x y"]
        {
            assert_eq!(of(malformed), Err(Fault::Comment), "{malformed:?}");
        }
    }

    #[test]
    fn what_is_no_sample_is_told() {
        for (line, fault) in [
            ("1x 2", Fault::Name),
            ("{a=\"b\"} 2", Fault::Name),
            ("<html>", Fault::Name),
            ("x-y 2", Fault::Name),
            ("ü 2", Fault::Name),
            ("x", Fault::NoValue),
            ("x{a=\"b\"}", Fault::NoValue),
            ("x{a=\"b\"} \r", Fault::NoValue),
            ("x one", Fault::Value),
            ("x 1,5", Fault::Value),
            ("x # {}", Fault::Value),
            ("x{a=\"b\" 2", Fault::LabelSeparator),
            ("x{a=\"b\\\" 2", Fault::LabelsOpen),
        ] {
            assert_eq!(of(line), Err(fault), "{line:?}");
        }
    }
}
