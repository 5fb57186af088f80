//! The gate: whether a change made something dearer. Instructions are compared with a baseline first,
//! since they do not depend on the machine's mood; wall clocks are asked only about the whole proxy,
//! and believed only when they say "slower" three times in a row.

use std::{collections::BTreeMap, fmt, fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How much dearer a case may be, in percent: inlining shifts by about one.
pub const TOLERANCE_PERCENT: f64 = 2.0;
/// Verdicts of "slower" in a row that make a regression of a wall clock's.
pub const SLOWER_MAX: usize = 3;

/// Instructions by case, of one compiler on one kind of CPU: others count differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What counted: compiler, architecture, and what the fast paths are chosen by.
    pub host: String,
    /// Instructions per time.
    pub cases: BTreeMap<String, f64>,
}

/// A file of baselines, one for each kind of host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    /// In no order.
    pub baselines: Vec<Baseline>,
}

impl Baselines {
    /// Those of a file; none if there is no file.
    pub fn read(path: &Path) -> Result<Baselines, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Baselines::default());
            }
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        serde_json::from_str(&text)
            .map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
    }

    /// That of a host.
    pub fn of(&self, host: &str) -> Option<&Baseline> {
        self.baselines.iter().find(|baseline| baseline.host == host)
    }

    /// Replaces that of a host.
    pub fn set(&mut self, fresh: Baseline) {
        self.baselines
            .retain(|baseline| baseline.host != fresh.host);
        self.baselines.push(fresh);
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| Error::io("writing baselines")(error.into()))?;
        fs::write(path, json + "\n").map_err(Error::io(format!("writing {}", path.display())))
    }
}

/// This host, as far as it decides how many instructions something takes.
pub fn host() -> Result<String, Error> {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .map_err(Error::io("asking rustc for its version"))?;
    let compiler = String::from_utf8_lossy(&output.stdout);
    let compiler = compiler.split_whitespace().nth(1).unwrap_or("unknown");
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let vectors = ["avx2", "sse4_2"].into_iter().find(|flag| has(flag));
    Ok(format!(
        "rustc {compiler}, {}, {}",
        std::env::consts::ARCH,
        vectors.unwrap_or("no vectors")
    ))
}

/// One case, set against its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The case.
    pub case: String,
    /// Before.
    pub baseline: Option<f64>,
    /// Now; `None` if the case is gone.
    pub now: Option<f64>,
    /// What that amounts to.
    pub word: Word,
}

/// What a change amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Within the tolerance.
    Same,
    /// Fewer instructions by more than that: the baseline should follow.
    Cheaper,
    /// More: a regression.
    Dearer,
    /// The case has no baseline yet.
    New,
    /// The baseline has no case any more.
    Gone,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Word::Same => "same",
            Word::Cheaper => "cheaper; bless it, so that it stays",
            Word::Dearer => "DEARER",
            Word::New => "new; bless it",
            Word::Gone => "gone; bless that",
        })
    }
}

/// All cases of either side, by name.
pub fn compare(
    baseline: &BTreeMap<String, f64>,
    now: &BTreeMap<String, f64>,
    tolerance_percent: f64,
) -> Vec<Change> {
    let tolerance = tolerance_percent / 100.0;
    let mut cases: Vec<&String> = baseline.keys().chain(now.keys()).collect();
    cases.sort();
    cases.dedup();
    let change = |case: &String| {
        let (before, now) = (baseline.get(case).copied(), now.get(case).copied());
        let word = match (before, now) {
            (Some(before), Some(now)) if now > before * (1.0 + tolerance) => Word::Dearer,
            (Some(before), Some(now)) if now < before * (1.0 - tolerance) => Word::Cheaper,
            (Some(_), Some(_)) => Word::Same,
            (None, _) => Word::New,
            (_, None) => Word::Gone,
        };
        Change {
            case: case.clone(),
            baseline: before,
            now,
            word,
        }
    };
    cases.into_iter().map(change).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
        let percent = match (self.baseline, self.now) {
            (Some(before), Some(now)) => format!("{:+.2} %", (now / before - 1.0) * 100.0),
            _ => String::new(),
        };
        write!(
            f,
            "{:<20}{:>12}{:>12}{percent:>12}  {}",
            self.case,
            number(self.baseline),
            number(self.now),
            self.word
        )
    }
}

/// Asks a wall clock until it does not say "slower", at most three times; whether it always did.
pub fn is_slower_throughout(
    mut ask: impl FnMut(usize) -> Result<Slower, Error>,
) -> Result<bool, Error> {
    for time in 1..=SLOWER_MAX {
        if ask(time)? == Slower::No {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a paired comparison said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slower {
    /// Slower.
    Yes,
    /// Faster, the same, or it cannot be told.
    No,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let owned = |&(case, count): &(&str, f64)| (case.to_owned(), count);
        pairs.iter().map(owned).collect()
    }

    /// Two percent more is the same, a little above it is dearer, as much less is cheaper; cases that
    /// only one side has are named.
    #[test]
    fn changes_have_words() {
        let baseline = counts(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 100.0)]);
        let now = counts(&[("a", 102.0), ("b", 102.1), ("c", 97.9), ("e", 1.0)]);
        let words: Vec<Word> = compare(&baseline, &now, TOLERANCE_PERCENT)
            .into_iter()
            .map(|change| change.word)
            .collect();
        let expected = [
            Word::Same,
            Word::Dearer,
            Word::Cheaper,
            Word::Gone,
            Word::New,
        ];
        assert_eq!(words, expected);
    }

    /// A wall clock is asked no more once it says anything but slower, and believed at the third time.
    #[test]
    fn three_in_a_row() {
        for (answers, is_slower, asked) in [
            (vec![Slower::No], false, 1),
            (vec![Slower::Yes, Slower::No], false, 2),
            (vec![Slower::Yes, Slower::Yes, Slower::No], false, 3),
            (vec![Slower::Yes; 3], true, 3),
        ] {
            let mut times = 0;
            let said = is_slower_throughout(|time| {
                times = time;
                Ok(answers.get(time - 1).copied().unwrap_or(Slower::Yes))
            });
            assert_eq!((said.unwrap(), times), (is_slower, asked), "{answers:?}");
        }
    }

    /// Baselines of other hosts stay when one is replaced, and the file reads back.
    #[test]
    fn baselines_are_per_host() {
        let baseline = |host: &str, count| Baseline {
            host: host.to_owned(),
            cases: counts(&[("a", count)]),
        };
        let mut baselines = Baselines::default();
        baselines.set(baseline("x", 1.0));
        baselines.set(baseline("y", 2.0));
        baselines.set(baseline("x", 3.0));
        assert_eq!(baselines.of("x"), Some(&baseline("x", 3.0)));
        assert_eq!(baselines.of("y"), Some(&baseline("y", 2.0)));
        assert_eq!(baselines.of("z"), None);
        let json = serde_json::to_string(&baselines).unwrap();
        assert_eq!(serde_json::from_str::<Baselines>(&json).unwrap(), baselines);
        assert!(!host().unwrap().is_empty());
    }
}
