//! TLS over a stream: by certificates or by keys that both ends know, as client and as server.
//!
//! A session knows no sockets: it turns bytes of the peer into plain ones and back. Its lock is never held
//! while bytes move, so one thread may read while another one writes.

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
