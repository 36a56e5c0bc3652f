//! Reads of one layer: those that wait for a device or a server are sent together.

use std::sync::Arc;

use crate::error::Result;
use crate::memory::lack;
use crate::storage::{ReadRange, Step, Storage, steps};

/// The most reads that are kept until they are sent.
const MOST: usize = 256;

/// Parts of buffers that are to be filled. One alone, as most are, takes no memory.
#[derive(Default)]
pub(super) struct Pieces<'b> {
    first: Option<ReadRange<'b>>,
    others: Vec<ReadRange<'b>>,
}

impl<'b> Pieces<'b> {
    /// Adds one, unless it is empty.
    ///
    /// # Errors
    /// Where there is no memory.
    pub(super) fn push(&mut self, piece: ReadRange<'b>) -> Result<()> {
        if piece.1.is_empty() {
            return Ok(());
        }
        if self.first.is_none() {
            self.first = Some(piece);
            return Ok(());
        }
        self.others.try_reserve(1).map_err(|_| lack())?;
        self.others.push(piece);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn is_single(&self) -> bool {
        self.first.is_some() && self.others.is_empty()
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = ReadRange<'b>> {
        self.first.into_iter().chain(self.others)
    }
}

/// What is still to be read of one layer.
pub(super) struct Reads<'a, 'b> {
    /// There is one range alone: what fills it whole is read at once.
    single: bool,
    /// The layer has a format, whose steps are announced.
    announces: bool,
    /// The storage of those that are kept.
    storage: Option<&'a Arc<dyn Storage>>,
    kept: Vec<ReadRange<'b>>,
    /// What is to be read from the layer below.
    pub(super) below: Pieces<'b>,
}

impl<'a, 'b> Reads<'a, 'b> {
    /// None yet; `single` where there is one range alone, `announces` where the layer has a format.
    pub(super) fn new(single: bool, announces: bool) -> Self {
        Self {
            single,
            announces,
            storage: None,
            kept: Vec::new(),
            below: Pieces::default(),
        }
    }

    /// Reads from `storage`, now or by [`Reads::finish`]. `whole` says that it fills its range.
    ///
    /// # Errors
    /// Of the storage; also those of earlier reads.
    pub(super) fn take(
        &mut self,
        storage: &'a Arc<dyn Storage>,
        range: ReadRange<'b>,
        whole: bool,
    ) -> Result<()> {
        let alone = self.single && whole;
        if alone || !steps::are_sent_together(&**storage) {
            if self.announces {
                steps::announce(&**storage, Step::ReadAio);
            }
            return storage.read_at(range.1, range.0);
        }
        let same = self.storage.is_some_and(|kept| Arc::ptr_eq(kept, storage));
        if !same || self.kept.len() >= MOST {
            self.send()?;
        }
        self.storage = Some(storage);
        self.kept.push(range);
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        match self.storage {
            Some(storage) if !self.kept.is_empty() => {
                let sent = storage.read_many_at(&mut self.kept);
                self.kept.clear();
                sent
            }
            _ => Ok(()),
        }
    }

    /// Reads what was kept; gives what is to be read below.
    ///
    /// # Errors
    /// Of the storages.
    pub(super) fn finish(mut self) -> Result<Pieces<'b>> {
        self.send()?;
        Ok(self.below)
    }
}
