//! What differs in a differencing disk: each sector of a block is its own or the parent's.
//!
//! The order on disk: data, a barrier, the bitmaps, a barrier, the entries of the table.

use bstr::{BStr, ByteSlice};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::blocks::{BlockParts, Entry, Layout};
use crate::format::{BackingChange, BackingRef, Below, Format, FormatWrite, NewParent, ParentId};
use crate::job::JobControl;
use crate::memory;
use crate::storage::{Durability, ZeroFlags, first_sector};

use super::disk::{DiskType, seconds};
use super::dynamic::{Differencing, Dynamic};
use super::parent;
use super::records::{ALL_SECTORS, write_bitmap};
use super::sectors::{Bits, Changed};

const SECTOR: u64 = 512;
/// Maximum number of runs of blocks to examine for one batch of bitmaps.
const LOOKS: usize = 1 << 12;

/// A part of one block.
#[derive(Clone, Copy, Debug)]
struct Part {
    index: u64,
    /// Where it begins and ends within the block.
    start: u64,
    end: u64,
}

impl Dynamic {
    /// The first part of a range, which lies within one block.
    fn part(&self, offset: u64, len: u64) -> Part {
        let block = self.blocks.layout().block_size();
        let start = offset % block;
        Part {
            index: offset / block,
            start,
            end: (start + len).min(block),
        }
    }

    /// The bitmap of a block whose data is at `host`.
    fn bits(&self, own: &Differencing, index: u64, host: u64) -> Result<std::sync::Arc<Bits>> {
        let lead = self.blocks.layout().lead();
        own.sectors
            .get(&*self.blocks.storage, index, host - lead, lead)
    }

    /// The blocks in the file that hold guest bytes of a range, with the offsets of their bitmaps, as far as the table
    /// is in memory.
    fn bitmaps_of(&self, offset: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let layout = self.blocks.layout();
        let block = layout.block_size();
        let mut next = offset - offset % block;
        let blocks = std::iter::from_fn(move || {
            let at = next;
            let left = end.checked_sub(at).filter(|left| *left > 0)?;
            let (entry, run) = self.blocks.try_run(at, left)?;
            let Entry::At(host) = entry else {
                next = at.saturating_add(run);
                return Some(None);
            };
            next = at.saturating_add(block);
            Some(
                host.checked_sub(layout.lead())
                    .map(|bitmap| (at / block, bitmap)),
            )
        });
        blocks.take(LOOKS).flatten()
    }

