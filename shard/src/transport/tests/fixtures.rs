//! An authority, what it issues, and contexts made of it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tidegate_core::{
    config::{
        self,
        model::{Config, ExpiredCrl},
    },
    encryption::secret::Material,
    message::TlsContexts,
};
use zeroize::Zeroizing;

use crate::tls::{self, Lasting, TicketKeys};

/// An authority with its key.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as files would hold it.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for these names; those with `://` are URIs.
    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub(super) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => match name.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName((*name).try_into().unwrap()),
                },
            })
            .collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Issued {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn material(&self) -> Material {
        Material::TrustedCa {
            certificates: self.pem().into_bytes().into(),
            crl: None,
            expired_crl: ExpiredCrl::Use,
        }
    }

    /// The same, with `serial` revoked.
    pub(super) fn material_revoking(&self, serial: u64) -> Material {
        self.material_until(2100, serial, ExpiredCrl::Use)
    }

    /// The same, with revocations that are to be renewed at the beginning of a year.
    pub(super) fn material_until(
        &self,
        year: i32,
        serial: u64,
        expired_crl: ExpiredCrl,
    ) -> Material {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.0).unwrap().pem().unwrap();
        Material::TrustedCa {
            certificates: self.pem().into_bytes().into(),
            crl: Some(crl.into_bytes().into()),
            expired_crl,
        }
    }

    pub(super) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

impl Issued {
    pub(super) fn material(&self) -> Material {
        Material::Certificate {
            chain: self.chain.clone().into_bytes().into(),
            private_key: Arc::new(Zeroizing::new(self.key.clone().into_bytes())),
        }
    }

    pub(super) fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        (
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap(),
        )
    }
}

/// A configuration; the files that it names are not read.
pub(super) fn config(yaml: &str) -> Config {
    match config::parse("test.yaml", &format!("version: 1\n{yaml}")) {
        Ok((config, _)) => config,
        Err(wrong) => panic!("{wrong:?}\n{yaml}"),
    }
}

/// Secrets by name.
pub(super) fn secrets(list: &[(&str, Material)]) -> BTreeMap<Arc<str>, Material> {
    let named = list.iter();
    named
        .map(|(name, material)| ((*name).into(), material.clone()))
        .collect()
}

/// The section of the configuration that names secrets called `name`s; `ca…` are authorities.
pub(super) fn secrets_yaml(names: &[&str]) -> String {
    let mut yaml = "secrets:\n".to_owned();
    for name in names {
        let line = match name.starts_with("ca") {
            true => format!("  {name}: {{ trusted_ca: /nowhere/{name}.pem }}\n"),
            false => format!(
                "  {name}: {{ certificate: /nowhere/{name}.pem, private_key: /nowhere/{name}.key }}\n"
            ),
        };
        yaml.push_str(&line);
    }
    yaml
}

pub(super) fn lasting(fill: u8) -> Lasting {
    Lasting {
        tickets: Arc::new(TicketKeys::new(|bytes| bytes.fill(fill))),
        key_log: None,
    }
}

/// Contexts without any fault.
pub(super) fn contexts(config: &Config, secrets: &BTreeMap<Arc<str>, Material>) -> TlsContexts {
    let (contexts, faults) = tls::build(config, secrets, &lasting(1), 1, None);
    assert!(faults.is_empty(), "{faults:?}");
    contexts
}

pub(super) fn now_unix_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}
