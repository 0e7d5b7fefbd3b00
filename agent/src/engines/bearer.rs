//! The token that an endpoint may ask for, kept in a file.

use std::{io, os::unix::fs::MetadataExt, path::PathBuf, time::SystemTime};

use hyper::header::HeaderValue;
use plimsoll_shell::secret;
use tokio::{
    fs::File,
    io::{AsyncReadExt, BufReader},
};

use super::scrape_error::TokenUse;

const OTHERS_MAY_READ: u32 = 0o004;

/// A bearer token in a file, read again whenever the file changes. Its text is in no log and no page.
#[derive(Debug)]
pub(super) struct Bearer {
    path: PathBuf,
    seen: Option<Stamp>,
    header: Option<HeaderValue>,
    problem: Option<String>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Bearer {
    /// The token in this file; nothing is read yet.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, seen: None, header: None, problem: None }
    }

    /// The header to show, read anew where the file changed. `None` where the file can't be read: the request then goes
    /// without, since most servers leave their metrics page open, and a refusal tells why.
    pub(super) async fn header(&mut self) -> Option<HeaderValue> {
        let outcome = self.refresh().await;
        let problem = outcome.err().map(|reason| format!("{} {reason}", self.path.display()));
        if problem.is_some() {
            self.header = None;
            self.seen = None;
        }
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem)) {
            tracing::warn!("the token for an engine can't be had: {problem}");
        }
        self.problem = problem;
        self.header.clone()
    }

    /// Reads the file before the next request even where it looks the same.
    pub(super) const fn forget(&mut self) {
        self.seen = None;
    }

    /// What the last request carried.
    pub(super) fn used(&self) -> TokenUse {
        match &self.problem {
            Some(problem) => TokenUse::Unreadable(problem.clone()),
            None => TokenUse::Sent,
        }
    }

    async fn refresh(&mut self) -> Result<(), String> {
        let unreadable = |error: io::Error| format!("can't be read: {error}");
        let stamp = Stamp::of(&tokio::fs::metadata(&self.path).await.map_err(unreadable)?);
        if self.seen == Some(stamp) {
            return Ok(());
        }
        let file = File::open(&self.path).await.map_err(unreadable)?;
        let metadata = file.metadata().await.map_err(unreadable)?;
        if !metadata.is_file() {
            return Err("is no file".to_owned());
        }
        if metadata.mode() & OTHERS_MAY_READ != 0 {
            tracing::warn!(path = %self.path.display(), "everybody on this machine may read the token file; chmod o-r it");
        }
        let mut text = String::new();
        let mut bounded = BufReader::new(file).take(secret::MAX_TOKEN_BYTES as u64 + 1);
        bounded.read_to_string(&mut text).await.map_err(unreadable)?;
        self.header = Some(header_of(&text)?);
        self.seen = Some(Stamp::of(&metadata));
        Ok(())
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
        }
    }
}

/// The header of a token file's text; white space around the token is no part of it.
fn header_of(text: &str) -> Result<HeaderValue, String> {
    let token = secret::token(text).map_err(|error| error.to_string())?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "holds what can't stand in a header".to_owned())?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn tokens_are_read_with_care() {
        assert_eq!(header_of(" s3cret\n").unwrap(), "Bearer s3cret");
        for (bad, says) in [
            ("", "empty"),
            (" \n", "empty"),
            ("two tokens", "more than one"),
            ("tök", "no token"),
            ("a\u{1}b", "no token"),
        ] {
            let error = header_of(bad).unwrap_err();
            assert!(error.contains(says) && (bad.trim().is_empty() || !error.contains(bad)), "{error}");
        }
        assert!(header_of(&"x".repeat(20_000)).unwrap_err().contains("longer"));
        assert!(!format!("{:?}", header_of("s3cret").unwrap()).contains("s3cret"), "never in a log");
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mut bearer = Bearer::new(path.clone());
        assert_eq!(bearer.header().await, None);
        assert!(matches!(bearer.used(), TokenUse::Unreadable(why) if why.contains("can't be read")));
        fs::write(&path, "one\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(bearer.header().await.unwrap(), "Bearer one");
        // As Kubernetes does it: another file takes the name.
        fs::write(folder.path().join("new"), "two\n").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(bearer.header().await.unwrap(), "Bearer two");
        assert_eq!(bearer.used(), TokenUse::Sent);
        fs::remove_file(&path).unwrap();
        assert_eq!(bearer.header().await, None);
        fs::create_dir(&path).unwrap();
        assert_eq!(bearer.header().await, None);
        assert!(matches!(bearer.used(), TokenUse::Unreadable(why) if why.contains("no file")));
    }
}
