#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

fn problem(text: &str) -> String {
    parse("x.yaml", "x", text).unwrap_err().to_string()
}

const PLAIN: &str = "title: x\nprotocol: http1\nconnections: 64\nload: saturate\n";

/// Every shipped file parses, names are unique, and whatever takes a part of another scenario's capacity,
/// or is set against another's cost, does the same work as that.
#[test]
fn the_shipped_scenarios_are_consistent() {
    let all = shipped::all().unwrap();
    assert!(all.len() >= shipped::BUDGET.len());
    for (i, name) in shipped::BUDGET.iter().enumerate() {
        assert_eq!(
            all.get(i).map(|scenario| scenario.name.as_str()),
            Some(*name)
        );
    }
    for scenario in &all {
        for base in scenario.bases() {
            let base = shipped::named(base).unwrap();
            assert_eq!(base.load, Load::Saturate, "{}", scenario.name);
            assert_eq!(base.exchange(), scenario.exchange(), "{}", scenario.name);
            assert_eq!(base.hops, scenario.hops, "{}", scenario.name);
        }
        if scenario.minus.is_some() {
            assert_eq!(scenario.load, Load::Saturate, "{}", scenario.name);
        }
    }
}

/// A scenario survives the trip through a result's JSON.
#[test]
fn json_round_trips() {
    for scenario in shipped::all().unwrap() {
        let json = serde_json::to_string(&*scenario).unwrap();
        let back: Scenario = serde_json::from_str(&json).unwrap();
        assert_eq!(back, *scenario, "{json}");
    }
}

/// A figure's name is what a file calls it.
#[test]
fn figures_have_their_names() {
    for (figure, name) in Figure::ALL {
        let json = serde_json::to_string(&figure).unwrap();
        assert_eq!(json, format!("{name:?}"));
    }
}

/// The request takes the last of the routes.
#[test]
fn the_last_route_matches() {
    let scenario = shipped::named("routes-1000").unwrap();
    let prefixes = scenario.prefixes();
    assert_eq!(prefixes.len(), 1_000);
    let Exchange::Http { path, .. } = scenario.exchange() else {
        panic!("the scenario speaks HTTP")
    };
    assert_eq!(path, "/route-0999/b/128");
    let matching = prefixes.iter().position(|prefix| path.starts_with(prefix));
    assert_eq!(matching, Some(999));
}

/// A misspelt name is shown in its line, with what was probably meant.
#[test]
fn misspelt_names_are_guessed() {
    for (text, needles) in [
        (
            "title: x\nprotocol: http1\nconections: 64\nload: saturate\n",
            ["conections", "3", "did you mean `connections`?"],
        ),
        (
            "title: x\nprotocol: htp1\nconnections: 64\nload: saturate\n",
            ["htp1", "2", "did you mean `http1`?"],
        ),
        (
            "title: x\nprotocol: http1\nconnections: 1\nload: satturate\n",
            ["satturate", "4", "did you mean `saturate`?"],
        ),
    ] {
        let problem = problem(text);
        for needle in needles {
            assert!(problem.contains(needle), "{needle}: {problem}");
        }
    }
    let error = shipped::find("h1-182").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("did you mean `h1-128`?"),
        "{error}"
    );
}

/// HTTP/2 over TLS is over TLS, with as many streams as there may be.
#[test]
fn http2_is_read() {
    let text = PLAIN.replace("http1", "h2\nstreams: 937\nlink_protocol: http2");
    let scenario = parse("x.yaml", "x", &text).unwrap();
    assert!(scenario.tls && scenario.is_encrypted());
    assert_eq!(
        (scenario.http(), scenario.streams),
        (HttpVersion::Http2, 937)
    );
    let needed = [
        Capability::Http,
        Capability::Tls,
        Capability::H2,
        Capability::H2Upstream,
    ];
    assert_eq!(scenario.capabilities(), needed);
    let plain = parse("x.yaml", "x", &PLAIN.replace("http1", "h2c")).unwrap();
    assert_eq!(plain.capabilities(), [Capability::Http, Capability::H2c]);
    assert_eq!((plain.tls, plain.streams), (false, 1));
}

