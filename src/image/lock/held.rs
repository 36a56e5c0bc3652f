//! Locks that an image takes after it has been opened.

use std::ops::Range;

use crate::error::Result;
use crate::extent::ExtentKind;
use crate::format::FileRole;
use crate::image::{Child, Image, Node, OpenOptions, lock};
use crate::storage::{LockRequest, Storage};

/// Additional locks of an open plain disk, held until this is dropped.
#[derive(Debug)]
pub(crate) struct StrongerLocks<'a>(&'a Image);

impl Drop for StrongerLocks<'_> {
    fn drop(&mut self) {
        // Downgrading the locks fails only where upgrading them would have failed.
        let _ = self.0.lock_disk(self.0.plain_locks(false), true);
    }
}

impl Image {
    /// Acquires the right to change the size: a plain disk does not hold it until the size is changed. None for a
    /// format that has held it since it was opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`], as if the image could not be opened.
    pub(crate) fn lock_size(&self) -> Result<Option<StrongerLocks<'_>>> {
        self.strengthen(self.plain_locks(true), true)
            .map_err(|error| error.could_not_open(self.location.display()))
    }

    /// Acquires the right to change the keys of a plain disk: others that have it open rely on the old ones.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`].
    pub(crate) fn lock_keys(&self) -> Result<Option<StrongerLocks<'_>>> {
        self.strengthen(lock::of_key_change(self.settings.deny_writers), false)
    }

    /// Makes this layer unreadable for others, because one below it is about to change.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`].
    pub(crate) fn hide_from_readers(&self) -> Result<()> {
        self.lock_files(lock::of_hidden_layer())
    }

    /// Changes the locks of every file of this layer, including those of images that serve as its files.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`].
    pub(in crate::image) fn lock_files(&self, request: LockRequest) -> Result<()> {
        lock_nodes(self.children(), request, &|image| image.lock_files(request))
    }

    /// If `options` request it, keeps writers out of the whole chain, and of the chains of images that serve as its
    /// files.
    pub(in crate::image) fn kept_from_writers(self, options: &OpenOptions) -> Result<Self> {
        if options.deny_writers {
            self.keep_writers_out(options.metadata_only)?;
        }
        Ok(self)
    }

    fn keep_writers_out(&self, metadata_only: bool) -> Result<()> {
        let mut layers = self.layers().filter(|layer| !layer.settings.force_share);
        layers.try_for_each(|layer| {
            let request = lock::of_image(lock::Use {
                has_metadata: layer.writable && !layer.is_plain(),
                writable: layer.writable,
                metadata_only,
                deny_writers: true,
                force_share: false,
            });
            // An image that serves as a file is never opened only for its metadata.
            lock_nodes(&layer.children, request, &|image| {
                image.keep_writers_out(false)
            })
        })
    }

    /// Registers what this process writes to through this image, so that no other handle in this process writes to it.
    /// An image with metadata is protected by its locks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Locked`] if another handle writes to it.
    pub(in crate::image) fn claim_disk(&self) -> Result<()> {
        if !self.writable || self.settings.force_share {
            return Ok(());
        }
        self.claim(0..self.len())
    }

    fn claim(&self, part: Range<u64>) -> Result<()> {
        if self.driver.has_metadata {
            return Ok(());
        }
        let place = self.format.locate(part.start, 1)?.kind;
        let part = match place {
            ExtentKind::Data { host_offset, .. } if self.driver.is_transparent => {
                host_offset..part.end.saturating_add(host_offset - part.start)
            }
            // There may also be a header.
            _ => 0..u64::MAX,
        };
        let mut nodes = self.children.iter().map(Child::node);
        nodes.try_for_each(|node| match node.image() {
            Some(image) => image.claim(part.clone()),
            None => claim_file(&**node.storage(), part.clone()),
        })
    }

    /// The locks of a plain disk that is open for writing.
    fn plain_locks(&self, resizes: bool) -> LockRequest {
        lock::of_plain_disk(resizes, self.settings.deny_writers)
    }

    fn strengthen(
        &self,
        request: LockRequest,
        header_too: bool,
    ) -> Result<Option<StrongerLocks<'_>>> {
        if !self.is_plain() {
            return Ok(None);
        }
        // Created first, so that it releases the locks if only some of them can be taken.
        let stronger = StrongerLocks(self);
        self.lock_disk(request, header_too)?;
        Ok(Some(stronger))
    }

    /// Changes the locks of the files of a plain disk, including those of a plain disk that serves as its file: other
    /// images have held theirs since they were opened.
    fn lock_disk(&self, request: LockRequest, header_too: bool) -> Result<()> {
        let inner = |image: &Self| match image.is_plain() {
            true => image.lock_disk(request, header_too),
            false => Ok(()),
        };
        let mut children = self.children.iter();
        children.try_for_each(|child| match child.role() {
            FileRole::Header if !header_too => Ok(()),
            _ => lock_nodes(std::slice::from_ref(child), request, &inner),
        })
    }

    /// Whether the file is the disk itself, except for a header of its own.
    fn is_plain(&self) -> bool {
        !self.driver.has_metadata
    }
}

/// Claims a part of a file; if the part reaches the end of the file, it may grow.
fn claim_file(storage: &dyn Storage, part: Range<u64>) -> Result<()> {
    let Some(host) = storage.host() else {
        return Ok(());
    };
    match part.end < storage.len()? {
        true => host.claim(part),
        false => host.claim(part.start..u64::MAX),
    }
}

