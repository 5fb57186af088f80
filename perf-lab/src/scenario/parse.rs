//! From the text of a scenario's file to a [`Scenario`], or to what is wrong with it, with its place
//! and, where a name is misspelt, the name that was probably meant.

use serde_saphyr::Error as YamlError;

use super::{
    Action, CONNECTIONS_MAX, ENDPOINTS_MAX, Figure, HOPS_MAX, HttpVersion, Link, Load, Neighbour,
    Protocol, ROUTES_MAX, STREAMS_MAX, Scenario,
};
use crate::{
    error::{Error, nearest},
    origin::BODY_BYTES_MAX,
};

/// The largest rate that one generator could reach anywhere.
const RATE_MAX: f64 = 10_000_000.0;
/// Times the capacity of a peer, or times a scenario's rate.
const FACTOR_MAX: f64 = 100.0;

/// Reads a scenario; `name` is the file's, without its ending.
pub fn parse(file: &str, name: &str, text: &str) -> Result<Scenario, Error> {
    let mut scenario: Scenario = serde_saphyr::from_str(text).map_err(|error| Error::Scenario {
        file: file.to_owned(),
        problem: explain(&error),
    })?;
    if scenario.name.is_empty() {
        scenario.name = name.to_owned();
    }
    scenario.tls |= scenario.protocol == Protocol::H2;
    match check(&scenario) {
        Ok(()) => Ok(scenario),
        Err(Problem { key, problem }) => Err(Error::Scenario {
            file: file.to_owned(),
            problem: match line_of(text, key) {
                Some(line) => format!("line {line}, `{key}`: {problem}"),
                None => format!("`{key}`: {problem}"),
            },
        }),
    }
}

/// The YAML reader's error, with the source that it points at, and a guess at what was meant.
fn explain(error: &YamlError) -> String {
    let guess = match error.without_snippet() {
        YamlError::SerdeUnknownField {
            field, expected, ..
        } => nearest(field, expected),
        YamlError::SerdeUnknownVariant {
            variant, expected, ..
        } => nearest(variant, expected),
        _ => None,
    };
    match guess {
        Some(name) => format!("{}\ndid you mean `{name}`?", error.render().trim_end()),
        None => error.render(),
    }
}

/// What is wrong with a field, for all that types cannot say.
struct Problem {
    key: &'static str,
    problem: String,
}

fn check(scenario: &Scenario) -> Result<(), Problem> {
    let wrong = |key, problem: &str| {
        Err(Problem {
            key,
            problem: problem.to_owned(),
        })
    };
    match scenario.protocol {
        Protocol::Bolt => {
            return wrong(
                "protocol",
                "not available in this version: http1, h2, h2c and tcp are",
            );
        }
        Protocol::H2c if scenario.tls => {
            return wrong("tls", "h2c is plain text: over TLS it is h2");
        }
        Protocol::Tcp if scenario.tls => return wrong("tls", "not available over tcp yet"),
        Protocol::Tcp if scenario.link == Link::Mtls => {
            return wrong("link", "not available over tcp yet");
        }
        Protocol::Tcp if scenario.new_connections => {
            return wrong(
                "new_connections",
                "an echo has no end that would close its connection",
            );
        }
        Protocol::Tcp if scenario.routes > 0 => return wrong("routes", "tcp has no paths"),
        Protocol::Tcp if scenario.request.body.0 == 0 => {
            return wrong(
                "request",
                "over tcp it is what comes back, so it may not be empty",
            );
        }
        Protocol::Tcp if scenario.link_protocol == HttpVersion::Http2 => {
            return wrong("link_protocol", "tcp is no HTTP");
        }
        Protocol::Http1 | Protocol::Tcp | Protocol::H2 | Protocol::H2c => {}
    }
    if !(1..=CONNECTIONS_MAX).contains(&scenario.connections) {
        return wrong("connections", "not between 1 and 60000");
    }
    if scenario.routes > ROUTES_MAX {
        return wrong("routes", "more than 100000");
    }
    if scenario.response.body.0 > BODY_BYTES_MAX as u64 {
        return wrong("response", "its body is larger than the origin's largest");
    }
    check_streams(scenario)?;
    check_sessions(scenario)?;
    check_load(scenario)?;
    check_upstream(scenario)?;
    check_neighbour(scenario)
}

fn check_streams(scenario: &Scenario) -> Result<(), Problem> {
    let wrong = |key, problem: String| Err(Problem { key, problem });
    let is_multiplexed = scenario.http() == HttpVersion::Http2;
    if !(1..=STREAMS_MAX).contains(&scenario.streams) {
        return wrong("streams", format!("not between 1 and {STREAMS_MAX}"));
    }
    if scenario.streams > 1 && !is_multiplexed {
        return wrong("streams", "only h2 and h2c have more than one".to_owned());
    }
    if scenario.connections * scenario.streams > CONNECTIONS_MAX {
        let problem = format!("times connections, more than {CONNECTIONS_MAX} requests at once");
        return wrong("streams", problem);
    }
    if is_multiplexed && scenario.new_connections {
        let problem = "over HTTP/2 a connection for each request is not available yet";
        return wrong("new_connections", problem.to_owned());
    }
    if is_multiplexed && scenario.request.body.0 > 0 {
        let problem = "over HTTP/2 requests have no body yet";
        return wrong("request", problem.to_owned());
    }
    Ok(())
}

