//! Changing the virtual size of a dynamic disk.

use crate::error::{Error, Result};
use crate::format::blocks::{Entry, Exclusive, Keeper, Layout};
use crate::format::{Below, FormatWrite, Resize};
use crate::job::JobControl;
use crate::memory;
use crate::storage::Preallocation;

use super::behind::{holds_data, two_sizes};
use super::disk::{DiskType, DynamicHeader, FOOTER_LEN, Geometry, HEADER_LEN, Locator, VpcLayout};
use super::dynamic::Dynamic;
use super::parent::NAME_SPACE;
use super::records::Records;
use super::{MAX_SIZE, check_size, name_places};

impl Resize for Dynamic {
    fn resize_above(
        &self,
        len: u64,
        preallocation: Preallocation,
        below: &dyn Below,
        control: &JobControl,
    ) -> Result<()> {
        check_size(len, MAX_SIZE)?;
        if preallocation != Preallocation::Off {
            return Err(Error::unsupported(
                "Only a fixed VPC image has space that can be allocated ahead",
            ));
        }
        let old = self.blocks.len();
        if len == old {
            return Ok(());
        }
        if len > old {
            self.check_behind(old, control)?;
        }
        self.note_change()?;
        self.flush(self.blocks.durability())?;
        if len > old {
            self.make_room(old, len, control)?;
            self.hide_below(old, len, below)?;
        }
        let alone = self.blocks.exclusive();
        control.checkpoint()?;
        let blocks = &self.blocks;
        let storage = &*blocks.storage;
        let block = blocks.layout().block_size();
        let is_growth = len > old;
        // Detect damage before anything changes.
        let end = alone.end()?;
        let count = len.div_ceil(block);
        // With the largest geometry, all programs go by this number.
        blocks.keeper.change(storage, end, |footer| {
            footer.current_size = len;
            footer.geometry = Geometry::MAX;
        })?;
        blocks.barrier()?;
        blocks.set_len(len);
        if is_growth {
            // A name of the parent may have had more space than it needs: no older footer may remain behind.
            blocks.keeper.cut(storage, &blocks.layout(), end)?;
            return alone.set_end(end);
        }
        // From here on the new size is in effect; the rest returns space.
        self.flush(blocks.durability())?;
        if let Some(own) = self.sectors() {
            own.sectors.clear();
        }
        let forever = JobControl::default();
        alone.free_from(count, &forever)?;
        self.gather(&alone, &forever)
    }
}

/// Whether the header and the names of the parent must stay in place: a name is unknown, too long, or cut short.
fn names_stay(header: &DynamicHeader, file_len: u64) -> bool {
    header.locators().any(|locator| {
        let end = locator.offset.saturating_add(u64::from(locator.len));
        locator.platform.is_none() || locator.len > NAME_SPACE || end > file_len
    })
}

