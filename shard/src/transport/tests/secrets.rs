//! Secrets: what is taken, and what is refused with which words.

use std::sync::Arc;

use tidegate_core::{
    config::model::ExpiredCrl,
    encryption::secret::{Material, SecretPart},
};
use zeroize::Zeroizing;

use super::fixtures::*;
use crate::tls::{build, check};

const DAY_S: u64 = 24 * 3600;

/// Goal: what may be shown of a certificate is right. Method: one with a name of each kind.
#[test]
fn facts_of_a_certificate() {
    let authority = Authority::new("The CA");
    let issued = authority.issue_with(&["a.example", "spiffe://mesh/a", "127.0.0.1"], |params| {
        params.serial_number = Some(0x1234_u64.into());
    });
    let facts = check(&issued.material(), now_unix_s()).unwrap();
    assert_eq!(facts.subject, "CN=leaf");
    assert_eq!(facts.issuer, "CN=The CA");
    assert_eq!(facts.serial, "12:34");
    let names = ["DNS:a.example", "URI:spiffe://mesh/a", "IP:127.0.0.1"];
    assert_eq!(facts.subject_alt_names, names);
    assert_eq!(facts.fingerprint_sha256.len(), 64);
    assert!(facts.not_after_unix_s > now_unix_s());
    let facts = check(&authority.material_revoking(7), now_unix_s()).unwrap();
    assert_eq!(facts.subject, "CN=The CA");
    assert!(facts.crl_next_update_unix_s.is_some());
}

/// Goal: each fault is found, in the file where it is. Method: broken secrets of each kind.
#[test]
fn faults_are_named() {
    let authority = Authority::new("ca");
    let (one, other) = (authority.issue(&["a"]), authority.issue(&["b"]));
    let pair = |chain: &str, key: &str| Material::Certificate {
        chain: chain.as_bytes().into(),
        private_key: Arc::new(Zeroizing::new(key.as_bytes().to_vec())),
    };
    let trusted = |pem: &str, crl: Option<&str>| Material::TrustedCa {
        certificates: pem.as_bytes().into(),
        crl: crl.map(|crl| crl.as_bytes().into()),
        expired_crl: ExpiredCrl::Use,
    };
    let unrelated = format!("{}{}", one.chain, Authority::new("x").pem());
    let good = format!("{}{}", one.chain, authority.pem());
    let broken = one.chain.replace("MII", "M!I");
    for (material, part, words) in [
        (
            pair(&one.chain, &other.key),
            SecretPart::PrivateKey,
            "not the one",
        ),
        (
            pair(&one.chain, ""),
            SecretPart::PrivateKey,
            "no private key",
        ),
        (
            pair(&one.chain, &one.chain),
            SecretPart::PrivateKey,
            "no private key",
        ),
        (
            pair("", &one.key),
            SecretPart::Certificate,
            "no certificate",
        ),
        (
            pair("garbage", &one.key),
            SecretPart::Certificate,
            "no certificate",
        ),
        (pair(&broken, &one.key), SecretPart::Certificate, "not PEM"),
        (
            pair(&unrelated, &one.key),
            SecretPart::Certificate,
            "does not build",
        ),
        (trusted("", None), SecretPart::TrustedCa, "no certificate"),
        (
            trusted(&authority.pem(), Some("")),
            SecretPart::Crl,
            "no revocation list",
        ),
        (
            trusted(&authority.pem(), Some(&one.chain)),
            SecretPart::Crl,
            "no revocation list",
        ),
    ] {
        let fault = check(&material, now_unix_s()).unwrap_err();
        assert_eq!(fault.part, part, "{fault:?}");
        assert!(fault.cause.contains(words), "{fault:?}");
        assert!(!fault.remedy.is_empty());
        assert!(!format!("{fault:?}").contains("MII"), "{fault:?}");
    }
    assert!(check(&pair(&good, &one.key), now_unix_s()).is_ok());
}

/// Goal: dates hold, to the second. Method: the ends of a certificate, and one beyond.
#[test]
fn dates_are_kept() {
    let issued = Authority::new("ca").issue_with(&["a"], |params| {
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 2);
    });
    let begin = 1_767_225_600;
    for (now, words) in [
        (begin - 1, Some("not valid yet")),
        (begin, None),
        (begin + DAY_S - 1, None),
        (begin + DAY_S, Some("expired")),
    ] {
        let checked = check(&issued.material(), now);
        let cause = checked.err().map(|fault| fault.cause);
        assert_eq!(cause.is_some(), words.is_some(), "{now}");
        assert!(cause.unwrap_or_default().contains(words.unwrap_or("")));
    }
}

const CONFIG: &str = "listeners:
  web:
    bind: 127.0.0.1:0
    tls: { certificates: a }
    routes: [{ respond: { status: 200 } }]
clusters:
  one: { tls: { mode: follow_peer, trusted_ca: ca }, endpoints: { static: ['127.0.0.1:1'] } }
  two: { tls: { trusted_ca: ca2 }, endpoints: { static: ['127.0.0.1:1'] } }
";

/// Goal: only what changed gets another generation (E11); what is missing is named. Method: builds one after
/// the other, each with one change.
#[test]
fn generations_follow_their_inputs() {
    let (ca, ca2) = (Authority::new("ca"), Authority::new("ca2"));
    let yaml = secrets_yaml(&["a", "ca", "ca2"]) + CONFIG;
    let config_one = config(&yaml);
    let mut all = secrets(&[
        ("a", ca.issue(&["a"]).material()),
        ("ca", ca.material()),
        ("ca2", ca2.material()),
    ]);
    let tickets = lasting(1);
    let generations = |contexts| {
        let shard = crate::transport::ShardTls::new(contexts, &Default::default());
        ["one", "two"].map(|name| shard.client_generation(name))
    };
    let (first, faults) = build(&config_one, &all, &tickets, 1, None);
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(generations(&first), [Some(1), Some(1)]);
    // Other tickets, other rollout, another time-out: nothing that a link is made of.
    let config_two =
        config(&yaml.replace("ca }, end", "ca, rollout: 5%, drain_timeout: 9s }, end"));
    let (second, _) = build(&config_two, &all, &lasting(2), 2, Some(&first));
    assert_eq!(generations(&second), [Some(1), Some(1)]);
    all.insert("ca2".into(), ca.material());
    let (third, _) = build(&config_two, &all, &tickets, 3, Some(&second));
    assert_eq!(generations(&third), [Some(1), Some(3)]);
    all.remove("ca2");
    let (fourth, faults) = build(&config_two, &all, &tickets, 4, Some(&third));
    assert_eq!(generations(&fourth), [Some(1), None]);
    let [(owner, text)] = &faults[..] else {
        panic!("{faults:?}");
    };
    assert_eq!((&**owner, &**text), ("two", "secret `ca2` is not loaded"));
}
