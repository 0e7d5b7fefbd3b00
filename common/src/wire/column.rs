//! Packed columns: one field of all GPUs or of all engines, as one byte string.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::varint;

/// The most rows a column may have.
pub(super) const MAX_ROWS: usize = 4096;

/// What can stand in a [`Column`].
pub trait ColumnItem: Copy {
    /// The value as unsigned bits, small values as small bits.
    fn to_bits(self) -> u64;
    /// The value of such bits.
    fn from_bits(bits: u64) -> Self;
}

impl ColumnItem for u64 {
    fn to_bits(self) -> u64 {
        self
    }
    fn from_bits(bits: u64) -> Self {
        bits
    }
}

impl ColumnItem for i64 {
    fn to_bits(self) -> u64 {
        ((self << 1) ^ (self >> 63)) as u64
    }
    fn from_bits(bits: u64) -> Self {
        ((bits >> 1) as Self) ^ -((bits & 1) as Self)
    }
}

/// One field of all rows: row i belongs to the i-th GPU or engine of the inventory. A row may be absent, which is not
/// zero; a column shorter than its table is absent for the rest, and an empty column is not sent at all.
///
/// On the wire: a byte string of LEB128 numbers, 0 for an absent row and the value + 1 for a present one.
#[derive(Clone, PartialEq, Eq)]
pub struct Column<T>(Vec<Option<T>>);

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: ColumnItem> Column<T> {
    /// The value of a row; `None` where it is absent.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<T> {
        self.0.get(row).copied().flatten()
    }

    /// Appends a row.
    pub fn push(&mut self, value: Option<T>) {
        self.0.push(value);
    }

    /// How many rows are there, absent ones included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no row with a value: then the column is left out of the message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<T>> + '_ {
        self.0.iter().copied()
    }
}

impl<T: ColumnItem> FromIterator<Option<T>> for Column<T> {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl<T: fmt::Debug> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl<T: ColumnItem> Serialize for Column<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.len() * 2);
        for row in &self.0 {
            // The one value without a successor, u64::MAX, travels as its predecessor.
            varint::write(&mut bytes, row.map_or(0, |value| value.to_bits().saturating_add(1)));
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de, T: ColumnItem> Deserialize<'de> for Column<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<T>(std::marker::PhantomData<T>);
        impl<T: ColumnItem> de::Visitor<'_> for Bytes<T> {
            type Value = Column<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a packed column")
            }
            fn visit_bytes<E: de::Error>(self, mut bytes: &[u8]) -> Result<Column<T>, E> {
                // Every number ends in a byte without the top bit.
                let numbers = bytes.iter().filter(|byte| **byte < 0x80).count();
                let mut rows = Vec::with_capacity(numbers.min(MAX_ROWS));
                while !bytes.is_empty() {
                    if rows.len() == MAX_ROWS {
                        return Err(E::custom(format_args!("a column has more than {MAX_ROWS} rows")));
                    }
                    let bits =
                        varint::read(&mut bytes).ok_or_else(|| E::custom("a column ends within a number"))?;
                    rows.push(bits.checked_sub(1).map(T::from_bits));
                }
                Ok(Column(rows))
            }
        }
        deserializer.deserialize_bytes(Bytes(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<T: ColumnItem>(column: &Column<T>) -> Column<T> {
        rmp_serde::from_slice(&rmp_serde::to_vec(column).unwrap()).unwrap()
    }

    #[test]
    fn absent_is_not_zero() {
        let column: Column<u64> = [Some(0), None, Some(7)].into_iter().collect();
        assert_eq!(round_trip(&column), column);
        assert_eq!(column.get(0), Some(0));
        assert_eq!(column.get(1), None);
        assert_eq!(column.get(9), None);
    }

    #[test]
    fn eight_small_values_cost_a_byte_each() {
        let column: Column<u64> = (0..8).map(Some).collect();
        assert_eq!(rmp_serde::to_vec(&column).unwrap().len(), 2 + 8);
    }

    #[test]
    fn a_column_of_endless_rows_is_refused() {
        let rows = rmp_serde::to_vec(serde_bytes::Bytes::new(&[0; MAX_ROWS + 1])).unwrap();
        assert!(rmp_serde::from_slice::<Column<u64>>(&rows).is_err());
    }

    proptest! {
        /// Invariant: every value but u64::MAX (which no sensor reaches) comes back, signed or not.
        #[test]
        fn columns_round_trip(unsigned in prop::collection::vec(prop::option::of(0..u64::MAX), 0..20),
                              signed in prop::collection::vec(prop::option::of(-1000i64..1000), 0..20)) {
            let unsigned: Column<u64> = unsigned.into_iter().collect();
            let signed: Column<i64> = signed.into_iter().collect();
            prop_assert_eq!(round_trip(&unsigned), unsigned);
            prop_assert_eq!(round_trip(&signed), signed);
        }
    }
}
