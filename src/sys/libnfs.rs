//! The library libnfs, loaded on first use: files on NFS servers.
//!
//! Nothing here blocks: a client is served when its socket is ready. The calling thread must have SIGPIPE blocked. The
//! library's own handling of lost connections is turned off: the owner creates another connection, if nothing can be
//! lost by that.
//!
//! The interface changed in version 6 of the library without new function names, so a library of an unknown version is
//! not loaded.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use once_cell::sync::OnceCell;

use super::library::{Library, functions, remedy};
use super::{IoBuf, Payload};

/// The supported versions, the newest first, and whether an offset comes before a buffer.
const NAMES: [(&CStr, Order); 4] = [
    (c"libnfs.so.17", Order::BufferFirst),
    (c"libnfs.so.16", Order::BufferFirst),
    (c"libnfs.so.14", Order::OffsetFirst),
    (c"libnfs.so.13", Order::OffsetFirst),
];
const PACKAGE: &str = "libnfs13";

/// The order of the arguments of reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Offset, count and, for writes, the buffer; the data of a read is passed to the callback.
    OffsetFirst,
    /// Buffer, count, offset.
    BufferFirst,
}

/// Opaque to us.
type Context = c_void;
type Handle = c_void;
type Callback = unsafe extern "C" fn(c_int, *mut Context, *mut c_void, *mut c_void);

type PreadOld =
    unsafe extern "C" fn(*mut Context, *mut Handle, u64, u64, Callback, *mut c_void) -> c_int;
type PwriteOld = unsafe extern "C" fn(
    *mut Context,
    *mut Handle,
    u64,
    u64,
    *const c_void,
    Callback,
    *mut c_void,
) -> c_int;
type PreadNew = unsafe extern "C" fn(
    *mut Context,
    *mut Handle,
    *mut c_void,
    usize,
    u64,
    Callback,
    *mut c_void,
) -> c_int;
type PwriteNew = unsafe extern "C" fn(
    *mut Context,
    *mut Handle,
    *const c_void,
    usize,
    u64,
    Callback,
    *mut c_void,
) -> c_int;

/// Reads and writes, with the signatures of the version.
enum Transfers {
    Old(PreadOld, PwriteOld),
    New(PreadNew, PwriteNew),
}

functions! {
    nfs_init_context: () -> *mut Context;
    nfs_destroy_context: (*mut Context);
    nfs_get_error: (*mut Context) -> *const c_char;
    nfs_parse_url_incomplete: (*mut Context, *const c_char) -> *mut c_void;
    nfs_destroy_url: (*mut c_void);
    nfs_set_version: (*mut Context, c_int) -> c_int;
    nfs_set_uid: (*mut Context, c_int);
    nfs_set_gid: (*mut Context, c_int);
    nfs_set_tcp_syncnt: (*mut Context, c_int);
    nfs_set_autoreconnect: (*mut Context, c_int);
    nfs_get_readmax: (*mut Context) -> u64;
    nfs_get_writemax: (*mut Context) -> u64;
    nfs_get_fd: (*mut Context) -> c_int;
    nfs_which_events: (*mut Context) -> c_int;
    nfs_service: (*mut Context, c_int) -> c_int;
    nfs_mount_async: (*mut Context, *const c_char, *const c_char, Callback, *mut c_void) -> c_int;
    nfs_open2_async: (*mut Context, *const c_char, c_int, c_int, Callback, *mut c_void) -> c_int;
    nfs_create_async: (*mut Context, *const c_char, c_int, c_int, Callback, *mut c_void) -> c_int;
    nfs_close_async: (*mut Context, *mut Handle, Callback, *mut c_void) -> c_int;
    nfs_fstat64_async: (*mut Context, *mut Handle, Callback, *mut c_void) -> c_int;
    nfs_ftruncate_async: (*mut Context, *mut Handle, u64, Callback, *mut c_void) -> c_int;
    nfs_fsync_async: (*mut Context, *mut Handle, Callback, *mut c_void) -> c_int;
    nfs_unlink_async: (*mut Context, *const c_char, Callback, *mut c_void) -> c_int;
}

/// A library of a known version.
struct Loaded {
    f: Functions,
    transfers: Transfers,
}

