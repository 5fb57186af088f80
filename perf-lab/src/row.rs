//! What is measured: the rows of the budget that need neither TLS nor HTTP/2.

use serde::Serialize;

use crate::{
    load::{Connections, Exchange},
    peer::{Capability, render::Mode},
};

/// One kind of work, measured for every peer alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// As on the command line.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What is exchanged.
    pub work: Work,
    /// Connections, or requests in flight if each has its own.
    pub connections: usize,
    /// Whether each request has its own connection.
    #[serde(skip)]
    pub keep: Connections,
    /// Routes in the peer's table, of which the last one matches; zero is a single default route.
    pub routes: usize,
    /// How hard.
    pub load: Load,
    /// What we want to reach.
    pub goal: Goal,
}

/// What is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A GET for a body of so many bytes.
    Get(u64),
    /// So many bytes there and back.
    Echo(usize),
}

/// How hard a peer is worked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Closed loop: as fast as it goes.
    Saturate,
    /// Open loop: half of what the best other peer reached in another row.
    HalfOf(&'static str),
    /// Open loop: so many requests per second.
    Rate(f64),
    /// One exchange per connection, then nothing.
    Idle,
}

/// What we want to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// CPU per request at most this part of another peer's.
    CpuFactor {
        /// Whose.
        of: Rival,
        /// The part.
        factor: f64,
    },
    /// Memory per idle connection at most this.
    KibPerConnection(f64),
}

/// Who we are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rival {
    /// Whoever is best in the row.
    Best,
    /// One peer.
    Peer(&'static str),
}

/// A row of kept connections at saturation with few routes; the table below says what differs.
const PLAIN: Row = Row {
    name: "",
    title: "",
    work: Work::Get(128),
    connections: 64,
    keep: Connections::Keep,
    routes: 0,
    load: Load::Saturate,
    goal: best(0.75),
};

const fn best(factor: f64) -> Goal {
    Goal::CpuFactor {
        of: Rival::Best,
        factor,
    }
}

const fn versus(peer: &'static str, factor: f64) -> Goal {
    Goal::CpuFactor {
        of: Rival::Peer(peer),
        factor,
    }
}

/// All rows, in the order in which they run. A half-load row comes after the one it halves.
pub const ROWS: [Row; 11] = [
    Row {
        name: "h1-128",
        title: "HTTP/1.1 keep-alive, 128 B",
        goal: versus("haproxy", 0.72),
        ..PLAIN
    },
    Row {
        name: "h1-128-half",
        title: "the same at half load",
        load: Load::HalfOf("h1-128"),
        goal: versus("haproxy", 0.72),
        ..PLAIN
    },
    Row {
        name: "h1-16k",
        title: "HTTP/1.1 keep-alive, 16 KiB body",
        work: Work::Get(16 << 10),
        ..PLAIN
    },
    Row {
        name: "h1-16k-half",
        title: "the same at half load",
        work: Work::Get(16 << 10),
        load: Load::HalfOf("h1-16k"),
        ..PLAIN
    },
    Row {
        name: "h1-1m",
        title: "HTTP/1.1 keep-alive, 1 MiB body",
        work: Work::Get(1 << 20),
        connections: 16,
        goal: versus("envoy", 0.70),
        ..PLAIN
    },
    Row {
        name: "h1-1m-half",
        title: "the same at half load",
        work: Work::Get(1 << 20),
        connections: 16,
        load: Load::HalfOf("h1-1m"),
        goal: versus("envoy", 0.70),
        ..PLAIN
    },
    Row {
        name: "tcp-16k",
        title: "TCP relay, 16 KiB there and back",
        work: Work::Echo(16 << 10),
        goal: best(0.85),
        ..PLAIN
    },
    Row {
        name: "short-connections",
        title: "a new connection per request, 128 B",
        keep: Connections::PerRequest,
        goal: best(0.85),
        ..PLAIN
    },
    Row {
        name: "routes-1000",
        title: "1,000 routes, match in the last, 128 B",
        routes: 1_000,
        goal: best(0.72),
        ..PLAIN
    },
    Row {
        name: "many-connections",
        title: "5,000 connections, 5,000 requests/s, 128 B",
        connections: 5_000,
        load: Load::Rate(5_000.0),
        goal: best(0.85),
        ..PLAIN
    },
    Row {
        name: "idle-connections",
        title: "10,000 idle connections",
        connections: 10_000,
        load: Load::Idle,
        goal: Goal::KibPerConnection(1.0),
        ..PLAIN
    },
];

impl Row {
    /// The row of a name.
    pub fn named(name: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// The row whose capacity this one halves.
    pub fn base(&self) -> Option<&'static Row> {
        match self.load {
            Load::HalfOf(base) => Row::named(base),
            _ => None,
        }
    }

    /// What the peer speaks.
    pub fn mode(&self) -> Mode {
        match self.work {
            Work::Get(_) => Mode::Http,
            Work::Echo(_) => Mode::Tcp,
        }
    }

    /// What a peer must be able to do.
    pub fn capabilities(&self) -> Vec<Capability> {
        let mut needed = match self.mode() {
            Mode::Http => vec![Capability::Http],
            Mode::Tcp => vec![Capability::Tcp],
        };
        if self.routes > 0 {
            needed.push(Capability::Routes);
        }
        needed
    }

    /// The path prefixes of its routes.
    pub fn prefixes(&self) -> Vec<String> {
        (0..self.routes).map(prefix).collect()
    }

    /// The exchange, on the last route if there are several.
    pub fn exchange(&self) -> Exchange {
        match self.work {
            Work::Echo(bytes) => Exchange::Echo { bytes },
            Work::Get(body_bytes) => {
                let prefix = self.routes.checked_sub(1).map_or("/".to_owned(), prefix);
                Exchange::Http {
                    host: "lab.example".to_owned(),
                    path: format!("{prefix}b/{body_bytes}"),
                    body_bytes: Some(body_bytes),
                }
            }
        }
    }
}

fn prefix(i: usize) -> String {
    format!("/route-{i:04}/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Names are unique, and whatever is halved stands before its half.
    #[test]
    fn the_table_is_consistent() {
        for (i, row) in ROWS.iter().enumerate() {
            let first = ROWS.iter().position(|other| other.name == row.name);
            assert_eq!(first, Some(i), "{}", row.name);
            if let Load::HalfOf(name) = row.load {
                let base = row.base().unwrap();
                assert_eq!((base.load, base.name), (Load::Saturate, name));
                assert!(ROWS.iter().position(|other| other.name == name).unwrap() < i);
                assert_eq!((base.work, base.connections), (row.work, row.connections));
            }
        }
    }

    /// The request takes the last of the routes.
    #[test]
    fn the_last_route_matches() {
        let row = Row::named("routes-1000").unwrap();
        let prefixes = row.prefixes();
        assert_eq!(prefixes.len(), 1_000);
        let Exchange::Http { path, .. } = row.exchange() else {
            unreachable!("the row speaks HTTP")
        };
        assert_eq!(path, "/route-0999/b/128");
        let matching = prefixes.iter().position(|prefix| path.starts_with(prefix));
        assert_eq!(matching, Some(999));
    }
}
