//! What the results of the experiments beside the rows, `faults` and `overload`, are written with.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde::Serialize;

use super::markdown::{release, without_directories};
use crate::{error::Error, machine::Machine};

/// When, where, with whom and how it was done.
pub struct Circumstances<'a> {
    /// When it began, in UTC.
    pub date: &'a str,
    /// What to type to do it again.
    pub command: &'a str,
    /// Where it took place.
    pub machine: &'a Machine,
    /// The contenders' versions.
    pub versions: &'a BTreeMap<String, String>,
}

impl Circumstances<'_> {
    /// Before the tables, on a terminal.
    pub fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = self.machine;
        writeln!(f, "machine   {}, kernel {}", machine.cpu, machine.kernel)?;
        for (contender, version) in self.versions {
            writeln!(f, "{contender:<9} {version}")?;
        }
        writeln!(f, "fitness   {}", machine.fitness)?;
        for caveat in &machine.caveats {
            writeln!(f, "caveat    {caveat}")?;
        }
        Ok(())
    }

    /// Behind the tables, in a document; `more` says further ones.
    pub fn foot(&self, more: &str) -> String {
        let machine = self.machine;
        let mut text = format!(
            "Begun {} on {}, {} CPUs, kernel {}{more}: {} ({}).\n\n",
            self.date,
            machine.cpu,
            machine.cpus,
            release(&machine.kernel),
            machine.fitness,
            machine.caveats.join("; ")
        );
        for (contender, version) in self.versions {
            text += &format!("- {contender}: {}\n", without_directories(version));
        }
        let command = without_directories(self.command);
        text + &format!("\nTo do it again:\n\n```\n{command}\n```\n")
    }
}

/// What has the same key together, in the order in which each came first.
pub fn grouped<K: PartialEq, C>(cells: &[C], key: impl Fn(&C) -> K) -> Vec<(K, Vec<&C>)> {
    let mut groups: Vec<(K, Vec<&C>)> = Vec::new();
    for cell in cells {
        let its = key(cell);
        match groups.iter_mut().find(|(key, _)| *key == its) {
            Some((_, cells)) => cells.push(cell),
            None => groups.push((its, vec![cell])),
        }
    }
    groups
}

/// A table of Markdown: a word to the left, numbers to the right.
pub fn table(heads: &[String], lines: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n", heads.join(" | "));
    text += &format!("|---|{}\n", "---:|".repeat(heads.len() - 1));
    for line in lines {
        text += &format!("| {} |\n", line.join(" | "));
    }
    text
}

/// Writes `NAME.json` and `NAME.md`.
pub fn write(
    directory: &Path,
    name: &str,
    result: &impl Serialize,
    markdown: &str,
) -> Result<(), Error> {
    let doing = || Error::io(format!("writing into {}", directory.display()));
    fs::create_dir_all(directory).map_err(doing())?;
    let json = serde_json::to_string(result).map_err(|error| doing()(error.into()))?;
    fs::write(directory.join(format!("{name}.json")), json).map_err(doing())?;
    fs::write(directory.join(format!("{name}.md")), markdown).map_err(doing())
}
