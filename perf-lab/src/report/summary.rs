//! What a row comes to: a summary per peer, our ratio to the rival, whether the goal is met, and the
//! word for the difference to each of the others.

use std::fmt;

use serde::Serialize;

use crate::{
    measure::Measurement,
    peer::{DIRECT, FLOOR, OURS},
    run::RowResult,
    scenario::{Figure, Load, Neighbour, Rival},
    statistics::{Confidence, Ratio, Spread, paired_ratio},
    verdict::{Criterion, Word},
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
    /// CPU µs per request.
    pub cpu_us: Option<f64>,
    /// The part of it in user space.
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
    /// Median latency over that of the direct connection at the same rate.
    pub added_p50_us: Option<f64>,
    /// The same for the 99th percentile: a difference of percentiles, not the percentile of a
    /// difference, which nobody can measure.
    pub added_p99_us: Option<f64>,
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

/// One peer against another in one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Who is judged.
    pub subject: String,
    /// Whom it is compared with.
    pub other: String,
    /// In what. For throughput the ratio is that of its inverse, the time per request.
    pub figure: Figure,
    /// Subject to other, with the interval of a claim.
    pub ratio: Ratio,
    /// What it comes to.
    pub word: Word,
    /// Whether this machine's noise was known.
    pub is_calibrated: bool,
}

/// Rates that differ by less are the same.
const SAME_RATE: f64 = 0.01;

/// A figure so that less is better.
fn cost(measurement: &Measurement, figure: Figure) -> Option<f64> {
    let value = measurement.figure(figure)?;
    Some(match figure {
        Figure::Throughput => 1.0 / value,
        _ => value,
    })
}

