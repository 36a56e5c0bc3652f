//! The space of new blocks: behind everything in use, and what a failed write gave back.

use crate::error::{Error, ErrorKind, Result};

use super::{Blocks, Entry, Keeper, Layout};

/// Where new blocks go.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// What is in use ends here; None until it was looked for.
    end: Option<u64>,
    /// What was behind the end of the file reads as zeroes.
    file_len: u64,
    /// Places before the end that were given back.
    spare: Vec<u64>,
}

/// Space for new blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Where the data of the first one goes; the others follow.
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

/// The end of a storage that cannot grow was reached.
fn full() -> Error {
    Error::os(libc::ENOSPC)
}

impl<K: Keeper> Blocks<K> {
    /// Space for up to `count` blocks: as many as stand in a line.
    pub(super) fn take(&self, count: u64) -> Result<Place> {
        let space = &mut *self.space.lock();
        let layout = self.layout();
        let end = self.end_of_use(space)?;
        if let Some(host) = space.spare.pop() {
            return Ok(Place {
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
        if layout.word(new_end - block).is_none() {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("'{}' has no room for more blocks", self.storage.name()),
            )
            .with_errno(libc::EFBIG));
        }
        let limits = self.storage.limits();
        if limits.fixed_len && new_end > self.storage.len()? {
            return Err(full());
        }
        self.keeper.extend(&*self.storage, new_end)?;
        let zeroed = limits.grown_is_zero && host >= space.file_len;
        space.file_len = space.file_len.max(new_end);
        space.end = Some(new_end);
        Ok(Place {
            host,
            count,
            zeroed,
        })
    }

    /// Gives back space that nothing names.
    pub(super) fn give_back(&self, place: Place) {
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

    /// Where what is in use ends; found by going through the table once.
    fn end_of_use(&self, space: &mut Space) -> Result<u64> {
        if let Some(end) = space.end {
            return Ok(end);
        }
        let file_len = self.storage.len()?;
        let end = self.find_end(file_len)?;
        space.set(end, file_len);
        Ok(end)
    }

    /// As [`Blocks::end_of_use`], by the table alone.
    fn find_end(&self, file_len: u64) -> Result<u64> {
        let layout = self.layout();
        // A record that says more than the file holds is wrong: there is nothing.
        let mut end = self
            .keeper
            .end_on_record(&layout)
            .min(file_len)
            .max(layout.start());
        self.each(|index, word| {
            if let Entry::At(host) = layout.entry(word) {
                let block = host - layout.lead()..host + layout.block_size();
                if host >= file_len || layout.is_metadata(block) {
                    let text = format!(
                        "'{}': block {index} stands outside of the data; check the image first",
                        self.storage.name()
                    );
                    return Err(Error::corrupt(text).with_offset(host));
                }
                end = end.max(host + layout.block_size());
            }
            Ok(())
        })?;
        Ok(end)
    }

    /// Where what is in use ends.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where a block stands outside of the data; of reading the table.
    pub(crate) fn used(&self) -> Result<u64> {
        self.end_of_use(&mut self.space.lock())
    }
}
