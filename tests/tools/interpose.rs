//! Lets calls of this very process on the files below a directory fail, or tells of those that change them:
//! it defines the symbols of libc that the library calls. Several directories may be armed or watched at
//! the same time.
#![allow(
    unsafe_code,
    reason = "defines C functions and passes their arguments on to the kernel"
)]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use libc::{iovec, off_t, size_t, ssize_t};

use crate::common::Dir;

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
    if ARMED.load(Ordering::Relaxed) == 0 || TELLING.get() {
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

/// A change that a call has made, or a sync.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// So many bytes at an offset are what the file holds there now.
    Bytes(u64, u64),
    /// A range was zeroed or became a hole; what of it lies past the end stays away.
    Zero(u64, u64),
    /// The file is so long at least.
    Grow(u64),
    /// The file is so long.
    SetLen(u64),
    /// What was changed before is durable.
    Sync,
}

/// Is told of the changes of files below a directory, in their order: a sync after all those that it covers.
pub trait Watch: Send + Sync {
    fn changed(&self, fd: BorrowedFd<'_>, change: Change);
}

type Watched = (Vec<u8>, Arc<dyn Watch>);

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());
static WATCHING: AtomicUsize = AtomicUsize::new(0);
/// Shared by changes until they are told; a sync is told alone.
static ORDER: RwLock<()> = RwLock::new(());

thread_local! {
    /// Whether the calls of this thread are those of a watcher that is told of one. They are nothing to it, and it
    /// would wait for itself if it were told of them.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Changes are told until this is dropped.
pub struct Watching(Arc<dyn Watch>);

impl Watching {
    /// Tells `watch` of changes below `directory`, and of syncs of the directory. It is a path without
    /// symbolic links.
    pub fn new(directory: &Path, watch: Arc<dyn Watch>) -> Self {
        let path = directory.as_os_str().as_bytes().to_vec();
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push((path, watch.clone()));
        WATCHING.fetch_add(1, Ordering::SeqCst);
        Self(watch)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHING.fetch_sub(1, Ordering::SeqCst);
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(_, watch)| !Arc::ptr_eq(watch, &self.0));
    }
}

