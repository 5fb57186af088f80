//! What a row comes to: a summary per peer, our ratio to the rival, whether the goal is met; as a
//! table for people. The same, with every measurement, is in `result.json`.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    measure::Measurement,
    peer::{DIRECT, OURS},
    run::{RowResult, RunResult},
    scenario::{Figure, Load, Rival},
    statistics::{Ratio, Spread, paired_ratio},
};

/// For the bootstrap, so that the same measurements give the same interval.
const SEED: u64 = 0x7469_6465;

/// One peer in one row; medians over its valid measurements.
#[derive(Clone, Debug, Serialize)]
pub struct PeerSummary {
    /// The proxy.
    pub peer: String,
    /// CPU µs per request, or KiB per connection where connections idle.
    pub metric: Option<Spread>,
    /// The part of CPU per request in user space.
    pub user_us: Option<f64>,
    /// Context switches per request.
    pub switches: Option<f64>,
    /// Throughput.
    pub requests_per_s: f64,
    /// Requests per second that were due, in an open loop.
    pub rate: Option<f64>,
    /// Latency from due time (in a closed loop: from send).
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub p999_us: f64,
    /// Memory when ready.
    pub rss_ready_mib: Option<f64>,
    /// Memory at the end.
    pub rss_mib: Option<f64>,
    /// Measurements that count.
    pub valid: usize,
    /// Measurements that do not.
    pub void: usize,
}

/// Whether a row's goal is met.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Who we are compared with; `None` where the goal is absolute.
    pub rival: Option<String>,
    /// Ours to theirs, or to the goal where that is absolute.
    pub ratio: Ratio,
    /// What the ratio may be at most.
    pub goal: f64,
    /// The word for it.
    pub outcome: Outcome,
}

/// The word for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole interval is within the goal.
    Met,
    /// The whole interval is above it.
    Missed,
    /// The goal lies inside the interval.
    CannotTell,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Met => "met",
            Outcome::Missed => "missed",
            Outcome::CannotTell => "cannot tell (more rounds are needed)",
        })
    }
}

impl RowResult {
    /// One line per peer.
    pub fn summaries(&self) -> Vec<PeerSummary> {
        self.peers()
            .into_iter()
            .filter_map(|peer| self.summary(peer))
            .collect()
    }

    fn summary(&self, peer: &str) -> Option<PeerSummary> {
        let all = self.measurements.iter().filter(|m| m.peer == peer).count();
        let valid: Vec<&Measurement> = self.valid(peer).collect();
        let median = |value: &dyn Fn(&Measurement) -> Option<f64>| {
            Spread::of(valid.iter().filter_map(|m| value(m))).map(|spread| spread.median)
        };
        Some(PeerSummary {
            peer: peer.to_owned(),
            metric: Spread::of(valid.iter().filter_map(|m| self.metric(m))),
            user_us: median(&|m| Some(m.cpu_us_per_request()? * m.cost?.user_share)),
            switches: median(&|m| {
                let switches = m.cost?.switches;
                let total = switches.voluntary + switches.involuntary;
                (m.completed > 0).then(|| total as f64 / m.completed as f64)
            }),
            requests_per_s: median(&|m| Some(m.requests_per_s())).unwrap_or(0.0),
            rate: median(&|m| m.rate),
            p50_us: median(&|m| Some(m.load.latency.from_due.p50_us)).unwrap_or(0.0),
            p99_us: median(&|m| Some(m.load.latency.from_due.p99_us)).unwrap_or(0.0),
            p999_us: median(&|m| Some(m.load.latency.from_due.p999_us)).unwrap_or(0.0),
            rss_ready_mib: median(&|m| Some(m.rss_ready_kib? as f64 / 1024.0)),
            rss_mib: median(&|m| Some(m.cost?.rss_kib as f64 / 1024.0)),
            valid: valid.len(),
            void: all - valid.len(),
        })
    }

    /// The number that the row is about.
    fn metric(&self, measurement: &Measurement) -> Option<f64> {
        let figure = match &self.row.goal {
            Some(goal) => goal.figure,
            None => Figure::Cpu,
        };
        measurement.figure(figure)
    }

