//! Link encryption: secrets, TLS on listeners, TLS towards clusters.

use super::*;
use crate::{
    config::model::TlsVersion,
    config::parameters::{GROUPS, SUITES},
};

/// Secrets of a configuration: each is a file or two that are watched.
pub const SECRETS_MAX: usize = 4096;
/// Certificates of a listener.
pub const CERTIFICATES_MAX: usize = 1024;
/// Subject alternative names that are accepted, of a listener or a cluster: each handshake looks at all.
pub const SUBJECT_ALT_NAMES_MAX: usize = 64;
/// Bytes of one; what SPIFFE allows for an ID.
pub const SUBJECT_ALT_NAME_MAX: usize = 2048;
/// Cipher suites, groups or protocols of a list.
pub const TLS_LIST_MAX: usize = 16;
/// Bytes of the name of a protocol in ALPN (RFC 7301, 3.1).
pub const ALPN_NAME_MAX: usize = 255;
/// Labels of an endpoint or a rollout, and zones of a rollout.
pub const LABELS_MAX: usize = 64;
/// Bytes of the key or the value of a label. Kubernetes' longest key has 317: a name of 253, `/`, and 63.
pub const LABEL_MAX: usize = 320;

pub(super) const SECRET_NAME: Kind = Kind::Text("the name of a secret", NAME_MAX);
const FILE_PATH: Kind = Kind::Text("the path of a PEM file", TEXT_MAX);
/// The key of the map is checked for its length by the reader.
pub(in super::super) const LABELS: Kind =
    Kind::Map("label", &Kind::Text("text", LABEL_MAX), LABELS_MAX);

pub(in super::super) static SECRET: Section = Section {
    name: "secret",
    place: "secrets.<name>",
    doc: "Either a certificate with its key, or authorities that are trusted. Files are watched, and what they \
          hold is never shown. A relative path starts at the directory that the process was started in.",
    fields: &[
        Field::new(
            "certificate",
            FILE_PATH,
            "The certificate: the leaf first, then what it takes to reach a trusted authority.",
        )
        .absent("see `trusted_ca`"),
        Field::new(
            "private_key",
            FILE_PATH,
            "With `certificate`: its key, as PKCS#8, PKCS#1 or SEC1.",
        )
        .absent("needed beside `certificate`"),
        Field::new(
            "trusted_ca",
            FILE_PATH,
            "Certificates of authorities that are trusted.",
        )
        .absent("see `certificate`"),
        Field::new(
            "crl",
            FILE_PATH,
            "With `trusted_ca`: revocations by these authorities.",
        )
        .absent("revocation is not looked at"),
        Field::new(
            "expired_crl",
            Kind::Word(&[
                (
                    "use",
                    "the list serves on, and a warning is logged every day",
                ),
                (
                    "refuse",
                    "peers are refused until the list is renewed: links that are made anew fail",
                ),
            ]),
            "With `crl`: what happens when a list is past its next update.",
        )
        .default("use", "an authority that is late must not end all traffic"),
    ],
    planned: &[
        ("sds", "secrets from xDS"),
        ("inline", "secrets within the file"),
        ("inline_string", "secrets within the file"),
        ("inline_bytes", "secrets within the file"),
        ("password", "encrypted keys"),
        ("pkcs12", "PKCS#12"),
        ("ocsp", "OCSP"),
        ("ocsp_staple", "OCSP"),
        ("acme", "certificates from ACME"),
    ],
};

const VERSIONS: Kind = Kind::Word(&[("1.2", "RFC 5246"), ("1.3", "RFC 8446")]);

const MIN_VERSION: Field = Field::new("min_version", VERSIONS, "The lowest version of TLS.")
    .default("1.2", "older ones are broken, and not there at all");
const MAX_VERSION: Field = Field::new("max_version", VERSIONS, "The highest version of TLS.")
    .default("1.3", "the fastest and safest");
