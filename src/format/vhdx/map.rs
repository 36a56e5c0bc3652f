//! Locates guest bytes: a run extends as far as its kind stays the same, across blocks and tables.

use std::sync::Arc;

use crate::error::Result;
use crate::extent::{Extent, ExtentKind, StorageSlot};

use super::disk::{BatEntry, BitmapState, DATA_SECTOR, State};
use super::pages::{Bat, MOST_AHEAD, PAGE_WORDS, Page};
use super::state::Vhdx;

/// Number of bitmap bits in a page.
const PAGE_BITS: u64 = PAGE_WORDS * 64;
/// Maximum number of positions that are examined for bitmap pages to be read together.
const LOOKS: usize = 1 << 12;

/// Source of metadata: reads it if it is not in memory, or only looks it up there.
trait Source {
    /// The entry at an index of the table.
    fn entry(&self, bat: &Bat, index: u64) -> Result<Option<BatEntry>>;
    /// The entries of guest bytes from `_offset` to `_end` are about to be requested.
    fn ahead(&self, _bat: &Bat, _offset: u64, _end: u64) {}
    /// The bitmap page at a file offset.
    fn page(&self, offset: u64) -> Result<Option<Arc<Page>>>;
}

struct Read<'a>(&'a Vhdx);

impl Source for Read<'_> {
    fn entry(&self, bat: &Bat, index: u64) -> Result<Option<BatEntry>> {
        bat.entry(&*self.0.storage, index).map(Some)
    }

    fn ahead(&self, bat: &Bat, offset: u64, end: u64) {
        self.0.bring(bat, offset, end);
        self.0.bring_bitmaps(bat, offset, end);
    }

    fn page(&self, offset: u64) -> Result<Option<Arc<Page>>> {
        self.0.bitmaps.page(&*self.0.storage, offset).map(Some)
    }
}

struct InMemory<'a>(&'a Vhdx);

impl Source for InMemory<'_> {
    fn entry(&self, bat: &Bat, index: u64) -> Result<Option<BatEntry>> {
        Ok(bat.try_entry(index))
    }

    fn page(&self, offset: u64) -> Result<Option<Arc<Page>>> {
        Ok(self.0.bitmaps.try_page(offset))
    }
}

impl Vhdx {
    /// See [`crate::format::Format::map`].
    pub(super) fn map_run(&self, offset: u64, len: u64) -> Result<Extent> {
        let run = self.run(&Read(self), offset, len)?;
        // Metadata that is read is never missing.
        Ok(run.unwrap_or(Extent {
            len,
            kind: ExtentKind::Unallocated { host_offset: None },
        }))
    }

    /// See [`crate::format::Format::map_ahead`].
    pub(super) fn look_ahead(&self, offset: u64, end: u64) {
        let bat = self.bat.read();
        self.bring(&bat, offset, end);
        self.bring_bitmaps(&bat, offset, end);
    }

    /// Reads bitmap pages into memory together, as far as the table is in memory.
    fn bring_bitmaps(&self, bat: &Bat, offset: u64, end: u64) {
        if self.bitmaps.looks_ahead() && self.geometry().has_parent() {
            let pages = self.pages_of_bitmaps(bat, offset, end);
            self.bitmaps.bring(&*self.storage, pages);
        }
    }

    /// File offsets of the bitmap pages that cover guest bytes from `offset` to `end`.
    fn pages_of_bitmaps(&self, bat: &Bat, offset: u64, end: u64) -> impl Iterator<Item = u64> {
        let geometry = self.geometry();
        let step = geometry.block_size().min(PAGE_BITS * geometry.sector());
        let steps = (offset - offset % step..end).step_by(step as usize);
        let mut last = None;
        let pages = steps.take(LOOKS).map_while(move |at| {
            let block = geometry.block(at);
            let is_part = matches!(
                bat.try_entry(geometry.entry(block))?.payload(),
                Ok(State::Partial(_))
            );
            if !is_part {
                return Some(None);
            }
            let entry = bat.try_entry(geometry.bitmap_entry(geometry.chunk(block)))?;
            let Ok(BitmapState::Present(bitmap)) = entry.bitmap() else {
                return Some(None);
            };
            let page = bitmap.saturating_add(geometry.bit(at) / PAGE_BITS * DATA_SECTOR as u64);
            Some((last.replace(page) != Some(page)).then_some(page))
        });
        pages.flatten()
    }

    /// Reads pages of the table into memory together, unless the first ones are already there.
    fn bring(&self, bat: &Bat, offset: u64, end: u64) {
        if !self.read_ahead.is_on() || offset >= end {
            return;
        }
        let geometry = self.geometry();
        let entry = |offset| geometry.entry(geometry.block(offset));
        let ((first, _), (last, _)) = (bat.place(entry(offset)), bat.place(entry(end - 1)));
        if first < last {
            // A run may continue in the next page.
            let is_needed = || bat.place(entry(offset)).1 || bat.place((first + 1) * PAGE_WORDS).1;
            self.read_ahead.run(MOST_AHEAD, is_needed, |count| {
                let count = (last - first).saturating_add(1).min(count as u64);
                bat.load(&*self.storage, first, count as usize)
            });
        }
    }

