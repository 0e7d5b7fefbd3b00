//! Who may read the pages: whoever shows a token of a file.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{secret, tls::Watched};

/// Lets those in who show one of the tokens in a file. The file is read anew when it changes.
pub struct Guard {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    watched: Watched,
    /// Hashes have one length, so that comparing tells nothing of the tokens' lengths either.
    hashes: Vec<[u8; 32]>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Guard {
    /// Reads the file: one token a line, empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// When it can't be read or holds something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let watched = Watched::new([path]);
        let hashes = read(path)?;
        Ok(Self { path: path.to_owned(), known: Mutex::new(Known { watched, hashes }) })
    }

    /// Whether a request with these headers is let in.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (shown.next(), shown.next()) else { return false };
        let Some(token) = shown_token(value.as_bytes()) else { return false };
        let shown = hash(&token);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.watched.changed() {
            match read(&self.path) {
                Ok(hashes) => {
                    known.hashes = hashes;
                    tracing::info!(path = %self.path.display(), "the tokens for the pages were read anew");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "the tokens for the pages can't be read anew; those read before count"
                    );
                }
            }
        }
        // All are compared, whichever fits.
        let fits = |hash: &[u8; 32]| constant_time::verify_slices_are_equal(hash, &shown).is_ok();
        known.hashes.iter().map(fits).fold(false, |any, fits| any | fits)
    }
}

/// The token that an `Authorization` header shows: of `Bearer` the token itself, of `Basic`, which browsers ask people for,
/// the password. `None` for anything else.
#[must_use]
pub fn shown_token(header: &[u8]) -> Option<Vec<u8>> {
    let at = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&header[..at], header[at..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return (!rest.is_empty()).then(|| rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.len() > 2 * secret::MAX_TOKEN_BYTES {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let password = &pair[colon + 1..];
    (!password.is_empty()).then(|| password.to_vec())
}

fn read(path: &Path) -> anyhow::Result<Vec<[u8; 32]>> {
    let text = secret::read(path)?;
    let tokens = secret::tokens(&text).with_context(|| format!("{} can't be used", path.display()))?;
    Ok(tokens.into_iter().map(|token| hash(token.as_bytes())).collect())
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn admits(guard: &Guard, shown: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in shown {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        guard.admits(&headers)
    }

    #[test]
    fn only_a_token_of_the_file_is_let_in_and_a_new_file_counts_at_once() {
        let folder = std::env::temp_dir().join(format!("plimsoll-guard-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("token");
        std::fs::write(&path, "one\n# the next\ntwo\n").unwrap();
        let guard = Guard::read(&path).unwrap();
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for good in ["Bearer one", "bearer  two", &basic("anybody:two"), &basic(":one")] {
            assert!(admits(&guard, &[good]), "{good}");
        }
        let bad =
            ["Bearer", "Bearer ", "Bearer on", "Bearer onee", "one", "Bearer one two", "Bearer # the next"];
        for bad in bad
            .into_iter()
            .chain([basic("one:"), basic("one"), "Basic ??".to_owned()].iter().map(String::as_str))
        {
            assert!(!admits(&guard, &[bad]), "{bad}");
        }
        assert!(!admits(&guard, &[]));
        assert!(!admits(&guard, &["Bearer one", "Bearer one"]), "two answers are none");
        // As Kubernetes does it: another file takes the name.
        std::fs::write(folder.join("new"), "three\n").unwrap();
        std::fs::rename(folder.join("new"), &path).unwrap();
        assert!(admits(&guard, &["Bearer three"]) && !admits(&guard, &["Bearer one"]));
        // A file that can't be used locks nobody out and lets nobody in.
        for broken in ["", "a b\n"] {
            std::fs::write(&path, broken).unwrap();
            assert!(admits(&guard, &["Bearer three"]) && !admits(&guard, &["Bearer a"]));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(admits(&guard, &["Bearer three"]));
        assert!(!format!("{guard:?}").contains("three"));
        assert!(Guard::read(&path).is_err());
    }
}
