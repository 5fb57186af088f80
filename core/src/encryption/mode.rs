//! When a listener may become strict: a ratchet that turns freely one way only.
//!
//! `disabled` → `permissive` → `strict`. A step back is always taken. A step to `strict` would cut off
//! whoever still speaks plaintext, so it is refused, with the census as the reason, while a plaintext
//! connection is open or was seen within `census_window`. `force` overrides that; whoever does so is told
//! whom it hits. A listener that was not there before has no census: at start-up `strict` is taken as it is.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use super::census::{Count, OTHER, Report};
use crate::config::model::{Config, Listener, ServerMode};

/// Peers that a refusal names; a log line has to stay readable.
pub const PEERS_NAMED: usize = 8;

/// What becomes of a listener's step to `strict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken: nobody is hit.
    Accepted {
        /// Name of the listener.
        listener: Arc<str>,
    },
    /// It is taken although somebody is hit, since that was asked for. To be logged.
    Forced(StillPlaintext),
    /// It is not taken.
    Refused(StillPlaintext),
}

/// Who still speaks plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StillPlaintext {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Its `census_window`.
    pub window: Duration,
    /// Plaintext connections open.
    pub connections_open: u64,
    /// Of those, the ones that have not said whose they are.
    pub unknown_open: u64,
    /// How long ago plaintext was seen last.
    pub last_ago: Duration,
    /// Applications, the latest first, at most [`PEERS_NAMED`].
    pub peers: Vec<Peer>,
    /// Further ones.
    pub peers_more: usize,
}

/// An application that still speaks plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called.
    pub name: Arc<str>,
    /// Connections open.
    pub connections_open: u64,
    /// Requests so far.
    pub requests: u64,
    /// How long ago it was seen last.
    pub last_ago: Duration,
}

/// What a change of the configuration means for the listeners that become strict by it: one verdict for each,
/// by name. Listeners are the same when their address is: that is what connections hold on to.
///
/// `census` gives the census of the listener in use at an address; `force` takes every step, as
/// `force: true` does for one listener.
pub fn review(
    old: &Config,
    new: &Config,
    census: impl Fn(SocketAddr) -> Report,
    force: bool,
    now_unix_ms: u64,
) -> Vec<Verdict> {
    let steps = new.listeners.iter().filter_map(|(name, listener)| {
        let before = old.listeners.values().find(|l| l.bind == listener.bind)?;
        let is_step = mode(before) != ServerMode::Strict && mode(listener) == ServerMode::Strict;
        is_step.then_some((name, listener))
    });
    steps
        .filter_map(|(name, listener)| {
            let tls = listener.tls.as_ref()?;
            let report = census(listener.bind);
            Some(
                match still_plaintext(name, tls.census_window, &report, now_unix_ms) {
                    None => Verdict::Accepted {
                        listener: Arc::clone(name),
                    },
                    Some(still) if force || tls.force => Verdict::Forced(still),
                    Some(still) => Verdict::Refused(still),
                },
            )
        })
        .collect()
}

/// Which connections a listener takes; without a `tls` section, plaintext.
pub fn mode(listener: &Listener) -> ServerMode {
    let tls = listener.tls.as_ref();
    tls.map_or(ServerMode::Disabled, |tls| tls.mode)
}

/// The word of a mode in files and views.
pub const fn word(mode: ServerMode) -> &'static str {
    match mode {
        ServerMode::Disabled => "disabled",
        ServerMode::Permissive => "permissive",
        ServerMode::Strict => "strict",
    }
}

/// Whom `strict` would hit now; `None` if nobody.
pub fn still_plaintext(
    listener: &Arc<str>,
    window: Duration,
    census: &Report,
    now_unix_ms: u64,
) -> Option<StillPlaintext> {
    let since = now_unix_ms.saturating_sub(window.as_millis() as u64);
    let plaintext = &census.total.plaintext;
    if !plaintext.is_seen_since(since) {
        return None;
    }
    let ago = |count: &Count| Duration::from_millis(now_unix_ms.saturating_sub(count.last_unix_ms));
    let peers = census.plaintext_peers(since);
    let named = peers.iter().take(PEERS_NAMED).map(|(name, count)| Peer {
        name: Arc::clone(name),
        connections_open: count.connections_open,
        requests: count.requests,
        last_ago: ago(count),
    });
    Some(StillPlaintext {
        listener: Arc::clone(listener),
        window,
        connections_open: plaintext.connections_open,
        unknown_open: census.plaintext_unknown_open(),
        last_ago: ago(plaintext),
        peers: named.collect(),
        peers_more: peers.len().saturating_sub(PEERS_NAMED),
    })
}

