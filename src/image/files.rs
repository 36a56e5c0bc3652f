//! The files that images stand on, whatever their roles: for code that must consider all of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice as _};

use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::filter::decompress;
use crate::format::{FileRole, FormatFile};
use crate::image::node::Child;
use crate::image::node_plan::{ChildPlan, NodePlan};
use crate::image::{Image, OpenOptions, location_files};
use crate::location::Location;
use crate::memory;
use crate::storage::{Identity, Storage};

/// A file of an image that is not open.
#[derive(Clone, Debug)]
pub(super) struct ClosedFile {
    role: FileRole,
    location: Location,
}

/// A file that an image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StandingFile {
    /// Its identity.
    pub(crate) id: Identity,
    /// Its role in the layer that it belongs to.
    pub(crate) role: FileRole,
    /// Its name.
    pub(crate) name: BString,
    /// The name of the layer.
    pub(crate) of: BString,
}

/// Receives a file, and its storage if it is open.
type VisitFile<'a> = dyn FnMut(StandingFile, Option<&Arc<dyn Storage>>) -> Result<()> + 'a;

/// Refuses to write to files if one of them is also read.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn check_not_written(written: &[StandingFile], read: &StandingFile) -> Result<()> {
    let Some(one) = written.iter().find(|one| one.id == read.id) else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "'{}' is the {} of '{}' and the {} of '{}': writing to one would change the other",
        one.name,
        one.role.words(),
        one.of,
        read.role.words(),
        read.of
    )))
}

/// How much of an image that serves as a file is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Only its own layer.
    Layers,
    /// Also its chain.
    Chains,
}

