//! The control plane that brings a part of the configuration.

use std::{sync::Arc, time::Duration};

/// Where it is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xds {
    /// Control planes, `HOST:PORT`, tried in turn; none if files bring everything.
    pub addresses: Vec<Arc<str>>,
    /// The variant of the protocol.
    pub protocol: XdsProtocol,
    /// Between two times that a type is asked for by REST.
    pub refresh_delay: Duration,
    /// For an answer by REST.
    pub request_timeout: Duration,
    /// Files that bring resources instead.
    pub files: XdsFiles,
    /// What this proxy is a part of; `None` is the node's application.
    pub cluster: Option<Arc<str>>,
    /// A file whose first line is the token that they ask for.
    pub token_file: Option<Arc<str>>,
    /// TLS to them; `None` is plaintext.
    pub tls: Option<XdsTls>,
    /// A file where the last good resources are kept for the next start.
    pub cache: Option<Arc<str>>,
}

/// Files in the place of a control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdsFiles {
    /// The one that brings all clusters.
    pub clusters: Option<Arc<str>>,
    /// The one that brings all listeners.
    pub listeners: Option<Arc<str>>,
    /// What is watched instead of the files themselves.
    pub watched_directory: Option<Arc<str>>,
}

/// TLS to control planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsTls {
    /// Name of the [`Secret::TrustedCa`](super::Secret::TrustedCa) that their certificates must come from.
    pub trusted_ca: Arc<str>,
    /// Name of the [`Secret::Certificate`](super::Secret::Certificate) that is shown to them.
    pub certificate: Option<Arc<str>>,
    /// The name that is sent and verified; `None` is the host of the address.
    pub server_name: Option<Arc<str>>,
}

/// The variants of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdsProtocol {
    /// A response carries what changed.
    #[default]
    Delta,
    /// A response carries all listeners, or all clusters.
    StateOfTheWorld,
    /// Each type is asked for by REST; an answer carries all of it.
    Rest,
}

impl XdsProtocol {
    /// The word in configuration and views.
    pub const fn word(self) -> &'static str {
        match self {
            XdsProtocol::Delta => "delta",
            XdsProtocol::StateOfTheWorld => "state_of_the_world",
            XdsProtocol::Rest => "rest",
        }
    }
}
