//! Additional files of an open image: they are created beside it, under the policy that it was opened with.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use bstr::BStr;

use super::node::NODE;
use super::opener::given;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChildSpec, FileRole};
use crate::image::node::{Child, Node, NodeKind};
use crate::image::{OpenOptions, lock};
use crate::location::{Location, resolve_plain_name};
use crate::memory;
use crate::policy::{ImplicitAnswer, ImplicitFile, ImplicitRole};
use crate::storage::driver::StorageOpen;
use crate::storage::{Creation, Identity, Storage, file};

/// Creates and removes the extent files of an image.
#[derive(Debug)]
pub(in crate::image) struct MoreFiles {
    /// The image's file name.
    pub(super) base: OsString,
    pub(super) options: OpenOptions,
    pub(super) force_share: bool,
}

/// A file that was created. It is removed unless it is kept.
#[derive(Debug)]
pub(in crate::image) struct MoreFile {
    child: Child,
    creation: Creation,
    /// It existed before.
    is_given: bool,
}

impl MoreFiles {
    /// Creates a file under a name as recorded by the image, as the child with that number, with the permissions of
    /// another file. Existing files are not changed.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] by policy, [`ErrorKind::Exists`], or errors of the host.
    pub(in crate::image) fn make(
        &self,
        name: &BStr,
        number: usize,
        like: &Arc<dyn Storage>,
    ) -> Result<MoreFile> {
        // There may be any number of them.
        memory::headroom(NODE)?;
        let (creation, is_given) = self.claim(name, like)?;
        let storage = creation.storage().clone();
        if storage.limits().fixed_len {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("'{name}' is not a file, and an extent of its own has to be one"),
            ));
        }
        storage.lock(lock::of_data_file(true, self.force_share))?;
        let mut node = Node::given(storage);
        node.base = self.resolved(name);
        let list = ChildSpec::EXTENTS.list().unwrap_or_default();
        Ok(MoreFile {
            child: Child {
                name: format!("{list}.{number}"),
                role: FileRole::Extent,
                node,
            },
            creation,
            is_given,
        })
    }

    fn resolved(&self, name: &BStr) -> OsString {
        resolve_plain_name(&self.base, OsStr::from_bytes(name))
    }

    fn claim(&self, name: &BStr, like: &Arc<dyn Storage>) -> Result<(Creation, bool)> {
        let options = &self.options;
        let location = Location::from_path(self.resolved(name));
        let answer = options.policy.check_creation(&ImplicitFile {
            role: ImplicitRole::Extent,
            name,
            named_by: BStr::new(self.base.as_bytes()),
            path: location.path(),
            writable: true,
        })?;
        if let ImplicitAnswer::Fd(fd) = answer {
            let node = given(fd, location.text(), true, options.cache)?;
            return Ok((Creation::given(node.storage), true));
        }
        let path = location.path().map(PathBuf::from).unwrap_or_default();
        let open = StorageOpen {
            writable: true,
            cache: options.cache,
            named_by_image: true,
        };
        let storages = options.storages.as_ref();
        if let Some(storage) = storages.and_then(|storages| storages.find(&path, &open)) {
            return Ok((Creation::given(storage?), true));
        }
        options.policy.check_protocol(file::FILE.name)?;
        let how = file::FileCreate {
            cache: options.cache,
            ..file::FileCreate::default()
        };
        let model = like.host().map(|host| host.fd());
        let new = file::make_like(&path, model, &how)?;
        Ok((Creation::new(Box::new(new)), false))
    }

    /// Removes the file that the image had under that name. A file that the user described under another name, or that
    /// has other names, is kept.
    ///
    /// # Errors
    /// Errors of the host.
    pub(in crate::image) fn remove(&self, name: &BStr, child: &Child) -> Result<()> {
        let node = &child.node;
        if !matches!(node.kind, NodeKind::Host) || node.base != self.resolved(name) {
            return Ok(());
        }
        match node.storage.host() {
            Some(host) => host.remove().map(drop),
            None => Ok(()),
        }
    }
}

impl MoreFile {
    /// The file.
    pub(in crate::image) fn child(&self) -> &Child {
        &self.child
    }

    /// The identity of the file, if it existed before.
    pub(in crate::image) fn given_id(&self) -> Option<Identity> {
        let storage = self.is_given.then(|| self.creation.storage());
        storage.and_then(|storage| storage.identity())
    }

    /// Empties the file, if it existed before.
    ///
    /// # Errors
    /// Errors of the host.
    pub(in crate::image) fn empty(&mut self) -> Result<()> {
        self.creation.empty().map(drop)
    }

    /// Keeps the file, because the image references it from now on.
    pub(in crate::image) fn keep(self) {
        self.creation.keep();
    }
}
