//! The library libgfapi, loaded on first use: files in GlusterFS volumes.
//!
//! Reads and modifications of data are started here and waited for elsewhere; every other call blocks on the servers,
//! and belongs on a thread that nobody waits for without a timeout.
//!
//! The functions whose arguments changed in GlusterFS 6 are looked up by symbol version.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use super::library::{self, Library, functions};
use super::pending::{Held, Pending, Request, Running};
use super::{IoBuf, Payload};

/// The only version whose interface is supported here, and the package that contains it.
const NAME: &CStr = c"libgfapi.so.0";
const PACKAGE: &str = "libgfapi0";
/// The symbol version of requests whose callbacks have five arguments.
const SYMBOLS: &CStr = c"GFAPI_6.0";
/// Part of the paths of what it loads by itself.
const TRANSLATORS: &CStr = c"/glusterfs/";

/// Opaque to us.
type Fs = c_void;
type File = c_void;
type Done = unsafe extern "C" fn(*mut File, isize, *mut c_void, *mut c_void, *mut c_void);

functions! {
    glfs_new: (*const c_char) -> *mut Fs;
    glfs_set_volfile_server: (*mut Fs, *const c_char, *const c_char, c_int) -> c_int;
    glfs_set_xlator_option: (*mut Fs, *const c_char, *const c_char, *const c_char) -> c_int;
    glfs_set_logging: (*mut Fs, *const c_char, c_int) -> c_int;
    glfs_init: (*mut Fs) -> c_int;
    glfs_fini: (*mut Fs) -> c_int;
    glfs_open: (*mut Fs, *const c_char, c_int) -> *mut File;
    glfs_creat: (*mut Fs, *const c_char, c_int, libc::mode_t) -> *mut File;
    glfs_close: (*mut File) -> c_int;
    glfs_unlink: (*mut Fs, *const c_char) -> c_int;
    glfs_fstat: (*mut File, *mut libc::stat) -> c_int;
    glfs_lseek: (*mut File, i64, c_int) -> i64;
    glfs_fallocate: (*mut File, c_int, i64, usize) -> c_int;
}

type Read =
    unsafe extern "C" fn(*mut File, *mut c_void, usize, i64, c_int, Done, *mut c_void) -> c_int;
type Write =
    unsafe extern "C" fn(*mut File, *const c_void, c_int, i64, c_int, Done, *mut c_void) -> c_int;
type SetLen = unsafe extern "C" fn(*mut File, i64, Done, *mut c_void) -> c_int;
type Flush = unsafe extern "C" fn(*mut File, Done, *mut c_void) -> c_int;
type Discard = unsafe extern "C" fn(*mut File, i64, usize, Done, *mut c_void) -> c_int;
type Zero = unsafe extern "C" fn(*mut File, i64, i64, Done, *mut c_void) -> c_int;

/// Requests, with their signatures of version 6.
struct Requests {
    read: Read,
    write: Write,
    set_len: SetLen,
    sync: Flush,
    discard: Discard,
    zero: Zero,
}

struct Loaded {
    f: Functions,
    requests: Requests,
}

fn loaded() -> Result<&'static Loaded, String> {
    static LOADED: OnceCell<Loaded> = OnceCell::new();
    LOADED.get_or_try_init(|| {
        let library = Library::needed(NAME, "gluster needs", PACKAGE)?;
        load(&library).map_err(|lack| format!("{lack}: a newer version of {PACKAGE} is needed"))
    })
}

fn load(library: &Library) -> Result<Loaded, String> {
    let of = |name: &'static CStr| library.versioned(name, SYMBOLS);
    // SAFETY: this is the library of that name; according to its header, the functions with these names and this
    // version have these signatures.
    unsafe {
        Ok(Loaded {
            f: Functions::load(library)?,
            requests: Requests {
                read: std::mem::transmute::<*mut c_void, Read>(of(c"glfs_pread_async")?),
                write: std::mem::transmute::<*mut c_void, Write>(of(c"glfs_pwrite_async")?),
                set_len: std::mem::transmute::<*mut c_void, SetLen>(of(c"glfs_ftruncate_async")?),
                sync: std::mem::transmute::<*mut c_void, Flush>(of(c"glfs_fsync_async")?),
                discard: std::mem::transmute::<*mut c_void, Discard>(of(c"glfs_discard_async")?),
                zero: std::mem::transmute::<*mut c_void, Zero>(of(c"glfs_zerofill_async")?),
            },
        })
    }
}

/// Checks that the library can be loaded.
///
/// # Errors
/// One line that says what to install.
pub(crate) fn check() -> Result<(), String> {
    loaded().map(|_| ())
}

/// The result of a call that returns -1 on failure.
fn given(code: impl Into<i64>) -> Result<u64, i32> {
    u64::try_from(code.into()).map_err(|_| last())
}