    fn map_sectors(&self, own: &Differencing, offset: u64, len: u64) -> Result<Extent> {
        let _io = self.blocks.begin_io();
        let (entry, run) = self.blocks.run_in_file(offset, len)?;
        let Entry::At(host) = entry else {
            return self.blocks.map(offset, run);
        };
        let part = self.part(offset, run);
        let bits = self.bits(own, part.index, host - part.start)?;
        let first = part.start / SECTOR;
        let alike = bits.run(first..part.end.div_ceil(SECTOR));
        let end = part.end.min((first + alike) * SECTOR);
        let kind = match bits.has(first) {
            true => ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset: host,
            },
            false => ExtentKind::Unallocated { host_offset: None },
        };
        Ok(Extent {
            len: end - part.start,
            kind,
        })
    }

    fn write_part(
        &self,
        own: &Differencing,
        data: &[u8],
        part: Part,
        below: &dyn Below,
    ) -> Result<()> {
        let blocks = &self.blocks;
        let block = blocks.layout().block_size();
        let _mine = blocks.reserve(part.index..part.index + 1);
        let _io = blocks.begin_io();
        let guest = part.index * block;
        blocks.check_range(guest + part.start, part.end - part.start)?;
        let host = self.own_block(own, part.index)?;
        let bits = self.bits(own, part.index, host)?;
        let sectors = part.start / SECTOR..part.end.div_ceil(SECTOR);
        // The missing rest of a sector that is the parent's is written as well.
        let start = match bits.has(sectors.start) {
            true => part.start,
            false => sectors.start * SECTOR,
        };
        let end = match bits.has(sectors.end - 1) {
            true => part.end,
            false => sectors.end * SECTOR,
        };
        if (start, end) == (part.start, part.end) {
            blocks.storage.write_at(data, host + start)?;
        } else {
            let mut bytes = memory::zeroed((end - start) as usize)?;
            let (head, rest) = bytes.split_at_mut((part.start - start) as usize);
            let (middle, tail) = rest.split_at_mut(data.len());
            below.read_below(head, guest + start)?;
            middle.copy_from_slice(data);
            below.read_below(tail, guest + part.end)?;
            blocks.storage.write_at(&bytes, host + start)?;
        }
        own.sectors.set(part.index, &bits, sectors)
    }

    /// Where the data of a block is; a block that the disk lacks is allocated, without any sector. The caller has
    /// reserved the block.
    fn own_block(&self, own: &Differencing, index: u64) -> Result<u64> {
        let layout = self.blocks.layout();
        let (entry, _) = self.blocks.run(index * layout.block_size(), 1)?;
        if let Entry::At(host) = entry {
            // The bitmap will be written too.
            let len = layout.lead() + layout.block_size();
            self.blocks.check_place(host - layout.lead(), len)?;
            return Ok(host);
        }
        own.sectors.begin(index, layout.lead())?;
        self.blocks.new_block(index)
    }

    fn zero_sectors(
        &self,
        own: &Differencing,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let part = self.part(at, end - at);
            let done = self.zero_part(own, part, flags, below)?;
            at += done;
        }
        Ok(())
    }

    /// Zeroes the beginning of a part; returns how much was zeroed.
    fn zero_part(
        &self,
        own: &Differencing,
        part: Part,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<u64> {
        let blocks = &self.blocks;
        let guest = part.index * blocks.layout().block_size();
        let len = part.end - part.start;
        let (entry, _) = blocks.run(guest + part.start, 1)?;
        if entry == Entry::Free && below.is_zero_below(guest + part.start, len)? {
            return Ok(len);
        }
        let whole_end = part.end / SECTOR * SECTOR;
        if !part.start.is_multiple_of(SECTOR) || whole_end <= part.start {
            let end = part.end.min(part.start.next_multiple_of(SECTOR));
            let end = if end == part.start { part.end } else { end };
            let edge = Part { end, ..part };
            let zeroes = [0; SECTOR as usize];
            let zeroes = zeroes.get(..(end - part.start) as usize).unwrap_or(&zeroes);
            self.write_part(own, zeroes, edge, below)?;
            return Ok(end - part.start);
        }
        let _mine = blocks.reserve(part.index..part.index + 1);
        let _io = blocks.begin_io();
        blocks.check_range(guest + part.start, len)?;
        let host = self.own_block(own, part.index)?;
        let bits = self.bits(own, part.index, host)?;
        let len = whole_end - part.start;
        blocks.storage.write_zeroes(host + part.start, len, flags)?;
        let sectors = part.start / SECTOR..whole_end / SECTOR;
        own.sectors.set(part.index, &bits, sectors)?;
        Ok(len)
    }

    /// Writes the changed bitmaps, then the table.
    fn flush_sectors(&self, own: &Differencing, durability: Durability) -> Result<()> {
        if self.blocks.check_writable().is_ok() {
            let _one = own.pass.lock();
            let taken = own.sectors.take()?;
            if let Err(error) = self.write_bitmaps(&taken) {
                own.sectors.put_back(taken);
                return Err(error);
            }
        }
        self.blocks.flush(durability)
    }

    fn write_bitmaps(&self, taken: &[Changed]) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        self.blocks.barrier()?;
        let layout = self.blocks.layout();
        for (index, _, bytes) in taken {
            let (entry, _) = self.blocks.run(index * layout.block_size(), 1)?;
            if let Entry::At(host) = entry {
                self.blocks.storage.write_at(bytes, host - layout.lead())?;
            }
        }
        Ok(())
    }

    /// Marks all sectors of every block as the disk's own, as in a dynamic disk.
    fn own_all_sectors(&self) -> Result<()> {
        let layout = self.blocks.layout();
        self.each_block(|_, host| {
            let fill = (layout.lead(), ALL_SECTORS);
            write_bitmap(&*self.blocks.storage, fill, host)
        })
    }

    /// Zeroes the sectors that are the parent's in the file, where nothing reads them yet.
    fn empty_sectors_of_parent(&self, own: &Differencing) -> Result<()> {
        let block = self.blocks.layout().block_size();
        self.each_block(|index, host| {
            let bits = self.bits(own, index, host)?;
            let mut at = 0;
            while at < block / SECTOR {
                let run = bits.run(at..block / SECTOR);
                if !bits.has(at) {
                    self.blocks.storage.write_zeroes(
                        host + at * SECTOR,
                        run * SECTOR,
                        ZeroFlags::MAY_UNMAP,
                    )?;
                }
                at += run;
            }
            Ok(())
        })
    }

    /// Visits the blocks in the file with their index and the offset of their data; refuses those outside the data.
    fn each_block(&self, mut visit: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let layout = self.blocks.layout();
        let file_len = self.blocks.storage.len()?;
        self.blocks.each(|index, word| {
            let Entry::At(host) = layout.entry(word) else {
                return Ok(());
            };
            self.blocks
                .check_place(host - layout.lead(), layout.lead() + layout.block_size())?;
            if host >= file_len {
                let text = format!(
                    "Block {index} stands behind the end of the file; check the image first"
                );
                return Err(Error::corrupt(text).with_offset(host));
            }
            visit(index, host)
        })
    }

    /// Hides data of the parent between the old end and the new one; for that, the disk is larger in memory only.
    pub(super) fn hide_below(&self, old: u64, len: u64, below: &dyn Below) -> Result<()> {
        let Some(own) = self.sectors() else {
            return Ok(());
        };
        let shown = below.len_below().min(len);
        if shown <= old {
            return Ok(());
        }
        self.blocks.set_len(len);
        let hidden = self
            .zero_sectors(own, old, shown - old, ZeroFlags::empty(), below)
            .and_then(|()| self.flush_sectors(own, self.blocks.durability()));
        self.blocks.set_len(old);
        hidden
    }
}

