//! Messages for users when TLS fails, worded as in other tools.

use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerIncompatible};

use crate::error::{Error, ErrorKind};

/// The connection ended without being closed by the peer: someone else may have cut it.
pub(super) fn cut() -> Error {
    let message = "The TLS connection was non-properly terminated.";
    Error::new(ErrorKind::Os, message).with_errno(libc::ECONNRESET)
}

/// The peer, or someone in between, violates the protocol.
pub(super) fn broken(reason: &str) -> Error {
    let message = format!("TLS handshake failed: {reason}");
    Error::new(ErrorKind::Os, message).with_errno(libc::EPROTO)
}

/// The peer is not who it should be, or rejects our identity.
pub(super) fn untrusted(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Denied, reason)
}

/// An error of a session with certificates; `host` is the name that was expected.
pub(super) fn of_session(error: &TlsError, host: Option<&str>) -> Error {
    match error {
        TlsError::InvalidCertificate(reason) => untrusted(certificate(reason, host)),
        TlsError::NoCertificatesPresented => untrusted("Verify failed: No certificate was found."),
        TlsError::AlertReceived(alert) => alert_received(*alert),
        TlsError::InvalidMessage(_) => broken("An unexpected TLS packet was received."),
        TlsError::PeerIncompatible(reason) => broken(&incompatible(reason)),
        TlsError::DecryptError => broken("Decryption has failed."),
        other => broken(&other.to_string()),
    }
}

fn incompatible(reason: &PeerIncompatible) -> String {
    match reason {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            "No version of the protocol that both ends know.".to_owned()
        }
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "No algorithms that both ends know.".to_owned()
        }
        other => format!("{other:?}"),
    }
}

/// Why a certificate is rejected.
pub(super) fn certificate(reason: &CertificateError, host: Option<&str>) -> String {
    use CertificateError as E;
    match reason {
        E::UnknownIssuer => "The certificate hasn't got a known issuer".to_owned(),
        E::Expired | E::ExpiredContext { .. } => "The certificate has expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "The certificate is not yet activated".to_owned()
        }
        E::Revoked => "The certificate has been revoked".to_owned(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            let host = host.unwrap_or_default();
            format!("Certificate does not match the hostname {host}")
        }
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "The list of revoked certificates is old and has been superseded".to_owned()
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "The certificate is not for this purpose".to_owned()
        }
        E::BadEncoding => "The certificate is damaged".to_owned(),
        E::BadSignature => "The signature in the certificate is wrong".to_owned(),
        other => format!("The certificate is not trusted: {other}"),
    }
}

/// The reason that the peer gives before it disconnects.
fn alert_received(alert: AlertDescription) -> Error {
    use AlertDescription as A;
    let reason = match alert {
        A::CertificateRequired | A::NoCertificate => "it wants a certificate",
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied => "it does not accept the certificate",
        A::CertificateRevoked => "the certificate is revoked",
        A::CertificateExpired => "the certificate has expired",
        A::UnknownPSKIdentity => "it does not know the key",
        other => {
            let message = format!("The peer ended the TLS session: {other:?}");
            return Error::new(ErrorKind::Os, message).with_errno(libc::EPROTO);
        }
    };
    untrusted(format!("The peer refused the TLS session: {reason}"))
}
