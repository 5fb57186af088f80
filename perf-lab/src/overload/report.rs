//! The result for a terminal, as JSON, and as Markdown for a document.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};

use super::{CLASS_NAMES, Cell, OBJECTIVE, Price, SETTLE, analysis::Outcome, cgroup::Version};
use crate::{
    error::Error,
    machine::Machine,
    peer::OURS,
    report::{
        experiment::{self, Circumstances, table},
        text::write_aligned,
    },
    statistics::percentile,
};

/// The least of its own peak that is to be good at any step (L7).
const GOAL_PLATEAU: f64 = 0.9;
/// The least part of the critical requests that is to be good (L7).
const GOAL_CRITICAL: f64 = 0.99;
/// The longest that settling may take.
const GOAL_SETTLED_MS: f64 = 2_000.0;
/// The most of a proxied request's CPU time that a refusal may cost (L8).
const GOAL_REFUSAL: f64 = 0.25;
/// With fewer refusals their cost is noise.
const REFUSALS_MIN: f64 = 500.0;

/// Everything that was found out, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OverloadResult {
    /// When it began, in UTC.
    pub date: String,
    /// What to type to do it again.
    pub command: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// Where it took place.
    pub machine: Machine,
    /// The contenders' versions.
    pub versions: BTreeMap<String, String>,
    /// CPU time of an answer, in milliseconds.
    pub cpu_time_ms: f64,
    /// Time that it waits for something else, in milliseconds.
    pub wait_ms: f64,
    /// CPUs' worth of time that the application had.
    pub cpus: f64,
    /// What held it to that; `None` if nothing did.
    pub confinement: Option<Version>,
    /// The part of the requests that was critical.
    pub critical: f64,
    /// Requests per second that the application can answer.
    pub capacity: f64,
    /// What each contender did in each step.
    pub cells: Vec<Cell>,
    /// What a request costs each.
    pub prices: Vec<Price>,
}

/// The middle of a cell's rounds.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    good_per_s: f64,
    success: Vec<f64>,
    success_before: f64,
    p99_ms: Option<f64>,
    refused_per_s: f64,
    lost_per_s: f64,
    settled_ms: Option<f64>,
}

impl Summary {
    /// `None` if nothing was measured.
    fn of(outcomes: &[Outcome]) -> Option<Summary> {
        let middle = |value: fn(&Outcome) -> f64| {
            percentile(outcomes.iter().map(|outcome| Some(value(outcome))), 0.5)
        };
        let class = |i| {
            let of_class = outcomes.iter().map(move |it| it.success.get(i).copied());
            percentile(of_class, 0.5)
        };
        Some(Summary {
            good_per_s: middle(|it| it.good_per_s)?,
            success: (0..CLASS_NAMES.len()).filter_map(class).collect(),
            success_before: middle(|it| it.success_before)?,
            p99_ms: percentile(outcomes.iter().map(|it| it.p99_ms), 0.5),
            refused_per_s: middle(|it| it.refused_per_s)?,
            lost_per_s: middle(|it| it.lost_per_s)?,
            settled_ms: percentile(outcomes.iter().map(|it| it.settled_ms), 0.5),
        })
    }
}

