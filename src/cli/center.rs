//! `tidegate center`: the healing center and control plane. Its settings are few, so that they are arguments, not a file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use tidegate_core::{
    config::parse_duration,
    healing::center::{Remedy, Settings},
};

use crate::{
    center::{self, Keep, Options, Selector},
    exit::{Exit, Failure},
    logging, token,
};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate center                                   try it: state in memory, loopback only
  tidegate center --store /var/lib/tidegate/center.redb --remedy confirm
  tidegate center --listen 10.0.0.9:9902 --token-file /etc/tidegate/token --store center.redb
  tidegate center --etcd http://10.0.0.1:2379 http://10.0.0.2:2379
                                                    one of several, which elect a leader
  tidegate center --resources /etc/tidegate/resources --canary 5%
                                                    serve these by xDS, changes to 5% of the nodes first
  curl -X POST 'http://127.0.0.1:9903/clear?endpoint=10.0.2.1:8080'
                                                    a person knows better")]
pub(super) struct Args {
    /// Proxies report here; an address that is not loopback needs --token-file
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    listen: SocketAddr,

    /// Page, JSON and metrics: a loopback ADDRESS:PORT, or `off`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9903")]
    admin: String,

    /// Keep the state in this file
    #[arg(long, value_name = "FILE", conflicts_with = "etcd")]
    store: Option<PathBuf>,

    /// Keep the state in etcd, shared with other centers: http://HOST:PORT, several of them
    #[arg(long, value_name = "URL", num_args = 1..)]
    etcd: Vec<String>,

    /// What proxies are told when this center leads: HOST:PORT [default: --listen as bound]
    #[arg(long, value_name = "ADDR")]
    advertise: Option<Box<str>>,

    /// Proxies must show the token in the first line of this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// So many reporters that agree are enough
    #[arg(long, value_name = "N", default_value_t = Settings::default().quorum, value_parser = positive)]
    quorum: usize,

    /// Or so many of the callers, in percent, from two on
    #[arg(long, value_name = "N", default_value_t = Settings::default().percent,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: u32,

    /// Reports count for so long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    window: Duration,

    /// What may be done about a sick endpoint
    #[arg(long, value_name = "WHAT", default_value = "restart")]
    remedy: RemedyArg,

    /// Restarts of one application that may run at a time
    #[arg(long, value_name = "N", default_value_t = Settings::default().restarts_at_once,
        value_parser = positive)]
    restarts_at_once: usize,

    /// Events kept
    #[arg(long, value_name = "N", default_value_t = Settings::default().events_max,
        value_parser = positive)]
    events: usize,

    /// Serve the resources of the YAML and JSON files in this directory by xDS, on --listen
    #[arg(long, value_name = "DIR")]
    resources: Option<PathBuf>,

    /// Serve changes of --resources to these nodes first, until they are promoted: 10%, id=NODE,NODE,
    /// cluster=NAME,NAME or zone=NAME,NAME
    #[arg(long, value_name = "WHO", requires = "resources")]
    canary: Option<Selector>,

    /// Once ready, write the bound addresses to this file as JSON, all or nothing
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
}

/// [`Remedy`], as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RemedyArg {
    /// Let ejections last longer, no more.
    Confirm,
    /// And restart its application, through the proxy that fronts it.
    Restart,
    /// And take it off line if restarts do not help.
    Offline,
}

impl From<RemedyArg> for Remedy {
    fn from(remedy: RemedyArg) -> Remedy {
        match remedy {
            RemedyArg::Confirm => Remedy::Confirm,
            RemedyArg::Restart => Remedy::Restart,
            RemedyArg::Offline => Remedy::Offline,
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    logging::start();
    center::run(options(args)?)
}

fn options(args: Args) -> Result<Options, Failure> {
    let admin = match &*args.admin {
        "off" => None,
        address => Some(loopback(address)?),
    };
    let token = args.token_file.as_deref().map(token::read).transpose()?;
    if token.is_none() && !args.listen.ip().is_loopback() {
        return Err(Failure::new(
            Exit::Usage,
            format!("--listen {} without --token-file", args.listen),
            "whoever reaches this address could have applications restarted: name a file with a \
             token that the proxies know",
        ));
    }
    let keep = match (args.store, args.etcd) {
        (Some(file), _) => Keep::File(file),
        (None, urls) if urls.is_empty() => Keep::Memory,
        (None, urls) => Keep::Etcd(urls),
    };
    Ok(Options {
        listen: args.listen,
        admin,
        keep,
        advertise: args.advertise,
        token,
        settings: Settings {
            quorum: args.quorum,
            percent: args.percent,
            window: args.window,
            remedy: args.remedy.into(),
            restarts_at_once: args.restarts_at_once,
            events_max: args.events,
            ..Settings::default()
        },
        resources: args.resources,
        canary: args.canary,
        announce: args.announce,
    })
}

fn loopback(text: &str) -> Result<SocketAddr, Failure> {
    let address: Option<SocketAddr> = text.parse().ok();
    address
        .filter(|address| address.ip().is_loopback())
        .ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("--admin `{text}` is not a loopback ADDRESS:PORT or `off`"),
                "it asks nobody who they are: reach it through ssh or a proxy that authenticates",
            )
        })
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a whole number from 1 on is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Options, String> {
        let line =
            Line::try_parse_from([&["center"], words].concat()).map_err(|e| e.to_string())?;
        options(line.args).map_err(|failure| failure.to_string())
    }

    /// Goal: nothing need be said, and what the policy's defaults are is said once. Method: no arguments.
    #[test]
    fn defaults_are_the_policys() {
        assert_eq!(parse(&[]).unwrap().settings, Settings::default());
    }

    /// Goal: nobody is let in by accident, and numbers have a meaning. Method: lines that are refused, each
    /// beside one that is not.
    #[test]
    fn dangerous_lines_are_refused() {
        for (good, bad) in [
            (
                &["--listen", "127.0.0.1:0"][..],
                &["--listen", "0.0.0.0:0"][..],
            ),
            (&["--admin", "[::1]:0"], &["--admin", "0.0.0.0:0"]),
            (&["--admin", "off"], &["--admin", "on"]),
            (&["--quorum", "1"], &["--quorum", "0"]),
            (&["--percent", "100"], &["--percent", "101"]),
            (&["--window", "1m"], &["--window", "60"]),
            (&["--resources", "a", "--canary", "5%"], &["--canary", "5%"]),
            (
                &["--resources", "a", "--canary", "zone=a"],
                &["--resources", "a", "--canary", "zone"],
            ),
            (
                &["--store", "a"],
                &["--store", "a", "--etcd", "http://127.0.0.1:1"],
            ),
        ] {
            assert!(parse(good).is_ok(), "{good:?}");
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
