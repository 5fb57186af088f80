//! The report as one page that needs nothing else: style and plots are in it, and no script.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context, value::Serde};
use serde::Serialize;

use super::{
    figures::{PlotView, colour, plots, pooled},
    plot::short,
    summary::{Outcome, PeerSummary, figure_name},
    text,
};
use crate::{
    error::Error,
    machine::{Fitness, Machine},
    run::{RowResult, RunResult},
    statistics::Ratio,
    verdict::Word,
};

/// Renders the page.
pub fn page(result: &RunResult) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let names: Vec<&str> = result
        .rows
        .iter()
        .map(|row| row.row.name.as_str())
        .collect();
    let title = match names.as_slice() {
        [one] => (*one).to_owned(),
        [first, .., last] if names.len() > 4 => {
            format!("{} scenarios, {first} to {last}", names.len())
        }
        _ => names.join(", "),
    };
    let noise_note = match result.noise.is_empty() {
        true => {
            "This machine's noise has not been calibrated: compare a peer with itself to do so."
        }
        false => "Differences that this machine shows between a program and itself do not count.",
    };
    let rows: Vec<RowView> = result.rows.iter().map(RowView::of).collect();
    environment
        .render_named_str(
            "page.html",
            include_str!("page.html"),
            context! {
                title,
                style => include_str!("style.css"),
                date => &result.date,
                machine => Serde(&result.machine),
                fitness_class => fitness_class(result.machine.fitness),
                rounds => result.rounds,
                seconds => short(result.seconds),
                subject => &result.subject,
                smallest => short(result.smallest * 100.0),
                noise_note,
                goals => Serde(goals(result)),
                comparisons => Serde(comparisons(result)),
                rows => Serde(rows),
                command => &result.command,
                versions => Serde(&result.peers.iter().collect::<Vec<_>>()),
                record => Serde(record(&result.machine)),
            },
        )
        .map_err(|error| Error::Load(format!("the page could not be rendered: {error:#}")))
}

fn fitness_class(fitness: Fitness) -> &'static str {
    match fitness {
        Fitness::Publishable => "good",
        Fitness::Indicative => "unsure",
        Fitness::Unfit => "bad",
    }
}

#[derive(Serialize)]
struct GoalView {
    scenario: String,
    compared: String,
    ratio: String,
    interval: String,
    pairs: usize,
    goal: f64,
    verdict: String,
    class: &'static str,
}

fn goals(result: &RunResult) -> Vec<GoalView> {
    let view = |row: &RowResult| {
        let verdict = row.verdict()?;
        let rival = verdict.rival.unwrap_or_else(|| "goal".to_owned());
        Some(GoalView {
            scenario: row.row.name.clone(),
            compared: format!("tidegate / {rival}"),
            ratio: ratio(&verdict.ratio),
            interval: interval(&verdict.ratio),
            pairs: verdict.ratio.pairs,
            goal: verdict.goal,
            verdict: verdict.outcome.to_string(),
            class: match verdict.outcome {
                Outcome::Met => "good",
                Outcome::Missed => "bad",
                Outcome::CannotTell => "unsure",
            },
        })
    };
    result.rows.iter().filter_map(view).collect()
}

#[derive(Serialize)]
struct ComparisonView {
    scenario: String,
    figure: &'static str,
    other: String,
    ratio: String,
    interval: String,
    pairs: usize,
    word: String,
    class: &'static str,
}

fn comparisons(result: &RunResult) -> Vec<ComparisonView> {
    let mut views = Vec::new();
    for row in &result.rows {
        let found = row.comparisons(&result.subject, |figure| result.criterion(row, figure));
        views.extend(found.into_iter().map(|comparison| ComparisonView {
            scenario: row.row.name.clone(),
            figure: figure_name(comparison.figure),
            ratio: ratio(&comparison.ratio),
            interval: interval(&comparison.ratio),
            pairs: comparison.ratio.pairs,
            word: comparison.word.to_string(),
            class: match comparison.word {
                Word::Faster => "good",
                Word::Slower => "bad",
                Word::Same { .. } => "",
                Word::CannotTell { .. } => "unsure",
            },
            other: comparison.other,
        }));
    }
    views
}

