//! `tidegate ctl limit`: shows the limits set by hand, sets one, takes it back.

use serde_json::Value;
use tidegate_core::limiter::{Priority, hand::Whose};

use super::{
    client::{Admin, encode},
    parse_time,
};
use crate::{
    exit::{Exit, Failure},
    text::Span,
};

#[derive(clap::Args)]
#[command(after_help = "\
The cluster must have `adaptive_limit`. What is set holds beside what is found: the lower of the two counts. It
outlives reloads, and ends with its time, with its interface, or when it is taken back.

Examples:
  tidegate ctl limit                                       what is set by hand
  tidegate ctl limit pay --to 200 --for 30m                all of the cluster together
  tidegate ctl limit pay --interface web/search --to 20    one interface: LISTENER/ROUTE
  tidegate ctl limit pay --priority batch --to 0           whoever can wait, waits
  tidegate ctl limit pay --interface web/search --off      take it back")]
pub(super) struct Args {
    /// The cluster; without it, what is set is shown
    #[arg(value_name = "CLUSTER")]
    cluster: Option<String>,

    /// Of this interface alone
    #[arg(long, value_name = "LISTENER/ROUTE", requires = "cluster")]
    interface: Option<String>,

    /// Of requests of this priority alone: critical, normal, batch or stress
    #[arg(long, value_name = "PRIORITY", requires = "cluster", value_parser = parse_priority)]
    priority: Option<Priority>,

    /// Requests in flight, over all shards; 0 refuses all
    #[arg(long, value_name = "N", requires = "cluster", conflicts_with = "off")]
    to: Option<u32>,

    /// Take the limit back
    #[arg(long, requires = "cluster")]
    off: bool,

    /// For how long: 30s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    r#for: String,

    /// Do not do it, but say what would be done
    #[arg(long, requires = "cluster")]
    dry_run: bool,
}

pub(super) fn run(admin: &Admin, args: &Args) -> Result<(), Failure> {
    let Some(cluster) = &args.cluster else {
        return super::super::print(&shown(&admin.view("/limits")?));
    };
    if args.to.is_none() && !args.off {
        let help = "see `tidegate ctl limit --help`";
        return Err(Failure::new(Exit::Usage, "say --to N or --off", help));
    }
    let whose = Whose {
        interface: args.interface.as_deref().map(Into::into),
        priority: args.priority,
    };
    let before = in_force(&admin.view("/limits")?, cluster, &whose);
    admin.post(&target(cluster, &whose, args))?.expect_ok()?;
    super::super::print(&told(cluster, &whose, args, before))
}

