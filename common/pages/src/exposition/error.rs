//! What is wrong with a page or with one of its lines.

/// A page is longer than [`Limits::page_bytes`](super::Limits); none of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page has {bytes} bytes, at most {limit} are read")]
pub struct PageTooLarge {
    /// The length of the page.
    pub bytes: usize,
    /// The limit that it broke.
    pub limit: usize,
}

/// Why a line was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is longer than [`Limits::line_bytes`](super::Limits).
    #[error("it is longer than the limit for a line")]
    TooLong,
    /// Its bytes are no UTF-8.
    #[error("it is no valid UTF-8")]
    NotUtf8,
    /// It does not start with a metric name (`[a-zA-Z_:][a-zA-Z0-9_:]*`).
    #[error("it does not start with a metric name")]
    Name,
    /// A label's name is missing or has characters beyond `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[error("a label's name is missing or malformed")]
    LabelName,
    /// There is no `=` after a label's name.
    #[error("a label's name is not followed by '='")]
    LabelEquals,
    /// A label's value does not start with a quotation mark.
    #[error("a label's value is not quoted")]
    LabelQuote,
    /// The line ends within its labels.
    #[error("it ends within its labels")]
    LabelsOpen,
    /// Something other than `,` or `}` follows a label.
    #[error("a label is followed by neither ',' nor '}}'")]
    LabelSeparator,
    /// A label's name occurs twice.
    #[error("a label is named twice")]
    LabelTwice,
    /// It has more labels than [`Limits::labels`](super::Limits).
    #[error("it has more labels than the limit for a series")]
    TooManyLabels,
    /// There is no value.
    #[error("it has no value")]
    NoValue,
    /// The value is no number.
    #[error("its value is no number")]
    Value,
    /// The timestamp is no number.
    #[error("its timestamp is no number")]
    Timestamp,
    /// Something follows the value and the timestamp.
    #[error("something follows its value and timestamp")]
    Trailing,
    /// A `TYPE`, `HELP` or `UNIT` line names no metric, or a type that does not exist.
    #[error("its TYPE, HELP or UNIT comment is incomplete or names an unknown type")]
    Comment,
}

/// A line that was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct LineError {
    /// The line's number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What of a page was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Malformed lines.
    pub malformed: u64,
    /// Well-formed samples beyond [`Limits::series`](super::Limits).
    pub over_limit: u64,
    /// The first malformed line.
    pub first: Option<LineError>,
}

impl Skipped {
    pub(super) fn count(&mut self, line: u64, fault: Fault) {
        self.malformed += 1;
        self.first.get_or_insert(LineError { line, fault });
    }
}