fn loaded() -> Result<&'static Loaded, String> {
    static LOADED: OnceCell<Loaded> = OnceCell::new();
    LOADED.get_or_try_init(|| {
        let found = NAMES
            .iter()
            .find_map(|(name, order)| Some((Library::load(name)?, *order)));
        let (library, order) = found.ok_or_else(|| {
            let names = NAMES.map(|(name, _)| name.to_string_lossy().into_owned());
            format!(
                "NFS needs one of {}, of which none can be loaded: {}",
                names.join(", "),
                remedy(PACKAGE)
            )
        })?;
        let (read, write) = (
            library.symbol("nfs_pread_async\0")?,
            library.symbol("nfs_pwrite_async\0")?,
        );
        // SAFETY: opened just now, by the name of its version, which determines the arguments of these functions.
        unsafe {
            let transfers = match order {
                Order::OffsetFirst => Transfers::Old(
                    std::mem::transmute::<*mut c_void, PreadOld>(read),
                    std::mem::transmute::<*mut c_void, PwriteOld>(write),
                ),
                Order::BufferFirst => Transfers::New(
                    std::mem::transmute::<*mut c_void, PreadNew>(read),
                    std::mem::transmute::<*mut c_void, PwriteNew>(write),
                ),
            };
            Ok(Loaded {
                f: Functions::load(&library)?,
                transfers,
            })
        }
    })
}

/// Checks that the library can be loaded.
///
/// # Errors
/// One line that says what to install.
pub(crate) fn check() -> Result<(), String> {
    loaded().map(|_| ())
}

/// How to communicate with a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Version of the protocol: 3 or 4.
    pub(crate) version: u8,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// How many times a connection is attempted.
    pub(crate) syn_count: Option<u32>,
    /// Ports of the server, if they are not to be queried.
    pub(crate) port: Option<u16>,
    pub(crate) mount_port: Option<u16>,
}

/// A request to a server.
#[derive(Debug)]
pub(crate) enum Request {
    /// Mounts a directory of the server at that IP address; must come first.
    Mount(CString, CString),
    /// Opens a file in it, which becomes the file of all later requests.
    Open {
        path: CString,
        write: bool,
    },
    /// Creates one that does not exist yet.
    Create {
        path: CString,
    },
    Stat,
    /// Fills the buffer from the offset on; at most as long as the server accepts.
    Read(u64, IoBuf),
    Write(u64, Payload),
    SetLen(u64),
    Sync,
    Unlink(CString),
    Close,
}

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) mode: u64,
    pub(crate) size: u64,
    pub(crate) used: u64,
    /// Time of the last change.
    pub(crate) modified: (u64, u64),
    pub(crate) inode: (u64, u64),
}

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Stat(Stat),
    /// The buffer, and the number of bytes read into it.
    Read(IoBuf, usize),
    /// Number of bytes written.
    Written(usize),
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) struct NfsError {
    pub(crate) errno: i32,
    pub(crate) text: String,
}

/// The outcome of a request.
pub(crate) type Reply = Result<Answer, NfsError>;

/// `struct nfs_stat_64`.
#[repr(C)]
struct RawStat {
    dev: u64,
    ino: u64,
    mode: u64,
    nlink: u64,
    uid: u64,
    gid: u64,
    rdev: u64,
    size: u64,
    blksize: u64,
    blocks: u64,
    atime: u64,
    mtime: u64,
    ctime: u64,
    atime_nsec: u64,
    mtime_nsec: u64,
    ctime_nsec: u64,
    used: u64,
}

/// Results left by callbacks.
struct Outcome {
    done: RefCell<Vec<(u64, Reply)>>,
    file: Cell<*mut Handle>,
}

/// A request that the library owns.
struct Flight {
    outcome: NonNull<Outcome>,
    token: u64,
    kind: Kind,
    data: Data,
}

/// The data of a request, which stays in place when its owner is moved.
enum Data {
    None,
    Read(IoBuf),
    Write(Payload),
}

