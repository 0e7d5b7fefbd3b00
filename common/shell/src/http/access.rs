//! Who may read the pages, and how they travel: what is configured of it.

use std::path::{Path, PathBuf};

use crate::config::Problems;

/// What guards the pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Certificate chain and key (PEM) with which pages are served by TLS 1.3; `None`: in the clear.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file with the tokens, one of which a reader must show; `None`: everybody may read.
    pub token: Option<PathBuf>,
}

impl Access {
    /// Takes `http-tls-cert`, `http-tls-key` and `http-token`, and notes what is wrong with them.
    #[must_use]
    pub fn check(
        cert: Option<&Path>,
        key: Option<&Path>,
        token: Option<&Path>,
        problems: &mut Problems,
    ) -> Self {
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => {
                readable("http-tls-cert", cert, problems);
                readable("http-tls-key", key, problems);
                Some((cert.to_owned(), key.to_owned()))
            }
            (None, None) => None,
            _ => {
                problems.push("http-tls-cert and http-tls-key go together: one is given, the other is not");
                None
            }
        };
        if let Some(token) = token {
            readable("http-token", token, problems);
        }
        Self { tls, token: token.map(Path::to_owned) }
    }
}

fn readable(name: &str, path: &Path, problems: &mut Problems) {
    if let Err(error) = std::fs::File::open(path) {
        problems.push(format!("{name}: {} can't be read: {error}", path.display()));
    }
}
