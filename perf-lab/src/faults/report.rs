//! The result for a terminal, as JSON, and as Markdown for a document.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};

use super::{Cell, Row, analysis::Outcome, endpoints::Fault, episode::COUNTED};
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

/// The 99th percentile of the time to the last request is to be no more, from [`GOAL_RATE`] on.
const GOAL_MS: f64 = 300.0;
/// Requests per second and endpoint.
const GOAL_RATE: u32 = 100;

/// Everything that was found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultResult {
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
    /// Episodes at the same time.
    pub side_by_side: usize,
    /// How long a fault lasts if nobody finds it, in seconds.
    pub bound_s: f64,
    /// How long the return was waited for, in seconds.
    pub recovery_s: f64,
    /// What each contender did in each row.
    pub cells: Vec<Cell>,
}

/// What the episodes of a cell come to.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    faults: usize,
    /// Episodes in which the bad endpoint was left alone.
    found: usize,
    last_p50_ms: Option<f64>,
    last_p99_ms: Option<f64>,
    /// Requests lost per fault in its counted part: mean and most.
    lost_mean: f64,
    lost_max: usize,
    /// The same, as a part of those that were due.
    lost_part: f64,
    trials_mean: f64,
    falsely_out: usize,
    returned: usize,
    returned_p50_ms: Option<f64>,
}

impl Summary {
    fn of(outcomes: &[Outcome]) -> Summary {
        let count = outcomes.len().max(1) as f64;
        let lasts = || outcomes.iter().map(|outcome| outcome.last_ms);
        let returns = || outcomes.iter().map(|outcome| outcome.returned_ms);
        let losses = || outcomes.iter().map(|outcome| outcome.lost.all());
        let (lost, due): (usize, usize) = (
            losses().sum(),
            outcomes.iter().map(|outcome| outcome.due).sum(),
        );
        let trials: usize = outcomes.iter().map(|outcome| outcome.trials).sum();
        Summary {
            faults: outcomes.len(),
            found: lasts().flatten().count(),
            last_p50_ms: percentile(lasts(), 0.5),
            last_p99_ms: percentile(lasts(), 0.99),
            lost_mean: lost as f64 / count,
            lost_max: losses().max().unwrap_or(0),
            lost_part: lost as f64 / due.max(1) as f64,
            trials_mean: trials as f64 / count,
            falsely_out: outcomes.iter().map(|outcome| outcome.falsely_out).sum(),
            returned: returns().flatten().count(),
            returned_p50_ms: percentile(returns(), 0.5),
        }
    }
}

impl FaultResult {
    /// Writes `faults.json` and `faults.md`.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        experiment::write(directory, "faults", self, &self.markdown())
    }

    /// The rows, and what each contender did there.
    fn rows(&self) -> Vec<(Row, Vec<&Cell>)> {
        experiment::grouped(&self.cells, |cell| cell.row)
    }

    fn heads(&self) -> Vec<String> {
        let counted = COUNTED.as_secs();
        [
            "contender",
            "last request p50 ms",
            "p99 ms",
            "left alone",
            &format!("lost in {counted} s, mean"),
            "most",
            "%",
            "trials",
            "falsely out",
            "back after ms, p50",
            "goal",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn cells(&self, cell: &Cell) -> Vec<String> {
        let summary = Summary::of(&cell.outcomes);
        if summary.faults == 0 {
            return vec![cell.contender.clone(), "not measured".to_owned()];
        }
        let within = |time: Option<f64>, bound_s: f64| match time {
            Some(ms) => format!("{ms:.0}"),
            None => format!("> {:.0}", bound_s * 1e3),
        };
        let or_never = |time| match summary.found {
            0 => "never".to_owned(),
            _ => within(time, self.bound_s),
        };
        let back = match (summary.found, summary.returned) {
            // It never was away.
            (0, _) => "–".to_owned(),
            (_, returned) if returned == summary.faults => within(summary.returned_p50_ms, 0.0),
            (_, returned) => format!(
                "{}, {} of {} within {} s",
                within(summary.returned_p50_ms, self.recovery_s),
                returned,
                summary.faults,
                self.recovery_s
            ),
        };
        vec![
            cell.contender.clone(),
            or_never(summary.last_p50_ms),
            or_never(summary.last_p99_ms),
            format!("{} of {}", summary.found, summary.faults),
            format!("{:.1}", summary.lost_mean),
            summary.lost_max.to_string(),
            format!("{:.2}", summary.lost_part * 100.0),
            format!("{:.1}", summary.trials_mean),
            summary.falsely_out.to_string(),
            back,
            goal(cell, &summary),
        ]
    }

    /// The tables, a heading each.
    fn markdown(&self) -> String {
        let mut text = String::new();
        for (row, cells) in self.rows() {
            let lines = cells.iter().map(|cell| self.cells(cell));
            text += &format!("**{row}**\n\n{}", table(&self.heads(), lines));
            text += &remark(row).map_or(String::from("\n"), |remark| format!("\n{remark}\n\n"));
        }
        for cell in self.cells.iter().filter(|cell| !cell.problems.is_empty()) {
            text += &format!("{}\n\n", problems(cell));
        }
        let more = format!(", {} faults at the same time", self.side_by_side);
        text + &self.circumstances().foot(&more)
    }

    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            date: &self.date,
            command: &self.command,
            machine: &self.machine,
            versions: &self.versions,
        }
    }
}

