//! Traces that others have published.

use plimsoll_common::units::Micros;
use serde::Deserialize;

use super::{Arrival, PrefixRef, Workload};

/// The most requests that one trace may hold.
pub const MAX_ROWS: usize = 50_000_000;

/// The longest trace, from its first request to its last.
const MAX_DAYS: u64 = 400;

/// Tokens that one hash of a Mooncake trace stands for.
const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// A trace, as it was read.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its requests; the first comes at time zero.
    pub workload: Workload,
    /// What it was taken for.
    pub format: Format,
    /// Rows left out since they ask for no prompt or no output: failed requests, in published traces.
    pub skipped: u64,
}

/// What a trace looks like. The first line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Azure's LLM inference traces: `TIMESTAMP,ContextTokens,GeneratedTokens`, dates with fractions of a second.
    Azure,
    /// BurstGPT: `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`, seconds.
    BurstGpt,
    /// Mooncake: a JSON object a line with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`.
    Mooncake,
    /// `timestamp_ms` or `timestamp_s`, `input_tokens`, `output_tokens`, and if you like `client` and `model`
    /// (numbers), in any order.
    Plain,
}

/// Why a trace cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct ReadError {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing there.
    #[error("the trace is empty: it needs a header and requests")]
    Empty,
    /// The first line is of no known format.
    #[error(
        "this is no trace that we know: the first line should be a header with timestamp_ms (or timestamp_s), \
         input_tokens and output_tokens, the header of an Azure or BurstGPT trace, or a JSON object of Mooncake's"
    )]
    Header,
    /// Too few columns.
    #[error("there is no column {column}: the line has {found} of {wanted}")]
    Columns {
        /// Which is missing.
        column: String,
        /// Columns of this line.
        found: usize,
        /// Columns of the header.
        wanted: usize,
    },
    /// A value does not read.
    #[error("{column} is {value:?}: {wanted}")]
    Value {
        /// In which column.
        column: String,
        /// What stands there.
        value: String,
        /// What should.
        wanted: &'static str,
    },
    /// A line of JSON does not read.
    #[error("not a request of a Mooncake trace: {0}")]
    Json(String),
    /// From the first request to the last it is too long.
    #[error("the trace spans {0} days, and 400 are the most: is its clock in the unit that the header says?")]
    Span(u64),
    /// Too many rows.
    #[error("a trace may have {MAX_ROWS} requests at most")]
    TooLong,
}

#[derive(Deserialize)]
struct MooncakeRow {
    #[serde(alias = "timestamp_ms")]
    timestamp: f64,
    #[serde(alias = "input_tokens")]
    input_length: u32,
    #[serde(alias = "output_tokens")]
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

/// Where in a line what stands, and what its times are.
struct Columns {
    wanted: usize,
    time: (usize, Clock),
    prompt: usize,
    output: usize,
    client: Option<usize>,
    model: Option<usize>,
    names: Vec<String>,
}

#[derive(Clone, Copy)]
enum Clock {
    Millis,
    Seconds,
    Date,
}

/// Reads a trace of any format that its first line tells.
///
/// # Errors
/// The first line that cannot be read, with the file's name.
pub fn read(file: &str, text: &str) -> Result<Trace, ReadError> {
    let at = |line: usize| move |problem| ReadError { file: file.to_owned(), line, problem };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Comments may stand before the header.
    let mut lines =
        text.lines().enumerate().skip_while(|(_, line)| line.trim().is_empty() || line.starts_with('#'));
    let Some((index, first)) = lines.next() else { return Err(at(1)(Problem::Empty)) };
    if first.trim_start().starts_with('{') {
        let rows = std::iter::once((index, first)).chain(lines);
        return mooncake(rows).map_err(|(line, problem)| at(line)(problem));
    }
    let (format, columns) = Columns::of(first).map_err(at(index + 1))?;
    let mut arrivals = Vec::new();
    let (mut skipped, mut read_lines) = (0, 0);
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        read_lines = index + 1;
        if arrivals.len() >= MAX_ROWS {
            return Err(at(index + 1)(Problem::TooLong));
        }
        let arrival = columns.row(line).map_err(at(index + 1))?;
        if arrival.1.prompt_tokens == 0 || arrival.1.output_tokens == 0 {
            skipped += 1;
        } else {
            arrivals.push(arrival);
        }
    }
    if arrivals.is_empty() {
        return Err(at(read_lines.max(index + 1))(Problem::Empty));
    }
    let workload = Workload::new(rebased(arrivals).map_err(at(index + 1))?);
    Ok(Trace { workload, format, skipped })
}

/// Arrivals with their times counted from the earliest.
fn rebased(arrivals: Vec<(i64, Arrival)>) -> Result<Vec<Arrival>, Problem> {
    let zero = arrivals.iter().map(|(at, _)| *at).min().unwrap_or_default();
    let days = arrivals.iter().map(|(at, _)| at.abs_diff(zero)).max().unwrap_or_default() / 86_400_000_000;
    if days > MAX_DAYS {
        return Err(Problem::Span(days));
    }
    let shift = |(at, arrival): (i64, Arrival)| Arrival { at: Micros(at.abs_diff(zero)), ..arrival };
    Ok(arrivals.into_iter().map(shift).collect())
}

