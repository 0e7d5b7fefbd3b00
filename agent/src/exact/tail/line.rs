//! One line of a request log, read without being kept.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    marker::PhantomData,
    os::unix::fs::FileExt,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Why a line is no record. Says where it is wrong, never what stands there: that may be a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is no JSON object of the expected shape.
    #[error("it is no record: wrong at its byte {at}")]
    Json {
        /// The column of the fault.
        at: usize,
    },
    /// It is of a schema that this build does not know.
    #[error("it has schema version {0}, which is not known")]
    Schema(u64),
    /// It could not be read again.
    #[error("it could not be read: {0}")]
    Read(io::ErrorKind),
}

/// A line, without its newline.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// In memory.
    Held(&'a [u8]),
    /// In the file, for lines too long to be held: prompts can be megabytes.
    Stored {
        /// The file.
        file: &'a File,
        /// Where the line begins.
        from: u64,
        /// Where it ends.
        to: u64,
    },
}

/// How much of a long line is in memory at a time.
const READ_BYTES: usize = 64 << 10;

impl Line<'_> {
    /// Decodes the line as one JSON object. What the type has no field for is skipped as it is read.
    ///
    /// # Errors
    /// When it is not such an object.
    pub(in super::super) fn decode<T: DeserializeOwned>(self) -> Result<T, LineError> {
        let wrong = |error: serde_json::Error| match error.io_error_kind() {
            Some(kind) => LineError::Read(kind),
            None => LineError::Json { at: error.column() },
        };
        match self {
            Self::Held(bytes) => serde_json::from_slice(bytes).map_err(wrong).map(|Object(value)| value),
            Self::Stored { file, from, to } => {
                let section = Section { file, at: from, end: to };
                let reader = BufReader::with_capacity(READ_BYTES, section);
                serde_json::from_reader(reader).map_err(wrong).map(|Object(value)| value)
            }
        }
    }

    /// Whether it holds nothing but white space.
    pub(super) fn is_blank(self) -> bool {
        matches!(self, Self::Held(bytes) if bytes.trim_ascii().is_empty())
    }
}

/// A value that was an object: a struct would also be taken from an array, field by field.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// A part of a file, read without moving its cursor.
#[derive(Debug)]
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
