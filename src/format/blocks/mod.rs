//! What formats with a table of blocks share: an entry says where in the file a block of guest bytes is, and new blocks
//! go at the end. The table is in one piece, or in parts that a directory locates.
//!
//! The order on disk: guest data and the format's record of the space in use, a barrier, then the entries that name the
//! data; for new parts, another barrier, then their location in the directory. A crash leaves at most space that
//! nothing refers to, and never an entry whose data is missing or whose space counts as free.

mod ahead;
mod bulk;
pub(crate) mod check;
mod coding;
mod directory;
mod grow;
mod image;
mod linear;
mod pack;
pub(crate) mod places;
mod space;
mod table;
mod write;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::inflight::InFlight;
use crate::format::read_ahead::ReadAhead;
use crate::format::units::Units;
use crate::format::{FlushPlan, IoGuard, IoUsers, LongIoGuard};
use crate::memory;
use crate::size::SECTOR;
use crate::storage::{Durability, Preallocation, Step, Storage, read_exact_at, steps};

use ahead::PagesAhead;
pub(crate) use bulk::{BlockBulk, Finish};
pub(crate) use coding::{BAD, ByteOrder, Coding, FREE, ZERO};
pub(crate) use directory::Directory;
pub(crate) use grow::blocks_behind;
pub(crate) use image::{BlockFormat, BlockImage, BlockParts};
pub(crate) use linear::LinearBulk;
pub(crate) use pack::Exclusive;
use space::Space;
pub(crate) use table::Table;

/// What an entry says about its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is not in this layer.
    Free,
    /// It reads as zeroes, whatever the parent holds.
    Zero,
    /// Its data is at this offset in the file.
    At(u64),
    /// It has no meaning: the image is damaged.
    Bad,
}

/// How the blocks of an image are laid out.
pub(crate) trait Layout: Copy + Send + Sync + Debug + 'static {
    /// Guest bytes per block.
    fn block_size(&self) -> u64;

    /// Bytes that precede the data of each block in the file and belong to it.
    fn lead(&self) -> u64;

    /// The lowest offset at which a block, including its lead, can begin.
    fn start(&self) -> u64;

    /// The lowest offset at which a new block, including its lead, may begin; existing blocks may be in front of it.
    fn new_from(&self) -> u64 {
        self.start()
    }

    /// The meaning of a number in the table; [`FREE`] is free.
    fn entry(&self, word: u32) -> Entry;

    /// What to make of a number read from a file of that length: the number itself, or one without a meaning.
    fn vet(&self, word: u32, _file_len: u64) -> u32 {
        word
    }

    /// The number for a block whose data is at `host`; None if the table cannot express it.
    fn word(&self, host: u64) -> Option<u32>;

    /// The number for a block that reads as zeroes, if the format has one.
    fn zero_word(&self) -> Option<u32>;

    /// Whether a block that is not in the table is reported as unallocated, not as zeroes, if there is no parent.
    fn shows_free(&self) -> bool {
        false
    }

    /// Where to put the data of the first block that begins at or after `end`.
    fn next(&self, end: u64) -> u64;

    /// As [`Layout::next`], but as close as an entry can express, to fill gaps.
    fn next_tight(&self, end: u64) -> u64 {
        self.next(end)
    }

    /// The number of places for blocks up to `end`, if entries are numbers of places, and a number as large as the
    /// count of entries means nothing.
    fn places(&self, _end: u64) -> Option<u64> {
        None
    }

    /// Whether the data of consecutive blocks is contiguous.
    fn is_dense(&self) -> bool {
        self.next(self.next(self.start()) + self.block_size())
            == self.next(self.start()) + self.block_size()
    }
}

/// What a format keeps besides the table.
pub(crate) trait Keeper: Send + Sync + Debug {
    /// How its blocks are laid out.
    type Layout: Layout;

    /// Ranges of the file occupied by something other than blocks and table parts, not counting what precedes
    /// [`Layout::start`]. They are queried again when the layout changes, and by [`Blocks::renew_reserved`].
    fn reserved(&self, _layout: &Self::Layout) -> Vec<Range<u64>> {
        Vec::new()
    }

    /// How much of the file is in use according to its own records, if it has any.
    fn end_on_record(&self, layout: &Self::Layout) -> u64;

