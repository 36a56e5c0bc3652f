//! How one end authenticates itself, and what it requires of the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use super::authorization::Authorization;
use super::channel::Channel;
use super::endpoint::Endpoint;
use super::key::private_key;
use super::pem::Text;
use super::priority::Priority;
use super::psk::Psk;
use super::session::Session;
use super::x509::{Material, Own, X509, system_authorities};
use crate::error::{Error, Result};
use crate::net::socket::Socket;
use crate::net::wait::Wait;
use crate::secret::Secret;

/// Credentials of one end. Clones share them.
#[derive(Clone, Debug)]
pub struct TlsCredentials {
    endpoint: Endpoint,
    kind: Arc<Kind>,
}

impl PartialEq for TlsCredentials {
    /// Whether both are clones of the same credentials.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kind, &other.kind)
    }
}

impl Eq for TlsCredentials {}

#[derive(Debug)]
enum Kind {
    X509(X509),
    Psk(Psk),
}

/// Looks up the secret with an ID.
pub type FindSecret<'a> = &'a dyn Fn(&str) -> Result<Secret>;

impl TlsCredentials {
    /// Certificates, from the properties of an object: `dir` with the files `ca-cert.pem`, `ca-crl.pem`,
    /// `server-cert.pem` and `server-key.pem`, or `client-cert.pem` and `client-key.pem`; or instead the same as text,
    /// `ca-cert`, `ca-crl`, `cert` and `key`; `endpoint` (`client` or `server`), `verify-peer`, `priority`,
    /// `passwordid` (the secret that decrypts an encrypted key) and `sanity-check`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]; if a file cannot be read, or `secret` fails.
    pub fn x509(properties: &BTreeMap<&str, &BStr>, secret: FindSecret<'_>) -> Result<Self> {
        let known = [
            "dir",
            "endpoint",
            "verify-peer",
            "priority",
            "passwordid",
            "sanity-check",
            "ca-cert",
            "ca-crl",
            "cert",
            "key",
        ];
        let of = Properties::new(properties, &known)?;
        let endpoint = of.endpoint()?;
        let verify_peer = of.flag("verify-peer")?;
        let sanity_check = of.flag("sanity-check")?;
        let priority = of.priority()?;
        let passphrase = match of.text("passwordid")? {
            Some(id) => Some(secret(id)?),
            None => None,
        };
        let files = Files::of(&of, endpoint)?;
        let own = match (files.cert, files.key) {
            (Some(cert), Some(key)) => Some(Own {
                chain: cert.certificates("certificate")?,
                key: private_key(&key, passphrase.as_ref())?,
                chain_name: cert.name,
                key_name: key.name,
            }),
            _ => None,
        };
        let material = Material {
            endpoint,
            verify_peer,
            priority,
            sanity_check,
            authorities: (
                files.ca_cert.certificates("CA certificate list")?,
                files.ca_cert.name,
            ),
            revoked: files.ca_crl.map_or(Ok(Vec::new()), |crl| crl.revoked())?,
            own,
        };
        Ok(Self {
            endpoint,
            kind: Arc::new(Kind::X509(X509::new(material)?)),
        })
    }

    /// A client without a certificate that trusts the authorities that this machine trusts, or those given by
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`; without `verify_peer` it accepts every peer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if no authority is found.
    pub fn system(verify_peer: bool) -> Result<Self> {
        let authorities = match verify_peer {
            true => system_authorities()?,
            false => Vec::new(),
        };
        let material = Material {
            endpoint: Endpoint::Client,
            verify_peer,
            priority: Priority::default(),
            sanity_check: false,
            authorities: (authorities, "of this machine".to_owned()),
            revoked: Vec::new(),
            own: None,
        };
        Ok(Self {
            endpoint: Endpoint::Client,
            kind: Arc::new(Kind::X509(X509::new(material)?)),
        })
    }

    /// Pre-shared keys, from the properties of an object: `dir` with the file `keys.psk`, or instead its text, `keys`:
    /// lines of a name, a colon, and the key in hexadecimal digits; `endpoint` (`client` or `server`), `username` (the
    /// name of a client's key; `qemu` by default), `priority`, and `verify-peer`, which has no effect: possession of
    /// the key authenticates a peer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`]; if the file cannot be read; [`crate::ErrorKind::Unsupported`] if the system lacks
    /// the library for them.
    pub fn psk(properties: &BTreeMap<&str, &BStr>) -> Result<Self> {
        let known = [
            "dir",
            "endpoint",
            "verify-peer",
            "priority",
            "username",
            "keys",
        ];
        let of = Properties::new(properties, &known)?;
        let endpoint = of.endpoint()?;
        of.flag("verify-peer")?;
        let priority = of.priority()?;
        let user = match (endpoint, of.text("username")?) {
            (Endpoint::Server, Some(_)) => {
                let message = "username should not be set when endpoint=server";
                return Err(Error::invalid(message));
            }
            (_, user) => user.unwrap_or("qemu"),
        };
        let text = match of.get("keys") {
            Some(_) if of.get("dir").is_some() => {
                return Err(Error::invalid("'dir' and 'keys' are mutually exclusive"));
            }
            Some(keys) => Text::given("keys", keys),
            None => Text::file(of.dir()?, "keys.psk")?,
        };
        Ok(Self {
            endpoint,
            kind: Arc::new(Kind::Psk(Psk::new(endpoint, &text, user, priority)?)),
        })
    }

    /// Which end they are for.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if they are for the other end.
    pub fn expect(&self, endpoint: Endpoint) -> Result<()> {
        if self.endpoint == endpoint {
            return Ok(());
        }
        let end = match endpoint {
            Endpoint::Client => "client",
            Endpoint::Server => "server",
        };
        Err(Error::invalid(format!(
            "Expected TLS credentials for a {end} endpoint"
        )))
    }

    /// Creates a session with a server.
    pub(super) fn client_session(&self, host: Option<&str>) -> Result<Box<dyn Session>> {
        match &*self.kind {
            Kind::X509(x509) => x509.connect(host),
            Kind::Psk(psk) => psk.session(),
        }
    }

    /// Creates a session with a client.
    pub(super) fn server_session(&self) -> Result<Box<dyn Session>> {
        match &*self.kind {
            Kind::X509(x509) => x509.accept(),
            Kind::Psk(psk) => psk.session(),
        }
    }

    pub(in crate::net) fn connect(
        &self,
        socket: &Socket,
        host: Option<&str>,
        wait: Wait<'_>,
    ) -> Result<Channel> {
        Channel::new(socket, self.client_session(host)?, wait)
    }

    pub(in crate::net) fn accept(
        &self,
        socket: &Socket,
        authorization: Option<&Authorization>,
        wait: Wait<'_>,
    ) -> Result<Channel> {
        let channel = Channel::new(socket, self.server_session()?, wait)?;
        if let Some(authorization) = authorization
            && let Err(error) = authorization.check(channel.identity())
        {
            channel.close(socket);
            return Err(error);
        }
        Ok(channel)
    }
}

