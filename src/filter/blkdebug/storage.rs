//! The storage of the filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::rules::{Engine, Request, Rules};
use super::shape::Shape;
use crate::error::{Error, Result, ResultExt};
use crate::extent::StorageExtent;
use crate::filter::units::{whole_units, write_zero_bytes};
use crate::memory::filled;
use crate::storage::forward::forward;
use crate::storage::{
    Durability, HostFile, Identity, LockRequest, Permissions, Preallocation, Step, StepWatcher,
    Storage, ZeroFlags,
};

/// A storage that fails by rules.
#[derive(Debug)]
pub(super) struct Debugged {
    inner: Arc<dyn Storage>,
    engine: Engine,
    shape: Shape,
    /// Permissions to take and to deny beside those that are asked for.
    permissions: (Permissions, Permissions),
    /// Held exclusively while a block is read, changed and written.
    changing: RwLock<()>,
    /// Something has changed since the last successful flush; otherwise there is nothing to flush.
    is_changed: AtomicBool,
}

impl Debugged {
    pub(super) fn new(
        inner: Arc<dyn Storage>,
        rules: Rules,
        shape: Shape,
        permissions: (Permissions, Permissions),
    ) -> Self {
        Self {
            inner,
            engine: Engine::new(rules),
            shape,
            permissions,
            changing: RwLock::new(()),
            is_changed: AtomicBool::new(false),
        }
    }

