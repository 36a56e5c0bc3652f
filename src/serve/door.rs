//! Ways to reach images other than NBD, which are shut down with the server.

use std::fmt::Debug;
use std::time::Instant;

/// Serves others on threads of its own, and counts as a client while anybody may connect.
pub(super) trait Door: Debug + Send + Sync {
    /// Closes it and waits until that is done: requests in progress are carried out, and no new ones are started. If
    /// `gently`, those in progress are also answered, up to the deadline.
    fn end(&self, gently: Option<Option<Instant>>);
}
