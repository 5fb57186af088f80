//! Where the configuration comes from: a file, or text compiled in. Reads and validates it.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidegate_core::config::{self, Diagnostic, model::Config};

use crate::{
    exit::{Exit, Failure},
    text::fingerprint,
};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file, watched.
    File(PathBuf),
    /// Text made by ourselves.
    Embedded(String),
}

/// A configuration that can be used.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it means.
    pub(crate) config: Arc<Config>,
    /// What is doubtful in it.
    pub(crate) warnings: Vec<Diagnostic>,
    /// The text it was read from.
    pub(crate) text: String,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    Unreadable(Failure),
    /// The text is not a configuration: what is wrong, and the text.
    Invalid(Vec<Diagnostic>, String),
}

impl Source {
    /// How it is called in logs and diagnostics.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Embedded(_) => "<embedded>".into(),
        }
    }

    /// The file to watch, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Source::File(path) => Some(path),
            Source::Embedded(_) => None,
        }
    }

    /// Reads and validates it.
    pub(crate) fn load(&self) -> Result<Loaded, LoadError> {
        let text = match self {
            Source::File(path) => read(path).map_err(LoadError::Unreadable)?,
            Source::Embedded(text) => text.clone().into_bytes(),
        };
        validate(&self.name(), text)
    }
}

impl Loaded {
    /// Names the text.
    pub(crate) fn fingerprint(&self) -> u64 {
        fingerprint(self.text.as_bytes())
    }
}

impl LoadError {
    /// Each thing that is wrong, one line each, for the log.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            LoadError::Unreadable(failure) => vec![failure.problem.clone()],
            LoadError::Invalid(diagnostics, _) => {
                diagnostics.iter().map(ToString::to_string).collect()
            }
        }
    }
}

fn validate(name: &str, bytes: Vec<u8>) -> Result<Loaded, LoadError> {
    let outcome = config::parse_bytes(name, &bytes);
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    match outcome {
        Ok((config, warnings)) => Ok(Loaded {
            config: Arc::new(named(config)),
            warnings,
            text,
        }),
        Err(diagnostics) => Err(LoadError::Invalid(diagnostics, text)),
    }
}

/// A node without an id has its host's name: rollouts and canaries draw by it.
fn named(mut config: Config) -> Config {
    if config.node.id.is_empty() {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        config.node.id = name.trim().to_owned();
    }
    config
}

/// Reads a whole file, but never more than a configuration may have and one byte, which says that it is
/// too large: `/dev/zero` must not fill the memory.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(config::FILE_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|e| {
            Failure::new(
                Exit::Config,
                format!("cannot read `{}`: {e}", path.display()),
                "name a file that exists and that this user may read",
            )
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// Goal: what cannot be read is a configuration failure that names the file. Method: a missing file
    /// and a directory.
    #[test]
    fn unreadable_files_are_named() {
        for path in [Path::new("/nonexistent.yaml"), &std::env::temp_dir()] {
            let failure = read(path).unwrap_err();
            assert_eq!(failure.exit, Exit::Config);
            assert!(
                failure.problem.contains(path.to_str().unwrap()),
                "{failure}"
            );
        }
    }

    /// Goal: bytes that are no text are a diagnostic, and an endless file ends. Method: one of each.
    #[test]
    fn foreign_bytes_are_diagnosed() {
        for path in ["/dev/zero", "/proc/self/exe"] {
            let loaded = Source::File(path.into()).load();
            let Err(LoadError::Invalid(diagnostics, _)) = loaded else {
                panic!("{path}: {loaded:?}");
            };
            assert!(!diagnostics.is_empty());
        }
    }
}