impl Data {
    /// Its address, which the library only writes to if it is that of a read.
    fn parts(&mut self) -> (*mut u8, usize) {
        match self {
            Self::None => (ptr::null_mut(), 0),
            Self::Read(buf) => (buf.as_mut_ptr(), buf.len()),
            Self::Write(bytes) => (bytes.as_ptr().cast_mut(), bytes.len()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Open,
    Stat,
    /// Whether the data is passed to the callback, or is in the buffer.
    Read(Order),
    Write,
    Close,
}

/// A client for one server and one file.
pub(crate) struct Client {
    library: &'static Loaded,
    context: *mut Context,
    outcome: NonNull<Outcome>,
}

// SAFETY: the library keeps no thread-local data for a context; all calls that change one take `&mut self`.
unsafe impl Send for Client {}

impl Client {
    /// Creates a client that is not connected yet.
    pub(crate) fn new(wanted: &Wanted) -> Result<Self, String> {
        let library = loaded()?;
        let f = &library.f;
        // SAFETY: no arguments.
        let context = unsafe { (f.nfs_init_context)() };
        if context.is_null() {
            return Err("libnfs cannot make a client".to_owned());
        }
        let outcome = Box::leak(Box::new(Outcome {
            done: RefCell::default(),
            file: Cell::new(ptr::null_mut()),
        }));
        let made = Self {
            library,
            context,
            outcome: outcome.into(),
        };
        // Ports can be set only by a URL.
        let mut url = "nfs://localhost/?".to_owned();
        if let Some(port) = wanted.port {
            url.push_str(&format!("nfsport={port}&"));
        }
        if let Some(port) = wanted.mount_port {
            url.push_str(&format!("mountport={port}&"));
        }
        url.push_str("readahead=0&dircache=0");
        let url = CString::new(url).map_err(|_| "a URL has a NUL in it".to_owned())?;
        let number = |number: u32| c_int::try_from(number).unwrap_or(c_int::MAX);
        // SAFETY: its own context; the text is copied, and the parsed URL is freed.
        unsafe {
            let parsed = (f.nfs_parse_url_incomplete)(context, url.as_ptr());
            if parsed.is_null() {
                return Err(made.reason());
            }
            (f.nfs_destroy_url)(parsed);
            if (f.nfs_set_version)(context, c_int::from(wanted.version)) != 0 {
                return Err(made.reason());
            }
            if let Some(uid) = wanted.uid {
                (f.nfs_set_uid)(context, number(uid));
            }
            if let Some(gid) = wanted.gid {
                (f.nfs_set_gid)(context, number(gid));
            }
            if let Some(count) = wanted.syn_count {
                (f.nfs_set_tcp_syncnt)(context, number(count));
            }
            (f.nfs_set_autoreconnect)(context, 0);
        }
        Ok(made)
    }

    /// The library's last error message, in one line.
    pub(crate) fn reason(&self) -> String {
        // SAFETY: its own context; the text is copied before the next call.
        unsafe { text((self.library.f.nfs_get_error)(self.context)) }
    }

    fn outcome(&self) -> &Outcome {
        // SAFETY: created with the client and freed with it; only shared references to it ever exist.
        unsafe { self.outcome.as_ref() }
    }

    /// The requests that have completed since the last call.
    pub(crate) fn done(&self) -> Vec<(u64, Reply)> {
        self.outcome().done.take()
    }

    /// Whether a file is open.
    pub(crate) fn has_file(&self) -> bool {
        !self.outcome().file.get().is_null()
    }

    /// Maximum lengths of a read and of a write.
    pub(crate) fn limits(&self) -> (u64, u64) {
        // SAFETY: its own context, which is only read.
        unsafe {
            let (f, context) = (&self.library.f, self.context);
            ((f.nfs_get_readmax)(context), (f.nfs_get_writemax)(context))
        }
    }

    /// The descriptor to wait on, and for which events; a negative number if there is nothing to wait for.
    pub(crate) fn events(&self) -> (RawFd, c_int) {
        // SAFETY: its own context, which is only read.
        unsafe {
            let (f, context) = (&self.library.f, self.context);
            ((f.nfs_get_fd)(context), (f.nfs_which_events)(context))
        }
    }

    /// Sends and receives what is possible without blocking. Must be called at least once per second, because the
    /// library has no timers of its own.
    pub(crate) fn serve(&mut self, ready: c_int) -> Result<(), String> {
        // SAFETY: its own context. What callbacks are given lives until they have run.
        match unsafe { (self.library.f.nfs_service)(self.context, ready) } {
            0 => Ok(()),
            _ => Err(self.reason()),
        }
    }

    /// Passes a request to the library; [`Client::done`] returns the outcome.
    pub(crate) fn submit(&mut self, token: u64, mut request: Request) -> Result<(), String> {
        let (f, context) = (&self.library.f, self.context);
        let file = self.outcome().file.get();
        let needs_file = !matches!(
            request,
            Request::Mount(..) | Request::Open { .. } | Request::Create { .. } | Request::Unlink(_)
        );
        if file.is_null() == needs_file && !matches!(request, Request::Unlink(_)) {
            return Err("a file is to be open, and only one".to_owned());
        }
        let order = match self.library.transfers {
            Transfers::Old(..) => Order::OffsetFirst,
            Transfers::New(..) => Order::BufferFirst,
        };
        let kind = match &request {
            Request::Open { .. } | Request::Create { .. } => Kind::Open,
            Request::Stat => Kind::Stat,
            Request::Read(..) => Kind::Read(order),
            Request::Write(..) => Kind::Write,
            Request::Close => Kind::Close,
            _ => Kind::Plain,
        };
        let mut held = match &mut request {
            Request::Read(_, buf) => Data::Read(std::mem::take(buf)),
            Request::Write(_, bytes) => Data::Write(std::mem::take(bytes)),
            _ => Data::None,
        };
        let (data, len) = held.parts();
        let flight = Box::into_raw(Box::new(Flight {
            outcome: self.outcome,
            token,
            kind,
            data: held,
        }));
        let own = flight.cast::<c_void>();
        // SAFETY: its own context and file; texts are copied; buffers belong to the flight, which lives until its
        // callback has run, and is freed here if the library did not take it.
        let code = unsafe {
            match request {
                Request::Mount(server, directory) => {
                    (f.nfs_mount_async)(context, server.as_ptr(), directory.as_ptr(), on_done, own)
                }
                Request::Open { path, write } => {
                    let how = if write { libc::O_RDWR } else { libc::O_RDONLY };
                    (f.nfs_open2_async)(context, path.as_ptr(), how, 0, on_done, own)
                }
                Request::Create { path } => {
                    let how = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                    (f.nfs_create_async)(context, path.as_ptr(), how, 0o600, on_done, own)
                }
                Request::Stat => (f.nfs_fstat64_async)(context, file, on_done, own),
                Request::Read(offset, _) => match &self.library.transfers {
                    Transfers::Old(read, _) => {
                        read(context, file, offset, len as u64, on_done, own)
                    }
                    Transfers::New(read, _) => {
                        read(context, file, data.cast(), len, offset, on_done, own)
                    }
                },
                Request::Write(offset, _) => match &self.library.transfers {
                    Transfers::Old(_, write) => {
                        write(context, file, offset, len as u64, data.cast(), on_done, own)
                    }
                    Transfers::New(_, write) => {
                        write(context, file, data.cast(), len, offset, on_done, own)
                    }
                },
                Request::SetLen(len) => (f.nfs_ftruncate_async)(context, file, len, on_done, own),
                Request::Sync => (f.nfs_fsync_async)(context, file, on_done, own),
                Request::Unlink(path) => (f.nfs_unlink_async)(context, path.as_ptr(), on_done, own),
                Request::Close => (f.nfs_close_async)(context, file, on_done, own),
            }
        };
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library did not take it.
        drop(unsafe { Box::from_raw(flight) });
        Err(self.reason())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: its own; the library completes the requests that it owns, whose callbacks need the outcome.
        unsafe {
            (self.library.f.nfs_destroy_context)(self.context);
            drop(Box::from_raw(self.outcome.as_ptr()));
        }
    }
}

/// # Safety
/// Called by the library once for each request that it took.
unsafe extern "C" fn on_done(
    result: c_int,
    _context: *mut Context,
    data: *mut c_void,
    flight: *mut c_void,
) {
    // SAFETY: passed by `Client::submit`, which gave up ownership; the library calls once. The client exists as long as
    // its context does. The kind of the request determines what `data` is.
    unsafe {
        let mut flight = Box::from_raw(flight.cast::<Flight>());
        let outcome = flight.outcome.as_ref();
        if flight.kind == Kind::Close {
            // Even if the server reports an error.
            outcome.file.set(ptr::null_mut());
        }
        let reply = if result < 0 {
            Err(NfsError {
                errno: result.saturating_neg(),
                text: text(data.cast()),
            })
        } else {
            // Not negative.
            let (at, len) = flight.data.parts();
            let count = (result as usize).min(len);
            Ok(match flight.kind {
                Kind::Plain | Kind::Close => Answer::Done,
                Kind::Open => {
                    outcome.file.set(data);
                    Answer::Done
                }
                Kind::Stat => {
                    let stat = &*data.cast::<RawStat>();
                    Answer::Stat(Stat {
                        mode: stat.mode,
                        size: stat.size,
                        used: stat.used,
                        modified: (stat.mtime, stat.mtime_nsec),
                        inode: (stat.dev, stat.ino),
                    })
                }
                Kind::Read(order) => {
                    if order == Order::OffsetFirst && count > 0 {
                        ptr::copy_nonoverlapping(data.cast::<u8>(), at, count);
                    }
                    match flight.data {
                        Data::Read(buf) => Answer::Read(buf, count),
                        _ => Answer::Done,
                    }
                }
                Kind::Write => Answer::Written(count),
            })
        };
        outcome.done.borrow_mut().push((flight.token, reply));
    }
}

/// A text from the library, in one line.
///
/// # Safety
/// It must be NUL-terminated, or null.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown error of libnfs".to_owned();
    }
    // SAFETY: by the caller.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
