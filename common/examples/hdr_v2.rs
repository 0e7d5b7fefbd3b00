//! Latency histograms in HdrHistogram's V2 form on standard input and output, so that other implementations can be
//! held against ours.
//!
//! ```text
//! printf '100\n200\n10000\n' | hdr_v2 encode | hdr_v2 decode
//! ```
//!
//! `encode` reads microseconds, one a line, and writes V2-deflate; `encode-plain` writes V2; `decode` reads either and
//! writes a line `<lowest value of the cell> <samples>` for each cell that holds any. The bytes are raw, not base64.

use std::{
    error::Error,
    io::{Read, Write, stdin, stdout},
};

use plimsoll_common::{
    histogram::{LatencyHistogram, layout::lowest_in},
    units::Micros,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let mut input = Vec::new();
    stdin().read_to_end(&mut input)?;
    let output = match mode.as_str() {
        "encode" => read_values(&input)?.to_v2_deflate()?,
        "encode-plain" => read_values(&input)?.to_v2()?,
        "decode" => {
            let histogram = LatencyHistogram::from_v2(&input)?;
            let lines: String =
                histogram.nonzero().map(|(cell, n)| format!("{} {n}\n", lowest_in(cell))).collect();
            lines.into_bytes()
        }
        other => return Err(format!("'{other}' is none of encode, encode-plain, decode").into()),
    };
    stdout().write_all(&output)?;
    Ok(())
}

fn read_values(input: &[u8]) -> Result<LatencyHistogram, Box<dyn Error>> {
    let mut histogram = LatencyHistogram::new();
    for value in std::str::from_utf8(input)?.split_ascii_whitespace() {
        let value =
            value.parse().map_err(|error| format!("'{value}' is no number of microseconds: {error}"))?;
        histogram.record(Micros(value));
    }
    Ok(histogram)
}
