//! Whether clients are let in, over a whole shard: what they were let in by before, and revocations.

use tidegate_core::{config::model::ExpiredCrl, reason::Reason};

use super::{
    fixtures::*,
    on_a_shard::{GET, Running, client_config, exchange, respond},
};

/// Goal: a session is resumed only where clients are asked for the same, and only while its certificate is still
/// good (E7, E15). Method: tickets of one listener offered to others: the same again, one without a policy, one
/// with another name, one that has revoked the certificate since, which the client is told by its alert in either
/// version.
#[test]
fn resumption_keeps_the_policy() {
    let authority = Authority::new("ca");
    let shown = authority.issue_with(&["spiffe://mesh/pay"], |params| {
        params.serial_number = Some(7_u64.into());
    });
    let web = authority.issue(&["web.example"]).material();
    let (ca, revoking) = (authority.material(), authority.material_revoking(7));
    let asked =
        "client_certificate: { trusted_ca: ca, subject_alt_names: [{ uri: 'spiffe://mesh/pay' }] }";
    let others =
        "client_certificate: { trusted_ca: ca, subject_alt_names: [{ uri: 'spiffe://mesh/*' }] }";
    let (old, old_asked) = (
        "max_version: '1.2', ",
        format!("max_version: '1.2', {asked}"),
    );
    let regrouped = format!("groups: [secp384r1], {asked}");
    for (tls, ca_then, resumed) in [
        (asked, &ca, Ok(true)),
        (&old_asked, &ca, Ok(true)),
        (others, &ca, Ok(false)),
        ("mode: strict", &ca, Ok(false)),
        // The ticket opens, but what it stands for is no longer good.
        (asked, &revoking, Err("certificate_revoked")),
        (&old_asked, &revoking, Err("certificate_revoked")),
        // The same after a second hello, since the client's first one guesses another group.
        (&regrouped, &revoking, Err("certificate_revoked")),
        (&regrouped, &ca, Ok(true)),
    ] {
        let config = client_config(&authority, Some(&shown));
        let first = match tls.starts_with(old) {
            true => &*old_asked,
            false => asked,
        };
        let first = Running::start(&respond(first), &[("web", web.clone()), ("ca", ca.clone())]);
        assert!(exchange(&mut first.secure(&config), GET).is_ok());
        let secrets = [("web", web.clone()), ("ca", ca_then.clone())];
        let mut then = Running::start(&respond(tls), &secrets);
        let mut stream = then.secure(&config);
        let answer = exchange(&mut stream, GET);
        let record = then.logged();
        match resumed {
            Ok(resumed) => {
                assert!(answer.unwrap().ends_with("hello"));
                assert_eq!(record.tls_resumed, resumed, "{tls}");
            }
            Err(detail) => {
                let told = answer.unwrap_err().to_string();
                assert!(told.contains("CertificateRevoked"), "{tls}: {told}");
                assert_eq!(
                    (record.reason, record.detail),
                    (Some(Reason::ClientCertificate), detail)
                );
            }
        }
    }
}

/// Goal: revocations past their next update are used, or everybody is refused, as the configuration says (E15).
/// Method: a good and a revoked certificate before lists of both kinds.
#[test]
fn expired_revocations() {
    let authority = Authority::new("ca");
    let good = authority.issue(&["spiffe://mesh/pay"]);
    let revoked = authority.issue_with(&["spiffe://mesh/pay"], |params| {
        params.serial_number = Some(7_u64.into());
    });
    let web = authority.issue(&["web.example"]).material();
    for (year, expired_crl, detail) in [
        (2100, ExpiredCrl::Refuse, None),
        (2025, ExpiredCrl::Use, None),
        (2025, ExpiredCrl::Refuse, Some("unknown_ca")),
    ] {
        let ca = authority.material_until(year, 7, expired_crl);
        let asked = respond("client_certificate: { trusted_ca: ca }");
        let mut running = Running::start(&asked, &[("web", web.clone()), ("ca", ca)]);
        for (shown, detail) in [
            (&good, detail),
            (&revoked, detail.or(Some("certificate_revoked"))),
        ] {
            let config = client_config(&authority, Some(shown));
            let answer = exchange(&mut running.secure(&config), GET);
            let record = running.logged();
            assert_eq!(answer.is_ok(), detail.is_none(), "{year} {expired_crl:?}");
            assert_eq!(record.detail, detail.unwrap_or_default());
        }
    }
}
