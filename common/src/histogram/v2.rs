//! HdrHistogram's V2 encoding, plain and deflated: for the HTTP API, files and other languages' tools.

use std::io::Read;

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer, V2Serializer},
};

use super::{
    LatencyHistogram,
    layout::{self, HIGHEST_TRACKED, SIGNIFICANT_DIGITS},
};

/// The longest V2 payload that is read, inflated or plain: a full histogram needs 40 + 9 bytes a cell.
pub const MAX_V2_BYTES: usize = 40 + 9 * layout::CELLS;

const COOKIE_PLAIN: u32 = 0x1c84_9303;
const COOKIE_DEFLATED: u32 = 0x1c84_9304;
/// These bits of a cookie tell the word size (1: variable length), not the format.
const COOKIE_WORD_BITS: u32 = 0xf0;
const HEADER_BYTES: usize = 40;

/// Why bytes are no histogram of the fleet's layout.
#[derive(Debug, thiserror::Error)]
pub enum V2Error {
    /// Too short to hold a header.
    #[error("a V2 histogram has at least {HEADER_BYTES} bytes, these are {0}")]
    Truncated(usize),
    /// Longer than [`MAX_V2_BYTES`].
    #[error("a V2 histogram of this layout has at most {MAX_V2_BYTES} bytes")]
    TooLong,
    /// The first four bytes are neither V2's nor V2-deflate's.
    #[error("these bytes start with {0:#010x}, not with a V2 histogram's cookie")]
    Cookie(u32),
    /// Another range or precision than the fleet's.
    #[error(
        "the histogram tracks {low}..={high} with {digits} digits, the fleet's tracks 1..={HIGHEST_TRACKED} with {SIGNIFICANT_DIGITS}"
    )]
    OtherLayout {
        /// Its lowest discernible value.
        low: u64,
        /// Its highest trackable value.
        high: u64,
        /// Its significant digits.
        digits: u32,
    },
    /// The payload does not inflate or decode.
    #[error("the payload of the V2 histogram is damaged: {0}")]
    Damaged(String),
}

impl LatencyHistogram {
    /// Encodes as HdrHistogram V2. Exact sums do not travel in V2, only counts do.
    ///
    /// # Errors
    /// When the encoder fails, which it does not on a histogram of this layout.
    pub fn to_v2(&self) -> Result<Vec<u8>, V2Error> {
        self.encode(&mut V2Serializer::new())
    }

    /// Encodes as HdrHistogram V2 with zlib around it, as the Python and JavaScript readers want it.
    ///
    /// # Errors
    /// When the encoder fails, which it does not on a histogram of this layout.
    pub fn to_v2_deflate(&self) -> Result<Vec<u8>, V2Error> {
        self.encode(&mut V2DeflateSerializer::new())
    }

    fn encode<S: Serializer>(&self, serializer: &mut S) -> Result<Vec<u8>, V2Error> {
        let damaged = |error: &dyn std::fmt::Display| V2Error::Damaged(error.to_string());
        let mut hdr = Histogram::<u64>::new_with_bounds(1, HIGHEST_TRACKED, SIGNIFICANT_DIGITS)
            .map_err(|error| damaged(&error))?;
        for (cell, n) in self.nonzero() {
            hdr.record_n(layout::lowest_in(cell), n).map_err(|error| damaged(&error))?;
        }
        let mut bytes = Vec::new();
        serializer.serialize(&hdr, &mut bytes).map_err(|error| V2Error::Damaged(format!("{error:?}")))?;
        Ok(bytes)
    }

    /// Decodes V2 or V2-deflate bytes of the fleet's layout; the sum is taken from the middle of the cells.
    ///
    /// Nothing is allocated on the word of a header: range and precision are checked first, and inflation stops at
    /// [`MAX_V2_BYTES`].
    ///
    /// # Errors
    /// When the bytes are truncated, too long, damaged or of another layout.
    pub fn from_v2(bytes: &[u8]) -> Result<Self, V2Error> {
        let plain;
        let plain = match u32_at(bytes, 0)? & !COOKIE_WORD_BITS {
            COOKIE_PLAIN => bytes,
            COOKIE_DEFLATED => {
                plain = inflate(bytes.get(8..).ok_or(V2Error::Truncated(bytes.len()))?)?;
                &plain
            }
            cookie => return Err(V2Error::Cookie(cookie)),
        };
        check_header(plain)?;
        let hdr: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &*plain)
            .map_err(|error| V2Error::Damaged(error.to_string()))?;
        let mut histogram = Self::new();
        for step in hdr.iter_recorded() {
            let cell = layout::cell_of(step.value_iterated_to());
            let n = step.count_at_value();
            histogram.add_cell(cell, n);
            let middle = layout::lowest_in(cell) + layout::width_of(cell) / 2;
            histogram.add_sum(middle.saturating_mul(n));
        }
        Ok(histogram)
    }
}

fn inflate(zlib: &[u8]) -> Result<Vec<u8>, V2Error> {
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(zlib)
        .take(MAX_V2_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| V2Error::Damaged(error.to_string()))?;
    Ok(plain)
}

fn check_header(plain: &[u8]) -> Result<(), V2Error> {
    if plain.len() > MAX_V2_BYTES {
        return Err(V2Error::TooLong);
    }
    let cookie = u32_at(plain, 0)?;
    if cookie & !COOKIE_WORD_BITS != COOKIE_PLAIN {
        return Err(V2Error::Cookie(cookie));
    }
    // The reader allocates what the header claims, so the claim must be true.
    let payload = u32_at(plain, 4)? as usize;
    if payload != plain.len().saturating_sub(HEADER_BYTES) {
        let there = plain.len().saturating_sub(HEADER_BYTES);
        return Err(V2Error::Damaged(format!("its header claims {payload} bytes, {there} follow")));
    }
    let digits = u32_at(plain, 12)?;
    let (low, high) = (u64_at(plain, 16)?, u64_at(plain, 24)?);
    if (low, high, digits) != (1, HIGHEST_TRACKED, u32::from(SIGNIFICANT_DIGITS)) {
        return Err(V2Error::OtherLayout { low, high, digits });
    }
    check_counts(plain.get(HEADER_BYTES..).unwrap_or_default())
}

