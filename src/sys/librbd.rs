//! The library librbd, loaded on first use: images in pools of a Ceph cluster.
//!
//! Reads and modifications of data are started here and waited for elsewhere; every other call blocks on the cluster,
//! and belongs on a thread that nobody waits for without a timeout.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::sync::OnceCell;
use zeroize::Zeroizing;

use super::librados::{IoCtx, Pool, errno};
use super::library::{Library, functions};
use super::pending::{Held, Pending, Request, Running};
use super::{IoBuf, Payload};

/// The only version whose interface is supported here, and the package that contains it.
const NAME: &CStr = c"librbd.so.1";
const PACKAGE: &str = "librbd1";

// From `rbd/features.h` and `rbd/librbd.h`.
const FEATURE_FAST_DIFF: u64 = 1 << 4;
const FLAG_FAST_DIFF_INVALID: u64 = 1 << 1;

/// Maximum number of snapshots of an image that are listed.
const MAX_SNAPSHOTS: usize = 64 << 10;

/// Opaque to us.
type Handle = c_void;
type Completion = c_void;
type Done = unsafe extern "C" fn(*mut Completion, *mut c_void);
type Step = unsafe extern "C" fn(u64, u64, *mut c_void) -> c_int;
type Visit = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;

/// `rbd_image_info_t`.
#[repr(C)]
struct Info {
    size: u64,
    object_size: u64,
    objects: u64,
    order: c_int,
    block_name_prefix: [c_char; 24],
    parent_pool: i64,
    parent_name: [c_char; 96],
}

/// `rbd_snap_info_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SnapInfo {
    id: u64,
    size: u64,
    name: *const c_char,
}

/// `rbd_encryption_luks1_format_options_t`, and the one for LUKS2, which is the same.
#[repr(C)]
struct EncryptionOptions {
    algorithm: c_int,
    passphrase: *const c_char,
    passphrase_size: usize,
}

functions! {
    rbd_create: (*mut IoCtx, *const c_char, u64, *mut c_int) -> c_int;
    rbd_remove_with_progress: (*mut IoCtx, *const c_char, Step, *mut c_void) -> c_int;
    rbd_namespace_exists: (*mut IoCtx, *const c_char, *mut bool) -> c_int;
    rbd_open: (*mut IoCtx, *const c_char, *mut *mut Handle, *const c_char) -> c_int;
    rbd_open_read_only: (*mut IoCtx, *const c_char, *mut *mut Handle, *const c_char) -> c_int;
    rbd_close: (*mut Handle) -> c_int;
    rbd_stat: (*mut Handle, *mut Info, usize) -> c_int;
    rbd_get_size: (*mut Handle, *mut u64) -> c_int;
    rbd_get_id: (*mut Handle, *mut c_char, usize) -> c_int;
    rbd_get_features: (*mut Handle, *mut u64) -> c_int;
    rbd_get_flags: (*mut Handle, *mut u64) -> c_int;
    rbd_resize_with_progress: (*mut Handle, u64, Step, *mut c_void) -> c_int;
    rbd_snap_create: (*mut Handle, *const c_char) -> c_int;
    rbd_snap_remove: (*mut Handle, *const c_char) -> c_int;
    rbd_snap_rollback_with_progress: (*mut Handle, *const c_char, Step, *mut c_void) -> c_int;
    rbd_snap_list: (*mut Handle, *mut SnapInfo, *mut c_int) -> c_int;
    rbd_snap_list_end: (*mut SnapInfo);
    rbd_diff_iterate2: (*mut Handle, *const c_char, u64, u64, u8, u8, Visit, *mut c_void) -> c_int;
    rbd_encryption_format: (*mut Handle, c_int, *mut c_void, usize) -> c_int;
    rbd_encryption_load: (*mut Handle, c_int, *mut c_void, usize) -> c_int;
    rbd_aio_create_completion: (*mut c_void, Done, *mut *mut Completion) -> c_int;
    rbd_aio_get_return_value: (*mut Completion) -> isize;
    rbd_aio_release: (*mut Completion);
    rbd_aio_read: (*mut Handle, u64, usize, *mut c_char, *mut Completion) -> c_int;
    rbd_aio_write: (*mut Handle, u64, usize, *const c_char, *mut Completion) -> c_int;
    rbd_aio_write_zeroes: (*mut Handle, u64, usize, *mut Completion, c_int, c_int) -> c_int;
    rbd_aio_discard: (*mut Handle, u64, u64, *mut Completion) -> c_int;
    rbd_aio_flush: (*mut Handle, *mut Completion) -> c_int;
}