    /// Reads a range that fits the alignment.
    fn read_fitting(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut at = offset;
        for piece in buf.chunks_mut(self.longest()) {
            self.judge(Request::Read, at, piece.len() as u64)?;
            self.inner.read_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// As [`Debugged::read_fitting`], for a write.
    fn write_fitting(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut at = offset;
        for piece in buf.chunks(self.longest()) {
            self.engine.occurs(Step::Pwritev);
            self.change(Request::Write, at, piece.len() as u64)?;
            self.inner.write_at(piece, at)?;
            self.engine.occurs(Step::PwritevDone);
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Fails the request where a rule says so, as if the node below had failed it.
    fn judge(&self, request: Request, offset: u64, len: u64) -> Result<()> {
        let judged = self.engine.check(request, offset, len);
        judged.of_file(self.name())
    }

    /// As [`Debugged::judge`], of a request after which there is something to flush.
    fn change(&self, request: Request, offset: u64, len: u64) -> Result<()> {
        self.judge(request, offset, len)?;
        self.is_changed.store(true, Ordering::Release);
        Ok(())
    }

    fn longest(&self) -> usize {
        match self.shape.max_transfer {
            0 => usize::MAX,
            longest => usize::try_from(longest).unwrap_or(usize::MAX),
        }
    }

    /// Writes a range that begins or ends within a block, which is read first.
    fn write_around(&self, buf: &[u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        let (start, end) = self.shape.around(offset, len)?;
        let room = usize::try_from(end - start).map_err(|_| Error::os(libc::EFBIG))?;
        let _alone = self.changing.write();
        let mut whole = filled(room, 0u8)?;
        let block = usize::try_from(self.shape.align).unwrap_or(usize::MAX);
        let head = start < offset;
        let tail = end > offset + len;
        if head {
            self.engine.occurs(Step::PwritevRmwHead);
            self.read_fitting(&mut whole[..block], start)?;
            self.engine.occurs(Step::PwritevRmwAfterHead);
        }
        if tail && !(head && room == block) {
            self.engine.occurs(Step::PwritevRmwTail);
            self.read_fitting(&mut whole[room - block..], end - self.shape.align)?;
            self.engine.occurs(Step::PwritevRmwAfterTail);
        }
        let from = usize::try_from(offset - start).map_err(|_| Error::os(libc::EFBIG))?;
        whole[from..][..buf.len()].copy_from_slice(buf);
        // What the storage did not have before does not become part of it.
        let there = self.inner.len()?.max(offset + len);
        let kept = usize::try_from(end.min(there) - start).map_err(|_| Error::os(libc::EFBIG))?;
        self.write_fitting(&whole[..kept], start)
    }

    fn fits(&self, offset: u64, len: u64) -> bool {
        (offset | len).is_multiple_of(self.shape.align)
    }
}

/// Calls `step` for pieces of a range, none longer than `longest` (0: any).
fn in_pieces(
    offset: u64,
    len: u64,
    longest: u64,
    mut step: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let longest = if longest == 0 { u64::MAX } else { longest };
    let mut done = 0;
    while done < len {
        let piece = longest.min(len - done);
        step(offset + done, piece)?;
        done += piece;
    }
    Ok(())
}

impl StepWatcher for Debugged {
    fn before(&self, step: Step) {
        self.engine.occurs(step);
    }
}

impl Storage for Debugged {
    forward!(inner: name, read_only, len);

    fn identity(&self) -> Option<Identity> {
        // A read may fail here and succeed elsewhere, so these are not the same bytes.
        None
    }

    fn driver(&self) -> &'static str {
        super::DRIVER.name
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.fits(offset, buf.len() as u64) {
            return self.read_fitting(buf, offset);
        }
        let (start, end) = self.shape.around(offset, buf.len() as u64)?;
        let room = usize::try_from(end - start).map_err(|_| Error::os(libc::EFBIG))?;
        let mut whole = filled(room, 0u8)?;
        self.read_fitting(&mut whole, start)?;
        let from = usize::try_from(offset - start).map_err(|_| Error::os(libc::EFBIG))?;
        buf.copy_from_slice(&whole[from..][..buf.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.is_changed.store(true, Ordering::Release);
        self.inner.set_len(len, preallocation)
    }

    fn try_read(&self, _: &mut [std::io::IoSliceMut<'_>], _: u64) -> Result<bool> {
        // Every read is judged.
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if self.fits(offset, buf.len() as u64) {
            let _beside = self.changing.read();
            return self.write_fitting(buf, offset);
        }
        self.write_around(buf, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        offset
            .checked_add(len)
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        let (unit, longest) = self.shape.zero;
        let (head, middle, tail) = whole_units(offset, len, unit.max(self.shape.align));
        if flags.contains(ZeroFlags::NO_FALLBACK) && head + tail > 0 {
            return Err(Error::unsupported(
                "Zeroing is not supported for such a range",
            ));
        }
        write_zero_bytes(self, offset, head)?;
        in_pieces(offset + head, middle, longest, |at, len| {
            self.engine.occurs(Step::PwritevZero);
            match self.change(Request::WriteZeroes, at, len) {
                Err(error) if error.os_errno() == Some(libc::ENOTSUP) => {
                    // As where the storage has no such request.
                    return match flags.contains(ZeroFlags::NO_FALLBACK) {
                        true => Err(Error::unsupported("Zeroing is not supported")),
                        false => write_zero_bytes(self, at, len),
                    };
                }
                done => done?,
            }
            self.inner.write_zeroes(at, len, flags)?;
            self.engine.occurs(Step::PwritevDone);
            Ok(())
        })?;
        write_zero_bytes(self, offset + head + middle, tail)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        offset
            .checked_add(len)
            .ok_or_else(|| Error::os(libc::EFBIG))?;
        let (unit, longest) = self.shape.discard;
        // What is less than a unit stays.
        let (head, middle, _) = whole_units(offset, len, unit.max(self.shape.align));
        in_pieces(offset + head, middle, longest, |at, len| {
            match self.change(Request::Discard, at, len) {
                Err(error) if error.os_errno() == Some(libc::ENOTSUP) => {
                    return Err(Error::no_discard());
                }
                done => done?,
            }
            self.inner.discard(at, len)
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        self.engine.occurs(Step::FlushToOs);
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return self.inner.sync(durability);
        }
        self.engine.occurs(Step::FlushToDisk);
        let flushed = self
            .judge(Request::Flush, 0, 0)
            .and_then(|()| self.inner.sync(durability));
        flushed.inspect_err(|_| self.is_changed.store(true, Ordering::Release))
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        self.judge(Request::BlockStatus, offset, len)?;
        self.inner.extent(offset, len)
    }

    fn step_watcher(&self) -> Option<&dyn StepWatcher> {
        Some(self)
    }

    fn limits(&self) -> crate::storage::Limits {
        let limits = self.inner.limits();
        crate::storage::Limits {
            writes_to_memory: false,
            ..limits
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        // As with QEMU's, which does not ask its child.
        None
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        let (takes, denies) = self.permissions;
        self.inner.lock(LockRequest {
            uses: request.uses | takes,
            denies: request.denies | denies,
        })
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would bypass the rules.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Values};
    use crate::storage::MemoryStorage;

    fn shaped(memory: &Arc<MemoryStorage>, list: &str, rules: &str) -> Debugged {
        let options = Options::parse(list).unwrap();
        let values = Values::check(&options, super::super::OPEN).unwrap();
        let none = Permissions::empty();
        Debugged::new(
            memory.clone(),
            super::super::config::parse(rules.as_bytes()).unwrap(),
            Shape::new(&values).unwrap(),
            (none, none),
        )
    }

    #[test]
    fn odd_requests_read_and_write_what_they_would_without_the_filter() {
        for list in ["align=512", "align=4k,max-transfer=4k", "max-transfer=7"] {
            let memory = Arc::new(MemoryStorage::with_bytes(
                "m",
                (0..=255).cycle().take(10_000).collect(),
            ));
            let mut expected = memory.to_vec();
            let storage = shaped(&memory, list, "");
            for (offset, len) in [(0, 10), (500, 30), (5000, 4000), (9990, 30), (12_000, 5)] {
                let bytes = vec![0xee; len];
                storage.write_at(&bytes, offset as u64).unwrap();
                if expected.len() < offset + len {
                    expected.resize(offset + len, 0);
                }
                expected[offset..][..len].copy_from_slice(&bytes);
                assert_eq!(memory.to_vec(), expected, "{list} {offset}");
                let mut back = vec![0; len + 20];
                storage.read_at(&mut back, offset as u64 + 3).unwrap();
                let mut there = expected[offset + 3..].to_vec();
                there.resize(len + 20, 0);
                assert_eq!(back, there, "{list} {offset}");
            }
            storage.write_zeroes(100, 5000, ZeroFlags::empty()).unwrap();
            expected[100..5100].fill(0);
            assert_eq!(memory.to_vec(), expected, "{list}");
        }
    }

    #[test]
    fn zeroing_less_than_a_unit_is_a_write() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", vec![1; 4096]));
        let rules = "[inject-error]\nevent = \"none\"\niotype = \"write-zeroes\"\n";
        let storage = shaped(&memory, "opt-write-zero=1k", rules);
        storage.write_zeroes(100, 500, ZeroFlags::empty()).unwrap();
        assert!(
            storage
                .write_zeroes(100, 500, ZeroFlags::NO_FALLBACK)
                .is_err()
        );
        let error = storage
            .write_zeroes(100, 3000, ZeroFlags::empty())
            .unwrap_err();
        assert_eq!(error.os_errno(), Some(libc::EIO));
        let bytes = memory.to_vec();
        assert!(bytes[100..1024].iter().all(|b| *b == 0) && bytes[1024] == 1);
    }
}
