//! The library librados, loaded on first use: connections to Ceph clusters, and their pools.
//!
//! Most calls block on the cluster for as long as its settings allow: they belong on threads that nobody waits for
//! without a timeout.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::library::{Library, functions};

/// The only version whose interface is supported here, and the package that contains it along with librbd.
const NAME: &CStr = c"librados.so.2";
const PACKAGE: &str = "librbd1";

/// Opaque to us.
pub(super) type Rados = c_void;
pub(super) type IoCtx = c_void;

functions! {
    rados_create: (*mut *mut Rados, *const c_char) -> c_int;
    rados_shutdown: (*mut Rados);
    rados_conf_read_file: (*mut Rados, *const c_char) -> c_int;
    rados_conf_set: (*mut Rados, *const c_char, *const c_char) -> c_int;
    rados_conf_get: (*mut Rados, *const c_char, *mut c_char, usize) -> c_int;
    rados_connect: (*mut Rados) -> c_int;
    rados_cluster_fsid: (*mut Rados, *mut c_char, usize) -> c_int;
    rados_ioctx_create: (*mut Rados, *const c_char, *mut *mut IoCtx) -> c_int;
    rados_ioctx_destroy: (*mut IoCtx);
    rados_ioctx_set_namespace: (*mut IoCtx, *const c_char);
    rados_ioctx_get_id: (*mut IoCtx) -> i64;
}

fn functions() -> Result<&'static Functions, String> {
    static FUNCTIONS: OnceCell<Functions> = OnceCell::new();
    FUNCTIONS.get_or_try_init(|| {
        let library = Library::needed(NAME, "rbd needs", PACKAGE)?;
        // SAFETY: opened just now, by the name of its version.
        unsafe { Functions::load(&library) }
    })
}

/// Checks that the library can be loaded.
///
/// # Errors
/// One line that says what to install.
pub(crate) fn check() -> Result<(), String> {
    functions().map(|_| ())
}

/// The result of a library call: its number, or the errno.
pub(super) fn errno<T: Into<i64> + Copy>(code: T) -> Result<u64, i32> {
    let code: i64 = code.into();
    u64::try_from(code).map_err(|_| i32::try_from(code.unsigned_abs()).unwrap_or(libc::EIO))
}

/// A cluster, possibly not connected yet, with its settings.
pub(crate) struct Cluster {
    f: &'static Functions,
    handle: *mut Rados,
}

// SAFETY: the library's handles may be used from any thread, and from many at once.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// Prepares a connection as that user, or as the library's default one.
    ///
    /// # Errors
    /// The errno; `ELIBACC` if the library cannot be loaded, in which case [`check`] says more.
    pub(crate) fn new(user: Option<&CStr>) -> Result<Self, i32> {
        let f = functions().map_err(|_| libc::ELIBACC)?;
        let mut handle = ptr::null_mut();
        let user = user.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: a place for the handle; the name is copied.
        errno(unsafe { (f.rados_create)(&raw mut handle, user) })?;
        match handle.is_null() {
            true => Err(libc::ENOMEM),
            false => Ok(Self { f, handle }),
        }
    }

    /// Reads the settings from a file, or from the library's default files.
    pub(crate) fn read_file(&self, file: Option<&CStr>) -> Result<(), i32> {
        let file = file.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: its own handle, before it is connected.
        errno(unsafe { (self.f.rados_conf_read_file)(self.handle, file) }).map(|_| ())
    }

    /// Changes a setting.
    pub(crate) fn set(&self, key: &CStr, value: &CStr) -> Result<(), i32> {
        // SAFETY: its own handle, before it is connected; both texts are copied.
        errno(unsafe { (self.f.rados_conf_set)(self.handle, key.as_ptr(), value.as_ptr()) })
            .map(|_| ())
    }

    /// A setting; None if it does not exist, or is longer than anyone would write.
    pub(crate) fn text(&self, key: &CStr) -> Option<String> {
        let mut text = [0u8; 4096];
        // SAFETY: its own handle; the text is NUL-terminated within its length, or the call fails.
        let code = unsafe {
            let to = text.as_mut_ptr().cast();
            (self.f.rados_conf_get)(self.handle, key.as_ptr(), to, text.len())
        };
        errno(code).ok()?;
        let text = CStr::from_bytes_until_nul(&text).ok()?;
        Some(text.to_str().ok()?.to_owned())
    }

    /// A numeric setting.
    pub(crate) fn number(&self, key: &CStr) -> Option<u64> {
        let text = self.text(key)?;
        let digits = text.find(|c: char| !c.is_ascii_digit());
        text.get(..digits.unwrap_or(text.len()))?.parse().ok()
    }

    /// Connects. Blocks on the cluster.
    pub(crate) fn connect(&self) -> Result<(), i32> {
        // SAFETY: its own handle.
        errno(unsafe { (self.f.rados_connect)(self.handle) }).map(|_| ())
    }

    /// The unique ID of the cluster; after connecting.
    pub(crate) fn id(&self) -> Result<String, i32> {
        let mut text = [0u8; 64];
        // SAFETY: its own handle; no more than the given length is written.
        let code = unsafe {
            let to = text.as_mut_ptr().cast();
            (self.f.rados_cluster_fsid)(self.handle, to, text.len())
        };
        let len = usize::try_from(errno(code)?).unwrap_or(usize::MAX);
        let text = text.get(..len).unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: its own handle, whose pools are gone. Blocks on the library's threads.
        unsafe { (self.f.rados_shutdown)(self.handle) };
    }
}

/// A pool of a cluster, or a namespace in it.
pub(crate) struct Pool {
    cluster: Arc<Cluster>,
    pub(super) handle: *mut IoCtx,
}

// SAFETY: as for [`Cluster`].
unsafe impl Send for Pool {}
// SAFETY: as for [`Cluster`].
unsafe impl Sync for Pool {}

impl Pool {
    /// Opens the pool of that name.
    pub(crate) fn open(cluster: &Arc<Cluster>, name: &CStr) -> Result<Self, i32> {
        let mut handle = ptr::null_mut();
        let f = cluster.f;
        // SAFETY: a connected handle, and a place for the new one.
        errno(unsafe { (f.rados_ioctx_create)(cluster.handle, name.as_ptr(), &raw mut handle) })?;
        match handle.is_null() {
            true => Err(libc::ENOMEM),
            false => Ok(Self {
                cluster: cluster.clone(),
                handle,
            }),
        }
    }

    /// Selects the namespace of that name; before it is used.
    pub(crate) fn set_namespace(&mut self, name: &CStr) {
        // SAFETY: its own handle; the name is copied.
        unsafe { (self.cluster.f.rados_ioctx_set_namespace)(self.handle, name.as_ptr()) };
    }

    /// The ID of the pool in the cluster.
    pub(crate) fn id(&self) -> i64 {
        // SAFETY: its own handle.
        unsafe { (self.cluster.f.rados_ioctx_get_id)(self.handle) }
    }

    /// The cluster that the pool is in.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: its own handle, whose images are closed; the cluster still exists.
        unsafe { (self.cluster.f.rados_ioctx_destroy)(self.handle) };
    }
}
