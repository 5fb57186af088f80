//! The control plane.

use super::{Object, format_duration, texts};
use crate::config::model::{Xds, XdsFiles, XdsProtocol, XdsTls};

/// The control plane.
pub(super) fn xds(xds: &Xds) -> Object {
    let mut object = Object::default();
    if !xds.addresses.is_empty() {
        object.put("addresses", texts(&xds.addresses));
        object.put("protocol", xds.protocol.word());
    }
    if xds.protocol == XdsProtocol::Rest {
        object.put("refresh_delay", format_duration(xds.refresh_delay));
        object.put("request_timeout", format_duration(xds.request_timeout));
    }
    if xds.files != XdsFiles::default() {
        object.put("files", files(&xds.files));
    }
    object.put_opt("cluster", xds.cluster.as_deref());
    object.put_opt("token_file", xds.token_file.as_deref());
    object.put_opt("tls", xds.tls.as_ref().map(tls));
    object.put_opt("cache", xds.cache.as_deref());
    object
}

fn tls(tls: &XdsTls) -> Object {
    let mut object = Object::default();
    object.put("trusted_ca", &*tls.trusted_ca);
    object.put_opt("certificate", tls.certificate.as_deref());
    object.put_opt("server_name", tls.server_name.as_deref());
    object
}

fn files(files: &XdsFiles) -> Object {
    let mut object = Object::default();
    object.put_opt("clusters", files.clusters.as_deref());
    object.put_opt("listeners", files.listeners.as_deref());
    object.put_opt("watched_directory", files.watched_directory.as_deref());
    object
}
