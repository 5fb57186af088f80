//! The control plane.

use super::{
    center::servers,
    secret::{Secrets, Wanted},
    *,
};
use crate::config::model::{Xds, XdsProtocol, XdsTls};

/// Decodes the section.
pub(super) fn xds(fields: &Fields<'_>, secrets: &Secrets) -> Xds {
    Xds {
        addresses: servers(fields, &keys::XDS_ADDRESS),
        protocol: match fields.word("protocol") {
            Some("state_of_the_world") => XdsProtocol::StateOfTheWorld,
            _ => XdsProtocol::Delta,
        },
        cluster: fields.text("cluster").map(|text| {
            let plain = syntax::plain_text(&text.text).map(Arc::from);
            checked_opt(fields.report, "cluster", &text, plain).unwrap_or_default()
        }),
        token_file: fields.text("token_file").map(|text| text.text.into()),
        tls: fields
            .section_opt("tls", &keys::XDS_TLS)
            .map(|fields| tls(&fields, secrets)),
        cache: fields.text("cache").map(|text| text.text.into()),
    }
}

fn tls(fields: &Fields<'_>, secrets: &Secrets) -> XdsTls {
    let trusted_ca = tls::secret(fields, "trusted_ca", secrets, Wanted::TrustedCa);
    XdsTls {
        // Absent, it was reported.
        trusted_ca: trusted_ca.unwrap_or_else(|| "".into()),
        certificate: tls::secret(fields, "certificate", secrets, Wanted::Certificate),
        server_name: fields.text("server_name").and_then(|text| {
            let parsed = syntax::server_name(&text.text);
            checked_opt(fields.report, "server_name", &text, parsed)
        }),
    }
}