/// Changes the locks of the files of these nodes; `inner` is called for each image among them and below filters. A
/// filter adds any other locks that it needs on its children itself.
fn lock_nodes(
    nodes: &[Child],
    request: LockRequest,
    inner: &dyn Fn(&Image) -> Result<()>,
) -> Result<()> {
    nodes
        .iter()
        .map(Child::node)
        .try_for_each(|node| match node.image() {
            Some(image) => inner(image),
            None => {
                node.storage().lock(request)?;
                images_below(node, inner)
            }
        })
}

/// Calls `inner` for each image below a filter.
fn images_below(node: &Node, inner: &dyn Fn(&Image) -> Result<()>) -> Result<()> {
    let children = node.filter().map_or(&[][..], |(_, children)| children);
    let mut nodes = children.iter().map(Child::node);
    nodes.try_for_each(|node| match node.image() {
        Some(image) => inner(image),
        None => images_below(node, inner),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::image::open_file;
    use crate::location::Location;
    use crate::policy::OpenPolicy;
    use crate::storage::Permissions;

    const NESTED: &str = r#"json:{"driver":"raw","file":{"driver":"raw","file":{"filename":"@"}}}"#;
    const FILTERED: &str =
        r#"json:{"driver":"blkdebug","image":{"driver":"raw","file":{"filename":"@"}}}"#;

    fn open(name: &str, options: &OpenOptions) -> Image {
        let options = OpenOptions {
            policy: OpenPolicy::permissive(),
            ..options.clone()
        };
        Image::open(&Location::parse(name).unwrap(), &options).unwrap()
    }

    /// Why `request` is not granted on the file, if so; if it is granted, it is released at once.
    fn refused(path: &str, request: LockRequest) -> Option<ErrorKind> {
        let options = OpenOptions::default();
        let (file, _) = open_file(&Location::from_path(path), &options).unwrap();
        file.lock(request).err().map(|error| error.kind())
    }

    #[test]
    fn one_handle_of_a_process_writes_to_a_plain_disk_or_to_parts_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d");
        std::fs::write(&path, [0; 64 << 10]).unwrap();
        let name = path.to_str().unwrap();
        let window = |offset: u64, size: u64| {
            format!(
                r#"json:{{"driver":"raw","offset":{offset},"size":{size},"file":{{"driver":"file","filename":"{name}"}}}}"#
            )
        };
        let plain =
            format!(r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"{name}"}}}}"#);
        let unlocked = format!(
            r#"json:{{"driver":"raw","file":{{"driver":"file","filename":"{name}","locking":"off"}}}}"#
        );
        let options = |writable| OpenOptions {
            writable,
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let attempt =
            |name: &str, writable| Image::open(&Location::parse(name).unwrap(), &options(writable));
        let first = attempt(&window(0, 32768), true).unwrap();
        let second = attempt(&window(32768, 16384), true).unwrap();
        for other in [
            window(32256, 512),
            window(49151 / 512 * 512, 1024),
            plain.clone(),
        ] {
            let refused = attempt(&other, true).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Locked, "{other}: {refused}");
            assert!(refused.to_string().contains("in this process"), "{refused}");
        }
        attempt(&plain, false).unwrap();
        attempt(&unlocked, true).unwrap();
        drop((first, second));
        let first = attempt(&plain, true).unwrap();
        attempt(&window(0, 512), true).unwrap_err();
        drop(first);
        attempt(&plain, true).unwrap();
    }

    #[test]
    fn locks_reach_the_files_of_images_inside_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk").to_str().unwrap().to_owned();
        std::fs::write(&path, [0; 4096]).unwrap();
        let uses = |uses| LockRequest {
            uses,
            denies: Permissions::empty(),
        };
        let denies_resize = LockRequest {
            uses: Permissions::empty(),
            denies: Permissions::RESIZE,
        };
        let locked = Some(ErrorKind::Locked);
        for name in [&path, NESTED, FILTERED] {
            let name = name.replace('@', &path);
            let reader = OpenOptions::default();
            let image = open(&name, &reader);
            assert_eq!(refused(&path, uses(Permissions::WRITE)), None, "{name}");
            image.hide_from_readers().unwrap();
            let read = uses(Permissions::CONSISTENT_READ);
            assert_eq!(refused(&path, read), locked, "{name}");
            drop(image);

            let image = open(
                &name,
                &OpenOptions {
                    deny_writers: true,
                    ..reader.clone()
                },
            );
            assert_eq!(refused(&path, uses(Permissions::WRITE)), locked, "{name}");
            assert_eq!(refused(&path, read), None, "{name}");
            drop(image);

            // A writer that denies other writers still does so after a resize.
            let image = open(
                &name,
                &OpenOptions {
                    writable: true,
                    deny_writers: true,
                    ..reader.clone()
                },
            );
            for _ in 0..2 {
                assert_eq!(refused(&path, uses(Permissions::WRITE)), locked, "{name}");
                assert_eq!(refused(&path, read), None, "{name}");
                assert!(image.lock_size().unwrap().is_some());
            }
            drop(image);

            let image = open(
                &name,
                &OpenOptions {
                    writable: true,
                    ..reader.clone()
                },
            );
            assert_eq!(refused(&path, denies_resize), None, "{name}");
            let claim = image.lock_size().unwrap();
            assert!(claim.is_some());
            assert_eq!(refused(&path, denies_resize), locked, "{name}");
            drop(claim);
            assert_eq!(refused(&path, denies_resize), None, "{name}");
            drop(image);
        }
    }
}
