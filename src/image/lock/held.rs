//! Locks that an image takes after it was opened.

use crate::error::{Result, ResultExt};
use crate::format::FileRole;
use crate::image::{Child, Image, OpenOptions, lock};
use crate::storage::LockRequest;

/// More than the locks of an open plain disk, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Image);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // Dropping a lock fails only where taking it would have.
        let _ = self.0.lock_disk(lock::of_plain_disk(false), true);
    }
}

impl Image {
    /// The right to change the size: a plain disk does not claim it until somebody changes it.
    /// None for a format that has it since it was opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`], as if the image could not be opened.
    pub(crate) fn claim_size(&self) -> Result<Option<Claim<'_>>> {
        self.claim(lock::of_plain_disk(true), true)
            .context(|| format!("Could not open '{}'", self.location.display()))
    }

    /// The right to change the keys of a plain disk: those who have it open know the old ones.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`].
    pub(crate) fn claim_keys(&self) -> Result<Option<Claim<'_>>> {
        self.claim(lock::of_key_change(), false)
    }

    /// Nobody may read this layer any more, for one below it is about to change.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`].
    pub(crate) fn hide_from_readers(&self) -> Result<()> {
        self.storage.lock(lock::of_hidden_layer())
    }

    /// Changes the locks of every file of this layer, down to the images that serve as its files.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`].
    pub(in crate::image) fn lock_files(&self, request: LockRequest) -> Result<()> {
        fn lock_nodes(nodes: &[Child], request: LockRequest) -> Result<()> {
            nodes.iter().map(Child::node).try_for_each(|node| {
                if let Some(image) = node.image() {
                    image.lock_files(request)
                } else if let Some((_, children)) = node.filter() {
                    lock_nodes(children, request)
                } else {
                    node.storage().lock(request)
                }
            })
        }
        lock_nodes(self.children(), request)
    }

    /// Keeps the writers of plain files out of the whole chain where `options` ask for that.
    pub(in crate::image) fn kept_from_writers(self, options: &OpenOptions) -> Result<Self> {
        let mut layer = options.deny_writers.then_some(&self);
        while let Some(image) = layer {
            if !image.writable && !image.settings.force_share {
                image.keep_writers_out(options.metadata_only)?;
            }
            layer = image.backing().map(|base| &**base);
        }
        Ok(self)
    }

    fn keep_writers_out(&self, metadata_only: bool) -> Result<()> {
        let request = lock::of_image(lock::Use {
            has_metadata: false,
            writable: false,
            metadata_only,
            deny_writers: true,
            force_share: false,
        });
        // The locks of an image file with metadata keep writers out anyway.
        let mut locked = Ok(());
        self.visit_files(&mut |file| {
            if locked.is_ok() && (file.role != FileRole::Image || self.is_plain()) {
                locked = file.storage.lock(request);
            }
        });
        locked
    }

    fn claim(&self, request: LockRequest, header_too: bool) -> Result<Option<Claim<'_>>> {
        if !self.is_plain() {
            return Ok(None);
        }
        // Made first: it gives back what a failure leaves half taken.
        let claim = Claim(self);
        self.lock_disk(request, header_too)?;
        Ok(Some(claim))
    }

    fn lock_disk(&self, request: LockRequest, header_too: bool) -> Result<()> {
        self.storage.lock(request)?;
        let headers = self.children.iter();
        headers
            .filter(|child| header_too && child.role() == FileRole::Header)
            .try_for_each(|header| header.node().storage().lock(request))
    }

    /// Whether the file is the disk itself, but for a header of its own.
    fn is_plain(&self) -> bool {
        !self.driver.has_metadata
    }
}
