//! The healing center that a proxy reports to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Where reports go, and what the center may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Center {
    /// The centers, `HOST:PORT`; one that does not lead says who does.
    pub addresses: Vec<Arc<str>>,
    /// A file whose first line is the token that they ask for.
    pub token_file: Option<Arc<str>>,
    /// Where others reach the application that this proxy fronts.
    pub fronts: Vec<SocketAddr>,
    /// How that is restarted; without it the center is refused.
    pub restart: Option<Restart>,
}

/// How an application is restarted, or taken off line.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// What is run or asked.
    pub hook: Hook,
    /// After which it has failed.
    pub timeout: Duration,
}

/// What is run or asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Hook {
    /// A program and its arguments.
    Command(Vec<Arc<str>>),
    /// A POST to a path at an address.
    Http(SocketAddr, Arc<str>),
    /// A POST to a path over a Unix socket.
    Unix(Arc<str>, Arc<str>),
}
