//! The space for new blocks: after everything in use, and what failed writes gave back.

use crate::error::{Error, ErrorKind, Result};
use crate::format::marks::Marks;
use crate::memory;
use crate::storage::ZeroFlags;

use super::{Blocks, Directory, Entry, FREE, Keeper, Layout, no_place};

/// Where new blocks go.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// The end of the space in use; None until it has been determined.
    end: Option<u64>,
    /// The length of the file; what was past it reads as zeroes.
    file_len: u64,
    /// Places before the end that have been given back.
    spare: Vec<u64>,
}

/// Space for new blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewBlocks {
    /// The offset for the data of the first one; the others follow it.
    pub(super) host: u64,
    pub(super) count: u64,
    /// It reads as zeroes.
    pub(super) zeroed: bool,
}

impl Space {
    pub(super) fn end(&self) -> Option<u64> {
        self.end
    }

    pub(super) fn set(&mut self, end: u64, file_len: u64) {
        *self = Self {
            end: Some(end),
            file_len,
            spare: Vec::new(),
        };
    }
}

/// Maximum number of places left by a crash to keep track of.
const MOST_UNNAMED: usize = 1 << 16;

/// How to treat a block that overlaps something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overlaps {
    /// The image is damaged.
    Refused,
    /// The block counts as in use.
    Counted,
}

/// The error when the end of a storage that cannot grow is reached.
fn full() -> Error {
    Error::os(libc::ENOSPC)
}

impl<K: Keeper> Blocks<K> {
    /// Allocates space for up to `count` blocks: as many as can be contiguous.
    pub(super) fn take(&self, count: u64) -> Result<NewBlocks> {
        let space = &mut *self.space.lock();
        let layout = self.layout();
        let end = self.end_of_use(space)?;
        if let Some(host) = space.spare.pop() {
            return Ok(NewBlocks {
                host,
                count: 1,
                zeroed: false,
            });
        }
        let block = layout.block_size();
        let host = layout.next(end);
        let count = if layout.is_dense() { count } else { 1 };
        let new_end = count
            .checked_mul(block)
            .and_then(|len| host.checked_add(len))
            .ok_or_else(full)?;
        layout.word(new_end - block).ok_or_else(|| self.no_room())?;
        let place = self.extend_to(space, host, new_end)?;
        Ok(NewBlocks { count, ..place })
    }

    /// Allocates space for one part of the table, which reads as one without blocks.
    pub(super) fn take_part(&self) -> Result<u64> {
        let place = {
            let space = &mut *self.space.lock();
            let end = self.end_of_use(space)?;
            let state = self.state.read();
            let directory = state.table.directory().ok_or_else(no_place)?;
            let host = state.layout.next(end);
            let new_end = host.checked_add(directory.table_len()).ok_or_else(full)?;
            directory.number(host).ok_or_else(|| self.no_room())?;
            drop(state);
            self.extend_to(space, host, new_end)?
        };
        if !place.zeroed {
            let len = self.with_directory(Directory::table_len).unwrap_or(0);
            self.storage
                .write_zeroes(place.host, len, ZeroFlags::MAY_UNMAP)?;
        }
        Ok(place.host)
    }

    /// Takes the space from `host` to `end`, after everything in use.
    fn extend_to(&self, space: &mut Space, host: u64, end: u64) -> Result<NewBlocks> {
        let limits = self.storage.limits();
        if limits.fixed_len && end > self.storage.len()? {
            return Err(full());
        }
        self.keeper.extend(&*self.storage, end)?;
        let zeroed = limits.grown_is_zero && host >= space.file_len;
        space.file_len = space.file_len.max(end);
        space.end = Some(end);
        Ok(NewBlocks {
            host,
            count: 1,
            zeroed,
        })
    }

    fn no_room(&self) -> Error {
        Error::new(
            ErrorKind::Limit,
            format!("'{}' has no room for more blocks", self.storage.name()),
        )
        .with_errno(libc::EFBIG)
    }

    /// Gives back space that nothing refers to.
    pub(super) fn give_back(&self, place: NewBlocks) {
        let space = &mut *self.space.lock();
        let layout = self.layout();
        let block = layout.block_size();
        let end = place.host.saturating_add(place.count.saturating_mul(block));
        if space.end == Some(end) {
            space.end = Some(place.host - layout.lead());
        } else if space.spare.try_reserve(place.count as usize).is_ok() {
            space
                .spare
                .extend((0..place.count).map(|n| place.host + n * block));
        }
    }

