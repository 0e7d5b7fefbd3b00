//! The control file, read as it grows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// At most this much is read at a look; the rest comes with the next one.
const MAX_READ_BYTES: u64 = 1 << 20;

/// A file that lines are appended to.
#[derive(Debug)]
pub(crate) struct ControlFile {
    path: PathBuf,
    read_bytes: u64,
}

impl ControlFile {
    /// A file that need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, read_bytes: 0 }
    }

    /// The lines that are complete and have not been read. A file that cannot be read has none.
    pub(crate) fn new_lines(&mut self) -> Vec<String> {
        self.read().unwrap_or_default()
    }

    fn read(&mut self) -> std::io::Result<Vec<String>> {
        let length = std::fs::metadata(&self.path)?.len();
        if length < self.read_bytes {
            self.read_bytes = 0;
        }
        if length == self.read_bytes {
            return Ok(Vec::new());
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut bytes = Vec::new();
        file.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
        let complete = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            // A line as long as this is no command; it is given up so that what follows is reached.
            None if bytes.len() as u64 == MAX_READ_BYTES => bytes.len(),
            None => 0,
        };
        self.read_bytes += complete as u64;
        Ok(String::from_utf8_lossy(&bytes[..complete]).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_once_and_when_complete() {
        let path = std::env::temp_dir().join(format!("plimsoll-control-{}", std::process::id()));
        let mut control = ControlFile::new(path.clone());
        assert!(control.new_lines().is_empty());
        std::fs::write(&path, "lose 3\nret").unwrap();
        assert_eq!(control.new_lines(), ["lose 3"]);
        assert!(control.new_lines().is_empty());
        std::fs::write(&path, "lose 3\nreturn 3\nunload\n").unwrap();
        assert_eq!(control.new_lines(), ["return 3", "unload"]);
        std::fs::write(&path, "load\n").unwrap();
        let again = control.new_lines();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again, ["load"], "a shorter file is another file");
    }
}
