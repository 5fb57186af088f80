//! What is drawn of a row: CPU bars, latency by percentile and over time, throughput against latency.

use serde::Serialize;

use super::{
    plot::{self, Axis, Bar, Line, Moment, Scale},
    summary::PeerSummary,
};
use crate::{
    load::distribution::Distributions,
    run::RowResult,
    scenario::{Action, Load, Scenario},
};

/// Colours of the style sheet; peers beyond them share the last.
const COLOURS: usize = 6;
/// Points of a percentile curve for each factor of ten of its tail.
const POINTS_PER_NINE: usize = 24;

/// A plot on the page.
#[derive(Serialize)]
pub(super) struct PlotView {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) svg: String,
}

/// A peer's colour, by its place in the row.
pub(super) fn colour(i: usize) -> usize {
    i.min(COLOURS - 1)
}

/// All plots that a row has something for.
pub(super) fn plots(row: &RowResult, summaries: &[PeerSummary]) -> Vec<PlotView> {
    let mut plots = Vec::new();
    let mut add = |title, note, svg: Option<String>| {
        plots.extend(svg.map(|svg| PlotView { title, note, svg }));
    };
    add(
        "CPU per request, µs",
        "Full: user space; light: the kernel.",
        plot::bars("CPU per request", &cost_bars(row, summaries)),
    );
    if matches!(row.row.load, Load::Share { .. } | Load::Rate(_)) {
        add(
            "Latency by percentile",
            "From due time; dashed: from send, as tools report it that leave the waiting out.",
            percentile_plot(row),
        );
        add(
            "Latency over time",
            "By when requests were due, last round: p99, dashed the median.",
            time_plot(row),
        );
    }
    add(
        "Throughput and latency",
        "p99 at the rates that the search for the capacity tried.",
        capacity_plot(row),
    );
    plots
}

fn cost_bars(row: &RowResult, summaries: &[PeerSummary]) -> Vec<Bar> {
    let bar = |(i, summary): (usize, &PeerSummary)| {
        let (all, user) = (summary.cpu_us?, summary.user_us?);
        Some(Bar {
            name: summary.peer.clone(),
            colour: colour(i),
            first: user,
            second: (all - user).max(0.0),
        })
    };
    match row.row.load {
        // What idle connections cost is memory.
        Load::Idle => Vec::new(),
        _ => summaries.iter().enumerate().filter_map(bar).collect(),
    }
}

/// All of a peer's rounds that count, taken together.
pub(super) fn pooled(row: &RowResult, peer: &str) -> Distributions {
    let mut pooled = Distributions::default();
    for measurement in row.valid(peer) {
        let all = &measurement.load.distributions;
        pooled.from_due.add(&all.from_due);
        pooled.from_send.add(&all.from_send);
        pooled.lag.add(&all.lag);
    }
    pooled
}

fn percentile_plot(row: &RowResult) -> Option<String> {
    let mut lines = Vec::new();
    for (i, peer) in row.peers().into_iter().enumerate() {
        let pooled = pooled(row, peer);
        let kinds = [
            ("from due", &pooled.from_due),
            ("from send", &pooled.from_send),
        ];
        for (kind, distribution) in kinds {
            // Beyond ten requests above it, a percentile is one request's bad luck.
            let nines = (distribution.count() as f64 / 10.0).log10();
            let steps = (nines * POINTS_PER_NINE as f64).max(0.0) as usize;
            let points = (0..=steps).filter_map(|step| {
                let quantile = 1.0 - 10f64.powf(-(step as f64) / POINTS_PER_NINE as f64);
                Some((quantile, distribution.at(quantile)?.as_micros()))
            });
            lines.push(Line {
                name: format!("{peer}, {kind}"),
                colour: colour(i),
                is_faint: kind == "from send",
                has_marks: false,
                points: points.collect(),
            });
        }
    }
    let x = Axis {
        label: "percentile",
        scale: Scale::Tail,
    };
    plot::lines("Latency by percentile", x, LATENCY, &lines, &[])
}

