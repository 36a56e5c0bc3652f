//! Objects that options name by ID: secrets, throttle groups, TLS credentials, and who is authorised by them.

mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::net::tls::{Authorization, Endpoint, TlsCredentials};
use crate::secret::Secret;
use crate::throttle::{ThrottleGroup, ThrottleLimits};

/// Returns the secret with an ID when it is needed; None if there is none.
pub type AskSecret = Arc<dyn Fn(&str) -> Result<Option<Secret>> + Send + Sync>;

/// Objects that options name by ID. Objects of all types share the IDs; a clone shares the objects.
#[derive(Clone, Default)]
pub struct Objects {
    secrets: BTreeMap<String, Secret>,
    groups: BTreeMap<String, Arc<ThrottleGroup>>,
    tls: BTreeMap<String, TlsCredentials>,
    authorizations: BTreeMap<String, Arc<Authorization>>,
    ask_secret: Option<AskSecret>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("secrets", &self.secrets)
            .field("groups", &self.groups)
            .field("tls", &self.tls)
            .field("authorizations", &self.authorizations)
            .field("asks_secrets", &self.ask_secret.is_some())
            .finish()
    }
}

impl Objects {
    /// No objects yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken.
    pub fn add_secret(&mut self, id: &str, secret: Secret) -> Result<()> {
        self.check_free(id)?;
        self.secrets.insert(id.to_owned(), secret);
        Ok(())
    }

    /// Adds a throttle group. Every clone shares it.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken.
    pub fn add_throttle_group(&mut self, id: &str, limits: ThrottleLimits) -> Result<()> {
        self.check_free(id)?;
        self.groups
            .insert(id.to_owned(), ThrottleGroup::new(limits));
        Ok(())
    }

    /// The throttle group with that ID.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is none.
    pub fn throttle_group(&self, id: &str) -> Result<Arc<ThrottleGroup>> {
        let group = self.groups.get(id).cloned();
        group.ok_or_else(|| Error::invalid(format!("Throttle group '{id}' does not exist")))
    }

    /// Adds TLS credentials. Every clone shares them.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken.
    pub fn add_tls(&mut self, id: &str, credentials: TlsCredentials) -> Result<()> {
        self.check_free(id)?;
        self.tls.insert(id.to_owned(), credentials);
        Ok(())
    }

    /// Adds certificates, by the properties of an object: see [`TlsCredentials::x509`].
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken; or if the credentials cannot be created.
    pub fn define_tls_x509(&mut self, id: &str, properties: &BTreeMap<&str, &BStr>) -> Result<()> {
        self.check_free(id)?;
        let credentials = TlsCredentials::x509(properties, &|id| self.secret(id))?;
        self.add_tls(id, credentials)
    }

    /// Adds TLS keys, by the properties of an object: see [`TlsCredentials::psk`].
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken; or if the credentials cannot be created.
    pub fn define_tls_psk(&mut self, id: &str, properties: &BTreeMap<&str, &BStr>) -> Result<()> {
        self.check_free(id)?;
        let credentials = TlsCredentials::psk(properties)?;
        self.add_tls(id, credentials)
    }

    /// The TLS credentials with that ID, which must be for that endpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there are none.
    pub fn tls(&self, id: &str, endpoint: Endpoint) -> Result<TlsCredentials> {
        let Some(credentials) = self.tls.get(id) else {
            let message = if self.is_taken(id) {
                format!("Object with id '{id}' is not TLS credentials")
            } else {
                format!("No TLS credentials with id '{id}'")
            };
            return Err(Error::invalid(message));
        };
        credentials.expect(endpoint)?;
        Ok(credentials.clone())
    }

    /// Adds an authorisation. Every clone shares it.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken.
    pub fn add_authorization(&mut self, id: &str, authorization: Authorization) -> Result<()> {
        self.check_free(id)?;
        let authorization = Arc::new(authorization);
        self.authorizations.insert(id.to_owned(), authorization);
        Ok(())
    }

    /// The authorisation with that ID.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is none.
    pub fn authorization(&self, id: &str) -> Result<Arc<Authorization>> {
        let found = self.authorizations.get(id).cloned();
        found.ok_or_else(|| Error::invalid(format!("No authorization object with id '{id}'")))
    }

    fn is_taken(&self, id: &str) -> bool {
        self.secrets.contains_key(id)
            || self.groups.contains_key(id)
            || self.tls.contains_key(id)
            || self.authorizations.contains_key(id)
    }