    /// As [`Vhdx::map_run`], but only from metadata in memory; `None` if that does not even include the first piece.
    pub(super) fn try_map(&self, offset: u64, len: u64) -> Result<Option<Extent>> {
        self.run(&InMemory(self), offset, len)
    }

    fn run(&self, source: &impl Source, offset: u64, len: u64) -> Result<Option<Extent>> {
        let bat = self.bat.read();
        let mut run: Option<Extent> = None;
        let mut done = 0;
        while done < len {
            let at = offset + done;
            source.ahead(&bat, at, offset.saturating_add(len));
            let piece = match self.piece(source, &bat, at, len - done) {
                Ok(piece) => piece,
                // Reported when that piece is accessed.
                Err(_) if run.is_some() => break,
                Err(error) => return Err(error),
            };
            let Some(piece) = piece else {
                break;
            };
            match &mut run {
                None => run = Some(piece),
                Some(run) if run.kind.advanced(run.len) == piece.kind => run.len += piece.len,
                Some(_) => break,
            }
            done += piece.len;
        }
        Ok(run)
    }

    /// The run at `offset` within its block.
    fn piece(
        &self,
        source: &impl Source,
        bat: &Bat,
        offset: u64,
        len: u64,
    ) -> Result<Option<Extent>> {
        let geometry = self.geometry();
        let block = geometry.block(offset);
        let within = geometry.in_block(offset);
        let len = len.min(geometry.block_size() - within);
        let Some(entry) = source.entry(bat, geometry.entry(block))? else {
            return Ok(None);
        };
        let data = |host: u64, len: u64| {
            self.check_place(block, host, within + len)?;
            Ok(ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset: host + within,
            })
        };
        let (kind, len) = match self.state_of(block, entry)? {
            State::NotPresent => (ExtentKind::Unallocated { host_offset: None }, len),
            State::Undefined | State::Zero | State::Unmapped => (ExtentKind::ZEROES, len),
            State::Present(host) => (data(host, len)?, len),
            State::Partial(host) => {
                let Some((here, len)) = self.bits(source, bat, offset, len)? else {
                    return Ok(None);
                };
                let kind = match here {
                    true => data(host, len)?,
                    false => ExtentKind::Unallocated { host_offset: None },
                };
                (kind, len)
            }
        };
        Ok(Some(Extent { len, kind }))
    }

    /// The state of a block; being partially present is an error without a parent.
    pub(super) fn state_of(&self, block: u64, entry: BatEntry) -> Result<State> {
        match entry
            .payload()
            .map_err(|error| self.damaged(block, error))?
        {
            State::Partial(_) if !self.geometry().has_parent() => Err(self.damaged(
                block,
                "a block is partially present although there is no parent",
            )),
            state => Ok(state),
        }
    }

    /// Whether the sector at `offset` is in this file, and for how many bytes that stays the same.
    fn bits(
        &self,
        source: &impl Source,
        bat: &Bat,
        offset: u64,
        len: u64,
    ) -> Result<Option<(bool, u64)>> {
        let geometry = self.geometry();
        let block = geometry.block(offset);
        let Some(entry) = source.entry(bat, geometry.bitmap_entry(geometry.chunk(block)))? else {
            return Ok(None);
        };
        let bitmap = match entry.bitmap().map_err(|error| self.damaged(block, error))? {
            BitmapState::Present(bitmap) => bitmap,
            BitmapState::NotPresent => {
                return Err(self.damaged(
                    block,
                    "a block is partially present without a sector bitmap",
                ));
            }
        };
        let sector = geometry.sector();
        let first = geometry.bit(offset);
        let count = (offset % sector + len).div_ceil(sector);
        let mut here = None;
        let mut at = first;
        while at < first + count {
            let page = bitmap.saturating_add(at / PAGE_BITS * DATA_SECTOR as u64);
            let Some(page) = source.page(page)? else {
                break;
            };
            let end = (first + count).min((at / PAGE_BITS + 1) * PAGE_BITS);
            let wanted =
                *here.get_or_insert_with(|| page.get(at % PAGE_BITS / 64) >> (at % 64) & 1 == 1);
            let run = equal_bits(&page, at % PAGE_BITS, end - at, wanted);
            at += run;
            if at < end {
                break;
            }
        }
        let bytes = ((at - first) * sector).saturating_sub(offset % sector);
        Ok(here.map(|here| (here, bytes.min(len))))
    }
}

/// Number of consecutive bits of a page, from `first` on and at most `count`, that equal `wanted`.
fn equal_bits(page: &Page, first: u64, count: u64, wanted: bool) -> u64 {
    let mut done = 0;
    while done < count {
        let at = first + done;
        let word = page.get(at / 64) >> (at % 64);
        let equal = if wanted {
            word.trailing_ones()
        } else {
            word.trailing_zeros()
        };
        let in_word = 64 - at % 64;
        done += u64::from(equal).min(in_word);
        if u64::from(equal) < in_word {
            break;
        }
    }
    done.min(count)
}
