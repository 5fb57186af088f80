//! What the shards encrypt with, and the ticket keys below it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_core::{config::model::Config, encryption::secret::Material, message::TlsContexts};
use tidegate_shard::tls::{self, KeyLog, Lasting, TicketKeys};

use crate::exit::{Exit, Failure};

/// How long a ticket key seals; it opens for as long again. Long enough that clients of every day resume,
/// short enough that a stolen key is of little use.
const TICKET_KEY_LIFE: Duration = Duration::from_secs(12 * 3600);

/// The keys of session tickets, as they go from one process to the next (E7).
#[derive(Clone, Debug)]
pub(crate) struct Tickets {
    /// The current one and the one before.
    pub(crate) keys: Arc<TicketKeys>,
    /// How long ago the current one was made.
    pub(crate) age: Duration,
}

/// The contexts in use. One set for all shards.
pub(super) struct Contexts {
    lasting: Lasting,
    /// When a new ticket key is to be made, since the start of the process.
    rotation_due: Duration,
    /// Of the newest contexts. What did not change carries an older one (E11).
    generation: u64,
    in_use: Option<TlsContexts>,
    /// Shards were told to use them.
    is_told: bool,
}

/// Contexts that are not in use yet.
pub(super) struct Built {
    contexts: TlsContexts,
    generation: u64,
}

/// A listener or cluster that gets no context, and why.
pub(super) type Faults = Vec<(Arc<str>, String)>;

impl Contexts {
    /// None yet, with the ticket keys of the process before, or the first one.
    pub(super) fn new(
        key_log: Option<KeyLog>,
        tickets: Option<Tickets>,
    ) -> Result<Contexts, Failure> {
        let Tickets { keys, age } = match tickets {
            Some(tickets) => tickets,
            None => Tickets {
                keys: Arc::new(with_random(|random| TicketKeys::new(random))?),
                age: Duration::ZERO,
            },
        };
        Ok(Contexts {
            lasting: Lasting {
                tickets: keys,
                key_log,
            },
            rotation_due: TICKET_KEY_LIFE.saturating_sub(age),
            generation: 0,
            in_use: None,
            is_told: false,
        })
    }

    /// Makes those that `config` needs of `materials`. Nothing is in use before [`Self::take`].
    pub(super) fn build(
        &self,
        config: &Config,
        materials: &BTreeMap<Arc<str>, Material>,
    ) -> (Built, Faults) {
        let generation = self.generation + 1;
        let (contexts, faults) = tls::build(
            config,
            materials,
            &self.lasting,
            generation,
            self.in_use.as_ref(),
        );
        let built = Built {
            contexts,
            generation,
        };
        (built, faults)
    }

    /// Uses them from now on.
    pub(super) fn take(&mut self, built: Built) {
        self.generation = built.generation;
        self.in_use = Some(built.contexts);
        self.is_told = false;
    }

    /// What is in use, if shards were not told yet; they are then.
    pub(super) fn tell(&mut self) -> Option<TlsContexts> {
        match std::mem::replace(&mut self.is_told, true) {
            false => self.in_use.clone(),
            true => None,
        }
    }

    /// What is in use.
    pub(super) fn in_use(&self) -> Option<&TlsContexts> {
        self.in_use.as_ref()
    }

    /// Makes a new ticket key if the current one has lived its time; whether it did. The contexts have to
    /// be built again then. `now` is the time since the start of the process.
    pub(super) fn rotate_tickets(&mut self, now: Duration) -> Result<bool, Failure> {
        if now < self.rotation_due {
            return Ok(false);
        }
        let tickets = with_random(|random| self.lasting.tickets.rotate(random))?;
        self.lasting.tickets = Arc::new(tickets);
        self.rotation_due = now + TICKET_KEY_LIFE;
        Ok(true)
    }

    /// The ticket keys, for the process that replaces this one at `now`.
    pub(super) fn tickets(&self, now: Duration) -> Tickets {
        let remaining = self.rotation_due.saturating_sub(now);
        Tickets {
            keys: self.lasting.tickets.clone(),
            age: TICKET_KEY_LIFE.saturating_sub(remaining),
        }
    }
}

/// Makes keys of the operating system's random numbers. A key that those failed for is thrown away.
fn with_random(
    make: impl FnOnce(&mut dyn FnMut(&mut [u8])) -> TicketKeys,
) -> Result<TicketKeys, Failure> {
    let mut result = Ok(());
    let keys = make(&mut |bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            result = Err(error);
        }
    });
    result.map_err(|error| {
        Failure::new(
            Exit::HostUnfit,
            format!("the system gives no random numbers: {error}"),
            "allow getrandom(2) in the seccomp profile",
        )
    })?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: ticket keys are random, rotated after twelve hours and not before, and the previous one is
    /// kept. Method: a day in four looks; keys as they are handed over to the next process.
    #[test]
    fn ticket_keys_are_rotated() {
        let hours = |h: u64| Duration::from_secs(h * 3600);
        let mut contexts = Contexts::new(None, None).unwrap();
        let first = contexts.lasting.tickets.to_bytes();
        assert!(!contexts.rotate_tickets(hours(12) - hours(1)).unwrap());
        assert_eq!(*contexts.lasting.tickets.to_bytes(), *first);
        assert!(contexts.rotate_tickets(hours(12)).unwrap());
        let second = contexts.lasting.tickets.to_bytes();
        assert!(second.ends_with(&first), "the previous key still opens");
        assert!(!contexts.rotate_tickets(hours(23)).unwrap());
        assert!(contexts.rotate_tickets(hours(24)).unwrap());
        let third = contexts.lasting.tickets.to_bytes();
        assert_eq!(third.len(), second.len(), "two keys, not three");
        assert!(!third.ends_with(&first));
        let other = Contexts::new(None, None).unwrap();
        assert_ne!(*other.lasting.tickets.to_bytes(), *first, "random");
    }

    /// Goal: keys pass to the next process with their age, so that upgrades neither wear them out nor keep them for
    /// ever (E7). Method: hand over after three hours, and again after two; the third process rotates after seven.
    #[test]
    fn ticket_keys_age_over_upgrades() {
        let hours = |h: u64| Duration::from_secs(h * 3600);
        let first = Contexts::new(None, None).unwrap();
        let keys = first.lasting.tickets.to_bytes();
        let second = Contexts::new(None, Some(first.tickets(hours(3)))).unwrap();
        assert_eq!(second.tickets(hours(0)).age, hours(3));
        let mut third = Contexts::new(None, Some(second.tickets(hours(2)))).unwrap();
        assert_eq!(*third.lasting.tickets.to_bytes(), *keys);
        assert!(
            !third
                .rotate_tickets(hours(7) - Duration::from_secs(1))
                .unwrap()
        );
        assert!(third.rotate_tickets(hours(7)).unwrap());
        assert_eq!(third.tickets(hours(8)).age, hours(1));
    }
}
