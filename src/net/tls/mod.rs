//! TLS over a stream: with certificates or pre-shared keys, as client and as server.
//!
//! A session is independent of sockets: it converts bytes of the peer to decrypted ones and back. Its lock is never
//! held during I/O, so one thread may read while another one writes.

mod authorization;
mod channel;
mod credentials;
mod endpoint;
mod error;
mod key;
mod name;
mod pem;
mod priority;
mod psk;
mod session;
mod verify;
mod x509;

pub use authorization::Authorization;
pub(super) use channel::Channel;
pub use credentials::TlsCredentials;
pub use endpoint::Endpoint;

#[cfg(test)]
mod tests;
