//! Invariants of the reader over random pages.

use proptest::prelude::*;

use super::{Entry, Limits, Sample, read};

#[derive(Debug, Clone)]
struct Line {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    timestamp: Option<i64>,
    blanks: [String; 3],
    tail: &'static str,
}

fn line() -> impl Strategy<Value = Line> {
    let blanks = "[ \t]{0,2}";
    let labels =
        prop::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "\\PC{0,10}|[\\\\\"\n{},= ]{0,6}", 0..5);
    let tail = prop::sample::select(vec!["", " ", "\t\r", "\r", " # {trace_id=\"x\"} 0.5 12.5"]);
    (
        "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
        labels,
        any::<u64>().prop_map(f64::from_bits),
        proptest::option::of(any::<i64>()),
        [blanks, blanks, blanks],
        tail,
    )
        .prop_map(|(name, labels, value, timestamp, blanks, tail)| Line {
            name,
            labels: labels.into_iter().collect(),
            value,
            timestamp,
            blanks,
            tail,
        })
}

fn render(line: &Line) -> String {
    let [a, b, c] = &line.blanks;
    let mut labels = String::new();
    for (name, value) in &line.labels {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        labels.push_str(&format!("{a}{name}{b}={c}\"{value}\"{a},"));
    }
    let braces = if line.labels.is_empty() { " ".to_owned() } else { format!("{{{labels}{b}}}") };
    let timestamp = line.timestamp.map(|at| format!(" {at}")).unwrap_or_default();
    format!("{a}{}{braces}{c} {}{timestamp}{}", line.name, line.value, line.tail)
}

fn assert_same(sample: Sample<'_>, line: &Line) -> Result<(), TestCaseError> {
    prop_assert_eq!(sample.name, &line.name);
    let labels: Vec<_> =
        sample.labels.iter().map(|label| (label.name.to_owned(), label.value.text().into_owned())).collect();
    prop_assert_eq!(&labels, &line.labels);
    prop_assert!(
        sample.value.to_bits() == line.value.to_bits() || (sample.value.is_nan() && line.value.is_nan())
    );
    prop_assert_eq!(sample.timestamp.map(f64::to_bits), line.timestamp.map(|at| (at as f64).to_bits()));
    Ok(())
}

proptest! {
    /// Invariant: what is rendered is read back, whatever the blanks, escapes and line ends.
    #[test]
    fn pages_round_trip(lines in prop::collection::vec(line(), 0..20), last_feed: bool) {
        let mut page = lines.iter().map(render).collect::<Vec<_>>().join("\n");
        if last_feed {
            page.push('\n');
        }
        let mut reader = read(page.as_bytes(), Limits::default()).unwrap();
        let samples: Vec<_> = reader.by_ref().filter_map(Entry::into_sample).collect();
        prop_assert_eq!(reader.skipped().first, None);
        prop_assert_eq!(samples.len(), lines.len());
        for (sample, line) in samples.into_iter().zip(&lines) {
            assert_same(sample, line)?;
        }
    }

    /// Invariant: arbitrary bytes never panic, and every line is either read, blank, a comment or counted.
    #[test]
    fn arbitrary_bytes_never_panic(page in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = read(&page, Limits::default()).unwrap();
        let read = reader.by_ref().count() as u64;
        let lines = page.split(|byte| *byte == b'\n').count() as u64;
        prop_assert!(read + reader.skipped().malformed <= lines);
    }

    /// Invariant: the same for bytes that look like a page, where the deeper states are reached.
    #[test]
    fn near_pages_never_panic(page in "([a-z:_]{0,3}[{},=\"\\\\ \t#\r\n0-9.eNInf+-]{0,9}|# TYPE x |# HELP |le=\"){0,40}") {
        let mut reader = read(page.as_bytes(), Limits { labels: 3, ..Limits::default() }).unwrap();
        for entry in reader.by_ref() {
            if let Entry::Sample(sample) = entry {
                let (before, after) = sample.labels.around("le");
                prop_assert!(before.len() + after.len() <= sample.labels.raw().len());
                sample.labels.iter().for_each(|label| drop(label.value.text()));
            }
        }
    }

    /// Invariant: a damaged byte in a good page costs at most the lines it touches (a destroyed line feed joins two).
    #[test]
    fn damage_stays_local(at in 0usize..200, with: u8) {
        let mut page = "metric{label=\"value\"} 1.5\n".repeat(20).into_bytes();
        page[at] = with;
        let mut reader = read(&page, Limits::default()).unwrap();
        prop_assert!(reader.by_ref().count() >= 18);
    }
}
