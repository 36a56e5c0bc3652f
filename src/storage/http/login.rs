//! Authentication of a user.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The header value for a user and a password (RFC 7617).
pub(super) fn basic(user: &str, password: Option<&Secret>) -> Secret {
    let password = password.map(Secret::bytes).unwrap_or_default();
    let plain = Zeroizing::new([user.as_bytes(), b":", password].concat());
    let coded = Zeroizing::new(STANDARD.encode(&*plain));
    Secret::new([b"Basic ", coded.as_bytes()].concat())
}
