//! The report as a table for a README, and the place where it goes.

use std::fmt::Write as _;

use super::{summary::PeerSummary, text};
use crate::{
    peer::DIRECT,
    run::{RowResult, RunResult},
    scenario::Figure,
};

/// Between these two the table stands; what is there is replaced.
pub const BEGIN: &str = "<!-- tidegate-lab: begin -->";
/// The end of it.
pub const END: &str = "<!-- tidegate-lab: end -->";

/// The whole report: what was measured where, and a line per scenario with every peer's figure.
pub fn table(result: &RunResult) -> String {
    let mut peers: Vec<&str> = Vec::new();
    for peer in result.rows.iter().flat_map(RowResult::peers) {
        if !peers.contains(&peer) && peer != DIRECT {
            peers.push(peer);
        }
    }
    let mut text = String::from("| scenario | figure |");
    for peer in &peers {
        let _ = write!(text, " {} |", cell(peer));
    }
    text.push_str(" goal | verdict |\n|---|---|");
    text.push_str(&"---:|".repeat(peers.len()));
    text.push_str("---|---|\n");
    for row in &result.rows {
        line(&mut text, row, &peers);
    }
    let machine = &result.machine;
    let _ = write!(
        text,
        "\nMedian (spread) of {} rounds of {} s each, begun {} on {}, {} CPUs, kernel {}: {}",
        result.rounds,
        result.seconds,
        result.date,
        machine.cpu,
        machine.cpus,
        machine.kernel,
        machine.fitness
    );
    if !machine.caveats.is_empty() {
        let _ = write!(text, " ({})", machine.caveats.join("; "));
    }
    text.push_str(".\n\n");
    for (peer, version) in &result.peers {
        let _ = writeln!(text, "- {}: {}", cell(peer), cell(version));
    }
    let _ = write!(text, "\nTo do it again:\n\n```\n{}\n```\n", result.command);
    text
}

fn line(text: &mut String, row: &RowResult, peers: &[&str]) {
    let heads = text::heads(row);
    let figure = heads.get(1).map_or("", String::as_str);
    let summaries = row.summaries();
    let _ = write!(
        text,
        "| {}, {} | {figure} |",
        cell(&row.row.title),
        text::load(&row.row)
    );
    for peer in peers {
        let summary = summaries.iter().find(|summary| summary.peer == *peer);
        let _ = write!(
            text,
            " {} |",
            summary.map_or("–".to_owned(), |summary| value(summary, row.figure()))
        );
    }
    let _ = match row.verdict() {
        Some(verdict) => writeln!(
            text,
            " ≤ {}{} | {:.2} {} |",
            verdict.goal,
            verdict
                .rival
                .map_or(String::new(), |rival| format!(" × {rival}")),
            verdict.ratio.estimate,
            verdict.outcome
        ),
        None => writeln!(text, " – | – |"),
    };
}

fn value(summary: &PeerSummary, figure: Figure) -> String {
    match summary.metric {
        Some(spread) => text::spread(spread, figure),
        None if summary.void > 0 => "void".to_owned(),
        None => "–".to_owned(),
    }
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// `document` with the table between its markers; an error says which one is missing.
pub fn update(document: &str, table: &str) -> Result<String, String> {
    let missing = |marker: &str| format!("it has no line `{marker}`");
    let (before, rest) = document.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| missing(END))?;
    Ok(format!(
        "{before}{BEGIN}\n{}\n{END}{after}",
        table.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::report::sample;

    /// One line a scenario, the same number of cells in each, and where it comes from.
    #[test]
    fn the_table_is_whole() {
        let table = table(&sample::run());
        let lines: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 4, "{table}");
        let cells = |line: &&str| line.matches('|').count();
        assert!(
            lines.iter().all(|line| cells(line) == cells(&lines[0])),
            "{table}"
        );
        for part in [
            "| 14.00 (13.90–14.10) | 20.00 (20.00–20.00) |",
            "| ≤ 0.72 × haproxy | 0.70 met |",
            "void",
            "2026-01-02T03:04:05Z on Some CPU, 2 CPUs",
            "```\ntidegate-lab run h1-128 many-connections\n```",
        ] {
            assert!(table.contains(part), "{part}\n{table}");
        }
    }

    /// The table replaces what stands between the markers, as often as one likes, and nothing else.
    #[test]
    fn updates_between_markers() {
        let document = format!("# Numbers\n\n{BEGIN}\nold\n{END}\n\nThe end.\n");
        let once = update(&document, "new\n").unwrap();
        assert_eq!(
            once,
            format!("# Numbers\n\n{BEGIN}\nnew\n{END}\n\nThe end.\n")
        );
        assert_eq!(update(&once, "new\n").unwrap(), once);
        assert!(update("nothing", "new").unwrap_err().contains("begin"));
        assert!(update(BEGIN, "new").unwrap_err().contains("end"));
    }
}
