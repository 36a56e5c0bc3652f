//! Direct I/O: aligned requests go straight to the kernel, others through a bounce buffer.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use super::FileStorage;
use super::ranges::{OwnedRangeGuard, RangeGuard, Ranges};
use crate::storage::traits::Limits;
use crate::sys::dio::DioAlign;
use crate::sys::{AlignedBuf, falloc, rw};

/// The size of a bounce buffer, and therefore of one bounced request.
const BOUNCE: usize = 1 << 20;

/// This many requests of a megabyte keep a disk busy.
const IN_FLIGHT: u32 = 8;

/// What direct I/O needs to know of a file that is open with O_DIRECT.
#[derive(Debug)]
pub(super) struct Direct {
    align: DioAlign,
    ranges: Arc<Ranges>,
}

impl Direct {
    pub(super) fn new(align: DioAlign) -> Self {
        Self {
            align,
            ranges: Arc::default(),
        }
    }

    /// The unit of offsets and lengths in bytes.
    pub(super) fn unit(&self) -> u32 {
        self.align.offset
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            request_alignment: self.align.offset,
            memory_alignment: self.align.memory,
            in_flight: IN_FLIGHT,
            ..Limits::default()
        }
    }

    /// Excludes read-modify-writes of blocks that the range touches, for calls that change the
    /// file by other means than writing.
    pub(super) fn enter(&self, start: u64, end: u64) -> RangeGuard<'_> {
        self.ranges.enter(self.down(start), self.up(end), false)
    }

    /// As [`Self::enter`], for a change that may complete while no thread waits for it; None if it would
    /// have to wait for its turn.
    pub(super) fn try_enter(&self, start: u64, end: u64) -> Option<OwnedRangeGuard> {
        Ranges::try_enter(&self.ranges, self.down(start), self.up(end))
    }

    fn down(&self, at: u64) -> u64 {
        at - at % u64::from(self.align.offset)
    }

    fn up(&self, at: u64) -> u64 {
        at.next_multiple_of(u64::from(self.align.offset))
    }

    fn fits(&self, buf: &[u8], at: u64) -> bool {
        let unit = u64::from(self.align.offset);
        at.is_multiple_of(unit)
            && (buf.len() as u64).is_multiple_of(unit)
            && AlignedBuf::is_aligned(buf.as_ptr(), self.align.memory)
    }

    fn with_bounce<T>(
        &self,
        len: u64,
        run: impl FnOnce(&mut [u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let size = BOUNCE.min(usize::try_from(self.up(len)).unwrap_or(BOUNCE));
        let memory = self.align.memory.max(self.align.offset).max(4096) as usize;
        let mut buf = AlignedBuf::zeroed(size, memory)?;
        run(&mut buf[..size])
    }

    /// Fills `buf`; returns the number of bytes read, fewer only at the end of the file.
    pub(super) fn read(&self, file: &FileStorage, buf: &mut [u8], at: u64) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.fits(buf, at) {
            return self.read_aligned(file, buf, at);
        }
        let end = at.saturating_add(buf.len() as u64);
        if i64::try_from(end).is_err() {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let (first, last) = (self.down(at), self.up(end));
        self.with_bounce(last - first, |bounce| {
            let mut block = first;
            let mut done = 0;
            while block < last {
                let want =
                    usize::try_from(last - block).map_or(bounce.len(), |n| n.min(bounce.len()));
                let got = self.read_aligned(file, &mut bounce[..want], block)?;
                let skip = at.saturating_sub(block) as usize;
                let take = got.saturating_sub(skip).min(buf.len() - done);
                buf[done..done + take].copy_from_slice(&bounce[skip.min(got)..][..take]);
                done += take;
                if got < want {
                    break;
                }
                block += want as u64;
            }
            Ok(done)
        })
    }

    pub(super) fn read_vectored(
        &self,
        file: &FileStorage,
        bufs: &mut [IoSliceMut<'_>],
        at: u64,
    ) -> io::Result<usize> {
        let want: usize = bufs.iter().map(|buf| buf.len()).sum();
        if bufs.iter().all(|buf| self.fits(buf, at)) && rw::preadv(file.fd(), bufs, at)? == want {
            return Ok(want);
        }
        let mut done = 0;
        for buf in bufs {
            let got = self.read(file, buf, at + done as u64)?;
            done += got;
            if got < buf.len() {
                break;
            }
        }
        Ok(done)
    }

    fn read_aligned(&self, file: &FileStorage, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let got = rw::pread(file.fd(), &mut buf[done..], at + done as u64)?;
            if got == 0 {
                break;
            }
            // An unaligned count means the end of the file, or an interruption: then go on from that block.
            let reached = done + got;
            let block = self.down(reached as u64) as usize;
            if block == reached {
                done = reached;
            } else if at + reached as u64 >= file.raw_len()? {
                return Ok(reached);
            } else if block > done {
                done = block;
            } else {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        Ok(done)
    }

    pub(super) fn write(&self, file: &FileStorage, buf: &[u8], at: u64) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let unit = u64::from(self.align.offset);
        let end = at + buf.len() as u64;
        if at.is_multiple_of(unit) && end.is_multiple_of(unit) {
            let _range = self.ranges.enter(at, end, false);
            let _no_truncate = file.growth.read();
            if self.fits(buf, at) {
                return self.write_aligned(file, buf, at);
            }
            return self.with_bounce(buf.len() as u64, |bounce| {
                let mut at = at;
                for part in buf.chunks(bounce.len()) {
                    bounce[..part.len()].copy_from_slice(part);
                    self.write_aligned(file, &bounce[..part.len()], at)?;
                    at += part.len() as u64;
                }
                Ok(())
            });
        }
        let (first, last) = (self.down(at), self.up(end));
        let _range = self.ranges.enter(first, last, true);
        let shared = file.growth.read();
        if last <= file.raw_len()? {
            return self.write_partial(file, buf, at);
        }
        drop(shared);
        // The padding passes the end: write it exclusively, then truncate it away again.
        let _alone = file.growth.write();
        let len = file.raw_len()?;
        let written = self.write_partial(file, buf, at);
        if last > len && file.kind == super::Kind::Regular {
            let reached = file.raw_len()?;
            falloc::truncate(file.fd(), reached.min(end).max(len))?;
        }
        written
    }

    /// Writes whole blocks around `buf`, reading what it does not cover at both ends.
    fn write_partial(&self, file: &FileStorage, buf: &[u8], at: u64) -> io::Result<()> {
        let unit = self.align.offset as usize;
        let end = at + buf.len() as u64;
        let (first, last) = (self.down(at), self.up(end));
        self.with_bounce(last - first, |bounce| {
            let mut block = first;
            let mut done = 0;
            while block < last {
                let want =
                    usize::try_from(last - block).map_or(bounce.len(), |n| n.min(bounce.len()));
                let chunk = &mut bounce[..want];
                let skip = at.saturating_sub(block) as usize;
                let take = (want - skip).min(buf.len() - done);
                if skip > 0 {
                    self.read_block(file, &mut chunk[..unit], block)?;
                }
                let tail = want - unit;
                if skip + take < want && !(skip > 0 && tail == 0) {
                    self.read_block(file, &mut chunk[tail..], block + tail as u64)?;
                }
                chunk[skip..skip + take].copy_from_slice(&buf[done..done + take]);
                self.write_aligned(file, chunk, block)?;
                done += take;
                block += want as u64;
            }
            Ok(())
        })
    }

    /// Reads one block; bytes past the end of the file are zeroes.
    fn read_block(&self, file: &FileStorage, block: &mut [u8], at: u64) -> io::Result<()> {
        let got = self.read_aligned(file, block, at)?;
        block[got..].fill(0);
        Ok(())
    }

    fn write_aligned(&self, file: &FileStorage, buf: &[u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let n = rw::pwrite(file.fd(), &buf[done..], at + done as u64)?;
            let reached = self.down((done + n) as u64) as usize;
            if reached == done {
                return Err(io::Error::from_raw_os_error(if n == 0 {
                    libc::ENOSPC
                } else {
                    libc::EIO
                }));
            }
            done = reached;
        }
        Ok(())
    }

    pub(super) fn write_vectored(
        &self,
        file: &FileStorage,
        bufs: &[IoSlice<'_>],
        at: u64,
    ) -> io::Result<()> {
        let want: usize = bufs.iter().map(|buf| buf.len()).sum();
        if bufs.iter().all(|buf| self.fits(buf, at)) {
            let _range = self.ranges.enter(at, at + want as u64, false);
            let _no_truncate = file.growth.read();
            if rw::pwritev(file.fd(), bufs, at)? == want {
                return Ok(());
            }
        }
        let mut at = at;
        for buf in bufs {
            self.write(file, buf, at)?;
            at += buf.len() as u64;
        }
        Ok(())
    }
}
