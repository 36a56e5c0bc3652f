//! Reads of one layer: those that wait for a device or a server are sent together.

use std::sync::Arc;

use crate::error::Result;
use crate::image::Image;
use crate::storage::{ReadRange, Step, Storage, steps};

/// The most reads that are kept until they are sent.
const MOST: usize = 256;

/// What is still to be read.
pub(super) struct Reads<'a, 'b> {
    /// There is one range alone: what fills it whole is read at once.
    single: bool,
    /// The storage of those that are kept.
    storage: Option<&'a Arc<dyn Storage>>,
    kept: Vec<ReadRange<'b>>,
    base: Option<&'a Image>,
    /// Whether the layers below like many requests, once that was asked for.
    many_below: Option<bool>,
    /// What is to be read from the layers below.
    pub(super) below: Vec<ReadRange<'b>>,
}

impl<'a, 'b> Reads<'a, 'b> {
    /// Over `base`; `single` where there is one range alone.
    pub(super) fn new(base: Option<&'a Image>, single: bool) -> Self {
        Self {
            single,
            storage: None,
            kept: Vec::new(),
            base,
            many_below: None,
            below: Vec::new(),
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
        // Who watches the steps wants each of them before its read.
        if alone || storage.limits().in_flight <= 1 || storage.step_watcher().is_some() {
            steps::announce(&**storage, Step::ReadAio);
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

    /// Whether what the layers below hold is better read together.
    pub(super) fn takes_below(&mut self, whole: bool) -> bool {
        let Some(base) = self.base.filter(|_| !(self.single && whole)) else {
            return false;
        };
        let asked = || base.layers().any(Image::is_waited_for);
        self.below.len() < MOST && *self.many_below.get_or_insert_with(asked)
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
    pub(super) fn finish(mut self) -> Result<Vec<ReadRange<'b>>> {
        self.send()?;
        Ok(self.below)
    }
}
