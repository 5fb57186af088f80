//! The steering program.

use std::collections::BTreeMap;

use super::*;
use crate::{
    config::{
        Diagnostic,
        model::{
            HashOn,
            steering::{
                Application, DivertShare, Fallback, Group, Interface, Marks, Match, Network,
                OnStop, Ramp, Rule, Steering, Stop, Verb,
            },
        },
        tree,
    },
    limiter::bucket::Rate,
    steering::program,
};

/// Decodes the section, and checks it as a whole.
pub(super) fn steering(fields: &Fields<'_>, clusters: &Names<'_>) -> Steering {
    let report = fields.report;
    let mut places = BTreeMap::new();
    let applications = fields.map("applications").into_iter().map(|entry| {
        let name = named(report, entry);
        let section = &keys::STEERED_APPLICATION;
        let opened = Fields::open(report, section, &entry.value, entry.key_span.clone());
        places.insert(name.clone(), opened.clone());
        (name, application(&opened))
    });
    let applications = applications.collect();
    let nodes = fields.list("rules");
    let opened = nodes
        .iter()
        .map(|node| Fields::open(report, &keys::STEERING_RULE, node, node.span.clone()));
    let opened: Vec<_> = opened.collect();
    // One that was reported is left out, and its place with it.
    let (rules, opened): (Vec<Rule>, Vec<_>) = opened
        .into_iter()
        .filter_map(|fields| Some((rule(&fields, None, &applications)?, fields)))
        .unzip();
    let steering = Steering {
        applications,
        rules,
        marks: marks(&fields.section("marks", &keys::STEERING_MARKS)),
        trusted_peers: networks(fields),
        response_header: fields.flag("response_header"),
        next: None,
    };
    for fault in program::check(&steering, &|name| clusters.contains(name)) {
        let at = match fault.rule {
            Some(position) => opened.get(position),
            None => places.get(&fault.application),
        };
        let at = at.map_or(fields.at.clone(), |fields| fields.value_span(fault.key));
        let problem = Problem::new(codes::STEERING, at, fault.problem);
        report.add(problem.label("cannot be meant").help(fault.remedy));
    }
    steering
}

/// Reads one rule that stands alone: what is changed by hand. `text` is the map of a rule, as YAML or JSON; its
/// `id` may be left out, and cannot be another.
///
/// # Errors
///
/// What is wrong with it, with places in `text`. What it refers to is not looked at.
pub fn parse_rule(id: &str, text: &str, steering: &Steering) -> Result<Rule, Vec<Diagnostic>> {
    let text = &with_id(id, text);
    let report = Report::new("rule", text);
    let Some(node) = tree::read(text, &report) else {
        return Err(report.finish());
    };
    let fields = Fields::open(&report, &keys::STEERING_RULE, &node, node.span.clone());
    let rule = rule(&fields, Some("by hand"), &steering.applications);
    if let Some(rule) = rule.as_ref().filter(|rule| &*rule.id != id) {
        let message = format!("the rule calls itself `{}`, and is set as `{id}`", rule.id);
        let problem = Problem::new(codes::STEERING, fields.value_span("id"), message);
        report.add(problem.label("another rule").help("leave `id` out"));
    }
    match (rule, report.is_usable()) {
        (Some(rule), true) => Ok(rule),
        _ => Err(report.finish()),
    }
}

/// The rule with its id in it, where it does not say it itself. Lines stay what they are.
fn with_id(id: &str, text: &str) -> String {
    let quiet = Report::new("rule", text);
    let node = tree::read(text, &quiet);
    if node.is_none_or(|node| node.entries().iter().any(|entry| entry.key == "id")) {
        return text.to_owned();
    }
    match text.trim_start().strip_prefix('{') {
        Some(rest) => format!("{{\"id\": \"{id}\", {rest}"),
        None => format!("{}\nid: \"{id}\"\n", text.trim_end()),
    }
}

fn application(fields: &Fields<'_>) -> Application {
    let report = fields.report;
    let units = fields.map("units").into_iter().filter_map(|entry| {
        let kind = Kind::Text("the name of a cluster", keys::NAME_MAX);
        let cluster = fields::read_text(report, &entry.key, &entry.value, &kind)?;
        Some((named(report, entry), cluster.text.into()))
    });
    let units = units.collect();
    let groups = fields.map("groups").into_iter().filter_map(|entry| {
        let name = named(report, entry);
        if !matches!(entry.value.value, Value::Map(_)) {
            let kind = Kind::Text("the name of a cluster, or a map", keys::NAME_MAX);
            let cluster = fields::read_text(report, &entry.key, &entry.value, &kind)?;
            let cluster = cluster.text.into();
            return Some((
                name,
                Group {
                    cluster,
                    exclusive: false,
                },
            ));
        }
        let fields = Fields::open(
            report,
            &keys::STEERED_GROUP,
            &entry.value,
            entry.key_span.clone(),
        );
        let cluster = fields.text("cluster")?.text.into();
        let exclusive = fields.flag("exclusive");
        Some((name, Group { cluster, exclusive }))
    });
    Application {
        units,
        groups: groups.collect(),
    }
}

