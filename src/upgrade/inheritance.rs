//! What a process leaves to the one that replaces it: sent as messages by the one, put together again by the other.
//! `D` is a descriptor, which nothing here looks into.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use tidegate_core::{config, encryption::change::RolloutChange};
use tidegate_shard::tls::TicketKeys;

use super::message::{
    Ejection, KeyBytes, Malformed, Message, Place, SOCKETS_A_MESSAGE_MAX, TOTALS, VERSION,
};
use crate::secrets::Tickets;

/// Sockets that one process may leave: of every listener on every shard.
pub(super) const SOCKETS_MAX: usize = config::LISTENERS_MAX * config::SHARDS_MAX;
/// Ejections that are handed over; the rest is found again.
pub(super) const EJECTIONS_MAX: usize = config::ENDPOINTS_MAX;
/// Rollouts set by hand: one a cluster.
const ROLLOUTS_MAX: usize = config::CLUSTERS_MAX;

/// What a process leaves.
#[derive(Debug)]
pub(crate) struct Inheritance<D = OwnedFd> {
    /// The how-many-th process in a row the new one is.
    pub(crate) generation: u32,
    /// Upgrades so far, by result.
    pub(crate) totals: [u64; TOTALS],
    /// Listening sockets by configured address; the first one is shard 0's.
    pub(crate) sockets: BTreeMap<SocketAddr, Vec<D>>,
    /// The admin server's socket, with its configured address.
    pub(crate) admin: Option<(SocketAddr, D)>,
    /// The keys of session tickets.
    pub(crate) tickets: Option<Tickets>,
    /// Rollouts that were set by hand, by cluster.
    pub(crate) rollouts: Vec<(Box<str>, RolloutChange)>,
    /// Endpoints that are out.
    pub(crate) ejections: Vec<Ejection>,
    /// A file in memory with what the control plane brought.
    pub(crate) resources: Option<D>,
}

/// Of a process that takes over from nobody.
impl<D> Default for Inheritance<D> {
    fn default() -> Self {
        Inheritance {
            generation: 1,
            totals: [0; TOTALS],
            sockets: BTreeMap::new(),
            admin: None,
            tickets: None,
            rollouts: Vec::new(),
            ejections: Vec::new(),
            resources: None,
        }
    }
}

impl<D> Inheritance<D> {
    /// How many sockets there are.
    pub(super) fn count(&self) -> usize {
        let listeners: usize = self.sockets.values().map(Vec::len).sum();
        listeners + usize::from(self.admin.is_some())
    }

    /// The messages that say it all, with the descriptors that travel beside each.
    pub(super) fn messages(&self) -> Vec<(Message, Vec<&D>)> {
        let mut messages = vec![(
            Message::Begin {
                version: VERSION,
                generation: self.generation,
                totals: self.totals,
            },
            Vec::new(),
        )];
        messages.extend(self.batches());
        let alone = |message| (message, Vec::new());
        messages.extend(self.tickets.iter().map(|tickets| {
            alone(Message::Tickets {
                age: tickets.age,
                keys: KeyBytes(tickets.keys.to_bytes()),
            })
        }));
        let rollouts = self.rollouts.iter().take(ROLLOUTS_MAX);
        messages.extend(rollouts.map(|(cluster, change)| {
            alone(Message::Rollout {
                cluster: cluster.clone(),
                change: change.to_string().into(),
            })
        }));
        let ejections = self.ejections.iter().take(EJECTIONS_MAX);
        messages.extend(ejections.map(|ejection| alone(Message::Ejection(ejection.clone()))));
        let resources = self.resources.iter();
        messages.extend(resources.map(|file| (Message::Resources, vec![file])));
        messages.push(alone(Message::End {
            sockets: self.count() as u32,
        }));
        messages
    }

