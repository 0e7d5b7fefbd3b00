//! Bearer tokens in files, such as Kubernetes mounts them. Their text is in no log, no error and no page.

use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context;

/// The longest token that is taken, and the longest file of tokens: a projected service-account token has 1 to 2 KB.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
/// The most tokens in a file.
const MAX_TOKENS: usize = 16;
const OTHERS_MAY_READ: u32 = 0o004;

/// Why a text is no token. It holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// There is nothing but white space.
    #[error("is empty")]
    Empty,
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It holds white space within, or characters that no header may hold.
    #[error("holds more than one token, or what is no token")]
    NotOne,
}

/// Takes a text as a token; white space around it is no part of it.
///
/// # Errors
/// When it is none.
pub fn token(text: &str) -> Result<&str, NoToken> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(NoToken::TooLong);
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(NoToken::Empty);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(NoToken::NotOne);
    }
    Ok(token)
}

/// Takes a text as tokens, one a line; empty lines and those that begin with `#` do not count. Several are for changing
/// one without a moment in which neither the old nor the new one is taken.
///
/// # Errors
/// When a line is no token, there is none, or there are more than 16. The line's number is told, not its text.
pub fn tokens(text: &str) -> anyhow::Result<Vec<&str>> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let meant = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<&str> = meant
        .map(|(number, line)| token(line).with_context(|| format!("line {number}")))
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(!tokens.is_empty(), "there is no token");
    anyhow::ensure!(tokens.len() <= MAX_TOKENS, "there are more than {MAX_TOKENS} tokens");
    Ok(tokens)
}

/// Reads a file that holds a secret, and warns of one that everybody may read.
///
/// # Errors
/// When it is no file, can't be read, or is longer than [`MAX_TOKEN_BYTES`].
pub fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("{name} can't be read"))?;
    let metadata = file.metadata().with_context(|| format!("{name} can't be read"))?;
    anyhow::ensure!(metadata.is_file(), "{name} is no file");
    if metadata.mode() & OTHERS_MAY_READ != 0 {
        tracing::warn!(path = %name, "everybody on this machine may read the token file; chmod o-r it");
    }
    let mut text = String::new();
    let most = MAX_TOKEN_BYTES as u64 + 1;
    file.take(most).read_to_string(&mut text).with_context(|| format!("{name} can't be read"))?;
    anyhow::ensure!(text.len() <= MAX_TOKEN_BYTES, "{name} is longer than {MAX_TOKEN_BYTES} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_with_care_and_never_repeated() {
        assert_eq!(token(" s3cret\n"), Ok("s3cret"));
        for bad in ["two tokens", "tök", "a\u{1}b"] {
            assert_eq!(token(bad), Err(NoToken::NotOne));
        }
        assert_eq!((token(""), token(" \n")), (Err(NoToken::Empty), Err(NoToken::Empty)));
        assert_eq!(token(&"x".repeat(MAX_TOKEN_BYTES + 1)), Err(NoToken::TooLong));
        assert_eq!(tokens("# old\none\n\n two\n").unwrap(), ["one", "two"]);
        let error = format!("{:#}", tokens("one\nmy secret\n").unwrap_err());
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
        assert!(tokens("# none\n").is_err());
        assert!(tokens(&"x\n".repeat(MAX_TOKENS + 1)).is_err());
    }

    #[test]
    fn what_is_no_file_of_a_token_is_named() {
        for (path, says) in [("/nowhere/token", "can't be read"), ("/", "no file"), ("/dev/zero", "no file")]
        {
            let error = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(error.contains(path) && error.contains(says), "{error}");
        }
    }
}
