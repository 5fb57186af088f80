//! Certificates and keys, from the file to the announcement.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

/// The content of a secret, as read: PEM, unchecked. Wiped from memory when dropped, and never shown (E9).
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// A certificate with its key.
    Certificate {
        /// The chain, the leaf first.
        chain: Arc<[u8]>,
        /// The key.
        private_key: Arc<Zeroizing<Vec<u8>>>,
    },
    /// Authorities that are trusted.
    TrustedCa {
        /// Their certificates.
        certificates: Arc<[u8]>,
        /// Revocations.
        crl: Option<Arc<[u8]>>,
    },
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Material::Certificate { .. } => "Certificate(redacted)",
            Material::TrustedCa { .. } => "TrustedCa(redacted)",
        })
    }
}
