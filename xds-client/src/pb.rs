//! The protos and the gRPC library, under the names that the rest of the crate uses: the only file that
//! knows either. The code below it is generated; `tests/protos_are_current.rs` makes it anew.

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod discovery;
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

/// The wrapper of a resource, which the state of the world puts into an `Any`.
pub(crate) fn decode_resource(bytes: &[u8]) -> Result<discovery::Resource, prost::DecodeError> {
    prost::Message::decode(bytes)
}

/// The same, the other way round.
#[cfg(test)]
pub(crate) fn wrap(resource: &discovery::Resource) -> discovery::Any {
    discovery::Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: prost::Message::encode_to_vec(resource),
    }
}