fn watcher(fd: c_int) -> Option<Arc<dyn Watch>> {
    if WATCHING.load(Ordering::Relaxed) == 0 || TELLING.get() {
        return None;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = watched.iter();
    let found = all.find(|(below, _)| path.as_os_str().as_bytes().starts_with(below));
    found.map(|(_, watch)| watch.clone())
}

/// Tells of a change of a file that is open for as long as this runs.
fn report(watch: &dyn Watch, fd: c_int, change: Change) {
    TELLING.set(true);
    // SAFETY: the caller keeps it open meanwhile.
    watch.changed(unsafe { BorrowedFd::borrow_raw(fd) }, change);
    TELLING.set(false);
}

/// Carries a call out and tells what it has changed, which depends on its result.
fn tell<T>(fd: c_int, call: impl FnOnce() -> T, change: impl FnOnce(&T) -> Option<Change>) -> T {
    let Some(watch) = watcher(fd) else {
        return call();
    };
    let _shared = ORDER.read().unwrap_or_else(PoisonError::into_inner);
    let result = call();
    if let Some(change) = change(&result) {
        report(&*watch, fd, change);
    }
    result
}

/// What a write of so many bytes at an offset has changed.
fn wrote(at: off_t, n: isize) -> Option<Change> {
    (n > 0).then_some(Change::Bytes(at as u64, n as u64))
}

macro_rules! faulty {
    ($name:ident, $call:literal, $number:ident, ($($argument:ident: $type:ty),*) -> $result:ty,
     $change:expr) => {
        // SAFETY: it has the signature and the meaning of libc's function of that name.
        #[unsafe(no_mangle)]
        extern "C" fn $name(fd: c_int $(, $argument: $type)*) -> $result {
            if strikes(fd, $call) {
                return -1;
            }
            // SAFETY: the caller keeps to the contract of the function, which is the kernel's.
            let call = || unsafe { libc::syscall(libc::$number, c_long::from(fd) $(, $argument)*) };
            let change: fn(c_int, isize $(, $type)*) -> Option<Change> = $change;
            tell(fd, call, |result| change(fd, *result as isize $(, $argument)*)) as $result
        }
    };
}

fn read_nothing<A, B>(_: c_int, _: isize, _: A, _: B) -> Option<Change> {
    None
}

fn wrote_at(_: c_int, done: isize, _: *const c_void, _: size_t, at: off_t) -> Option<Change> {
    wrote(at, done)
}

/// A write at the position of the descriptor, which lies behind it by now.
fn wrote_on(fd: c_int, done: isize, _: *const c_void, _: size_t) -> Option<Change> {
    // SAFETY: no memory is involved.
    let behind = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    wrote(behind - done as off_t, done)
}

fn allocated(_: c_int, result: isize, mode: c_int, at: off_t, n: off_t) -> Option<Change> {
    let keeps = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    let zeroes = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
    match (result, keeps, zeroes) {
        (0, true, true) => Some(Change::Zero(at as u64, n as u64)),
        (0, false, false) => Some(Change::Grow((at + n) as u64)),
        (0, false, true) => unreachable!("a call that the library does not make"),
        _ => None,
    }
}

fn truncated(_: c_int, result: isize, n: off_t) -> Option<Change> {
    (result == 0).then_some(Change::SetLen(n as u64))
}

faulty!(read, 'r', SYS_read, (buf: *mut c_void, n: size_t) -> ssize_t, read_nothing);
faulty!(pread, 'r', SYS_pread64, (buf: *mut c_void, n: size_t, at: off_t) -> ssize_t, |_, _, _, _, _| None);
faulty!(pread64, 'r', SYS_pread64, (buf: *mut c_void, n: size_t, at: off_t) -> ssize_t, |_, _, _, _, _| None);
faulty!(write, 'w', SYS_write, (buf: *const c_void, n: size_t) -> ssize_t, wrote_on);
faulty!(pwrite, 'w', SYS_pwrite64, (buf: *const c_void, n: size_t, at: off_t) -> ssize_t, wrote_at);
faulty!(pwrite64, 'w', SYS_pwrite64, (buf: *const c_void, n: size_t, at: off_t) -> ssize_t, wrote_at);
faulty!(fallocate, 'a', SYS_fallocate, (mode: c_int, at: off_t, n: off_t) -> c_int, allocated);
faulty!(fallocate64, 'a', SYS_fallocate, (mode: c_int, at: off_t, n: off_t) -> c_int, allocated);
faulty!(ftruncate, 'a', SYS_ftruncate, (n: off_t) -> c_int, truncated);
faulty!(ftruncate64, 'a', SYS_ftruncate, (n: off_t) -> c_int, truncated);

macro_rules! faulty_vectors {
    ($name:ident, $call:literal, $number:ident, $change:expr) => {
        // SAFETY: it has the signature and the meaning of libc's function of that name.
        #[unsafe(no_mangle)]
        extern "C" fn $name(fd: c_int, vectors: *const iovec, n: c_int, at: off_t) -> ssize_t {
            if strikes(fd, $call) {
                return -1;
            }
            // The kernel takes the offset in two halves; on 64 bits the upper one is unused.
            let call = || {
                // SAFETY: the caller keeps to the contract of the function, which is the kernel's.
                unsafe { libc::syscall(libc::$number, c_long::from(fd), vectors, n, at, 0) }
            };
            let change: fn(off_t, isize) -> Option<Change> = $change;
            tell(fd, call, |done| change(at, *done as isize)) as ssize_t
        }
    };
}

faulty_vectors!(preadv, 'r', SYS_preadv, |_, _| None);
faulty_vectors!(pwritev, 'w', SYS_pwritev, wrote);

macro_rules! faulty_sync {
    ($($name:ident)*) => {$(
        // SAFETY: it has the signature of libc's function of that name. The files of a test need
        // not outlive the machine, so nothing is done.
        #[unsafe(no_mangle)]
        extern "C" fn $name(fd: c_int) -> c_int {
            if strikes(fd, 's') {
                return -1;
            }
            if let Some(watch) = watcher(fd) {
                let _alone = ORDER.write().unwrap_or_else(PoisonError::into_inner);
                report(&*watch, fd, Change::Sync);
            }
            0
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
    // SAFETY: the caller says with it where the copy goes.
    let begin = unsafe { to.as_ref() }.copied();
    // SAFETY: the caller keeps to the contract of the function, which is the kernel's.
    let call = || unsafe { libc::syscall(libc::SYS_copy_file_range, from, at, fd, to, n, flags) };
    tell(fd, call, |done| wrote(begin?, *done as isize)) as ssize_t
}

/// Changes each file once more whenever it is told of a change.
#[derive(Default)]
struct Meddler(Mutex<Vec<Change>>);

impl Watch for Meddler {
    fn changed(&self, fd: BorrowedFd<'_>, change: Change) {
        let file = File::from(fd.try_clone_to_owned().expect("a descriptor"));
        file.read_exact_at(&mut [0], 0).expect("a read");
        file.write_all_at(b"b", 0).expect("a write");
        file.sync_data().expect("a sync");
        self.0.lock().expect("no panic").push(change);
    }
}

#[test]
fn what_a_watcher_does_itself_is_told_to_nobody() {
    let dir = Dir::new();
    let root = dir.root().canonicalize().expect("a path");
    let watch = Arc::new(Meddler::default());
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(root.join("f"))
        .expect("a file");
    let watching = Watching::new(&root, watch.clone());
    file.write_all_at(b"a", 0).expect("a write");
    file.sync_data().expect("a sync");
    file.write_all_at(b"a", 1).expect("a write");
    drop(watching);
    file.write_all_at(b"a", 2).expect("a write");
    let told = watch.0.lock().expect("no panic");
    assert!(
        matches!(
            told[..],
            [Change::Bytes(0, 1), Change::Sync, Change::Bytes(1, 1)]
        ),
        "{told:?}"
    );
    assert_eq!(std::fs::read(root.join("f")).expect("the file"), b"baa");
}
