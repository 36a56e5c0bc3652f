//! Changes to layers of a chain: emptying this one, and setting another backing file.

use std::sync::atomic::Ordering;

use bstr::BStr;

use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::{BackingChange, BackingRef, Format, NewParent};
use crate::storage::{Durability, Step, shorten};

use super::cache::Class;
use super::disk::{Extension, ImageHeader};
use super::state::Qcow2;

/// Maximum length of a backing file name, in bytes.
const MAX_NAME: usize = 1023;

/// Maximum number of pending references while an image is emptied; many, because each round syncs.
const EMPTY_BATCH: usize = 1 << 20;

/// The extension for the format of a backing file.
fn format_extension(backing: Option<&BackingRef>) -> Result<Option<Extension>> {
    let format = backing.and_then(|backing| backing.format.as_ref());
    let format = format.map(|name| Extension::backing_format(BStr::new(name)));
    format.transpose()
}

/// Sets another backing file in a header.
fn record(header: &mut ImageHeader, backing: Option<&BackingRef>, format: Option<Extension>) {
    let is_format = |extension: &Extension| matches!(extension, Extension::BackingFormat(_));
    header.extensions.retain(|extension| !is_format(extension));
    header.backing_file = backing.map(|backing| backing.name.to_vec());
    if let Some(format) = format {
        header.extensions.insert(0, format);
    }
}

impl BackingChange for Qcow2 {
    fn check_backing(&self, backing: Option<&BackingRef>, _: Option<&NewParent>) -> Result<()> {
        self.check_writable()?;
        if backing.is_some_and(|backing| backing.name.len() > MAX_NAME) {
            return Err(Error::backing_name_too_long());
        }
        if backing.is_some() && self.raw_data_file {
            return Err(Error::invalid(
                "Cannot set a backing file for images with data-file-raw",
            ));
        }
        let format = format_extension(backing)?;
        self.check_replacement(|new| record(new, backing, format))
    }

    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()> {
        self.check_backing(backing, parent)?;
        let format = format_extension(backing)?;
        // What the guest sees above the new backing file must be on disk before the name is.
        self.flush_all(self.durability)?;
        self.replace_header(|new| record(new, backing, format))?;
        self.has_backing.store(backing.is_some(), Ordering::Release);
        self.barrier()
    }

    fn note_parent(&self, _: &NewParent) -> Result<()> {
        // No two backing files can be told apart.
        Ok(())
    }

    fn map_held(&self, offset: u64, len: u64) -> Result<Extent> {
        Format::map(self, offset, len)
    }

    fn make_empty(&self) -> Result<()> {
        self.prepare_write()?;
        self.flush_all(self.durability)?;
        self.announce(Step::EmptyImagePrepare);
        {
            let _all = self.inflight.reserve(0..u64::MAX);
            let tables = self.l1.read().entries.len() as u64;
            for index in 0..tables {
                let guest = index << self.layout.l1_shift();
                if let Some(table) = self.l2_table(guest)? {
                    self.drop_table(guest, table)?;
                }
                if self.limbo.waiting() > EMPTY_BATCH {
                    self.write_metadata(true, Durability::None)?;
                    self.reclaim()?;
                }
            }
        }
        self.write_metadata(true, Durability::None)?;
        // Two rounds: releasing clusters may need the epoch to advance once.
        for _ in 0..2 {
            self.reclaim()?;
        }
        self.flush_all(self.durability)?;
        self.cut_off()
    }
}

impl Qcow2 {
    /// Whether the image names a backing file.
    pub(super) fn has_backing(&self) -> bool {
        self.has_backing.load(Ordering::Acquire)
    }

    /// Truncates the file behind the last cluster in use.
    fn cut_off(&self) -> Result<()> {
        if self.storage.limits().fixed_len {
            return Ok(());
        }
        // Nothing is allocated in the meantime.
        let alloc = self.alloc.lock();
        let per_block = self.counts().refcount_block_entries();
        let per_slice = self.counts().slice_refcounts();
        let mut end = 0;
        'blocks: for block in (0..alloc.table.len() as u64).rev() {
            if alloc.block(block) == 0 {
                continue;
            }
            let first = block * per_block;
            for slice in (0..per_block / per_slice).rev() {
                let first = first + slice * per_slice;
                let Some(offset) = self.refcount_slice(&alloc, first)? else {
                    continue;
                };
                let slice = self.slice(Class::Refcount, offset)?;
                let last = slice.read(|words| {
                    (0..per_slice)
                        .rev()
                        .find(|index| self.counts().refcount(words, *index) != 0)
                });
                if let Some(last) = last {
                    end = (first + last + 1) << self.layout.cluster_bits();
                    break 'blocks;
                }
            }
        }
        match end {
            0 => Ok(()),
            end => shorten::cut(&*self.storage, end),
        }
    }
}
