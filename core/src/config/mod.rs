//! The configuration: what an operator writes, and what it means.
//!
//! Pure: text goes in, a [`model::Config`] or [`Diagnostic`]s come out; reading files is the caller's.
//! In reading order:
//!
//! 1. [`model`]: what a configuration means. Nothing behind it knows of YAML.
//!    [`parameters`] are the cipher suites and groups that there are.
//! 2. `keys` (in the terms of `shape`): every key with its type, bounds, default and meaning. From it come
//!    the checks, the [`reference`](reference()) and the [`json_schema`].
//! 3. `tree`: the YAML text, each value with its place. `fields` reads a section of it by its keys,
//!    `syntax` and `quantity` take values apart, `decode` makes the model of them.
//! 4. `lint`: warnings that need the whole model.
//! 5. [`to_json`], [`diff`]: the model back in words of the file.
//! 6. [`secret_faults`]: what others found wrong with the files of secrets, at their place.
//! 7. [`value`]: the checks of `syntax`, for configurations that come from a control plane.

use std::ops::Range;

mod codes;
mod decode;
mod demo;
mod diagnostic;
mod diff;
mod dump;
mod fields;
mod keys;
mod lint;
pub mod model;
pub mod parameters;
mod quantity;
mod reference;
mod secret_files;
mod shape;
mod syntax;
mod tree;
pub mod value;

pub use codes::{CODES, Code, errors_reference};
pub use decode::steering::parse_rule as parse_steering_rule;
pub use demo::{demo_config, embedded_default};
pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Related, Severity};
pub use diff::diff;
pub use dump::{origins, rule_to_json, to_document, to_json};
pub use keys::{
    ALPN_NAME_MAX, BODY_MAX, CERTIFICATES_MAX, CLUSTERS_MAX, ENDPOINTS_MAX, LABEL_MAX, LABELS_MAX,
    LISTENERS_MAX, MIRRORS_MAX, NAME_MAX, RATE_LIMITS_MAX, ROUTE_LIST_MAX, ROUTES_MAX, SECRETS_MAX,
    SHARDS_MAX, SUBJECT_ALT_NAME_MAX, SUBJECT_ALT_NAMES_MAX, TEXT_MAX, TLS_LIST_MAX,
};
pub use quantity::parse_duration;
pub use reference::{json_schema, reference};
pub use secret_files::secret_faults;
pub use syntax::{format_instant, parse_instant};
pub use tree::{DEPTH_MAX, NODES_MAX};

use self::{
    diagnostic::{Problem, Report},
    model::Config,
};

/// Bytes of a file. 100,000 routes take about 10 MiB.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// A configuration and what is doubtful about it, or everything that is wrong with it, warnings
/// included.
pub type Outcome = Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>>;

/// Reads a configuration. `file` is the name that diagnostics show.
pub fn parse(file: &str, text: &str) -> Outcome {
    let report = Report::new(file, text);
    if text.len() > FILE_BYTES_MAX {
        report.add(too_large(text.len()));
        return Err(report.finish());
    }
    // Line and column are counted in the text as it is; a byte order mark is part of no value.
    let Some(root) = tree::read(text, &report) else {
        return Err(report.finish());
    };
    let (config, origins) = decode::file(&root, &report);
    if report.is_usable() {
        lint::lint(&config, &origins, &report);
    }
    match report.is_usable() {
        true => Ok((config, report.finish())),
        false => Err(report.finish()),
    }
}

/// Reads a configuration that may not even be text.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Outcome {
    if bytes.len() > FILE_BYTES_MAX {
        let report = Report::new(file, "");
        report.add(too_large(bytes.len()));
        return Err(report.finish());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let text = String::from_utf8_lossy(valid);
            let report = Report::new(file, &text);
            let problem = Problem::new(
                codes::ENCODING,
                text.len()..text.len(),
                "the file is not UTF-8",
            );
            report.add(
                problem
                    .label("not UTF-8 from here")
                    .help("save the file as UTF-8"),
            );
            Err(report.finish())
        }
    }
}

fn too_large(bytes: usize) -> Problem {
    let at: Range<usize> = 0..0;
    let message = format!("the file has {bytes} bytes, at most {FILE_BYTES_MAX} are read");
    let problem = Problem::new(codes::TOO_LARGE, at, message).label("too large");
    problem.help("is this the right file? split the work over several proxies if it is")
}
