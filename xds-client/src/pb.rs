//! The protos and the gRPC library, under the names that the rest of the crate uses: the only file that
//! knows either. The code below it is generated; `tests/protos_are_current.rs` makes it anew.

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod etcd;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod healing;
pub(crate) mod message;

pub(crate) use tonic::{
    Request, Response, Status, Streaming, async_trait,
    metadata::MetadataValue,
    transport::{Channel, Endpoint, Error as ConnectError},
};
