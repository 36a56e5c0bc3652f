//! Secrets: passphrases and keys that come by buffer, file or encrypted text, wiped when dropped
//! and never shown.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use aes::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bstr::{BStr, ByteSlice};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::throttle::{ThrottleGroup, ThrottleLimits};

/// Bytes of a secret. Wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes over the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a secret object is defined by.
const PROPERTIES: [&str; 5] = ["data", "file", "format", "keyid", "iv"];

/// The largest secret file that is read.
const MAX_FILE: usize = 1 << 20;

/// Room for what is first read of one.
const FIRST_READ: usize = 4096;

/// Gives the secret of an ID when it is needed; None where there is none.
pub type AskSecret = Arc<dyn Fn(&str) -> Result<Option<Secret>> + Send + Sync>;

/// What options name by ID: secrets, and the groups of limits that share their IDs with them.
#[derive(Clone, Default)]
pub struct Secrets {
    by_id: BTreeMap<String, Secret>,
    groups: BTreeMap<String, Arc<ThrottleGroup>>,
    ask: Option<AskSecret>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("by_id", &self.by_id)
            .field("groups", &self.groups)
            .field("asks", &self.ask.is_some())
            .finish()
    }
}

impl Secrets {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken.
    pub fn add(&mut self, id: &str, secret: Secret) -> Result<()> {
        self.check_free(id)?;
        self.by_id.insert(id.to_owned(), secret);
        Ok(())
    }

    /// Adds a group of limits. Every copy of the secrets shares it.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the ID is taken.
    pub fn add_throttle_group(&mut self, id: &str, limits: ThrottleLimits) -> Result<()> {
        self.check_free(id)?;
        self.groups
            .insert(id.to_owned(), ThrottleGroup::new(limits));
        Ok(())
    }

    /// The group of limits of that ID.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where there is none.
    pub fn throttle_group(&self, id: &str) -> Result<Arc<ThrottleGroup>> {
        let group = self.groups.get(id).cloned();
        group.ok_or_else(|| Error::invalid(format!("Throttle group '{id}' does not exist")))
    }

    fn check_free(&self, id: &str) -> Result<()> {
        if !self.by_id.contains_key(id) && !self.groups.contains_key(id) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Exists,
            format!("attempt to add duplicate property '{id}' to object (type 'container')"),
        ))
    }

    /// Sets who is asked for a secret that was not added, each time that it is needed.
    pub fn set_ask(&mut self, ask: AskSecret) {
        self.ask = Some(ask);
    }

    /// The secret of that ID.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsSecret`], or of who was asked.
    pub fn get(&self, id: &str) -> Result<Secret> {
        let found = match (self.by_id.get(id), &self.ask) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(ask)) => ask(id)?,
            (None, None) => None,
        };
        found.ok_or_else(|| Error::new(ErrorKind::NeedsSecret, format!("No secret with id '{id}'")))
    }

    /// The secret of that ID, which is to become a passphrase: other tools can only give text.
    ///
    /// # Errors
    /// As [`Secrets::get`]; [`ErrorKind::Invalid`] for bytes that are no text in UTF-8.
    pub fn text(&self, id: &str) -> Result<Secret> {
        let secret = self.get(id)?;
        match std::str::from_utf8(secret.bytes()) {
            Ok(text) if !text.contains('\0') => Ok(secret),
            _ => Err(Error::invalid(format!(
                "Data from secret {id} is not valid UTF-8"
            ))),
        }
    }

    /// Adds what the properties of a secret object describe: `data` or `file`, `format` (raw or
    /// base64), and `keyid` with `iv` where the data is encrypted under another secret.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], or of reading the file.
    pub fn define(&mut self, id: &str, properties: &BTreeMap<&str, &BStr>) -> Result<()> {
        let get = |key: &str| properties.get(key).copied();
        let base64 = match get("format").map(|format| format.as_bytes()) {
            None | Some(b"raw") => false,
            Some(b"base64") => true,
            Some(other) => {
                let other = BStr::new(other);
                return Err(Error::invalid(format!(
                    "Parameter 'format' does not accept value '{other}'"
                )));
            }
        };
        if let Some(key) = properties.keys().find(|key| !PROPERTIES.contains(key)) {
            return Err(Error::invalid(format!("Parameter '{key}' is unexpected")));
        }
        let raw = match (get("data"), get("file")) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("'file' and 'data' are mutually exclusive"));
            }
            (Some(data), None) => Zeroizing::new(data.to_vec()),
            (None, Some(file)) => read_secret_file(file)?,
            (None, None) => return Err(Error::invalid("Either 'file' or 'data' must be provided")),
        };
        let bytes = match get("keyid") {
            Some(key_id) => self.decrypt(&raw, &key_id.to_str_lossy(), get("iv"), base64)?,
            None if get("iv").is_some() => {
                return Err(Error::invalid("IV must not be specified without 'keyid'"));
            }
            None if base64 => decode_base64(&raw)?,
            None => raw,
        };
        self.add(id, Secret(Arc::new(bytes)))
    }

    /// AES-256-CBC with PKCS#7 padding under the secret `key_id`; the IV is base64.
    fn decrypt(
        &self,
        data: &[u8],
        key_id: &str,
        iv: Option<&BStr>,
        base64: bool,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let key = self.get(key_id)?;
        let key = key.bytes();
        if key.len() != 32 {
            return Err(Error::invalid("Key should be 32 bytes in length"));
        }
        let iv = iv.ok_or_else(|| Error::invalid("IV is required to decrypt secret"))?;
        let iv = decode_base64(iv)?;
        if iv.len() != 16 {
            return Err(Error::invalid(format!(
                "IV should be 16 bytes in length not {}",
                iv.len()
            )));
        }
        let mut text = if base64 {
            decode_base64(data)?
        } else {
            Zeroizing::new(data.to_vec())
        };
        let cipher = cbc::Decryptor::<aes::Aes256>::new_from_slices(key, &iv)
            .map_err(|_| Error::invalid("Key should be 32 bytes in length"))?;
        let len = cipher
            .decrypt_padded::<Pkcs7>(&mut text)
            .map_err(|_| {
                Error::invalid("Incorrect number of padding bytes found on decrypted data")
            })?
            .len();
        text.truncate(len);
        Ok(text)
    }
}

