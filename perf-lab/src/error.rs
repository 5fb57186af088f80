//! What can go wrong, by what the caller can do about it.

use std::{fmt, io};

/// Why the lab gave up. Each kind has its exit code, the same as the proxy's.
#[derive(Debug)]
pub enum Error {
    /// The command line asks for something that does not exist or is not allowed.
    Usage(String),
    /// A scenario's file is wrong.
    Scenario {
        /// The file.
        file: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// A peer's plug-in is wrong.
    Plugin {
        /// Its directory's name.
        peer: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A peer's program is not on this machine.
    Missing {
        /// The peer.
        peer: String,
        /// The program that was looked for.
        program: String,
        /// How to install it.
        install: String,
    },
    /// A peer did not start, answered wrongly, or died.
    Peer {
        /// The peer.
        peer: String,
        /// What happened, with the end of its output.
        problem: String,
    },
    /// The machine does not offer what a row needs.
    Host(String),
    /// The load could not be generated.
    Load(String),
    /// The system refused a call.
    Io {
        /// What the call was for.
        doing: String,
        /// Its error.
        source: io::Error,
    },
    /// A signal asked to stop.
    Interrupted,
}

impl Error {
    /// For `map_err`: names what an I/O call was for.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }

    /// There is nothing of the name that was typed, but there is this.
    pub(crate) fn no_such(what: &str, typed: &str, names: &[&str]) -> Error {
        let guess = match nearest(typed, names) {
            Some(name) => format!("did you mean `{name}`? There are"),
            None => "there are".to_owned(),
        };
        let all = names.join(", ");
        Error::Usage(format!("no {what} `{typed}`; {guess} {all}"))
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Peer { .. } | Error::Load(_) | Error::Io { .. } => 1,
            Error::Usage(_) => 2,
            Error::Plugin { .. } | Error::Scenario { .. } => 3,
            Error::Missing { .. } | Error::Host(_) => 4,
            // 128 + SIGINT, as a shell reports it.
            Error::Interrupted => 130,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(problem) | Error::Host(problem) | Error::Load(problem) => {
                f.write_str(problem)
            }
            Error::Scenario { file, problem } => write!(f, "{file}: {problem}"),
            Error::Plugin { peer, problem } => write!(f, "peer `{peer}`: {problem}"),
            Error::Missing {
                peer,
                program,
                install,
            } => write!(
                f,
                "peer `{peer}`: `{program}` was not found; install it with `{install}`, \
                 or give its path with `--program {peer}=PATH`"
            ),
            Error::Peer { peer, problem } => write!(f, "peer `{peer}`: {problem}"),
            Error::Io { doing, source } => write!(f, "{doing}: {source}"),
            Error::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// The name that is most like a misspelt one, if any is like it at all.
pub(crate) fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    /// Below this two words have little in common.
    const LIKENESS_MIN: f64 = 0.7;
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), *name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
