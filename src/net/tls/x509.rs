//! Sessions with certificates.

use std::io::{ErrorKind as IoKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error as TlsError,
    InconsistentKeys, RootCertStore, ServerConfig, ServerConnection,
};

use super::endpoint::Endpoint;
use super::error::{certificate, of_session, untrusted};
use super::name;
use super::priority::Priority;
use super::session::{Plain, Session};
use super::verify::{Check, Verifier};
use crate::error::{Error, Result};

/// What sessions are created from, parsed.
pub(super) struct Material {
    pub endpoint: Endpoint,
    pub verify_peer: bool,
    pub priority: Priority,
    pub sanity_check: bool,
    /// The authorities that sign certificates of peers, and the name of their source.
    pub authorities: (Vec<CertificateDer<'static>>, String),
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    pub own: Option<Own>,
}

/// Our own certificate, followed by those up to the authority.
pub(super) struct Own {
    pub chain: Vec<CertificateDer<'static>>,
    pub chain_name: String,
    pub key: PrivateKeyDer<'static>,
    pub key_name: String,
}

/// Creates sessions.
#[derive(Debug)]
pub(super) enum X509 {
    Client {
        config: Arc<ClientConfig>,
        /// Whether servers are verified at all.
        verified: bool,
    },
    /// Clients without a certificate are admitted only if none is required.
    Server(Arc<ServerConfig>),
}

impl X509 {
    pub(super) fn new(material: Material) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let roots = roots(&material)?;
        if material.sanity_check {
            check_own(&material, &roots, &provider)?;
        }
        match material.endpoint {
            Endpoint::Client => client(material, roots, &provider),
            Endpoint::Server => server(material, roots, provider),
        }
    }

    /// Creates a session with the server of that name.
    pub(super) fn connect(&self, host: Option<&str>) -> Result<Box<dyn Session>> {
        let Self::Client { config, verified } = self else {
            return Err(Error::invalid(
                "Expected TLS credentials for a client endpoint",
            ));
        };
        let name = match host {
            // The interface index or name is not part of the address.
            Some(host) => host.split('%').next().unwrap_or_default(),
            None if *verified => {
                return Err(untrusted("No hostname for certificate validation"));
            }
            None => "localhost",
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| untrusted(certificate(&CertificateError::NotValidForName, host)))?;
        let host = host.map(str::to_owned);
        let made = ClientConnection::new(config.clone(), name);
        let connection = made.map_err(|error| of_session(&error, host.as_deref()))?;
        Ok(Box::new(X509Session {
            connection: connection.into(),
            host,
            verified: *verified,
        }))
    }

    /// Creates a session with a client.
    pub(super) fn accept(&self) -> Result<Box<dyn Session>> {
        let Self::Server(config) = self else {
            return Err(Error::invalid(
                "Expected TLS credentials for a server endpoint",
            ));
        };
        let made = ServerConnection::new(config.clone());
        let connection = made.map_err(|error| of_session(&error, None))?;
        Ok(Box::new(X509Session {
            connection: connection.into(),
            host: None,
            verified: true,
        }))
    }
}

fn roots(material: &Material) -> Result<Arc<RootCertStore>> {
    let (authorities, name) = &material.authorities;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| {
            Error::invalid(format!(
                "Unable to import CA certificate list {name}: {error}"
            ))
        })?;
    }
    Ok(Arc::new(roots))
}

/// The authorities that this machine trusts. Certificates that are damaged or of an unknown kind are ignored.
pub(super) fn system_authorities() -> Result<Vec<CertificateDer<'static>>> {
    let mut found = rustls_native_certs::load_native_certs();
    let mut known = RootCertStore::empty();
    found
        .certs
        .retain(|authority| known.add(authority.clone()).is_ok());
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let reason = match found.errors.first() {
        Some(error) => format!(": {error}"),
        None => String::new(),
    };
    let message = format!("No certificates of authorities were found on this machine{reason}");
    Err(Error::invalid(message)
        .with_hint("The environment variable SSL_CERT_FILE names a file of them"))
}

