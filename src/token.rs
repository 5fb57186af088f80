//! The token that proxies show to a center: the first line of a file.

use std::{fs, path::Path};

use crate::exit::{Exit, Failure};

/// Bytes of a token's file. A longer one is another file.
const TOKEN_MAX: usize = 1024;

/// Reads it.
///
/// # Errors
///
/// A file that cannot be read, or whose first line is no token.
pub(crate) fn read(path: &Path) -> Result<Box<str>, Failure> {
    let bad = |why: String| {
        Failure::new(
            Exit::Config,
            format!("token file `{}`: {why}", path.display()),
            "one line of visible ASCII, at most 1 KiB",
        )
    };
    let text = fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("no token in its first line".into()));
    }
    Ok(token.into())
}