fn ratio(ratio: &Ratio) -> String {
    format!("{:.3}", ratio.estimate)
}

/// A single pair has no interval.
fn interval(ratio: &Ratio) -> String {
    match text::bounds(ratio) {
        None => "–".to_owned(),
        Some((low, high)) => format!("{low} to {high}"),
    }
}

#[derive(Serialize)]
struct RowView {
    name: String,
    title: String,
    load: String,
    heads: Vec<String>,
    table: Vec<Vec<String>>,
    remarks: Vec<String>,
    key: Vec<Entry>,
    plots: Vec<PlotView>,
    percentiles: Vec<Vec<String>>,
    objective: String,
    capacities: Vec<Vec<String>>,
    configurations: Vec<PeerFiles>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    colour: usize,
}

#[derive(Serialize)]
struct PeerFiles {
    name: String,
    files: Vec<FileView>,
}

#[derive(Serialize)]
struct FileView {
    name: String,
    text: String,
}

impl RowView {
    fn of(row: &RowResult) -> RowView {
        let summaries = row.summaries();
        let peers = row.peers();
        let key = peers.iter().enumerate();
        let left_out = row.left_out.iter();
        let left_out = left_out.map(|(peer, reason)| format!("{peer} left out: {reason}"));
        let objective = row.capacities.values().next();
        let (heads, table) = table(row, &summaries);
        RowView {
            name: row.row.name.clone(),
            title: row.row.title.clone(),
            load: text::load(&row.row),
            heads,
            table,
            remarks: left_out.chain(text::remarks(row)).collect(),
            key: key
                .map(|(i, name)| Entry {
                    name: (*name).to_owned(),
                    colour: colour(i),
                })
                .collect(),
            plots: plots(row, &summaries),
            percentiles: percentiles(row),
            objective: objective.map_or(String::new(), |found| found.objective.to_string()),
            capacities: row
                .capacities
                .iter()
                .map(|(peer, capacity)| {
                    let reached = capacity.requests_per_s;
                    vec![
                        peer.clone(),
                        reached.map_or("never".to_owned(), |rate| {
                            let least = if capacity.is_lower_bound { "≥ " } else { "" };
                            format!("{least}{rate:.0}")
                        }),
                        capacity.points.len().to_string(),
                    ]
                })
                .collect(),
            configurations: row
                .configurations
                .iter()
                .filter(|(_, files)| !files.is_empty())
                .map(|(peer, files)| PeerFiles {
                    name: peer.clone(),
                    files: files
                        .iter()
                        .map(|(name, text)| FileView {
                            name: name.clone(),
                            text: text.clone(),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

/// As on a terminal, with the added latency where there is one.
fn table(row: &RowResult, summaries: &[PeerSummary]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut heads = text::heads(row);
    let mut table: Vec<Vec<String>> = summaries
        .iter()
        .map(|summary| text::cells(summary, row.figure()))
        .collect();
    if summaries
        .iter()
        .any(|summary| summary.added_p50_us.is_some())
    {
        heads.extend(["added p50 µs", "added p99 µs"].map(str::to_owned));
        for (line, summary) in table.iter_mut().zip(summaries) {
            for added in [summary.added_p50_us, summary.added_p99_us] {
                line.push(added.map_or("-".to_owned(), |added| format!("{added:.0}")));
            }
        }
    }
    (heads, table)
}

fn percentiles(row: &RowResult) -> Vec<Vec<String>> {
    let line = |peer: &str| {
        let pooled = pooled(row, peer);
        let due = &pooled.from_due;
        let at = |distribution: &crate::load::distribution::Distribution, quantile| {
            let value = distribution.at(quantile);
            value.map_or("-".to_owned(), |value| format!("{:.0}", value.as_micros()))
        };
        (due.count() > 0).then(|| {
            vec![
                peer.to_owned(),
                due.count().to_string(),
                at(due, 0.5),
                at(due, 0.99),
                due.above(0.99).to_string(),
                at(due, 0.999),
                due.above(0.999).to_string(),
                at(due, 1.0),
                at(&pooled.from_send, 0.99),
                at(&pooled.lag, 0.99),
            ]
        })
    };
    row.peers().into_iter().filter_map(line).collect()
}

/// The machine, line by line; what it did not tell is left out.
fn record(machine: &Machine) -> Vec<(String, String)> {
    let mut record: Vec<(String, String)> = Vec::new();
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            record.push((name.to_owned(), value));
        }
    };
    say("CPU", Some(machine.cpu.clone()));
    say("microcode", machine.microcode.clone());
    say("CPUs", Some(machine.cpus.to_string()));
    say(
        "placement",
        Some(format!(
            "proxy on CPU {}, origin and generator on CPU {}",
            machine.placement.proxy, machine.placement.load
        )),
    );
    say("threads of the proxy's core", machine.siblings.clone());
    say("memory", Some(format!("{} MiB", machine.memory_mib)));
    say("kernel", Some(machine.kernel.clone()));
    say("kernel command line", Some(machine.command_line.clone()));
    say("virtual machine", Some(yes_no(machine.is_virtual)));
    say("governor", machine.governor.clone());
    say("boost", machine.boost.map(yes_no));
    say("huge pages", machine.huge_pages.clone());
    say(
        "CPU quota",
        machine.quota_cpus.map(|quota| format!("{quota} CPUs")),
    );
    say("descriptors", Some(machine.descriptors.to_string()));
    say(
        "load before the run",
        Some(format!("{:.2}", machine.load_average)),
    );
    say(
        "waiting for a CPU before the run",
        machine
            .pressure
            .map(|part| format!("{} %", short(part * 100.0))),
    );
    say("commit", machine.commit.clone());
    for (name, value) in &machine.settings {
        say(&name.replace('/', "."), Some(value.clone()));
    }
    for (name, value) in &machine.mitigations {
        say(name, Some(value.clone()));
    }
    record
}

fn yes_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::report::sample;

    /// The page says everything it should, in its order, escapes what others wrote, and needs nothing
    /// from elsewhere.
    #[test]
    fn the_page_is_whole() {
        let page = page(&sample::run()).unwrap();
        let mut from = 0;
        for part in [
            "<h2>Goals</h2>",
            ">met<",
            "tidegate &#x2f; haproxy",
            "<h2>tidegate, compared</h2>",
            "faster",
            "<h2 id=\"h1-128\">",
            "CPU per request, µs.",
            "nbthread 1 # &lt;",
            "<h2 id=\"many-connections\">",
            "added p99 µs",
            "Latency by percentile.",
            "Latency over time.",
            "Throughput and latency.",
            "Heat map of tidegate.",
            "What the percentiles rest on",
            "Capacity at p99=5ms",
            "≥ 34000",
            "tidegate-lab run h1-128 many-connections",
            "HAProxy &lt;2.6&gt;",
            "<h2>The machine</h2>",
        ] {
            let found = page.get(from..).unwrap().find(part);
            from += found.unwrap_or_else(|| panic!("`{part}` is not there, or not in its place"));
        }
        for foreign in ["http://", "https://", "<script", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    /// A run in which nothing was measured has a page too.
    #[test]
    fn an_empty_run_has_a_page() {
        let mut result = sample::run();
        for row in &mut result.rows {
            row.measurements.clear();
            row.capacities.clear();
        }
        assert!(!page(&result).unwrap().contains("<svg"));
    }
}
