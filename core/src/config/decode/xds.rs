//! The control plane.

use super::{
    center::servers,
    secret::{Secrets, Wanted},
    *,
};
use crate::config::model::{Xds, XdsFiles, XdsProtocol, XdsTls};

/// Decodes the section.
pub(super) fn xds(fields: &Fields<'_>, secrets: &Secrets) -> Xds {
    let protocol = match fields.word("protocol") {
        Some("state_of_the_world") => XdsProtocol::StateOfTheWorld,
        Some("rest") => XdsProtocol::Rest,
        _ => XdsProtocol::Delta,
    };
    if protocol != XdsProtocol::Rest {
        fields.refuse(
            &["refresh_delay", "request_timeout"],
            "on a stream",
            "news come by themselves: remove it, or use `protocol: rest`",
        );
    }
    if !fields.has("addresses") {
        of_files_alone(fields);
    }
    let files = fields.section_opt("files", &keys::XDS_FILES);
    Xds {
        addresses: servers(fields, &keys::XDS_ADDRESS),
        protocol,
        refresh_delay: fields.duration("refresh_delay"),
        request_timeout: fields.duration("request_timeout"),
        files: files.map(|fields| self::files(&fields)).unwrap_or_default(),
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

/// Without a control plane there is nobody to speak to.
fn of_files_alone(fields: &Fields<'_>) {
    if !fields.has("files") {
        let message = "`xds` needs `addresses`, `files`, or both";
        let problem = Problem::new(codes::ONE_OF, fields.key_span("addresses"), message);
        let help = "say where control planes listen: `addresses: [HOST:PORT]`";
        fields
            .report
            .add(problem.label("nobody brings anything").help(help));
    }
    fields.refuse(
        &["protocol", "cluster", "token_file", "tls", "cache"],
        "without `addresses`",
        "files are all there is: remove it, or say where control planes listen",
    );
}

fn files(fields: &Fields<'_>) -> XdsFiles {
    let path = |key: &str| fields.text(key).map(|text| text.text.into());
    let files = XdsFiles {
        clusters: path("clusters"),
        listeners: path("listeners"),
        watched_directory: path("watched_directory"),
    };
    if !fields.has("clusters") && !fields.has("listeners") {
        let message = "`files` needs `clusters`, `listeners`, or both";
        let problem = Problem::new(codes::ONE_OF, fields.key_span("clusters"), message);
        let help = "say which file brings all of them: `clusters: PATH`";
        fields
            .report
            .add(problem.label("no file is named").help(help));
    }
    files
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
