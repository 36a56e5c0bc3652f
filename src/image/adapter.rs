//! An image that serves as the storage of another one: qcow2 inside raw with an offset, or any format inside another.

use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BStr;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::extent::{ExtentKind, StorageExtent};
use crate::filter::ChildImage;
use crate::format::Bitmaps;
use crate::image::{Image, ReadsAs, TryRead};
use crate::job::JobControl;
use crate::size::round_up_sector;
use crate::storage::{
    Compress, Durability, HostFile, Identity, Limits, LockRequest, Preallocation, ReadRange,
    Storage, ZeroFlags,
};

/// The guest bytes of an image, or of a pointer to one, as a storage.
#[derive(Debug)]
pub struct ImageStorage<I = Arc<Image>> {
    image: I,
    /// New space up to this offset reads as zeroes.
    ready: AtomicU64,
    /// Held while the length is compared and then set: the start of new space that may not read as zeroes yet.
    growth: Mutex<Option<u64>>,
}

impl ImageStorage {
    /// Wraps an open image, whose locks are left unchanged.
    pub fn new(image: impl Into<Arc<Image>>) -> Self {
        Self::over(image.into())
    }
}

impl<I: Deref<Target = Image>> ImageStorage<I> {
    /// Wraps a pointer to an open image, whose locks are left unchanged.
    pub fn over(image: I) -> Self {
        Self {
            ready: AtomicU64::new(image.len()),
            image,
            growth: Mutex::default(),
        }
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The length of the part of a range that lies within the image.
    fn inside(&self, offset: u64, len: usize) -> usize {
        let left = self.image.len().saturating_sub(offset);
        usize::try_from(left).map_or(len, |left| left.min(len))
    }

    /// Extends the image for a write past its end, as a storage does.
    fn grow(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        let ready = self.ready.load(Ordering::Acquire);
        if len == 0 || end <= ready.min(self.image.len()) {
            return Ok(());
        }
        let mut growth = self.growth.lock();
        match end <= self.image.len() {
            true => self.finish(&mut growth),
            false => self.set_image_len(end, Preallocation::Off, &mut growth),
        }
    }

    /// Sets the length. Disks have whole sectors, files any length: a length between two sectors is rounded up, and the
    /// rest of the last sector is zeroed.
    fn set_image_len(
        &self,
        len: u64,
        preallocation: Preallocation,
        growth: &mut Option<u64>,
    ) -> Result<()> {
        let control = JobControl::default();
        let whole = match self.image.driver().is_transparent {
            true => len,
            false => round_up_sector(len).unwrap_or(len),
        };
        let old = self.image.len();
        if whole == old && preallocation == Preallocation::Off {
            // Nothing changes, and no image is marked as changed: this is how refused growth is concluded.
            return self.finish(growth);
        }
        // New space must be waited for again.
        self.ready.fetch_min(whole, Ordering::AcqRel);
        self.image.set_size(whole, preallocation, &control)?;
        if whole > old {
            growth.get_or_insert(old);
            return self.finish(growth);
        }
        if whole > len {
            let rest = whole - len;
            return self.image.write_zeroes(len, rest, ZeroFlags::empty());
        }
        Ok(())
    }

    /// Makes new space read as zeroes. Threads that write there wait for this.
    fn finish(&self, growth: &mut Option<u64>) -> Result<()> {
        if let Some(start) = *growth {
            let control = JobControl::of_this_thread().unwrap_or_default();
            self.image.zero_grown(start, &control)?;
        }
        *growth = None;
        self.ready.store(self.image.len(), Ordering::Release);
        Ok(())
    }
}

impl ChildImage for ImageStorage {
    fn is_held(&self, offset: u64, len: u64) -> Result<(bool, u64)> {
        let extent = self.image.format().map(offset, len)?;
        let held = !matches!(extent.kind, ExtentKind::Unallocated { .. });
        Ok((held, extent.len))
    }

    fn holder(&self, offset: u64, len: u64) -> Result<(Option<u32>, u64)> {
        let found = self.image.map(offset, len)?;
        let held = !matches!(found.extent.kind, ExtentKind::Unallocated { .. });
        Ok((held.then_some(found.depth), found.extent.len))
    }

    fn depth_of(&self, node_name: &str) -> Option<u32> {
        let mut layers = self.image.layers();
        let at = layers.position(|layer| {
            let name = layer.node_name.as_ref().map(|name| name.as_str());
            name == Some(node_name)
        });
        at.and_then(|at| u32::try_from(at).ok())
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        self.image.bitmaps()
    }

    fn layer_unit(&self) -> u32 {
        self.image.format().layer_unit().unwrap_or(1)
    }
}

impl<I: Deref<Target = Image> + Debug + Send + Sync> Storage for ImageStorage<I> {
    fn name(&self) -> &BStr {
        self.image.filename()
    }

    fn driver(&self) -> &'static str {
        self.image.driver().name
    }

    fn identity(&self) -> Option<Identity> {
        // Its guest bytes differ from those of the files that it is stored in.
        None
    }

    fn read_only(&self) -> bool {
        !self.image.writable()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (held, beyond) = buf.split_at_mut(self.inside(offset, buf.len()));
        beyond.fill(0);
        if held.is_empty() {
            return Ok(());
        }
        self.image.read_at(held, offset)
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        let mut held: Vec<ReadRange<'_>> = Vec::with_capacity(ranges.len());
        for (offset, buf) in ranges {
            let (inside, beyond) = buf.split_at_mut(self.inside(*offset, buf.len()));
            beyond.fill(0);
            if !inside.is_empty() {
                held.push((*offset, inside));
            }
        }
        self.image.read_many_at(&mut held)
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.inside(offset, total) < total {
            return Ok(false);
        }
        Ok(matches!(
            self.image.try_read(bufs, offset, 0)?,
            TryRead::Done
        ))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.grow(offset, buf.len() as u64)?;
        self.image.write_at(buf, offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        let total = bufs.iter().map(|buf| buf.len() as u64).sum();
        self.grow(offset, total)?;
        self.image.write_vectored_at(bufs, offset)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.image.len())
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        let mut growth = self.growth.lock();
        self.set_image_len(len, preallocation, &mut growth)
    }

    fn check_shrink(&self, len: u64) -> Result<()> {
        let shrinks = len < self.image.len();
        match shrinks && !self.image.resizer()?.can_shrink() {
            true => Err(Error::no_shrink()),
            false => Ok(()),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.grow(offset, len)?;
        self.image.write_zeroes(offset, len, flags)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let left = self.image.len().saturating_sub(offset);
        self.image
            .discard(offset.min(self.image.len()), len.min(left))
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if self.read_only() {
            return Ok(());
        }
        self.image.flush_beside_changes(durability)
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let left = self.image.len().saturating_sub(offset);
        if left == 0 {
            return Ok(StorageExtent {
                len,
                zero: true,
                allocated: false,
            });
        }
        let run = self.image.map(offset, len.min(left))?;
        let zero = run.reads_as() == ReadsAs::Zero;
        let allocated = match run.extent.kind {
            ExtentKind::Zero { host_offset, .. } => host_offset.is_some(),
            _ => !zero,
        };
        Ok(StorageExtent {
            len: run.extent.len,
            zero,
            allocated,
        })
    }

    fn compressor(&self) -> Option<&dyn Compress> {
        self.image.compressor()
    }

    fn limits(&self) -> Limits {
        Limits {
            grown_is_zero: true,
            in_flight: self.image.requests_in_flight(),
            remembers_extents: self.image.layers().any(Image::remembers_extents),
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        self.image.actual_size()
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The image locked its own file when it was opened.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}