fn mooncake<'a>(rows: impl Iterator<Item = (usize, &'a str)>) -> Result<Trace, (usize, Problem)> {
    let (mut arrivals, mut hashes, mut skipped) = (Vec::new(), Vec::new(), 0);
    for (index, line) in rows.filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = index + 1;
        let row: MooncakeRow =
            serde_json::from_str(line).map_err(|error| (line_number, Problem::Json(error.to_string())))?;
        let time = millis(row.timestamp).ok_or_else(|| {
            let value = row.timestamp.to_string();
            (line_number, Problem::Value { column: "timestamp".to_owned(), value, wanted: TIME })
        })?;
        if arrivals.len() >= MAX_ROWS || hashes.len() + row.hash_ids.len() > u32::MAX as usize {
            return Err((line_number, Problem::TooLong));
        }
        if row.input_length == 0 || row.output_length == 0 {
            skipped += 1;
            continue;
        }
        let prefix = PrefixRef { start: hashes.len() as u32, len: row.hash_ids.len() as u32 };
        hashes.extend(row.hash_ids);
        arrivals.push((
            time,
            Arrival { prefix, ..Arrival::new(Micros::ZERO, row.input_length, row.output_length) },
        ));
    }
    if arrivals.is_empty() {
        return Err((1, Problem::Empty));
    }
    let mut workload = Workload::new(rebased(arrivals).map_err(|problem| (1, problem))?);
    workload.hashes = hashes;
    workload.prefix_block_tokens = MOONCAKE_BLOCK_TOKENS;
    Ok(Trace { workload, format: Format::Mooncake, skipped })
}

const TIME: &str = "give a time of less than 3,000 years that is not negative";
const TOKENS: &str = "give a whole number of tokens below 2^31";
const NUMBER: &str = "give a whole number";

fn millis(value: f64) -> Option<i64> {
    (value.is_finite() && (0.0..1e14).contains(&value)).then(|| (value * 1e3).round() as i64)
}

impl Columns {
    fn of(header: &str) -> Result<(Format, Self), Problem> {
        let names: Vec<String> = header.split(',').map(|name| unquoted(name).to_owned()).collect();
        let place = |wanted: &str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        let of = |time: &str, clock, prompt: &str, output: &str, format| {
            let columns = Self {
                wanted: names.len(),
                time: (place(time)?, clock),
                prompt: place(prompt)?,
                output: place(output)?,
                client: place("client"),
                model: place("model").filter(|_| format == Format::Plain),
                names: names.clone(),
            };
            Some((format, columns))
        };
        of("timestamp_ms", Clock::Millis, "input_tokens", "output_tokens", Format::Plain)
            .or_else(|| of("timestamp_s", Clock::Seconds, "input_tokens", "output_tokens", Format::Plain))
            .or_else(|| of("timestamp", Clock::Date, "contexttokens", "generatedtokens", Format::Azure))
            .or_else(|| {
                of("timestamp", Clock::Seconds, "request tokens", "response tokens", Format::BurstGpt)
            })
            .ok_or(Problem::Header)
    }

    /// One request, with its time in microseconds of whatever clock the trace has.
    fn row(&self, line: &str) -> Result<(i64, Arrival), Problem> {
        let cells: Vec<&str> = line.split(',').map(unquoted).collect();
        let cell = |index: usize| {
            cells.get(index).copied().ok_or_else(|| Problem::Columns {
                column: self.names[index].clone(),
                found: cells.len(),
                wanted: self.wanted,
            })
        };
        let bad = |index: usize, value: &str, wanted| Problem::Value {
            column: self.names[index].clone(),
            value: value.chars().take(40).collect(),
            wanted,
        };
        let (index, clock) = self.time;
        let text = cell(index)?;
        let time = clock.read(text).ok_or_else(|| bad(index, text, clock.wanted()))?;
        let number = |index: usize, most: u32, wanted| {
            let text = cell(index)?;
            text.parse::<u32>().ok().filter(|n| *n <= most).ok_or_else(|| bad(index, text, wanted))
        };
        let mut arrival = Arrival::new(
            Micros::ZERO,
            number(self.prompt, i32::MAX as u32, TOKENS)?,
            number(self.output, i32::MAX as u32, TOKENS)?,
        );
        if let Some(index) = self.client {
            arrival.client = number(index, u32::MAX, NUMBER)?;
        }
        if let Some(index) = self.model {
            arrival.model = number(index, u32::from(u16::MAX), NUMBER)? as u16;
        }
        Ok((time, arrival))
    }
}

impl Clock {
    fn read(self, text: &str) -> Option<i64> {
        match self {
            Self::Millis => millis(text.parse().ok()?),
            Self::Seconds => millis(text.parse::<f64>().ok()? * 1e3),
            Self::Date => {
                if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
                    return Some(timestamp.as_microsecond());
                }
                let date = text.parse::<jiff::civil::DateTime>().ok()?;
                Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond())
            }
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Date => "give a date and time, like 2023-11-16 18:15:46.68",
            Self::Millis | Self::Seconds => TIME,
        }
    }
}

fn unquoted(cell: &str) -> &str {
    let cell = cell.trim();
    cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
