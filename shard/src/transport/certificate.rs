//! Certificates, keys and authorities as they come from files, and what is in them.

use aws_lc_rs::digest;
use rustls::{
    InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{Error as PemError, PemObject},
    },
    sign::CertifiedKey,
};
use tidegate_core::{
    config::model::ExpiredCrl,
    encryption::secret::{Material, SecretFacts, SecretFault, SecretPart},
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, GeneralName, ParsedExtension, X509Certificate,
};
use zeroize::Zeroize;

/// Certificates in one file: the bundles of public authorities hold about 150.
const CERTIFICATES_MAX: usize = 1024;

/// The names in a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) dns: Vec<Box<str>>,
    pub(super) uris: Vec<Box<str>>,
    pub(super) common_name: Option<Box<str>>,
    pub(super) not_after_unix_s: u64,
}

impl Names {
    /// The names in `der`; none for what is no certificate.
    pub(super) fn of(der: &[u8]) -> Names {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Names::default();
        };
        let mut names = Names {
            not_after_unix_s: unix_s(certificate.validity().not_after.timestamp()),
            ..Names::default()
        };
        let common = certificate.subject().iter_common_name().next();
        names.common_name = common.and_then(|cn| cn.as_str().ok()).map(Into::into);
        for name in alternative_names(&certificate) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).into()),
                GeneralName::URI(name) => names.uris.push((*name).into()),
                _ => {}
            }
        }
        names
    }

    /// Who it says its holder is: the first URI, else the first DNS name, else the common name.
    pub(super) fn identity(&self) -> Option<&str> {
        let first = self.uris.first().or(self.dns.first());
        first.or(self.common_name.as_ref()).map(|name| &**name)
    }
}

/// A certificate with its key, ready for use.
pub(super) fn certified_key(material: &Material) -> Result<CertifiedKey, SecretFault> {
    let Material::Certificate { chain, private_key } = material else {
        return Err(wrong_kind(SecretPart::Certificate, "a certificate"));
    };
    let chain = certificates(SecretPart::Certificate, chain)?;
    let mut der = PrivateKeyDer::from_pem_slice(private_key).map_err(|error| {
        let cause = format!("no private key is found in it ({})", pem_error(&error));
        fault(
            SecretPart::PrivateKey,
            cause,
            "give a PEM file with a PKCS#8, PKCS#1 or SEC1 key that has no pass phrase",
        )
    })?;
    let key = any_supported_type(&der);
    // What signs has its own copy, which it wipes; this one would be left behind (E9).
    der.zeroize();
    let key = key.map_err(|_| {
        let cause = "the key is of a kind that is not served, or damaged".to_owned();
        fault(
            SecretPart::PrivateKey,
            cause,
            "use RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
        )
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(fault(
            SecretPart::PrivateKey,
            "the key is not the one of the certificate".into(),
            "write both files of a pair, then rename both into place",
        )),
        Err(rustls::Error::InconsistentKeys(_)) | Ok(()) => Ok(certified),
        Err(_) => Err(not_a_certificate(0)),
    }
}

/// Authorities to trust, and what they have revoked.
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    pub(super) expired_crl: ExpiredCrl,
}

/// The authorities of a secret.
pub(super) fn authorities(material: &Material) -> Result<Authorities, SecretFault> {
    let Material::TrustedCa {
        certificates,
        crl,
        expired_crl,
    } = material
    else {
        return Err(wrong_kind(SecretPart::TrustedCa, "authorities"));
    };
    let mut roots = RootCertStore::empty();
    for (i, der) in self::certificates(SecretPart::TrustedCa, certificates)?
        .into_iter()
        .enumerate()
    {
        roots.add(der).map_err(|_| SecretFault {
            part: SecretPart::TrustedCa,
            ..not_a_certificate(i)
        })?;
    }
    let crls = match crl {
        Some(crl) => revocations(crl)?,
        None => Vec::new(),
    };
    Ok(Authorities {
        roots,
        crls,
        expired_crl: *expired_crl,
    })
}

/// See [`super::tls::check`].
pub(super) fn check(material: &Material, now_unix_s: u64) -> Result<SecretFacts, SecretFault> {
    match material {
        Material::Certificate { .. } => {
            let certified = certified_key(material)?;
            let facts = facts(SecretPart::Certificate, &certified.cert)?;
            check_dates(SecretPart::Certificate, &facts, now_unix_s)?;
            check_chain(&certified.cert, now_unix_s)?;
            Ok(facts)
        }
        Material::TrustedCa { certificates, .. } => {
            let crls = authorities(material)?.crls;
            let chain = self::certificates(SecretPart::TrustedCa, certificates)?;
            let mut facts = facts(SecretPart::TrustedCa, &chain)?;
            check_dates(SecretPart::TrustedCa, &facts, now_unix_s)?;
            let updates = crls.iter().filter_map(|der| next_update(der));
            facts.crl_next_update_unix_s = updates.min();
            Ok(facts)
        }
    }
}

