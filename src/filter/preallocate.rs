//! `preallocate`: where a write passes the end of the file, the file grows by more than that at once, and is cut
//! back to what was written in the end.

use std::io::IoSliceMut;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::filter::{FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::Ending;
use crate::storage::forward::forward;
use crate::storage::{HostFile, Preallocation, Storage, ZeroFlags};

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "preallocate",
    children: &[ChildSpec::FILE],
    shows: Some(ChildSpec::FILE.name),
    contents: None,
    holds_file: false,
    // They would grow the file by themselves.
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: &[
        OptionSpec {
            name: ALIGN,
            kind: OptionKind::Size,
            help: "the file ends at a multiple of this when it grows",
            default: Some("1M"),
            allowed: &[],
        },
        OptionSpec {
            name: SIZE,
            kind: OptionKind::Size,
            help: "how much the file grows beyond the end of a write",
            default: Some("128M"),
            allowed: &[],
        },
    ],
    weak_options: &[ALIGN, SIZE],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

const ALIGN: &str = "prealloc-align";
const SIZE: &str = "prealloc-size";
const SECTOR: u64 = 512;

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let size = |name, default| context.options.num(name).unwrap_or(default);
    let align = size(ALIGN, 1 << 20);
    if !align.is_multiple_of(SECTOR) {
        return Err(Error::invalid(format!(
            "{ALIGN} parameter of preallocate filter is not aligned to {SECTOR}"
        )));
    }
    let size = size(SIZE, 128 << 20);
    let writable = context.writable;
    let inner = context.take(ChildSpec::FILE.name)?.storage;
    let len = inner.len()?;
    Ok(Arc::new(Preallocated {
        grows: writable && !inner.limits().fixed_len,
        ends: RwLock::new(Ends {
            data: len,
            file: len,
            is_full: false,
        }),
        cutting: RwLock::default(),
        align: align.max(1),
        size,
        inner,
    }))
}

#[derive(Debug)]
struct Preallocated {
    inner: Arc<dyn Storage>,
    align: u64,
    size: u64,
    /// Whether the file may grow at all.
    grows: bool,
    ends: RwLock<Ends>,
    /// Held exclusively while the file gets shorter, which must not cut off bytes that are being written.
    cutting: RwLock<()>,
}

#[derive(Debug)]
struct Ends {
    /// Where what was written ends: the length that is shown.
    data: u64,
    /// Where the file ends. Between the two it reads as zeroes.
    file: u64,
    /// The host had no space for more than is written.
    is_full: bool,
}

impl Preallocated {
    /// Lets the file reach beyond `end`, where a write is about to end.
    fn reserve(&self, end: u64) -> Result<()> {
        {
            let ends = self.ends.read();
            if !self.grows || ends.is_full || end <= ends.file {
                return Ok(());
            }
        }
        let ends = &mut *self.ends.write();
        if ends.is_full || end <= ends.file {
            return Ok(());
        }
        let target = end.checked_add(self.size);
        let target = target.and_then(|target| target.checked_next_multiple_of(self.align));
        let Some(target) = target.filter(|target| i64::try_from(*target).is_ok()) else {
            return Ok(());
        };
        if self.inner.set_len(target, Preallocation::Falloc).is_ok() {
            ends.file = target;
            return Ok(());
        }
        // If the write cannot do without the space, it reports what is wrong.
        ends.is_full = true;
        ends.file = ends.file.max(self.inner.len()?);
        Ok(())
    }

    /// What was written ends at `end` at least.
    fn written(&self, end: u64) {
        if end <= self.ends.read().data {
            return;
        }
        let ends = &mut *self.ends.write();
        ends.data = ends.data.max(end);
        ends.file = ends.file.max(end);
    }

    /// Cuts the file back to what was written.
    fn give_back(&self) -> Result<()> {
        let _alone = self.cutting.write();
        let ends = &mut *self.ends.write();
        match ends.file > ends.data {
            true => cut(&*self.inner, ends),
            false => Ok(()),
        }
    }
}

fn cut(inner: &dyn Storage, ends: &mut Ends) -> Result<()> {
    if inner.len()? > ends.data {
        inner.set_len(ends.data, Preallocation::Off)?;
    }
    ends.file = ends.data;
    Ok(())
}

fn end_of(offset: u64, len: u64) -> Result<u64> {
    let end = offset.checked_add(len);
    end.ok_or_else(|| Error::os(libc::EFBIG))
}

