//! The two ends of a connection.

/// Which end of a connection credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The one that connects.
    Client,
    /// The one that accepts the connection.
    Server,
}
