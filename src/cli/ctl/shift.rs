//! `tidegate ctl shift`: shows the steering program, and changes one rule of it.

use std::{fs, io::Read, path::PathBuf, thread, time::Duration};

use serde_json::{Value, json};

use super::{
    client::{Admin, encode, text},
    parse_time,
};
use crate::exit::{Exit, Failure};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate ctl shift                                    the program, what each rule did, what flows where
  tidegate ctl shift canary --application pay --to unit2 --share 5% --owner me --for 30m
  tidegate ctl shift canary --application pay --to unit2 --share 10% --owner me    a step further
  tidegate ctl shift canary --owner me --withdraw       and back
  tidegate ctl shift move --file matrix.yaml --dry-run --watch 30s    what would move, before it does")]
pub(super) struct Args {
    /// The rule; without it the program is shown
    #[arg(value_name = "RULE")]
    rule: Option<String>,

    /// The rule as the configuration has it, one map; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "share", "application", "withdraw"])]
    file: Option<PathBuf>,

    /// Whose requests
    #[arg(long, value_name = "NAME", requires = "to")]
    application: Option<String>,

    /// The place that a share of them goes to
    #[arg(long, value_name = "PLACE", requires_all = ["application", "share", "owner"])]
    to: Option<String>,

    /// How much: 5%, 0.5%
    #[arg(long, value_name = "SHARE", requires = "to")]
    share: Option<String>,

    /// Who changes the rule: it stays theirs
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,

    /// The rule's version; by default one more than the one in use
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,

    /// After so long it ends by itself: 30s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    r#for: Option<String>,

    /// Take the rule away
    #[arg(long, requires = "owner", conflicts_with = "to")]
    withdraw: bool,

    /// Do not do it, but count beside what is in use what would be moved
    #[arg(long)]
    dry_run: bool,

    /// How long to count, with --dry-run
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "dry_run", value_parser = tidegate_core::config::parse_duration)]
    watch: Duration,
}

pub(super) fn run(admin: &Admin, args: &Args) -> Result<(), Failure> {
    let Some(rule) = &args.rule else {
        return super::show(admin, "/steering?format=text");
    };
    let (target, body) = change(admin, rule, args)?;
    admin.post_with(&target, &body)?.expect_ok()?;
    if !args.dry_run {
        let done = if args.withdraw { "withdrawn" } else { "set" };
        return super::super::print(&format!("{rule}: {done}\n"));
    }
    pause(args.watch);
    let view = admin.view("/steering/dry-run");
    admin.post("/steering/dry-run?end=1")?.expect_ok()?;
    super::super::print(&movement(&view?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that does nothing else may sleep"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// What to ask for, and the rule that goes with it.
fn change(admin: &Admin, rule: &str, args: &Args) -> Result<(String, String), Failure> {
    let mut target = format!(
        "/steering/rules/{}?dry_run={}",
        encode(rule),
        u8::from(args.dry_run)
    );
    let owner = args.owner.as_deref().unwrap_or_default();
    if args.withdraw {
        let epoch = match args.epoch {
            Some(epoch) => epoch,
            None => epoch_in_use(admin, rule)?.unwrap_or(0),
        };
        target += &format!("&withdraw={epoch}&owner={}", encode(owner));
        return Ok((target, String::new()));
    }
    if let Some(time) = &args.r#for {
        target += &format!("&for={time}");
    }
    if let Some(file) = &args.file {
        return Ok((target, read(file)?));
    }
    let (Some(to), Some(share), Some(application)) = (&args.to, &args.share, &args.application)
    else {
        let problem = "say what to do: --to, --file, or --withdraw";
        return Err(Failure::new(
            Exit::Usage,
            problem,
            "see `tidegate ctl shift --help`",
        ));
    };
    let epoch = match args.epoch {
        Some(epoch) => epoch,
        None => epoch_in_use(admin, rule)?.unwrap_or(0) + 1,
    };
    let rule = json!({
        "owner": owner,
        "epoch": epoch,
        "match": { "application": application },
        "shift": { "to": to, "share": share },
    });
    Ok((target, rule.to_string()))
}

fn epoch_in_use(admin: &Admin, rule: &str) -> Result<Option<u64>, Failure> {
    let view = admin.view("/steering")?;
    let rules = view
        .get("rules")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let found = rules
        .into_iter()
        .find(|one| one.get("id").is_some_and(|id| id == rule));
    Ok(found.and_then(|one| one.get("epoch")?.as_u64()))
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(|_| text),
        false => fs::read_to_string(file),
    };
    read.map_err(|e| {
        let problem = format!("cannot read {}: {e}", file.display());
        Failure::new(Exit::Usage, problem, "give a file with one rule, or `-`")
    })
}

/// What moves now, and what would, line by line.
fn movement(view: &Value) -> String {
    let mut out = format!("counted for {} s, every request\n", text(view, "/since_s"));
    let lines = view["movement"].as_array().cloned().unwrap_or_default();
    if lines.is_empty() {
        out += "no request came\n";
    }
    for line in &lines {
        let part = |key: &str| text(line, key);
        out += &format!(
            "{}: {} → {}  {} now, {} then\n",
            part("/application"),
            part("/from"),
            part("/to"),
            part("/now"),
            part("/next"),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an operator sees what would move. Method: a view of the admin server.
    #[test]
    fn movements_are_told() {
        let line = json!({ "application": "pay", "from": "u1", "to": "u2", "now": 0, "next": 30 });
        let view = json!({ "since_s": 10, "movement": [line] });
        assert_eq!(
            movement(&view),
            "counted for 10 s, every request\npay: u1 → u2  0 now, 30 then\n"
        );
        assert!(movement(&json!({ "since_s": 1, "movement": [] })).ends_with("no request came\n"));
    }
}