fn decode_base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    // Never longer than its room: what a growing vector leaves behind is not wiped.
    let mut compact = Zeroizing::new(Vec::with_capacity(text.len()));
    compact.extend(text.iter().filter(|c| !c.is_ascii_whitespace()));
    let is_code = |c: &u8| c.is_ascii_alphanumeric() || b"+/=".contains(c);
    if !compact.iter().all(is_code) {
        return Err(Error::invalid("Base64 data contains invalid characters"));
    }
    STANDARD
        .decode(&*compact)
        .map(Zeroizing::new)
        .map_err(|_| Error::invalid("Base64 data is not valid"))
}

fn read_secret_file(path: &BStr) -> Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut file = std::fs::File::open(OsStr::from_bytes(path)).map_err(|error| {
        Error::io(&error)
            .context(format!("Failed to open file \u{201c}{path}\u{201d}"))
            .context(format!("Unable to read {path}"))
    })?;
    // Straight into the one buffer, which is wiped: std reads small files through the stack, and a growing
    // vector leaves copies behind.
    let mut bytes = Zeroizing::new(crate::memory::filled(FIRST_READ, 0u8)?);
    let mut len = 0;
    loop {
        if len == bytes.len() {
            let mut larger = Zeroizing::new(crate::memory::filled(2 * len, 0u8)?);
            larger[..len].copy_from_slice(&bytes);
            bytes = larger;
        }
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(&error).context(format!("Unable to read {path}"))),
        }
        if len > MAX_FILE {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("{path} is too large for a secret"),
            ));
        }
    }
    bytes.truncate(len);
    Ok(bytes)
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
        let mut secrets = Secrets::new();
        secrets
            .define("a", &properties(&[("data", "letmein")]))
            .unwrap();
        assert_eq!(secrets.get("a").unwrap().bytes(), b"letmein");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "bGV0bWVpbg==\n").unwrap();
        let file = properties(&[("file", path.to_str().unwrap()), ("format", "base64")]);
        secrets.define("b", &file).unwrap();
        assert_eq!(secrets.get("b").unwrap().bytes(), b"letmein");
        assert_eq!(
            secrets.define("b", &file).unwrap_err().kind(),
            ErrorKind::Exists
        );
        assert!(secrets.define("c", &properties(&[])).is_err());
        assert_eq!(secrets.get("c").unwrap_err().kind(), ErrorKind::NeedsSecret);
        assert!(!format!("{secrets:?}").contains("letmein"));
    }

    #[test]
    fn who_knows_is_asked_for_what_was_not_added() {
        let mut secrets = Secrets::new();
        secrets.add("a", Secret::new("known")).unwrap();
        secrets.set_ask(Arc::new(|id| match id {
            "b" => Ok(Some(Secret::new("asked"))),
            "c" => Err(Error::invalid("not now")),
            _ => Ok(None),
        }));
        assert_eq!(secrets.get("a").unwrap().bytes(), b"known");
        assert_eq!(secrets.get("b").unwrap().bytes(), b"asked");
        assert_eq!(secrets.get("c").unwrap_err().to_string(), "not now");
        assert_eq!(secrets.get("d").unwrap_err().kind(), ErrorKind::NeedsSecret);
    }

    #[test]
    fn encrypted_data_opens_with_its_key() {
        use aes::cipher::BlockModeEncrypt;
        let key = [7u8; 32];
        let iv = [9u8; 16];
        let mut buf = *b"letmein.........";
        let text = cbc::Encryptor::<aes::Aes256>::new_from_slices(&key, &iv)
            .unwrap()
            .encrypt_padded::<Pkcs7>(&mut buf, 7)
            .unwrap();
        let mut secrets = Secrets::new();
        secrets
            .define(
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
        secrets.define("s", &wrapped).unwrap();
        assert_eq!(secrets.get("s").unwrap().bytes(), b"letmein");
    }
}
