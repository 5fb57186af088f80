//! Link encryption in the model: what a listener offers, what a cluster asks for, and the secrets that
//! both refer to by name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A secret, as files that are watched. Their content never enters the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A certificate with its key.
    Certificate {
        /// PEM, the leaf first, then what it takes to reach a trusted authority.
        certificate: Arc<str>,
        /// PEM: PKCS#8, PKCS#1 or SEC1.
        private_key: Arc<str>,
    },
    /// Authorities that are trusted.
    TrustedCa {
        /// PEM.
        certificates: Arc<str>,
        /// PEM, revocations by any of the authorities.
        crl: Option<Arc<str>>,
        /// What becomes of peers once these are out of date.
        expired_crl: ExpiredCrl,
    },
}

/// What becomes of peers whose revocation cannot be told, since the list is past its next update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiredCrl {
    /// The list is used as it is.
    #[default]
    Use,
    /// They are refused.
    Refuse,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Whether TLS, plaintext or both are taken.
    pub mode: ServerMode,
    /// Take [`ServerMode::Strict`] though plaintext is still seen; logged.
    pub force: bool,
    /// Names of [`Secret::Certificate`]s, chosen by server name; the first is for the rest. Never empty.
    pub certificates: Vec<Arc<str>>,
    /// What is asked of clients.
    pub client: ClientCertificate,
    /// Versions, suites and groups.
    pub parameters: TlsParameters,
    /// Protocols offered by ALPN, the preferred first.
    pub alpn: Vec<Arc<str>>,
    /// Resumption by tickets.
    pub session_tickets: bool,
    /// For a whole handshake, from the accept.
    pub handshake_timeout: Duration,
    /// For the bytes that tell TLS from plaintext, on permissive listeners.
    pub inspect_timeout: Duration,
    /// The protocol is one where the server speaks first: a client that says nothing for
    /// `inspect_timeout` is taken for plaintext rather than closed.
    pub server_speaks_first: bool,
    /// How long no plaintext must have been seen before `strict` is accepted.
    pub census_window: Duration,
    /// The header that names the peer's application on plaintext connections, lower case.
    pub peer_header: Option<Arc<str>>,
}

/// Which connections a listener takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerMode {
    /// Plaintext only.
    Disabled,
    /// Both, told apart by the first bytes.
    Permissive,
    /// TLS only.
    #[default]
    Strict,
}

/// What is asked of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whether one must be shown.
    pub mode: ClientCertificateMode,
    /// Name of the [`Secret::TrustedCa`] that it must come from; there unless the mode is `None`.
    pub trusted_ca: Option<Arc<str>>,
    /// Any of these must match; empty takes every certificate of the authorities.
    pub subject_alt_names: Vec<SanMatch>,
    /// How long a connection whose client is let in no more may finish what is in flight on it.
    pub drain_timeout: Duration,
}

/// Whether a client certificate is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; one that is shown must be good.
    Optional,
    /// Asked for, and no connection without it.
    Require,
}

/// A condition on one subject alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanMatch {
    /// Which kind of name.
    pub kind: SanKind,
    /// How it is compared. DNS names are compared without case.
    pub pattern: SanPattern,
}

/// Kinds of subject alternative names (RFC 5280, 4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// `dNSName`
    Dns,
    /// `uniformResourceIdentifier`; a SPIFFE ID is one.
    Uri,
}

/// How a name is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SanPattern {
    /// Is exactly this.
    Exact(Arc<str>),
    /// Begins with this.
    Prefix(Arc<str>),
    /// Ends with this.
    Suffix(Arc<str>),
}

/// Versions, suites and groups. Empty lists stand for the defaults of the TLS library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsParameters {
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The highest version.
    pub max_version: TlsVersion,
    /// IANA names of the cipher suites, the preferred first.
    pub cipher_suites: Vec<Arc<str>>,
    /// IANA names of the key exchange groups, the preferred first.
    pub groups: Vec<Arc<str>>,
}

impl Default for TlsParameters {
    fn default() -> Self {
        TlsParameters {
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            groups: Vec::new(),
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246
    Tls12,
    /// RFC 8446
    Tls13,
}

/// TLS towards the endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTls {
    /// When it is used.
    pub mode: UpstreamTls,
    /// Which endpoints follow, of those that announce TLS.
    pub rollout: Rollout,
    /// The server name sent and verified; `None` takes the cluster's DNS name, or the endpoint's address.
    pub server_name: Option<Arc<str>>,
    /// Name of the [`Secret::Certificate`] shown when the server asks for one.
    pub certificate: Option<Arc<str>>,
    /// Name of the [`Secret::TrustedCa`] that the server's certificate must come from.
    pub trusted_ca: Arc<str>,
    /// Any of these must match, instead of `server_name`; empty compares `server_name`.
    pub subject_alt_names: Vec<SanMatch>,
    /// Versions, suites and groups.
    pub parameters: TlsParameters,
    /// Protocols offered by ALPN, the preferred first.
    pub alpn: Vec<Arc<str>>,
    /// Resumption, by tickets or session ids that the server gave.
    pub resumption: bool,
    /// For a whole handshake, after the connection was made.
    pub handshake_timeout: Duration,
    /// Links that are replaced begin their handshake at a random time within this window (E7).
    pub warm_up: Duration,
    /// How long a link that was replaced may finish what is in flight on it.
    pub drain_timeout: Duration,
}

/// When connections to an endpoint are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Never.
    Disabled,
    /// As the endpoint announces, within the rollout.
    FollowPeer,
    /// Always: nothing is ever sent in plaintext.
    #[default]
    Required,
}

/// Which endpoints are switched, of those that could be (E3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Share of (client instance, endpoint) pairs, in basis points.
    pub basis_points: u32,
    /// Another id draws another sample.
    pub id: Arc<str>,
    /// Only endpoints of these zones; empty is any.
    pub zones: Vec<Arc<str>>,
    /// Only endpoints with all of these labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// What an endpoint announces about TLS. It has its own epoch, so that no other change of an endpoint
/// touches its connections (E11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsCapability {
    /// Whether it takes TLS on the same port.
    pub state: CapabilityState,
    /// Grows with every change; an older announcement than the known one is ignored.
    pub epoch: u64,
    /// Protocols it speaks over TLS; empty says nothing.
    pub alpn: Vec<Arc<str>>,
    /// The lowest version it takes.
    pub min_version: Option<TlsVersion>,
}

/// Whether TLS is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CapabilityState {
    /// Plaintext only.
    #[default]
    Off,
    /// TLS is taken, plaintext may be.
    On,
}
