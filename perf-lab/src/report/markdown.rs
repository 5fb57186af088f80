//! The report as a table for a README, and the place where it goes.

use std::fmt::Write as _;

use super::{
    summary::{PeerSummary, Verdict},
    text,
};
use crate::{
    peer::DIRECT,
    run::{RowResult, RunResult},
    scenario::Figure,
};

/// The lines between which a document's table stands; what is there is replaced. A document may have several
/// tables, each of a run of its own: then they have names.
fn markers(name: Option<&str>) -> [String; 2] {
    let name = name.map_or(String::new(), |name| format!(" {name}"));
    ["begin", "end"].map(|end| format!("<!-- tidegate-lab: {end}{name} -->"))
}

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
        release(&machine.kernel),
        machine.fitness
    );
    if !machine.caveats.is_empty() {
        let _ = write!(text, " ({})", machine.caveats.join("; "));
    }
    text.push_str(".\n\n");
    for (peer, version) in &result.peers {
        let _ = writeln!(
            text,
            "- {}: {}",
            cell(peer),
            cell(&without_directories(version))
        );
    }
    let command = without_directories(&result.command);
    let _ = write!(text, "\nTo do it again:\n\n```\n{command}\n```\n");
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
    let goal = row.row.goal.as_ref().map_or(0.0, |goal| goal.at_most);
    let _ = match row.verdict() {
        Some(Verdict {
            rival: Some(rival),
            ratio,
            outcome,
            ..
        }) => writeln!(
            text,
            " ≤ {goal} × {rival} | {:.2} {outcome} |",
            ratio.estimate
        ),
        // The figure itself is beside it.
        Some(Verdict { outcome, .. }) => writeln!(text, " ≤ {goal} | {outcome} |"),
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

/// A kernel's version without the name of its build, which is nobody's business.
pub(crate) fn release(kernel: &str) -> &str {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let end = kernel.find(|c| !is_number(c)).unwrap_or(kernel.len());
    kernel.get(..end).unwrap_or_default().trim_end_matches('.')
}

/// A text in which absolute paths are their last components: a document has other readers than the
/// machine that it was made on. `name=/a/b` and `'/a/b'` are paths too.
pub(crate) fn without_directories(text: &str) -> String {
    let last = |word: &str| {
        let begins = |at: usize| {
            let before = word.get(..at).and_then(|before| before.chars().next_back());
            before.is_none_or(|c| "='\"(".contains(c))
        };
        let mut slashes = word.match_indices('/').map(|found| found.0);
        let begin = slashes.find(|at| begins(*at));
        let (before, path) = word.split_at(begin.unwrap_or(0));
        match begin {
            Some(_) => format!("{before}{}", path.rsplit('/').next().unwrap_or_default()),
            None => word.to_owned(),
        }
    };
    let words: Vec<String> = text.split(' ').map(last).collect();
    words.join(" ")
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// `document` with the table between the markers of that name; an error says which one is missing.
pub fn update(document: &str, name: Option<&str>, table: &str) -> Result<String, String> {
    let [begin, end] = markers(name);
    let missing = |marker: &str| format!("it has no line `{marker}`");
    let (before, rest) = document.split_once(&begin).ok_or_else(|| missing(&begin))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| missing(&end))?;
    let table = table.trim_end();
    Ok(format!("{before}{begin}\n{table}\n{end}{after}"))
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

    /// A goal that is no ratio stands there as it is, beside the figure.
    #[test]
    fn absolute_goals_are_figures() {
        let mut result = sample::run();
        result.rows = vec![sample::row("idle-memory", [9.0; 3])];
        let table = table(&result);
        assert!(table.contains("| 1.00 (1.00–1.00) |"), "{table}");
        assert!(table.contains("| ≤ 15 | met |"), "{table}");
    }

    /// Neither the machine's directories nor the name of its kernel's build get into a document.
    #[test]
    fn the_machine_stays_private() {
        for (kernel, shown) in [
            ("6.18.44", "6.18.44"),
            ("6.1.0-32-cloud-amd64", "6.1.0"),
            ("6.18.44.x+", "6.18.44"),
            ("", ""),
        ] {
            assert_eq!(release(kernel), shown);
        }
        for (text, shown) in [
            ("run h1-128 --out lab/x", "run h1-128 --out lab/x"),
            (
                "run --program tidegate=/srv/me/target/release/tidegate --seconds 2",
                "run --program tidegate=tidegate --seconds 2",
            ),
            (
                "/opt/x/bin/envoy  version: 1/Clean",
                "envoy  version: 1/Clean",
            ),
            ("compare @main /srv/me/tidegate", "compare @main tidegate"),
            ("run '/srv/my scenario.yaml'", "run 'my scenario.yaml'"),
            ("see https://haproxy.org/", "see https://haproxy.org/"),
        ] {
            assert_eq!(without_directories(text), shown);
        }
        let mut result = sample::run();
        result.machine.kernel = "6.1.0-somebody".to_owned();
        let version = "/srv/me/haproxy 2.6".to_owned();
        result.peers.insert("haproxy".to_owned(), version);
        result.command = "tidegate-lab compare /srv/me/a nginx".to_owned();
        let table = table(&result);
        assert!(
            !table.contains("somebody") && !table.contains("/home"),
            "{table}"
        );
    }

    /// The documents that the commands in them are about have a place for each table.
    #[test]
    fn documents_have_their_places() {
        for (document, name) in [
            ("README.md", None),
            ("docs/benchmarks.md", None),
            ("docs/benchmarks.md", Some("tls")),
            ("docs/benchmarks.md", Some("http2")),
        ] {
            let path = format!("{}/../{document}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            assert!(update(&text, name, "new").is_ok(), "{document} {name:?}");
        }
    }

    /// The table replaces what stands between the markers, as often as one likes, and nothing else.
    #[test]
    fn updates_between_markers() {
        let document = |plain: &str, named: &str| {
            format!(
                "# Numbers\n\n<!-- tidegate-lab: begin -->\n{plain}\n<!-- tidegate-lab: end -->\n\n\
                 <!-- tidegate-lab: begin tls -->\n{named}\n<!-- tidegate-lab: end tls -->\nThe end.\n"
            )
        };
        let old = document("old", "older");
        let once = update(&old, None, "new\n").unwrap();
        assert_eq!(once, document("new", "older"));
        assert_eq!(update(&once, None, "new\n").unwrap(), once);
        let named = update(&old, Some("tls"), "new\n").unwrap();
        assert_eq!(named, document("old", "new"));
        let missing = |document: &str, name| update(document, name, "new").unwrap_err();
        assert!(missing("nothing", None).contains("<!-- tidegate-lab: begin -->"));
        assert!(missing(&old, Some("h2")).contains("<!-- tidegate-lab: begin h2 -->"));
        assert!(missing("<!-- tidegate-lab: begin -->", None).contains("end"));
    }
}