const CIPHER_SUITES: Field = Field::new(
    "cipher_suites",
    Kind::List(&Kind::Word(&SUITE_WORDS), TLS_LIST_MAX),
    "Cipher suites by IANA name, the preferred first. Each version that is allowed needs one.",
)
.absent("all, in this order");
const GROUP_LIST: Field = Field::new(
    "groups",
    Kind::List(&Kind::Word(&GROUP_WORDS), TLS_LIST_MAX),
    "Key exchange groups by IANA name, the preferred first. TLS 1.2 needs one of the last three.",
)
.absent("`X25519MLKEM768`, `X25519`, `secp256r1`, `secp384r1`: post-quantum where the peer has it");
const ALPN_ITEM: Kind = Kind::Text("the name of a protocol such as `http/1.1`", ALPN_NAME_MAX);
const SUBJECT_ALT_NAMES_KIND: Kind =
    Kind::List(&Kind::Section(&SUBJECT_ALT_NAME), SUBJECT_ALT_NAMES_MAX);

/// Suites with what they belong to.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would refuse"
)]
const SUITE_WORDS: [(&str, &str); SUITES.len()] = {
    let mut words = [("", ""); SUITES.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = (SUITES[at].name, "TLS 1.2");
        if matches!(SUITES[at].version, TlsVersion::Tls13) {
            words[at].1 = "TLS 1.3";
        }
        at += 1;
    }
    words
};

/// Groups with what they belong to.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would refuse"
)]
const GROUP_WORDS: [(&str, &str); GROUPS.len()] = {
    let mut words = [("", ""); GROUPS.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = (GROUPS[at].name, "TLS 1.2 and 1.3");
        if matches!(GROUPS[at].version, TlsVersion::Tls13) {
            words[at].1 = "post-quantum, TLS 1.3";
        }
        at += 1;
    }
    words
};

pub(in super::super) static LISTENER_TLS: Section = Section {
    name: "listener TLS",
    place: "listeners.<name>.tls",
    doc: "TLS on a listener.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("disabled", "plaintext only; the rest of the section waits"),
                ("permissive", "both on one port, told apart by the first bytes; who comes in plaintext shows no certificate"),
                ("strict", "TLS only; refused at run time while plaintext is still seen"),
            ]),
            "Which connections are taken.",
        )
        .default("strict", "who writes `tls` means it"),
        Field::new(
            "force",
            Kind::Flag,
            "With `strict`: take it though plaintext was seen within `census_window`. Logged.",
        )
        .default("false", "clients that cannot do TLS yet would be cut off"),
        Field::new(
            "certificates",
            Kind::Any(&[SECRET_NAME, Kind::List(&SECRET_NAME, CERTIFICATES_MAX)]),
            "Secrets with a certificate. The one whose names fit the server name that the client asks for is \
             shown; the first where none does, or nothing is asked for.",
        )
        .required(),
        Field::new(
            "client_certificate",
            Kind::Section(&CLIENT_CERTIFICATE),
            "What is asked of clients.",
        )
        .absent("clients are not asked for a certificate"),
        MIN_VERSION,
        MAX_VERSION,
        CIPHER_SUITES,
        GROUP_LIST,
        Field::new(
            "alpn",
            Kind::List(&ALPN_ITEM, TLS_LIST_MAX),
            "Protocols offered by ALPN, the preferred first. An HTTP listener speaks `h2` and `http/1.1`.",
        )
        .absent("`[http/1.1]` with `protocol: http`, none with `tcp`"),
        Field::new("session_tickets", Kind::Flag, "Whether clients may resume by ticket, on any shard.")
            .default("true", "a resumed handshake costs a fraction"),
        Field::new("handshake_timeout", TIMEOUT, "For a whole handshake, from the accept.")
            .default("10s", "slow handshakes are an attack; a few seconds cover lost packets"),
        Field::new(
            "inspect_timeout",
            Kind::Duration(TICK, seconds(60)),
            "With `permissive`: for the bytes that tell TLS from plaintext.",
        )
        .default("1s", "clients speak at once; a lost packet is repeated within it"),
        Field::new(
            "server_speaks_first",
            Kind::Flag,
            "With `protocol: tcp` and `permissive`: a client that says nothing for `inspect_timeout` is taken \
             for plaintext rather than closed.",
        )
        .default("false", "most protocols begin with the client; MySQL, SMTP and FTP do not"),
        Field::new(
            "census_window",
            Kind::Duration(seconds(1), DAY),
            "For how long no plaintext must have been seen before `strict` is taken.",
        )
        .default("60s", "longer than clients pool idle connections, mostly"),
        Field::new(
            "peer_header",
            Kind::Text("a header name", NAME_MAX),
            "With `protocol: http`: the header that names the application of a client in plaintext, for the census.",
        )
        .absent("such clients are counted by address"),
    ],
    planned: &[
        ("session_ticket_keys", "ticket keys from files"),
        ("early_data", "early data (0-RTT)"),
        ("ocsp", "OCSP"),
        ("ocsp_staple", "OCSP"),
        ("acme", "certificates from ACME"),
        ("key_log", "key logs"),
        ("sds", "secrets from xDS"),
    ],
};

