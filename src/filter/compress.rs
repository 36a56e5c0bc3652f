//! `compress`: whatever is written to the image below is compressed.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::filter::{FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::memory::IoBuf;
use crate::storage::forward::forward;
use crate::storage::{Compress, HostFile, Storage, ZeroFlags};

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "compress",
    children: &[ChildSpec::FILE],
    shows: Some(ChildSpec::FILE.name),
    contents: None,
    holds_file: false,
    passes_compressed: false,
    keeps_writers_out: false,
    open_options: &[],
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

/// The most units that are written at once; two whose numbers collide wait for each other.
const LOCKS: usize = 64;

#[derive(Debug)]
struct CompressWrites {
    file: Arc<dyn Storage>,
    unit: u64,
    /// Serializes the writes to a unit: a write of a part reads, patches and writes all of it.
    units: [Mutex<()>; LOCKS],
}

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    let file = context.take(ChildSpec::FILE.name)?;
    if !file.may_compress {
        return Err(Error::unsupported(format!(
            "Compression is not supported for underlying format: {}",
            file.storage.driver()
        )));
    }
    let compressor = file.storage.compressor();
    let unit = compressor.map_or(1, Compress::encode_unit);
    Ok(Arc::new(CompressWrites {
        unit: u64::from(unit.max(1)),
        file: file.storage,
        units: std::array::from_fn(|_| Mutex::new(())),
    }))
}

impl CompressWrites {
    fn compressor(&self) -> Result<&dyn Compress> {
        self.file.compressor().ok_or_else(|| {
            Error::unsupported(format!(
                "'{}': this image cannot hold compressed clusters",
                self.file.name()
            ))
        })
    }

    /// Serializes the writes to the unit at `offset`.
    fn alone(&self, offset: u64) -> parking_lot::MutexGuard<'_, ()> {
        self.units[(offset / self.unit % LOCKS as u64) as usize].lock()
    }
}

impl Storage for CompressWrites {
    forward!(
        file: name, identity, read_only, read_at, read_vectored_at, try_read, len, set_len, sync, extent,
        limits, allocated_size, lock
    );

    fn compressor(&self) -> Option<&dyn Compress> {
        // Each write is compressed anyway, and no image has units that are compressed twice.
        None
    }

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let compressor = self.compressor()?;
        let len = self.file.len()?;
        if offset.saturating_add(buf.len() as u64) > len {
            return Err(Error::os(libc::ENOSPC));
        }
        let (mut rest, mut at) = (buf, offset);
        let mut bounce = IoBuf::new();
        while !rest.is_empty() {
            let start = at - at % self.unit;
            let whole = self.unit.min(len - start) as usize;
            let skip = (at - start) as usize;
            let (part, further) = rest.split_at(rest.len().min(whole - skip));
            let _alone = self.alone(start);
            if part.len() == whole {
                compressor.write_compressed(part, start)?;
            } else {
                let unit = bounce.room(whole)?;
                self.file.read_at(unit, start)?;
                unit[skip..skip + part.len()].copy_from_slice(part);
                compressor.write_compressed(unit, start)?;
            }
            at += part.len() as u64;
            rest = further;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        // An image that takes no data is left unchanged.
        self.compressor()?;
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            // The parts of units at the ends, and all whole ones between them.
            let next = (at - at % self.unit).saturating_add(self.unit);
            let (_alone, to) = match at.is_multiple_of(self.unit) {
                true if end - at >= self.unit => (None, end - end % self.unit),
                _ => (Some(self.alone(at)), next.min(end)),
            };
            self.file.write_zeroes(at, to - at, flags)?;
            at = to;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.file.discard(offset, len)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
