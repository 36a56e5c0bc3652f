//! Changing the options of an open image.
//!
//! Everything that can be refused is refused first. Then each change is a separate step that leaves a valid image: key
//! slots, version 3, the header's bits, the refcount width, the size, and finally version 2. An amended image stays
//! open and reflects the changes, except that it no longer writes refcounts late.

mod downgrade;
mod options;
mod refcounts;
mod tables;
mod upgrade;
mod zeroes;

use std::sync::atomic::Ordering;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::format::crypt::{self, HeaderArea};
use crate::format::{Amend, AmendContext};
use crate::job::Job;
use crate::options::Values;
use crate::storage::{Durability, Preallocation};

use super::disk::{Autoclear, Compatible, CryptMethod, Extension, Incompatible};
use super::state::Qcow2;

pub use options::OPTIONS;
use options::{Amended, Present};

/// All guest clusters: nothing else remaps any in the meantime.
const ALL: std::ops::Range<u64> = 0..u64::MAX;

impl Amend for Qcow2 {
    fn amend(&self, context: &AmendContext<'_>, job: &mut Job) -> Result<()> {
        self.check_writable()?;
        self.check_lost()?;
        let _one = self.reshaping.lock();
        let now = self.present()?;
        let keys = self.keyslot_place(context.values)?;
        let target = Amended::new(context.values, &now)?;
        if target.version < now.version {
            self.check_downgrade(target.size)?;
        }
        if target.version > now.version {
            self.check_snapshots_complete()?;
        }
        if let Some(size) = target.size {
            self.check_new_size(size, target.version.max(now.version))?;
        }
        job.tick()?;
        self.write_refcounts_at_once()?;
        if let Some((id, offset)) = keys {
            let area = HeaderArea::new(self.storage.clone(), offset);
            let force = context.force;
            crypt::change_keyslots(
                &area,
                context.values,
                "encrypt.",
                context.objects,
                &id,
                force,
                job.control(),
            )?;
        }
        if target.version > now.version {
            self.upgrade()?;
        }
        self.amend_header(&target)?;
        if target.width != now.width {
            self.change_refcount_width(target.width, job)?;
        }
        if let Some(size) = target.size.filter(|size| *size != self.virtual_size()) {
            job.tick()?;
            self.change_size(size, Preallocation::Off, context.below, job.control())?;
        }
        if target.version < now.version {
            self.downgrade(job)?;
        }
        self.flush_all(self.durability)
    }
}

impl Qcow2 {
    fn present(&self) -> Result<Present> {
        let image = self.header.lock();
        Ok(Present {
            version: image.header.version,
            width: image.header.geometry()?.refcount_width(),
            lazy: image.header.compatible.contains(Compatible::LAZY_REFCOUNTS),
            has_data_file: image.has_data_file(),
            raw_data_file: image.has_data_file()
                && image.header.autoclear.contains(Autoclear::RAW_DATA_FILE),
            backing_file: image.backing_file.clone().map(BString::from),
            backing_format: image.backing_format(),
        })
    }

    /// The ID of the secret that opened the image and the offset of its key slots, if these are to change.
    fn keyslot_place(&self, values: &Values) -> Result<Option<(String, u64)>> {
        if !crypt::changes_keyslots(values, "encrypt.") {
            return Ok(None);
        }
        let image = self.header.lock();
        match (image.header.crypt, image.crypto()) {
            (CryptMethod::None, _) => Err(Error::invalid(
                "Can't amend encryption options - encryption not present",
            )),
            (CryptMethod::Luks, Some(place)) => {
                let id = self.secret_id.clone();
                let id = id.ok_or_else(|| Error::needs_secret("encrypt.key-secret"))?;
                Ok(Some((id, place.offset)))
            }
            _ => Err(Error::invalid(
                "Only LUKS encryption options can be amended",
            )),
        }
    }

    /// Refuses a size that the image cannot have, at the version that it will have then.
    fn check_new_size(&self, size: u64, version: u32) -> Result<()> {
        if size > i64::MAX as u64 {
            return Err(Error::invalid("Image size cannot be negative"));
        }
        self.check_resizable(size, version)
    }

    /// Stops writing refcounts late, under the dirty bit.
    fn write_refcounts_at_once(&self) -> Result<()> {
        if !self.lazy() {
            return Ok(());
        }
        // This comes first: each pass from now on writes refcounts.
        self.lazy.store(false, Ordering::Release);
        self.write_metadata(true, Durability::None)?;
        self.barrier()?;
        self.update_header(|header| header.incompatible -= Incompatible::DIRTY)?;
        self.barrier()
    }

    /// Makes the changes that only the header records.
    fn amend_header(&self, target: &Amended) -> Result<()> {
        if self.version() >= 3 {
            self.update_header(|header| {
                header
                    .compatible
                    .set(Compatible::LAZY_REFCOUNTS, target.lazy);
                if target.drop_raw {
                    header.autoclear -= Autoclear::RAW_DATA_FILE;
                }
            })?;
            self.barrier()?;
        }
        let Some(name) = &target.data_file else {
            return Ok(());
        };
        self.switch_whole_header(|image| {
            image
                .extensions
                .retain(|extension| !matches!(extension, Extension::DataFile(_)));
            if !name.is_empty() {
                let name = name.to_vec();
                image.extensions.insert(0, Extension::DataFile(name));
            }
        })
    }

    /// Rewrites the header cluster, with a barrier on both sides. After a failure it is unknown which header is in
    /// effect: no more writes are allowed then.
    fn switch_whole_header(&self, change: impl Fn(&mut super::disk::ImageHeader)) -> Result<()> {
        self.barrier()?;
        // A header that does not fit is detected before anything is written.
        self.check_replacement(&change)?;
        let switched = self.replace_header(change).and_then(|()| self.barrier());
        if switched.is_err() {
            self.give_up_writing();
        }
        switched
    }

    /// The state of the disk is no longer known: nothing is written from now on.
    pub(super) fn give_up_writing(&self) {
        self.lost.store(true, Ordering::Release);
        self.broken.store(true, Ordering::Release);
    }

    /// The error for an image whose tables contradict each other.
    fn damaged(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "'{}': {what}; it must be checked first",
                self.storage.name()
            ),
        )
    }
}
