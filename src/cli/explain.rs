//! `tidegate explain`: why a request goes where it goes, from the tables that the data path uses.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use tidegate_core::{
    config::model::Config,
    id::Epoch,
    snapshot::Snapshot,
    steering::{
        RequestView,
        explain::{Circumstances, Outcome, explain},
    },
};

use super::Format;
use crate::{
    exit::{Exit, Failure},
    service,
    source::Source,
    status::unix_s,
};

#[derive(clap::Args)]
#[command(after_help = "\
Exits with 5 if the request is refused.

Examples:
  tidegate explain GET http://pay.example/transfer/7 -c edge.yaml
  tidegate explain GET http://pay.example/ -H 'x-canary: 1' -c edge.yaml
  tidegate explain POST /orders?debug=1 -H 'host: shop.example' -c edge.yaml --listener edge
  tidegate explain GET http://pay.example/ -c edge.yaml --format json | jq .outcome")]
pub(super) struct Args {
    /// Method of the request
    #[arg(value_name = "METHOD")]
    method: String,

    /// URL, or a path together with -H 'host: NAME'
    #[arg(value_name = "URL")]
    url: String,

    /// A header field, as `name: value`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = parse_field)]
    headers: Vec<(String, String)>,

    /// The client's address, for stickiness by it and for the hop mark of steering
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,

    /// Name of the listener; by default the first that has a route for the request
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,

    /// Configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let request = Request::new(args)?;
    let source = Source::File(args.config.clone());
    let loaded = source.load().map_err(service::report)?;
    let snapshot = compile(loaded.config);
    let circumstances = Circumstances {
        client: args.from,
        now_unix_s: unix_s(),
        ..Circumstances::default()
    };
    let listener = args.listener.as_deref();
    let explanation = explain(&snapshot, listener, &request, &circumstances)
        .map_err(|nothing| Failure::new(Exit::Usage, nothing.to_string(), ""))?;
    match args.format {
        Format::Json => {
            let value = serde_json::to_value(&explanation)
                .map_err(|e| Failure::new(Exit::Bug, e.to_string(), "please report it"))?;
            super::print_json(&value)?;
        }
        Format::Human => super::print(&format!("{}\n", explanation.to_string().trim_end()))?,
    }
    if !explanation.consistent {
        return Err(Failure::new(
            Exit::Bug,
            "the reasons above lead elsewhere than the decision",
            "please report it with the configuration",
        ));
    }
    match explanation.outcome {
        Outcome::Refuse { .. } => Err(Failure::reported(Exit::CheckFailed)),
        _ => Ok(()),
    }
}

/// As the service would, without addresses that only DNS knows.
fn compile(config: Arc<Config>) -> Snapshot {
    Snapshot::compile(config, &Default::default(), None, 1, Epoch(1))
}

/// The request that was asked about.
struct Request {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

impl Request {
    fn new(args: &Args) -> Result<Request, Failure> {
        let usage =
            |problem: String| Failure::new(Exit::Usage, problem, "see `tidegate explain --help`");
        let (authority, target) = match args.url.split_once("://") {
            Some((_scheme, rest)) => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, target) = rest.split_at(at);
                (Some(authority), target)
            }
            None if args.url.starts_with(['/', '*']) => (None, args.url.as_str()),
            None => {
                let problem = format!("`{}` is neither a URL nor a path", args.url);
                return Err(usage(problem));
            }
        };
        let field = |name: &str| {
            let found = args.headers.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| value.as_str())
        };
        let host = field("host").or(authority).ok_or_else(|| {
            usage("a path alone names no host: give a URL, or -H 'host: NAME'".into())
        })?;
        // A fragment is never sent.
        let target = target.split('#').next().unwrap_or_default();
        let mut headers = args.headers.clone();
        if field("host").is_none() {
            headers.push(("host".into(), host.to_owned()));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Ok(Request {
            method: args.method.clone(),
            host: without_port(host).to_owned(),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            query,
            headers,
        })
    }
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_bytes())
    }
}

/// `host:port` and `[v6]:port` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

/// Takes `name: value` apart; the name in lower case, as matching wants it.
fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("use `name: value`")?;
    let name = name.trim();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{name}` is not a field name"));
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(url: &str, headers: &[&str]) -> Result<Request, Failure> {
        Request::new(&Args {
            method: "GET".into(),
            url: url.into(),
            headers: headers.iter().map(|h| parse_field(h).unwrap()).collect(),
            from: None,
            listener: None,
            config: PathBuf::new(),
            format: Format::Human,
        })
    }

    /// Goal: what is typed is taken apart as a request is. Method: table of URLs and fields.
    #[test]
    fn urls_are_taken_apart() {
        for (url, headers, host, path, query) in [
            (
                "http://a.example/x?y=1#z",
                &[][..],
                "a.example",
                "/x",
                Some("y=1"),
            ),
            ("http://a.example:8080", &[], "a.example", "/", None),
            ("http://[::1]:80/", &[], "[::1]", "/", None),
            ("http://a.example?q", &[], "a.example", "/", Some("q")),
            ("/x", &["Host: b.example:99"], "b.example", "/x", None),
            (
                "http://a.example/",
                &["host: b.example"],
                "b.example",
                "/",
                None,
            ),
        ] {
            let request = request(url, headers).unwrap();
            assert_eq!(
                (&*request.host, &*request.path, request.query.as_deref()),
                (host, path, query),
                "{url}"
            );
        }
        assert!(request("/x", &[]).is_err());
        assert!(request("a.example/x", &[]).is_err());
    }

    /// Goal: fields are read as HTTP does. Method: good and bad ones.
    #[test]
    fn fields_are_read() {
        assert_eq!(
            parse_field("X-A:  b c ").unwrap(),
            ("x-a".into(), "b c".into())
        );
        assert!(parse_field("novalue").is_err());
        assert!(parse_field(": x").is_err());
    }
}