/// Goes over the counts, which the reader believes: a number is the count of the next cell or, where negative, a run of
/// empty cells, and all of them must fit the layout. (The reader negates the run, which the lowest number does not bear.)
fn check_counts(mut payload: &[u8]) -> Result<(), V2Error> {
    let mut cells = 0u64;
    while !payload.is_empty() {
        let number = zigzag(&mut payload)
            .ok_or_else(|| V2Error::Damaged("its counts end within a number".to_owned()))?;
        cells = cells.saturating_add(if number < 0 { number.unsigned_abs() } else { 1 });
        if cells > layout::CELLS as u64 {
            return Err(V2Error::Damaged(format!("it counts more than {} cells", layout::CELLS)));
        }
    }
    Ok(())
}

/// HdrHistogram's ZigZag LEB128: at most nine bytes, the ninth with eight bits.
fn zigzag(payload: &mut &[u8]) -> Option<i64> {
    let mut bits = 0u64;
    for place in 0..9 {
        let (byte, rest) = payload.split_first()?;
        *payload = rest;
        let last = place == 8;
        let part = u64::from(if last { *byte } else { byte & 0x7f });
        bits |= part << (7 * place);
        if last || byte & 0x80 == 0 {
            break;
        }
    }
    Some((bits >> 1) as i64 ^ -((bits & 1) as i64))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, V2Error> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_be_bytes).ok_or(V2Error::Truncated(bytes.len()))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, V2Error> {
    let eight = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok());
    eight.map(u64::from_be_bytes).ok_or(V2Error::Truncated(bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Micros;

    fn cells(histogram: &LatencyHistogram) -> Vec<(u16, u64)> {
        histogram.nonzero().collect()
    }

    #[test]
    fn another_layout_is_refused_before_it_is_allocated() {
        let wide = Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 5).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&wide, &mut bytes).unwrap();
        assert!(matches!(LatencyHistogram::from_v2(&bytes), Err(V2Error::OtherLayout { digits: 5, .. })));
        assert!(matches!(LatencyHistogram::from_v2(&[]), Err(V2Error::Truncated(0))));
        assert!(matches!(LatencyHistogram::from_v2(&[0; 64]), Err(V2Error::Cookie(0))));
    }

    /// Found by fuzzing: the reader negates the length of a run.
    #[test]
    fn a_run_of_the_lowest_number_is_refused() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Micros(3));
        let whole = histogram.to_v2().unwrap();
        let with = |payload: &[u8]| {
            let mut bytes = whole[..HEADER_BYTES].to_vec();
            bytes[4..8].copy_from_slice(&(payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
            LatencyHistogram::from_v2(&bytes)
        };
        assert!(matches!(with(&[0xff; 9]), Err(V2Error::Damaged(_))), "the lowest number");
        assert!(matches!(with(&[0x02, 0x80]), Err(V2Error::Damaged(_))), "a number that ends early");
        assert!(matches!(with(&[0x02; layout::CELLS + 1]), Err(V2Error::Damaged(_))), "a cell too many");
        assert_eq!(with(&[0x02; layout::CELLS]).unwrap().count(), layout::CELLS as u64);
    }

    #[test]
    fn a_deflate_bomb_is_cut_off() {
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..4 {
            zlib.write_all(&[0; 1 << 20]).unwrap();
        }
        let zlib = zlib.finish().unwrap();
        let mut bytes = COOKIE_DEFLATED.to_be_bytes().to_vec();
        bytes.extend((zlib.len() as u32).to_be_bytes());
        bytes.extend(zlib);
        assert!(matches!(LatencyHistogram::from_v2(&bytes), Err(V2Error::TooLong)));
    }

    proptest! {
        /// Invariant: counts survive both encodings.
        #[test]
        fn counts_round_trip(values in prop::collection::vec(0u64..7_680_000_000, 0..100)) {
            let mut histogram = LatencyHistogram::new();
            for value in values {
                histogram.record(Micros(value));
            }
            let plain = LatencyHistogram::from_v2(&histogram.to_v2().unwrap()).unwrap();
            let deflated = LatencyHistogram::from_v2(&histogram.to_v2_deflate().unwrap()).unwrap();
            prop_assert_eq!(cells(&plain), cells(&histogram));
            prop_assert_eq!(cells(&deflated), cells(&histogram));
        }

        /// Invariant: damaged bytes are an error or a histogram, never a panic.
        #[test]
        fn damage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), deflated: bool) {
            let cookie = if deflated { COOKIE_DEFLATED } else { COOKIE_PLAIN };
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&cookie.to_be_bytes());
            }
            let _ = LatencyHistogram::from_v2(&bytes);
        }

        /// Invariant: flipping any byte of a real histogram is an error or a histogram, never a panic.
        #[test]
        fn flipped_bytes_never_panic(at in 0usize..60, with: u8) {
            let mut histogram = LatencyHistogram::new();
            (0..50).for_each(|i| histogram.record(Micros(i * 1000)));
            let mut bytes = histogram.to_v2().unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= with;
            }
            let _ = LatencyHistogram::from_v2(&bytes);
        }
    }
}