/// How many episodes do not count, and why the first of them does not, without the peer's output.
fn problems(cell: &Cell) -> String {
    let first = cell.problems.first().and_then(|text| text.lines().next());
    let first = first.unwrap_or_default();
    let count = cell.problems.len();
    format!(
        "{}, {}: {count} do not count; {first}",
        cell.row, cell.contender
    )
}

/// Whether ours holds what we want to reach.
fn goal(cell: &Cell, summary: &Summary) -> String {
    if cell.contender != OURS || cell.row.rate < GOAL_RATE {
        return String::new();
    }
    match summary.last_p99_ms {
        Some(ms) if ms <= GOAL_MS => format!("≤ {GOAL_MS} ms: met"),
        _ => format!("≤ {GOAL_MS} ms: missed"),
    }
}

/// What a reader has to know to read a row rightly.
fn remark(row: Row) -> Option<&'static str> {
    match row.fault {
        Fault::Refuse => Some(
            "Every attempt to connect counts as a request. Tidegate and the tuned ones try another endpoint \
             after a refused connection; Envoy's and HAProxy's defaults do not.",
        ),
        Fault::Hang => Some(
            "All wait a second for an answer. Who goes by failures alone knows nothing before that.",
        ),
        Fault::Slow => Some(
            "No answer is wrong or too late, so that nothing is lost. Envoy's outlier detection, HAProxy's \
             and checks do not look at latency.",
        ),
        Fault::Reset | Fault::Errors => None,
    }
}

impl fmt::Display for FaultResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.circumstances().head(f)?;
        for (row, cells) in self.rows() {
            writeln!(f, "\n{row}")?;
            let mut lines = vec![self.heads()];
            lines.extend(cells.iter().map(|cell| self.cells(cell)));
            write_aligned(f, &lines)?;
            if let Some(remark) = remark(row) {
                writeln!(f, "  {remark}")?;
            }
            for cell in cells {
                if !cell.problems.is_empty() {
                    writeln!(f, "  {}", problems(cell))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::analysis::Lost;

    fn outcome(last_ms: Option<f64>, refused: usize) -> Outcome {
        Outcome {
            seed: 1,
            victim: 0,
            struck_ms: 2_500.0,
            lost_before: 0.0,
            sick_ms: 3_000.0,
            last_ms,
            trials: 1,
            due: 600,
            lost: Lost {
                refused,
                ..Lost::default()
            },
            falsely_out: 0,
            returned_ms: last_ms.map(|_| 700.0),
        }
    }

    fn result(contender: &str, outcomes: Vec<Outcome>) -> FaultResult {
        FaultResult {
            date: "2026-01-02T03:04:05Z".to_owned(),
            command: "tidegate-lab faults".to_owned(),
            seed: 1,
            machine: Machine::default(),
            versions: BTreeMap::new(),
            side_by_side: 1,
            bound_s: 10.0,
            recovery_s: 3.0,
            cells: vec![Cell {
                row: Row {
                    fault: Fault::Hang,
                    endpoints: 2,
                    rate: 100,
                },
                contender: contender.to_owned(),
                outcomes,
                problems: Vec::new(),
            }],
        }
    }

    /// Goal: percentiles are of all faults, the ones that nobody found included. Method: a hundred times of
    /// which the last one, and then the last two, are none.
    #[test]
    fn what_was_not_found_counts() {
        let times = |none: u32| (1..=100).map(move |i| (i <= 100 - none).then(|| f64::from(i)));
        assert_eq!(percentile(times(0), 0.5), Some(50.0));
        assert_eq!(percentile(times(1), 0.99), Some(99.0));
        assert_eq!(percentile(times(2), 0.99), None);
        assert_eq!(percentile(std::iter::empty(), 0.5), None);
    }

    /// Goal: a table says what was found, lost and reached, and what was not. Method: our own at the goal
    /// and a millisecond above, and one who finds half and one who finds nothing.
    #[test]
    fn tables_read() {
        for (contender, lasts, cells) in [
            (
                "tidegate",
                [Some(120.0), Some(300.0)],
                "| tidegate | 120 | 300 | 2 of 2 | 7.0 | 7 | 1.17 | 1.0 | 0 | 700 | ≤ 300 ms: met |",
            ),
            (
                "tidegate",
                [Some(120.0), Some(301.0)],
                "| 2 of 2 | 7.0 | 7 | 1.17 | 1.0 | 0 | 700 | ≤ 300 ms: missed |",
            ),
            (
                "envoy",
                [Some(120.0), None],
                "| envoy | 120 | > 10000 | 1 of 2 | 7.0 | 7 | 1.17 | 1.0 | 0 | 700, 1 of 2 within 3 s |  |",
            ),
            (
                "envoy",
                [None, None],
                "| envoy | never | never | 0 of 2 | 7.0 | 7 | 1.17 | 1.0 | 0 | – |  |",
            ),
        ] {
            let outcomes = lasts.map(|last| outcome(last, 7)).to_vec();
            let text = result(contender, outcomes).markdown();
            assert!(text.contains(cells), "{cells}\n{text}");
            assert!(
                text.contains("**hangs, 2 endpoints, 100/s each**"),
                "{text}"
            );
        }
        let text = result("envoy", Vec::new()).to_string();
        assert!(text.contains("not measured"), "{text}");
    }
}