/// What a compared figure is called.
pub fn figure_name(figure: Figure) -> &'static str {
    match figure {
        Figure::Cpu => "CPU per request",
        Figure::Added => "CPU per request, added",
        Figure::Memory => "memory per connection",
        Figure::Rss => "memory when ready",
        Figure::P50 => "latency p50",
        Figure::P99 => "latency p99",
        Figure::P999 => "latency p99.9",
        Figure::Failures => "failures",
        Figure::Throughput => "time per request at saturation",
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
            cpu_us: median(&Measurement::cpu_us_per_request),
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
            added_p50_us: median(&|m| {
                self.added(m, |measurement| measurement.load.latency.from_due.p50_us)
            }),
            added_p99_us: median(&|m| {
                self.added(m, |measurement| measurement.load.latency.from_due.p99_us)
            }),
            rss_ready_mib: median(&|m| Some(m.rss_ready_kib? as f64 / 1024.0)),
            rss_mib: median(&|m| Some(m.cost?.rss_kib as f64 / 1024.0)),
            valid: valid.len(),
            void: all - valid.len(),
        })
    }

    /// What a peer adds to the direct connection's figure of the same round, if both had the same
    /// rate: at another rate, the load and the machine answer differently themselves.
    fn added(&self, of: &Measurement, figure: fn(&Measurement) -> f64) -> Option<f64> {
        let rate = of.rate?;
        let direct = self.valid(DIRECT).find(|direct| direct.round == of.round)?;
        let is_same = (direct.rate? / rate - 1.0).abs() < SAME_RATE;
        (of.peer != DIRECT && is_same).then(|| figure(of) - figure(direct))
    }

    /// Whether a peer's CPU time is that of a neighbour's requests too, of which the better serves more.
    pub fn pays_for_others(&self) -> bool {
        matches!(self.row.neighbour, Some(Neighbour::Saturate { .. }))
    }

    /// The figures in which peers are compared; of all of them less is better.
    pub fn compared_figures(&self) -> Vec<Figure> {
        let mut figures = match self.row.load {
            // What a single connection adds to the memory is a page or none.
            Load::Idle if self.figure() == Figure::Rss => Vec::new(),
            Load::Idle => vec![Figure::Memory],
            Load::Saturate => vec![Figure::Cpu, Figure::Throughput],
            Load::Share { .. } | Load::Rate(_) => vec![Figure::Cpu, Figure::P50, Figure::P99],
        };
        if self.pays_for_others() {
            figures.retain(|figure| *figure != Figure::Cpu);
        }
        // What the row is about, first.
        let own = self.figure();
        figures.retain(|figure| *figure != own);
        figures.insert(0, own);
        figures
    }

    /// One peer against each of the others, with what `criterion` knows for a figure.
    pub fn comparisons(
        &self,
        subject: &str,
        criterion: impl Fn(Figure) -> Criterion,
    ) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        for other in self.peers() {
            if other == subject || [DIRECT, FLOOR].contains(&other) {
                continue;
            }
            for figure in self.compared_figures() {
                let (ours, theirs) = self.pairs(subject, other, |m| cost(m, figure));
                let ratio = paired_ratio(&ours, &theirs, Confidence::Claim, SEED);
                comparisons.extend(ratio.map(|ratio| Comparison {
                    subject: subject.to_owned(),
                    other: other.to_owned(),
                    figure,
                    ratio,
                    word: criterion(figure).judge(&ratio),
                    is_calibrated: criterion(figure).noise.is_some(),
                }));
            }
        }
        comparisons
    }

    /// The figures of two peers in the rounds in which both count.
    fn pairs(
        &self,
        ours: &str,
        theirs: &str,
        figure: impl Fn(&Measurement) -> Option<f64>,
    ) -> (Vec<f64>, Vec<f64>) {
        let pair = |our: &Measurement| {
            let their = self.valid(theirs).find(|their| their.round == our.round)?;
            Some((figure(our)?, figure(their)?))
        };
        self.valid(ours).filter_map(pair).unzip()
    }

    /// What the row is about.
    pub fn figure(&self) -> Figure {
        match (&self.row.goal, &self.row.load) {
            (Some(goal), _) => goal.figure,
            (None, Load::Idle) => Figure::Memory,
            (None, _) => Figure::Cpu,
        }
    }

    fn metric(&self, measurement: &Measurement) -> Option<f64> {
        measurement.figure(self.figure())
    }

    /// Ours against the goal; `None` if one side was not measured.
    pub fn verdict(&self) -> Option<Verdict> {
        let wanted = self.row.goal.as_ref()?;
        let (rival, goal) = match &wanted.of {
            Some(of) => (Some(self.rival(of)?), wanted.at_most),
            None => (None, 1.0),
        };
        let (ours, theirs) = match &rival {
            Some(rival) => self.pairs(OURS, rival, |m| self.metric(m)),
            None => self
                .valid(OURS)
                .filter_map(|m| Some((self.metric(m)?, wanted.at_most)))
                .unzip(),
        };
        let ratio = paired_ratio(&ours, &theirs, Confidence::Impression, SEED)?;
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
        let mut others =
            others.filter(|summary| ![OURS, DIRECT, FLOOR].contains(&summary.peer.as_str()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::report::sample::{open_row, row};

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
            ("tcp-16k", [14.9, 15.0, 15.1], Some("nginx"), Outcome::Met),
            ("idle-connections", [9.0, 9.0, 9.0], None, Outcome::Met),
            ("idle-memory", [9.0, 9.0, 9.0], None, Outcome::Met),
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

    /// Every peer but the direct connection is compared in every figure, by pairs; a void one has no
    /// pairs and no comparison.
    #[test]
    fn comparisons() {
        let row = row("h1-128", [14.0, 14.1, 13.9]);
        let comparisons = row.comparisons("tidegate", |_| Criterion::default());
        let named = |i: usize| (comparisons[i].other.as_str(), comparisons[i].figure);
        assert_eq!(comparisons.len(), 4);
        assert_eq!(named(0), ("haproxy", Figure::Cpu));
        assert_eq!(named(3), ("nginx", Figure::Throughput));
        assert_eq!(comparisons[0].word, Word::Faster);
        assert_eq!(comparisons[1].word, Word::Same { within: 0.03 });
    }

    /// Figures that say nothing of a row are not compared in it: what a connection adds to a peer at rest, and
    /// CPU time that is spent on a neighbour.
    #[test]
    fn rows_have_their_figures() {
        let figures = |name| row(name, [9.0; 3]).compared_figures();
        assert_eq!(figures("idle-memory"), [Figure::Rss]);
        assert_eq!(figures("idle-connections"), [Figure::Memory]);
        assert_eq!(figures("noisy-neighbour"), [Figure::P99, Figure::P50]);
        let all = [Figure::P99, Figure::Cpu, Figure::P50];
        assert_eq!(figures("slow-loris"), all);
    }

    /// Added latency is the peer's minus the direct connection's of the same round, at the same rate
    /// only.
    #[test]
    fn added_latency_is_at_the_same_rate() {
        let mut row = open_row();
        let added = |row: &RowResult| {
            let summaries = row.summaries();
            let ours = summaries
                .iter()
                .find(|summary| summary.peer == OURS)
                .unwrap();
            (ours.added_p50_us, summaries[0].added_p50_us)
        };
        assert_eq!(added(&row), (Some(40.0), None));
        for measurement in &mut row.measurements {
            if measurement.peer == DIRECT {
                measurement.rate = Some(10_300.0);
            }
        }
        assert_eq!(added(&row), (None, None));
    }
}
