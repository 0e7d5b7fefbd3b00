//! A zero-copy reader of metrics pages in the Prometheus text format 0.0.4, as inference engines really write them.
//!
//! [`read`] gives an iterator over a page's lines: samples whose name and labels are borrowed from the page, and `TYPE`,
//! `HELP` and `UNIT` lines. Pages with OpenMetrics' additions (`# EOF`, `# UNIT`, exemplars, `_created` series) are
//! read too. A malformed line is skipped and counted, with the first fault kept; it never costs the rest of the page.
//! Nothing panics and everything is bounded by [`Limits`].
//!
//! ```
//! use plimsoll_pages::exposition::{Entry, Limits, read};
//!
//! let page = b"# TYPE up gauge\nup{engine=\"0\"} 1\nbroken{\n";
//! let mut lines = read(page, Limits::default()).expect("a small page");
//! let samples: Vec<_> = lines.by_ref().filter_map(Entry::into_sample).collect();
//! assert_eq!(samples[0].name, "up");
//! assert!(samples[0].labels.get("engine").is_some_and(|value| value == "0"));
//! assert_eq!(lines.skipped().malformed, 1);
//! ```

mod error;
mod float;
mod labels;
mod line;
mod page;

#[cfg(test)]
mod properties;

pub use error::{Fault, LineError, PageTooLarge, Skipped};
pub use float::parse as parse_float;
pub use labels::{Label, LabelValue, Labels};
pub use line::{Entry, MetricType, Sample};
pub use page::{Limits, Lines, read};