    /// The end of the last thing named by entries past those that the table of this disk covers; new blocks go after
    /// it.
    ///
    /// # Errors
    /// If reading fails.
    fn end_behind(&self, _storage: &dyn Storage) -> Result<u64> {
        Ok(0)
    }

    /// Extends the file to `end`, which lies after new blocks.
    ///
    /// # Errors
    /// If I/O fails; the file keeps its contents.
    fn extend(&self, storage: &dyn Storage, end: u64) -> Result<()>;

    /// Writes the lead of a new block whose data will be at `host`.
    ///
    /// # Errors
    /// If I/O fails.
    fn begin_block(&self, storage: &dyn Storage, host: u64) -> Result<()>;

    /// Ensures that the lead of a block, whose data is at `host`, says that guest data is written to it in place.
    ///
    /// # Errors
    /// If I/O fails.
    fn touch_block(&self, _storage: &dyn Storage, _index: u64, _host: u64) -> Result<()> {
        Ok(())
    }

    /// Whether [`Keeper::touch_block`] would have nothing to do.
    fn is_touched(&self, _index: u64) -> bool {
        true
    }

    /// Writes what must be on disk before entries name blocks up to `end`.
    ///
    /// # Errors
    /// If I/O fails.
    fn record(&self, storage: &dyn Storage, layout: &Self::Layout, end: u64) -> Result<()>;

    /// Called when everything written is durable, and no change is in progress.
    ///
    /// # Errors
    /// If I/O fails.
    fn note_quiescent(&self, _storage: &dyn Storage) -> Result<()> {
        Ok(())
    }

    /// Truncates the file to `end`, after the last block, in a crash-safe order.
    ///
    /// # Errors
    /// If I/O fails.
    fn cut(&self, storage: &dyn Storage, layout: &Self::Layout, end: u64) -> Result<()>;
}

/// The table and how to interpret it.
#[derive(Debug)]
struct State<L> {
    layout: L,
    /// See [`Keeper::reserved`].
    reserved: Vec<Range<u64>>,
    table: Table,
    /// Incremented when the table is replaced.
    generation: u64,
}

/// What [`Blocks::new`] starts with.
#[derive(Debug)]
pub(crate) struct Parts<K: Keeper> {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) keeper: K,
    pub(crate) layout: K::Layout,
    pub(crate) table: Table,
    /// The virtual size.
    pub(crate) len: u64,
    /// What the table does not hold comes from the parent; otherwise it reads as zeroes.
    pub(crate) is_overlay: bool,
    pub(crate) writable: bool,
    pub(crate) durability: Durability,
}

/// The blocks of an open image.
///
/// Lock order, outermost first: `reshaping`, an in-flight reservation, `pass`, `space`, `dirty`, `read_ahead`, `state`.
/// No lock is held across data I/O except `reshaping` and `pass`.
#[derive(Debug)]
pub(crate) struct Blocks<K: Keeper> {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) keeper: K,
    state: RwLock<State<K::Layout>>,
    len: AtomicU64,
    is_overlay: AtomicBool,
    writable: bool,
    durability: Durability,
    inflight: InFlight,
    users: IoUsers,
    /// Blocks are being moved: writes in place must wait in the table of in-flight ranges.
    moving: AtomicBool,
    reshaping: Mutex<()>,
    space: Mutex<Space>,
    /// Units of the table that are not on disk yet.
    dirty: Mutex<Units>,
    pass: Mutex<()>,
    lost: AtomicBool,
    /// The length of the file as last seen, in whole sectors.
    seen_len: AtomicU64,
    read_ahead: ReadAhead,
}

/// How many bytes of a block of that size a disk of that length exposes, in whole sectors.
pub(crate) fn shown_of(index: u64, block: u64, len: u64) -> u64 {
    let shown = len.saturating_sub(index.saturating_mul(block)).min(block);
    shown.next_multiple_of(SECTOR)
}