impl OverloadResult {
    /// Writes `overload.json` and `overload.md`.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        experiment::write(directory, "overload", self, &self.markdown())
    }

    /// The steps, and what each contender did there.
    fn steps(&self) -> Vec<(f64, Vec<&Cell>)> {
        experiment::grouped(&self.cells, |cell| cell.times)
    }

    /// The most that a contender's goodput came to in any step.
    fn peak(&self, contender: &str) -> f64 {
        let own = self.cells.iter().filter(|cell| cell.contender == contender);
        let goodput = own.filter_map(|cell| Some(Summary::of(&cell.outcomes)?.good_per_s));
        goodput.fold(0.0, f64::max)
    }

    fn heads() -> Vec<String> {
        let mut heads: Vec<String> = ["contender", "good/s", "% of own peak", "% of capacity"]
            .map(str::to_owned)
            .to_vec();
        heads.extend(CLASS_NAMES.map(|name| format!("{name} good %")));
        let others = [
            "critical good % until then",
            "p99 of answered ms",
            "refused/s",
            "no answer/s",
            "settled ms",
            "goal",
        ];
        heads.extend(others.map(str::to_owned));
        heads
    }

    fn cells(&self, cell: &Cell) -> Vec<String> {
        let Some(summary) = Summary::of(&cell.outcomes) else {
            return vec![cell.contender.clone(), "not measured".to_owned()];
        };
        let percent = |part: f64| format!("{:.1}", part * 100.0);
        let or = |value: Option<f64>, none: &str| match value {
            Some(value) => format!("{value:.0}"),
            None => none.to_owned(),
        };
        let mut cells = vec![
            cell.contender.clone(),
            format!("{:.0}", summary.good_per_s),
            percent(self.plateau(cell, &summary)),
            percent(summary.good_per_s / self.capacity),
        ];
        cells.extend(summary.success.iter().map(|part| percent(*part)));
        cells.extend([
            percent(summary.success_before),
            or(summary.p99_ms, "–"),
            format!("{:.0}", summary.refused_per_s),
            format!("{:.0}", summary.lost_per_s),
            or(summary.settled_ms, "never"),
            self.goal(cell, &summary),
        ]);
        cells
    }

    fn plateau(&self, cell: &Cell, summary: &Summary) -> f64 {
        summary.good_per_s / self.peak(&cell.contender).max(f64::MIN_POSITIVE)
    }

    /// Whether ours holds what we want to reach.
    fn goal(&self, cell: &Cell, summary: &Summary) -> String {
        if cell.contender != OURS {
            return String::new();
        }
        let critical = summary.success.first().copied().unwrap_or(0.0);
        let settled = summary.settled_ms.unwrap_or(f64::INFINITY);
        let missed: Vec<&str> = [
            (self.plateau(cell, summary) >= GOAL_PLATEAU, "plateau"),
            (critical >= GOAL_CRITICAL, "critical"),
            (settled <= GOAL_SETTLED_MS, "settled"),
        ]
        .iter()
        .filter_map(|(holds, name)| (!holds).then_some(*name))
        .collect();
        match missed.is_empty() {
            true => "met".to_owned(),
            false => format!("missed: {}", missed.join(", ")),
        }
    }

    fn price_heads() -> Vec<String> {
        let heads = [
            "contender",
            "proxied CPU µs",
            "refused CPU µs",
            "ratio",
            "goal",
        ];
        heads.map(str::to_owned).to_vec()
    }

    fn prices(&self) -> Vec<Vec<String>> {
        let line = |price: &Price| {
            let refusal = self.refusal_us(price);
            let ratio = refusal.map(|us| us / price.proxied_us);
            let number = |value: Option<f64>| match value {
                Some(value) => format!("{value:.2}"),
                None => "–".to_owned(),
            };
            let goal = match ratio {
                Some(ratio) if price.contender == OURS => match ratio <= GOAL_REFUSAL {
                    true => format!("≤ {GOAL_REFUSAL}: met"),
                    false => format!("≤ {GOAL_REFUSAL}: missed"),
                },
                _ => String::new(),
            };
            vec![
                price.contender.clone(),
                number(Some(price.proxied_us)),
                number(refusal),
                number(ratio),
                goal,
            ]
        };
        self.prices.iter().map(line).collect()
    }

    /// What a refusal costs: the proxy's CPU time in the highest step, less what it proxied there at its
    /// price, over the refusals.
    fn refusal_us(&self, price: &Price) -> Option<f64> {
        let own = |cell: &&Cell| cell.contender == price.contender;
        let highest = self.cells.iter().filter(own);
        let highest = highest.max_by(|a, b| a.times.total_cmp(&b.times))?;
        let (mut cpu_us, mut refused) = (0.0, 0.0);
        for outcome in &highest.outcomes {
            cpu_us += outcome.cpu_us? - outcome.proxied as f64 * price.proxied_us;
            refused += outcome.refused as f64;
        }
        (refused >= REFUSALS_MIN).then(|| cpu_us / refused)
    }

    /// What shares which core, and what the words mean.
    fn remarks(&self) -> Vec<String> {
        let placement = self.machine.placement;
        let application = match self.confinement {
            Some(version) => format!(
                "the application, held to {} of a core by a {version}, and the clients share core {}",
                self.cpus, placement.load
            ),
            None => format!(
                "the application and the clients share core {} as the scheduler likes: there is no \
                 control group to hold it",
                placement.load
            ),
        };
        let (objective, settle) = (OBJECTIVE.as_micros() / 1e3, SETTLE.as_secs());
        vec![
            format!(
                "The proxy has core {} for itself; {application}. An answer takes {} ms of CPU and {} ms of \
                 waiting for something else: {:.0}/s are its capacity, measured with a closed loop and \
                 nothing in between.",
                placement.proxy, self.cpu_time_ms, self.wait_ms, self.capacity
            ),
            format!(
                "Good is a 200 within {objective} ms of when the request was due. {:.0} % of the requests \
                 are critical. Figures are of the step from {settle} s on; until then everybody settles.",
                self.critical * 100.0
            ),
        ]
    }

    /// The tables, a heading each.
    fn markdown(&self) -> String {
        let mut text = String::new();
        for remark in self.remarks() {
            text += &format!("{remark}\n\n");
        }
        for (times, cells) in self.steps() {
            text += &format!("**{times} × capacity**\n\n");
            let lines = cells.iter().map(|cell| self.cells(cell));
            text += &(table(&OverloadResult::heads(), lines) + "\n");
        }
        text += "**What a refusal costs, at the highest step**\n\n";
        text += &(table(&OverloadResult::price_heads(), self.prices()) + "\n");
        for problem in self.problems() {
            text += &format!("{problem}\n\n");
        }
        text + &self.circumstances().foot("")
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            date: &self.date,
            command: &self.command,
            machine: &self.machine,
            versions: &self.versions,
        }
    }

    /// Steps that could not be played, without the peer's output.
    fn problems(&self) -> Vec<String> {
        let first = |cell: &Cell| {
            let first = cell.problems.first()?.lines().next()?.to_owned();
            let (times, contender) = (cell.times, &cell.contender);
            Some(format!("{times} ×, {contender}: {first}"))
        };
        self.cells.iter().filter_map(first).collect()
    }
}

