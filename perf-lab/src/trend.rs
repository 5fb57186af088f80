//! A ledger's figures over time: one line a scenario, peer and figure, with a curve made of letters.
//!
//! Figures of different machines are different figures.

use std::{collections::BTreeMap, fmt};

use crate::ledger::Entry;

/// What a curve is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    machine: String,
    scenario: String,
    figure: String,
    peer: String,
}

#[derive(Clone, Debug)]
struct Reading {
    date: String,
    commit: String,
    value: f64,
}

/// All curves of a ledger.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    curves: BTreeMap<Key, Vec<Reading>>,
    /// Lines that are no entries.
    pub skipped: usize,
}

/// What to leave out.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this scenario.
    pub scenario: Option<String>,
    /// Only this peer.
    pub peer: Option<String>,
    /// Only this figure.
    pub figure: Option<String>,
}

/// Letters of a curve: as many as fit beside the numbers on a terminal; the latest readings.
const CURVE_MAX: usize = 32;
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Trend {
    /// Reads a ledger's text. A line that is torn (a run that was killed) is skipped and counted.
    pub fn read(text: &str, filter: &Filter) -> Trend {
        let mut trend = Trend::default();
        let passes =
            |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|asked| asked == is);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let Ok(entry) = serde_json::from_str::<Entry>(line) else {
                trend.skipped += 1;
                continue;
            };
            if !passes(&filter.scenario, &entry.scenario) || !passes(&filter.peer, &entry.peer) {
                continue;
            }
            for (figure, &value) in &entry.figures {
                if !passes(&filter.figure, figure) {
                    continue;
                }
                let key = Key {
                    machine: entry.machine.clone(),
                    scenario: entry.scenario.clone(),
                    figure: figure.clone(),
                    peer: entry.peer.clone(),
                };
                trend.curves.entry(key).or_default().push(Reading {
                    date: entry.date.clone(),
                    commit: entry.commit.clone(),
                    value,
                });
            }
        }
        for readings in trend.curves.values_mut() {
            // Dates are written so that they sort; entries of a moment keep their order.
            readings.sort_by(|a, b| a.date.cmp(&b.date));
        }
        trend
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.curves.is_empty()
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut machine = None;
        for (key, readings) in &self.curves {
            if machine != Some(&key.machine) {
                let gap = if machine.is_some() { "\n" } else { "" };
                writeln!(f, "{gap}machine {}", key.machine)?;
                machine = Some(&key.machine);
            }
            let (Some(first), Some(last)) = (readings.first(), readings.last()) else {
                continue;
            };
            let from = readings.len().saturating_sub(CURVE_MAX);
            let shown = readings.get(from..).unwrap_or_default();
            let change = match first.value == 0.0 {
                true => "-".to_owned(),
                false => format!("{:+.1} %", (last.value / first.value - 1.0) * 100.0),
            };
            let commit: String = last.commit.chars().take(12).collect();
            let day: String = last.date.chars().take(10).collect();
            writeln!(
                f,
                "  {:<20} {:<22} {:<10} {:>10.2} → {:>10.2}  {change:>9}  {:<CURVE_MAX$}  {day} {commit}",
                key.scenario,
                key.figure,
                key.peer,
                first.value,
                last.value,
                curve(shown.iter().map(|reading| reading.value)),
            )?;
        }
        Ok(())
    }
}

/// From the least value to the greatest; equal values lie in the middle.
fn curve(values: impl Iterator<Item = f64> + Clone) -> String {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    values
        .map(|value| {
            let part = match most > least {
                true => (value - least) / (most - least),
                false => 0.5,
            };
            let step = (part * (STEPS.len() - 1) as f64).round() as usize;
            STEPS.get(step).copied().unwrap_or(' ')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = r#"
{"date":"2026-01-02T00:00:00Z","commit":"bbbbbbbbbbbbbbbbbb","machine":"m","scenario":"h1-128","peer":"tidegate","version":"v","figures":{"cpu_us":12.0}}
{"date":"2026-01-01T00:00:00Z","commit":"aaaa","machine":"m","scenario":"h1-128","peer":"tidegate","version":"v","figures":{"cpu_us":10.0},"more":1}
{"date":"2026-01-03T00:00:00Z","commit":"cccc","machine":"m","scenario":"h1-128","peer":"tidegate","version":"v","figures":{"cpu_us":14.0}}
{"date":"2026-01-03T00:00:00Z","commit":"","machine":"other","scenario":"h1-128","peer":"tidegate","version":"v","figures":{"cpu_us":5.0}}
{"date":"2026-01-03T00:0"#;

    /// Readings are put in order, machines apart, torn lines counted, and the curve rises.
    #[test]
    fn draws_curves() {
        let trend = Trend::read(LEDGER, &Filter::default());
        assert_eq!(trend.skipped, 1);
        let text = trend.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        for part in ["10.00 →      14.00", "+40.0 %", "▁▅█", "2026-01-03 cccc"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(lines.last().map(|line| line.contains('▅')), Some(true));
    }

    /// Filters leave out what was not asked for.
    #[test]
    fn filters() {
        let filter = |scenario: &str, peer: &str| Filter {
            scenario: Some(scenario.to_owned()),
            peer: Some(peer.to_owned()),
            figure: None,
        };
        assert!(!Trend::read(LEDGER, &filter("h1-128", "tidegate")).is_empty());
        assert!(Trend::read(LEDGER, &filter("h1-16k", "tidegate")).is_empty());
        assert!(Trend::read(LEDGER, &filter("h1-128", "nginx")).is_empty());
    }
}
