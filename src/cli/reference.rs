//! The generated reference: `docs/reference/{cli,metrics,reasons,access-log}.md`, written from the definitions that
//! the program uses and compared with what is committed. `TIDEGATE_BLESS=1 cargo test` writes them anew.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write, fs, path::Path};

use clap::{Command, CommandFactory};
use tidegate_core::reason::Reason;

use crate::{
    access_log::fields::{FIELDS, Field},
    admin::prometheus,
};

/// Goal: the reference says what the program does. Method: generate it and compare.
#[test]
fn reference_is_current() {
    for (name, text) in [
        ("cli", cli()),
        ("metrics", metrics()),
        ("reasons", reasons()),
        ("access-log", access_log()),
    ] {
        compare(name, &text);
    }
}

fn cli() -> String {
    let mut command = super::Cli::command();
    command.build();
    let mut text = String::from(
        "# Command line\n\n<!-- Generated from src/cli; see src/cli/reference.rs. -->\n\n",
    );
    let version = env!("CARGO_PKG_VERSION");
    write_command(&mut text, &command, "tidegate");
    text.replace(version, "VERSION")
}

fn write_command(text: &mut String, command: &Command, name: &str) {
    // A fixed width: the reference must not depend on the terminal it was made on.
    let mut command = command.clone().term_width(100);
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    writeln!(
        text,
        "## {name}\n\n```text\n{}\n```\n",
        help.join("\n").trim_end()
    )
    .unwrap();
    for verb in command.get_subcommands() {
        let name = format!("{name} {}", verb.get_name());
        write_command(text, verb, &name);
    }
}

fn metrics() -> String {
    let mut text = String::from(
        "# Metrics\n\n<!-- Generated from core/src/stats.rs and src/admin/prometheus.rs. -->\n\n\
         What `/stats/prometheus` (`/metrics`) of the admin server says. Series by endpoint and by peer \
         application are off by default: `/metrics?endpoints=1&applications=1`.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in prometheus::families() {
        let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind,
            labels.join(", "),
            family.help.replace('|', "\\|")
        )
        .unwrap();
    }
    text
}

fn reasons() -> String {
    let mut text = String::from(
        "# Reasons\n\n<!-- Generated from core/src/reason.rs. -->\n\n\
         One word per refusal: the same in the access log, in the label of `tidegate_refused_total` and in \
         the `x-tidegate-reason` field of our own answers. A status of – means that the connection is \
         closed without an answer, or that the route decides.\n",
    );
    for reason in Reason::ALL {
        let status = match reason.status() {
            0 => "–".to_owned(),
            status => status.to_string(),
        };
        let (word, what, remedy) = (reason.word(), reason.describe(), reason.remedy());
        write!(text, "\n## {word}\n\nStatus {status}. {what}\n\n{remedy}\n").unwrap();
    }
    text
}

fn access_log() -> String {
    let mut text = String::from(
        "# Access log\n\n<!-- Generated from src/access_log/fields.rs. -->\n\n\
         A line for each request, refused ones included, and for each connection that was relayed. `format: json` \
         has the names of OpenTelemetry's semantic conventions where there is one; `format: short` is for people. \
         What is not known is left out. Durations are in seconds in JSON, and with their unit in short lines.\n\n\
         | JSON | short | meaning |\n|---|---|---|\n",
    );
    for field in FIELDS {
        let Field {
            json,
            short,
            meaning,
        } = field;
        writeln!(text, "| `{json}` | {short} | {meaning} |").unwrap();
    }
    text
}

fn compare(name: &str, text: &str) {
    let path = root().join("docs/reference").join(format!("{name}.md"));
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/reference/{name}.md is out of date: run `TIDEGATE_BLESS=1 cargo test -p tidegate`"
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
