//! The image as the only file of a mount.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyLseek, ReplyOpen,
    ReplyWrite, Request, TimeOrNow,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, WriteFlags};
use crate::job::JobControl;
use crate::log::Level;
use crate::serve::export::Export;
use crate::serve::shared::Shared;
use crate::storage::{AskedAnew, Preallocation, ZeroFlags};

/// Maximum length of one request.
const REQUEST: u32 = 1 << 20;
/// Maximum number of background requests of the kernel.
const AHEAD: u16 = 64;
/// Maximum number of runs to look up for one `lseek`.
const MAX_LOOKUPS: usize = 64 << 10;
/// Image sizes are multiples of this.
const SECTOR: u64 = 512;

/// The export, until it is no longer offered. Requests hold it shared; a writer has the image to itself.
pub(super) type Gate = RwLock<Option<Export>>;

/// The attributes in `stat` that can be changed.
#[derive(Clone, Copy, Debug)]
struct Attributes {
    mode: u16,
    uid: u32,
    gid: u32,
    accessed: SystemTime,
    modified: SystemTime,
    changed: SystemTime,
}

/// A file whose bytes are those of an export.
#[derive(Debug)]
pub(super) struct ImageFile {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    mountpoint: String,
    writable: bool,
    growable: bool,
    /// Nothing can change the bytes, so the kernel may cache them.
    constant: bool,
    attributes: Mutex<Attributes>,
}

impl ImageFile {
    pub(super) fn new(
        shared: Arc<Shared>,
        gate: Arc<Gate>,
        mountpoint: String,
        growable: bool,
        (uid, gid): (u32, u32),
    ) -> Self {
        let (writable, constant) = {
            let export = gate.read();
            let export = export.as_ref();
            (
                export.is_some_and(Export::writable),
                export.is_some_and(|export| !export.image().writable()),
            )
        };
        let now = SystemTime::now();
        Self {
            shared,
            gate,
            mountpoint,
            writable,
            growable,
            constant,
            attributes: Mutex::new(Attributes {
                mode: if writable { 0o600 } else { 0o400 },
                uid,
                gid,
                accessed: now,
                modified: now,
                changed: now,
            }),
        }
    }