fn check_sessions(scenario: &Scenario) -> Result<(), Problem> {
    let wrong = |key, problem: &str| {
        Err(Problem {
            key,
            problem: problem.to_owned(),
        })
    };
    if scenario.resume && !(scenario.tls && scenario.new_connections) {
        return wrong(
            "resume",
            "only over tls, and with new_connections: a kept one has nothing to resume",
        );
    }
    if !(1..=HOPS_MAX).contains(&scenario.hops) {
        return wrong("hops", "not 1 or 2");
    }
    if scenario.hops > 1 && !scenario.events.is_empty() {
        return wrong("events", "they would happen to one proxy of two");
    }
    let wants_added = |figure: &Figure| *figure == Figure::Added;
    let figures = scenario.collect.iter();
    let mut figures = figures.chain(scenario.goal.iter().map(|goal| &goal.figure));
    if figures.any(wants_added) && scenario.minus.is_none() {
        return wrong("verdict", "`added` needs a `minus`: a scenario to add to");
    }
    if scenario.minus.as_ref() == Some(&scenario.name) {
        return wrong("minus", "a scenario minus itself is nothing");
    }
    Ok(())
}

fn check_load(scenario: &Scenario) -> Result<(), Problem> {
    let wrong = |key, problem: &str| {
        Err(Problem {
            key,
            problem: problem.to_owned(),
        })
    };
    let is_open = match &scenario.load {
        Load::Rate(rate) if !(0.001..=RATE_MAX).contains(rate) => {
            return wrong("load", "the rate is not between 0.001 and 10000000");
        }
        Load::Share { part, .. } if !(0.001..=FACTOR_MAX).contains(part) => {
            return wrong("load", "the part is not between 0.001 and 100");
        }
        Load::Share { of, .. } if *of == scenario.name => {
            return wrong("load", "a scenario cannot be a part of itself");
        }
        Load::Rate(_) | Load::Share { .. } => true,
        Load::Saturate | Load::Idle => false,
    };
    for stage in &scenario.phases {
        if stage.time.0.is_zero() {
            return wrong("phases", "a phase takes time");
        }
        if !(0.0..=FACTOR_MAX).contains(&stage.times) {
            return wrong("phases", "`times` is not between 0 and 100");
        }
        if !is_open && (stage.times - 1.0).abs() > f64::EPSILON {
            return wrong("phases", "`times` needs a load with a rate or a share");
        }
    }
    Ok(())
}

fn check_upstream(scenario: &Scenario) -> Result<(), Problem> {
    let wrong = |key, problem: String| Err(Problem { key, problem });
    let endpoints = scenario.upstream.endpoints;
    if !(1..=ENDPOINTS_MAX).contains(&endpoints) {
        return wrong(
            "upstream",
            format!("`endpoints` is not between 1 and {ENDPOINTS_MAX}"),
        );
    }
    if let Some(stall) = scenario.upstream.stall
        && (stall.time.0.is_zero() || stall.time >= stall.every)
    {
        let problem = "a stall takes time, and less than `every`";
        return wrong("upstream", problem.to_owned());
    }
    for event in &scenario.events {
        match event.action {
            Action::KillEndpoint(i) | Action::RestartEndpoint(i) if i >= endpoints => {
                return wrong(
                    "events",
                    format!(
                        "there is no endpoint {i}: they count from 0 to {}",
                        endpoints - 1
                    ),
                );
            }
            Action::Routes(count) if count > ROUTES_MAX => {
                return wrong("events", "more than 100000 routes".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_neighbour(scenario: &Scenario) -> Result<(), Problem> {
    let Some(neighbour) = scenario.neighbour else {
        return Ok(());
    };
    let problem = match neighbour {
        _ if scenario.protocol != Protocol::Http1 || scenario.tls => {
            "neighbours speak plain HTTP/1.1 only"
        }
        Neighbour::SlowLoris { connections, .. } | Neighbour::Saturate { connections, .. }
            if !(1..=CONNECTIONS_MAX).contains(&connections) =>
        {
            "`connections` is not between 1 and 60000"
        }
        Neighbour::SlowLoris { byte_every, .. } if byte_every.0.is_zero() => {
            "`byte_every` may not be zero"
        }
        _ => return Ok(()),
    };
    Err(Problem {
        key: "neighbour",
        problem: problem.to_owned(),
    })
}

/// The line of a top-level key, counted from one.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let is_it = |line: &str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    text.lines().position(is_it).map(|i| i + 1)
}