/// What types cannot say is refused with its line: limits at one above them, contradictions, and
/// protocols that are known and not spoken.
#[test]
fn what_does_not_fit_is_refused() {
    assert!(parse("x.yaml", "x", PLAIN).is_ok());
    for (from, to, needle) in [
        (
            "saturate",
            "saturate\nstreams: 2",
            "line 5, `streams`: only h2",
        ),
        ("http1", "h2\nstreams: 0", "line 3, `streams`"),
        ("http1", "h2\nstreams: 1001", "line 3, `streams`"),
        ("http1", "h2\nstreams: 938", "60000 requests at once"),
        ("http1", "h2c\ntls: true", "line 3, `tls`: h2c is plain"),
        ("http1", "h2\nnew_connections: true", "`new_connections`"),
        (
            "http1",
            "h2c\nrequest: { body: 1 }",
            "`request`: over HTTP/2",
        ),
        (
            "http1",
            "tcp\nrequest: { body: 1 }\nlink_protocol: http2",
            "`link_protocol`",
        ),
        (
            "http1",
            "bolt",
            "line 2, `protocol`: not available in this version",
        ),
        (
            "64",
            "60001",
            "line 3, `connections`: not between 1 and 60000",
        ),
        ("64", "0", "line 3, `connections`"),
        ("http1", "tcp", "`request`: over tcp"),
        ("saturate", "{ rate: 0 }", "line 4, `load`: the rate"),
        (
            "saturate",
            "{ share: { of: x, part: 0.5 } }",
            "a part of itself",
        ),
        (
            "saturate",
            "{ share: { of: y, part: 101 } }",
            "between 0.001 and 100",
        ),
        ("saturate", "saturate\nroutes: 100001", "line 5, `routes`"),
        (
            "saturate",
            "saturate\nupstream: { endpoints: 17 }",
            "line 5, `upstream`",
        ),
        (
            "saturate",
            "saturate\nupstream: { stall: { every: 1s, time: 1s } }",
            "less than `every`",
        ),
        (
            "saturate",
            "saturate\nupstream: { errors: 1.5 }",
            "between 0 and 1",
        ),
        (
            "saturate",
            "saturate\nevents: [{ at: 1s, do: { kill_endpoint: 1 } }]",
            "there is no endpoint 1",
        ),
        (
            "saturate",
            "saturate\nphases: [{ name: a, time: 1s, times: 2 }]",
            "needs a load with a rate",
        ),
        (
            "saturate",
            "saturate\nneighbour: { slow_loris: { connections: 9, byte_every: 0 } }",
            "may not be zero",
        ),
        (
            "saturate",
            "saturate\ntls: true\nneighbour: { saturate: { connections: 9, body: 1 } }",
            "plain",
        ),
        (
            "saturate",
            "saturate\nresume: true\nnew_connections: true",
            "line 5, `resume`",
        ),
        ("saturate", "saturate\ntls: true\nresume: true", "`resume`"),
        (
            "saturate",
            "saturate\nhops: 0",
            "line 5, `hops`: not 1 or 2",
        ),
        ("saturate", "saturate\nhops: 3", "`hops`"),
        (
            "saturate",
            "saturate\nhops: 2\nevents: [{ at: 1s, do: { signal: HUP } }]",
            "one proxy of two",
        ),
        (
            "saturate",
            "saturate\nverdict: { figure: added, at_most: 1 }",
            "needs a `minus`",
        ),
        ("saturate", "saturate\nminus: x", "minus itself"),
    ] {
        let problem = problem(&PLAIN.replace(from, to));
        assert!(problem.contains(needle), "{to}: {problem}");
    }
}

/// A scenario brings the one whose capacity it needs, once, in front of it.
#[test]
fn bases_come_first() {
    let names = |asked: &[&str]| -> Vec<String> {
        let asked: Vec<_> = asked
            .iter()
            .map(|name| shipped::find(name).unwrap())
            .collect();
        let ordered = shipped::with_bases(&asked).unwrap();
        ordered
            .iter()
            .map(|scenario| scenario.name.clone())
            .collect()
    };
    assert_eq!(names(&["h1-16k-half"]), ["h1-16k", "h1-16k-half"]);
    assert_eq!(
        names(&["tcp-16k", "h1-16k-half", "h1-16k"]),
        ["tcp-16k", "h1-16k", "h1-16k-half"]
    );
    let switch = ["two-hops-plain", "encryption-switch"];
    assert_eq!(names(&["encryption-switch"]), switch);
}

/// What a scenario needs follows from what it does.
#[test]
fn capabilities_follow() {
    let of = |name: &str| shipped::named(name).unwrap().capabilities();
    assert_eq!(of("h1-128"), [Capability::Http]);
    assert_eq!(of("tcp-16k"), [Capability::Tcp]);
    assert_eq!(of("tls-128"), [Capability::Http, Capability::Tls]);
    assert_eq!(of("two-hops"), [Capability::Http, Capability::Mtls]);
    let push = [Capability::Http, Capability::Routes, Capability::Reload];
    assert_eq!(of("config-push"), push);
}