    /// Ours against the goal; `None` if one side was not measured.
    pub fn verdict(&self) -> Option<Verdict> {
        let wanted = self.row.goal.as_ref()?;
        let (rival, goal) = match &wanted.of {
            Some(of) => (Some(self.rival(of)?), wanted.at_most),
            None => (None, 1.0),
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for measurement in self.valid(OURS) {
            let other = match &rival {
                Some(rival) => self
                    .valid(rival)
                    .find(|other| other.round == measurement.round)
                    .and_then(|other| self.metric(other)),
                None => Some(wanted.at_most),
            };
            if let (Some(our), Some(other)) = (self.metric(measurement), other) {
                ours.push(our);
                theirs.push(other);
            }
        }
        let ratio = paired_ratio(&ours, &theirs, SEED)?;
        let outcome = if ratio.high <= goal {
            Outcome::Met
        } else if ratio.low > goal {
            Outcome::Missed
        } else {
            Outcome::CannotTell
        };
        Some(Verdict {
            rival,
            ratio,
            goal,
            outcome,
        })
    }

    /// The peer that the goal is about: the one named, or the cheapest of the others.
    fn rival(&self, of: &Rival) -> Option<String> {
        let others = self.summaries().into_iter();
        let mut others = others.filter(|summary| ![OURS, DIRECT].contains(&summary.peer.as_str()));
        match of {
            Rival::Peer(name) => others.find(|summary| summary.peer == *name)?.peer.into(),
            Rival::Best => {
                let cost = |summary: &PeerSummary| summary.metric.map(|metric| metric.median);
                let costs = others.filter_map(|summary| Some((cost(&summary)?, summary.peer)));
                costs
                    .min_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(_, peer)| peer)
            }
        }
    }
}

