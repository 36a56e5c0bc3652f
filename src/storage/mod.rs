//! The host side: byte stores with positional I/O.

mod align;
mod aside;
mod batch;
mod blocks;
pub mod bounded;
pub mod callbacks;
pub mod compress;
pub mod creation;
pub mod crypt;
pub mod data_cipher;
pub mod details;
pub mod driver;
mod ending;
mod engine;
mod existing;
pub mod exports;
pub mod file;
pub(crate) mod forward;
mod ftp;
mod gluster;
mod grow;
mod holders;
mod host;
mod http;
mod identity;
mod iscsi;
pub mod location;
mod locks;
pub mod memory;
pub mod modes;
mod named;
mod nbd;
mod nfs;
pub mod null;
#[cfg(feature = "nvme")]
mod nvme;
mod rbd;
pub mod registry;
mod remote;
mod remote_file;
mod remote_len;
mod shared;
pub mod slice;
pub(crate) mod spool;
mod ssh;
mod status;
mod step;
pub mod steps;
pub mod stream;
#[doc(hidden)]
pub mod testing;
pub mod traits;
mod unflushed;
mod vvfat;

pub use bounded::BoundedStorage;
pub use callbacks::{CallbackStorage, StorageCallbacks};
pub use compress::Compress;
pub use creation::{Creation, NewStorage};
pub use details::{StorageDetails, StorageReport, StorageSnapshot, StorageSnapshots, StoredImage};
pub use driver::{StorageDriver, StorageFeatures, StorageOpen};
pub use ending::Ending;
pub use file::{FileOpen, FileStorage, Locking};
pub use grow::{fill, grow, zero};
pub use host::{CopyOutcome, Lease, SpaceCall, SyncPlan};
pub use identity::Identity;
pub use memory::MemoryStorage;
pub use modes::{CacheMode, Durability, LockRequest, Permissions, Preallocation, ZeroFlags};
pub use named::NamedStorages;
pub use null::NullStorage;
pub use shared::{SharedStorage, Users};
pub use slice::SliceStorage;
pub use step::{Step, StepWatcher};
pub use traits::{
    HostFile, Limits, ReadRange, Storage, first_sector, read_exact_at, set_len_or_fit, write_fresh,
};
