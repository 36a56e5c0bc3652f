//! Changing the virtual size, with the files that are added or dropped as a result.

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

/// Zeroes are written in pieces of this size, between which writing can be cancelled.
const ZERO_PIECE: u64 = 16 << 20;

impl Image {
    /// Changes the virtual size to a multiple of 512 (raw rounds up other sizes). New space reads as zeroes, even if a
    /// backing file is longer; with LUKS it reads as noise, like all of a new image. The image must not be used
    /// otherwise in the meantime.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Unsupported`] if the format cannot be resized,
    /// [`crate::ErrorKind::Limit`] by the policy of the open, [`crate::ErrorKind::Locked`] if another process prevents
    /// a change of the size, or if I/O fails.
    pub fn resize(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.resize_under(&JobControl::default(), len, preallocation)
    }

    /// As [`Image::resize`]; `control` can cancel the filling of new space, which it also counts, and the freeing of
    /// what is cut off.
    ///
    /// # Errors
    /// As [`Image::resize`], and [`crate::ErrorKind::Cancelled`]: the size is unchanged, except after shrinking has
    /// begun to free the space past the new end.
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

    /// As [`Image::resize_under`], for an image that grows: all new space reads as zeroes.
    ///
    /// # Errors
    /// As [`Image::resize_under`]: the size is unchanged.
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
            // The original error is the one to report.
            let _ = self.resize_under(&JobControl::default(), old, Preallocation::Off);
        }
        zeroed
    }

    /// Writes zeroes from `start` to the end, if new space does not read as zeroes in this format.
    ///
    /// # Errors
    /// If I/O fails, and [`crate::ErrorKind::Cancelled`].
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

    /// Refuses to grow the image if it is unknown what would show through.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the image grows and its backing file is not open.
    pub(crate) fn check_growth(&self, len: u64) -> Result<()> {
        match &self.backing {
            Backing::Closed if len > self.len() => Err(self.backing_closed()),
            _ => Ok(()),
        }
    }

    /// Changes the virtual size of this layer. The caller has checked that this is allowed.
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
        // Nothing may fail after the image has been resized.
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

    /// Creates the named files; returns them, and the children including them and without those that go away.
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
            // A file supplied by the policy or the caller may be any file.
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

    /// Closes and removes the files that the image no longer needs.
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
