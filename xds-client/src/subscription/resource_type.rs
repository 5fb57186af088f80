//! The kinds of resources, and the variants of the protocol.

use tidegate_core::config::{CLUSTERS_MAX, LISTENERS_MAX};

/// The kinds of resources this proxy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
}

impl ResourceType {
    /// Every type, in the order in which they are made before they are used (make before break).
    pub const ALL: [ResourceType; 4] = [
        ResourceType::Cluster,
        ResourceType::Endpoint,
        ResourceType::Listener,
        ResourceType::Route,
    ];

    /// The URL that names the type on the wire.
    pub const fn url(self) -> &'static str {
        match self {
            ResourceType::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ResourceType::Endpoint => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            ResourceType::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            ResourceType::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type of this URL, if it is one of them.
    pub fn of_url(url: &str) -> Option<ResourceType> {
        Self::ALL.into_iter().find(|one| one.url() == url)
    }

    /// A word for it, in messages and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            ResourceType::Cluster => "cluster",
            ResourceType::Endpoint => "endpoint",
            ResourceType::Listener => "listener",
            ResourceType::Route => "route",
        }
    }

    /// Resources of the type that are held: as many as a configuration has. Each listener brings its routes, each
    /// cluster its endpoints.
    pub const fn held_max(self) -> usize {
        match self {
            ResourceType::Cluster | ResourceType::Endpoint => CLUSTERS_MAX,
            ResourceType::Listener | ResourceType::Route => LISTENERS_MAX,
        }
    }

    /// What a resource's absence from a response means.
    pub const fn absence(self) -> Absence {
        match self {
            ResourceType::Cluster | ResourceType::Listener => Absence::Removes,
            ResourceType::Endpoint | ResourceType::Route => Absence::Keeps,
        }
    }
}

/// What it means that a response leaves a resource out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is gone: responses of this type carry everything.
    Removes,
    /// Nothing: it goes when its parent does.
    Keeps,
}

/// The variants of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// A response carries what changed.
    #[default]
    Delta,
    /// A response of clusters or listeners carries all of them.
    StateOfTheWorld,
}