    /// The sockets, as many a message as the kernel passes.
    fn batches(&self) -> Vec<(Message, Vec<&D>)> {
        let listeners = self.sockets.iter();
        let listeners = listeners.flat_map(|(bind, sockets)| {
            sockets
                .iter()
                .map(|socket| (Place::Listener(*bind), socket))
        });
        let admin = self.admin.iter();
        let admin = admin.map(|(address, socket)| (Place::Admin(*address), socket));
        let all: Vec<_> = listeners.chain(admin).collect();
        let batches = all.chunks(SOCKETS_A_MESSAGE_MAX);
        batches
            .map(|batch| {
                let (places, sockets) = batch.iter().copied().unzip();
                (Message::Sockets(places), sockets)
            })
            .collect()
    }
}

/// An inheritance that is still arriving.
#[derive(Debug)]
pub(super) struct Intake<D> {
    arrived: Option<Inheritance<D>>,
}

impl<D> Intake<D> {
    /// Nothing yet.
    pub(super) fn new() -> Intake<D> {
        Intake { arrived: None }
    }

    /// Takes the next message with its descriptors; gives all of it at the end.
    ///
    /// # Errors
    ///
    /// A message that has no place here, in this order, or in this number.
    pub(super) fn take(
        &mut self,
        message: Message,
        mut descriptors: Vec<D>,
    ) -> Result<Option<Inheritance<D>>, Malformed> {
        if let Message::Begin {
            version,
            generation,
            totals,
        } = message
        {
            return self.begin(version, generation, totals).map(|()| None);
        }
        let Some(arrived) = &mut self.arrived else {
            return Err(Malformed("a message before the beginning"));
        };
        match message {
            Message::Sockets(places) => {
                if places.len() != descriptors.len() {
                    return Err(Malformed("sockets without a place"));
                }
                let sockets = places.into_iter().zip(descriptors);
                sockets.for_each(|(place, socket)| arrived.put(place, socket));
                if arrived.count() > SOCKETS_MAX {
                    return Err(Malformed("too many sockets"));
                }
            }
            Message::Tickets { age, keys } => {
                let keys = TicketKeys::from_bytes(&keys.0).ok_or(Malformed("broken keys"))?;
                let keys = Arc::new(keys);
                arrived.tickets = Some(Tickets { keys, age });
            }
            Message::Rollout { cluster, change } => {
                let change = change.parse().map_err(|_| Malformed("a broken share"))?;
                arrived.rollouts.push((cluster, change));
                if arrived.rollouts.len() > ROLLOUTS_MAX {
                    return Err(Malformed("too many rollouts"));
                }
            }
            Message::Ejection(ejection) => {
                arrived.ejections.push(ejection);
                if arrived.ejections.len() > EJECTIONS_MAX {
                    return Err(Malformed("too many ejections"));
                }
            }
            Message::Resources if descriptors.len() == 1 => arrived.resources = descriptors.pop(),
            Message::End { sockets } if sockets as usize == arrived.count() => {
                return Ok(self.arrived.take());
            }
            Message::End { .. } => return Err(Malformed("sockets that did not arrive")),
            _ => return Err(Malformed("a message that has no place here")),
        }
        Ok(None)
    }

    fn begin(
        &mut self,
        version: u16,
        generation: u32,
        totals: [u64; TOTALS],
    ) -> Result<(), Malformed> {
        if version != VERSION {
            return Err(Malformed("a version that was not offered"));
        }
        if self.arrived.is_some() {
            return Err(Malformed("a second beginning"));
        }
        self.arrived = Some(Inheritance {
            generation,
            totals,
            ..Inheritance::default()
        });
        Ok(())
    }
}