fn functions() -> Result<&'static Functions, String> {
    static FUNCTIONS: OnceCell<Functions> = OnceCell::new();
    FUNCTIONS.get_or_try_init(|| {
        let library = Library::needed(NAME, "rbd needs", PACKAGE)?;
        // SAFETY: opened just now, by the name of its version.
        let loaded = unsafe { Functions::load(&library) };
        loaded.map_err(|lack| format!("{lack}: a newer version of {PACKAGE} is needed"))
    })
}

/// Checks that the library can be loaded.
///
/// # Errors
/// One line that says what to install.
pub(crate) fn check() -> Result<(), String> {
    functions().map(|_| ())
}

/// How an image is encrypted by the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    Luks1 = 0,
    Luks2 = 1,
}

/// Ciphers of new images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes128 = 0,
    Aes256 = 1,
}

/// A snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) name: Vec<u8>,
    pub(crate) size: u64,
}

/// Creates an image, with objects of two to the power of `order` bytes, or of the cluster's default size.
pub(crate) fn create(pool: &Pool, name: &CStr, size: u64, order: u8) -> Result<(), i32> {
    let f = functions().map_err(|_| libc::ELIBACC)?;
    let mut order = c_int::from(order);
    // SAFETY: a pool that is open, and a place for the order.
    errno(unsafe { (f.rbd_create)(pool.handle, name.as_ptr(), size, &raw mut order) }).map(|_| ())
}

/// Counts a step.
unsafe extern "C" fn step(_done: u64, _all: u64, steps: *mut c_void) -> c_int {
    // SAFETY: lent by the call in progress, until its end.
    let steps = unsafe { &*steps.cast::<AtomicU64>() };
    steps.fetch_add(1, Ordering::Relaxed);
    0
}

/// The argument for [`step`].
fn counter(steps: &AtomicU64) -> *mut c_void {
    ptr::from_ref(steps).cast_mut().cast()
}

/// Removes an image that is not open anywhere; counts each step.
pub(crate) fn remove(pool: &Pool, name: &CStr, steps: &AtomicU64) -> Result<(), i32> {
    let f = functions().map_err(|_| libc::ELIBACC)?;
    let counter = counter(steps);
    // SAFETY: a pool that is open, and a counter that outlives the call, whose threads only add to it.
    let code = unsafe { (f.rbd_remove_with_progress)(pool.handle, name.as_ptr(), step, counter) };
    errno(code).map(|_| ())
}

/// Whether a pool has a namespace of that name.
pub(crate) fn namespace_exists(pool: &Pool, name: &CStr) -> Result<bool, i32> {
    let f = functions().map_err(|_| libc::ELIBACC)?;
    let mut exists = false;
    // SAFETY: a pool that is open; 0 or 1 is stored.
    errno(unsafe { (f.rbd_namespace_exists)(pool.handle, name.as_ptr(), &raw mut exists) })?;
    Ok(exists)
}

/// An open image.
pub(crate) struct Image {
    f: &'static Functions,
    handle: *mut Handle,
    running: Arc<Running>,
    /// Closed after the image.
    _pool: Arc<Pool>,
}

// SAFETY: the library's handles may be used from any thread, and from many at once.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

