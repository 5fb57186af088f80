//! The ledger: what runs found out, a line of JSON each, so that figures can be followed over commits.
//! Lines are only ever added, in one write each, so two runs at once do not mix them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{error::Error, run::RunResult, scenario::Figure, statistics::Spread};

/// One scenario of one peer in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in UTC, written so that it sorts.
    pub date: String,
    /// Of this repository; empty outside of one.
    pub commit: String,
    /// The machine, by its fingerprint.
    pub machine: String,
    /// What was measured.
    pub scenario: String,
    /// Who.
    pub peer: String,
    /// Which version of it.
    pub version: String,
    /// Medians by name. What was not measured is not in it.
    pub figures: BTreeMap<String, f64>,
}

/// What a run adds: a line for each peer that has a valid measurement in a scenario.
pub fn entries(result: &RunResult, commit: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for row in &result.rows {
        for peer in row.peers() {
            let mut figures = BTreeMap::new();
            for (figure, name) in Figure::ALL {
                let readings = row.valid(peer).filter_map(|reading| reading.figure(figure));
                if let Some(spread) = Spread::of(readings) {
                    figures.insert(name.to_owned(), spread.median);
                }
            }
            if figures.is_empty() {
                continue;
            }
            entries.push(Entry {
                date: result.date.clone(),
                commit: commit.to_owned(),
                machine: result.machine.fingerprint(),
                scenario: row.row.name.clone(),
                peer: peer.to_owned(),
                version: result.peers.get(peer).cloned().unwrap_or_default(),
                figures,
            });
        }
    }
    entries
}

/// Adds entries to a file, which is made if it is not there.
pub fn append(path: &Path, entries: &[Entry]) -> Result<(), Error> {
    let mut lines = String::new();
    for entry in entries {
        let line = serde_json::to_string(entry)
            .map_err(|error| Error::io("writing the ledger")(error.into()))?;
        lines += &line;
        lines.push('\n');
    }
    if lines.is_empty() {
        return Ok(());
    }
    let writing = || Error::io(format!("writing {}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(writing())?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(writing())?;
    file.write_all(lines.as_bytes()).map_err(writing())
}

/// All entries, in their order; none if there is no file. A line that is none is an error with its
/// number, except a last one without an end: its run was killed.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
    };
    parse(&text).map_err(|problem| Error::Usage(format!("{}, {problem}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if !line.ends_with('\n') || line.trim().is_empty() => {}
            Err(error) => return Err(format!("line {}: {error}", i + 1)),
        }
    }
    Ok(entries)
}

/// The commit that is checked out here, with `-dirty` if files differ from it; empty if git knows none.
pub fn commit() -> String {
    let git = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude",
            "*",
        ])
        .output();
    match git {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::peer::process::Workplace;

    fn entry(peer: &str, cpu: f64) -> Entry {
        Entry {
            date: "2026-01-05T10:00:00Z".to_owned(),
            commit: "0123456789ab".to_owned(),
            machine: "m".to_owned(),
            scenario: "h1-128".to_owned(),
            peer: peer.to_owned(),
            version: "1".to_owned(),
            figures: BTreeMap::from([("cpu".to_owned(), cpu)]),
        }
    }

    /// What is appended in two goes reads back in order; a ledger that is not there is empty.
    #[test]
    fn entries_read_back() {
        let work = Workplace::create().unwrap();
        let path = work.dir.join("new/ledger.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        append(&path, &[entry("a", 1.0), entry("b", 2.0)]).unwrap();
        append(&path, &[]).unwrap();
        append(&path, &[entry("c", 3.5)]).unwrap();
        let expected = [entry("a", 1.0), entry("b", 2.0), entry("c", 3.5)];
        assert_eq!(read(&path).unwrap(), expected);
    }

    /// A torn last line is left out; a wrong one before it is named.
    #[test]
    fn torn_lines() {
        let line = serde_json::to_string(&entry("a", 1.0)).unwrap();
        let torn = line.get(..20).unwrap();
        assert_eq!(
            parse(&format!("{line}\n{torn}")).unwrap(),
            [entry("a", 1.0)]
        );
        let problem = parse(&format!("{line}\n{torn}\n{line}\n")).unwrap_err();
        assert!(problem.starts_with("line 2: "), "{problem}");
    }
}
