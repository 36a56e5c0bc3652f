//! Opening files and devices.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::RwLock;

use super::direct::Direct;
use super::entry::Entry;
use super::extents::ExtentCache;
use super::opening::{could_not_open, no_direct, not_regular, open_raw};
use super::spare::Spare;
use super::{Abilities, DISC_DRIVER, FileStorage, Kind, NEXT_ID, device, named};
use crate::error::{Error, Result};
use crate::storage::identity::Identity;
use crate::storage::locks::{Locks, Reach};
use crate::storage::modes::CacheMode;
use crate::sys::dio::{self, DioAlign};
use crate::sys::{AlignedBuf, attr, blkdev, fd, limit, lock, rw};

/// Whether [`crate::storage::Storage::lock`] takes advisory locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Locking {
    /// Where the file system offers them.
    #[default]
    Auto,
    /// Always; opening fails where the file system offers none.
    On,
    /// Never.
    Off,
}

/// How to open a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOpen {
    /// Open for writing as well.
    pub writable: bool,
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// Whether locks are taken.
    pub locking: Locking,
    /// The driver asked for: `file`, `host_device` or `host_cdrom`; one of the first two when not given.
    pub driver: Option<&'static str>,
    /// An image names the file: it must be a regular file or a block device, none that the kernel makes
    /// up, and not reached through what a process has open.
    pub named_by_image: bool,
}

/// Opens the file or device at `path`; paths need not be UTF-8.
///
/// # Errors
/// `Could not open 'X': …` with the errno; a type of file that the driver does not take.
pub fn open(path: &Path, options: &FileOpen) -> Result<FileStorage> {
    let name = BString::from(path.as_os_str().as_bytes());
    if name.is_empty() {
        let driver = options.driver.unwrap_or("file");
        return Err(Error::invalid(format!(
            "The '{driver}' block driver requires a file name"
        )));
    }
    device::refuse_streams(path, name.as_bstr())?;
    if options.named_by_image {
        let fd = named::open_named(path, options.writable, options.cache)?;
        let fd = device::hold_disc(fd, name.as_bstr(), options)?;
        return by_name(fd, name, options);
    }
    let mut how = OpenOptions::new();
    how.read(true).write(options.writable);
    let fd = open_raw(path, &how, options.cache).map_err(|error| match error.raw_os_error() {
        Some(libc::EISDIR) => not_regular(name.as_bstr()),
        Some(libc::EINVAL) if options.cache.direct() => no_direct(name.as_bstr()),
        _ => could_not_open(name.as_bstr(), &error),
    })?;
    let fd = device::hold_disc(fd, name.as_bstr(), options)?;
    by_name(fd, name, options)
}

/// As [`wrap`], of a file that was opened by the path `name`.
pub(super) fn by_name(fd: OwnedFd, name: BString, options: &FileOpen) -> Result<FileStorage> {
    let mut storage = wrap(fd, name, options)?;
    storage.is_named = true;
    Ok(storage)
}

/// Opens an open descriptor; `name` stands for it in messages. Byte locks and the direct I/O flag
/// belong to the open file, so duplicates of the descriptor share them; storages of this process exclude
/// each other all the same.
///
/// # Errors
/// The descriptor's access mode or type does not fit.
pub fn open_fd(fd: OwnedFd, name: impl Into<BString>, options: &FileOpen) -> Result<FileStorage> {
    let name = name.into();
    let unfit = |reason: &str| Error::invalid(format!("Could not open '{name}': {reason}"));
    let flags =
        dio::status_flags(fd.as_fd()).map_err(|error| could_not_open(name.as_bstr(), &error))?;
    let access = flags & libc::O_ACCMODE;
    if flags & libc::O_PATH != 0 || access == libc::O_WRONLY {
        return Err(unfit("the descriptor is not open for reading"));
    }
    if options.writable && access != libc::O_RDWR {
        return Err(unfit("the descriptor is not open for writing"));
    }
    if options.writable && flags & libc::O_APPEND != 0 {
        return Err(unfit("the descriptor is open for appending"));
    }
    dio::set_cloexec(fd.as_fd()).map_err(|error| could_not_open(name.as_bstr(), &error))?;
    if options.cache.direct() && flags & libc::O_DIRECT == 0 {
        dio::set_direct(fd.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => no_direct(name.as_bstr()),
            _ => could_not_open(name.as_bstr(), &error),
        })?;
    }
    wrap(fd, name, options)
}

/// A duplicate of a descriptor that the caller keeps, by its number.
///
/// # Errors
/// `Could not use the file descriptor: …`: it is not open, or there are too many.
pub fn duplicate(number: RawFd) -> Result<OwnedFd> {
    fd::duplicate_number(number)
        .map_err(|error| Error::io(&error).context("Could not use the file descriptor"))
}

fn not_device(driver: &str, name: &BStr) -> Error {
    Error::invalid(format!(
        "'{driver}' driver requires '{name}' to be either a character or block device"
    ))
}