/// Called by the library, on a thread of its own, when a request has completed.
unsafe extern "C" fn ended(completion: *mut Completion, request: *mut c_void) {
    let Ok(f) = functions() else { return };
    // SAFETY: the request's own completion, which is complete, and is released only here; the request is from
    // `Image::start`, and this is called once for it.
    unsafe {
        let code = (f.rbd_aio_get_return_value)(completion);
        (f.rbd_aio_release)(completion);
        Request::taken_back(request).end(errno(code as i64));
    }
}

impl Image {
    /// Opens an image, or a snapshot of it, which is read-only.
    pub(crate) fn open(
        pool: &Arc<Pool>,
        name: &CStr,
        snapshot: Option<&CStr>,
        writable: bool,
    ) -> Result<Self, i32> {
        let f = functions().map_err(|_| libc::ELIBACC)?;
        let mut handle = ptr::null_mut();
        let snapshot = snapshot.map_or(ptr::null(), CStr::as_ptr);
        let open = match writable {
            true => f.rbd_open,
            false => f.rbd_open_read_only,
        };
        // SAFETY: a pool that is open, and a place for the handle; the names are copied.
        errno(unsafe { open(pool.handle, name.as_ptr(), &raw mut handle, snapshot) })?;
        Ok(Self {
            f,
            handle,
            running: Arc::default(),
            _pool: pool.clone(),
        })
    }

    /// The length in bytes; without the header once encryption has been loaded.
    pub(crate) fn size(&self) -> Result<u64, i32> {
        let mut size = 0;
        // SAFETY: its own handle, and a place for the number.
        errno(unsafe { (self.f.rbd_get_size)(self.handle, &raw mut size) })?;
        Ok(size)
    }

    /// The size of its objects.
    pub(crate) fn object_size(&self) -> Result<u64, i32> {
        let mut info = Info {
            size: 0,
            object_size: 0,
            objects: 0,
            order: 0,
            block_name_prefix: [0; 24],
            parent_pool: 0,
            parent_name: [0; 96],
        };
        // SAFETY: its own handle; no more than the given length is written.
        errno(unsafe { (self.f.rbd_stat)(self.handle, &raw mut info, size_of::<Info>()) })?;
        Ok(info.object_size)
    }

    /// The ID that is unique in the pool, whatever the image's name.
    pub(crate) fn id(&self) -> Result<Vec<u8>, i32> {
        let mut text = [0u8; 256];
        // SAFETY: its own handle; no more than the given length is written.
        errno(unsafe { (self.f.rbd_get_id)(self.handle, text.as_mut_ptr().cast(), text.len()) })?;
        let text = CStr::from_bytes_until_nul(&text).map_err(|_| libc::EIO)?;
        Ok(text.to_bytes().to_vec())
    }

    /// Whether the cluster has a map of the existing objects, and it is valid.
    pub(crate) fn has_object_map(&self) -> Result<bool, i32> {
        let (mut features, mut flags) = (0, 0);
        // SAFETY: its own handle, and places for the numbers.
        unsafe {
            errno((self.f.rbd_get_features)(self.handle, &raw mut features))?;
            errno((self.f.rbd_get_flags)(self.handle, &raw mut flags))?;
        }
        Ok(features & FEATURE_FAST_DIFF != 0 && flags & FLAG_FAST_DIFF_INVALID == 0)
    }

    /// Changes the length, which includes the header of encryption, if any; data past the new end is lost. Counts each
    /// step.
    pub(crate) fn resize(&self, size: u64, steps: &AtomicU64) -> Result<(), i32> {
        let call = self.f.rbd_resize_with_progress;
        // SAFETY: its own handle, and a counter that outlives the call, whose threads only add to it.
        errno(unsafe { call(self.handle, size, step, counter(steps)) }).map(|_| ())
    }

    /// Creates a snapshot of what has been flushed.
    pub(crate) fn create_snapshot(&self, name: &CStr) -> Result<(), i32> {
        // SAFETY: its own handle; the name is copied.
        errno(unsafe { (self.f.rbd_snap_create)(self.handle, name.as_ptr()) }).map(|_| ())
    }