impl Dynamic {
    /// Refuses growth if one of the sizes in the footer includes blocks past the end that hold data.
    fn check_behind(&self, old: u64, control: &JobControl) -> Result<()> {
        let footer = self.blocks.keeper.footer();
        let storage = &*self.blocks.storage;
        let file_len = storage.len()?;
        let named = self.blocks.count() * self.blocks.layout().block_size();
        let end = footer.largest_size().min(named);
        let mut at = old;
        while at < end {
            control.checkpoint()?;
            let (entry, len) = self.blocks.run(at, end - at)?;
            if let Entry::At(host) = entry {
                let place = host..(host + len).min(file_len);
                if holds_data(storage, place, &footer, || control.checkpoint())? {
                    return Err(two_sizes(&footer));
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Provides a table entry for each block of a larger disk, and frees those blocks.
    fn make_room(&self, old: u64, len: u64, control: &JobControl) -> Result<()> {
        let alone = self.blocks.exclusive();
        let block = self.blocks.layout().block_size();
        // Detect damage before anything changes.
        alone.end()?;
        self.blocks.zero_last_block(len)?;
        alone.clear_behind(old.div_ceil(block), control)?;
        let end = alone.end()?;
        let count = len.div_ceil(block);
        if count > self.blocks.count() {
            self.move_table(&alone, count, end)?;
        }
        Ok(())
    }

    /// Moves blocks from the end of the file into unused space; a table, a header or names of the parent located after
    /// blocks that are gone follow them.
    pub(super) fn gather(
        &self,
        alone: &Exclusive<'_, Records>,
        control: &JobControl,
    ) -> Result<()> {
        alone.pack(control)?;
        let table = self.blocks.layout().table();
        let len = table.end - table.start;
        let place = alone.place_behind(len, FOOTER_LEN as u64, table.clone())?;
        if place.end <= table.start {
            self.move_table(alone, self.blocks.count(), place.start)?;
            alone.pack(control)?;
        }
        if self.move_header_down(alone)? {
            alone.pack(control)?;
        }
        Ok(())
    }

    /// The end of the header and the names of the parent if they must stay in place, otherwise 0.
    pub(super) fn unmovable_end(&self, file_len: u64) -> u64 {
        let header = self.own.header.lock();
        if !names_stay(&header, file_len) {
            return 0;
        }
        let places = name_places(&header).into_iter();
        let ends = places.chain([self.blocks.layout().header()]);
        ends.map(|place| place.end).max().unwrap_or(0)
    }

    /// Moves the header and the names of the parent to just after the last block, if moving one of them makes room for
    /// another block; returns whether they have moved.
    fn move_header_down(&self, alone: &Exclusive<'_, Records>) -> Result<bool> {
        let layout = self.blocks.layout();
        let header = self.own.header.lock().clone();
        let count = header.locators().count() as u64;
        let len = count * u64::from(NAME_SPACE) + HEADER_LEN as u64;
        let place = alone.place_behind(len, FOOTER_LEN as u64, 0..0)?;
        let unit = layout.lead() + layout.block_size();
        let least = place.start.saturating_add(unit).max(place.end);
        let mut stand = name_places(&header);
        stand.push(layout.header());
        if stand.iter().all(|old| old.start < least) {
            return Ok(false);
        }
        let file_len = self.blocks.storage.len()?;
        let mut names = Vec::new();
        if names_stay(&header, file_len) {
            return Ok(false);
        }
        for (locator, n) in header.locators().zip(0..) {
            let mut bytes = memory::zeroed(locator.len as usize)?;
            self.blocks.storage.read_at(&mut bytes, locator.offset)?;
            let offset = place.start + n * u64::from(NAME_SPACE);
            names.push((Locator { offset, ..locator }, bytes.to_vec()));
        }
        let disk_type = self.blocks.keeper.footer().disk_type;
        self.replace_header(alone, place.start, (disk_type, names), |_| ())?;
        Ok(true)
    }

    /// Writes another header, with names of the parent, to unused space at `offset`, and makes the footers point to it
    /// and state the type of the disk: a single write of one sector.
    pub(super) fn replace_header(
        &self,
        alone: &Exclusive<'_, Records>,
        offset: u64,
        (disk_type, names): (DiskType, Vec<(Locator, Vec<u8>)>),
        change: impl FnOnce(&mut DynamicHeader),
    ) -> Result<()> {
        let blocks = &self.blocks;
        let storage = &*blocks.storage;
        let header = &mut *self.own.header.lock();
        let mut new = header.clone();
        change(&mut new);
        let locators: Vec<Locator> = names.iter().map(|(locator, _)| *locator).collect();
        new.set_locators(&locators, NAME_SPACE);
        let at = offset + names.len() as u64 * u64::from(NAME_SPACE);
        let end = alone.end()?.max(at + HEADER_LEN as u64);
        // Names go where the footer at the end is, so it is written after them first.
        alone.reserve_up_to(end)?;
        for (locator, bytes) in &names {
            let mut name = memory::zeroed(NAME_SPACE as usize)?;
            if let Some(start) = name.get_mut(..bytes.len()) {
                start.copy_from_slice(bytes);
            }
            storage.write_at(&name, locator.offset)?;
        }
        storage.write_at(&new.to_bytes(), at)?;
        blocks.barrier()?;
        blocks.keeper.change(storage, end, |footer| {
            footer.data_offset = at;
            footer.disk_type = disk_type;
        })?;
        blocks.barrier()?;
        *header = new;
        blocks.keeper.set_names(name_places(header));
        alone.replace_layout(blocks.layout().with_header_at(at));
        alone.set_end(end)
    }

    /// Writes a table of `count` entries to unused space at or after `offset`, and makes the header point to it, in a
    /// single write of one sector. Returns the end of the space in use.
    fn move_table(&self, alone: &Exclusive<'_, Records>, count: u64, offset: u64) -> Result<u64> {
        let blocks = &self.blocks;
        let storage = &*blocks.storage;
        let offset = offset.next_multiple_of(FOOTER_LEN as u64);
        let header = &mut *self.own.header.lock();
        let mut new = header.clone();
        new.table_offset = offset;
        new.entries = count as u32;
        let layout = VpcLayout::of(&new, blocks.layout().header().start);
        let table = alone.other_table(count, offset, |_, word| Ok(word))?;
        let end = layout.table().end;
        alone.reserve_up_to(end)?;
        storage.write_at(&[0xff; FOOTER_LEN], end - FOOTER_LEN as u64)?;
        alone.write_table(&table)?;
        blocks.barrier()?;
        let at = blocks.keeper.footer().data_offset;
        storage.write_at(&new.to_bytes(), at)?;
        blocks.barrier()?;
        *header = new;
        alone.replace(layout, table);
        alone.end()
    }
}
