//! Ways to images other than NBD, which end with the server.

use std::fmt::Debug;
use std::time::Instant;

/// What lets others in, by threads of its own, and counts as a client while somebody may come.
pub(super) trait Door: Debug + Send + Sync {
    /// Closes it and waits for that: requests under way are carried out, and none begins afterwards. Gently,
    /// those under way are answered too, up to the deadline.
    fn end(&self, gently: Option<Option<Instant>>);
}