/// Fails early if every peer would reject the certificate.
fn check_own(
    material: &Material,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<()> {
    let Some(Own {
        chain, chain_name, ..
    }) = &material.own
    else {
        return Ok(());
    };
    let (_, authorities) = &material.authorities;
    let failed = |error: TlsError| match error {
        TlsError::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Error::invalid(format!("The certificate {chain_name} has expired")),
        TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Error::invalid(format!("The certificate {chain_name} is not yet active")),
        other => {
            let reason = match &other {
                TlsError::InvalidCertificate(reason) => certificate(reason, None),
                other => other.to_string(),
            };
            Error::invalid(format!(
                "Our own certificate {chain_name} failed validation against {authorities}: {reason}"
            ))
        }
    };
    let Some((own, intermediates)) = chain.split_first() else {
        return Ok(());
    };
    let now = UnixTime::now();
    match material.endpoint {
        Endpoint::Client => client_verifier(roots.clone(), Vec::new(), provider.clone())?
            .verify_client_cert(own, intermediates, now)
            .map(drop),
        Endpoint::Server => ParsedCertificate::try_from(own).and_then(|own| {
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&own, roots, intermediates, now, algorithms)
        }),
    }
    .map_err(failed)
}

fn client_verifier(
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .with_crls(revoked)
        // Authorities without a revocation list revoke nothing.
        .allow_unknown_revocation_status()
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| Error::invalid(format!("Unable to import CRL: {error}")))
}

fn client(
    material: Material,
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<X509> {
    let check = if material.verify_peer {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(material.revoked.iter().cloned())
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| Error::invalid(format!("Unable to import CRL: {error}")))?;
        Check::Name(inner)
    } else {
        Check::Nothing
    };
    Ok(X509::Client {
        config: client_config(&material, provider, check)?,
        verified: material.verify_peer,
    })
}

fn client_config(
    material: &Material,
    provider: &Arc<CryptoProvider>,
    check: Check,
) -> Result<Arc<ClientConfig>> {
    let algorithms = provider.signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(Verifier { check, algorithms });
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&material.priority.versions())
        .map_err(|error| Error::invalid(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &material.own {
        Some(own) => builder
            .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
            .map_err(|error| not_loaded(own, &error))?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn server(
    material: Material,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
) -> Result<X509> {
    let verifier = if material.verify_peer {
        client_verifier(roots, material.revoked, provider.clone())?
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    let own = material
        .own
        .ok_or_else(|| Error::invalid("A server needs a certificate and its key"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&material.priority.versions())
        .map_err(|error| Error::invalid(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .map_err(|error| not_loaded(&own, &error))?;
    // Nothing is remembered of clients that have disconnected.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(X509::Server(Arc::new(config)))
}

fn not_loaded(own: &Own, error: &TlsError) -> Error {
    let reason = match error {
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "The certificate and the given key do not match.".to_owned()
        }
        other => other.to_string(),
    };
    let (chain, key) = (&own.chain_name, &own.key_name);
    Error::invalid(format!(
        "Cannot load certificate '{chain}' & key '{key}': {reason}"
    ))
}

struct X509Session {
    connection: Connection,
    /// The name that the peer must have.
    host: Option<String>,
    /// Whether the peer is verified.
    verified: bool,
}

impl Session for X509Session {
    fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.connection.read_tls(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(Error::io(&error)),
            }
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| of_session(&error, self.host.as_deref()))?;
            // Decrypted bytes are read before more are processed, so that they never pile up.
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                break;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn take(&mut self, to: &mut Vec<u8>) -> Result<()> {
        while self.connection.wants_write() {
            let written = self.connection.write_tls(to);
            written.map_err(|error| Error::io(&error))?;
        }
        Ok(())
    }

    fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<Plain> {
        match self.connection.reader().read(buf) {
            Ok(0) => Ok(Plain::End),
            Ok(n) => Ok(Plain::Bytes(n)),
            Err(error) if error.kind() == IoKind::WouldBlock => Ok(Plain::Nothing),
            Err(error) => Err(Error::io(&error)),
        }
    }

    fn write(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize> {
        let written = self.connection.writer().write_vectored(bufs);
        written.map_err(|error| Error::io(&error))
    }

    fn close(&mut self) {
        self.connection.send_close_notify();
    }

    fn identity(&self) -> Option<String> {
        if !self.verified {
            return None;
        }
        let own = self.connection.peer_certificates()?.first()?;
        let parsed = webpki::EndEntityCert::try_from(own).ok()?;
        name::text(parsed.subject())
    }
}