    fn check_free(&self, id: &str) -> Result<()> {
        if !self.is_taken(id) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Exists,
            format!("attempt to add duplicate property '{id}' to object (type 'container')"),
        ))
    }

    /// Sets the callback that is asked for a secret that was not added, each time it is needed.
    pub fn set_ask_secret(&mut self, ask: AskSecret) {
        self.ask_secret = Some(ask);
    }

    /// The secret with that ID.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsSecret`], or the error of the callback.
    pub fn secret(&self, id: &str) -> Result<Secret> {
        let found = match (self.secrets.get(id), &self.ask_secret) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(ask)) => ask(id)?,
            (None, None) => None,
        };
        found.ok_or_else(|| Error::new(ErrorKind::NeedsSecret, format!("No secret with id '{id}'")))
    }

    /// The secret with that ID, which is to be used as a passphrase: other tools can only supply text.
    ///
    /// # Errors
    /// As [`Objects::secret`]; [`ErrorKind::Invalid`] for bytes that are not UTF-8 text.
    pub fn secret_text(&self, id: &str) -> Result<Secret> {
        let secret = self.secret(id)?;
        match std::str::from_utf8(secret.bytes()) {
            Ok(text) if !text.contains('\0') => Ok(secret),
            _ => Err(Error::invalid(format!(
                "Data from secret {id} is not valid UTF-8"
            ))),
        }
    }

    /// Adds the secret that the properties describe: `data` or `file`, `format` (raw or base64), and `keyid` with `iv`
    /// if the data is encrypted under another secret.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken; [`ErrorKind::Invalid`], or if reading the file fails.
    pub fn define_secret(&mut self, id: &str, properties: &BTreeMap<&str, &BStr>) -> Result<()> {
        let secret = secret::decode(properties, &|id| self.secret(id))?;
        self.add_secret(id, secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties<'a>(pairs: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a BStr> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| (*key, BStr::new(*value)))
            .collect()
    }

    #[test]
    fn data_file_and_base64() {
        let mut objects = Objects::new();
        objects
            .define_secret("a", &properties(&[("data", "letmein")]))
            .unwrap();
        assert_eq!(objects.secret("a").unwrap().bytes(), b"letmein");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "bGV0bWVpbg==\n").unwrap();
        let file = properties(&[("file", path.to_str().unwrap()), ("format", "base64")]);
        objects.define_secret("b", &file).unwrap();
        assert_eq!(objects.secret("b").unwrap().bytes(), b"letmein");
        assert_eq!(
            objects.define_secret("b", &file).unwrap_err().kind(),
            ErrorKind::Exists
        );
        assert!(objects.define_secret("c", &properties(&[])).is_err());
        assert_eq!(
            objects.secret("c").unwrap_err().kind(),
            ErrorKind::NeedsSecret
        );
        assert!(!format!("{objects:?}").contains("letmein"));
    }

    #[test]
    fn who_knows_is_asked_for_what_was_not_added() {
        let mut objects = Objects::new();
        objects.add_secret("a", Secret::new("known")).unwrap();
        objects.set_ask_secret(Arc::new(|id| match id {
            "b" => Ok(Some(Secret::new("asked"))),
            "c" => Err(Error::invalid("not now")),
            _ => Ok(None),
        }));
        assert_eq!(objects.secret("a").unwrap().bytes(), b"known");
        assert_eq!(objects.secret("b").unwrap().bytes(), b"asked");
        assert_eq!(objects.secret("c").unwrap_err().to_string(), "not now");
        assert_eq!(
            objects.secret("d").unwrap_err().kind(),
            ErrorKind::NeedsSecret
        );
    }

    #[test]
    fn encrypted_data_opens_with_its_key() {
        use aes::cipher::{BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let key = [7u8; 32];
        let iv = [9u8; 16];
        let mut buf = *b"letmein.........";
        let text = cbc::Encryptor::<aes::Aes256>::new_from_slices(&key, &iv)
            .unwrap()
            .encrypt_padded::<Pkcs7>(&mut buf, 7)
            .unwrap();
        let mut objects = Objects::new();
        objects
            .define_secret(
                "master",
                &properties(&[("data", &STANDARD.encode(key)), ("format", "base64")]),
            )
            .unwrap();
        let (data, iv) = (STANDARD.encode(text), STANDARD.encode(iv));
        let wrapped = properties(&[
            ("data", &data),
            ("format", "base64"),
            ("keyid", "master"),
            ("iv", &iv),
        ]);
        objects.define_secret("s", &wrapped).unwrap();
        assert_eq!(objects.secret("s").unwrap().bytes(), b"letmein");
    }
}