fn marks(fields: &Fields<'_>) -> Marks {
    let usual = Marks::default();
    let header = |key: &'static str, usual: Arc<str>| {
        let text = fields.text(key);
        let name = text.and_then(|text| {
            checked_opt(fields.report, key, &text, syntax::header_name(&text.text))
        });
        name.unwrap_or(usual)
    };
    let user = route::hash(fields, "user");
    if user == Some(HashOn::ClientIp) {
        let problem = Problem::new(
            codes::STEERING,
            fields.value_span("user"),
            "an address is no user",
        );
        report_user(fields, problem);
    }
    Marks {
        user: user.unwrap_or(usual.user),
        colour: header("colour", usual.colour),
        stress: header("stress", usual.stress),
        request_id: header("request_id", usual.request_id),
    }
}

fn report_user(fields: &Fields<'_>, problem: Problem) {
    let help = "name the header, cookie or parameter that holds the user's id";
    fields.report.add(
        problem
            .label("has no last digits that users are dealt out by")
            .help(help),
    );
}

fn networks(fields: &Fields<'_>) -> Vec<Network> {
    let nodes = fields.list("trusted_peers");
    let texts = nodes
        .iter()
        .filter_map(|node| fields::read_text(fields.report, "trusted_peers", node, &keys::NETWORK));
    texts
        .filter_map(|text| {
            let network = network(&text.text);
            if network.is_none() {
                let help = "write `10.1.2.3`, `10.0.0.0/8`, `fd00::/8`";
                fields::malformed(
                    fields.report,
                    codes::ADDRESS,
                    "trusted_peers",
                    &text,
                    "no network",
                    help,
                );
            }
            network
        })
        .collect()
}

fn network(text: &str) -> Option<Network> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: std::net::IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
            bits.parse().ok().filter(|bits| *bits <= width)?
        }
        Some(_) => return None,
        None => width,
    };
    Some(Network { address, bits })
}

type Applications = BTreeMap<Arc<str>, Application>;

const VERBS: [&str; 8] = [
    "set_unit",
    "set_group",
    "split",
    "shift",
    "divert",
    "cap",
    "fail_to",
    "matrix",
];

/// Decodes a rule; `None` if what it does was reported. `origin` says where it comes from, if not from a file.
fn rule(fields: &Fields<'_>, origin: Option<&str>, applications: &Applications) -> Option<Rule> {
    let report = fields.report;
    let name = |key: &'static str| {
        let text = fields.text(key).unwrap_or_default();
        // One that is missing was reported.
        let parsed = (!text.text.is_empty())
            .then(|| checked_opt(report, key, &text, syntax::name(&text.text)));
        parsed.flatten().unwrap_or_default()
    };
    let matches = matches(&fields.section("match", &keys::STEERING_MATCH));
    let verb = fields.exactly_one(&VERBS);
    let units = applications
        .get(&matches.application)
        .map_or(0, |one| one.units.len());
    let expires = fields
        .text("expires")
        .and_then(|text| checked_opt(report, "expires", &text, syntax::instant(&text.text)));
    let ramp = fields
        .section_opt("ramp", &keys::RAMP)
        .map(|fields| ramp(&fields));
    Some(Rule {
        id: name("id"),
        owner: name("owner"),
        epoch: fields.integer("epoch"),
        expires_unix_s: expires,
        verb: self::verb(fields, verb?, units)?,
        matches,
        sticky: route::hash(fields, "hash"),
        fallback: fields
            .text("fallback")
            .map(|text| match text.text.as_str() {
                "home" => Fallback::Home,
                "refuse" => Fallback::Refuse,
                place => Fallback::Place(place.into()),
            }),
        reached: ramp.map(|ramp| ramp.start),
        ramp,
        origin: match origin {
            Some(origin) => origin.into(),
            None => report.origin(fields.at.start).into(),
        },
    })
}

fn matches(fields: &Fields<'_>) -> Match {
    let report = fields.report;
    let text = |key: &str| fields.text(key).map(|text| text.text.into());
    let cookies = fields.map("cookie").into_iter().filter_map(|entry| {
        let kind = Kind::Text("text", keys::TEXT_MAX);
        let value = fields::read_text(report, &entry.key, &entry.value, &kind)?;
        Some((entry.key.as_str().into(), value.text.into()))
    });
    let mut cookies: Vec<(Arc<str>, Arc<str>)> = cookies.collect();
    cookies.sort();
    Match {
        application: text("application").unwrap_or_default(),
        interface: fields.text("interface").and_then(|text| {
            let interface = interface(&text.text);
            if interface.is_none() {
                let help = "write `SERVICE/METHOD` as the path has it, without a slash in front; or `SERVICE` alone";
                fields::malformed(report, codes::STEERING, "interface", &text, "no interface", help);
            }
            interface
        }),
        from: text("from"),
        colour: text("colour"),
        users: fields.text("users").and_then(|text| {
            let users = users(&text.text);
            if users.is_none() {
                let help = "write two numbers of two digits, `00-49`";
                fields::malformed(report, codes::STEERING, "users", &text, "no range", help);
            }
            users
        }),
        stress: fields.flag_opt("stress"),
        headers: matching::headers(fields),
        cookies,
        percent: fields.has("percent").then(|| fields.share("percent")),
    }
}

