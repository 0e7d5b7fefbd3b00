//! Lines of bounded length.

use std::io::{self, BufRead};

/// The longest line that is read, bytes: 100,000 engines take about 30 MB.
const LONGEST: usize = 64 << 20;

/// A line was longer than that; the rest of it was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the line is longer than 64 MiB and was skipped; tell pools rather than single engines, or fewer at once"
)]
pub(super) struct TooLong;

#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    longest: usize,
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(input: R) -> Self {
        Self { input, line: Vec::new(), longest: LONGEST }
    }

    /// The next line without its end, or none at the end of the input.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<&[u8], TooLong>>> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let buffer = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                filled => filled?,
            };
            if buffer.is_empty() {
                break;
            }
            any = true;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long |= self.line.len() + part.len() > self.longest;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        Ok(Some(if too_long { Err(TooLong) } else { Ok(&self.line) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_skipped_to_its_end() {
        let input = io::BufReader::with_capacity(3, &b"abc\n12345678\n\nlast"[..]);
        let mut lines = Lines { longest: 5, ..Lines::new(input) };
        assert_eq!(lines.next().unwrap(), Some(Ok(&b"abc"[..])));
        assert_eq!(lines.next().unwrap(), Some(Err(TooLong)));
        assert_eq!(lines.next().unwrap(), Some(Ok(&b""[..])));
        assert_eq!(lines.next().unwrap(), Some(Ok(&b"last"[..])));
        assert_eq!(lines.next().unwrap(), None);
    }
}
