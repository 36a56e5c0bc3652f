//! What the kernel is asked for at the descriptor of a file or device of this host.

use std::fmt::Debug;

/// What a file keeps in force while the kernel works on its descriptor; dropped once the kernel is done, with
/// whatever outcome. Dropping it does not block.
pub trait Lease: Send + Sync + Debug {}

/// A call on a range of a descriptor that does what one of the storage's methods would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceCall {
    /// `FALLOC_FL_ZERO_RANGE`.
    ZeroRange,
    /// `FALLOC_FL_PUNCH_HOLE`.
    PunchHole,
}

/// How a sync would be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPlan {
    /// There is nothing to do.
    Nothing,
    /// By one `fdatasync` of the descriptor under [`crate::storage::HostFile::lease_sync`], of whose outcome the file
    /// must learn: [`crate::storage::HostFile::note_sync`].
    DataSync,
    /// Only by the storage's method.
    Call,
}

/// How a copy inside the host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The whole range was copied, blocks possibly shared.
    Done,
    /// Nothing was copied: this pair of files cannot; the caller reads and writes instead.
    NotPossible,
}