fn last() -> i32 {
    let errno = io::Error::last_os_error().raw_os_error();
    errno.filter(|errno| *errno != 0).unwrap_or(libc::EIO)
}

/// A volume, possibly not connected yet.
pub(crate) struct Volume {
    f: &'static Functions,
    handle: *mut Fs,
}

// SAFETY: the library's handles may be used from any thread, and from many at once.
unsafe impl Send for Volume {}
// SAFETY: as above.
unsafe impl Sync for Volume {}

impl Volume {
    /// Creates the volume of that name, without a server yet.
    pub(crate) fn new(name: &CStr) -> Result<Self, i32> {
        let f = &loaded().map_err(|_| libc::ELIBACC)?.f;
        // SAFETY: the name is copied.
        let handle = unsafe { (f.glfs_new)(name.as_ptr()) };
        match handle.is_null() {
            true => Err(last()),
            false => Ok(Self { f, handle }),
        }
    }

    /// Adds a server that knows the volume; before connecting. `host` is a path if the transport is `unix`.
    pub(crate) fn add_server(&self, transport: &CStr, host: &CStr, port: u16) -> Result<(), i32> {
        let (transport, host) = (transport.as_ptr(), host.as_ptr());
        // SAFETY: its own handle; both texts are copied.
        let code = unsafe {
            (self.f.glfs_set_volfile_server)(self.handle, transport, host, c_int::from(port))
        };
        given(code).map(|_| ())
    }

    /// Sets an option for the parts of the client whose names match; before connecting.
    pub(crate) fn set_option(&self, part: &CStr, key: &CStr, value: &CStr) -> Result<(), i32> {
        // SAFETY: its own handle; the texts are copied.
        let code = unsafe {
            let (part, key, value) = (part.as_ptr(), key.as_ptr(), value.as_ptr());
            (self.f.glfs_set_xlator_option)(self.handle, part, key, value)
        };
        given(code).map(|_| ())
    }

    /// Sets the library's log file and log level; before connecting.
    pub(crate) fn set_log(&self, file: &CStr, level: u8) -> Result<(), i32> {
        // SAFETY: its own handle; the name is copied.
        let code =
            unsafe { (self.f.glfs_set_logging)(self.handle, file.as_ptr(), c_int::from(level)) };
        given(code).map(|_| ())
    }

    /// Connects. Blocks on the servers.
    pub(crate) fn connect(&self) -> Result<(), i32> {
        // SAFETY: its own handle.
        match unsafe { (self.f.glfs_init)(self.handle) } {
            0 => Ok(()),
            _ => Err(last()),
        }
    }

    /// Removes a file. Blocks on the servers.
    pub(crate) fn unlink(&self, path: &CStr) -> Result<(), i32> {
        // SAFETY: its own handle.
        given(unsafe { (self.f.glfs_unlink)(self.handle, path.as_ptr()) }).map(|_| ())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The library unloads its translators while their threads may still be returning from their last function.
        library::keep_loaded(TRANSLATORS);
        // SAFETY: its own handle, whose files are closed. Blocks on the servers, and for some ten more seconds.
        unsafe { (self.f.glfs_fini)(self.handle) };
    }
}

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) used: u64,
    pub(crate) inode: u64,
}

/// The result of a search for data or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    At(u64),
    /// There is none before the end of the file.
    None,
}

/// An open file.
pub(crate) struct OpenFile {
    library: &'static Loaded,
    handle: *mut File,
    running: Running,
    /// Held while the handle's position changes.
    seeking: Mutex<()>,
    /// Shut down after the file.
    volume: Arc<Volume>,
}

// SAFETY: as for [`Volume`].
unsafe impl Send for OpenFile {}
// SAFETY: as for [`Volume`].
unsafe impl Sync for OpenFile {}

/// Called by the library, on a thread of its own, when a request has completed.
unsafe extern "C" fn ended(
    _file: *mut File,
    count: isize,
    _before: *mut c_void,
    _after: *mut c_void,
    request: *mut c_void,
) {
    // The errno is thread-local: nothing may come before this.
    let outcome = given(count as i64);
    // SAFETY: the request is from `OpenFile::start`; this is called once for it.
    unsafe { Request::taken_back(request) }.end(outcome);
}

impl OpenFile {
    /// Opens or creates a file. Blocks on the servers.
    pub(crate) fn open(volume: &Arc<Volume>, path: &CStr, flags: c_int) -> Result<Self, i32> {
        let library = loaded().map_err(|_| libc::ELIBACC)?;
        // SAFETY: its own handle; the path is copied.
        let handle = unsafe {
            match flags & libc::O_CREAT {
                0 => (library.f.glfs_open)(volume.handle, path.as_ptr(), flags),
                _ => (library.f.glfs_creat)(volume.handle, path.as_ptr(), flags, 0o600),
            }
        };
        match handle.is_null() {
            true => Err(last()),
            false => Ok(Self {
                library,
                handle,
                running: Running::default(),
                seeking: Mutex::default(),
                volume: volume.clone(),
            }),
        }
    }