impl<K: Keeper> Blocks<K> {
    pub(crate) fn new(parts: Parts<K>) -> Self {
        Self {
            read_ahead: ReadAhead::of(&*parts.storage),
            storage: parts.storage,
            state: RwLock::new(State {
                reserved: parts.keeper.reserved(&parts.layout),
                layout: parts.layout,
                table: parts.table,
                generation: 0,
            }),
            keeper: parts.keeper,
            len: AtomicU64::new(parts.len),
            is_overlay: AtomicBool::new(parts.is_overlay),
            writable: parts.writable,
            durability: parts.durability,
            inflight: InFlight::default(),
            users: IoUsers::default(),
            moving: AtomicBool::new(false),
            reshaping: Mutex::default(),
            space: Mutex::default(),
            dirty: Mutex::default(),
            pass: Mutex::default(),
            lost: AtomicBool::new(false),
            seen_len: AtomicU64::new(0),
        }
    }

    /// The virtual size.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn set_len(&self, len: u64) {
        self.len.store(len, Ordering::Release);
    }

    /// How the blocks are laid out.
    pub(crate) fn layout(&self) -> K::Layout {
        self.state.read().layout
    }

    /// Number of table entries.
    pub(crate) fn count(&self) -> u64 {
        self.state.read().table.count()
    }

    /// Whether what the table does not hold comes from the parent.
    pub(crate) fn is_overlay(&self) -> bool {
        self.is_overlay.load(Ordering::Acquire)
    }

    /// Sets whether what the table does not hold comes from the parent, or reads as zeroes.
    pub(crate) fn set_overlay(&self, is_overlay: bool) {
        self.is_overlay.store(is_overlay, Ordering::Release);
    }

    /// See [`crate::format::Format::begin_io`].
    pub(crate) fn begin_io(&self) -> IoGuard<'_> {
        self.users.enter()
    }

    /// See [`crate::format::Immediate::begin_long_io`].
    pub(crate) fn begin_long_io(&self) -> LongIoGuard {
        self.users.enter_long()
    }

    /// The longest run of one kind at `offset`, at most `len` bytes.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(crate) fn run(&self, offset: u64, len: u64) -> Result<(Entry, u64)> {
        let mut brought = None;
        loop {
            let unread = match self.state.read().run(offset, len) {
                Ok((Entry::Bad, _)) => return Err(self.bad_entry(offset)),
                Ok(run) => return Ok(run),
                Err(page) => page,
            };
            if brought.replace(unread) == Some(unread) {
                self.load(unread)?;
            } else {
                self.bring(unread, offset.saturating_add(len));
            }
        }
    }

    /// As [`Blocks::run`], but from memory alone.
    pub(crate) fn try_run(&self, offset: u64, len: u64) -> Option<(Entry, u64)> {
        let run = self.state.read().run(offset, len).ok();
        run.filter(|(entry, _)| *entry != Entry::Bad)
    }

    /// The error for an entry that does not say where the guest bytes at `offset` are.
    fn bad_entry(&self, offset: u64) -> Error {
        let text = format!(
            "'{}': the table names no place for the guest bytes at {offset}; check the image",
            self.storage.name()
        );
        Error::corrupt(text)
    }

    /// See [`crate::format::Format::map`].
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(crate) fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let (entry, len) = self.run_in_file(offset, len)?;
        Ok(self.extent(entry, len))
    }

    /// As [`Blocks::map`], but reports free blocks as if there were a parent.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        let _io = self.begin_io();
        let (entry, len) = self.run_in_file(offset, len)?;
        match entry {
            Entry::Free => Ok(Extent {
                len,
                kind: ExtentKind::Unallocated { host_offset: None },
            }),
            _ => Ok(self.extent(entry, len)),
        }
    }

    /// As [`Blocks::run`], but only as far as the file reaches: truncated data must not read as zeroes.
    ///
    /// # Errors
    /// As [`Blocks::run`]; [`ErrorKind::Corrupt`] if the file ends before the run.
    pub(crate) fn run_in_file(&self, offset: u64, len: u64) -> Result<(Entry, u64)> {
        let (entry, len) = self.run(offset, len)?;
        let Entry::At(host) = entry else {
            return Ok((entry, len));
        };
        if self.has_bytes(host, len) {
            return Ok((entry, len));
        }
        let sectors = self.storage.len()?.next_multiple_of(SECTOR);
        self.seen_len.store(sectors, Ordering::Relaxed);
        match sectors.checked_sub(host) {
            Some(rest) if rest > 0 => Ok((entry, len.min(rest))),
            _ => Err(Error::corrupt(format!(
                "'{}' ends before the guest bytes at {offset}, which stand at {host}; check the image",
                self.storage.name()
            ))),
        }
    }

    /// Extends the file to that length, so that a block at its end is complete.
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn lengthen(&self, end: u64) -> Result<()> {
        if self.storage.limits().fixed_len {
            return Ok(());
        }
        self.storage.set_len(end, Preallocation::Off)
    }

    /// Whether the file is known to have these bytes.
    fn has_bytes(&self, host: u64, len: u64) -> bool {
        host.saturating_add(len) <= self.seen_len.load(Ordering::Relaxed)
    }

    /// As [`Blocks::map`], but from memory alone.
    pub(crate) fn try_map(&self, offset: u64, len: u64) -> Option<Extent> {
        let (entry, len) = self.try_run(offset, len)?;
        match entry {
            Entry::At(host) if !self.has_bytes(host, len) => None,
            _ => Some(self.extent(entry, len)),
        }
    }

    fn extent(&self, entry: Entry, len: u64) -> Extent {
        let kind = match entry {
            Entry::At(host_offset) => ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset,
            },
            Entry::Free if self.is_overlay() || self.layout().shows_free() => {
                ExtentKind::Unallocated { host_offset: None }
            }
            Entry::Free | Entry::Zero | Entry::Bad => ExtentKind::ZEROES,
        };
        Extent { len, kind }
    }

    /// The storage for a slot.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for any slot but the image's own.
    pub(crate) fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        main_slot(&self.storage, slot)
    }

    /// The entry of one block.
    fn entry(&self, index: u64) -> Result<Entry> {
        let block = self.layout().block_size();
        self.run(index.saturating_mul(block), 1)
            .map(|(entry, _)| entry)
    }

    /// Reads a page of the table.
    fn load(&self, page: u64) -> Result<()> {
        let (words, generation) = self.read_page(page)?;
        let state = &mut *self.state.write();
        if state.generation == generation {
            state.table.install(page, words.into_iter())?;
        }
        Ok(())
    }

    /// Announces a step if the table is in parts; for other tables, no step has a name.
    fn announce_parts(&self, step: Step) {
        if self.state.read().table.directory().is_some() {
            steps::announce(&*self.storage, step);
        }
    }

    /// Reads a page from disk, and returns it with the generation.
    fn read_page(&self, page: u64) -> Result<(Vec<u32>, u64)> {
        self.announce_parts(Step::L2Load);
        let (layout, place, coding, generation) = {
            let state = self.state.read();
            let place = state.table.place_of(page).unwrap_or_default();
            (state.layout, place, state.table.coding(), state.generation)
        };
        let file_len = self.storage.len()?;
        let mut bytes = memory::zeroed((place.end - place.start) as usize)?;
        read_exact_at(&*self.storage, &mut bytes, place.start)?;
        let words = coding.words(&bytes);
        let words = memory::collect(words.map(|word| layout.vet(word, file_len)))?;
        Ok((words, generation))
    }

    /// Ensures that [`Blocks::set`] cannot fail for these entries.
    fn make_settable(&self, first: u64, count: u64) -> Result<()> {
        let (units, pages) = {
            let table = &self.state.read().table;
            let last = table.unit_of(first.saturating_add(count));
            (last.saturating_add(1), table.pages_of(first, count))
        };
        self.dirty.lock().make_room(units)?;
        for page in pages {
            loop {
                if self.state.read().table.is_settable(page) {
                    break;
                }
                if self.state.read().table.is_unread(page) {
                    self.load(page)?;
                }
                self.state.write().table.make_settable(page)?;
            }
        }
        Ok(())
    }

    /// Changes an entry; see [`Blocks::make_settable`].
    fn set(&self, index: u64, word: u32) {
        let unit = {
            let state = self.state.read();
            state.table.set(index, word);
            state.table.unit_of(index)
        };
        self.dirty.lock().add(unit);
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(Error::os(libc::EROFS))
        }
    }

    /// Queries [`Keeper::reserved`] again.
    pub(crate) fn renew_reserved(&self) {
        let state = &mut *self.state.write();
        state.reserved = self.keeper.reserved(&state.layout);
    }

    /// Whether the image is open for writing.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The durability that barriers guarantee.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// If I/O fails; written data may be lost, which every later flush reports.
    pub(crate) fn sync(&self, durability: Durability) -> Result<()> {
        let result = self.storage.sync(durability);
        if result.is_err() {
            // The kernel may have dropped what it could not write; no later sync can make up for that.
            self.lost.store(true, Ordering::Release);
        }
        result
    }

    /// Everything written before reaches the disk before anything written after.
    ///
    /// # Errors
    /// As [`Blocks::sync`].
    pub(crate) fn barrier(&self) -> Result<()> {
        match self.durability {
            Durability::Synced => self.sync(Durability::Synced),
            _ => Ok(()),
        }
    }

    fn check_lost(&self) -> Result<()> {
        if !self.lost.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::writes_lost(self.storage.name()))
    }

    /// See [`crate::format::FormatWrite::flush`].
    ///
    /// # Errors
    /// If I/O fails.
    pub(crate) fn flush(&self, durability: Durability) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        self.check_lost()?;
        let _one = self.pass.lock();
        let units = self.dirty.lock().take()?;
        if let Err(error) = self.write_units(&units) {
            self.dirty.lock().put_back(&units);
            return Err(error);
        }
        self.sync(durability)?;
        match units.is_empty() {
            true => self.note_quiescent(),
            // Usually more is about to be written; the flush after the last write has nothing to do.
            false => Ok(()),
        }
    }

    /// Notifies the keeper if everything written is durable.
    fn note_quiescent(&self) -> Result<()> {
        // No space is allocated in the meantime.
        let _space = self.space.lock();
        if self.inflight.is_idle() && self.dirty.lock().is_empty() {
            self.keeper.note_quiescent(&*self.storage)?;
        }
        Ok(())
    }

    /// See [`crate::format::Format::close`].
    ///
    /// # Errors
    /// As [`Blocks::flush`].
    pub(crate) fn close(&self) -> Result<()> {
        self.flush(self.durability)?;
        match self.writable {
            true => self.note_quiescent(),
            false => Ok(()),
        }
    }

    /// Writes entries, after what they name and the record of it are on disk.
    fn write_units(&self, units: &[u64]) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let mut new = Vec::new();
        for part in self.state.read().table.parts_without_place(units)? {
            memory::push(&mut new, (part, 0))?;
        }
        for (_, host) in &mut new {
            *host = self.take_part()?;
        }
        // Entries set from here on may name data that no barrier covers yet.
        let (layout, runs) = {
            let state = self.state.read();
            (state.layout, state.table.bytes_of(units, &new)?)
        };
        let end = self.space.lock().end();
        if let Some(end) = end {
            self.keeper.record(&*self.storage, &layout, end)?;
        }
        self.barrier()?;
        for (offset, bytes) in &runs {
            self.announce_parts(Step::L2Update);
            self.storage.write_at(bytes, *offset)?;
        }
        self.link(&new)
    }

    /// Links parts that have been written into the directory.
    fn link(&self, new: &[(u64, u64)]) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        let mut numbers = Vec::new();
        for (part, host) in new {
            let number = self.with_directory(|known| known.number(*host)).flatten();
            memory::push(&mut numbers, (*part, number.ok_or_else(no_place)?))?;
        }
        self.barrier()?;
        self.write_parts(&numbers)?;
        self.set_parts(&numbers);
        Ok(())
    }

    /// Writes these numbers to the directory on disk.
    fn write_parts(&self, numbers: &[(u64, u32)]) -> Result<()> {
        let runs = self.state.read().table.bytes_of_parts(numbers)?;
        for (offset, bytes) in &runs {
            steps::announce(&*self.storage, Step::L1Update);
            self.storage.write_at(bytes, *offset)?;
        }
        Ok(())
    }

    /// Changes the numbers of parts in memory.
    fn set_parts(&self, numbers: &[(u64, u32)]) {
        let state = &mut *self.state.write();
        if let Some(directory) = state.table.directory_mut() {
            for (part, number) in numbers {
                directory.set(*part, *number);
            }
        }
    }

    /// How [`Blocks::flush`] would proceed.
    pub(crate) fn flush_plan(&self, durability: Durability) -> FlushPlan {
        if !self.writable {
            return FlushPlan::Nothing;
        }
        let (Some(_pass), false) = (self.pass.try_lock(), self.lost.load(Ordering::Acquire)) else {
            return FlushPlan::Call;
        };
        if !self.dirty.lock().is_empty() {
            return FlushPlan::Call;
        }
        FlushPlan::of(StorageSlot::MAIN, self.storage.sync_plan(durability))
    }

    pub(crate) fn note_failed_flush(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Calls `visit` for each entry that is not free, in order; the table is read one page at a time and not cached.
    ///
    /// # Errors
    /// If the table cannot be read, or `visit` returns an error.
    pub(crate) fn each(&self, visit: impl FnMut(u64, u32) -> Result<()>) -> Result<()> {
        self.each_beside(|_| false, visit)
    }

    /// As [`Blocks::each`], without the parts of the table for which `is_skipped` holds.
    ///
    /// # Errors
    /// As [`Blocks::each`].
    pub(crate) fn each_beside(
        &self,
        is_skipped: impl Fn(u64) -> bool,
        mut visit: impl FnMut(u64, u32) -> Result<()>,
    ) -> Result<()> {
        let (mut page, mut ahead) = (0, PagesAhead::of(self));
        loop {
            let (known, first) = {
                let table = &self.state.read().table;
                let Some(next) = table.next_page(page) else {
                    return Ok(());
                };
                page = next + 1;
                if is_skipped(table.part_of(next)) {
                    continue;
                }
                (table.words_of(next)?, table.first_of(next))
            };
            let words = match known {
                Some(words) => words,
                None => ahead.page(self, page - 1, &is_skipped)?,
            };
            for (index, word) in (first..).zip(words) {
                if word != FREE {
                    visit(index, word)?;
                }
            }
        }
    }

    /// The first entry after those that [`Blocks::each`] visits, which extend to the end of a page.
    pub(crate) fn end_of_entries(&self) -> u64 {
        let table = &self.state.read().table;
        table.first_of(table.pages_of(0, table.count()).end)
    }

    /// Calls `look` with the directory, if the table is in parts.
    pub(crate) fn with_directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> Option<T> {
        self.state.read().table.directory().map(look)
    }
}