    /// Borrows the export for the duration of a request.
    fn enter(&self) -> Result<RwLockReadGuard<'_, Option<Export>>> {
        let export = self.gate.read();
        match export.is_some() {
            true => Ok(export),
            false => Err(gone()),
        }
    }

    /// Runs `work` on the export; an error becomes an errno.
    fn with<T>(
        &self,
        what: &str,
        work: impl FnOnce(&Export) -> Result<T>,
    ) -> std::result::Result<T, Errno> {
        let done = self
            .enter()
            .and_then(|export| work(export.as_ref().ok_or_else(gone)?));
        done.map_err(|error| self.failed(what, error))
    }

    fn failed(&self, what: &str, error: Error) -> Errno {
        let errno = errno(&error);
        self.shared.counters.failure();
        // An operation that is unsupported or not allowed is not worth reporting.
        if !matches!(
            error.kind(),
            ErrorKind::Unsupported | ErrorKind::ReadOnly | ErrorKind::Invalid
        ) {
            let place = &self.mountpoint;
            self.shared.note(
                Level::Error,
                error.context(format!("Request to {what} '{place}' failed")),
            );
        }
        errno
    }

    fn len(&self, export: &Export) -> u64 {
        match self.growable {
            true => export.image().len(),
            false => export.len(),
        }
    }

    fn attr(&self, export: &Export) -> Result<FileAttr> {
        let size = self.len(export);
        let blocks = export.with(|image| Ok(image.actual_size()))?;
        let known = *self.attributes.lock();
        Ok(FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: blocks.unwrap_or(size).div_ceil(512),
            atime: known.accessed,
            mtime: known.modified,
            ctime: known.changed,
            crtime: known.changed,
            kind: FileType::RegularFile,
            perm: known.mode,
            nlink: 1,
            uid: known.uid,
            gid: known.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// How long the kernel may cache the result of `stat`.
    fn lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.constant))
    }

    /// Grows the image to at least this length, while no other request uses it.
    fn grow(
        &self,
        what: &str,
        len: u64,
        preallocation: Preallocation,
    ) -> std::result::Result<(), Errno> {
        let export = self.gate.write();
        let grown = export.as_ref().ok_or_else(gone).and_then(|export| {
            let rounded = len.checked_next_multiple_of(SECTOR);
            let rounded = rounded.ok_or_else(|| Error::os(libc::EFBIG))?;
            match export.image().len() < rounded {
                true => export.with(|image| {
                    image.lengthen_under(&JobControl::default(), rounded, preallocation)
                }),
                false => Ok(()),
            }
        });
        drop(export);
        grown.map_err(|error| self.failed(what, error))
    }

    fn modified(&self) {
        let now = SystemTime::now();
        let mut attributes = self.attributes.lock();
        attributes.modified = now;
        attributes.changed = now;
    }

    fn write_at(&self, offset: u64, data: &[u8], durable: bool) -> std::result::Result<u32, Errno> {
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if self.growable && self.with("write to", |export| Ok(self.len(export) < end))? {
            self.grow("grow", end, Preallocation::Off)?;
        }
        let written = self.with("write to", |export| {
            let room = self.len(export).saturating_sub(offset);
            let len = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
            let data = data.get(..len).unwrap_or_default();
            if data.is_empty() {
                return Ok(0);
            }
            let mut flags = WriteFlags::empty();
            flags.set(WriteFlags::FUA, durable);
            let at = export.place(offset);
            export.with(|image| image.change(flags, |image| image.write_at(data, at)))?;
            self.shared.counters.written(len as u64);
            Ok(len)
        })?;
        if written == 0 && !data.is_empty() {
            return Err(Errno::ENOSPC);
        }
        self.modified();
        u32::try_from(written).map_err(|_| Errno::EIO)
    }

    fn set_size(&self, size: u64) -> std::result::Result<(), Errno> {
        let len = self.with("resize", |export| Ok(self.len(export)))?;
        match size {
            _ if size == len => Ok(()),
            _ if !self.writable => Err(Errno::EROFS),
            // Truncation loses data: more than a tool that rewrites files from the beginning is needed to ask for it.
            _ if size < len || !self.growable => Err(Errno::EPERM),
            _ => {
                self.grow("grow", size, Preallocation::Off)?;
                self.modified();
                Ok(())
            }
        }
    }

    fn allocate(&self, offset: u64, len: u64, mode: i32) -> std::result::Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EROFS);
        }
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let what = mode & !libc::FALLOC_FL_KEEP_SIZE;
        let size = self.with("allocate in", |export| Ok(self.len(export)))?;
        let longer = end > size && !keep;
        if longer && !self.growable {
            return Err(Errno::ENOSPC);
        }
        match what {
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE => {
                if longer {
                    self.grow("grow", end, Preallocation::Off)?;
                }
                let mut flags = ZeroFlags::empty();
                flags.set(ZeroFlags::MAY_UNMAP, what == libc::FALLOC_FL_PUNCH_HOLE);
                self.with("write zeroes to", |export| {
                    let len = self.len(export).min(end).saturating_sub(offset);
                    match len {
                        0 => Ok(()),
                        len => export
                            .with(|image| image.write_zeroes(export.place(offset), len, flags)),
                    }
                })?;
            }
            // Existing ranges cannot be allocated without writing to them.
            0 if longer && offset >= size => self.grow("grow", end, Preallocation::Falloc)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.modified();
        Ok(())
    }

    fn seek(&self, offset: i64, whence: i32) -> std::result::Result<i64, Errno> {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return Err(Errno::EINVAL),
        };
        let start = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = self.with("look for data in", |export| {
            let len = self.len(export);
            if start >= len {
                return Ok(None);
            }
            export.with(|image| {
                let found = next(image, export.place(start), export.place(len), data)?;
                // The end counts as a hole, but not as data.
                let found = found.map(|at| at - export.place(0));
                Ok(found.or((!data).then_some(len)))
            })
        })?;
        let found = found.ok_or(Errno::ENXIO)?;
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }

    fn flush_image(&self) -> std::result::Result<(), Errno> {
        match self.writable {
            true => self.with("flush", |export| export.with(Image::flush)),
            false => Ok(()),
        }
    }
}

