//! Plays a scenario's events while a peer is measured.

use std::{
    cmp::Reverse,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Action, Event, prefixes};
use crate::{
    control::{Control, Life},
    error::Error,
    peer::{Peer, process::Running, render::Setting},
};

/// A control interface must answer within this.
const ADMIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How much of its answer goes into an error.
const ANSWER_BYTES_MAX: u64 = 300;

/// Everything that an event can act on.
pub struct Stage<'a> {
    /// The peer's plug-in.
    pub peer: &'a Peer,
    /// Its process.
    pub running: &'a Running,
    /// What its configuration was rendered from.
    pub setting: Setting<'a>,
    /// The way to the origin.
    pub control: &'a Control,
}

/// A scenario's events, each of which happens once.
pub struct Player<'a> {
    events: Vec<&'a Event>,
    stage: Stage<'a>,
}

impl<'a> Player<'a> {
    /// Nothing has happened yet.
    pub fn new(events: &'a [Event], stage: Stage<'a>) -> Player<'a> {
        Player {
            events: in_order(events),
            stage,
        }
    }

    /// How long until the next event, if there is one.
    pub fn until_next(&self, elapsed: Duration) -> Option<Duration> {
        let next = self.events.last()?;
        Some(next.at.0.saturating_sub(elapsed))
    }

    /// Lets happen what is due.
    pub fn play(&mut self, elapsed: Duration) -> Result<(), Error> {
        while let Some(event) = self.events.pop_if(|event| event.at.0 <= elapsed) {
            self.stage.perform(&event.action)?;
        }
        Ok(())
    }
}

/// The next one last.
fn in_order(events: &[Event]) -> Vec<&Event> {
    let mut ordered: Vec<&Event> = events.iter().rev().collect();
    ordered.sort_by_key(|event| Reverse(event.at));
    ordered
}

impl Stage<'_> {
    fn perform(&self, action: &Action) -> Result<(), Error> {
        match action {
            Action::Signal(signal) => self.running.signal(*signal),
            Action::Routes(count) => self.push_routes(*count),
            Action::KillEndpoint(i) => {
                self.control.set_endpoint(*i, Life::Dead);
                Ok(())
            }
            Action::RestartEndpoint(i) => {
                self.control.set_endpoint(*i, Life::Alive);
                Ok(())
            }
            Action::Admin { method, path } => match self.setting.admin {
                Some(address) => ask(address, method, path)
                    .map_err(|problem| self.running.error(&format!("{method} {path}: {problem}"))),
                None => Err(self.running.error("it has no control interface")),
            },
        }
    }

    /// The routes that were there come first, so that the measured request goes where it went.
    fn push_routes(&self, count: usize) -> Result<(), Error> {
        let routes = prefixes(count);
        let setting = Setting {
            routes: &routes,
            ..self.setting
        };
        self.running.replace_files(&self.peer.render(&setting)?)?;
        match self.peer.manifest.reload.and_then(|reload| reload.signal) {
            Some(signal) => self.running.signal(signal),
            None => Ok(()),
        }
    }
}

/// One request over a connection of its own; anything but a 2xx is a problem.
fn ask(address: SocketAddr, method: &str, path: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut socket = TcpStream::connect_timeout(&address, ADMIN_TIME_MAX).map_err(text)?;
    socket
        .set_read_timeout(Some(ADMIN_TIME_MAX))
        .map_err(text)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    let mut beginning = socket.take(ANSWER_BYTES_MAX);
    beginning.read_to_end(&mut answer).map_err(text)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.starts_with("HTTP/1.1 2") {
        true => Ok(()),
        false => Err(answer.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::units::Time;

    /// Events happen in the order of their times, and those of one time in the order of the file.
    #[test]
    fn events_are_in_order() {
        let event = |seconds, i| Event {
            at: Time(Duration::from_secs(seconds)),
            action: Action::KillEndpoint(i),
        };
        let events = [event(2, 0), event(1, 1), event(1, 2), event(3, 3)];
        let order: Vec<&Action> = in_order(&events)
            .into_iter()
            .rev()
            .map(|event| &event.action)
            .collect();
        let expected = [1, 2, 0, 3].map(Action::KillEndpoint);
        assert_eq!(order, expected.iter().collect::<Vec<_>>());
    }
}
