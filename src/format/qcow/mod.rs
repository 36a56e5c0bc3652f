//! qcow, the first version: clusters mapped by two levels of tables, with or without a backing file, individually
//! compressed or encrypted. What the tables name keeps its place, and new data goes to the end of the file.
//!
//! The order on disk: guest data, a barrier, the entries that name it and new tables, a barrier, the entries of the
//! upper table that name those. A crash leaves at most space that nothing refers to.

mod ahead;
mod backing;
mod check;
mod create;
mod disk;
mod driver;
mod inspect;
mod map;
mod open;
mod pack;
mod packed;
mod space;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bstr::BString;
use parking_lot::{Mutex, RwLock};

use crate::format::IoUsers;
use crate::format::decoded::DecodedUnits;
use crate::format::inflight::InFlight;
use crate::format::read_ahead::ReadAhead;
use crate::format::table_cache::Cache;
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Durability, Storage};

use disk::{Geometry, Header};
use space::Space;

pub use driver::DRIVER;

/// An open image.
///
/// Lock order, outermost first: an in-flight reservation, `flushing`, `space`, `tables`. No lock is held
/// across data I/O except `flushing`.
#[derive(Debug)]
struct Qcow {
    storage: Arc<dyn Storage>,
    geometry: Geometry,
    /// Where the upper table begins and ends.
    l1_offset: u64,
    l1_end: u64,
    /// The virtual size.
    len: u64,
    header: Mutex<Header>,
    /// The name of the backing file, as stored in the image.
    backing: Mutex<Option<BString>>,
    /// What no table holds comes from the backing file; otherwise it reads as zeroes.
    is_overlay: AtomicBool,
    /// The upper table: where each lower table is, or 0.
    l1: Vec<AtomicU64>,
    /// Where those tables are, in order; None until the first write needs it.
    tables: RwLock<Option<Vec<u64>>>,
    cache: Cache,
    read_ahead: ReadAhead,
    decoded: DecodedUnits,
    /// How guest data is encrypted; also None if only metadata is needed.
    cipher: Option<DataCipher>,
    encrypted: bool,
    read_only: bool,
    durability: Durability,
    compression_level: Option<i64>,
    /// The known length of the file.
    file_len: AtomicU64,
    space: Mutex<Space>,
    inflight: InFlight,
    users: IoUsers,
    /// Held while tables are written.
    flushing: Mutex<()>,
    /// Tables have been changed and not written.
    is_dirty: AtomicBool,
    /// A flush has failed; what it covered may be lost.
    lost: AtomicBool,
}
