//! What the rest of the process may ask of TLS: checking secrets, building the contexts that shards
//! encrypt with, and trying a listener.
//!
//! Nothing here runs on a shard.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_core::{
    config::model,
    encryption::secret::{Material, SecretFacts, SecretFault, SecretPart},
    message::TlsContexts,
};

pub use super::tickets::TicketKeys;

/// Looks into a secret: whether it parses, its certificate matches its key, and its dates hold at
/// `now_unix_s`.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn check(_material: &Material, _now_unix_s: u64) -> Result<SecretFacts, SecretFault> {
    Err(SecretFault {
        part: SecretPart::Certificate,
        cause: "certificates are not looked into yet".into(),
        remedy: String::new(),
    })
}

/// Makes what the shards encrypt with. A context whose inputs are those of `previous` keeps its
/// generation, so that no other change replaces its connections (E11); the others get `generation`.
///
/// Returns the contexts and, for each listener and cluster that gets none, its name and why.
pub fn build(
    _config: &model::Config,
    _secrets: &BTreeMap<Arc<str>, Material>,
    _tickets: &Arc<TicketKeys>,
    _generation: u64,
    _previous: Option<&TlsContexts>,
    _now_unix_s: u64,
) -> (TlsContexts, Vec<(Arc<str>, String)>) {
    (TlsContexts(Arc::new(())), Vec::new())
}

/// Dials `address`, where `listener` listens, and shakes hands, trusting exactly the certificates that
/// `contexts` hold for it (E10). Blocks: not for a shard's thread.
///
/// # Errors
///
/// What went wrong, in words.
pub fn self_handshake(
    _contexts: &TlsContexts,
    _listener: &str,
    _address: SocketAddr,
    _timeout: Duration,
) -> Result<(), String> {
    Err("not there yet".into())
}
