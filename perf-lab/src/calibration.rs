//! This machine's noise: what comparisons of a program with itself have shown, kept between runs.
//!
//! One JSON file in the user's state directory, by machine, scenario and figure. An A/A comparison
//! adds to it; every other comparison is judged by it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{error::Error, machine::Machine, scenario::Figure, statistics::Ratio, verdict::Noise};

/// Everything that was found out on this account; other machines may share a home directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    #[serde(default)]
    machines: BTreeMap<String, BTreeMap<String, Noise>>,
}

/// What a noise belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the scenario.
    pub scenario: &'a str,
    /// What was compared.
    pub figure: Figure,
    /// How long each measurement took: shorter ones are noisier.
    pub seconds: f64,
}

impl Subject<'_> {
    /// As which it is kept.
    pub fn key(&self) -> String {
        let figure = format!("{:?}", self.figure).to_lowercase();
        format!("{} {figure} {}s", self.scenario, self.seconds)
    }
}

/// More than this is the past: an old machine state should not outweigh today's for ever.
const PAIRS_KEPT_MAX: usize = 100;

impl Calibration {
    /// Where it is kept: `$XDG_STATE_HOME`, or `~/.local/state`, or under `target`.
    pub fn path() -> PathBuf {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let state = set("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".local/state")));
        let directory = state.unwrap_or_else(|| PathBuf::from("target"));
        directory.join("tidegate-lab/noise.json")
    }

    /// Reads it; a file that is not there is an empty one.
    pub fn load(path: &Path) -> Result<Calibration, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Calibration::default());
            }
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            Error::Usage(format!(
                "{} is not a calibration ({error}); remove it and calibrate again",
                path.display()
            ))
        })
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let writing = || Error::io(format!("writing {}", path.display()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(writing())?;
        }
        let json = serde_json::to_string_pretty(self).map_err(|error| writing()(error.into()))?;
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, json).map_err(writing())?;
        fs::rename(&fresh, path).map_err(writing())
    }

    /// What is known of this machine, by subject, for a result to be judged by wherever it is read.
    pub fn here(&self, machine: &Machine) -> BTreeMap<String, Noise> {
        let here = self.machines.get(&machine.fingerprint());
        here.cloned().unwrap_or_default()
    }

    /// What is known.
    pub fn noise(&self, machine: &Machine, subject: Subject<'_>) -> Option<Noise> {
        let here = self.machines.get(&machine.fingerprint())?;
        here.get(&subject.key()).copied()
    }

    /// Takes in what an A/A comparison has shown, pooled with what was known.
    pub fn note(&mut self, machine: &Machine, subject: Subject<'_>, ratio: &Ratio) {
        if ratio.pairs < 2 {
            return;
        }
        let here = self.machines.entry(machine.fingerprint()).or_default();
        let fresh = Noise {
            deviation: ratio.deviation,
            pairs: ratio.pairs,
        };
        here.entry(subject.key())
            .and_modify(|known| *known = pool(*known, fresh))
            .or_insert(fresh);
    }
}

/// The root of the mean of the squares, weighted by pairs.
fn pool(known: Noise, fresh: Noise) -> Noise {
    let kept = known.pairs.min(PAIRS_KEPT_MAX);
    let pairs = kept + fresh.pairs;
    let squares =
        known.deviation.powi(2) * kept as f64 + fresh.deviation.powi(2) * fresh.pairs as f64;
    Noise {
        deviation: (squares / pairs as f64).sqrt(),
        pairs,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::statistics::{Confidence, paired_ratio};

    const SUBJECT: Subject<'_> = Subject {
        scenario: "h1-128",
        figure: Figure::Cpu,
        seconds: 3.0,
    };

    fn ratio(deviation: f64) -> Ratio {
        // Two pairs at ±d have the deviation √2·d.
        let step = (deviation / 2f64.sqrt()).exp();
        paired_ratio(&[step, 1.0 / step], &[1.0, 1.0], Confidence::Claim, 0).unwrap()
    }

    /// Noise is known for the machine, scenario and figure that it was found for, and pooled.
    #[test]
    fn noise_is_pooled() {
        let machine = Machine::default();
        let mut calibration = Calibration::default();
        assert_eq!(calibration.noise(&machine, SUBJECT), None);
        calibration.note(&machine, SUBJECT, &ratio(0.01));
        calibration.note(&machine, SUBJECT, &ratio(0.03));
        let noise = calibration.noise(&machine, SUBJECT).unwrap();
        assert!(
            (noise.deviation - 0.000_5f64.sqrt()).abs() < 1e-9,
            "{noise:?}"
        );
        assert_eq!(noise.pairs, 4);
        let other = Machine {
            cpu: "another".to_owned(),
            ..Machine::default()
        };
        assert_eq!(calibration.noise(&other, SUBJECT), None);
        let longer = Subject {
            seconds: 10.0,
            ..SUBJECT
        };
        assert_eq!(calibration.noise(&machine, longer), None);
    }

    /// It comes back from its file as it was; no file is an empty one; another file is refused.
    #[test]
    fn is_kept() {
        let directory = env::temp_dir().join(format!("lab-noise-{}", std::process::id()));
        let path = directory.join("state/noise.json");
        assert_eq!(Calibration::load(&path).unwrap(), Calibration::default());
        let mut calibration = Calibration::default();
        calibration.note(&Machine::default(), SUBJECT, &ratio(0.02));
        calibration.save(&path).unwrap();
        assert_eq!(Calibration::load(&path).unwrap(), calibration);
        fs::write(&path, r#"{"machines": 3}"#).unwrap();
        assert_eq!(Calibration::load(&path).unwrap_err().exit_code(), 2);
        fs::remove_dir_all(&directory).unwrap();
    }
}
