//! The host side: byte stores with positional I/O.

pub mod crypt;
pub mod traits;

pub use traits::{
    CacheMode, CopyOutcome, Durability, Limits, LockRequest, Permissions, Preallocation, Storage,
    ZeroFlags, read_exact_at,
};