impl<D> Inheritance<D> {
    fn put(&mut self, place: Place, socket: D) {
        match place {
            Place::Listener(bind) => self.sockets.entry(bind).or_default().push(socket),
            Place::Admin(address) => self.admin = Some((address, socket)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn inheritance(listeners: &[(&str, usize)]) -> Inheritance<usize> {
        let mut number = 0..;
        let sockets = listeners
            .iter()
            .map(|(bind, n)| (bind.parse().unwrap(), number.by_ref().take(*n).collect()));
        Inheritance {
            generation: 3,
            totals: [2, 1, 0, 7],
            sockets: sockets.collect(),
            admin: Some(("127.0.0.1:9901".parse().unwrap(), 9901)),
            tickets: Some(Tickets {
                keys: Arc::new(TicketKeys::new(|bytes| bytes.fill(5))),
                age: Duration::from_secs(60),
            }),
            rollouts: vec![("pay".into(), RolloutChange::Share(2_000))],
            ejections: vec![Ejection {
                cluster: "pay".into(),
                endpoint: "10.0.0.7:80".parse().unwrap(),
                remaining: Duration::from_secs(9),
            }],
            resources: Some(77),
        }
    }

    /// Each message over the wire, without its descriptors.
    fn hand_over(messages: Vec<(Message, Vec<&usize>)>) -> Result<Inheritance<usize>, Malformed> {
        let mut intake = Intake::new();
        for (message, descriptors) in messages {
            assert_eq!(message.descriptors(), descriptors.len());
            assert!(descriptors.len() <= SOCKETS_A_MESSAGE_MAX);
            let heard = Message::decode(&message.encode()).unwrap();
            let descriptors = descriptors.into_iter().copied().collect();
            if let Some(all) = intake.take(heard, descriptors)? {
                return Ok(all);
            }
        }
        Err(Malformed("no end"))
    }

    /// Goal: all of it arrives, each socket at its place. Method: there and back, with more sockets than one message
    /// holds.
    #[test]
    fn all_of_it_arrives() {
        let left = inheritance(&[("0.0.0.0:443", 200), ("[::]:443", 100), ("10.0.0.1:80", 1)]);
        let got = hand_over(left.messages()).unwrap();
        assert_eq!(got.sockets, left.sockets);
        assert_eq!(got.admin, left.admin);
        assert_eq!((got.generation, got.totals), (3, [2, 1, 0, 7]));
        assert_eq!(got.rollouts, left.rollouts);
        assert_eq!(got.ejections, left.ejections);
        assert_eq!(got.resources, Some(77));
        let (got, left) = (got.tickets.unwrap(), left.tickets.unwrap());
        assert_eq!(got.age, left.age);
        assert_eq!(*got.keys.to_bytes(), *left.keys.to_bytes());
    }

    /// Goal: what did not arrive whole is not used. Method: leave out each message in turn; say each one twice;
    /// begin in the middle; another version.
    #[test]
    fn nothing_is_taken_in_part() {
        let left = inheritance(&[("0.0.0.0:443", 2)]);
        let essential = |message: &Message| {
            matches!(
                message,
                Message::Begin { .. } | Message::Sockets(_) | Message::End { .. }
            )
        };
        for at in 0..left.messages().len() {
            let mut messages = left.messages();
            let (without, _) = messages.remove(at);
            let result = hand_over(messages);
            assert_eq!(result.is_err(), essential(&without), "without {without:?}");
        }
        let mut twice = left.messages();
        twice.splice(0..0, left.messages().into_iter().take(1));
        assert!(hand_over(twice).is_err());
        let mut later = left.messages();
        later.splice(
            0..1,
            [(
                Message::Begin {
                    version: VERSION + 1,
                    generation: 1,
                    totals: [0; TOTALS],
                },
                Vec::new(),
            )],
        );
        assert!(hand_over(later).is_err());
        for stray in [Message::Serve, Message::Ready { left: Vec::new() }] {
            let mut messages = left.messages();
            messages.insert(1, (stray, Vec::new()));
            assert!(hand_over(messages).is_err());
        }
    }

    /// Goal: what a peer can make grow has a limit. Method: as many sockets as there may be, and one above.
    #[test]
    fn sockets_have_a_limit() {
        // The admin server has one.
        assert!(hand_over(inheritance(&[("0.0.0.0:443", SOCKETS_MAX - 1)]).messages()).is_ok());
        let above = inheritance(&[("0.0.0.0:443", SOCKETS_MAX)]);
        assert_eq!(
            hand_over(above.messages()).unwrap_err(),
            Malformed("too many sockets")
        );
    }
}