const LATENCY: Axis<'_> = Axis {
    label: "latency, µs",
    scale: Scale::Logarithmic,
};

fn time_plot(row: &RowResult) -> Option<String> {
    let mut lines = Vec::new();
    for (i, peer) in row.peers().into_iter().enumerate() {
        let Some(last) = row.valid(peer).last() else {
            continue;
        };
        let series = &last.load.series;
        let mut add = |kind: &str, is_faint, points: Vec<(f64, f64)>| {
            lines.push(Line {
                name: format!("{peer}, {kind}"),
                colour: colour(i),
                is_faint,
                has_marks: false,
                points,
            });
        };
        add(
            "p99",
            false,
            series.iter().map(|m| (m.at_s, m.p99_us)).collect(),
        );
        add(
            "median",
            true,
            series.iter().map(|m| (m.at_s, m.p50_us)).collect(),
        );
    }
    let x = Axis {
        label: "seconds since the measurement began",
        scale: Scale::Linear,
    };
    plot::lines("Latency over time", x, LATENCY, &lines, &moments(&row.row))
}

/// What happened during the measurement: events, or where there are none, the phases after the first.
fn moments(scenario: &Scenario) -> Vec<Moment> {
    if scenario.events.is_empty() {
        let mut at = 0.0;
        let phases = scenario.phases.iter().map(|phase| {
            let begins = at;
            at += phase.time.0.as_secs_f64();
            Moment {
                at: begins,
                what: phase.name.clone(),
            }
        });
        return phases.skip(1).collect();
    }
    let events = scenario.events.iter();
    events
        .map(|event| Moment {
            at: event.at.0.as_secs_f64(),
            what: match &event.action {
                Action::Signal(name) => format!("{name:?}").to_uppercase(),
                Action::Routes(count) => format!("{count} routes"),
                Action::KillEndpoint(i) => format!("endpoint {i} dies"),
                Action::RestartEndpoint(i) => format!("endpoint {i} is back"),
                Action::Admin { path, .. } => path.clone(),
            },
        })
        .collect()
}

fn capacity_plot(row: &RowResult) -> Option<String> {
    let mut lines = Vec::new();
    for (i, peer) in row.peers().into_iter().enumerate() {
        let points = row.capacities.get(peer).into_iter();
        let points = points.flat_map(|capacity| &capacity.points);
        lines.push(Line {
            name: peer.to_owned(),
            colour: colour(i),
            is_faint: false,
            has_marks: true,
            points: points.map(|point| (point.rate, point.p99_us)).collect(),
        });
    }
    let x = Axis {
        label: "requests per second due",
        scale: Scale::Linear,
    };
    plot::lines("Throughput and latency", x, LATENCY, &lines, &[])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{report::sample, scenario::shipped};

    /// Events stand at their times; without any, the phases do.
    #[test]
    fn moments_are_told() {
        let told = |name: &str| {
            let moments = moments(&shipped::named(name).unwrap());
            let told = moments.into_iter().map(|moment| (moment.at, moment.what));
            told.collect::<Vec<_>>()
        };
        let expected = [(1.0, "endpoint 1 dies"), (2.0, "endpoint 1 is back")];
        let expected = expected.map(|(at, what)| (at, what.to_owned()));
        assert_eq!(told("node-death"), expected);
        assert_eq!(told("h1-128"), []);
    }

    /// An open loop has all four plots, a closed one its bars, and idle connections none.
    #[test]
    fn rows_have_their_plots() {
        let titles = |row: &RowResult| {
            let plots = plots(row, &row.summaries()).into_iter();
            plots.map(|plot| plot.title).collect::<Vec<_>>()
        };
        let all = [
            "CPU per request, µs",
            "Latency by percentile",
            "Latency over time",
            "Throughput and latency",
        ];
        assert_eq!(titles(&sample::open_row()), all);
        let closed = sample::row("h1-128", [1.0; 3]);
        assert_eq!(titles(&closed), ["CPU per request, µs"]);
        assert!(titles(&sample::row("idle-connections", [1.0; 3])).is_empty());
    }
}
