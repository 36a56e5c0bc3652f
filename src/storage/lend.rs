//! Changes of a storage that the kernel makes through its descriptor, while nobody waits for them.

use std::fmt::Debug;

/// What a storage keeps up while the kernel changes a range of its descriptor; dropped once the kernel
/// is done, whatever came of it. Dropping it waits for nothing.
pub trait Lease: Send + Sync + Debug {}

/// A call on a range of a descriptor that does what one of the storage's methods would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceCall {
    /// `FALLOC_FL_ZERO_RANGE`.
    ZeroRange,
    /// `FALLOC_FL_PUNCH_HOLE`.
    PunchHole,
}

/// How [`crate::storage::Storage::sync`] would be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncBy {
    /// There is nothing to do.
    Nothing,
    /// By one `fdatasync` of the descriptor, of whose outcome the storage must learn:
    /// [`crate::storage::Storage::synced`].
    DataSync,
    /// Only by the call.
    Call,
}