pub(in super::super) static CLIENT_CERTIFICATE: Section = Section {
    name: "client certificate",
    place: "listeners.<name>.tls.client_certificate",
    doc: "What a listener asks of its clients.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("none", "clients are not asked"),
                (
                    "optional",
                    "clients are asked; a certificate that is shown must be good",
                ),
                ("require", "no connection without a good certificate"),
            ]),
            "Whether a certificate must be shown.",
        )
        .default("require", "who writes the section means it"),
        Field::new(
            "trusted_ca",
            SECRET_NAME,
            "The secret with the authorities that it must come from.",
        )
        .absent("needed unless `mode: none`"),
        Field::new(
            "subject_alt_names",
            SUBJECT_ALT_NAMES_KIND,
            "Any of these must be in it.",
        )
        .absent("every certificate of the authorities is taken"),
        Field::new(
            "drain_timeout",
            Kind::Duration(seconds(0), DAY),
            "When authorities, revocations or names change: how long a connection whose client would not be let in \
             any more may finish what is in flight on it. It takes no further request.",
        )
        .default("30s", "as towards endpoints"),
    ],
    planned: &[
        ("allow_expired", "certificates that are past their time"),
        ("fingerprints", "pinned certificates"),
        ("verify_depth", "limits on the length of chains"),
    ],
};

pub(in super::super) static SUBJECT_ALT_NAME: Section = Section {
    name: "subject alternative name",
    place: "subject_alt_names[]",
    doc: "A name in a certificate: exactly one of `uri` and `dns`. A `*` at the end stands for whatever follows, one \
          at the beginning for whatever precedes.",
    fields: &[
        Field::new(
            "uri",
            Kind::Text(
                "a URI such as `spiffe://mesh/ns/pay/*`",
                SUBJECT_ALT_NAME_MAX,
            ),
            "A URI, compared with case; a SPIFFE ID is one.",
        )
        .absent("see `dns`"),
        Field::new(
            "dns",
            Kind::Text("a name such as `\"*.pay.example\"`", SUBJECT_ALT_NAME_MAX),
            "A DNS name, compared without case. Wildcards replace whole labels.",
        )
        .absent("see `uri`"),
    ],
    planned: &[
        ("ip", "addresses in certificates"),
        ("email", "e-mail addresses in certificates"),
        ("regex", "regular expressions over names in certificates"),
    ],
};

