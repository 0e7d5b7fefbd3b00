//! Request traces: CSV with the columns `timestamp_ms`, `input_tokens` and `output_tokens`, others ignored.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Request;

/// Longest trace that is read.
const MOST_BYTES: u64 = 1 << 30;
/// The columns, and the largest number in each: 100 years, and more tokens than any context holds.
const COLUMNS: [(&str, f64); 3] =
    [("timestamp_ms", 100.0 * 365.25 * 86_400e3), ("input_tokens", 1e8), ("output_tokens", 1e8)];

/// Why a trace can't be played.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be read.
    #[error("the trace {} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not text.
    #[error("the trace is {what}; give a CSV file with the columns timestamp_ms,input_tokens,output_tokens")]
    NoText {
        /// What it is.
        what: &'static str,
    },
    /// A column is missing.
    #[error(
        "line {line}: there is no column '{column}' in '{header}'; the first line must name the columns timestamp_ms,input_tokens,output_tokens"
    )]
    NoColumn {
        /// The line with the names, from 1.
        line: usize,
        /// The column that is missing.
        column: &'static str,
        /// The line itself.
        header: String,
    },
    /// A field is no number, or none that makes sense.
    #[error("line {line}, column {position} ({column}): '{text}' {problem}")]
    Field {
        /// The line, from 1.
        line: usize,
        /// The field's position in the line, from 1.
        position: usize,
        /// The column's name.
        column: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There are no requests in it.
    #[error("the trace has no requests; each line after the first is one")]
    Empty,
}

/// Reads a trace from a file.
///
/// # Errors
/// When it can't be read or played.
pub fn read_trace(path: &Path) -> Result<Vec<Request>, TraceError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(std::io::Error::other("it is longer than 1 GiB; cut a part out of it"));
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|source| TraceError::Read { path: path.to_owned(), source })?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(TraceError::NoText { what: "compressed (gunzip it first)" });
    }
    let text = str::from_utf8(&bytes).map_err(|_| TraceError::NoText { what: "no UTF-8 text" })?;
    parse_trace(text)
}

/// Parses a trace. The first line names the columns; lines that are empty or begin with `#` are skipped. Requests come
/// in the order of their times, and the first is at zero.
///
/// # Errors
/// When it can't be played; with line and column.
pub fn parse_trace(text: &str) -> Result<Vec<Request>, TraceError> {
    let lines = text.trim_start_matches('\u{feff}').lines().zip(1..);
    let mut lines = lines.filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'));
    let (header, line) = lines.next().ok_or(TraceError::Empty)?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let mut positions = [0; 3];
    for ((column, _), position) in COLUMNS.iter().zip(&mut positions) {
        *position = names.iter().position(|name| name == column).ok_or_else(|| TraceError::NoColumn {
            line,
            column,
            header: header.chars().take(120).collect(),
        })?;
    }
    let mut requests = Vec::new();
    for (text, line) in lines {
        requests.push(parse_line(text, line, positions)?);
    }
    requests.sort_by_key(|request| request.at);
    let first = requests.first().ok_or(TraceError::Empty)?.at;
    requests.iter_mut().for_each(|request| request.at -= first);
    Ok(requests)
}

fn parse_line(text: &str, line: usize, positions: [usize; 3]) -> Result<Request, TraceError> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut values = [0.0; 3];
    for (((column, most), position), value) in COLUMNS.iter().zip(positions).zip(&mut values) {
        let field = fields.get(position).copied().unwrap_or("");
        let problem = |problem: String| TraceError::Field {
            line,
            position: position + 1,
            column,
            text: field.chars().take(40).collect(),
            problem,
        };
        let number: f64 = field.parse().map_err(|_| problem("is no number".to_owned()))?;
        if !(0.0..=*most).contains(&number) {
            return Err(problem(format!("is outside 0 to {most}")));
        }
        if *column != "timestamp_ms" && number.fract() > 0.0 {
            return Err(problem("is no whole number of tokens".to_owned()));
        }
        *value = number;
    }
    let [at, input, output] = values;
    Ok(Request {
        at: Duration::from_secs_f64(at / 1e3),
        // An empty prompt or answer does not exist in the API; traces round short ones to zero.
        input_tokens: (input as u32).max(1),
        output_tokens: (output as u32).max(1),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn traces_are_read_whatever_else_they_hold() {
        let text = "# cut\nclient,timestamp_ms,output_tokens,input_tokens\r\nb,2500.5,7,100\n\na,500,0,20\n";
        let requests = parse_trace(text).unwrap();
        let rows: Vec<_> =
            requests.iter().map(|r| (r.at.as_micros(), r.input_tokens, r.output_tokens)).collect();
        assert_eq!(rows, [(0, 20, 1), (2_000_500, 100, 7)]);
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        let header = "timestamp_ms,input_tokens,output_tokens\n";
        for (body, says) in [
            ("0,10,10\n5,ten,10\n", "line 3, column 2 (input_tokens): 'ten' is no number"),
            ("0,10\n", "line 2, column 3 (output_tokens): '' is no number"),
            ("-1,10,10\n", "line 2, column 1 (timestamp_ms): '-1' is outside 0"),
            ("nan,10,10\n", "column 1 (timestamp_ms): 'nan' is outside"),
            ("0,10.5,10\n", "'10.5' is no whole number of tokens"),
            ("0,10,1e30\n", "column 3 (output_tokens): '1e30' is outside"),
            ("", "no requests"),
        ] {
            let error = parse_trace(&format!("{header}{body}")).unwrap_err().to_string();
            assert!(error.contains(says), "{body:?}: {error}");
        }
        let error = parse_trace("time,input_tokens,output_tokens\n1,2,3\n").unwrap_err().to_string();
        assert!(error.contains("no column 'timestamp_ms' in 'time,"), "{error}");
    }

    #[test]
    fn files_that_are_no_traces_are_refused() {
        let error = read_trace(Path::new("/nowhere/trace.csv")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/trace.csv"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.csv.gz");
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(read_trace(&path).unwrap_err().to_string().contains("gunzip"));
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(read_trace(&path).unwrap_err().to_string().contains("UTF-8"));
    }

    proptest! {
        // Invariant: no text makes the parser panic; what it accepts is in order and begins at zero.
        #[test]
        fn any_text_is_answered(body in "([-0-9.e]{0,8}[,\n ]|\\PC){0,60}") {
            if let Ok(requests) = parse_trace(&format!("timestamp_ms,input_tokens,output_tokens\n{body}")) {
                prop_assert_eq!(requests[0].at, Duration::ZERO);
                prop_assert!(requests.is_sorted_by_key(|request| request.at));
                prop_assert!(requests.iter().all(|r| r.input_tokens > 0 && r.output_tokens > 0));
            }
        }
    }
}