    /// The volume that the file is in.
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The file's attributes. Blocks on the servers.
    pub(crate) fn stat(&self) -> Result<Stat, i32> {
        // SAFETY: it consists of numbers, for which zero is valid.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: its own handle, and a place for the numbers.
        given(unsafe { (self.library.f.glfs_fstat)(self.handle, &raw mut stat) })?;
        Ok(Stat {
            mode: stat.st_mode,
            size: u64::try_from(stat.st_size).map_err(|_| libc::EIO)?,
            used: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512),
            inode: stat.st_ino,
        })
    }

    /// The first data from an offset on, or the first hole. Blocks on the servers.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Result<Found, i32> {
        let offset = i64::try_from(offset).map_err(|_| libc::EFBIG)?;
        let what = if data {
            libc::SEEK_DATA
        } else {
            libc::SEEK_HOLE
        };
        // The library returns the handle's position, which another thread may have changed in the meantime.
        let _alone = self.seeking.lock();
        // SAFETY: its own handle. Nothing else uses its position.
        match given(unsafe { (self.library.f.glfs_lseek)(self.handle, offset, what) }) {
            Ok(at) => Ok(Found::At(at)),
            Err(libc::ENXIO) => Ok(Found::None),
            Err(errno) => Err(errno),
        }
    }

    /// Allocates space for a range, and grows the file to its end. Blocks on the servers.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> Result<(), i32> {
        let offset = i64::try_from(offset).map_err(|_| libc::EFBIG)?;
        let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
        // SAFETY: its own handle.
        given(unsafe { (self.library.f.glfs_fallocate)(self.handle, 0, offset, len) }).map(|_| ())
    }

    fn start(
        &self,
        held: Held,
        call: impl FnOnce(*mut u8, *mut c_void) -> c_int,
    ) -> Result<Pending, i32> {
        self.running
            .start(held, |at, request| given(call(at, request)).map(|_| ()))
    }

    /// Starts to fill `bytes` from `offset`.
    pub(crate) fn read(&self, offset: u64, bytes: IoBuf) -> Result<Pending, i32> {
        let offset = i64::try_from(offset).map_err(|_| libc::EFBIG)?;
        let (read, len) = (self.library.requests.read, bytes.len());
        self.start(Held::Room(bytes), |at, request| {
            // SAFETY: its own handle; `len` writable bytes that the request keeps until it has completed.
            unsafe { read(self.handle, at.cast(), len, offset, 0, ended, request) }
        })
    }

    /// Starts to write `bytes` at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: Payload) -> Result<Pending, i32> {
        let offset = i64::try_from(offset).map_err(|_| libc::EFBIG)?;
        let len = c_int::try_from(bytes.len()).map_err(|_| libc::EFBIG)?;
        let write = self.library.requests.write;
        self.start(Held::Bytes(bytes), |at, request| {
            // SAFETY: its own handle; `len` readable bytes that the request keeps until it has completed.
            unsafe { write(self.handle, at.cast(), len, offset, 0, ended, request) }
        })
    }

    /// Starts to change the file's length.
    pub(crate) fn set_len(&self, len: u64) -> Result<Pending, i32> {
        let len = i64::try_from(len).map_err(|_| libc::EFBIG)?;
        let set_len = self.library.requests.set_len;
        self.start(Held::None, |_, request| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { set_len(self.handle, len, ended, request) }
        })
    }

    /// Starts to make completed writes durable.
    pub(crate) fn sync(&self) -> Result<Pending, i32> {
        let sync = self.library.requests.sync;
        self.start(Held::None, |_, request| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { sync(self.handle, ended, request) }
        })
    }

    /// Starts to deallocate a range.
    pub(crate) fn discard(&self, offset: u64, len: u64) -> Result<Pending, i32> {
        let offset = i64::try_from(offset).map_err(|_| libc::EFBIG)?;
        let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
        let discard = self.library.requests.discard;
        self.start(Held::None, |_, request| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { discard(self.handle, offset, len, ended, request) }
        })
    }

    /// Starts to make a range read as zeroes.
    pub(crate) fn write_zeroes(&self, offset: u64, len: u64) -> Result<Pending, i32> {
        let offset = i64::try_from(offset).map_err(|_| libc::EFBIG)?;
        let len = i64::try_from(len).map_err(|_| libc::EFBIG)?;
        let zero = self.library.requests.zero;
        self.start(Held::None, |_, request| {
            // SAFETY: its own handle; no memory is passed.
            unsafe { zero(self.handle, offset, len, ended, request) }
        })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.running.wait();
        // SAFETY: its own handle, with no request in flight. Blocks on the servers.
        unsafe { (self.library.f.glfs_close)(self.handle) };
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").finish_non_exhaustive()
    }
}
