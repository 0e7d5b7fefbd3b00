//! Values as they are stored: MessagePack, compressed, with a checksum.
//!
//! A step looks much like the one before, so the first of a segment is the dictionary of the others: they take a fifth
//! of the room that they would take alone.

use std::io::{Read as _, Write as _};

use serde::{Serialize, de::DeserializeOwned};

/// The largest value that is read, bytes: what is beyond is no value of ours.
const MOST: u64 = 1 << 30;

/// zstd's level: higher ones take much longer for a few per cent.
const LEVEL: i32 = 3;

/// Why a stored value can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes are not those that were written.
    #[error("a stored value is damaged: {0}")]
    Damaged(#[from] std::io::Error),
    /// The value has another form than this build's.
    #[error("a stored value is of another build's form: {0}")]
    Form(#[from] rmp_serde::decode::Error),
}

/// A value as MessagePack; a value of ours can always be written so.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The only errors are those of the writer, and a vector has none.
    let _ = rmp_serde::encode::write_named(&mut bytes, value);
    bytes
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BlobError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Compresses; `dictionary` may be empty.
pub(super) fn pack(bytes: &[u8], dictionary: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::with_dictionary(Vec::new(), LEVEL, dictionary)?;
    encoder.include_checksum(true)?;
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Decompresses what [`pack`] made with the same dictionary.
pub(super) fn unpack(packed: &[u8], dictionary: &[u8]) -> Result<Vec<u8>, BlobError> {
    let mut bytes = Vec::new();
    zstd::stream::Decoder::with_dictionary(packed, dictionary)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Invariant: what was packed comes back, whatever the dictionary, and nothing that was cut or changed does.
        #[test]
        fn packing_is_exact(
            bytes in prop::collection::vec(any::<u8>(), 0..2_000),
            dictionary in prop::collection::vec(any::<u8>(), 0..500),
            at in any::<prop::sample::Index>(),
        ) {
            let packed = pack(&bytes, &dictionary).unwrap();
            prop_assert_eq!(&unpack(&packed, &dictionary).unwrap(), &bytes);
            prop_assert!(unpack(&packed[..at.index(packed.len())], &dictionary).is_err());
            let mut changed = packed.clone();
            changed[at.index(packed.len())] ^= 0x10;
            // A flag that is not used may change; the value may not.
            if let Ok(read) = unpack(&changed, &dictionary) {
                prop_assert_eq!(read, bytes);
            }
        }
    }

    #[test]
    fn a_step_like_the_one_before_takes_little_room() {
        let step = |n: u32| (0..200).map(|i| format!("engine-{i}: {}; ", i * n % 97)).collect::<String>();
        let (alone, after) =
            (pack(step(3).as_bytes(), &[]).unwrap(), pack(step(3).as_bytes(), step(3).as_bytes()).unwrap());
        assert!(after.len() * 10 < alone.len(), "{} {}", after.len(), alone.len());
    }
}
