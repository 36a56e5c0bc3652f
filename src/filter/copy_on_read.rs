//! `copy-on-read`: what a read finds below the image that it stands on is kept in that image.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::filter::{ChildImage, FilterContext, FilterDriver};
use crate::format::ChildSpec;
use crate::memory::IoBuf;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::forward::forward;
use crate::storage::{Compress, HostFile, Storage, ZeroFlags};
use crate::zero::is_zero;

/// The line of the registry.
pub static DRIVER: FilterDriver = FilterDriver {
    name: "copy-on-read",
    children: &[ChildSpec::FILE],
    shows: Some(ChildSpec::FILE.name),
    contents: None,
    holds_file: false,
    passes_compressed: true,
    keeps_writers_out: false,
    open_options: &[OptionSpec {
        name: "bottom",
        kind: OptionKind::Str,
        help: "node name of the last layer that is copied from",
        default: None,
        allowed: &[],
    }],
    weak_options: &[],
    events: &[],
    open,
    file_names: None,
    file_name: None,
};

/// The most bytes that one copy holds in memory.
const STEP: u64 = 1 << 20;

#[derive(Debug)]
struct CopyOnRead {
    file: Arc<dyn Storage>,
    /// None where the child is no image: nothing is below it.
    image: Option<Arc<dyn ChildImage>>,
    /// The depth of the last layer that is copied from.
    bottom: Option<u32>,
    /// Held so that no copy runs beside a write, which it would undo.
    copying: RwLock<()>,
}

fn open(mut context: FilterContext<'_>) -> Result<Arc<dyn Storage>> {
    context.require_writable()?;
    let file = context.take(ChildSpec::FILE.name)?;
    let bottom = context.options.str("bottom").map(|name| {
        let depth = file.image.as_ref().and_then(|image| image.depth_of(name));
        depth.ok_or_else(|| Error::invalid(format!("Bottom node '{name}' not found")))
    });
    Ok(Arc::new(CopyOnRead {
        file: file.storage,
        image: file.image,
        bottom: bottom.transpose()?,
        copying: RwLock::default(),
    }))
}

impl CopyOnRead {
    /// Copies those parts of a range that come from a layer to copy from.
    fn copy_from_layers(&self, image: &dyn ChildImage, offset: u64, len: u64) -> Result<()> {
        let Some(bottom) = self.bottom else {
            return self.copy(image, offset, len);
        };
        let end = offset.saturating_add(len).min(self.file.len()?);
        let mut at = offset;
        while at < end {
            let (depth, run) = image.holder(at, end - at)?;
            if depth.is_some_and(|depth| depth <= bottom) {
                self.copy(image, at, run)?;
            }
            at = at.saturating_add(run);
        }
        Ok(())
    }

    /// Copies up into the image those parts of a range that it does not hold.
    fn copy(&self, image: &dyn ChildImage, offset: u64, len: u64) -> Result<()> {
        let unit = u64::from(image.layer_unit().max(1));
        let end = offset.saturating_add(len);
        let end = end.checked_next_multiple_of(unit).unwrap_or(end);
        let end = end.min(self.file.len()?);
        let mut at = offset - offset % unit;
        let mut bounce = IoBuf::new();
        while at < end {
            let (held, run) = image.is_held(at, end - at)?;
            if held {
                at = at.saturating_add(run);
                continue;
            }
            let _alone = self.copying.write();
            // A write may have come first.
            let (held, run) = image.is_held(at, end - at)?;
            let run = run.min(STEP.max(unit));
            if !held {
                let bytes = bounce.room(run as usize)?;
                self.file.read_at(bytes, at)?;
                match is_zero(bytes) {
                    true => self.file.write_zeroes(at, run, ZeroFlags::empty())?,
                    false => self.file.write_at(bytes, at)?,
                }
            }
            at = at.saturating_add(run);
        }
        Ok(())
    }
}

impl Storage for CopyOnRead {
    forward!(file: name, identity, read_only, len, sync, extent, limits, allocated_size, lock);

    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if let Some(image) = &self.image {
            self.copy_from_layers(&**image, offset, buf.len() as u64)?;
        }
        self.file.read_at(buf, offset)
    }

    fn try_read(&self, _: &mut [std::io::IoSliceMut<'_>], _: u64) -> Result<bool> {
        Ok(false)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _no_copy = self.copying.read();
        self.file.write_at(buf, offset)
    }

    fn write_vectored_at(&self, bufs: &[std::io::IoSlice<'_>], offset: u64) -> Result<()> {
        let _no_copy = self.copying.read();
        self.file.write_vectored_at(bufs, offset)
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let _no_copy = self.copying.read();
        self.file.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let _no_copy = self.copying.read();
        self.file.discard(offset, len)
    }

    fn set_len(&self, len: u64, preallocation: crate::storage::Preallocation) -> Result<()> {
        let _no_copy = self.copying.read();
        self.file.set_len(len, preallocation)
    }

    fn compressor(&self) -> Option<&dyn Compress> {
        self.file.compressor().map(|_| self as _)
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

/// Compressed writes exclude copies as all others do.
impl Compress for CopyOnRead {
    fn encode_unit(&self) -> u32 {
        self.file.compressor().map_or(1, Compress::encode_unit)
    }

    fn is_required(&self) -> bool {
        let compressor = self.file.compressor();
        compressor.is_some_and(Compress::is_required)
    }

    fn is_ordered(&self) -> bool {
        let compressor = self.file.compressor();
        compressor.is_some_and(Compress::is_ordered)
    }

    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        let compressor = self.file.compressor();
        let compressor = compressor.ok_or_else(Error::no_compression)?;
        let _no_copy = self.copying.read();
        compressor.write_compressed(buf, offset)
    }
}
