//! Lets calls of this very process on the files below a directory fail: it defines the symbols of
//! libc that the library calls. Several directories may be armed at the same time.
#![allow(
    unsafe_code,
    reason = "defines C functions and passes their arguments on to the kernel"
)]

use std::ffi::{c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use libc::{iovec, off_t, size_t, ssize_t};

/// Which call fails.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    /// Letters of the classes that are counted: r(ead), w(rite), s(ync), a(llocation).
    pub calls: &'static str,
    /// The number of the call that fails; the first is 0.
    pub nth: u64,
    /// How it fails.
    pub errno: i32,
    /// All later calls of the classes fail, too.
    pub forever: bool,
}

struct Plan {
    directory: Vec<u8>,
    strike: Strike,
    counted: AtomicU64,
    struck: AtomicBool,
}

static PLANS: Mutex<Vec<Arc<Plan>>> = Mutex::new(Vec::new());
static ARMED: AtomicUsize = AtomicUsize::new(0);

/// Calls fail until this is dropped.
pub struct Armed(Arc<Plan>);

impl Armed {
    /// Lets a call on the files below `directory`, or on the directory, fail. It is a path without
    /// symbolic links.
    pub fn new(directory: &Path, strike: Strike) -> Self {
        let plan = Arc::new(Plan {
            directory: directory.as_os_str().as_bytes().to_vec(),
            strike,
            counted: AtomicU64::new(0),
            struck: AtomicBool::new(false),
        });
        plans().push(plan.clone());
        ARMED.fetch_add(1, Ordering::SeqCst);
        Self(plan)
    }

    /// Whether a call has failed.
    pub fn struck(&self) -> bool {
        self.0.struck.load(Ordering::SeqCst)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.fetch_sub(1, Ordering::SeqCst);
        plans().retain(|plan| !Arc::ptr_eq(plan, &self.0));
    }
}

fn plans() -> std::sync::MutexGuard<'static, Vec<Arc<Plan>>> {
    PLANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the call fails now; sets errno then.
fn strikes(fd: c_int, call: char) -> bool {
    if ARMED.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let link = format!("/proc/self/fd/{fd}\0");
    let mut path = [0; libc::PATH_MAX as usize];
    // SAFETY: the link is a C string, and the buffer is valid for writes of its length.
    let len = unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
    let Some(path) = usize::try_from(len).ok().map(|len| &path[..len]) else {
        return false;
    };
    let plan = plans()
        .iter()
        .find(|plan| path.starts_with(&plan.directory))
        .cloned();
    let Some(plan) = plan.filter(|plan| plan.strike.calls.contains(call)) else {
        return false;
    };
    let now = plan.counted.fetch_add(1, Ordering::SeqCst);
    let strike = &plan.strike;
    if now != strike.nth && !(now > strike.nth && strike.forever) {
        return false;
    }
    plan.struck.store(true, Ordering::SeqCst);
    // SAFETY: the location of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = strike.errno };
    true
}

macro_rules! faulty {
    ($name:ident, $call:literal, $number:ident, ($($argument:ident: $type:ty),*) -> $result:ty) => {
        // SAFETY: it has the signature and the meaning of libc's function of that name.
        #[unsafe(no_mangle)]
        extern "C" fn $name(fd: c_int $(, $argument: $type)*) -> $result {
            if strikes(fd, $call) {
                return -1;
            }
            // SAFETY: the caller keeps to the contract of the function, which is the kernel's.
            (unsafe { libc::syscall(libc::$number, c_long::from(fd) $(, $argument)*) }) as $result
        }
    };
}

faulty!(read, 'r', SYS_read, (buf: *mut c_void, n: size_t) -> ssize_t);
faulty!(pread, 'r', SYS_pread64, (buf: *mut c_void, n: size_t, at: off_t) -> ssize_t);
faulty!(pread64, 'r', SYS_pread64, (buf: *mut c_void, n: size_t, at: off_t) -> ssize_t);
faulty!(write, 'w', SYS_write, (buf: *const c_void, n: size_t) -> ssize_t);
faulty!(pwrite, 'w', SYS_pwrite64, (buf: *const c_void, n: size_t, at: off_t) -> ssize_t);
faulty!(pwrite64, 'w', SYS_pwrite64, (buf: *const c_void, n: size_t, at: off_t) -> ssize_t);
faulty!(fallocate, 'a', SYS_fallocate, (mode: c_int, at: off_t, n: off_t) -> c_int);
faulty!(fallocate64, 'a', SYS_fallocate, (mode: c_int, at: off_t, n: off_t) -> c_int);
faulty!(ftruncate, 'a', SYS_ftruncate, (n: off_t) -> c_int);
faulty!(ftruncate64, 'a', SYS_ftruncate, (n: off_t) -> c_int);

macro_rules! faulty_vectors {
    ($name:ident, $call:literal, $number:ident) => {
        // SAFETY: it has the signature and the meaning of libc's function of that name.
        #[unsafe(no_mangle)]
        extern "C" fn $name(fd: c_int, vectors: *const iovec, n: c_int, at: off_t) -> ssize_t {
            if strikes(fd, $call) {
                return -1;
            }
            // The kernel takes the offset in two halves; on 64 bits the upper one is unused.
            // SAFETY: the caller keeps to the contract of the function, which is the kernel's.
            (unsafe { libc::syscall(libc::$number, c_long::from(fd), vectors, n, at, 0) })
                as ssize_t
        }
    };
}

faulty_vectors!(preadv, 'r', SYS_preadv);
faulty_vectors!(pwritev, 'w', SYS_pwritev);

macro_rules! faulty_sync {
    ($($name:ident)*) => {$(
        // SAFETY: it has the signature of libc's function of that name. The files of a test need
        // not outlive the machine, so nothing is done.
        #[unsafe(no_mangle)]
        extern "C" fn $name(fd: c_int) -> c_int {
            if strikes(fd, 's') { -1 } else { 0 }
        }
    )*};
}

faulty_sync!(fsync fdatasync);

// SAFETY: it has the signature and the meaning of libc's function of that name.
#[unsafe(no_mangle)]
extern "C" fn copy_file_range(
    from: c_int,
    at: *mut off_t,
    fd: c_int,
    to: *mut off_t,
    n: size_t,
    flags: u32,
) -> ssize_t {
    if strikes(fd, 'w') {
        return -1;
    }
    let from = c_long::from(from);
    // SAFETY: the caller keeps to the contract of the function, which is the kernel's.
    (unsafe { libc::syscall(libc::SYS_copy_file_range, from, at, fd, to, n, flags) }) as ssize_t
}