impl BlockParts for Dynamic {
    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        self.map_sectors(&self.own.differencing, offset, len)
    }

    fn look_ahead(&self, offset: u64, end: u64) {
        let sectors = &self.own.differencing.sectors;
        if sectors.looks_ahead() {
            let _io = self.blocks.begin_io();
            let lead = self.blocks.layout().lead();
            sectors.bring(&*self.blocks.storage, self.bitmaps_of(offset, end), lead);
        }
    }

    fn write(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        let own = &self.own.differencing;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let part = self.part(at, rest.len() as u64);
            let (data, tail) = rest.split_at((part.end - part.start) as usize);
            self.write_part(own, data, part, below)?;
            at += data.len() as u64;
            rest = tail;
        }
        Ok(())
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.zero_sectors(&self.own.differencing, offset, len, flags, below)
    }

    /// Sectors remain the disk's own, and become holes.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let own = &self.own.differencing;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let part = self.part(at, end - at);
            let _mine = self.blocks.reserve(part.index..part.index + 1);
            let extent = self.map_sectors(own, at, part.end - part.start)?;
            if let ExtentKind::Data { host_offset, .. } = extent.kind {
                self.blocks.check_place(host_offset, extent.len)?;
                let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
                let storage = &self.blocks.storage;
                storage.write_zeroes(host_offset, extent.len, flags)?;
            }
            at += extent.len;
        }
        Ok(())
    }

    fn flush(&self, durability: Durability) -> Result<()> {
        self.flush_sectors(&self.own.differencing, durability)
    }
}

