//! All pages that were captured from running engines, and a second, plain way to read them.

use std::path::Path;

use plimsoll_common::engine::EngineKind;

use super::{EnginePage, read_page};
use crate::exposition::Limits;

/// One captured page.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) name: String,
    pub(super) text: String,
}

/// The pages of a fixture in the order of their capture. A fixture is one compressed text, a line `@@ name` before each
/// page.
pub(super) fn pages(fixture: &str) -> Vec<Captured> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/captured").join(fixture);
    let packed = std::fs::read(path).expect("the fixture exists");
    let text = zstd::decode_all(packed.as_slice()).expect("the fixture decompresses");
    let text = String::from_utf8(text).expect("the pages are text");
    let mut pages: Vec<Captured> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("@@ ") {
            Some(name) => pages.push(Captured { name: name.to_owned(), text: String::new() }),
            None => {
                let page = pages.last_mut().expect("a name comes first");
                page.text.push_str(line);
                page.text.push('\n');
            }
        }
    }
    pages
}

impl Captured {
    /// The page as the agent reads it when nobody told its kind.
    pub(super) fn read(&self) -> EnginePage {
        self.read_as(None)
    }

    pub(super) fn read_as(&self, kind: Option<EngineKind>) -> EnginePage {
        read_page(kind, self.text.as_bytes(), Limits::default())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The sum of the samples of a name whose labels have all of these texts in them; `None` where there is none.
    pub(super) fn raw(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let of_name = self.text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = rest.rsplit_once(' ')?;
            let series = found.is_empty() || found.starts_with('{');
            (series && labels.iter().all(|label| found.contains(label))).then(|| value.parse::<f64>())
        });
        of_name.map(|value| value.expect("a number")).reduce(|a, b| a + b)
    }

    /// The same as a count.
    pub(super) fn count(&self, name: &str, labels: &[&str]) -> Option<u64> {
        self.raw(name, labels).map(|value| value as u64)
    }
}
