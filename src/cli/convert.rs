//! `tidegate convert`: a file of our own for what an Envoy's bootstrap says.

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::Value;
use tidegate_xds::bootstrap;

use super::Format;
use crate::exit::{Exit, Failure};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate convert envoy.yaml > tidegate.yaml
  tidegate check tidegate.yaml
  tidegate convert --partial envoy.yaml > tidegate.yaml   without what is not supported")]
pub(super) struct Args {
    /// A bootstrap of Envoy, in YAML or JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Leave out what is not supported, instead of writing nothing
    #[arg(long)]
    partial: bool,

    /// `human` writes YAML
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let name = args.file.display();
    let bad = |why: String| {
        let remedy = "name a bootstrap of Envoy, in YAML or JSON";
        Failure::new(Exit::Config, format!("`{name}`: {why}"), remedy)
    };
    let text = fs::read_to_string(&args.file).map_err(|e| bad(e.to_string()))?;
    let converted = bootstrap::convert(&text).map_err(bad)?;
    for warning in &converted.warnings {
        eprintln!("{name}: {warning}");
    }
    for fault in &converted.faults {
        eprintln!("{name}: not converted: {fault}");
    }
    let is_whole = converted.faults.is_empty();
    if converted.document.is_null() || !(is_whole || args.partial) {
        return Err(Failure::reported(Exit::Config));
    }
    match args.format {
        Format::Json => super::print_json(&converted.document)?,
        Format::Human => super::print(&yaml(&converted.document))?,
    }
    match is_whole {
        true => Ok(()),
        false => Err(Failure::reported(Exit::CheckFailed)),
    }
}

/// The sections that a reader looks for first, in their order.
const FIRST: [&str; 4] = ["version", "node", "admin", "xds"];

/// The document as a person would write it: maps and lists in blocks, short lists of words in a line.
fn yaml(document: &Value) -> String {
    let mut out = String::new();
    let Value::Object(map) = document else {
        return out;
    };
    let (mut first, mut rest) = (map.clone(), map.clone());
    first.retain(|key, _| FIRST.contains(&key.as_str()));
    rest.retain(|key, _| !first.contains_key(key));
    for key in FIRST {
        if let Some(section) = first.remove(key) {
            write_block(
                &mut out,
                &Value::Object([(key.to_owned(), section)].into_iter().collect()),
                0,
            );
        }
    }
    write_block(&mut out, &Value::Object(rest), 0);
    out
}

fn write_block(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let _ = write!(out, "{indent}{}:", scalar(key));
                write_below(out, value, depth + 1);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut block = String::new();
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        write_block(&mut block, item, depth + 1)
                    }
                    flat => block = format!("{indent}  {}\n", in_line(flat)),
                }
                // The dash stands in the place of the first line's indent.
                let rest = block.get(indent.len() + 2..).unwrap_or_default();
                let _ = write!(out, "{indent}- {rest}");
            }
        }
        plain => {
            let _ = writeln!(out, "{indent}{}", in_line(plain));
        }
    }
}

/// What stands behind a key.
fn write_below(out: &mut String, value: &Value, depth: usize) {
    let is_block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
        _ => false,
    };
    if is_block {
        out.push('\n');
        write_block(out, value, depth);
    } else {
        let _ = writeln!(out, " {}", in_line(value));
    }
}

fn in_line(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(in_line).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text, in quotes wherever YAML could take it for something else.
fn scalar(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_constant = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|one| text.eq_ignore_ascii_case(one));
    match begins && text.chars().all(is_word) && !is_constant {
        true => text.to_owned(),
        // JSON's strings are YAML's.
        false => Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Goal: what is written is read as the same, and as a person would write it. Method: maps in lists in maps, empty
    /// ones, and texts that YAML takes for something else.
    #[test]
    fn documents_are_written_as_yaml() {
        let document = json!({
            "a": { "b": [{ "c": 1, "d": ["x", "1.5"] }, { "e": {} }], "f": [] },
            "off": "off", "g": "a: b", "h": "/x/y", "i": null, "j": [["k"]], "version": 1,
        });
        assert_eq!(
            yaml(&document),
            r#"version: 1
a:
  b:
    - c: 1
      d: [x, "1.5"]
    - e: {}
  f: []
g: "a: b"
h: /x/y
i: null
j:
  - [k]
"off": "off"
"#
        );
    }
}
