//! `tidegate proxy`: a reverse proxy without a file. Writes the configuration that a person would, and
//! serves that: one way in, the same checks.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    exit::{Exit, Failure},
    logging,
    service::Service,
    source::Source,
    upgrade::Program,
};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate proxy --from :8080 --to 127.0.0.1:9000
  tidegate proxy --from 0.0.0.0:80 --to 10.0.0.1:8080 10.0.0.2:8080
  tidegate proxy --from :8080 --to app.internal:9000 --admin off
  tidegate proxy --from :5432 --to 10.0.0.5:5432 --tcp")]
pub(super) struct Args {
    /// Listen here: ADDRESS:PORT, or :PORT for every address
    #[arg(long, value_name = "ADDR", value_parser = parse_from)]
    from: SocketAddr,

    /// Send requests there: ADDRESS:PORT, several of them, or one HOST:PORT to look up
    #[arg(long, value_name = "ADDR", required = true, num_args = 1..)]
    to: Vec<String>,

    /// Relay bytes instead of HTTP
    #[arg(long)]
    tcp: bool,

    /// Admin server and dashboard: ADDRESS:PORT, or `off`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: String,

    /// Once ready, write the bound addresses to this file as JSON, all or nothing
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,

    /// Print the configuration instead of serving it
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let text = configuration(&args)?;
    if args.print {
        return super::print(&text);
    }
    let service = Service {
        source: Source::Embedded(text),
        announce: args.announce,
        unsafe_key_log: None,
        log: logging::start(),
        program: Some(Program::own()?),
    };
    service.run(|_| {})
}

/// The configuration that the arguments stand for.
fn configuration(args: &Args) -> Result<String, Failure> {
    let admin = match &*args.admin {
        "off" => "admin: off\n".to_owned(),
        address => {
            let parsed: SocketAddr = address
                .parse()
                .map_err(|_| usage(format!("--admin `{address}` is not ADDRESS:PORT or `off`")))?;
            format!("admin: \"{parsed}\"\n")
        }
    };
    let rules = if args.tcp {
        "    protocol: tcp\n    to: upstream\n"
    } else {
        "    routes: [ { to: upstream } ]\n"
    };
    Ok(format!(
        "version: 1\n{admin}listeners:\n  front:\n    bind: \"{}\"\n{rules}clusters:\n  \
         upstream:\n    endpoints: {}\n",
        args.from,
        endpoints(&args.to)?
    ))
}

fn endpoints(to: &[String]) -> Result<String, Failure> {
    let addresses: Result<Vec<SocketAddr>, _> = to.iter().map(|one| one.parse()).collect();
    if let Ok(addresses) = addresses {
        let quoted: Vec<String> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
        return Ok(format!("{{ static: [ {} ] }}", quoted.join(", ")));
    }
    let [name] = to else {
        return Err(usage(format!(
            "--to {}: several must all be ADDRESS:PORT; only one name can be looked up",
            to.join(" ")
        )));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match name.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok() =>
        {
            Ok(format!("{{ dns: \"{host}:{port}\" }}"))
        }
        _ => Err(usage(format!(
            "--to `{name}` is not ADDRESS:PORT or HOST:PORT"
        ))),
    }
}

fn usage(problem: String) -> Failure {
    Failure::new(Exit::Usage, problem, "see `tidegate proxy --help`")
}

/// An address, or `:PORT` for all of them.
fn parse_from(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    full.parse()
        .map_err(|_| "use ADDRESS:PORT (an IP address), or :PORT for every address".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tidegate_core::config;

    fn args(to: &[&str], tcp: bool, admin: &str) -> Args {
        Args {
            from: "127.0.0.1:8080".parse().unwrap(),
            to: to.iter().map(|one| (*one).to_owned()).collect(),
            tcp,
            admin: admin.into(),
            announce: None,
            print: false,
        }
    }

    /// Goal: whatever the arguments say becomes a configuration that parses. Method: each kind.
    #[test]
    fn arguments_become_configurations() {
        for args in [
            args(&["127.0.0.1:9000"], false, "127.0.0.1:9901"),
            args(&["10.0.0.1:80", "[2001:db8::1]:80"], false, "off"),
            args(&["app.internal:9000"], false, "off"),
            args(&["127.0.0.1:5432"], true, "[::1]:9901"),
        ] {
            let text = configuration(&args).unwrap();
            let parsed = config::parse("<proxy>", &text);
            assert!(parsed.is_ok(), "{text}{parsed:?}");
        }
    }

    /// Goal: bad arguments are usage errors, and cannot smuggle YAML in. Method: table.
    #[test]
    fn bad_arguments_are_usage_errors() {
        for to in [
            &["nohost"][..],
            &["a:80", "b:80"],
            &["a:80", "127.0.0.1:80"],
            &["x\" }\nadmin: y:80"],
            &[":80"],
            &["a:99999"],
        ] {
            let failure = configuration(&args(to, false, "off")).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{to:?}");
        }
        assert!(configuration(&args(&["127.0.0.1:1"], false, "nope")).is_err());
    }

    /// Goal: `:PORT` means every address. Method: both forms and a bad one.
    #[test]
    fn from_has_a_short_form() {
        assert_eq!(parse_from(":80").unwrap(), "0.0.0.0:80".parse().unwrap());
        assert_eq!(parse_from("[::1]:80").unwrap(), "[::1]:80".parse().unwrap());
        assert!(parse_from("80").is_err());
        assert!(parse_from("localhost:80").is_err());
    }
}
