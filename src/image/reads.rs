//! Reads of one layer: those that wait for a device or a server are submitted together.

use std::sync::Arc;

use crate::error::Result;
use crate::memory::lack;
use crate::storage::{ReadRange, Step, Storage, steps};

/// Maximum number of reads that are queued before they are submitted.
const MOST: usize = 256;

/// Parts of buffers to be filled. A single one, the usual case, does not allocate memory.
#[derive(Default)]
pub(super) struct Pieces<'b> {
    first: Option<ReadRange<'b>>,
    others: Vec<ReadRange<'b>>,
}

impl<'b> Pieces<'b> {
    /// Adds one, unless it is empty.
    ///
    /// # Errors
    /// If memory is exhausted.
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

/// What remains to be read for one layer.
pub(super) struct Reads<'a, 'b> {
    /// There is only one range: a read that fills it completely is submitted at once.
    single: bool,
    /// The layer has a format, whose steps are announced.
    announces: bool,
    /// The storage of the queued reads.
    storage: Option<&'a Arc<dyn Storage>>,
    kept: Vec<ReadRange<'b>>,
    /// What must be read from the layer below.
    pub(super) below: Pieces<'b>,
}

impl<'a, 'b> Reads<'a, 'b> {
    /// An empty queue; `single` if there is only one range, `announces` if the layer has a format.
    pub(super) fn new(single: bool, announces: bool) -> Self {
        Self {
            single,
            announces,
            storage: None,
            kept: Vec::new(),
            below: Pieces::default(),
        }
    }

    /// Reads from `storage`, now or in [`Reads::finish`]. `whole` means that the read fills its range.
    ///
    /// # Errors
    /// Those of the storage, including those of earlier reads.
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

    /// Carries out the queued reads; returns what must be read below.
    ///
    /// # Errors
    /// Those of the storages.
    pub(super) fn finish(mut self) -> Result<Pieces<'b>> {
        self.send()?;
        Ok(self.below)
    }
}
