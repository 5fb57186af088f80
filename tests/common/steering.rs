//! Two units and an exclusive group behind a proxy with a steering program, and what is asked of it.

use serde_json::Value;

use super::{Client, Origin, Proxy, Response, proxy::web};

/// Two units and an exclusive group, one origin each.
pub struct Places {
    pub unit1: Origin,
    pub unit2: Origin,
    pub group: Origin,
}

impl Places {
    pub fn start() -> Places {
        Places {
            unit1: Origin::named("unit1"),
            unit2: Origin::named("unit2"),
            group: Origin::named("transfers"),
        }
    }

    /// A route to unit1, and a steering section with these rules, one a line.
    pub fn config(&self, rules: &str) -> String {
        self.with("trusted_peers: [192.0.2.0/24]", rules)
    }

    pub fn with(&self, more: &str, rules: &str) -> String {
        let clusters = [
            ("pay-1", &self.unit1),
            ("pay-2", &self.unit2),
            ("pay-transfers", &self.group),
        ];
        let web = web("{ name: pay, to: pay-1 }", &clusters);
        format!("{web}{}", steering(more, rules))
    }

    /// How many requests each got.
    pub fn got(&self) -> [usize; 3] {
        [&self.unit1, &self.unit2, &self.group].map(|origin| origin.requests().len())
    }
}

pub fn steering(more: &str, rules: &str) -> String {
    format!(
        "steering:\n  {more}\n  applications:\n    pay:\n      units: {{ unit1: pay-1, unit2: pay-2 }}\n      \
         groups: {{ transfers: {{ cluster: pay-transfers, exclusive: true }} }}\n  rules:\n{rules}"
    )
}

/// A rule with this id that matches `when`, and does `what`.
pub fn rule(id: &str, when: &str, what: &str) -> String {
    format!(
        "    - {{ id: {id}, owner: team, epoch: 17, match: {{ application: pay{when} }}, {what} }}\n"
    )
}

pub fn get(client: &mut Client, path: &str, headers: &str) -> Response {
    client.exchange(format!(
        "GET {path} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n"
    ))
}

pub fn view(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/steering").text()).unwrap()
}

/// Posts `body` to the admin server.
pub fn post(proxy: &Proxy, target: &str, body: &str) -> Response {
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    Client::connect(proxy.admin()).exchange(request)
}