impl Drop for Preallocated {
    fn drop(&mut self) {
        // A caller that ends the use in order learns of a failure from `finish`.
        let _ = self.give_back();
    }
}

impl Storage for Preallocated {
    forward!(inner: name, identity, read_only, sync, limits, allocated_size, lock);

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<()> {
        self.inner.read_vectored_at(bufs, offset)
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        self.inner.try_read(bufs, offset)
    }

    fn len(&self) -> Result<u64> {
        match self.grows {
            true => Ok(self.ends.read().data),
            false => self.inner.len(),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = end_of(offset, buf.len() as u64)?;
        let _uncut = self.cutting.read();
        self.reserve(end)?;
        self.inner.write_at(buf, offset)?;
        self.written(end);
        Ok(())
    }

    fn write_vectored_at(&self, bufs: &[std::io::IoSlice<'_>], offset: u64) -> Result<()> {
        let end = end_of(offset, bufs.iter().map(|buf| buf.len() as u64).sum())?;
        let _uncut = self.cutting.read();
        self.reserve(end)?;
        self.inner.write_vectored_at(bufs, offset)?;
        self.written(end);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let end = end_of(offset, len)?;
        let _uncut = self.cutting.read();
        self.reserve(end)?;
        self.inner.write_zeroes(offset, len, flags)?;
        self.written(end);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.discard(offset, len)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        let _alone = self.cutting.write();
        let ends = &mut *self.ends.write();
        if self.grows && len > ends.data && len <= ends.file && preallocation == Preallocation::Off
        {
            ends.data = len;
            return Ok(());
        }
        if ends.file > ends.data {
            // What is to be filled is what the caller sees.
            cut(&*self.inner, ends)?;
        }
        self.inner.set_len(len, preallocation)?;
        (ends.data, ends.file) = (len, len);
        Ok(())
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        self.inner.extent(offset, len)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        // Calls on the descriptor would not see where the file ends.
        None
    }

    fn ending(&self) -> Option<&dyn Ending> {
        Some(self)
    }
}

impl Ending for Preallocated {
    fn finish(&self) -> Result<()> {
        self.give_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn over(memory: &Arc<MemoryStorage>, align: u64, size: u64) -> Preallocated {
        let len = memory.len().unwrap();
        Preallocated {
            inner: memory.clone(),
            align,
            size,
            grows: true,
            ends: RwLock::new(Ends {
                data: len,
                file: len,
                is_full: false,
            }),
            cutting: RwLock::default(),
        }
    }

    #[test]
    fn the_file_grows_ahead_of_writes_and_is_cut_back() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", vec![7; 1000]));
        let storage = over(&memory, 512, 2000);
        storage.write_at(&[1; 10], 500).unwrap();
        assert_eq!(memory.len().unwrap(), 1000);
        storage.write_at(&[2; 10], 1500).unwrap();
        assert_eq!(memory.len().unwrap(), 3584);
        assert_eq!(storage.len().unwrap(), 1510);
        storage.write_zeroes(2000, 100, ZeroFlags::empty()).unwrap();
        assert_eq!(memory.len().unwrap(), 3584);
        assert_eq!(storage.len().unwrap(), 2100);
        storage.set_len(3000, Preallocation::Off).unwrap();
        assert_eq!(storage.len().unwrap(), 3000);
        let mut bytes = [9; 1500];
        storage.read_at(&mut bytes, 1500).unwrap();
        assert!(bytes[..10] == [2; 10] && bytes[10..].iter().all(|b| *b == 0));
        storage.finish().unwrap();
        assert_eq!(memory.len().unwrap(), 3000);
        storage.write_at(&[3; 10], 3000).unwrap();
        assert_eq!(memory.len().unwrap(), 5120);
        drop(storage);
        assert_eq!(memory.len().unwrap(), 3010);
    }

    #[test]
    fn a_change_of_the_length_is_exact() {
        let memory = Arc::new(MemoryStorage::with_bytes("m", Vec::new()));
        let storage = over(&memory, 4096, 4096);
        storage.write_at(&[1; 100], 0).unwrap();
        storage.set_len(50, Preallocation::Off).unwrap();
        assert_eq!(memory.len().unwrap(), 50);
        storage.set_len(9000, Preallocation::Full).unwrap();
        assert_eq!(memory.len().unwrap(), 9000);
        assert!(memory.to_vec()[50..].iter().all(|b| *b == 0));
        storage.write_at(&[1; 100], u64::MAX - 10).unwrap_err();
        assert_eq!(storage.len().unwrap(), 9000);
    }
}
