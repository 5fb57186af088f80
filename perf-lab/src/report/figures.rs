//! What is drawn of a row: CPU bars, latency by percentile and over time, throughput against latency.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    plot::{self, Axis, Bar, Cell, Line, Moment, Scale},
    summary::PeerSummary,
};
use crate::{
    load::{
        distribution::Distributions,
        series::{Moment as Slice, band_us},
    },
    run::RowResult,
    scenario::{Action, Load, Scenario},
};

/// Colours of the style sheet; peers beyond them share the last.
const COLOURS: usize = 6;
/// Points of a percentile curve for each factor of ten of its tail.
const POINTS_PER_NINE: usize = 24;
/// Columns of a heat map at most: more would be narrower than what can be told apart.
const HEAT_COLUMNS: usize = 100;

/// A plot on the page.
#[derive(Serialize)]
pub(super) struct PlotView {
    pub(super) title: String,
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
        plots.extend(svg.map(|svg| PlotView {
            title: str::to_owned(title),
            note,
            svg,
        }));
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
    if matches!(row.row.load, Load::Share { .. } | Load::Rate(_)) {
        plots.extend(heat_plots(row));
    }
    plots
}

/// A map for each peer: where its requests lay, one by one, which no percentile tells.
fn heat_plots(row: &RowResult) -> impl Iterator<Item = PlotView> {
    let peers = row.peers().into_iter().enumerate();
    peers.filter_map(|(i, peer)| {
        let x = Axis {
            label: "seconds since the measurement began",
            scale: Scale::Linear,
        };
        let cells = heat_cells(&row.valid(peer).last()?.load.series);
        let title = format!("Heat map of {peer}");
        Some(PlotView {
            svg: plot::heat(&title, x, LATENCY, colour(i), &cells, &moments(&row.row))?,
            title,
            note: "Every request of the last round by when it was due; each step stronger is many more.",
        })
    })
}

/// The cells, with neighbouring slices merged until there are few enough for a plot.
fn heat_cells(series: &[Slice]) -> Vec<Cell> {
    let (Some(first), Some(last)) = (series.first(), series.last()) else {
        return Vec::new();
    };
    // Slices are equally wide; where nothing was due there is none.
    let gaps = series.iter().zip(series.iter().skip(1));
    let width = gaps.map(|(a, b)| b.at_s - a.at_s).fold(f64::MAX, f64::min);
    let width = if width < f64::MAX { width } else { 1.0 };
    let slices = (last.at_s - first.at_s) / width + 1.0;
    let width = width * (slices / HEAT_COLUMNS as f64).ceil().max(1.0);
    let mut counts: BTreeMap<(usize, u8), u64> = BTreeMap::new();
    for slice in series {
        // Times are sums of tenths, which are not exact.
        let column = (slice.at_s / width + 1e-6) as usize;
        for &(band, count) in &slice.bands {
            *counts.entry((column, band)).or_default() += u64::from(count);
        }
    }
    let cell = |((column, band), count)| Cell {
        x: (column as f64 * width, (column + 1) as f64 * width),
        y: band_us(band),
        count,
    };
    counts.into_iter().map(cell).collect()
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

    /// However long a measurement, its map has no more columns than can be seen, and no request is lost.
    #[test]
    fn heat_maps_are_bounded() {
        for slices in [1usize, 99, 100, 101, 600] {
            let slice = |i: usize| Slice {
                at_s: i as f64 * 0.1,
                count: 7,
                p50_us: 1.0,
                p99_us: 1.0,
                max_us: 1.0,
                bands: vec![(60, 5), (70, 2)],
            };
            let cells = heat_cells(&(0..slices).map(slice).collect::<Vec<_>>());
            assert!(cells.len() <= 2 * HEAT_COLUMNS, "{slices}");
            let all: u64 = cells.iter().map(|cell| cell.count).sum();
            assert_eq!(all, 7 * slices as u64);
        }
        assert!(heat_cells(&[]).is_empty());
    }

    /// An open loop has all four plots and a map for each peer, a closed one its bars, and idle connections none.
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
            "Heat map of direct",
            "Heat map of tidegate",
            "Heat map of haproxy",
            "Heat map of nginx",
        ];
        assert_eq!(titles(&sample::open_row()), all);
        let closed = sample::row("h1-128", [1.0; 3]);
        assert_eq!(titles(&closed), ["CPU per request, µs"]);
        assert!(titles(&sample::row("idle-connections", [1.0; 3])).is_empty());
    }
}
