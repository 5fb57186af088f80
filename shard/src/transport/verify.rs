//! Whether a peer's certificate will do: the chain and the revocations by webpki, then the names by our
//! own rule (E15).
//!
//! Where revocations are given, each certificate of a chain needs a list of its issuer: what cannot be
//! looked up counts as revoked (as Envoy and OpenSSL do). A list past its next update is still used, and
//! told of, unless `expired_crl: refuse` says otherwise.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tidegate_core::config::model::{
    ClientCertificateMode, ExpiredCrl, SanKind, SanMatch, SanPattern,
};

use super::certificate::{Authorities, Names};

/// Whether clients' certificates will do.
#[derive(Debug)]
pub(super) struct ClientPolicy {
    chain: Arc<dyn ClientCertVerifier>,
    names: Vec<SanMatch>,
}

impl ClientPolicy {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        authorities: Authorities,
        mode: ClientCertificateMode,
        names: Vec<SanMatch>,
    ) -> Result<ClientPolicy, VerifierBuilderError> {
        let roots = Arc::new(authorities.roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let mut builder = builder.with_crls(authorities.crls);
        if authorities.expired_crl == ExpiredCrl::Refuse {
            builder = builder.enforce_revocation_expiration();
        }
        let chain = match mode {
            ClientCertificateMode::Require => builder.build()?,
            _ => builder.allow_unauthenticated().build()?,
        };
        Ok(ClientPolicy { chain, names })
    }

    /// Checks the certificates of a resumed session anew: chain, dates, revocations and names as of now. A
    /// ticket must not outlive what it was given for.
    pub(super) fn recheck(
        &self,
        certificates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        match certificates {
            [] if self.chain.client_auth_mandatory() => Err(Error::NoCertificatesPresented),
            [] => Ok(()),
            [leaf, between @ ..] => self.verify_client_cert(leaf, between, now).map(|_| ()),
        }
    }
}

impl ClientCertVerifier for ClientPolicy {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, between, now)?;
        check_names(&self.names, leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whether servers' certificates will do.
#[derive(Debug)]
pub(super) struct ServerPolicy {
    chain: Arc<WebPkiServerVerifier>,
    /// Compared instead of the server name, unless empty.
    names: Vec<SanMatch>,
}

impl ServerPolicy {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        authorities: Authorities,
        names: Vec<SanMatch>,
    ) -> Result<ServerPolicy, VerifierBuilderError> {
        let roots = Arc::new(authorities.roots);
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let mut builder = builder.with_crls(authorities.crls);
        if authorities.expired_crl == ExpiredCrl::Refuse {
            builder = builder.enforce_revocation_expiration();
        }
        let chain = builder.build()?;
        Ok(ServerPolicy { chain, names })
    }

    /// Checks the certificates of a resumed session anew.
    pub(super) fn recheck(
        &self,
        certificates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some((leaf, between)) = certificates.split_first() else {
            return Err(Error::NoCertificatesPresented);
        };
        self.verify_server_cert(leaf, between, name, &[], now)
            .map(|_| ())
    }
}

impl ServerCertVerifier for ServerPolicy {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .chain
            .verify_server_cert(leaf, between, name, ocsp, now);
        if self.names.is_empty() {
            return verified;
        }
        match verified {
            // The name is the last thing that is looked at, so everything else is in order; a test holds
            // the library to it.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {
                check_names(&self.names, leaf)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Any of `wanted` must match a name of the certificate; none wanted takes every certificate.
fn check_names(wanted: &[SanMatch], leaf: &CertificateDer<'_>) -> Result<(), Error> {
    if wanted.is_empty() || matches(wanted, &Names::of(leaf)) {
        return Ok(());
    }
    Err(CertificateError::ApplicationVerificationFailure.into())
}

fn matches(wanted: &[SanMatch], names: &Names) -> bool {
    wanted.iter().any(|wanted| match wanted.kind {
        SanKind::Uri => names.uris.iter().any(|name| fits(&wanted.pattern, name)),
        SanKind::Dns => {
            let pattern = lower_case(&wanted.pattern);
            let mut names = names.dns.iter().map(|name| name.to_ascii_lowercase());
            names.any(|name| fits(&pattern, &name))
        }
    })
}

fn fits(pattern: &SanPattern, name: &str) -> bool {
    match pattern {
        SanPattern::Exact(text) => name == &**text,
        SanPattern::Prefix(text) => name.starts_with(&**text),
        SanPattern::Suffix(text) => name.ends_with(&**text),
    }
}

fn lower_case(pattern: &SanPattern) -> SanPattern {
    let lower = |text: &Arc<str>| text.to_ascii_lowercase().into();
    match pattern {
        SanPattern::Exact(text) => SanPattern::Exact(lower(text)),
        SanPattern::Prefix(text) => SanPattern::Prefix(lower(text)),
        SanPattern::Suffix(text) => SanPattern::Suffix(lower(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are compared by kind, DNS without case, URIs with it. Method: table (E15).
    #[test]
    fn names_are_matched_by_kind() {
        let names = Names {
            dns: vec!["API.Pay.example".into()],
            uris: vec!["spiffe://mesh/ns/pay/sa/Web".into()],
            common_name: Some("spiffe://mesh/ns/other".into()),
            ..Names::default()
        };
        use SanPattern::{Exact, Prefix, Suffix};
        for (kind, pattern, expected) in [
            (SanKind::Dns, Exact("api.pay.example".into()), true),
            (SanKind::Dns, Suffix(".PAY.example".into()), true),
            (SanKind::Dns, Exact("pay.example".into()), false),
            (SanKind::Dns, Prefix("spiffe://".into()), false),
            (SanKind::Uri, Prefix("spiffe://mesh/ns/pay/".into()), true),
            (
                SanKind::Uri,
                Exact("spiffe://mesh/ns/pay/sa/web".into()),
                false,
            ),
            // The common name is not an alternative name.
            (SanKind::Uri, Exact("spiffe://mesh/ns/other".into()), false),
        ] {
            let wanted = [SanMatch { kind, pattern }];
            assert_eq!(matches(&wanted, &names), expected, "{wanted:?}");
        }
    }
}
