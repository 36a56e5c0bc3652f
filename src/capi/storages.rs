//! Storages of the program, under names that it chooses.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::capi::boundary::{
    self, Handle, Poison, UserData, call_mut, call_out, check_flags, given, platter_free_fn,
};
use crate::capi::error::platter_error;
use crate::capi::storage::{callbacks, platter_storage_ops};
use crate::capi::text::name;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{
    CallbackStorage, FileOpen, NamedStorages, SharedStorage, Storage, StorageCallbacks,
    StorageOpen, Users, file,
};

/// Storages of the program, under names that it chooses: open files, tables of callbacks, open images. If such a name
/// is used as the path of an image, of a target, of a backing file, of a data file or of an extent, the storage is used
/// instead of any file with that name: thus a whole chain can be in storages of the program. A name that is not here
/// refers to a file, even if a new image consists of several: their names are in the descriptor of a VMDK. The policy
/// decides about what an image names, whatever storage it is in. Functions that use the set copy it; the storages
/// themselves are shared.
#[derive(Debug, Default)]
pub struct platter_storages {
    poison: Poison,
    known: BTreeMap<BString, Kept>,
}

impl Handle for platter_storages {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// A named storage.
#[derive(Clone, Debug)]
enum Kept {
    File(Arc<OwnedFd>),
    Callbacks(Arc<StorageCallbacks>, Arc<Users>),
    Shared(Arc<dyn Storage>, Arc<Users>),
}

/// A set as the core queries it.
#[derive(Debug)]
struct Names(BTreeMap<BString, Kept>);

impl NamedStorages for Names {
    fn find(&self, name: &Path, how: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        let name = BStr::new(name.as_os_str().as_bytes());
        self.0.get(name).map(|kept| kept.open(name, how))
    }
}

impl Kept {
    fn open(&self, name: &BStr, how: &StorageOpen) -> Result<Arc<dyn Storage>> {
        let (storage, users) = match self {
            Self::File(fd) => {
                let own = file::duplicate(fd.as_raw_fd())?;
                let how = FileOpen {
                    writable: how.writable,
                    cache: how.cache,
                    ..FileOpen::default()
                };
                return Ok(Arc::new(file::open_fd(own, name, &how)?));
            }
            Self::Callbacks(calls, users) => {
                let identity = users.identity().clone();
                let calls = calls.clone();
                let storage = CallbackStorage::over(name.to_owned(), calls, identity, how.cache)?;
                (Arc::new(storage) as Arc<dyn Storage>, users)
            }
            Self::Shared(storage, users) => (storage.clone(), users),
        };
        if how.writable && storage.read_only() {
            let text = format!("'{name}' is open read-only");
            return Err(Error::new(ErrorKind::ReadOnly, text));
        }
        Ok(Arc::new(SharedStorage::new(storage, users)))
    }
}

/// The set of a parameter; none if it is NULL.
pub(super) fn copied(
    storages: Option<&platter_storages>,
) -> Result<Option<Arc<dyn NamedStorages>>> {
    let Some(storages) = storages else {
        return Ok(None);
    };
    storages.poison.check()?;
    Ok(Some(Arc::new(Names(storages.known.clone()))))
}

impl platter_storages {
    /// Adds a storage that every opening uses as it is.
    pub(super) fn add_shared(&mut self, name: &BStr, storage: Arc<dyn Storage>) -> Result<()> {
        self.add(name, Kept::Shared(storage, Users::new()))
    }

    fn add(&mut self, name: &BStr, kept: Kept) -> Result<()> {
        if name.is_empty() {
            return Err(Error::invalid("A storage needs a name"));
        }
        if self.known.contains_key(name) {
            let text = format!("There is a storage '{name}' already");
            return Err(Error::new(ErrorKind::Exists, text));
        }
        self.known.insert(name.to_owned(), kept);
        Ok(())
    }
}

/// Creates an empty set of storages. The caller frees it with `platter_storages_free()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_storages_new(
    out: Option<&mut MaybeUninit<*mut platter_storages>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(Box::into_raw(Box::new(platter_storages::default())))
    })
}

/// Adds an open file or block device. The descriptor is duplicated: the caller keeps its own. Locks and the flag
/// `O_DIRECT` are as for `platter_image_open_fd()`. Writing requires a descriptor that is open for reading and writing;
/// a new image replaces the contents of the file, and if its creation fails, the file is emptied, not removed. Use
/// `PLATTER_LOCATION_PATH` with a name that has a colon. `flags` must be 0.
///
/// Statuses: INVALID, EXISTS, OS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_storages_add_fd(
    storages: Option<&mut platter_storages>,
    name: *const c_char,
    fd: c_int,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(storages, "storages", err, |storages| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, "name")? };
        if fd < 0 {
            return Err(Error::invalid("Parameter 'fd' is negative"));
        }
        storages.add(name, Kept::File(Arc::new(file::duplicate(fd)?)))
    })
}

/// Adds a storage of the program. `ops` is copied; each opening calls `size`. Images that use the same storage of the
/// set at the same time exclude each other as those in one file do: only readers share it. `free_fn` (may be NULL) is
/// called once with `user_data`: when the set and everything that copied it are gone, or at once if this call fails.
/// `flags` must be 0.
///
/// Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated; the callbacks and `user_data` are usable from every thread until
/// `free_fn` is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_storages_add_storage(
    storages: Option<&mut platter_storages>,
    name: *const c_char,
    ops: Option<&platter_storage_ops>,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    call_mut(storages, "storages", err, |storages| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, "name")? };
        let calls = callbacks(*given(ops, "ops")?, user_data)?;
        storages.add(name, Kept::Callbacks(Arc::new(calls), Users::new()))
    })
}

/// Frees a set; whatever copied it keeps using its storages. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The set is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_storages_free(storages: *mut platter_storages) {
    // SAFETY: the caller owns the set, which came from `platter_storages_new`.
    unsafe { boundary::free(storages) }
}