fn target(cluster: &str, whose: &Whose, args: &Args) -> String {
    let limit = args.to.map_or("off".to_owned(), |limit| limit.to_string());
    let mut target = format!("/limits?cluster={}&limit={limit}", encode(cluster));
    if let Some(interface) = &whose.interface {
        target += &format!("&interface={}", encode(interface));
    }
    if let Some(priority) = whose.priority {
        target += &format!("&priority={}", priority.word());
    }
    target + &format!("&for={}&dry_run={}", args.r#for, u8::from(args.dry_run))
}

/// A limit by hand: requests in flight, and seconds that are left.
type InForce = (u64, f64);

/// What was set of the same before.
fn in_force(limits: &Value, cluster: &str, whose: &Whose) -> Option<InForce> {
    let clusters = limits.as_array()?.iter();
    let found = clusters.filter(|one| one["name"] == cluster);
    let mut all = found.flat_map(|one| one["by_hand"].as_array().into_iter().flatten());
    let priority = whose.priority.map(Priority::word);
    let same = all.find(|one| {
        one["interface"].as_str() == whose.interface.as_deref()
            && one["priority"].as_str() == priority
    });
    same.and_then(|one| Some((one["limit"].as_u64()?, one["left_s"].as_f64()?)))
}

/// What changes, and the way back.
fn told(cluster: &str, whose: &Whose, args: &Args, before: Option<InForce>) -> String {
    let was = before.map_or("none".to_owned(), |(limit, _)| limit.to_string());
    let is = match args.to {
        Some(limit) => format!("{limit} for {}", args.r#for),
        None => "none".to_owned(),
    };
    let change = format!("{cluster}, {whose}: {was} → {is}\n");
    if args.dry_run {
        return format!("would be: {change}");
    }
    format!("{change}undo: {}\n", way_back(cluster, whose, before))
}

fn way_back(cluster: &str, whose: &Whose, before: Option<InForce>) -> String {
    let mut command = format!("tidegate ctl limit {cluster}");
    if let Some(interface) = &whose.interface {
        command += &format!(" --interface {interface}");
    }
    if let Some(priority) = whose.priority {
        command += &format!(" --priority {}", priority.word());
    }
    command += &match before {
        Some((limit, left_s)) => format!(" --to {limit} --for {:.0}s", left_s.max(1.0)),
        None => " --off".to_owned(),
    };
    command
}

/// All that is set by hand.
fn shown(limits: &Value) -> String {
    let mut out = String::new();
    for cluster in limits.as_array().into_iter().flatten() {
        for one in cluster["by_hand"].as_array().into_iter().flatten() {
            let whose = Whose {
                interface: one["interface"].as_str().map(Into::into),
                priority: one["priority"]
                    .as_str()
                    .and_then(|p| Priority::of(p.as_bytes())),
            };
            let left_ns = one["left_s"].as_f64().unwrap_or_default() * 1e9;
            out += &format!(
                "{}, {whose}: {}, {} left\n",
                cluster["name"].as_str().unwrap_or_default(),
                one["limit"],
                Span::ns(left_ns as u64),
            );
        }
    }
    match out.is_empty() {
        true => {
            "no limit is set by hand; `tidegate ctl limits` shows those that are found\n".into()
        }
        false => out,
    }
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    let found = Priority::of(text.as_bytes());
    found.ok_or_else(|| {
        let words = Priority::ALL.map(Priority::word).join(", ");
        format!("`{text}` is none of {words}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(to: Option<u32>) -> Args {
        Args {
            cluster: Some("pay".into()),
            interface: Some("web/a".into()),
            priority: Some(Priority::Batch),
            to,
            off: to.is_none(),
            r#for: "10m".into(),
            dry_run: false,
        }
    }

    fn whose() -> Whose {
        Whose {
            interface: Some("web/a".into()),
            priority: Some(Priority::Batch),
        }
    }

    /// Goal: what is asked for is what was said, whatever characters are in it. Method: a limit set and taken back.
    #[test]
    fn targets_say_what_is_asked_for() {
        assert_eq!(
            target("pay", &whose(), &args(Some(7))),
            "/limits?cluster=pay&limit=7&interface=web%2Fa&priority=batch&for=10m&dry_run=0"
        );
        let whole = target("p&y", &Whose::default(), &args(None));
        assert_eq!(whole, "/limits?cluster=p%26y&limit=off&for=10m&dry_run=0");
    }

    /// Goal: each change says what was and what is, and the command that undoes it. Method: a limit where there was none,
    /// and one in place of another.
    #[test]
    fn changes_can_be_undone() {
        let limits = json!([{ "name": "pay", "by_hand": [
            { "interface": null, "priority": null, "limit": 9, "left_s": 5.0 },
            { "interface": "web/a", "priority": "batch", "limit": 30, "left_s": 119.7 }] }]);
        let before = in_force(&limits, "pay", &whose());
        assert_eq!(before, Some((30, 119.7)));
        assert_eq!(in_force(&limits, "shop", &whose()), None);
        assert_eq!(
            told("pay", &whose(), &args(Some(7)), before),
            "pay, web/a (batch): 30 → 7 for 10m\n\
             undo: tidegate ctl limit pay --interface web/a --priority batch --to 30 --for 120s\n"
        );
        let all = Whose::default();
        assert_eq!(
            told("pay", &all, &args(Some(7)), None),
            "pay, all interfaces: none → 7 for 10m\nundo: tidegate ctl limit pay --off\n"
        );
        assert!(
            shown(&limits).contains("pay, web/a (batch): 30, "),
            "{}",
            shown(&limits)
        );
    }
}