/// The first offset in `at..end` that reads as zeroes or, if `data`, the first that may not.
fn next(image: &Image, mut at: u64, end: u64, data: bool) -> Result<Option<u64>> {
    let _anew = AskedAnew::from_now();
    let mut statuses = image.statuses();
    for _ in 0..MAX_LOOKUPS {
        if at >= end {
            return Ok(None);
        }
        let status = statuses.at(at, end - at)?;
        if status.zero != data {
            return Ok(Some(at));
        }
        at = at.saturating_add(status.len);
    }
    // Zeroes may be reported as data, so the search may end here.
    Ok(data.then_some(at))
}

fn gone() -> Error {
    Error::os(libc::ENOTCONN)
}

/// The errno for a failure: `EINVAL` would blame the caller.
fn errno(error: &Error) -> Errno {
    Errno::from_i32(match (error.os_errno(), error.kind()) {
        (_, ErrorKind::NoSpace) => libc::ENOSPC,
        (Some(errno), _) => errno,
        (None, ErrorKind::ReadOnly | ErrorKind::Unsupported | ErrorKind::Limit) => {
            error.kind().errno()
        }
        (None, _) => libc::EIO,
    })
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn answer(reply: ReplyEmpty, done: std::result::Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for ImageFile {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            // Opening a file to overwrite it changes nothing.
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        for one in wanted {
            // An older kernel works without it.
            let _ = config.add_capabilities(one);
        }
        let _ = config.set_max_write(REQUEST);
        let _ = config.set_max_background(AHEAD);
        Ok(())
    }

    fn getattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.with("look at", |export| self.attr(export)) {
            Ok(attr) => reply.attr(&self.lifetime(), &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // An export that is not writable cannot become so.
        if mode.is_some_and(|mode| mode & 0o222 != 0) && !self.writable {
            return reply.error(Errno::EROFS);
        }
        if let Some(Err(errno)) = size.map(|size| self.set_size(size)) {
            return reply.error(errno);
        }
        {
            let mut attributes = self.attributes.lock();
            if let Some(mode) = mode {
                attributes.mode = (mode & 0o777) as u16;
            }
            attributes.uid = uid.unwrap_or(attributes.uid);
            attributes.gid = gid.unwrap_or(attributes.gid);
            attributes.accessed = atime.map_or(attributes.accessed, time);
            attributes.modified = mtime.map_or(attributes.modified, time);
            attributes.changed = SystemTime::now();
        }
        self.getattr(request, ino, fh, reply);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = match self.constant {
            true => FopenFlags::FOPEN_NOFLUSH,
            // Others may write to the image too: each read must reach it.
            false => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
        };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.shared.counters.request();
        let read = self.with("read from", |export| {
            let left = self.len(export).saturating_sub(offset);
            let len = left.min(u64::from(size.min(REQUEST)));
            let mut held = self.shared.buffer(len as usize)?;
            // There is nothing to read past the end.
            if len > 0 {
                let at = export.place(offset);
                export.with(|image| image.read_at(held.buffer_mut(), at))?;
            }
            self.shared.counters.read(len);
            Ok(held)
        });
        match read {
            Ok(held) => reply.data(held.buffer()),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: fuser::WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.shared.counters.request();
        if !self.writable {
            return reply.error(Errno::EROFS);
        }
        match self.write_at(offset, data, flags.0 & libc::O_DSYNC != 0) {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.request();
        answer(reply, self.flush_image());
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.request();
        answer(reply, self.flush_image());
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.shared.counters.request();
        answer(reply, self.allocate(offset, length, mode));
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.shared.counters.request();
        match self.seek(offset, whence) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(errno),
        }
    }
}
