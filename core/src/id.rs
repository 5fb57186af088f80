//! Identities. Each is an index into a table of one [`Snapshot`](crate::snapshot::Snapshot), except
//! [`ShardId`], which lasts as long as the process, and [`Epoch`], which only grows.

use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($repr:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            /// The position in the table that this id points into.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

impl SubsetId {
    /// The whole cluster.
    pub const ALL: SubsetId = SubsetId(0);
}

ids! {
    /// A shard: one thread, one core, one ring.
    ShardId(u16);
    /// A listener of a snapshot.
    ListenerId(u32);
    /// A route of a route table, in the order of the file.
    RouteId(u32);
    /// A cluster of a snapshot.
    ClusterId(u32);
    /// An endpoint of a cluster.
    EndpointId(u32);
    /// A subset of the endpoints of a cluster; 0 is all of them.
    SubsetId(u32);
    /// An interface of a cluster that is limited: a route that leads to it.
    InterfaceId(u32);
    /// The version of a snapshot. A request is decided by exactly one epoch (S14).
    Epoch(u64);
}
