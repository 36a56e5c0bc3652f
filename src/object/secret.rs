//! Secrets as objects: bytes given as they are, in a file, or encrypted under another secret.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use aes::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bstr::{BStr, ByteSlice};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::memory;
use crate::secret::{Secret, scrubbing_stack};

/// The properties of a secret object.
const PROPERTIES: [&str; 5] = ["data", "file", "format", "keyid", "iv"];

/// Maximum size of a secret file.
const MAX_FILE: usize = 1 << 20;

/// Buffer size for the first read of one.
const FIRST_READ: usize = 4096;

/// The secret that the properties of a secret object describe; `key` returns the one that it is encrypted under.
///
/// # Errors
/// [`ErrorKind::Invalid`], the error of `key`, or if reading the file fails.
pub(super) fn decode(
    properties: &BTreeMap<&str, &BStr>,
    key: &dyn Fn(&str) -> Result<Secret>,
) -> Result<Secret> {
    let get = |key: &str| properties.get(key).copied();
    let base64 = match get("format").map(|format| format.as_bytes()) {
        None | Some(b"raw") => false,
        Some(b"base64") => true,
        Some(other) => {
            let other = BStr::new(other);
            return Err(Error::refused_value("format", other));
        }
    };
    if let Some(key) = properties.keys().find(|key| !PROPERTIES.contains(key)) {
        return Err(Error::unexpected_parameter(key));
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
        Some(key_id) => {
            let key = key(&key_id.to_str_lossy())?;
            scrubbing_stack(|| decrypt(&raw, &key, get("iv"), base64))?
        }
        None if get("iv").is_some() => {
            return Err(Error::invalid("IV must not be specified without 'keyid'"));
        }
        None if base64 => decode_base64(&raw)?,
        None => raw,
    };
    Ok(bytes.into())
}

/// AES-256-CBC with PKCS#7 padding; the IV is base64.
fn decrypt(
    data: &[u8],
    key: &Secret,
    iv: Option<&BStr>,
    base64: bool,
) -> Result<Zeroizing<Vec<u8>>> {
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
        .map_err(|_| Error::invalid("Incorrect number of padding bytes found on decrypted data"))?
        .len();
    text.truncate(len);
    Ok(text)
}

fn decode_base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    // It never outgrows its capacity: what a growing vector leaves behind is not wiped.
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
    let mut bytes = Zeroizing::new(memory::filled(FIRST_READ, 0u8)?);
    let mut len = 0;
    loop {
        if len == bytes.len() {
            let mut larger = Zeroizing::new(memory::filled(2 * len, 0u8)?);
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
