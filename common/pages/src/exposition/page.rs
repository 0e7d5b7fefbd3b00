//! A page as a bounded sequence of lines.

use super::{
    error::{Fault, PageTooLarge, Skipped},
    line::{self, Entry},
};

/// How much of a page is read. The defaults fit a vLLM server with 64 data-parallel engines and fine buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest page, bytes; a longer one is refused whole.
    pub page_bytes: usize,
    /// The longest line, bytes; a longer one is skipped.
    pub line_bytes: usize,
    /// The most samples a page; what is over is skipped.
    pub series: usize,
    /// The most labels a sample; a sample with more is skipped. (vLLM's `cache_config_info` has over 40.)
    pub labels: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { page_bytes: 8 << 20, line_bytes: 64 << 10, series: 100_000, labels: 128 }
    }
}

/// Starts reading a page.
///
/// # Errors
/// When the page is longer than [`Limits::page_bytes`].
pub fn read(page: &[u8], limits: Limits) -> Result<Lines<'_>, PageTooLarge> {
    if page.len() > limits.page_bytes {
        return Err(PageTooLarge { bytes: page.len(), limit: limits.page_bytes });
    }
    // One check of the whole page is far cheaper than one a line; only a page that fails it is checked line by line.
    let rest = std::str::from_utf8(page).map_or(Rest::Bytes(page), Rest::Text);
    Ok(Lines { rest, limits, line: 0, samples: 0, skipped: Skipped::default(), names: Vec::new() })
}

/// What a page says, line by line. Malformed lines are left out and counted.
#[derive(Debug)]
pub struct Lines<'a> {
    rest: Rest<'a>,
    limits: Limits,
    line: u64,
    samples: usize,
    skipped: Skipped,
    /// Scratch space for the search for labels named twice.
    names: Vec<&'a str>,
}

#[derive(Debug)]
enum Rest<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Lines<'_> {
    /// What was left out so far.
    #[must_use]
    pub const fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// How many well-formed samples were read so far, those over the limit not counted.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.samples
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let parsed = self.rest.next_line(self.limits.line_bytes)?.and_then(|text| {
                // Lone line feeds abound between families of some exporters; they cost nothing here.
                if text.is_empty() {
                    Ok(None)
                } else {
                    line::parse(text, self.limits.labels, &mut self.names)
                }
            });
            self.line += 1;
            match parsed {
                Ok(Some(Entry::Sample(_))) if self.samples == self.limits.series => {
                    self.skipped.over_limit += 1
                }
                Ok(Some(entry)) => {
                    self.samples += usize::from(matches!(entry, Entry::Sample(_)));
                    return Some(entry);
                }
                Ok(None) => {}
                Err(fault) => self.skipped.count(self.line, fault),
            }
        }
    }
}

impl<'a> Rest<'a> {
    /// Cuts off the next line, without its line feed.
    fn next_line(&mut self, limit: usize) -> Option<Result<&'a str, Fault>> {
        let bytes = match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        };
        if bytes.is_empty() {
            return None;
        }
        let length = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
        let behind = (length + 1).min(bytes.len());
        let too_long = length > limit;
        match self {
            Self::Text(text) => {
                let line = &text[..length];
                *text = &text[behind..];
                Some(if too_long { Err(Fault::TooLong) } else { Ok(line) })
            }
            Self::Bytes(bytes) => {
                let line = &bytes[..length];
                *bytes = &bytes[behind..];
                if too_long {
                    return Some(Err(Fault::TooLong));
                }
                Some(std::str::from_utf8(line).map_err(|_| Fault::NotUtf8))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::LineError;

    fn names(lines: &mut Lines<'_>) -> Vec<String> {
        lines.filter_map(Entry::into_sample).map(|sample| sample.name.to_owned()).collect()
    }

    #[test]
    fn a_bad_line_costs_only_itself() {
        let page = b"a 1\n\nb{ 2\nc 3\r\n\xff 4\nd{x=\"\xc3\"} 5\ne{x=\"\xc3\xbc\"} 6";
        let mut lines = read(page, Limits::default()).unwrap();
        assert_eq!(names(&mut lines), ["a", "c", "e"]);
        let first = Some(LineError { line: 3, fault: Fault::LabelName });
        assert_eq!(*lines.skipped(), Skipped { malformed: 3, over_limit: 0, first });
        assert_eq!(
            first.map(|first| first.to_string()).as_deref(),
            Some("line 3: a label's name is missing or malformed")
        );
    }

    #[test]
    fn everything_is_bounded() {
        let limits = Limits { page_bytes: 40, line_bytes: 8, series: 2, labels: 1 };
        assert_eq!(read(&[b'a'; 41], limits).err(), Some(PageTooLarge { bytes: 41, limit: 40 }));
        let mut lines = read(b"a 1\nlong_name 1\nb 2\nc 3\n# TYPE\nd{", limits).unwrap();
        assert_eq!(names(&mut lines), ["a", "b"]);
        assert_eq!(lines.samples(), 2);
        let first = Some(LineError { line: 2, fault: Fault::TooLong });
        assert_eq!(*lines.skipped(), Skipped { malformed: 3, over_limit: 1, first });
        let mut lines =
            read(b"a{b=\"\"} 1\na{b=\"\",c=\"\"} 1", Limits { line_bytes: 40, ..limits }).unwrap();
        assert_eq!(names(&mut lines), ["a"]);
    }

    #[test]
    fn an_empty_page_says_nothing() {
        for page in [&b""[..], b"\n", b"\r\n\r\n", b"# EOF"] {
            let mut lines = read(page, Limits::default()).unwrap();
            assert!(lines.next().is_none());
            assert_eq!(*lines.skipped(), Skipped::default());
        }
    }
}