/// `SERVICE/METHOD`; a service of one segment may stand alone, one of several ends with `/*` then.
fn interface(text: &str) -> Option<Interface> {
    let (service, method) = match text.rsplit_once('/') {
        Some((service, "*")) => (service, None),
        Some((service, method)) => (service, Some(method)),
        None => (text, None),
    };
    let is_path = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| matches!(b, 0x21..=0x7e) && !b"?#%*".contains(&b))
    };
    if !is_path(service)
        || method.is_some_and(|method| !is_path(method))
        || service.starts_with('/')
    {
        return None;
    }
    Some(Interface {
        service: service.into(),
        method: method.map(Into::into),
    })
}

fn users(text: &str) -> Option<(u8, u8)> {
    let (low, high) = text.split_once('-')?;
    let number = |part: &str| {
        let is_number = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse().ok())?
    };
    Some((number(low)?, number(high)?))
}

fn verb(fields: &Fields<'_>, key: &str, units: usize) -> Option<Verb> {
    let place = |fields: &Fields<'_>, key: &str| fields.text(key).map(|text| text.text.into());
    Some(match key {
        "set_unit" => Verb::SetUnit(place(fields, key)?),
        "set_group" => Verb::SetGroup(place(fields, key)?),
        "split" => Verb::Split(row(fields.report, &fields.map("split"))),
        "shift" => {
            let fields = fields.section("shift", &keys::SHIFT);
            Verb::Shift {
                to: place(&fields, "to")?,
                share: fields.share("share"),
            }
        }
        "divert" => divert(&fields.section("divert", &keys::DIVERT), units)?,
        "cap" => {
            let fields = fields.section("cap", &keys::STEERING_CAP);
            let requests = fields.integer("requests");
            Verb::Cap(Rate {
                requests,
                per: fields.duration("per"),
                burst: fields.integer_or_off("burst").unwrap_or(requests),
            })
        }
        "fail_to" => {
            let kind = Kind::Text("the name of a place", keys::NAME_MAX);
            let places = texts(fields, "fail_to", &kind, &fields.list("fail_to"));
            Verb::FailTo(places.into_iter().map(|text| text.text.into()).collect())
        }
        _ => {
            let kind = Kind::Map("place", &Kind::Share(0, WHOLE), keys::ROUTE_LIST_MAX);
            let rows = fields.map("matrix").into_iter().map(|entry| {
                if !matches!(entry.value.value, Value::Map(_)) {
                    fields::wrong_type(fields.report, &entry.key, &entry.value, &kind);
                }
                let row = row(
                    fields.report,
                    &entry.value.entries().iter().collect::<Vec<_>>(),
                );
                (entry.key.as_str().into(), row)
            });
            let mut rows: Vec<_> = rows.collect();
            rows.sort();
            Verb::Matrix(rows)
        }
    })
}

/// Places and shares, in the order of the names: keys of a map have none.
fn row(report: &Report<'_>, entries: &[&Entry]) -> Vec<(Arc<str>, u32)> {
    let kind = Kind::Share(0, WHOLE);
    let shares = entries.iter().map(|entry| {
        let share = fields::read_share(report, &entry.key, &entry.value, &kind);
        (entry.key.as_str().into(), share.unwrap_or(0))
    });
    let mut row: Vec<(Arc<str>, u32)> = shares.collect();
    row.sort();
    row
}

fn divert(fields: &Fields<'_>, units: usize) -> Option<Verb> {
    let key = fields.exactly_one(&["own_fraction", "target_share"])?;
    let share = fields.share(key);
    let servers = fields.integer_or_off("servers");
    if key == "own_fraction" {
        fields.refuse(&["servers"], "without `target_share`", "remove it");
    }
    Some(Verb::Divert {
        to: fields.text("to")?.text.into(),
        share: match key {
            "own_fraction" => DivertShare::Own(share),
            _ => DivertShare::Target {
                share,
                servers: servers.unwrap_or(units as u32),
            },
        },
    })
}

fn ramp(fields: &Fields<'_>) -> Ramp {
    let stop = fields.section("stop", &keys::RAMP_STOP);
    Ramp {
        start: fields.share("start"),
        step: fields.share("step"),
        every: fields.duration("every"),
        stop: Stop {
            error_rate: stop.has("error_rate").then(|| stop.share("error_rate")),
            p99: stop.duration_or_off("p99"),
            watermark: stop.has("watermark").then(|| stop.share("watermark")),
        },
        on_stop: match fields.word("on_stop") {
            Some("hold") => OnStop::Hold,
            _ => OnStop::Back,
        },
    }
}
