//! Private keys, including those that are encrypted with a passphrase.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::pem::Text;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

const BEGIN: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &[u8] = b"-----END ENCRYPTED PRIVATE KEY-----";
/// RFC 1421, which other tools used for keys before PKCS #8.
const OLD: &[u8] = b"Proc-Type: 4,ENCRYPTED";

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    bstr::ByteSlice::find(text, what)
}

/// The private key in a text.
pub(super) fn private_key(
    text: &Text,
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>> {
    if let Some(begin) = find(&text.bytes, BEGIN) {
        let body = &text.bytes[begin + BEGIN.len()..];
        let end = find(body, END).ok_or_else(|| text.refused("key"))?;
        return decrypted(text, &body[..end], passphrase);
    }
    if find(&text.bytes, OLD).is_some() {
        return Err(Error::unsupported(format!(
            "The key {} is encrypted in an outdated way",
            text.name
        ))
        .with_hint("\"openssl pkcs8 -topk8\" encrypts it in today's"));
    }
    PrivateKeyDer::from_pem_slice(&text.bytes).map_err(|_| text.refused("key"))
}

fn decrypted(
    text: &Text,
    body: &[u8],
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>> {
    let Some(passphrase) = passphrase else {
        return Err(Error::new(
            ErrorKind::NeedsSecret,
            format!(
                "The key {} is encrypted, and no secret was named for it",
                text.name
            ),
        ));
    };
    let compact: Vec<u8> = body
        .iter()
        .copied()
        .filter(|c| !c.is_ascii_whitespace())
        .collect();
    let der = STANDARD.decode(compact).map_err(|_| text.refused("key"))?;
    let info = EncryptedPrivateKeyInfoRef::try_from(&*der).map_err(|_| text.refused("key"))?;
    let plain = info.decrypt(passphrase.bytes()).map_err(|_| {
        Error::new(
            ErrorKind::WrongSecret,
            format!("The secret does not open the key {}", text.name),
        )
    })?;
    // Wiped by its consumer.
    Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into())
}