impl Dynamic {
    fn uuid_of(&self, backing: &BackingRef, parent: Option<&NewParent>) -> Result<Uuid> {
        let id = parent.and_then(|parent| parent.id);
        let recorded = self.sectors().map(|_| self.own.header.lock().parent);
        parent::uuid_of(backing, id, recorded)
    }
}

impl BackingChange for Dynamic {
    fn check_backing(
        &self,
        backing: Option<&BackingRef>,
        parent: Option<&NewParent>,
    ) -> Result<()> {
        self.blocks.check_writable()?;
        let Some(backing) = backing else {
            return Ok(());
        };
        self.uuid_of(backing, parent)?;
        parent::names(backing, 0).map(drop)
    }

    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()> {
        self.check_backing(backing, parent)?;
        let uuid = match backing {
            Some(backing) => self.uuid_of(backing, parent)?,
            None => Uuid::nil(),
        };
        let modified = parent.and_then(|parent| parent.modified);
        let had_parent = self.sectors().is_some();
        if backing.is_none() && !had_parent {
            return Ok(());
        }
        self.note_change()?;
        FormatWrite::flush(self, self.blocks.durability())?;
        let alone = self.blocks.exclusive();
        let offset = alone.end()?.next_multiple_of(SECTOR);
        let names = match backing {
            Some(backing) => parent::names(backing, offset)?,
            None => Vec::new(),
        };
        if had_parent != backing.is_some() {
            alone.check()?;
            match self.sectors() {
                Some(own) => self.empty_sectors_of_parent(own)?,
                None => self.own_all_sectors()?,
            }
        }
        let disk_type = match backing {
            Some(_) => DiskType::Differencing,
            None => DiskType::Dynamic,
        };
        self.replace_header(&alone, offset, (disk_type, names), |header| {
            // The recorded parent under another name keeps its modification time.
            header.parent_time = match parent {
                None if header.parent == uuid => header.parent_time,
                _ => modified.map_or(0, seconds),
            };
            header.parent = uuid;
            header.set_parent_name(backing.map_or(BStr::new(""), |backing| backing.name.as_bstr()));
        })?;
        if backing.is_none() {
            self.set_parent(None);
            // Up to here, the parent showed through wherever the bitmaps say so.
            self.own_all_sectors()?;
            self.blocks.barrier()?;
        } else {
            let file_len = self.blocks.storage.len()?;
            let header = self.own.header.lock().clone();
            let parent = parent::read(&*self.blocks.storage, &header, file_len)?;
            self.set_parent(Some(parent));
        }
        // Returns the space of the old names, which a damaged image may claim to be more than a block.
        self.gather(&alone, &JobControl::default())
    }

    /// The UUID of a VHD does not change with its contents, but its modification time does.
    fn note_parent(&self, parent: &NewParent) -> Result<()> {
        self.blocks.check_writable()?;
        let header = &mut *self.own.header.lock();
        let mut new = header.clone();
        new.parent_time = parent.modified.map_or(0, seconds);
        let is_recorded = parent.id == Some(ParentId::Uuid(header.parent));
        if !is_recorded || new.parent_time == header.parent_time {
            return Ok(());
        }
        // The checksum is in the same sector.
        let bytes = new.to_bytes();
        let (first, _) = first_sector(&bytes);
        let at = self.blocks.keeper.footer().data_offset;
        self.blocks.storage.write_at(first, at)?;
        *header = new;
        self.blocks.barrier()
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        match self.blocks.is_overlay() {
            true => Format::map(self, offset, len),
            false => self.blocks.map_held(offset, len),
        }
    }

    fn make_empty(&self) -> Result<()> {
        let Some(own) = self.sectors() else {
            return Err(Error::unsupported("A dynamic VPC image has no parent"));
        };
        self.note_change()?;
        self.flush_sectors(own, self.blocks.durability())?;
        let alone = self.blocks.exclusive();
        let forever = JobControl::default();
        alone.free_from(0, &forever)?;
        own.sectors.clear();
        self.gather(&alone, &forever)
    }
}
