//! The fleet's one HDR layout: 1 µs to 8,589 s with 2 significant digits.
//!
//! HdrHistogram's arithmetic with a unit magnitude of 0 and 256 sub-buckets: values below 256 have a cell each, above
//! that every power of two is cut into 128 cells, so that a cell is at most 1/128 = 0.78 % of its value wide.

/// Counts of this layout carry this number on the wire and in files. Another layout would get another number.
pub const LAYOUT_ID: u32 = 1;

/// Significant decimal digits, in HdrHistogram's words.
pub const SIGNIFICANT_DIGITS: u8 = 2;

/// The highest value that HdrHistogram implementations are asked to track: 7,680 s, the last default bound of vLLM's
/// request latencies, in microseconds.
pub const HIGHEST_TRACKED: u64 = 7_680_000_000;

const SUB_BUCKET_BITS: u32 = 8;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
const HALF: usize = SUB_BUCKETS / 2;
const OCTAVES: usize = 26;

/// How many cells the layout has.
pub const CELLS: usize = (OCTAVES - 1) * HALF + SUB_BUCKETS;

/// The highest value with a cell of its own; what is above is counted in the last cell.
pub const MAX_VALUE: u64 = ((SUB_BUCKETS as u64) << (OCTAVES - 1)) - 1;

/// The cell that counts `value`; values above [`MAX_VALUE`] fall into the last one.
#[must_use]
pub const fn cell_of(value: u64) -> u16 {
    let value = if value > MAX_VALUE { MAX_VALUE } else { value };
    let octave = (u64::BITS - (value | (SUB_BUCKETS as u64 - 1)).leading_zeros()) - SUB_BUCKET_BITS;
    ((octave as usize) * HALF + (value >> octave) as usize) as u16
}

/// The lowest value that `cell` counts. A cell beyond the layout is taken for the last.
#[must_use]
pub const fn lowest_in(cell: u16) -> u64 {
    let cell = if cell as usize >= CELLS { CELLS - 1 } else { cell as usize };
    let octave = octave_of(cell);
    ((cell - octave * HALF) as u64) << octave
}

/// The highest value that `cell` counts ("highest equivalent value" in HdrHistogram's words).
#[must_use]
pub const fn highest_in(cell: u16) -> u64 {
    lowest_in(cell) + width_of(cell) - 1
}

/// How many values `cell` counts.
#[must_use]
pub const fn width_of(cell: u16) -> u64 {
    let cell = if cell as usize >= CELLS { CELLS - 1 } else { cell as usize };
    1 << octave_of(cell)
}

const fn octave_of(cell: usize) -> usize {
    (cell / HALF).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_hdr_histograms() {
        let hdr =
            hdrhistogram::Histogram::<u64>::new_with_bounds(1, HIGHEST_TRACKED, SIGNIFICANT_DIGITS).unwrap();
        assert_eq!(hdr.distinct_values(), CELLS);
        const { assert!(MAX_VALUE > HIGHEST_TRACKED) };
    }

    #[test]
    fn cells_tile_the_range_without_gaps() {
        for cell in 1..CELLS as u16 {
            assert_eq!(lowest_in(cell), highest_in(cell - 1) + 1);
        }
        assert_eq!(lowest_in(0), 0);
        assert_eq!(highest_in(CELLS as u16 - 1), MAX_VALUE);
        assert_eq!(cell_of(u64::MAX), CELLS as u16 - 1);
        assert_eq!(lowest_in(u16::MAX), lowest_in(CELLS as u16 - 1));
    }

    proptest! {
        /// Invariant: a value lies in its cell, the cell is at most 0.79 % of the value wide, and HdrHistogram
        /// itself puts the same bounds around the value.
        #[test]
        fn a_value_lies_in_its_narrow_cell(value in 0..=MAX_VALUE) {
            let cell = cell_of(value);
            prop_assert!(lowest_in(cell) <= value && value <= highest_in(cell));
            prop_assert!(width_of(cell) == 1 || width_of(cell) as f64 <= 0.0079 * value as f64);
            let hdr = hdrhistogram::Histogram::<u64>::new_with_bounds(1, HIGHEST_TRACKED, SIGNIFICANT_DIGITS).unwrap();
            prop_assert_eq!(hdr.lowest_equivalent(value), lowest_in(cell));
            prop_assert_eq!(hdr.highest_equivalent(value), highest_in(cell));
        }
    }
}
