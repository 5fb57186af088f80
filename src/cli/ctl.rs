//! `tidegate ctl`: asks a running process, over its admin server, to show or to change something.

pub(super) mod client;
mod heal;
mod limit;
mod shift;

use std::{net::SocketAddr, time::Duration};

use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use tidegate_core::{config::parse_duration, encryption::change::RolloutChange};

use crate::exit::{Exit, Failure};
use client::{Admin, text};

#[derive(clap::Args)]
#[command(
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Exits with 1 if the process does not answer, with 5 if it refuses.

Examples:
  tidegate ctl status
  tidegate ctl reload
  tidegate ctl tls                      how far encryption is, listener by listener
  tidegate ctl tls pay=20% orders=off   try a share, or turn back at once
  tidegate ctl eject pay 10.0.0.7:8080 --for 10m
  tidegate ctl limit pay --interface web/search --to 20 --for 10m
  tidegate ctl shift                    where requests are steered, and how many
  tidegate ctl center promote           a center's canary is for all nodes
  tidegate ctl upgrade                  after a new binary was put in place of the old one
  tidegate ctl --admin 127.0.0.1:9902 certs"
)]
pub(super) struct Args {
    /// Address of the admin server [default: 127.0.0.1:9901, with `center` 127.0.0.1:9903]
    #[arg(long, value_name = "ADDR", global = true)]
    admin: Option<SocketAddr>,

