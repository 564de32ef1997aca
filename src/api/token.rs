//! Tokens that clients show over TCP, from a file that only its owner can read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::private::{self, PrivateError};

/// Shorter ones can be guessed.
const SHORT: usize = 16;

/// The file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the tokens in {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Others than its owner can read or write it.
    #[error(
        "{} can be read or written by others than its owner (mode {mode:04o}): take that away \
         (chmod 600 {})", path.display(), path.display()
    )]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What it holds is no token.
    #[error(
        "{}, line {line}: a token is one line of letters, digits and punctuation without spaces \
         (openssl rand -hex 32 makes one)", path.display()
    )]
    Form {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
    },
    /// There is none.
    #[error(
        "{} holds no token: write one into it, for example with openssl rand -hex 32",
        path.display()
    )]
    None {
        /// Which file.
        path: PathBuf,
    },
}

/// The tokens of a file, one on a line. More than one lets clients change theirs one by one.
pub struct Tokens {
    tokens: RwLock<Arc<[String]>>,
    /// Tells that there are others.
    replaced: watch::Sender<()>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        Ok(Tokens { tokens: RwLock::new(read(path)?.into()), replaced: watch::Sender::new(()) })
    }

    /// Takes others in place of these.
    pub fn replace(&self, others: Tokens) {
        let others = others.tokens.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = others;
        self.replaced.send_replace(());
    }

    /// Waits until these headers show none of them.
    pub(super) async fn revoked(&self, headers: &HeaderMap) {
        let mut replaced = self.replaced.subscribe();
        while self.are_shown_by(headers) && replaced.changed().await.is_ok() {}
    }

    /// Whether a request shows one of them (RFC 6750, section 2.1).
    pub fn are_shown_by(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, shown)) = value.as_bytes().split_at_checked(7) else { return false };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let shown = shown.trim_ascii();
        let tokens = Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner));
        // All are compared, each in a time that does not depend on where it differs.
        let found = tokens.iter().map(|token| token.as_bytes().ct_eq(shown));
        found.fold(subtle::Choice::from(0), |all, one| all | one).into()
    }
}

fn read(path: &Path) -> Result<Vec<String>, TokenError> {
    let text = private::read(path).map_err(|error| match error {
        PrivateError::Read(source) => TokenError::Read { path: path.to_owned(), source },
        PrivateError::Mode(mode) => TokenError::Mode { path: path.to_owned(), mode },
    })?;
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Form { path: path.to_owned(), line: number + 1 });
        }
        if line.len() < SHORT {
            let path = path.display();
            tracing::warn!("{path}, line {}: a token this short can be guessed", number + 1);
        }
        tokens.push(line.to_owned());
    }
    match tokens.is_empty() {
        true => Err(TokenError::None { path: path.to_owned() }),
        false => Ok(tokens),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Written(PathBuf);

    impl Written {
        fn new(name: &str, text: &str, mode: u32) -> Self {
            let name = format!("netspy-token-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Written(path)
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn shows(tokens: &Tokens, value: &str) -> bool {
        let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        tokens.are_shown_by(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    #[test]
    fn a_token_is_taken_as_it_stands_and_nothing_like_it() {
        let file =
            Written::new("good", "# old\nfirst-token-of-all\n\nsecond-token-of-all\n", 0o600);
        let tokens = Tokens::read(&file.0).unwrap();
        for good in [
            "Bearer first-token-of-all",
            "bearer second-token-of-all",
            "BEARER  second-token-of-all ",
        ] {
            assert!(shows(&tokens, good), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer first-token-of-al",
            "Bearer first-token-of-alll",
            "Bearer FIRST-TOKEN-OF-ALL",
            "Bearer # old",
            "Basic first-token-of-all",
            "first-token-of-all",
            "Bearer é",
        ] {
            assert!(!shows(&tokens, bad), "{bad}");
        }
        assert!(!tokens.are_shown_by(&HeaderMap::new()));
        let mut twice = HeaderMap::new();
        for token in ["Bearer first-token-of-all", "Bearer second-token-of-all"] {
            twice.append(AUTHORIZATION, token.parse().unwrap());
        }
        assert!(!tokens.are_shown_by(&twice));
    }

    #[test]
    fn a_file_that_others_can_read_or_that_holds_none_is_refused_and_tokens_can_be_replaced() {
        let good = Written::new("old", "first-token-of-all", 0o400);
        let tokens = Tokens::read(&good.0).unwrap();
        for (name, text, mode, says) in [
            ("mode", "a-token-that-is-fine", 0o640, "chmod 600"),
            ("empty", "\n# nothing\n", 0o600, "holds no token"),
            ("spaces", "x\ntwo words", 0o600, "line 2"),
            ("large", &"x".repeat(17_000), 0o600, "larger"),
        ] {
            let bad = Written::new(name, text, mode);
            let error = Tokens::read(&bad.0).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("words"), "{error}");
        }
        assert!(Tokens::read(Path::new("/nonexistent")).is_err());
        let other = Written::new("other", "second-token-of-all", 0o400);
        tokens.replace(Tokens::read(&other.0).unwrap());
        assert!(!shows(&tokens, "Bearer first-token-of-all"));
        assert!(shows(&tokens, "Bearer second-token-of-all"));
    }
}