/// The files of credentials, as text.
struct Files {
    ca_cert: Text,
    ca_crl: Option<Text>,
    cert: Option<Text>,
    key: Option<Text>,
}

impl Files {
    fn of(properties: &Properties<'_>, endpoint: Endpoint) -> Result<Self> {
        let given = |key| properties.get(key).map(|value| Text::given(key, value));
        let missing = |key| Error::missing_parameter(key);
        if let Some(ca_cert) = given("ca-cert") {
            if properties.get("dir").is_some() {
                return Err(Error::invalid("'dir' and 'ca-cert' are mutually exclusive"));
            }
            let (cert, key) = (given("cert"), given("key"));
            match (&cert, &key) {
                (Some(_), None) => return Err(missing("key")),
                (None, Some(_)) => return Err(missing("cert")),
                (None, None) if endpoint == Endpoint::Server => return Err(missing("cert")),
                _ => {}
            }
            return Ok(Self {
                ca_cert,
                ca_crl: given("ca-crl"),
                cert,
                key,
            });
        }
        if let Some(key) = ["ca-crl", "cert", "key"]
            .into_iter()
            .find(|key| properties.get(key).is_some())
        {
            return Err(Error::invalid(format!("'{key}' needs 'ca-cert'")));
        }
        let dir = properties.dir()?;
        let ca_cert = Text::file(dir, "ca-cert.pem")?;
        let (cert, key) = match endpoint {
            Endpoint::Server => (
                Some(Text::file(dir, "server-cert.pem")?),
                Some(Text::file(dir, "server-key.pem")?),
            ),
            Endpoint::Client => (
                Text::file_if_any(dir, "client-cert.pem")?,
                Text::file_if_any(dir, "client-key.pem")?,
            ),
        };
        Ok(Self {
            ca_cert,
            ca_crl: Text::file_if_any(dir, "ca-crl.pem")?,
            cert,
            key,
        })
    }
}

/// Properties of an object, all of which are known.
pub(super) struct Properties<'a>(&'a BTreeMap<&'a str, &'a BStr>);

impl<'a> Properties<'a> {
    pub(super) fn new(given: &'a BTreeMap<&'a str, &'a BStr>, known: &[&str]) -> Result<Self> {
        match given.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(Error::unexpected_parameter(key)),
            None => Ok(Self(given)),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a BStr> {
        self.0.get(key).copied()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let text = self.get(key).map(|value| value.to_str()).transpose();
        text.map_err(|_| Error::invalid(format!("Parameter '{key}' is not UTF-8")))
    }

    /// True unless the property is off.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key).map(|value| value.as_bytes()) {
            None | Some(b"on" | b"yes" | b"true" | b"y") => Ok(true),
            Some(b"off" | b"no" | b"false" | b"n") => Ok(false),
            Some(_) => Err(Error::invalid(format!(
                "Parameter '{key}' expects 'on' or 'off'"
            ))),
        }
    }

    pub(super) fn endpoint(&self) -> Result<Endpoint> {
        match self.get("endpoint").map(|value| value.as_bytes()) {
            None | Some(b"client") => Ok(Endpoint::Client),
            Some(b"server") => Ok(Endpoint::Server),
            Some(other) => Err(Error::invalid(format!(
                "Parameter 'endpoint' does not accept value '{}'",
                BStr::new(other)
            ))),
        }
    }

    pub(super) fn priority(&self) -> Result<Priority> {
        let text = self.text("priority")?;
        text.map_or(Ok(Priority::default()), Priority::parse)
    }

    pub(super) fn dir(&self) -> Result<&'a Path> {
        let missing = || Error::invalid("Missing 'dir' property value");
        let dir = self.get("dir").ok_or_else(missing)?;
        use std::os::unix::ffi::OsStrExt;
        Ok(Path::new(std::ffi::OsStr::from_bytes(dir)))
    }
}