    /// The end of the space in use; determined by scanning the table once.
    fn end_of_use(&self, space: &mut Space) -> Result<u64> {
        if let Some(end) = space.end {
            return Ok(end);
        }
        let file_len = self.storage.len()?;
        let (mut end, named) = self.find_end(file_len, Overlaps::Refused)?;
        let mut spare = Vec::new();
        if let Some(places) = self.layout().places(end).filter(|places| *places > named) {
            let (unnamed, cut) = self.unnamed_places(places, file_len)?;
            (spare, end) = (unnamed, cut.unwrap_or(end));
        }
        space.set(end, file_len);
        space.spare = spare;
        Ok(end)
    }

    /// Places that no block occupies: a crash left them, and they are needed, as there are only as many places as
    /// blocks. Also where the last of them begins, if the file ends within it. Nothing has been allocated yet.
    fn unnamed_places(&self, places: u64, file_len: u64) -> Result<(Vec<u64>, Option<u64>)> {
        let layout = self.layout();
        let mut marks = Marks::default();
        self.each(|_, word| match layout.entry(word) {
            Entry::At(_) => marks.mark(u64::from(word)).map(drop),
            _ => Ok(()),
        })?;
        let (mut unnamed, mut cut) = (Vec::new(), None);
        for place in 0..places {
            let Entry::At(host) = layout.entry(place as u32) else {
                continue;
            };
            if unnamed.len() == MOST_UNNAMED {
                break;
            }
            let is_unnamed = marks.mark(place)?;
            if host.saturating_add(layout.block_size()) > file_len {
                cut = is_unnamed.then(|| host - layout.lead());
                break;
            }
            if is_unnamed {
                memory::push(&mut unnamed, host)?;
            }
        }
        // The first one is to be taken first.
        unnamed.reverse();
        Ok((unnamed, cut))
    }

    /// Accepts blocks that overlap something else, before they get places of their own.
    ///
    /// # Errors
    /// As [`Blocks::used`] otherwise.
    pub(super) fn find_end_despite_overlaps(&self) -> Result<()> {
        let space = &mut *self.space.lock();
        let file_len = self.storage.len()?;
        let (end, _) = self.find_end(file_len, Overlaps::Counted)?;
        space.set(end.max(space.end.unwrap_or(0)), file_len);
        Ok(())
    }

    /// As [`Blocks::end_of_use`], from the table alone; also returns how many blocks have a place.
    fn find_end(&self, file_len: u64, overlaps: Overlaps) -> Result<(u64, u64)> {
        let layout = self.layout();
        let mut named = 0;
        // A record of more than the file holds is wrong: there is nothing.
        let mut end = self
            .keeper
            .end_on_record(&layout)
            .min(file_len)
            .max(layout.new_from());
        end = end.max(self.keeper.end_behind(&*self.storage)?);
        let outside = |index, host| {
            let text = format!(
                "'{}': block {index} stands outside of the data; check the image first",
                self.storage.name()
            );
            Err(Error::corrupt(text).with_offset(host))
        };
        self.with_directory(|directory| {
            for (part, word) in (0_u64..).zip(directory.words()) {
                if *word != FREE && directory.host(part).is_none() {
                    let text = format!(
                        "'{}': part {part} of the table has no place; check the image first",
                        self.storage.name()
                    );
                    return Err(Error::corrupt(text));
                }
            }
            if overlaps == Overlaps::Refused && directory.shares_places() {
                let text = format!(
                    "'{}': parts of the table share a place; check the image first",
                    self.storage.name()
                );
                return Err(Error::corrupt(text));
            }
            for place in directory.places() {
                end = end.max(place.end);
            }
            Ok(())
        })
        .transpose()?;
        self.each(|index, word| match layout.entry(word) {
            Entry::At(host) => {
                let block = host - layout.lead()..host + layout.block_size();
                if host >= file_len || overlaps == Overlaps::Refused && self.is_metadata(block) {
                    return outside(index, host);
                }
                end = end.max(host + layout.block_size());
                named += 1;
                Ok(())
            }
            Entry::Bad => outside(index, 0),
            Entry::Free | Entry::Zero => Ok(()),
        })?;
        Ok((end, named))
    }

    /// The end of the space in use.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a block lies outside the data, or if the table cannot be read.
    pub(crate) fn used(&self) -> Result<u64> {
        self.end_of_use(&mut self.space.lock())
    }
}
