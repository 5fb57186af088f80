//! What a failed handshake is called: by the alert, ours or the peer's.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Who ended a handshake, and how it is called in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The peer's certificate will not do.
    pub(super) is_certificate: bool,
    /// The peer broke it off.
    pub(super) is_peers: bool,
    /// The name of the alert (RFC 8446, 6), `received ` before it if it was the peer's.
    pub(super) name: &'static str,
}

/// What `error` stands for. rustls keeps to itself which alert it has sent; the ones for these errors
/// are fixed.
pub(super) fn verdict(error: &Error) -> Verdict {
    if let Error::AlertReceived(alert) = error {
        return Verdict {
            is_certificate: false,
            is_peers: true,
            name: received(*alert),
        };
    }
    Verdict {
        is_certificate: matches!(
            error,
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented
        ),
        is_peers: false,
        name: name(ours(error)),
    }
}

/// The record that tells the peer of `error` before anything is encrypted (RFC 8446, 5.1 and 6): an alert, in
/// the version that records have on the wire, 2 bytes long, fatal.
pub(super) fn in_the_clear(error: &Error) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, ours(error).into()]
}

fn ours(error: &Error) -> AlertDescription {
    match error {
        Error::InvalidCertificate(error) => certificate_alert(error),
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => AlertDescription::ProtocolVersion,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        Error::General(text) if text.contains("no server certificate chain") => {
            AlertDescription::UnrecognisedName
        }
        _ => AlertDescription::InternalError,
    }
}

fn certificate_alert(error: &CertificateError) -> AlertDescription {
    AlertDescription::from(error.clone())
}

macro_rules! names {
    ($($alert:ident => $name:literal,)*) => {
        fn name(alert: AlertDescription) -> &'static str {
            match alert {
                $(AlertDescription::$alert => $name,)*
                _ => "unknown_alert",
            }
        }

        fn received(alert: AlertDescription) -> &'static str {
            match alert {
                $(AlertDescription::$alert => concat!("received ", $name),)*
                _ => "received unknown_alert",
            }
        }
    };
}

names! {
    CloseNotify => "close_notify",
    UnexpectedMessage => "unexpected_message",
    BadRecordMac => "bad_record_mac",
    RecordOverflow => "record_overflow",
    HandshakeFailure => "handshake_failure",
    BadCertificate => "bad_certificate",
    UnsupportedCertificate => "unsupported_certificate",
    CertificateRevoked => "certificate_revoked",
    CertificateExpired => "certificate_expired",
    CertificateUnknown => "certificate_unknown",
    IllegalParameter => "illegal_parameter",
    UnknownCA => "unknown_ca",
    AccessDenied => "access_denied",
    DecodeError => "decode_error",
    DecryptError => "decrypt_error",
    ProtocolVersion => "protocol_version",
    InsufficientSecurity => "insufficient_security",
    InternalError => "internal_error",
    InappropriateFallback => "inappropriate_fallback",
    UserCanceled => "user_canceled",
    NoRenegotiation => "no_renegotiation",
    MissingExtension => "missing_extension",
    UnsupportedExtension => "unsupported_extension",
    UnrecognisedName => "unrecognized_name",
    BadCertificateStatusResponse => "bad_certificate_status_response",
    UnknownPSKIdentity => "unknown_psk_identity",
    CertificateRequired => "certificate_required",
    NoApplicationProtocol => "no_application_protocol",
}