impl fmt::Display for StillPlaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "listener `{}`: plaintext connections open {}, plaintext last seen {} ago (census_window {})",
            self.listener,
            self.connections_open,
            Ago(self.last_ago),
            Ago(self.window),
        )?;
        let mut lead = "; by ";
        for peer in &self.peers {
            write!(f, "{lead}{peer}")?;
            lead = ", ";
        }
        if self.peers_more > 0 {
            write!(f, ", and {} more applications", self.peers_more)?;
        }
        if self.unknown_open > 0 {
            let unknown = self.unknown_open;
            write!(f, "; {unknown} open connections have sent no request yet")?;
        }
        Ok(())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.name {
            OTHER => f.write_str("applications without a row of their own")?,
            name => write!(f, "`{name}`")?,
        }
        write!(
            f,
            " (open {}, requests {}, {} ago)",
            self.connections_open,
            self.requests,
            Ago(self.last_ago)
        )
    }
}

/// A duration as one is told: to the second, or to the millisecond if it is short.
struct Ago(Duration);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..600 => write!(f, "{seconds} s"),
            seconds @ 600..36_000 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{} h", seconds / 3600),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use crate::{
        config,
        encryption::{
            census::{Application, Bytes, Census, Counts},
            fixture,
            rollout::LinkKind,
        },
        stats::PerShard,
    };
    use ServerMode::{Disabled, Permissive, Strict};

    const NOW: u64 = 1_700_000_000_000;
    const WINDOW: Duration = Duration::from_secs(60);

    fn configured(modes: &[(&str, u16, Option<ServerMode>)], force: bool) -> Config {
        let mut text = "version: 1\nlisteners:\n".to_owned();
        for (name, port, _) in modes {
            text +=
                &format!("  {name}: {{ bind: \"127.0.0.1:{port}\", protocol: tcp, to: app }}\n");
        }
        text += "clusters: { app: { endpoints: { static: [ \"127.0.0.1:9\" ] } } }\n";
        let (mut config, _) = config::parse("test", &text).unwrap();
        for (name, _, mode) in modes {
            let tls = mode.map(|mode| {
                let mut tls = fixture::listener_tls(&["web"]);
                (tls.mode, tls.force, tls.census_window) = (mode, force, WINDOW);
                tls
            });
            config.listeners.get_mut(*name).unwrap().tls = tls.map(Into::into);
        }
        config
    }

    /// One plaintext peer, seen `ago_ms` ago, with so many connections open.
    fn seen(ago_ms: u64, open: u64) -> Report {
        let plaintext = Count {
            requests: 3,
            connections_open: open,
            last_unix_ms: NOW - ago_ms,
            ..Count::default()
        };
        let counts = Counts {
            plaintext,
            tls: Count::default(),
        };
        Report {
            total: counts,
            applications: [("old-pay".into(), counts)].into(),
            other: Counts::default(),
        }
    }

    /// Goal: only a step to strict is judged, only by plaintext that is open or recent, and force takes it.
    /// Method: table of steps and of what was seen.
    #[test]
    fn steps_to_strict_are_judged() {
        let none = Report::default();
        let open = seen(3_600_000, 1);
        let (inside, edge, outside) = (seen(59_999, 0), seen(60_000, 0), seen(60_001, 0));
        #[rustfmt::skip]
        let table: &[(Option<ServerMode>, ServerMode, &Report, bool, &str)] = &[
            // From, to, census, force, verdict.
            (Some(Permissive), Strict, &none, false, "accepted"),
            (Some(Permissive), Strict, &outside, false, "accepted"),
            (Some(Permissive), Strict, &edge, false, "refused"),
            (Some(Permissive), Strict, &inside, false, "refused"),
            (Some(Permissive), Strict, &open, false, "refused"),
            (Some(Permissive), Strict, &open, true, "forced"),
            (Some(Permissive), Strict, &none, true, "accepted"),
            (Some(Disabled), Strict, &open, false, "refused"),
            (None, Strict, &open, false, "refused"),
            (Some(Strict), Strict, &open, false, "none"),
            (Some(Strict), Permissive, &open, false, "none"),
            (Some(Strict), Disabled, &open, false, "none"),
            (Some(Permissive), Disabled, &open, false, "none"),
            (Some(Disabled), Permissive, &open, false, "none"),
        ];
        for (row, (from, to, census, force, expected)) in table.iter().enumerate() {
            let old = configured(&[("web", 80, *from)], false);
            for (in_file, by_hand) in [(*force, false), (false, *force)] {
                let new = configured(&[("web", 80, Some(*to))], in_file);
                let verdicts = review(&old, &new, |_| (*census).clone(), by_hand, NOW);
                let said = match verdicts.as_slice() {
                    [] => "none",
                    [Verdict::Accepted { .. }] => "accepted",
                    [Verdict::Forced(_)] => "forced",
                    [Verdict::Refused(_)] => "refused",
                    more => panic!("{more:?}"),
                };
                assert_eq!(said, *expected, "row {row}");
            }
        }
    }

    /// Goal: a listener is known by its address, so that another name is no way around the ratchet, and a new
    /// listener has no past. Method: rename one, add one.
    #[test]
    fn listeners_are_known_by_address() {
        let old = configured(&[("web", 80, Some(Permissive))], false);
        let new = configured(
            &[("web", 81, Some(Strict)), ("web2", 80, Some(Strict))],
            false,
        );
        let asked = |bind: SocketAddr| match bind.port() {
            80 => seen(0, 1),
            port => panic!("{port} has no census"),
        };
        let verdicts = review(&old, &new, asked, false, NOW);
        let [Verdict::Refused(still)] = verdicts.as_slice() else {
            panic!("{verdicts:?}");
        };
        assert_eq!(&*still.listener, "web2");
    }

    /// Goal: a refusal says who, how many and when, and stays a line. Method: more peers than are named, and
    /// a connection that has said nothing.
    #[test]
    fn refusals_name_the_peers() {
        let shards = PerShard::<Census>::new(1);
        let census = shards.iter().next().unwrap();
        for i in 0..PEERS_NAMED as u64 + 2 {
            census.opened(LinkKind::Plaintext, NOW - i);
            let application = census.application(&format!("app-{i}"));
            census.belongs(LinkKind::Plaintext, application, NOW - i);
            census.served(LinkKind::Plaintext, application, Bytes::default(), NOW - i);
        }
        census.opened(LinkKind::Plaintext, NOW);
        census.served(
            LinkKind::Plaintext,
            Application::OTHER,
            Bytes::default(),
            NOW - 12_000,
        );
        let report = Report::of(&shards);
        let still = still_plaintext(&"web".into(), WINDOW, &report, NOW).unwrap();
        assert_eq!(still.connections_open, PEERS_NAMED as u64 + 3);
        let text = still.to_string();
        assert!(
            text.starts_with(
                "listener `web`: plaintext connections open 11, plaintext last seen 0.0 s ago \
                 (census_window 60 s); by `app-0` (open 1, requests 1, 0.0 s ago), `app-1` "
            ),
            "{text}"
        );
        assert!(
            text.ends_with(
                "`app-7` (open 1, requests 1, 0.0 s ago), and 3 more applications; 1 open connections \
                 have sent no request yet"
            ),
            "{text}"
        );
        assert_eq!(
            still_plaintext(&"web".into(), WINDOW, &Report::default(), NOW),
            None
        );
    }

    /// Goal: durations are told at a sensible grain. Method: table.
    #[test]
    fn durations_are_told() {
        for (ms, text) in [
            (200, "0.2 s"),
            (59_999, "59 s"),
            (1_200_000, "20 min"),
            (86_400_000, "24 h"),
        ] {
            assert_eq!(Ago(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