/// Makes a storage of an open file after looking at what it is.
pub(super) fn wrap(fd: OwnedFd, name: BString, options: &FileOpen) -> Result<FileStorage> {
    let failed = |error: io::Error| could_not_open(name.as_bstr(), &error);
    let fd = fd::keep(fd).map_err(failed)?;
    if options.named_by_image {
        named::check(fd.as_fd(), name.as_bstr())?;
    }
    let stat = attr::stat(fd.as_fd()).map_err(failed)?;
    let kind = match stat.mode & libc::S_IFMT {
        libc::S_IFREG => Kind::Regular,
        libc::S_IFBLK => Kind::Block,
        libc::S_IFCHR => Kind::Character,
        _ => match options.driver {
            Some("file") | None => return Err(not_regular(name.as_bstr())),
            Some(driver) => return Err(not_device(driver, name.as_bstr())),
        },
    };
    match (options.driver, kind) {
        (Some("file"), Kind::Block | Kind::Character) => return Err(not_regular(name.as_bstr())),
        (Some(driver), Kind::Regular) if driver != "file" => {
            return Err(not_device(driver, name.as_bstr()));
        }
        _ => {}
    }
    if options.writable && kind == Kind::Block && blkdev::read_only(fd.as_fd()).map_err(failed)? {
        return Err(Error::os(libc::EACCES).context("The device is not writable"));
    }
    dio::set_blocking(fd.as_fd()).map_err(failed)?;
    let flags = dio::status_flags(fd.as_fd()).map_err(failed)?;
    let direct = (flags & libc::O_DIRECT != 0 && kind != Kind::Character)
        .then(|| alignment(fd.as_fd(), kind))
        .transpose()
        .map_err(failed)?
        .map(Direct::new);
    let made_up = kind == Kind::Regular && attr::is_made_up(fd.as_fd()).unwrap_or(false);
    let device_len = match kind {
        Kind::Block => blkdev::size(fd.as_fd()).map_err(failed)?,
        Kind::Regular | Kind::Character => 0,
    };
    let reach = reach(fd.as_fd(), options.locking).map_err(failed)?;
    Ok(FileStorage {
        name,
        is_named: false,
        kind,
        is_disc: options.driver == Some(DISC_DRIVER),
        told_len: AtomicU64::new(device_len),
        identity: Identity::of_open(fd.as_fd(), &stat),
        made_up,
        read_only: !options.writable,
        cache: options.cache,
        size_limit: match kind {
            Kind::Regular => limit::file_size(),
            Kind::Block | Kind::Character => u64::MAX,
        },
        direct,
        growth: RwLock::new(()),
        spare: Spare::default(),
        extents: ExtentCache::new(stat.identity),
        can: Abilities {
            punch_hole: AtomicBool::new(true),
            zero_range: AtomicBool::new(true),
            allocate: AtomicBool::new(true),
            cached_reads: AtomicBool::new(true),
            reserve: OnceLock::new(),
        },
        locks: Locks::new(&stat, reach),
        syncs: Arc::default(),
        entry: Entry::default(),
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        no_reflink_to: AtomicU64::new(0),
        no_copy_to: AtomicU64::new(0),
        fd,
    })
}

fn reach(fd: BorrowedFd<'_>, locking: Locking) -> io::Result<Reach> {
    match locking {
        Locking::Off => Ok(Reach::Nothing),
        Locking::On => lock::held_by_other(fd, 0).map(|_| Reach::Host),
        Locking::Auto => match lock::held_by_other(fd, 0) {
            Ok(_) => Ok(Reach::Host),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOLCK) => {
                    Ok(Reach::Process)
                }
                _ => Err(error),
            },
        },
    }
}

/// What direct I/O demands: the device's sector, what the kernel states, or what reads accept.
fn alignment(fd: BorrowedFd<'_>, kind: Kind) -> io::Result<DioAlign> {
    if kind == Kind::Block {
        let sector = blkdev::logical_sector(fd)?.max(512);
        return Ok(DioAlign {
            memory: sector.max(dio::stated(fd).map_or(512, |align| align.memory)),
            offset: sector,
        });
    }
    if let Some(align) = dio::stated(fd) {
        return Ok(DioAlign {
            memory: align.memory.max(1),
            offset: align.offset.max(1),
        });
    }
    probe(fd)
}

/// Tries reads of rising alignment. Where even an odd read passes (an empty file, a file system
/// that does not check) nothing is learnt, and a page is the safe assumption.
fn probe(fd: BorrowedFd<'_>) -> io::Result<DioAlign> {
    const SAFE: u32 = 4096;
    let mut buf = AlignedBuf::zeroed(2 * SAFE as usize, SAFE as usize)?;
    let page = DioAlign {
        memory: SAFE,
        offset: SAFE,
    };
    for unit in [1, 512, 1024, 2048, SAFE] {
        match rw::pread(fd, &mut buf[..unit as usize], 0) {
            Ok(_) if unit == 1 => return Ok(page),
            Ok(_) => {
                return Ok(DioAlign {
                    memory: SAFE,
                    offset: unit,
                });
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}