    /// Removes a snapshot.
    pub(crate) fn remove_snapshot(&self, name: &CStr) -> Result<(), i32> {
        // SAFETY: its own handle; the name is copied.
        errno(unsafe { (self.f.rbd_snap_remove)(self.handle, name.as_ptr()) }).map(|_| ())
    }

    /// Restores the contents and length of a snapshot; counts each step.
    pub(crate) fn roll_back(&self, name: &CStr, steps: &AtomicU64) -> Result<(), i32> {
        let call = self.f.rbd_snap_rollback_with_progress;
        // SAFETY: its own handle; the name is copied; the counter outlives the call, whose threads only add to it.
        errno(unsafe { call(self.handle, name.as_ptr(), step, counter(steps)) }).map(|_| ())
    }

    /// Its snapshots.
    pub(crate) fn snapshots(&self) -> Result<Vec<Snapshot>, i32> {
        const NONE: SnapInfo = SnapInfo {
            id: 0,
            size: 0,
            name: ptr::null(),
        };
        let mut list = vec![NONE; 32];
        loop {
            let mut room = c_int::try_from(list.len()).unwrap_or(c_int::MAX);
            // SAFETY: its own handle; no more entries than there is space for are written, and the number needed is
            // reported.
            let code =
                unsafe { (self.f.rbd_snap_list)(self.handle, list.as_mut_ptr(), &raw mut room) };
            match errno(code) {
                Ok(count) => {
                    let count = usize::try_from(count).unwrap_or(usize::MAX).min(list.len());
                    let filled = list.iter().take(count).filter(|info| !info.name.is_null());
                    let found = filled.map(|info| Snapshot {
                        // SAFETY: NUL-terminated names, valid until the list is released.
                        name: unsafe { CStr::from_ptr(info.name) }.to_bytes().to_vec(),
                        size: info.size,
                    });
                    let found: Vec<Snapshot> = found.collect();
                    let is_whole = found.len() == count;
                    if count > 0 && is_whole {
                        // SAFETY: a list that was filled, released once.
                        unsafe { (self.f.rbd_snap_list_end)(list.as_mut_ptr()) };
                    }
                    // If there are fewer, the list cannot be relied on.
                    return is_whole.then_some(found).ok_or(libc::EIO);
                }
                Err(libc::ERANGE) => {
                    let wanted = usize::try_from(room).unwrap_or(0).max(list.len() * 2);
                    if wanted > MAX_SNAPSHOTS {
                        return Err(libc::EFBIG);
                    }
                    list = vec![NONE; wanted];
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Visits runs of a range and whether they are allocated, as whole objects if `whole`, until `visit` returns false.
    pub(crate) fn written(
        &self,
        offset: u64,
        len: u64,
        whole: bool,
        mut visit: impl FnMut(u64, u64, bool) -> bool,
    ) -> Result<(), i32> {
        unsafe extern "C" fn call<F: FnMut(u64, u64, bool) -> bool>(
            offset: u64,
            len: usize,
            exists: c_int,
            visit: *mut c_void,
        ) -> c_int {
            // SAFETY: the closure of the call in progress, on this thread.
            let visit = unsafe { &mut *visit.cast::<F>() };
            match visit(offset, len as u64, exists != 0) {
                true => 0,
                false => -libc::ECANCELED,
            }
        }
        fn of<F: FnMut(u64, u64, bool) -> bool>(_: &F) -> Visit {
            call::<F>
        }
        let function = of(&visit);
        let arg = (&raw mut visit).cast();
        let (parents, whole) = (1, u8::from(whole));
        // SAFETY: its own handle; the closure outlives the call, during which nothing else uses it.
        let code = unsafe {
            let from = ptr::null();
            (self.f.rbd_diff_iterate2)(
                self.handle,
                from,
                offset,
                len,
                parents,
                whole,
                function,
                arg,
            )
        };
        errno(code).map(|_| ())
    }

    /// From now on decrypts what is read and encrypts what is written.
    pub(crate) fn load_encryption(&self, format: Encryption, passphrase: &[u8]) -> Result<(), i32> {
        // For an existing image, the library takes the cipher from the header.
        let call = self.f.rbd_encryption_load;
        self.encryption(call, format, Cipher::Aes256, passphrase)
    }

    /// Writes the header of an encrypted image, and encrypts from now on.
    pub(crate) fn format_encryption(
        &self,
        format: Encryption,
        cipher: Cipher,
        passphrase: &[u8],
    ) -> Result<(), i32> {
        let call = self.f.rbd_encryption_format;
        self.encryption(call, format, cipher, passphrase)
    }

    fn encryption(
        &self,
        call: unsafe extern "C" fn(*mut Handle, c_int, *mut c_void, usize) -> c_int,
        format: Encryption,
        cipher: Cipher,
        passphrase: &[u8],
    ) -> Result<(), i32> {
        // Followed by a NUL, in case the library looks for one.
        let mut text = Zeroizing::new(Vec::with_capacity(passphrase.len() + 1));
        text.extend_from_slice(passphrase);
        text.push(0);
        let mut options = EncryptionOptions {
            algorithm: cipher as c_int,
            passphrase: text.as_ptr().cast(),
            passphrase_size: passphrase.len(),
        };
        // SAFETY: its own handle; the options for the format, which their length identifies, outlive the call.
        let code = unsafe {
            let at = (&raw mut options).cast();
            call(
                self.handle,
                format as c_int,
                at,
                size_of::<EncryptionOptions>(),
            )
        };
        errno(code).map(|_| ())
    }

    /// Starts a request.
    fn start(
        &self,
        held: Held,
        call: impl FnOnce(*mut c_char, *mut Completion) -> c_int,
    ) -> Result<Pending, i32> {
        self.running.start(held, |at, request| {
            let mut completion = ptr::null_mut();
            // SAFETY: the function takes back the request when it has completed.
            let made =
                unsafe { (self.f.rbd_aio_create_completion)(request, ended, &raw mut completion) };
            errno(made)?;
            errno(call(at.cast(), completion)).inspect_err(|_| {
                // SAFETY: its own completion, of a request that was not started.
                unsafe { (self.f.rbd_aio_release)(completion) };
            })?;
            Ok(())
        })
    }

    /// Starts to fill all of `bytes` from `offset`.
    pub(crate) fn read(&self, offset: u64, bytes: IoBuf) -> Result<Pending, i32> {
        let len = bytes.len();
        self.start(Held::Room(bytes), |at, completion| {
            // SAFETY: its own handle; `len` writable bytes that the request keeps until it has completed.
            unsafe { (self.f.rbd_aio_read)(self.handle, offset, len, at, completion) }
        })
    }

    /// Starts to write all of `bytes` at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: Payload) -> Result<Pending, i32> {
        let len = bytes.len();
        self.start(Held::Bytes(bytes), |at, completion| {
            // SAFETY: its own handle; `len` readable bytes that the request keeps until it has completed.
            unsafe { (self.f.rbd_aio_write)(self.handle, offset, len, at, completion) }
        })
    }

    /// Starts to make a range read as zeroes; the space of whole objects is deallocated.
    pub(crate) fn write_zeroes(&self, offset: u64, len: usize) -> Result<Pending, i32> {
        self.start(Held::None, |_, completion| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { (self.f.rbd_aio_write_zeroes)(self.handle, offset, len, completion, 0, 0) }
        })
    }

    /// Starts to deallocate a range.
    pub(crate) fn discard(&self, offset: u64, len: u64) -> Result<Pending, i32> {
        self.start(Held::None, |_, completion| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { (self.f.rbd_aio_discard)(self.handle, offset, len, completion) }
        })
    }

    /// Starts to flush completed writes.
    pub(crate) fn flush(&self) -> Result<Pending, i32> {
        self.start(Held::None, |_, completion| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { (self.f.rbd_aio_flush)(self.handle, completion) }
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.running.wait();
        // SAFETY: its own handle, with no request in flight. Blocks on the cluster.
        unsafe { (self.f.rbd_close)(self.handle) };
    }
}