impl Image {
    /// Every file that this image and the open part of its chain stand on, including those of images that serve as
    /// files and, for an image opened only for its metadata, also the closed ones.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn standing_files(&self) -> Result<Vec<StandingFile>> {
        let mut files = Vec::new();
        for layer in self.layers() {
            layer.own_files(Depth::Chains, &mut files)?;
        }
        Ok(files)
    }

    /// The files that change when this image is written to: those of its own layer, including those of images that
    /// serve as its files.
    ///
    /// # Errors
    /// If memory is exhausted.
    pub(crate) fn written_files(&self) -> Result<Vec<StandingFile>> {
        let mut files = Vec::new();
        self.own_files(Depth::Layers, &mut files)?;
        Ok(files)
    }

    /// This image, its backing image, and so on, as far as they are open.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Image> {
        std::iter::successors(Some(self), |layer| layer.backing().map(|next| &**next))
    }

    /// Refuses to write to this layer if one of its files also belongs to one of the `others`, which are read at the
    /// same time.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_apart<'a>(&self, others: impl Iterator<Item = &'a Self>) -> Result<()> {
        let own = self.written_files()?;
        for other in others {
            let mut files = Vec::new();
            other.own_files(Depth::Chains, &mut files)?;
            for theirs in files {
                check_not_written(&own, &theirs)?;
            }
        }
        Ok(())
    }

    /// Refuses to write to this layer if two of the files that then change are the same, or if one of them is also read
    /// through the chain of an image that serves as one of its files.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_files_apart(&self) -> Result<()> {
        let mut files = Vec::new();
        let mut storages = Vec::new();
        self.visit_own_files(Depth::Layers, &mut |file, storage| {
            storages.extend(storage.cloned());
            memory::push(&mut files, file)
        })?;
        self.visit_below_files(&mut |file, storage| {
            // Nodes over an open node that the user named expect to read what is written to it.
            let is_shared =
                storage.is_some_and(|storage| storages.iter().any(|own| Arc::ptr_eq(own, storage)));
            match is_shared {
                true => Ok(()),
                false => check_not_written(&files, &file),
            }
        })?;
        while let Some(one) = files.pop() {
            if let Some(other) = files.iter().find(|other| other.id == one.id) {
                return Err(Error::invalid(format!(
                    "'{}' is the {} of '{}' and its {} too: writing to one would change the other",
                    one.name,
                    other.role.words(),
                    one.of,
                    one.role.words()
                )));
            }
        }
        Ok(())
    }

    fn own_files(&self, depth: Depth, files: &mut Vec<StandingFile>) -> Result<()> {
        self.visit_own_files(depth, &mut |file, _| memory::push(files, file))
    }

    fn visit_own_files(&self, depth: Depth, visit: &mut VisitFile<'_>) -> Result<()> {
        self.visit_nodes(&self.children, depth, visit)?;
        for closed in &self.closed_files {
            for (id, name) in location_files(&closed.location, false) {
                self.visit_file(id, closed.role, name.as_bstr(), None, visit)?;
            }
        }
        Ok(())
    }

    /// Visits the files of the chains below the images that serve as files of this layer.
    fn visit_below_files(&self, visit: &mut VisitFile<'_>) -> Result<()> {
        let mut lists: Vec<&[Child]> = vec![&self.children];
        while let Some(children) = lists.pop() {
            for node in children.iter().map(Child::node) {
                if let Some(image) = node.image() {
                    for layer in image.layers().skip(1) {
                        layer.visit_own_files(Depth::Chains, visit)?;
                    }
                    memory::push(&mut lists, &image.children)?;
                } else if let Some((_, children)) = node.filter() {
                    memory::push(&mut lists, children)?;
                }
            }
        }
        Ok(())
    }

    fn visit_nodes(&self, nodes: &[Child], depth: Depth, visit: &mut VisitFile<'_>) -> Result<()> {
        for child in nodes {
            let node = child.node();
            if let Some(image) = node.image() {
                match depth {
                    Depth::Chains => {
                        for layer in image.layers() {
                            layer.visit_own_files(depth, visit)?;
                        }
                    }
                    Depth::Layers => image.visit_own_files(depth, visit)?,
                }
            } else if let Some((_, children)) = node.filter() {
                self.visit_nodes(children, depth, visit)?;
            } else {
                let storage = node.storage();
                let mut added = Ok(());
                storage.visit_identities(&mut |id| {
                    if added.is_ok() {
                        added =
                            self.visit_file(id, child.role(), storage.name(), Some(storage), visit);
                    }
                });
                added?;
            }
        }
        Ok(())
    }

    fn visit_file(
        &self,
        id: Identity,
        role: FileRole,
        name: &BStr,
        storage: Option<&Arc<dyn Storage>>,
        visit: &mut VisitFile<'_>,
    ) -> Result<()> {
        memory::headroom((name.len() + self.filename.len()) as u64)?;
        let file = StandingFile {
            id,
            role,
            name: name.to_owned(),
            of: self.filename.clone(),
        };
        visit(file, storage)
    }

    /// Visits every open file of this layer, its own first.
    pub(crate) fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        self.format.visit_files(visit);
    }

    /// The compressed files that the filter `decompress` unpacks for this layer, in compressed form, in the order of
    /// opening.
    pub(crate) fn compressed_files(&self) -> Vec<&Arc<dyn Storage>> {
        let mut files = Vec::new();
        add_compressed(&self.children, &mut files);
        files
    }

    /// The file of each slot that extents of this layer refer to.
    pub(crate) fn slots(&self) -> Vec<(StorageSlot, &Arc<dyn Storage>)> {
        let mut slots = Vec::new();
        self.visit_files(&mut |file| slots.extend(file.slot.map(|slot| (slot, file.storage))));
        slots
    }

    /// The file with the guest data of this layer: the data file if that is separate.
    pub(crate) fn data_storage(&self) -> &Arc<dyn Storage> {
        let mut data = &self.storage;
        self.visit_files(&mut |file| {
            if file.role == FileRole::Data {
                data = file.storage;
            }
        });
        data
    }
}

/// For a file that was compressed more than once, adds the file itself, not the intermediate results.
fn add_compressed<'a>(nodes: &'a [Child], files: &mut Vec<&'a Arc<dyn Storage>>) {
    for node in nodes.iter().map(Child::node) {
        if let Some(image) = node.image() {
            add_compressed(&image.children, files);
        } else if let Some((driver, children)) = node.filter() {
            let before = files.len();
            add_compressed(children, files);
            if driver.name == decompress::DRIVER.name && files.len() == before {
                files.extend(children.iter().map(|child| child.node().storage()));
            }
        }
    }
}

/// The files that a layer has left closed because only its metadata was requested.
pub(super) fn closed_files(
    image: &Image,
    plan: &NodePlan,
    options: &OpenOptions,
) -> Vec<ClosedFile> {
    if !options.metadata_only {
        return Vec::new();
    }
    let closed = image.format.closed_files().into_iter();
    closed
        .filter_map(|(role, name)| {
            let spec = image.driver.children.iter().find(|spec| spec.role == role);
            let location = match spec.and_then(|spec| plan.child(spec.name)) {
                Some(ChildPlan::Tree(tree)) => Some(Location::from_tree(name, tree.clone())),
                _ if name.is_empty() => None,
                // A path relative to the working directory, as when it is opened.
                _ => Some(Location::from_path(OsStr::from_bytes(&name))),
            };
            location.map(|location| ClosedFile { role, location })
        })
        .collect()
}
