//! Streams of bytes to peers: other processes and other machines. Knows no protocol.
//!
//! Every call that waits is given a [`Wait`]: it ends within a tenth of a second when the work is cancelled,
//! and when its deadline has passed.

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
