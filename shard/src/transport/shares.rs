//! A shard's own share of what connections are encrypted with.
//!
//! rustls counts references to a configuration with each connection, and no cache line is to be written by
//! two shards: so each has its own. What lies below it (keys, verifiers) is shared; it is touched in full
//! handshakes only, where a signature costs a thousand times as much.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use rustls::{
    ClientConfig, Error, ServerConfig, client::Resumption, pki_types::UnixTime,
    server::UnbufferedServerConnection,
};
use tidegate_core::message::TlsContexts;

use super::{
    contexts::{ClientContext, Contexts, ServerContext},
    own::OwnHandshakes,
    session::Session,
    sessions::Sessions,
};
use crate::ring::Socket;

/// Endpoints of one cluster that have sessions on a shard, before all of them are forgotten.
const ENDPOINTS_MAX: usize = 4096;

/// A shard's own share of the contexts in use.
#[derive(Default)]
pub(crate) struct ShardTls {
    servers: Shares<ShardServer>,
    clients: Shares<ShardClient>,
    own: Arc<OwnHandshakes>,
}

/// Shares by the name of their listener or cluster.
struct Shares<T> {
    by_name: HashMap<Arc<str>, Rc<T>>,
    /// Those whose context was taken away, and which are kept for the snapshot in use.
    gone: Vec<Arc<str>>,
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Shares {
            by_name: HashMap::new(),
            gone: Vec::new(),
        }
    }
}

/// A shard's share of one context.
trait Share {
    type Context;
    fn new(context: &Arc<Self::Context>) -> Self;
    fn context(&self) -> &Arc<Self::Context>;
}

impl<T: Share> Shares<T> {
    /// The shares of `contexts`. What did not change is kept, with its sessions; so is, until
    /// [`Shares::forget_gone`], what `contexts` have no more.
    fn of(contexts: &BTreeMap<Arc<str>, Arc<T::Context>>, previous: &Shares<T>) -> Shares<T> {
        let share = |(name, context): (&Arc<str>, &Arc<T::Context>)| {
            let old = previous.by_name.get(name);
            let old = old.filter(|old| Arc::ptr_eq(old.context(), context));
            let share = old.cloned().unwrap_or_else(|| Rc::new(T::new(context)));
            (name.clone(), share)
        };
        let mut shares = Shares {
            by_name: contexts.iter().map(share).collect(),
            gone: Vec::new(),
        };
        for (name, old) in &previous.by_name {
            if !shares.by_name.contains_key(name) {
                shares.by_name.insert(name.clone(), old.clone());
                shares.gone.push(name.clone());
            }
        }
        shares
    }

    fn forget_gone(&mut self) {
        for name in self.gone.drain(..) {
            self.by_name.remove(&name);
        }
    }
}

/// A listener's context on one shard.
pub(super) struct ShardServer {
    pub(super) context: Arc<ServerContext>,
    pub(super) config: Arc<ServerConfig>,
    /// The same without resumption, where a session may not be good any more.
    pub(super) unresumed: Option<Arc<ServerConfig>>,
}

/// A cluster's context on one shard.
pub(super) struct ShardClient {
    pub(super) context: Arc<ClientContext>,
    /// By endpoint: each has its own sessions.
    configs: RefCell<HashMap<SocketAddr, Arc<ClientConfig>>>,
}

impl Share for ShardServer {
    type Context = ServerContext;

    fn new(context: &Arc<ServerContext>) -> ShardServer {
        let may_decline = context.policy.is_some() && context.config.ticketer.enabled();
        ShardServer {
            context: context.clone(),
            config: Arc::new(context.config.clone()),
            unresumed: may_decline.then(|| Arc::new(context.unresumed())),
        }
    }

    fn context(&self) -> &Arc<ServerContext> {
        &self.context
    }
}

impl Share for ShardClient {
    type Context = ClientContext;

    fn new(context: &Arc<ClientContext>) -> ShardClient {
        ShardClient {
            context: context.clone(),
            configs: RefCell::default(),
        }
    }

    fn context(&self) -> &Arc<ClientContext> {
        &self.context
    }
}

impl ShardTls {
    /// The share of `contexts`; what did not change is kept, with its sessions. Contexts come before the
    /// snapshot that goes with them: what they have no more is kept until [`ShardTls::forget_gone`], as
    /// requests may ask for it in between.
    pub(crate) fn new(contexts: &TlsContexts, previous: &ShardTls) -> ShardTls {
        let Some(contexts) = Contexts::of(contexts) else {
            return ShardTls::default();
        };
        ShardTls {
            servers: Shares::of(&contexts.servers, &previous.servers),
            clients: Shares::of(&contexts.clients, &previous.clients),
            own: contexts.own.clone(),
        }
    }

    /// The snapshot is here that goes with the contexts: what they have no more is not needed either.
    pub(crate) fn forget_gone(&mut self) {
        self.servers.forget_gone();
        self.clients.forget_gone();
    }

    /// Whether the process has made this connection itself, to try the listener.
    pub(super) fn is_own(&self, socket: &Socket) -> bool {
        self.own
            .has(|| Some((socket.peer_address()?, socket.local_address()?)))
    }

    pub(super) fn server(&self, listener: &str) -> Option<&Rc<ShardServer>> {
        self.servers.by_name.get(listener)
    }

    pub(super) fn client(&self, cluster: &str) -> Option<&Rc<ShardClient>> {
        self.clients.by_name.get(cluster)
    }

    /// The generation of a cluster's context.
    pub(crate) fn client_generation(&self, cluster: &str) -> Option<u64> {
        Some(self.client(cluster)?.context.generation)
    }
}

impl ShardServer {
    /// Whether the client of a resumed session is still let in.
    pub(super) fn recheck(&self, session: &Session) -> Result<(), Error> {
        match &self.context.policy {
            Some(policy) if session.is_resumed() => {
                policy.recheck(session.peer_certificates(), UnixTime::now())
            }
            _ => Ok(()),
        }
    }

    /// A connection that resumes nothing.
    pub(super) fn unresumed(&self) -> Result<UnbufferedServerConnection, Error> {
        let config = self.unresumed.as_ref().unwrap_or(&self.config);
        UnbufferedServerConnection::new(config.clone())
    }
}

impl ShardClient {
    /// Forgets the sessions with `address`: the next handshake is a full one.
    pub(super) fn forget(&self, address: SocketAddr) {
        self.configs.borrow_mut().remove(&address);
    }

    /// The configuration for links to `address`.
    pub(super) fn config(&self, address: SocketAddr) -> Arc<ClientConfig> {
        let mut configs = self.configs.borrow_mut();
        if configs.len() >= ENDPOINTS_MAX && !configs.contains_key(&address) {
            configs.clear();
        }
        let config = configs.entry(address).or_insert_with(|| {
            let mut config = self.context.config.clone();
            if self.context.resumes() {
                config.resumption = Resumption::store(Arc::new(Sessions::new()));
            }
            Arc::new(config)
        });
        config.clone()
    }
}
