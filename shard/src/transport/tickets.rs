//! Session tickets: sealed state that a client keeps for us, so that it can resume on any shard, and on
//! the process that replaces this one (E7).
//!
//! A ticket is `name (16) · nonce (12) · sealed state · tag (16)`. The keys are one set for all shards; they
//! never change in place, so nothing is locked: rotation makes a new set with the old one behind it.
//! (rustls' own ticketer rotates under a lock, and its keys cannot be shared or handed over.)

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use rustls::server::ProducesTickets;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key's name.
const NAME: usize = 16;
/// Bytes of the secret that sealing keys are derived from.
const SECRET: usize = 32;
const KEY: usize = NAME + SECRET;
/// What a client is told about how long a ticket may serve: as long as the current and the previous key
/// do, if they are rotated every 12 hours.
const LIFETIME_S: u32 = 24 * 3600;
/// The longest state that is sealed. A peer chain is the bulk of it; a client with a longer one simply
/// does not resume.
const STATE_BYTES_MAX: usize = 16 << 10;

/// The keys that tickets are sealed with: the current one, and the previous one, which still opens.
pub struct TicketKeys {
    current: Zeroizing<[u8; KEY]>,
    previous: Option<Zeroizing<[u8; KEY]>>,
}

impl TicketKeys {
    /// Keys from `random`, which must be fit for keys. Without a previous one.
    pub fn new(random: impl FnMut(&mut [u8])) -> TicketKeys {
        TicketKeys {
            current: fresh(random),
            previous: None,
        }
    }

    /// The set that follows this one: a new current key, and this one's current as the previous.
    #[must_use]
    pub fn rotate(&self, random: impl FnMut(&mut [u8])) -> TicketKeys {
        TicketKeys {
            current: fresh(random),
            previous: Some(self.current.clone()),
        }
    }

    /// The keys, for the process that replaces this one.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY));
        bytes.extend_from_slice(&*self.current);
        if let Some(previous) = &self.previous {
            bytes.extend_from_slice(&**previous);
        }
        bytes
    }

    /// What [`TicketKeys::to_bytes`] gave; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<TicketKeys> {
        let (current, rest) = bytes.split_first_chunk::<KEY>()?;
        let previous = match rest {
            [] => None,
            rest => Some(Zeroizing::new(<[u8; KEY]>::try_from(rest).ok()?)),
        };
        Some(TicketKeys {
            current: Zeroizing::new(*current),
            previous,
        })
    }

    /// A ticketer whose tickets serve for `purpose` alone: what was sealed for another cannot be opened.
    pub(super) fn ticketer(&self, purpose: &[u8]) -> Option<Arc<dyn ProducesTickets>> {
        let current = Key::derive(&self.current, purpose)?;
        let previous = match &self.previous {
            None => None,
            Some(previous) => Some(Key::derive(previous, purpose)?),
        };
        Some(Arc::new(Ticketer { current, previous }))
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(redacted)")
    }
}

fn fresh(mut random: impl FnMut(&mut [u8])) -> Zeroizing<[u8; KEY]> {
    let mut key = Zeroizing::new([0; KEY]);
    random(&mut *key);
    key
}

/// Seals and opens the tickets of one listener.
#[derive(Debug)]
struct Ticketer {
    current: Key,
    previous: Option<Key>,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > STATE_BYTES_MAX {
            return None;
        }
        self.current.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_first_chunk::<NAME>()?;
        if sealed.len() > NONCE_LEN + STATE_BYTES_MAX + AES_256_GCM.tag_len() {
            return None;
        }
        // Names are public: comparing them tells nothing.
        let keys = [Some(&self.current), self.previous.as_ref()];
        let key = keys.into_iter().flatten().find(|key| key.name == *name)?;
        key.open(sealed)
    }
}

/// Seals tickets for later, and opens none.
#[derive(Debug)]
pub(super) struct SealOnly(pub(super) Arc<dyn ProducesTickets>);