/// The error for a place that no entry can name.
fn no_place() -> Error {
    Error::corrupt("A block has no place in the table")
}

impl<L: Layout> State<L> {
    /// Whether a range of the file contains anything other than blocks.
    fn is_metadata(&self, place: &Range<u64>) -> bool {
        let meets = |other: &Range<u64>| place.start < other.end && other.start < place.end;
        let directory = self.table.directory();
        place.start < self.layout.start()
            || self.reserved.iter().any(meets)
            || directory.is_some_and(|directory| directory.is_in(place))
    }

    /// The run at `offset`, or the page that must be read first.
    fn run(&self, offset: u64, len: u64) -> std::result::Result<(Entry, u64), u64> {
        let block = self.layout.block_size();
        let (mut index, within) = (offset / block, offset % block);
        let first = self.layout.entry(self.table.get(index)?);
        let mut run = block - within;
        while run < len {
            if let (Entry::Free, Some(free)) = (first, self.table.free_from(index + 1)) {
                run = run.saturating_add(free.saturating_mul(block));
                index += free;
                continue;
            }
            let next = self.layout.entry(self.table.get(index + 1)?);
            let follows = match (first, next) {
                (Entry::At(host), Entry::At(other)) => {
                    host.checked_add(within + run) == Some(other)
                }
                (first, next) => first == next,
            };
            if !follows {
                break;
            }
            run += block;
            index += 1;
        }
        let entry = match first {
            Entry::At(host) => Entry::At(host.saturating_add(within)),
            other => other,
        };
        Ok((entry, run.min(len)))
    }
}

/// The only storage of an image that consists of one file.
///
/// # Errors
/// [`ErrorKind::Internal`] for any other slot.
pub(crate) fn main_slot(
    storage: &Arc<dyn Storage>,
    slot: StorageSlot,
) -> Result<&Arc<dyn Storage>> {
    if slot == StorageSlot::MAIN {
        Ok(storage)
    } else {
        Err(Error::new(ErrorKind::Internal, "The image is one file"))
    }
}
