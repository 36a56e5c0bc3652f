//! From version 3 to version 2: features that it lacks are refused or removed.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::qcow2::cache::Class;
use crate::format::qcow2::disk::{
    Autoclear, Compatible, CompressionType, Extension, Incompatible, L2Kind, V2_LEN,
};
use crate::format::qcow2::map::Entry;
use crate::format::qcow2::state::Qcow2;
use crate::job::{Job, JobControl};

use super::ALL;

impl Qcow2 {
    /// Refuses an image that version 2 cannot represent. `size` is its new virtual size, if that changes.
    pub(super) fn check_downgrade(&self, size: Option<u64>) -> Result<()> {
        // Zero clusters are replaced in the tables of snapshots, too.
        self.views.check_none()?;
        let image = self.header.lock().clone();
        if image.has_data_file() {
            return Err(Error::unsupported(
                "Cannot downgrade an image with a data file",
            ));
        }
        let harmless = Incompatible::DIRTY | Incompatible::COMPRESSION;
        let others = image.header.incompatible - harmless;
        if !others.is_empty() {
            return Err(Error::unsupported(format!(
                "Cannot downgrade an image with incompatible features {:#x} set",
                others.bits()
            )));
        }
        if image.consistent_bitmaps().is_some() {
            return Err(Error::unsupported(
                "Cannot downgrade an image with persistent bitmaps, which version 2 cannot vouch \
                 for; remove them first",
            ));
        }
        let present = image.header.size;
        let size = size.unwrap_or(present);
        let (snapshots, _) = self.snapshot_table()?;
        if snapshots
            .iter()
            .any(|one| one.extra.disk_size.unwrap_or(present) != size)
        {
            return Err(Error::unsupported(
                "Internal snapshots prevent downgrade of image",
            ));
        }
        if image.header.compression != CompressionType::Zlib && self.has_compressed_clusters()? {
            return Err(Error::unsupported(format!(
                "Cannot downgrade an image with {} compression type and existing compressed \
                 clusters",
                image.header.compression.name()
            )));
        }
        Ok(())
    }

    fn has_compressed_clusters(&self) -> Result<bool> {
        self.flush_all(self.durability)?;
        for offset in self.all_tables()?.into_keys() {
            for at in (0..self.layout.cluster_size()).step_by(self.layout.slice_bytes() as usize) {
                let slice = self.slice(Class::L2, offset + at)?;
                let found = slice.read(|words| {
                    (0..self.layout.slice_entries()).any(|index| {
                        let entry = Entry::load(words, &self.layout, index);
                        matches!(entry.word.kind(&self.layout, false), L2Kind::Compressed(_))
                    })
                });
                if found {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Converts the image to version 2, after [`Qcow2::check_downgrade`] has allowed it.
    pub(super) fn downgrade(&self, job: &mut Job) -> Result<()> {
        let _all = self.inflight.reserve(ALL);
        self.write_out_and_reclaim()?;
        // References are dropped and COPIED flags are set: not in one write.
        let begun = self.begin_flags()?;
        let replaced = self.replace_zero_clusters(job);
        let marked = self
            .write_out_and_reclaim()
            .and_then(|()| self.mark_active(false, &JobControl::default()))
            .and_then(|()| self.end_flags(begun));
        if marked.is_err() {
            // The dirty bit stays set, so that the next writer starts by rebuilding the refcounts.
            self.give_up_writing();
        }
        replaced.and(marked)?;
        self.switch_whole_header(|image| {
            let header = &mut image.header;
            header.version = 2;
            header.header_len = V2_LEN;
            header.incompatible = Incompatible::empty();
            header.compatible = Compatible::empty();
            header.autoclear = Autoclear::empty();
            header.compression = CompressionType::Zlib;
            header.rest.clear();
            // Bitmaps whose consistency is not certain are dropped; their clusters are leaked.
            image.extensions.retain(|extension| {
                !matches!(
                    extension,
                    Extension::FeatureNames(_) | Extension::Bitmaps(_)
                )
            });
        })?;
        self.version.store(2, Ordering::Release);
        Ok(())
    }
}
