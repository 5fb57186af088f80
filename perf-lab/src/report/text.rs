//! The report on a terminal.

use std::{collections::BTreeSet, fmt};

use super::summary::{PeerSummary, Verdict, figure_name};
use crate::{
    peer::OURS,
    run::{RowResult, RunResult},
    scenario::{Figure, Load, Scenario},
    statistics::{Ratio, Spread},
};

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
        writeln!(f, "fitness   {}", machine.fitness)?;
        for caveat in &machine.caveats {
            writeln!(f, "caveat    {caveat}")?;
        }
        for row in &self.0.rows {
            write_row(f, row)?;
            write_comparisons(f, self.0, row)?;
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, result: &RowResult) -> fmt::Result {
    let row = &result.row;
    writeln!(f, "\n{}: {}; {}", row.name, row.title, load(row))?;
    let mut lines = vec![heads(result)];
    let summaries = result.summaries();
    lines.extend(
        summaries
            .iter()
            .map(|summary| cells(summary, result.figure())),
    );
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

/// How hard a row works its peers.
pub(super) fn load(row: &Scenario) -> String {
    let mut over = match row.connections {
        1 => "1 connection".to_owned(),
        connections => format!("{connections} connections"),
    };
    if row.streams > 1 {
        over += &format!(" × {} streams", row.streams);
    }
    let load = match row.load {
        Load::Saturate => format!("{over}, closed loop"),
        Load::Idle => "one request each, then nothing".to_owned(),
        Load::Share { .. } | Load::Rate(_) => format!("{over}, open loop"),
    };
    match row.time() {
        Some(time) => format!("{load}, {} s", time.as_secs_f64()),
        None => load,
    }
}

/// A figure's median and spread, with the digits that mean something; failures in percent, since they are a
/// few in a thousand.
pub(super) fn spread(spread: Spread, figure: Figure) -> String {
    let Spread { median, min, max } = spread;
    match figure {
        Figure::Failures => {
            let percent = |part: f64| part * 100.0;
            let (median, min, max) = (percent(median), percent(min), percent(max));
            format!("{median:.3} ({min:.3}–{max:.3})")
        }
        Figure::P50 | Figure::P99 | Figure::P999 | Figure::Throughput => {
            format!("{median:.0} ({min:.0}–{max:.0})")
        }
        Figure::Cpu | Figure::Added | Figure::Memory | Figure::Rss => {
            format!("{median:.2} ({min:.2}–{max:.2})")
        }
    }
}

/// The heads of the table.
pub(super) fn heads(result: &RowResult) -> Vec<String> {
    let metric = match result.figure() {
        Figure::Cpu => "CPU µs/request",
        Figure::Added => "added CPU µs/request",
        Figure::Memory => "KiB/connection",
        Figure::Rss => "MiB when ready",
        Figure::P50 => "p50 µs, judged",
        Figure::P99 => "p99 µs, judged",
        Figure::P999 => "p99.9 µs, judged",
        Figure::Failures => "failed, %",
        Figure::Throughput => "requests/s, judged",
    };
    let mut heads = vec!["peer", metric];
    if result.figure() != Figure::Cpu {
        heads.push("CPU µs");
    }
    heads.extend([
        "user",
        "switches",
        match result.row.tls && result.row.new_connections {
            true => "handshakes/s",
            false => "requests/s",
        },
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "RSS MiB",
        "void",
    ]);
    heads.into_iter().map(str::to_owned).collect()
}

/// A peer's line.
pub(super) fn cells(summary: &PeerSummary, figure: Figure) -> Vec<String> {
    let or_dash = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let metric = summary
        .metric
        .map_or("-".to_owned(), |found| spread(found, figure));
    let measured = summary.valid > 0 && summary.p50_us > 0.0;
    let latency = |value: f64| or_dash(measured.then_some(value), 0);
    let mut cells = vec![summary.peer.clone(), metric];
    if figure != Figure::Cpu {
        cells.push(or_dash(summary.cpu_us, 2));
    }
    cells.extend([
        or_dash(summary.user_us, 2),
        or_dash(summary.switches, 2),
        or_dash((summary.valid > 0).then_some(summary.requests_per_s), 0),
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
    ]);
    cells
}

/// The first column to the left, all others to the right.
pub(crate) fn write_aligned(f: &mut fmt::Formatter<'_>, lines: &[Vec<String>]) -> fmt::Result {
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
pub(super) fn remarks(result: &RowResult) -> BTreeSet<String> {
    let mut remarks = BTreeSet::new();
    if result.pays_for_others() {
        remarks.insert("CPU time is that of the neighbour's requests too".to_owned());
    }
    for (peer, calls) in &result.calls {
        remarks.insert(format!("{peer}: {calls:.2} system calls per request"));
    }
    for (peer, instructions) in &result.instructions {
        remarks.insert(format!(
            "{peer}: {instructions:.0} instructions per request"
        ));
    }
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

/// The words for the differences, and the capacities.
fn write_comparisons(
    f: &mut fmt::Formatter<'_>,
    result: &RunResult,
    row: &RowResult,
) -> fmt::Result {
    let criterion = |figure| result.criterion(row, figure);
    for comparison in row.comparisons(&result.subject, criterion) {
        let Ratio {
            estimate, pairs, ..
        } = comparison.ratio;
        let figure = figure_name(comparison.figure);
        let (subject, other) = (&comparison.subject, &comparison.other);
        write!(f, "  {figure}: {subject} / {other} = {estimate:.3} ")?;
        write_interval(f, &comparison.ratio)?;
        writeln!(f, "of {pairs} pairs: {}", comparison.word)?;
    }
    for (peer, capacity) in &row.capacities {
        let objective = capacity.objective;
        match capacity.requests_per_s {
            Some(rate) => {
                let least = match capacity.is_lower_bound {
                    true => "at least ",
                    false => "",
                };
                writeln!(f, "  {peer} bears {least}{rate:.0}/s at {objective}")?;
            }
            None => writeln!(f, "  {peer} keeps {objective} at no rate that was tried")?,
        }
    }
    Ok(())
}

/// A single pair has no interval.
fn write_interval(f: &mut fmt::Formatter<'_>, ratio: &Ratio) -> fmt::Result {
    match bounds(ratio) {
        None => Ok(()),
        Some((low, high)) => write!(f, "[{low}, {high}] "),
    }
}

/// The ends of an interval. From two or three pairs they may lie anywhere: beyond a hundredfold the
/// number says no more than that.
pub(super) fn bounds(ratio: &Ratio) -> Option<(String, String)> {
    let bound = |value: f64| match value {
        ..0.01 => "< 0.01".to_owned(),
        0.01..=100.0 => format!("{value:.3}"),
        _ => "> 100".to_owned(),
    };
    (ratio.pairs > 1).then(|| (bound(ratio.low), bound(ratio.high)))
}

fn write_verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    let Ratio {
        estimate, pairs, ..
    } = verdict.ratio;
    let rival = match &verdict.rival {
        Some(rival) => format!("{OURS} / {rival}"),
        None => format!("{OURS} / goal"),
    };
    write!(f, "  {rival} = {estimate:.3} ")?;
    write_interval(f, &verdict.ratio)?;
    writeln!(
        f,
        "of {pairs} pairs; goal ≤ {}: {}",
        verdict.goal, verdict.outcome
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::row;

    /// An interval that few pairs leave wide open has no digits that mean nothing, and one pair has none.
    #[test]
    fn wide_intervals_are_short() {
        let ratio = |low, high, pairs| Ratio {
            estimate: 0.7,
            low,
            high,
            pairs,
            deviation: 0.0,
        };
        let bounds = |low, high, pairs| {
            let bounds = bounds(&ratio(low, high, pairs));
            bounds.map(|(low, high)| format!("{low} {high}"))
        };
        assert_eq!(bounds(0.65, 0.75, 2).as_deref(), Some("0.650 0.750"));
        assert_eq!(bounds(0.01, 100.0, 2).as_deref(), Some("0.010 100.000"));
        assert_eq!(bounds(0.0099, 1e18, 2).as_deref(), Some("< 0.01 > 100"));
        assert_eq!(bounds(0.5, 0.5, 1), None);
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
        let mut row = row("h1-128", [13.4, 13.6, 13.5]);
        row.calls.insert("haproxy".to_owned(), 4.013);
        row.instructions.insert("haproxy".to_owned(), 40_123.4);
        let text = Only(row).to_string();
        for line in [
            "h1-128: HTTP/1.1 keep-alive, 128 B; 64 connections, closed loop",
            "  tidegate  13.50 (13.40–13.60)  3.38      0.00        1000       -       -         -  1.0 → 2.0",
            "3 of 3",
            "  envoy: void: test",
            "  haproxy: 4.01 system calls per request",
            "  haproxy: 40123 instructions per request",
            "  tidegate / haproxy = 0.675 [",
            "of 3 pairs; goal ≤ 0.72: met",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
