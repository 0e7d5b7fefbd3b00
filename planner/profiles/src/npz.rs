//! An archive of named arrays, as `numpy.savez` and `numpy.savez_compressed` write it.

use std::io::Read;

use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive, ZipSliceEntry};

use crate::{
    arrays::Arrays,
    error::NpzError,
    npy::{self, MOST_VALUES},
};

/// Members that an archive may have; a profiler writes five.
const MOST_MEMBERS: u64 = 256;
/// Bytes that one member may unpack to: its values of eight bytes, and a header.
const MOST_UNPACKED: u64 = MOST_VALUES as u64 * 8 + 65_536;

/// Whether these bytes begin as an archive does, be it an empty one.
pub(crate) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// Reads the arrays that are known by name; of the others only the names.
pub(crate) fn read(bytes: &[u8]) -> Result<Arrays, NpzError> {
    let archive = ZipArchive::from_slice(bytes)?;
    let (mut arrays, mut members) = (Arrays::default(), 0);
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry()? {
        members += 1;
        if members > MOST_MEMBERS {
            return Err(NpzError::Members(MOST_MEMBERS));
        }
        let member = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        let Some(place) = arrays.place(member.strip_suffix(".npy").unwrap_or(&member)) else { continue };
        if place.is_some() {
            return Err(NpzError::Twice(member));
        }
        let packed = archive.get_entry(entry.wayfinder())?;
        let data = unpack(&packed, entry.compression_method(), &member)?;
        *place = Some(npy::read(&data).map_err(|error| NpzError::Array { member, error })?);
    }
    // The directory's end tells how many there are: fewer were found where its middle is damaged.
    if members == archive.entries_hint() {
        Ok(arrays)
    } else {
        Err(NpzError::Directory(members, archive.entries_hint()))
    }
}

/// A member's bytes, bounded while they are unpacked, and held against their checksum.
fn unpack(packed: &ZipSliceEntry<'_>, method: CompressionMethod, member: &str) -> Result<Vec<u8>, NpzError> {
    let told = || member.to_owned();
    let mut data = Vec::new();
    // One byte more than is taken, so that what is too large is told from what just fits.
    let unpacked = match method {
        CompressionMethod::STORE => {
            packed.verifying_reader(packed.data()).take(MOST_UNPACKED + 1).read_to_end(&mut data)
        }
        CompressionMethod::DEFLATE => {
            let deflated = DeflateDecoder::new(packed.data());
            packed.verifying_reader(deflated).take(MOST_UNPACKED + 1).read_to_end(&mut data)
        }
        other => return Err(NpzError::Method { member: told(), method: format!("{other:?}") }),
    };
    unpacked.map_err(|error| NpzError::Unpack { member: told(), error })?;
    if data.len() as u64 > MOST_UNPACKED {
        return Err(NpzError::Large { member: told(), most: MOST_UNPACKED });
    }
    Ok(data)
}

#[cfg(test)]
#[path = "npz_tests.rs"]
mod tests;