impl ProducesTickets for SealOnly {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// A key for one purpose.
struct Key {
    name: [u8; NAME],
    sealing: RandomizedNonceKey,
}

impl Key {
    /// Derives name and key by HKDF (RFC 5869): the secret's name is the salt, the purpose the info.
    fn derive(secret: &[u8; KEY], purpose: &[u8]) -> Option<Key> {
        let (name, secret) = secret.split_first_chunk::<NAME>()?;
        let root = Salt::new(HKDF_SHA256, name).extract(secret);
        let info = [b"tidegate ticket", purpose];
        let mut derived = Zeroizing::new([0; KEY]);
        root.expand(&info, Len(KEY))
            .and_then(|okm| okm.fill(&mut *derived))
            .ok()?;
        let (name, key) = derived.split_first_chunk::<NAME>()?;
        Some(Key {
            name: *name,
            sealing: RandomizedNonceKey::new(&AES_256_GCM, key).ok()?,
        })
    }

    /// Random nonces may be used 2^32 times with one key (NIST SP 800-38D, 8.3): at 50,000 full handshakes
    /// a second, a day.
    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = Zeroizing::new(plain.to_vec());
        let aad = Aad::from(self.name);
        let nonce = self
            .sealing
            .seal_in_place_append_tag(aad, &mut *sealed)
            .ok()?;
        Some([&self.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut bytes = sealed.to_vec();
        let aad = Aad::from(self.name);
        let Ok(plain) = self.sealing.open_in_place(nonce, aad, &mut bytes) else {
            bytes.zeroize();
            return None;
        };
        let len = plain.len();
        bytes.truncate(len);
        Some(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// How much HKDF derives.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys(fill: u8) -> TicketKeys {
        TicketKeys::new(|bytes| bytes.fill(fill))
    }

    /// Goal: tickets outlive one rotation, not two, and pass to the next process. Method: seal, rotate, open.
    #[test]
    fn tickets_live_as_long_as_two_keys() {
        let first = keys(1);
        let ticket = first.ticketer(b"edge").unwrap().encrypt(b"state").unwrap();
        let opens = |keys: &TicketKeys| keys.ticketer(b"edge").unwrap().decrypt(&ticket);
        assert_eq!(opens(&first).as_deref(), Some(&b"state"[..]));
        let second = first.rotate(|bytes| bytes.fill(2));
        let handed_over = TicketKeys::from_bytes(&second.to_bytes()).unwrap();
        assert_eq!(opens(&handed_over).as_deref(), Some(&b"state"[..]));
        assert_eq!(opens(&second.rotate(|bytes| bytes.fill(3))), None);
        for broken in [&[][..], &[0; 47], &[0; 49], &[0; 97]] {
            assert!(TicketKeys::from_bytes(broken).is_none());
        }
    }

    /// Goal: a ticket serves for one purpose, and no bit of it can be changed. Method: another purpose; each
    /// byte flipped; each length.
    #[test]
    fn tickets_are_bound_and_sealed() {
        let keys = keys(7);
        let ticketer = keys.ticketer(b"edge require ca1").unwrap();
        let ticket = ticketer.encrypt(b"state").unwrap();
        assert!(!ticket.windows(5).any(|window| window == b"state"));
        assert!(
            keys.ticketer(b"edge none")
                .unwrap()
                .decrypt(&ticket)
                .is_none()
        );
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            if let Some(byte) = forged.get_mut(at) {
                *byte ^= 1;
            }
            assert!(ticketer.decrypt(&forged).is_none(), "byte {at}");
            assert!(ticketer.decrypt(ticket.get(..at).unwrap()).is_none());
        }
    }

    /// Goal: state has a limit (E14). Method: the limit, and one above.
    #[test]
    fn state_has_a_limit() {
        let ticketer = keys(1).ticketer(b"").unwrap();
        let ticket = ticketer.encrypt(&[0; STATE_BYTES_MAX]).unwrap();
        assert!(ticketer.decrypt(&ticket).is_some());
        assert!(ticketer.encrypt(&[0; STATE_BYTES_MAX + 1]).is_none());
        let too_long = [&ticket[..], &[0]].concat();
        assert!(ticketer.decrypt(&too_long).is_none());
    }

    /// Goal: no dump shows a key (E9). Method: its bytes in every debug form.
    #[test]
    fn keys_do_not_show() {
        let keys = keys(0xab);
        let shown = format!("{keys:?} {:?}", keys.ticketer(b"").unwrap());
        assert!(
            !shown.contains("171") && !shown.contains("ab, ab"),
            "{shown}"
        );
    }
}
