//! Another virtual size, with the files that it takes or leaves.

use std::sync::Arc;

use bstr::{BString, ByteSlice};

use super::build::MoreFile;
use super::node::Child;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{AddedFiles, FileRole, Resize, ResizeFiles};
use crate::image::{Backing, Image, StandingFile};
use crate::job::JobControl;
use crate::memory;
use crate::policy::check_virtual_size;
use crate::storage::{Preallocation, Storage, ZeroFlags};

/// Zeroes are written in pieces of this size, between which that can be ended.
const ZERO_PIECE: u64 = 16 << 20;

impl Image {
    /// Changes the virtual size, a multiple of 512 except of raw, which rounds up. What is new reads as
    /// zeroes, also where a backing file is longer; of LUKS as noise, as all of a new image. Nothing else may use the
    /// image meanwhile.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Unsupported`] where the format cannot,
    /// [`crate::ErrorKind::Limit`] by the policy of the open, [`crate::ErrorKind::Locked`] where
    /// another process keeps the size, or of I/O.
    pub fn resize(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.resize_under(&JobControl::default(), len, preallocation)
    }

    /// As [`Image::resize`]; `control` ends the filling of new space, and counts it, and
    /// the freeing of what a shrink cuts off.
    ///
    /// # Errors
    /// As [`Image::resize`], and [`crate::ErrorKind::Cancelled`]: the size is as it was, except that of a
    /// shrink that had begun to free what lay behind its new end.
    pub fn resize_under(
        &self,
        control: &JobControl,
        len: u64,
        preallocation: Preallocation,
    ) -> Result<()> {
        self.check_writable(0, 0)?;
        check_virtual_size(len, self.settings.max_len)?;
        self.check_growth(len)?;
        let locks = self.lock_size()?;
        self.set_size(len, preallocation, control)?;
        drop(locks);
        self.written()
    }

    /// As [`Image::resize_under`], for an image that becomes longer: all that is new reads as zeroes.
    ///
    /// # Errors
    /// As [`Image::resize_under`]: the size is as it was.
    pub(crate) fn lengthen_under(
        &self,
        control: &JobControl,
        len: u64,
        preallocation: Preallocation,
    ) -> Result<()> {
        let old = self.len();
        self.resize_under(control, len, preallocation)?;
        let zeroed = self.zero_grown(old, control);
        if zeroed.is_err() {
            // The error to report is the first one.
            let _ = self.resize_under(&JobControl::default(), old, Preallocation::Off);
        }
        zeroed
    }

    /// Writes zeroes from `start` to the end, where the format does not show them in what was added there.
    ///
    /// # Errors
    /// Of I/O, and [`crate::ErrorKind::Cancelled`].
    pub(super) fn zero_grown(&self, start: u64, control: &JobControl) -> Result<()> {
        if self.resizer()?.grown_is_zero() {
            return Ok(());
        }
        let (mut at, end) = (start, self.len());
        while at < end {
            control.checkpoint()?;
            let piece = (end - at).min(ZERO_PIECE);
            self.write_zeroes(at, piece, ZeroFlags::empty())?;
            at += piece;
        }
        Ok(())
    }

    /// Refuses to grow where it is unknown what would show through.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the image grows and its backing file is not open.
    pub(crate) fn check_growth(&self, len: u64) -> Result<()> {
        match &self.backing {
            Backing::Closed if len > self.len() => Err(self.backing_closed()),
            _ => Ok(()),
        }
    }

    /// Changes the virtual size of this layer. Who calls it has asked whether that may be.
    ///
    /// # Errors
    /// As [`Image::resize`], and [`crate::ErrorKind::Cancelled`].
    pub(super) fn set_size(
        &self,
        len: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        let resizer = self.resizer()?;
        let _under_way = self.begin_change()?;
        match resizer.files() {
            Some(files) => self.resize_files(resizer, files, len, preallocation, control),
            None => resizer.resize_above(len, preallocation, self, control),
        }
    }

    fn resize_files(
        &self,
        resizer: &dyn Resize,
        files: &dyn ResizeFiles,
        len: u64,
        preallocation: Preallocation,
        control: &JobControl,
    ) -> Result<()> {
        let names = files.to_add(len)?;
        let gone = files.to_drop(len)?;
        if names.is_empty() && gone.is_empty() {
            return resizer.resize_above(len, preallocation, self, control);
        }
        let (mut made, children) = self.with_more(&names, &gone, control)?;
        made.iter_mut().try_for_each(MoreFile::empty)?;
        let added = memory::collect(made.iter().map(|file| file.child().node.storage.clone()))?;
        // Nothing must fail once the image has another size.
        let earlier = self.children.replace(children)?;
        let added = AddedFiles::new(&added);
        let resized = files.resize_with(&added, len, preallocation, self, control);
        if resized.is_ok() || added.are_named() {
            made.into_iter().for_each(MoreFile::keep);
        }
        if resized.is_err() {
            self.children.restore(earlier);
        }
        resized?;
        self.remove(&gone, self.children.before(earlier), control)
    }

    /// Makes the files of these names; the children with them, and without those that go.
    fn with_more(
        &self,
        names: &[BString],
        gone: &[(BString, Arc<dyn Storage>)],
        control: &JobControl,
    ) -> Result<(Vec<MoreFile>, Vec<Child>)> {
        let mut children = Vec::new();
        memory::reserve(&mut children, self.children.len() + names.len())?;
        let goes = |child: &Child| {
            let storage = child.node.storage();
            gone.iter().any(|(_, other)| Arc::ptr_eq(storage, other))
        };
        children.extend(self.children.iter().filter(|child| !goes(child)).cloned());
        let mut made = Vec::new();
        if names.is_empty() {
            return Ok((made, children));
        }
        let maker = self.more_files.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "An image that cannot get further files",
            )
        })?;
        let standing = self.standing_files()?;
        memory::reserve(&mut made, names.len())?;
        let is_extent = |child: &&Child| child.role == FileRole::Extent;
        let before = children.iter().filter(is_extent).count();
        let like = children.iter().rfind(is_extent);
        let like = like.map_or(&self.storage, |child| child.node.storage());
        let like = like.clone();
        for (n, name) in names.iter().enumerate() {
            control.checkpoint()?;
            let file = maker.make(name.as_bstr(), before + n, &like)?;
            // What the policy or the caller has given may be anything.
            let id = file.given_id();
            let same = |other: &&StandingFile| Some(&other.id) == id.as_ref();
            if let Some(other) = standing.iter().find(same).filter(|_| id.is_some()) {
                return Err(Error::invalid(format!(
                    "'{name}' is the {} of '{}' already",
                    other.role.words(),
                    other.of
                )));
            }
            children.push(file.child().clone());
            made.push(file);
        }
        Ok((made, children))
    }

    /// Ends the use of files that the image does without now, and removes them.
    fn remove(
        &self,
        gone: &[(BString, Arc<dyn Storage>)],
        children: &[Child],
        control: &JobControl,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for (name, storage) in gone {
            let mut children = children.iter();
            let child = children.find(|child| Arc::ptr_eq(child.node.storage(), storage));
            let (Some(child), Some(maker)) = (child, &self.more_files) else {
                continue;
            };
            let ended = child.node.finish(control);
            let removed = ended.and_then(|()| maker.remove(name.as_bstr(), child));
            outcome = outcome.and(removed);
        }
        outcome.map_err(|error| {
            error.context(
                "The image has its new size, but a file that it does without is still there",
            )
        })
    }
}
