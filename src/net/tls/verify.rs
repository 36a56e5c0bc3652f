//! Whether a server is the one that was requested.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use webpki::EndEntityCert;

use super::name::common_name;

/// How thoroughly a server is checked.
#[derive(Debug)]
pub(super) enum Check {
    /// The issuer of its certificate, and the name in it.
    Name(Arc<WebPkiServerVerifier>),
    /// Nothing: every peer is accepted.
    Nothing,
}

/// Checks a server, and that it has the private key of its certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    pub check: Check,
    pub algorithms: WebPkiSupportedAlgorithms,
}

fn is_name_error(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}

/// Whether the certificate names the host in the old way: in its subject, and without a list of names. IP addresses are
/// never given there.
fn is_old_name(cert: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let ServerName::DnsName(host) = host else {
        return false;
    };
    let Ok(parsed) = EndEntityCert::try_from(cert) else {
        return false;
    };
    parsed.valid_dns_names().next().is_none()
        && common_name(parsed.subject()).is_some_and(|name| matches(&name, host.as_ref()))
}

/// A `*` matches the first label of a host name that has at least three.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(pattern) = pattern.strip_prefix("*.") else {
        return false;
    };
    host.split_once('.')
        .is_some_and(|(_, rest)| rest.contains('.') && pattern.eq_ignore_ascii_case(rest))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let inner = match &self.check {
            Check::Name(inner) => inner,
            Check::Nothing => return Ok(ServerCertVerified::assertion()),
        };
        match inner.verify_server_cert(cert, intermediates, host, ocsp_response, now) {
            // The name is checked last, when everything else is valid.
            Err(error) if is_name_error(&error) && is_old_name(cert, host) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_one_label() {
        assert!(matches("Disk.example", "disk.EXAMPLE"));
        assert!(matches("*.example.org", "a.example.org."));
        assert!(!matches("*.example.org", "a.b.example.org"));
        assert!(!matches("*.org", "example.org"));
        assert!(!matches("*", "example"));
        assert!(!matches("a*.example.org", "ab.example.org"));
    }
}
