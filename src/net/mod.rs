//! Byte streams to peers: other processes and other machines. Independent of any protocol.
//!
//! Every call that blocks takes a [`Wait`]: it returns within a tenth of a second after the work is cancelled, and when
//! its deadline has passed.

pub mod address;
pub mod connect;
pub mod listen;
mod resolve;
mod socket;
pub mod stream;
pub mod tls;
pub mod url;
pub mod wait;

pub use address::{Address, Family};
pub use connect::connect;
pub use listen::Listener;
pub(crate) use resolve::numbers;
pub use stream::Stream;
pub use tls::TlsCredentials;
pub use url::Url;
pub use wait::Wait;