impl fmt::Display for OverloadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.circumstances().head(f)?;
        for remark in self.remarks() {
            writeln!(f, "{remark}")?;
        }
        for (times, cells) in self.steps() {
            writeln!(f, "\n{times} × capacity")?;
            let mut lines = vec![OverloadResult::heads()];
            lines.extend(cells.iter().map(|cell| self.cells(cell)));
            write_aligned(f, &lines)?;
        }
        writeln!(f, "\nwhat a refusal costs, at the highest step")?;
        let mut lines = vec![OverloadResult::price_heads()];
        lines.extend(self.prices());
        write_aligned(f, &lines)?;
        for problem in self.problems() {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(good_per_s: f64, critical: f64, settled_ms: Option<f64>) -> Outcome {
        Outcome {
            offered_per_s: 1_000.0,
            good_per_s,
            success: [critical, 0.5, 0.25, 0.0],
            success_before: 0.9,
            p99_ms: Some(120.0),
            refused_per_s: 800.0,
            lost_per_s: 1.0,
            settled_ms,
            cpu_us: Some(20_000.0 + 200.0 * 40.0),
            refused: 2_000,
            proxied: 200,
        }
    }

    fn result(contender: &str, steps: &[(f64, Outcome)]) -> OverloadResult {
        let cells = steps.iter().map(|(times, outcome)| Cell {
            contender: contender.to_owned(),
            times: *times,
            outcomes: vec![outcome.clone()],
            problems: Vec::new(),
        });
        OverloadResult {
            date: "2026-01-02T03:04:05Z".to_owned(),
            command: "tidegate-lab overload".to_owned(),
            seed: 1,
            machine: Machine::default(),
            versions: BTreeMap::new(),
            cpu_time_ms: 2.0,
            wait_ms: 50.0,
            cpus: 0.4,
            confinement: Some(Version::V1),
            critical: 0.05,
            capacity: 250.0,
            cells: cells.collect(),
            prices: vec![Price {
                contender: contender.to_owned(),
                proxied_us: 40.0,
            }],
        }
    }

    /// Goal: a step at the goals meets them, and one below each names it; others have none. Method: a peak
    /// of 200 good ones per second, and steps at 90 % of it and under.
    #[test]
    fn goals_are_judged() {
        for (contender, good, critical, settled, expected) in [
            ("tidegate", 180.0, 0.99, Some(2_000.0), "met"),
            ("tidegate", 179.0, 0.99, Some(2_000.0), "missed: plateau"),
            ("tidegate", 180.0, 0.98, Some(2_000.0), "missed: critical"),
            ("tidegate", 180.0, 0.99, Some(2_100.0), "missed: settled"),
            (
                "tidegate",
                0.0,
                0.0,
                None,
                "missed: plateau, critical, settled",
            ),
            ("envoy", 10.0, 0.1, None, ""),
        ] {
            let steps = [
                (1.0, outcome(200.0, 1.0, Some(0.0))),
                (10.0, outcome(good, critical, settled)),
            ];
            let result = result(contender, &steps);
            let cells = result.cells.last().map(|cell| result.cells(cell));
            let goal = cells.and_then(|cells| cells.last().cloned());
            assert_eq!(
                goal.as_deref(),
                Some(expected),
                "{good} {critical} {settled:?}"
            );
        }
    }

    /// Goal: a refusal's price is what is left of the CPU time when what was proxied is paid. Method: 28 ms
    /// for 200 proxied requests of 40 µs and 2,000 refusals: 10 µs each, a quarter.
    #[test]
    fn refusals_have_a_price() {
        let steps = [(10.0, outcome(200.0, 1.0, Some(0.0)))];
        let text = result("tidegate", &steps).markdown();
        let line = "| tidegate | 40.00 | 10.00 | 0.25 | ≤ 0.25: met |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("**10 × capacity**"), "{text}");
        let line = "| tidegate | 200 | 100.0 | 80.0 | 100.0 | 50.0 | 25.0 | 0.0 | 90.0 | 120 | 800 | 1 | 0 | met |";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("held to 0.4 of a core by a control group (version 1)"),
            "{text}"
        );
    }
}
