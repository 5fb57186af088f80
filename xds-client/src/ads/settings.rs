//! What a client is told: once when it is made, and of its proxy from then on.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use super::{Rest, Tls};
use crate::{source::OfFile, subscription::Variant};

/// The times of a client.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a server to say something that it owes.
    pub answer: Duration,
    /// After which a stream on which nothing came is made anew; up to a quarter less, by chance.
    pub silence: Duration,
    /// Between two looks whether a server is back that goes before the current one; likewise.
    pub return_after: Duration,
    /// Between two pings of a connection; unanswered for as long, it is dead.
    pub keep_alive: Duration,
    /// Before the second attempt; doubled with every further one, up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest, before jitter.
    pub backoff_max: Duration,
    /// Between two looks at files.
    pub look: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            silence: Duration::from_secs(600),
            return_after: Duration::from_secs(60),
            keep_alive: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            // A dozen files cost a microsecond each; nobody waits for a change longer than for a stream's.
            look: Duration::from_millis(100),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Unique in the fleet.
    pub id: String,
    /// What it is a part of.
    pub cluster: String,
    /// The failure domain that it runs in.
    pub zone: String,
}

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The control planes, `HOST:PORT`, the preferred first; none if files bring everything.
    pub servers: Vec<Box<str>>,
    /// Which variant of the protocol is spoken.
    pub variant: Variant,
    /// How control planes are asked by REST, in the state of the world; gRPC otherwise.
    pub rest: Option<Rest>,
    /// Types that come from files instead.
    pub files: Vec<OfFile>,
    /// Who asks.
    pub node: Node,
    /// What a server asks for before it answers, if it does.
    pub token: Option<Box<str>>,
    /// Where the last good resources are kept for the next start, if they are.
    pub cache: Option<PathBuf>,
    /// What the process before handed over ([`Handover`](super::Handover)), if there was one: it goes before the cache.
    pub inherited: Option<Vec<u8>>,
    /// The times.
    pub times: Times,
}

/// What a client has to know of the proxy that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Names of the clusters that the file brings.
    pub clusters: Arc<BTreeSet<Arc<str>>>,
    /// Names of the clusters none of whose endpoints answers.
    pub failing: Arc<BTreeSet<Arc<str>>>,
    /// How control planes are spoken to.
    pub link: Link,
}

/// What a connection to a control plane is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Not encrypted.
    #[default]
    Plaintext,
    /// Encrypted with this.
    Tls(Box<Tls>),
    /// To be encrypted, and a secret for it is missing: none is made.
    Unready,
}
