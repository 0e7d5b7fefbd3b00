//! One array in numpy's own format, without what executes code: no objects, no pickles.
//!
//! The format: six bytes of magic, a version, the header's length, the header (a Python dictionary of `descr`,
//! `fortran_order` and `shape`, written as text), and the values.

use crate::{arrays::Array, error::NpyError};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Values that one array may have; a profiler writes hundreds, at most ten thousands.
pub(crate) const MOST_VALUES: usize = 1_000_000;

/// Whether these bytes begin as an array does.
pub(crate) fn is_array(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads an array of numbers, row by row.
pub(crate) fn read(bytes: &[u8]) -> Result<Array, NpyError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(NpyError::Magic)?;
    let (header, data) = split(rest)?;
    let header = Header::parse(header)?;
    if header.fortran && header.shape.len() > 1 {
        return Err(NpyError::Order);
    }
    let told = || NpyError::Shape(format!("{:?}", header.shape), MOST_VALUES);
    let count = header.shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
    let count = count.filter(|count| header.shape.len() <= 2 && *count <= MOST_VALUES).ok_or_else(told)?;
    let kind = Kind::parse(&header.descr)?;
    if data.len() != count * kind.bytes {
        return Err(NpyError::Size(count * kind.bytes, data.len()));
    }
    let values = data.chunks_exact(kind.bytes).map(|bytes| kind.value(bytes)).collect();
    Ok(Array { shape: header.shape, values })
}

/// The header's text and the values.
fn split(rest: &[u8]) -> Result<(&str, &[u8]), NpyError> {
    let cut = || NpyError::Header("its end".to_owned());
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)),
        _ => return Err(NpyError::Version(version[0], version[1])),
    }
    .ok_or_else(cut)?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header =
        std::str::from_utf8(header).map_err(|_| NpyError::Header("a byte that is no text".to_owned()))?;
    Ok((header, data))
}

/// What the header says.
#[derive(Debug, Default)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// `{'descr': '<f8', 'fortran_order': False, 'shape': (17,), }`, keys in any order.
    fn parse(text: &str) -> Result<Self, NpyError> {
        let mut cursor = Cursor(text.trim());
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        cursor.expect("{")?;
        while !cursor.skip("}") {
            let key = cursor.quoted()?;
            cursor.expect(":")?;
            match key {
                "descr" => descr = Some(cursor.descr()?),
                "fortran_order" => fortran = Some(cursor.truth()?),
                "shape" => shape = Some(cursor.shape()?),
                _ => return Err(NpyError::Header(key.to_owned())),
            }
            if !cursor.skip(",") {
                cursor.expect("}")?;
                break;
            }
        }
        let missing = |key: &str| NpyError::Header(format!("the missing {key}"));
        Ok(Self {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran: fortran.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// What is left of a header.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn wrong(&self) -> NpyError {
        NpyError::Header(self.0.chars().take(24).collect())
    }

    fn skip(&mut self, what: &str) -> bool {
        let text = self.0.trim_start();
        let found = text.strip_prefix(what);
        self.0 = found.unwrap_or(text);
        found.is_some()
    }

    fn expect(&mut self, what: &str) -> Result<(), NpyError> {
        if self.skip(what) { Ok(()) } else { Err(self.wrong()) }
    }

    fn quoted(&mut self) -> Result<&'a str, NpyError> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or_else(|| self.wrong())?;
        let (inside, rest) = text[1..].split_once(quote).ok_or_else(|| self.wrong())?;
        self.0 = rest;
        Ok(inside)
    }

    /// A type's name; records with fields are a list, which is no number.
    fn descr(&mut self) -> Result<String, NpyError> {
        if self.0.trim_start().starts_with('[') {
            return Err(NpyError::Type("a record of several fields".to_owned()));
        }
        Ok(self.quoted()?.to_owned())
    }

    fn truth(&mut self) -> Result<bool, NpyError> {
        if self.skip("True") {
            return Ok(true);
        }
        self.expect("False").map(|()| false)
    }

    fn shape(&mut self) -> Result<Vec<usize>, NpyError> {
        let mut sizes = Vec::new();
        self.expect("(")?;
        while !self.skip(")") {
            let text = self.0.trim_start();
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let size = text[..end].parse::<usize>();
            // Numpy has at most 64 dimensions.
            let size = size.ok().filter(|_| sizes.len() < 64).ok_or_else(|| self.wrong())?;
            sizes.push(size);
            self.0 = &text[end..];
            if !self.skip(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(sizes)
    }
}

/// How a value is stored.
#[derive(Clone, Copy, Debug)]
struct Kind {
    bytes: usize,
    letter: u8,
    big_endian: bool,
}

impl Kind {
    /// `<f8` and its kin: byte order, kind, bytes.
    fn parse(descr: &str) -> Result<Self, NpyError> {
        let wrong = || NpyError::Type(descr.chars().take(24).collect());
        let &[order, letter, size] = descr.as_bytes() else { return Err(wrong()) };
        let bytes = usize::from(size.wrapping_sub(b'0'));
        let known = match letter {
            b'f' => matches!(bytes, 4 | 8),
            b'i' | b'u' => matches!(bytes, 1 | 2 | 4 | 8),
            _ => false,
        };
        if !known || !matches!(order, b'<' | b'>' | b'|' | b'=') || (order == b'|' && bytes != 1) {
            return Err(wrong());
        }
        Ok(Self { bytes, letter, big_endian: order == b'>' })
    }

    fn value(self, bytes: &[u8]) -> f64 {
        // The bytes in order of rising weight, widened to eight.
        let mut wide = [0_u8; 8];
        for (place, byte) in bytes.iter().enumerate() {
            wide[if self.big_endian { bytes.len() - 1 - place } else { place }] = *byte;
        }
        let bits = u64::from_le_bytes(wide);
        let unused = 64 - 8 * self.bytes as u32;
        match (self.letter, self.bytes) {
            (b'f', 4) => f64::from(f32::from_bits(bits as u32)),
            (b'f', _) => f64::from_bits(bits),
            (b'u', _) => bits as f64,
            // Shifted up and down again, the sign goes along.
            _ => ((bits << unused) as i64 >> unused) as f64,
        }
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
pub(crate) mod tests;
