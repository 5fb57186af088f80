//! The small languages inside of values: hosts, paths, header fields, names, addresses.
//!
//! Each function takes text apart and says what is wrong with it, and how to mend it, as a [`Fault`].

use std::sync::Arc;

use super::codes::{self, Code};

mod field;
mod host;
mod path;
mod time;
mod tls;

pub(super) use field::{edited_header_name, header_name, header_value, is_token, method};
pub(super) use host::{address, authority, dns, endpoint, host_pattern};
pub(super) use path::{path, path_and_query, path_pattern, regex, rewrite_regex, unknown_group};
pub(super) use time::instant;
pub use time::{format_instant, parse_instant};
pub(super) use tls::{alpn, file_path, label, overreach, san_dns, san_uri, server_name};

/// What is wrong with a text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: &'static Code,
    /// A few words to stand under it.
    pub(super) why: String,
    pub(super) help: String,
}

impl Fault {
    fn new(code: &'static Code, why: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            code,
            why: why.into(),
            help: help.into(),
        }
    }
}

type Parsed<T> = Result<T, Fault>;

/// The name of a listener, cluster, route or node.
pub(super) fn name(text: &str) -> Parsed<Arc<str>> {
    let bad = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "_.-:/".contains(*c)));
    let why = match bad {
        Some(bad) => format!("holds `{}`", bad.escape_default()),
        None if text.is_empty() => "is empty".to_owned(),
        None if text.len() > super::NAME_MAX => format!("is longer than {} bytes", super::NAME_MAX),
        None => return Ok(text.into()),
    };
    let help = "write 1 to 128 letters, digits and `_ . - : /`: names go into metrics and URLs";
    Err(Fault::new(codes::NAME, why, help))
}

/// Text that is shown, without control characters.
pub(super) fn plain_text(text: &str) -> Parsed<&str> {
    if text.chars().any(char::is_control) {
        let fault = "holds a control character";
        return Err(Fault::new(
            codes::TEXT,
            fault,
            "remove line breaks, tabs and the like",
        ));
    }
    Ok(text)
}

/// CPUs as the kernel writes them, `0-3,8`; ascending.
pub(super) fn cpu_list(text: &str) -> Parsed<Vec<usize>> {
    let fault = |why: String| {
        Err(Fault::new(
            codes::CPUS,
            why,
            "write CPUs as `2-15` or `0,2,4-7`, from 0 to 1023, each once",
        ))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            return fault(format!("`{part}` is neither a CPU nor a range"));
        };
        if first > last {
            return fault(format!("`{part}` runs backwards"));
        }
        if last >= super::SHARDS_MAX {
            return fault(format!("there is no CPU {last}"));
        }
        cpus.extend(first..=last);
        if cpus.len() > super::SHARDS_MAX {
            break;
        }
    }
    cpus.sort_unstable();
    if let Some(twice) = cpus.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    }) {
        return fault(format!("CPU {twice} stands twice"));
    }
    Ok(cpus)
}