pub(in super::super) static CLUSTER_TLS: Section = Section {
    name: "cluster TLS",
    place: "clusters.<name>.tls",
    doc: "TLS towards the endpoints of a cluster. A handshake that fails never becomes plaintext.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("disabled", "never; the rest of the section waits"),
                ("follow_peer", "as the endpoint announces under `tls`, within `rollout`"),
                ("required", "always: nothing is ever sent in plaintext"),
            ]),
            "When connections are encrypted.",
        )
        .default("required", "who writes `tls` means it"),
        Field::new(
            "rollout",
            Kind::Any(&[ROLLOUT_SHARE, Kind::Section(&ROLLOUT)]),
            "With `follow_peer`: which of the endpoints that announce TLS get it. A percentage is short for \
             `{ share: … }`.",
        )
        .default("100%", "the server decides; a share is for the first days"),
        Field::new(
            "server_name",
            Kind::Text("a host", 255),
            "The server name that is asked for, and that the certificate must have.",
        )
        .absent("the `dns` name of the cluster, else the endpoint's address"),
        Field::new("certificate", SECRET_NAME, "The secret with the certificate that is shown to servers that ask for one.")
            .absent("none"),
        Field::new("trusted_ca", SECRET_NAME, "The secret with the authorities that the server's certificate must come from.")
            .required(),
        Field::new(
            "subject_alt_names",
            SUBJECT_ALT_NAMES_KIND,
            "Any of these must be in the server's certificate, instead of the server name.",
        )
        .absent("the server name must be"),
        MIN_VERSION,
        MAX_VERSION,
        CIPHER_SUITES,
        GROUP_LIST,
        Field::new(
            "alpn",
            Kind::List(&ALPN_ITEM, TLS_LIST_MAX),
            "Protocols offered by ALPN, the preferred first. HTTP routes speak `http/1.1`, and with `protocol: http2` only `h2`.",
        )
        .absent("`[http/1.1]`, or `[h2]` with `protocol: http2`; none when a TCP listener leads to the cluster"),
        Field::new("resumption", Kind::Flag, "Whether sessions are resumed.")
            .default("true", "a resumed handshake costs a fraction"),
        Field::new("handshake_timeout", TIMEOUT, "For a whole handshake, after the connection was made.")
            .default("5s", "as `connect_timeout`"),
        Field::new(
            "warm_up",
            Kind::Duration(seconds(0), seconds(3600)),
            "When links are replaced, each begins its handshake at a random time within this.",
        )
        .default("1s", "spreads the handshakes of a fleet over what a server can bear"),
        Field::new(
            "drain_timeout",
            Kind::Duration(seconds(0), DAY),
            "How long a link that was replaced may take to finish what is in flight on it.",
        )
        .default("30s", "twice the default `timeout` of a route"),
    ],
    planned: &[
        ("sds", "secrets from xDS"),
        ("early_data", "early data (0-RTT)"),
        ("fingerprints", "pinned certificates"),
        ("key_log", "key logs"),
        ("fallback", "falling back to plaintext"),
    ],
};

const ROLLOUT_SHARE: Kind = Kind::Share(0, 10_000);

pub(in super::super) static ROLLOUT: Section = Section {
    name: "rollout",
    place: "clusters.<name>.tls.rollout",
    doc: "Which endpoints are switched, of those that announce TLS. The choice is made per pair of proxy and \
          endpoint, is stable, and only grows with the share.",
    fields: &[
        Field::new("share", ROLLOUT_SHARE, "The share of pairs.")
            .default("100%", "`zones` and `labels` choose, too"),
        Field::new("id", NAME, "Another id draws another sample.")
            .absent("the name of the cluster"),
        Field::new(
            "zones",
            Kind::List(&NAME, LABELS_MAX),
            "Only endpoints of these zones.",
        )
        .absent("of any"),
        Field::new("labels", LABELS, "Only endpoints with all of these labels.").absent("with any"),
    ],
    planned: &[
        ("schedule", "rollouts that grow by themselves"),
        ("instances", "lists of instances"),
    ],
};

pub(in super::super) static ENDPOINT_TLS: Section = Section {
    name: "endpoint TLS",
    place: "clusters.<name>.endpoints.static[].tls",
    doc: "What an endpoint announces about TLS. `on` and `off` alone are short for it.",
    fields: &[
        Field::new(
            "state",
            Kind::Any(&[ON, Kind::Off]),
            "Whether TLS is taken on the endpoint's port.",
        )
        .required(),
        Field::new(
            "epoch",
            Kind::Integer(0, u64::MAX),
            "Grows with every change; an announcement that is older than the known one is ignored.",
        )
        .default("0", "the first"),
        Field::new(
            "alpn",
            Kind::List(&ALPN_ITEM, TLS_LIST_MAX),
            "Protocols that it speaks over TLS.",
        )
        .absent("not told"),
        Field::new(
            "min_version",
            VERSIONS,
            "The lowest version of TLS that it takes.",
        )
        .absent("not told"),
    ],
    planned: &[],
};

const ON: Kind = Kind::Word(&[("on", "TLS is taken, plaintext may be")]);

/// What an endpoint announces.
pub(in super::super) const ENDPOINT_TLS_KIND: Kind =
    Kind::Any(&[ON, Kind::Off, Kind::Section(&ENDPOINT_TLS)]);
