//! The open image of a format that keeps guest bytes in blocks, as far as all such formats are alike.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::BString;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::{
    BackingChange, Below, Bitmaps, Check, FileRole, FlushPlan, Format, FormatFile, FormatInfo,
    FormatWrite, Immediate, IoGuard, Lineage, LongIoGuard, ParentId, ParentRef, ParentSearch,
    Resize,
};
use crate::storage::{Durability, Storage, ZeroFlags};

use super::{Blocks, Entry, Keeper, Layout};

/// What a format adds to the blocks of its images; the value is the state it keeps for an open one.
pub(crate) trait BlockFormat: Send + Sync + Debug + Sized + 'static {
    /// The state it keeps beside the table.
    type Keeper: Keeper;

    /// The driver's name.
    fn driver() -> &'static str;

    /// Writes what must be in the file before the first change to an open image.
    ///
    /// # Errors
    /// If I/O fails; the image is unchanged then.
    fn note_first_change(image: &BlockImage<Self>) -> Result<()>;

    /// See [`Format::has_fixed_places`].
    fn has_fixed_places(_: &BlockImage<Self>) -> bool {
        false
    }

    /// See [`Format::status_span`].
    fn status_span(_: &BlockImage<Self>) -> Option<u64> {
        None
    }

    /// Replaces the handling of whole blocks while parts of them may be the parent's.
    fn parts(_: &BlockImage<Self>) -> Option<&dyn BlockParts> {
        None
    }

    /// See [`Format::info`].
    ///
    /// # Errors
    /// If I/O fails.
    fn info(image: &BlockImage<Self>) -> Result<FormatInfo> {
        Ok(FormatInfo {
            cluster_size: Some(image.blocks.layout().block_size()),
            ..FormatInfo::default()
        })
    }

    /// See [`Lineage::parent`].
    fn parent(_: &BlockImage<Self>) -> Option<ParentRef> {
        None
    }

    /// See [`Lineage::parent_search`].
    fn parent_search() -> Option<&'static ParentSearch> {
        None
    }

    /// See [`Lineage::id`].
    fn parent_id(_: &BlockImage<Self>) -> Option<ParentId> {
        None
    }

    /// Marks the image as closed; everything else has been flushed.
    ///
    /// # Errors
    /// If I/O fails.
    fn close(_: &BlockImage<Self>) -> Result<()> {
        Ok(())
    }

    /// See [`Format::checker`].
    fn checker(_: &BlockImage<Self>) -> Option<&dyn Check> {
        None
    }

    /// See [`FormatWrite::resizer`]; resizing begins with [`BlockImage::note_change`].
    fn resizer(_: &BlockImage<Self>) -> Option<&dyn Resize> {
        None
    }

    /// See [`Format::bitmaps`].
    fn bitmaps(_: &BlockImage<Self>) -> Option<&dyn Bitmaps> {
        None
    }

    /// See [`Format::backing_change`].
    fn backing_change(_: &BlockImage<Self>) -> Option<&dyn BackingChange> {
        None
    }
}

/// Blocks that an image owns in part, by sectors; the other sectors are the parent's.
pub(crate) trait BlockParts {
    /// See [`Format::map`].
    ///
    /// # Errors
    /// If the table or the sector bitmap cannot be read.
    fn map(&self, offset: u64, len: u64) -> Result<Extent>;

    /// See [`Format::map_ahead`]; the table has been dealt with already.
    fn look_ahead(&self, offset: u64, end: u64);

    /// See [`FormatWrite::write`].
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()>;

    /// See [`FormatWrite::write_zeroes`].
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()>;

    /// See [`FormatWrite::discard`].
    ///
    /// # Errors
    /// As [`FormatWrite::write`].
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// See [`FormatWrite::flush`].
    ///
    /// # Errors
    /// As [`FormatWrite::flush`].
    fn flush(&self, durability: Durability) -> Result<()>;
}

/// An open image.
#[derive(Debug)]
pub(crate) struct BlockImage<F: BlockFormat> {
    pub(crate) blocks: Blocks<F::Keeper>,
    pub(crate) own: F,
    /// The file holds what it must before a change.
    is_noted: AtomicBool,
    /// Held while that is written, because first changes may come from several threads.
    noting: Mutex<()>,
}

impl<F: BlockFormat> BlockImage<F> {
    /// `is_noted`: nothing has to be written before the first change.
    pub(crate) fn new(blocks: Blocks<F::Keeper>, own: F, is_noted: bool) -> Self {
        Self {
            blocks,
            own,
            is_noted: AtomicBool::new(is_noted),
            noting: Mutex::new(()),
        }
    }

