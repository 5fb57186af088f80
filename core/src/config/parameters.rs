//! Cipher suites and key exchange groups: every one that a link can have, by name.
//!
//! The configuration takes no other, and the TLS side maps each to its implementation; a test there
//! compares. All suites have forward secrecy and authenticated encryption.

use super::model::TlsVersion;

/// A cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name in IANA's registry.
    pub name: &'static str,
    /// What others call it: OpenSSL, and so HAProxy, nginx and Envoy, in TLS 1.2; rustls in 1.3.
    pub alias: &'static str,
    /// The version that has it; none is in both.
    pub version: TlsVersion,
}

/// A key exchange group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name in IANA's registry, which is compared without case.
    pub name: &'static str,
    /// What others call it.
    pub alias: &'static str,
    /// The lowest version that can use it: ML-KEM came with TLS 1.3.
    pub version: TlsVersion,
}

/// Every suite, in the order of preference when none is configured.
pub const SUITES: [Suite; 9] = [
    tls13("TLS_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"),
    tls13("TLS_AES_128_GCM_SHA256", "TLS13_AES_128_GCM_SHA256"),
    tls13(
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS13_CHACHA20_POLY1305_SHA256",
    ),
    tls12(
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    tls12(
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    tls12(
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    tls12(
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    tls12(
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    tls12(
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

/// Every group.
pub const GROUPS: [Group; 6] = [
    group("X25519MLKEM768", "", TlsVersion::Tls13),
    group("SECP256R1MLKEM768", "P256MLKEM768", TlsVersion::Tls13),
    group("MLKEM768", "ML-KEM-768", TlsVersion::Tls13),
    group("X25519", "Curve25519", TlsVersion::Tls12),
    group("secp256r1", "P-256", TlsVersion::Tls12),
    group("secp384r1", "P-384", TlsVersion::Tls12),
];

impl Suite {
    /// The suite of this IANA name.
    pub fn by_name(name: &str) -> Option<&'static Suite> {
        SUITES.iter().find(|suite| suite.name == name)
    }
}

impl Group {
    /// The group of this IANA name, compared without case.
    pub fn by_name(name: &str) -> Option<&'static Group> {
        GROUPS
            .iter()
            .find(|group| group.name.eq_ignore_ascii_case(name))
    }
}

const fn tls13(name: &'static str, alias: &'static str) -> Suite {
    Suite {
        name,
        alias,
        version: TlsVersion::Tls13,
    }
}

const fn tls12(name: &'static str, alias: &'static str) -> Suite {
    Suite {
        name,
        alias,
        version: TlsVersion::Tls12,
    }
}

const fn group(name: &'static str, alias: &'static str, version: TlsVersion) -> Group {
    Group {
        name,
        alias,
        version,
    }
}