    /// How long the process may take to answer, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        global = true,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    timeout: u64,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// State, configuration in use, and the newest error of it
    Status,
    /// Read configuration and secrets again
    Reload {
        /// Let listeners become strict although plaintext is still seen; logged
        #[arg(long)]
        force_strict: bool,
    },
    /// Take no more connections; finish what is in flight
    Drain,
    /// Take connections again
    Undrain,
    /// Drain, then end
    Quit,
    /// Start the program anew and let it take over: no connection is refused, reset or left waiting. On any
    /// failure the process goes on as it is
    Upgrade,
    /// Show who speaks encrypted, or set the rollout of clusters by hand
    Tls {
        /// CLUSTER=on, CLUSTER=off, CLUSTER=20%, or CLUSTER=file for what the file says; until the process
        /// ends or the file says something else
        #[arg(value_name = "CLUSTER=SHARE", value_parser = parse_change)]
        changes: Vec<(String, RolloutChange)>,
    },
    /// Show the secrets in use: names, ends, the last refusal
    Certs,
    /// Show how full the machine is, and what interfaces may have in flight
    Limits,
    /// Show the limits that are set by hand, or set one for a while, or take it back
    Limit(limit::Args),
    /// Show where the endpoints of clusters that heal stand, and why
    Healing,
    /// Show what the control plane brought, what waits for what, and what was refused, and why
    Xds,
    /// Show where requests are steered, or set, withdraw or try out one rule
    Shift(shift::Args),
    /// Take an endpoint out by hand; the last one stays
    Eject {
        /// The cluster; it must have `heal`
        cluster: String,
        /// The endpoint, IP:PORT
        endpoint: SocketAddr,
        /// For how long: 30s, 10m, 2h; then it is tried out with one request
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
        r#for: String,
        /// Do not do it, but say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Take an ejected endpoint back in, its times out forgotten
    Restore {
        /// The cluster
        cluster: String,
        /// The endpoint, IP:PORT
        endpoint: SocketAddr,
        /// Do not do it, but say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what a center serves by xDS, to whom, and what was refused; or change it
    Center {
        /// What to do; without it, show
        #[arg(value_enum, value_name = "WHAT")]
        what: Option<CenterOrder>,
    },
}

/// What a center's control plane is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CenterOrder {
    /// Read the directory now; what is wrong with it is told
    Reload,
    /// Serve the canary to all nodes
    Promote,
    /// Back by one push: the canary is withdrawn, or what all have for what they had before
    Rollback,
}

impl CenterOrder {
    const fn target_and_said(self) -> (&'static str, &'static str) {
        match self {
            CenterOrder::Reload => ("/control/reload", "reloaded"),
            CenterOrder::Promote => ("/control/promote", "promoted"),
            CenterOrder::Rollback => ("/control/rollback", "rolled back"),
        }
    }
}

/// Where the process is asked that the verb is for, unless something else is said.
fn usual_address(verb: &Verb) -> SocketAddr {
    let port = match verb {
        Verb::Center { .. } => 9903,
        _ => 9901,
    };
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let admin = Admin {
        address: args.admin.unwrap_or_else(|| usual_address(&args.verb)),
        timeout: Duration::from_secs(args.timeout),
    };
    match &args.verb {
        Verb::Status => super::print(&status(&admin)?),
        Verb::Reload {
            force_strict: false,
        } => done(&admin, "/reload", "reloaded"),
        Verb::Reload { force_strict: true } => done(&admin, "/reload?force_strict=1", "reloaded"),
        Verb::Drain => done(&admin, "/drain", "draining"),
        Verb::Undrain => done(&admin, "/undrain", "taking connections"),
        Verb::Quit => done(&admin, "/quitquitquit", "stopping"),
        Verb::Upgrade => super::print(&upgrade(&admin)?),
        Verb::Tls { changes } if changes.is_empty() => show(&admin, "/encryption?format=text"),
        Verb::Tls { changes } => changes.iter().try_for_each(|(cluster, change)| {
            let target = rollout_target(cluster, *change);
            done(&admin, &target, &format!("{cluster}: {change}"))
        }),
        Verb::Certs => show(&admin, "/certs?format=text"),
        Verb::Limits => show(&admin, "/limits?format=text"),
        Verb::Limit(args) => limit::run(&admin, args),
        Verb::Healing => show(&admin, "/healing?format=text"),
        Verb::Xds => show(&admin, "/xds?format=text"),
        Verb::Shift(args) => shift::run(&admin, args),
        Verb::Center { what: None } => show(&admin, "/control?format=text"),
        Verb::Center { what: Some(order) } => {
            let (target, said) = order.target_and_said();
            done(&admin, target, said)
        }
        Verb::Eject {
            cluster,
            endpoint,
            r#for: time,
            dry_run,
        } => {
            let change = heal::Change::Eject(time);
            heal::run(&admin, cluster, *endpoint, &change, *dry_run)
        }
        Verb::Restore {
            cluster,
            endpoint,
            dry_run,
        } => heal::run(&admin, cluster, *endpoint, &heal::Change::Restore, *dry_run),
    }
}

/// Asks for a change, and says that it was made.
fn done(admin: &Admin, target: &str, said: &str) -> Result<(), Failure> {
    admin.post(target)?.expect_ok()?;
    super::print(&format!("{said}\n"))
}

fn show(admin: &Admin, target: &str) -> Result<(), Failure> {
    super::print(&admin.get(target)?.expect_ok()?)
}

/// What a process says of itself.
fn info(admin: &Admin) -> Result<Value, Failure> {
    admin.view("/server_info")
}

/// Upgrades, and says who served before and who serves now. The way back is the binary of before, and another
/// upgrade.
fn upgrade(admin: &Admin) -> Result<String, Failure> {
    let before = info(admin)?;
    admin.post("/upgrade")?.expect_ok()?;
    let after = info(admin)?;
    let change = |pointer| format!("{} → {}", text(&before, pointer), text(&after, pointer));
    Ok(format!(
        "upgraded\n  process     {}\n  version     {}\n  generation  {}\n",
        change("/pid"),
        change("/version"),
        change("/generation"),
    ))
}

fn status(admin: &Admin) -> Result<String, Failure> {
    let info = info(admin)?;
    let text = |pointer: &str| text(&info, pointer);
    let mut out = format!(
        "tidegate {}, {}\n  process   {}, generation {}, up {} s, {} shards\n  config    {}, epoch {}, fingerprint {}\n",
        text("/version"),
        text("/state"),
        text("/pid"),
        text("/generation"),
        text("/uptime_s"),
        text("/shards"),
        text("/config/source"),
        text("/config/epoch"),
        text("/config/fingerprint"),
    );
    if let Some(error) = info.pointer("/config/last_error").and_then(Value::as_str) {
        out += &format!("  refused   {}\n", error.replace('\n', "\n            "));
    }
    Ok(out)
}

fn rollout_target(cluster: &str, change: RolloutChange) -> String {
    let word = match change {
        RolloutChange::On => "on".to_owned(),
        RolloutChange::Off => "off".to_owned(),
        RolloutChange::AsConfigured => "file".to_owned(),
        share @ RolloutChange::Share(_) => share.to_string(),
    };
    format!(
        "/encryption?cluster={}&rollout={}",
        client::encode(cluster),
        client::encode(&word)
    )
}

/// A duration as the configuration writes it, passed on as it is.
fn parse_time(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// `CLUSTER=SHARE`. Names of clusters may hold `=` no more than they may hold blanks.
fn parse_change(text: &str) -> Result<(String, RolloutChange), String> {
    let (cluster, change) = text
        .split_once('=')
        .filter(|(cluster, _)| !cluster.is_empty())
        .ok_or("use CLUSTER=on, CLUSTER=off, CLUSTER=20% or CLUSTER=file")?;
    Ok((cluster.to_owned(), change.parse()?))
}

/// The exit code that an answer stands for.
const fn exit_of(status: u16) -> Exit {
    match status {
        400 => Exit::Usage,
        409 => Exit::CheckFailed,
        _ => Exit::Runtime,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: changes are read as the admin server reads them, and mistakes are told before anything is asked.
    /// Method: table.
    #[test]
    fn changes_are_parsed() {
        let parsed = parse_change("pay=20%").unwrap();
        assert_eq!(parsed, ("pay".to_owned(), RolloutChange::Share(2_000)));
        for bad in ["pay", "=on", "pay=", "pay=200%", "pay=yes"] {
            assert!(parse_change(bad).is_err(), "{bad}");
        }
    }

    /// Goal: no name breaks out of its place in the request. Method: one with everything that could.
    #[test]
    fn targets_are_encoded() {
        let target = rollout_target("a&b c\r\n%", RolloutChange::Share(50));
        assert_eq!(
            target,
            "/encryption?cluster=a%26b%20c%0D%0A%25&rollout=0.50%25"
        );
    }
}