    /// Whether the file holds what it must before a change.
    pub(crate) fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Acquire)
    }

    /// Called before every change to the image.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`] if the image is not writable, or if I/O fails.
    pub(crate) fn note_change(&self) -> Result<()> {
        self.blocks.check_writable()?;
        if self.is_noted() {
            return Ok(());
        }
        let _noting = self.noting.lock();
        if !self.is_noted() {
            F::note_first_change(self)?;
            self.is_noted.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl<F: BlockFormat> Format for BlockImage<F> {
    fn driver(&self) -> &'static str {
        F::driver()
    }

    fn len(&self) -> u64 {
        self.blocks.len()
    }

    fn cluster_size(&self) -> Option<u32> {
        u32::try_from(self.blocks.layout().block_size()).ok()
    }

    fn layer_unit(&self) -> Option<u32> {
        match F::parts(self) {
            Some(_) => Some(512),
            None => self.cluster_size(),
        }
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let _io = self.blocks.begin_io();
        if !F::has_fixed_places(self) {
            return self.locate(offset, len);
        }
        let (entry, mut len) = self.blocks.run_in_file(offset, len)?;
        // If every block has its place, the host knows best what was never written.
        if let Entry::At(host) = entry {
            let run = self.blocks.storage.extent(host, len)?;
            len = run.len.min(len);
            if run.zero {
                let kind = ExtentKind::Zero {
                    slot: StorageSlot::MAIN,
                    host_offset: Some(host),
                };
                return Ok(Extent { len, kind });
            }
        }
        self.blocks.map(offset, len)
    }

    fn locate(&self, offset: u64, len: u64) -> Result<Extent> {
        match F::parts(self) {
            Some(parts) => parts.map(offset, len),
            None => self.blocks.map(offset, len),
        }
    }

    fn has_fixed_places(&self) -> bool {
        F::has_fixed_places(self)
    }

    fn map_ahead(&self, offset: u64, end: u64) {
        self.blocks.look_ahead(offset, end);
        if let Some(parts) = F::parts(self) {
            parts.look_ahead(offset, end);
        }
    }

    fn status_span(&self) -> Option<u64> {
        F::status_span(self)
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        self.blocks.storage(slot)
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.blocks.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        let text = format!(
            "Nothing is encoded in an image of the format {}",
            F::driver()
        );
        Err(Error::new(ErrorKind::Internal, text))
    }

    fn begin_io(&self) -> IoGuard<'_> {
        self.blocks.begin_io()
    }

    fn info(&self) -> Result<FormatInfo> {
        F::info(self)
    }

    fn close(&self) -> Result<()> {
        let durability = self.blocks.durability();
        match F::parts(self) {
            Some(parts) => parts.flush(durability)?,
            None => self.blocks.close()?,
        }
        F::close(self)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        F::bitmaps(self)
    }

    fn backing_change(&self) -> Option<&dyn BackingChange> {
        F::backing_change(self)
    }

    fn checker(&self) -> Option<&dyn Check> {
        F::checker(self)
    }

    fn lineage(&self) -> Option<&dyn Lineage> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn FormatWrite> {
        Some(self)
    }

    fn immediate(&self) -> Option<&dyn Immediate> {
        Some(self)
    }
}

impl<F: BlockFormat> Lineage for BlockImage<F> {
    fn parent(&self) -> Option<ParentRef> {
        F::parent(self)
    }

    fn parent_search(&self) -> Option<&'static ParentSearch> {
        F::parent_search()
    }

    fn id(&self) -> Option<ParentId> {
        F::parent_id(self)
    }
}

impl<F: BlockFormat> FormatWrite for BlockImage<F> {
    fn prepare(&self) -> Result<()> {
        self.note_change()
    }

    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.note_change()?;
        match F::parts(self) {
            Some(parts) => parts.write(buf, offset, below),
            None => self.blocks.write(buf, offset, below),
        }
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.note_change()?;
        match F::parts(self) {
            Some(parts) => parts.write_zeroes(offset, len, flags, below),
            None => self.blocks.write_zeroes(offset, len, flags, below),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.note_change()?;
        match F::parts(self) {
            Some(parts) => parts.discard(offset, len),
            None => self.blocks.discard(offset, len),
        }
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        match F::parts(self) {
            Some(parts) => parts.flush(durability),
            None => self.blocks.flush(durability),
        }
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        F::resizer(self)
    }
}

impl<F: BlockFormat> Immediate for BlockImage<F> {
    fn try_locate(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        match F::parts(self) {
            // The sector bitmap may have to be read first.
            Some(_) => Ok(None),
            None => Ok(self.blocks.try_map(offset, len)),
        }
    }

    fn try_read_encoded(&self, _buf: &mut [u8], _offset: u64, _may_decode: bool) -> Result<bool> {
        // Nothing is encoded.
        Ok(false)
    }

    fn begin_long_io(&self) -> LongIoGuard {
        self.blocks.begin_long_io()
    }

    fn overwrites_memory(&self, offset: u64, len: u64) -> bool {
        self.in_place_range(offset, len).is_some() && self.blocks.storage.limits().writes_to_memory
    }

    fn in_place_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        match self.is_noted() && F::parts(self).is_none() {
            true => self.blocks.in_place_range(offset, len),
            false => None,
        }
    }

    fn note_in_place_write(&self, _offset: u64, _len: u64) {}

    fn direct_range(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        self.in_place_range(offset, len)
    }

    fn flush_plan(&self, durability: Durability) -> FlushPlan {
        match F::parts(self) {
            Some(_) => FlushPlan::Call,
            None => self.blocks.flush_plan(durability),
        }
    }

    fn note_failed_flush(&self) {
        self.blocks.note_failed_flush();
    }
}