/// The report for people.
pub struct Table<'a>(pub &'a RunResult);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.0.machine;
        writeln!(f, "machine   {}, kernel {}", machine.cpu, machine.kernel)?;
        writeln!(
            f,
            "placed    proxy on CPU {}, origin and generator on CPU {}; {} rounds of {} s",
            machine.placement.proxy, machine.placement.load, self.0.rounds, self.0.seconds
        )?;
        for (peer, version) in &self.0.peers {
            writeln!(f, "{peer:<9} {version}")?;
        }
        for caveat in &machine.caveats {
            writeln!(f, "caveat    {caveat}")?;
        }
        for row in &self.0.rows {
            write_row(f, row)?;
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, result: &RowResult) -> fmt::Result {
    let row = &result.row;
    let load = match row.load {
        Load::Saturate => format!("{} connections, closed loop", row.connections),
        Load::Idle => "one request each, then nothing".to_owned(),
        Load::Share { .. } | Load::Rate(_) => format!("{} connections, open loop", row.connections),
    };
    writeln!(f, "\n{}: {}; {load}", row.name, row.title)?;
    let metric = match row.load {
        Load::Idle => "KiB/connection",
        _ => "CPU µs/request",
    };
    let mut lines = vec![
        [
            "peer",
            metric,
            "user",
            "switches",
            "requests/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "RSS MiB",
            "void",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    lines.extend(result.summaries().iter().map(cells));
    write_aligned(f, &lines)?;
    for (peer, reason) in &result.left_out {
        writeln!(f, "  {peer} left out: {reason}")?;
    }
    for remark in remarks(result) {
        writeln!(f, "  {remark}")?;
    }
    match result.verdict() {
        Some(verdict) => write_verdict(f, &verdict),
        None => Ok(()),
    }
}

fn cells(summary: &PeerSummary) -> Vec<String> {
    let or_dash = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let metric = summary.metric.map_or("-".to_owned(), |spread| {
        format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
    });
    let measured = summary.valid > 0 && summary.p50_us > 0.0;
    let latency = |value: f64| or_dash(measured.then_some(value), 0);
    vec![
        summary.peer.clone(),
        metric,
        or_dash(summary.user_us, 2),
        or_dash(summary.switches, 2),
        format!("{:.0}", summary.requests_per_s),
        latency(summary.p50_us),
        latency(summary.p99_us),
        latency(summary.p999_us),
        match (summary.rss_ready_mib, summary.rss_mib) {
            (Some(ready), Some(end)) => format!("{ready:.1} → {end:.1}"),
            _ => "-".to_owned(),
        },
        match summary.void {
            0 => String::new(),
            void => format!("{void} of {}", void + summary.valid),
        },
    ]
}

/// The first column to the left, all others to the right.
fn write_aligned(f: &mut fmt::Formatter<'_>, lines: &[Vec<String>]) -> fmt::Result {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for line in lines {
        let mut text = String::from(" ");
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            text += &match column {
                0 => format!(" {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Each reason once per peer, however many rounds had it.
fn remarks(result: &RowResult) -> BTreeSet<String> {
    let mut remarks = BTreeSet::new();
    let mut seen: BTreeSet<(&str, String)> = BTreeSet::new();
    for measurement in &result.measurements {
        let void = measurement.void.iter().map(|reason| ("void: ", reason));
        let caveats = measurement.caveats.iter().map(|reason| ("", reason));
        for (kind, reason) in void.chain(caveats) {
            // Reasons with other numbers are the same reason.
            let gist: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
            if seen.insert((&measurement.peer, gist)) {
                remarks.insert(format!("{}: {kind}{reason}", measurement.peer));
            }
        }
    }
    remarks
}

fn write_verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    let Ratio {
        estimate,
        low,
        high,
        pairs,
    } = verdict.ratio;
    let rival = match &verdict.rival {
        Some(rival) => format!("{OURS} / {rival}"),
        None => format!("{OURS} / goal"),
    };
    writeln!(
        f,
        "  {rival} = {estimate:.3} [{low:.3}, {high:.3}] of {pairs} pairs; goal ≤ {}: {}",
        verdict.goal, verdict.outcome
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cost::{Cost, Switches},
        load::{generator::LoadOutcome, latency::LatencySummary},
        scenario::{Scenario, shipped},
    };

    fn measured(peer: &str, round: usize, cpu_us: f64, void: bool) -> Measurement {
        let none = Default::default();
        Measurement {
            peer: peer.to_owned(),
            round,
            rate: None,
            seconds: 1.0,
            completed: 1_000,
            cost: Some(Cost {
                cpu_us: cpu_us * 1_000.0,
                user_share: 0.25,
                switches: Switches::default(),
                rss_kib: 2048,
                core_busy: 0.0,
                core_steal: 0.0,
            }),
            rss_ready_kib: Some(1024),
            kib_per_connection: Some(0.5),
            configuration: BTreeMap::new(),
            load: LoadOutcome {
                latency: LatencySummary {
                    from_due: none,
                    from_send: none,
                    lag: none,
                    unfinished: 0,
                },
                failures: 0,
                first_failure: None,
                reconnects: 0,
                ..LoadOutcome::default()
            },
            generator_busy: 0.0,
            void: if void {
                vec!["test".to_owned()]
            } else {
                vec![]
            },
            caveats: Vec::new(),
        }
    }

    fn row(name: &str, ours: [f64; 3]) -> RowResult {
        let mut measurements = Vec::new();
        for (round, our) in ours.into_iter().enumerate() {
            measurements.push(measured("direct", round, 1.0, false));
            measurements.push(measured("tidegate", round, our, false));
            measurements.push(measured("haproxy", round, 20.0, false));
            measurements.push(measured("nginx", round, 18.0, false));
            // Void, so its low number must not make it the best.
            measurements.push(measured("envoy", round, 2.0, true));
        }
        RowResult {
            row: Scenario::clone(&shipped::named(name).unwrap()),
            measurements,
            left_out: BTreeMap::new(),
            configurations: BTreeMap::new(),
        }
    }

    /// The rival is the one named or the cheapest valid one, never the direct connection; the word
    /// follows from where the interval lies.
    #[test]
    fn verdicts() {
        for (name, ours, rival, outcome) in [
            ("h1-128", [14.0, 14.1, 13.9], Some("haproxy"), Outcome::Met),
            (
                "h1-128",
                [15.0, 15.1, 15.2],
                Some("haproxy"),
                Outcome::Missed,
            ),
            (
                "h1-128",
                [13.0, 14.4, 16.0],
                Some("haproxy"),
                Outcome::CannotTell,
            ),
            ("tcp-16k", [15.0, 15.1, 15.2], Some("nginx"), Outcome::Met),
            ("idle-connections", [9.0, 9.0, 9.0], None, Outcome::Met),
        ] {
            let verdict = row(name, ours).verdict().unwrap();
            assert_eq!(verdict.rival.as_deref(), rival, "{name}");
            assert_eq!(verdict.outcome, outcome, "{name} {ours:?} {verdict:?}");
        }
        assert!(
            row("h1-1m", [1.0; 3]).verdict().is_none(),
            "its rival is void"
        );
    }

    /// The table shows medians with their spread, what is void, and the verdict.
    #[test]
    fn the_table_reads() {
        struct Only(RowResult);
        impl fmt::Display for Only {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_row(f, &self.0)
            }
        }
        let text = Only(row("h1-128", [13.0, 14.0, 13.5])).to_string();
        for line in [
            "h1-128: HTTP/1.1 keep-alive, 128 B; 64 connections, closed loop",
            "  tidegate  13.50 (13.00–14.00)  3.38      0.00        1000       -       -         -  1.0 → 2.0",
            "3 of 3",
            "  envoy: void: test",
            "  tidegate / haproxy = 0.675 [",
            "of 3 pairs; goal ≤ 0.72: met",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