fn certificates(part: SecretPart, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SecretFault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(CERTIFICATES_MAX + 1)
        .collect();
    let remedy = "give a PEM file with BEGIN CERTIFICATE sections";
    match found {
        Ok(found) if found.is_empty() => {
            Err(fault(part, "there is no certificate in it".into(), remedy))
        }
        Ok(found) if found.len() > CERTIFICATES_MAX => {
            let cause = format!("there are more than {CERTIFICATES_MAX} certificates in it");
            Err(fault(part, cause, "keep those that are needed"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(fault(
            part,
            format!("it is not PEM ({})", pem_error(&error)),
            remedy,
        )),
    }
}

fn revocations(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, SecretFault> {
    let remedy = "give a PEM file with BEGIN X509 CRL sections, or leave `crl` out";
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem)
        .take(CERTIFICATES_MAX)
        .collect();
    let found = found.map_err(|error| {
        let cause = format!("it is not PEM ({})", pem_error(&error));
        fault(SecretPart::Crl, cause, remedy)
    })?;
    let broken = found
        .iter()
        .any(|der| webpki::OwnedCertRevocationList::from_der(der).is_err());
    if broken || found.is_empty() {
        let cause = "there is no revocation list in it that can be read".into();
        return Err(fault(SecretPart::Crl, cause, remedy));
    }
    Ok(found)
}

fn next_update(der: &[u8]) -> Option<u64> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    Some(unix_s(list.next_update()?.timestamp()))
}

fn facts(part: SecretPart, chain: &[CertificateDer<'_>]) -> Result<SecretFacts, SecretFault> {
    let parsed: Vec<_> = chain
        .iter()
        .enumerate()
        .map(|(i, der)| {
            let parsed = X509Certificate::from_der(der).map_err(|_| SecretFault {
                part,
                ..not_a_certificate(i)
            });
            parsed.map(|(_, certificate)| certificate)
        })
        .collect::<Result<_, _>>()?;
    let (Some(first), Some(der)) = (parsed.first(), chain.first()) else {
        return Err(not_a_certificate(0));
    };
    let begins = parsed
        .iter()
        .map(|c| unix_s(c.validity().not_before.timestamp()));
    let ends = parsed
        .iter()
        .map(|c| unix_s(c.validity().not_after.timestamp()));
    let (begin, end) = match part {
        SecretPart::TrustedCa => (begins.min(), ends.max()),
        _ => (begins.max(), ends.min()),
    };
    Ok(SecretFacts {
        subject: first.subject().to_string(),
        issuer: first.issuer().to_string(),
        serial: first.raw_serial_as_string(),
        subject_alt_names: alternative_names(first).filter_map(shown).collect(),
        fingerprint_sha256: hex(digest::digest(&digest::SHA256, der).as_ref()),
        certificates: chain.len(),
        not_before_unix_s: begin.unwrap_or(0),
        not_after_unix_s: end.unwrap_or(0),
        crl_next_update_unix_s: None,
    })
}

fn check_dates(part: SecretPart, facts: &SecretFacts, now_unix_s: u64) -> Result<(), SecretFault> {
    if facts.not_after_unix_s <= now_unix_s {
        let cause = "it has expired".into();
        return Err(fault(part, cause, "have it renewed"));
    }
    if facts.not_before_unix_s > now_unix_s {
        let cause = "it is not valid yet".into();
        return Err(fault(part, cause, "look at this host's clock, or wait"));
    }
    Ok(())
}

/// Whether the leaf comes from the last of the chain by way of those between. A leaf alone may be
/// all that its clients need.
fn check_chain(chain: &[CertificateDer<'static>], now_unix_s: u64) -> Result<(), SecretFault> {
    let [leaf, between @ .., last] = chain else {
        return Ok(());
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix_s));
    let algorithms = default_provider().signature_verification_algorithms.all;
    let builds = |usage: KeyUsage| {
        let anchor = anchor_from_trusted_cert(last)?;
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(algorithms, &[anchor], between, now, usage, None, None)
            .map(|_| ())
    };
    if builds(KeyUsage::server_auth()).is_ok() || builds(KeyUsage::client_auth()).is_ok() {
        return Ok(());
    }
    Err(fault(
        SecretPart::Certificate,
        "the chain does not build: a certificate in it was not issued by the next".into(),
        "put the leaf first, then each issuer in turn",
    ))
}

fn alternative_names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> impl Iterator<Item = &'a GeneralName<'a>> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::URI(name) => Some(format!("URI:{name}")),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
            v4.or(v6).ok().map(|ip| format!("IP:{ip}"))
        }
        _ => None,
    }
}

fn unix_s(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fault(part: SecretPart, cause: String, remedy: &str) -> SecretFault {
    SecretFault {
        part,
        cause,
        remedy: remedy.to_owned(),
    }
}

fn wrong_kind(part: SecretPart, wanted: &str) -> SecretFault {
    fault(
        part,
        format!("the secret is not {wanted}"),
        "refer to a secret of the right kind",
    )
}

fn not_a_certificate(index: usize) -> SecretFault {
    fault(
        SecretPart::Certificate,
        format!("certificate {} of the file cannot be read", index + 1),
        "have it issued anew as X.509 version 3",
    )
}

/// What is wrong with PEM, without any of it.
fn pem_error(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no end",
        PemError::IllegalSectionStart { .. } => "a section's first line is damaged",
        PemError::Base64Decode(_) => "its Base64 is damaged",
        PemError::NoItemsFound => "there is no such section",
        _ => "it cannot be read",
    }
}
