//! The files that images stand on, whatever they are to them: for all who must know every one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::extent::StorageSlot;
use crate::filter::{self, decompress};
use crate::format::{FileRole, FormatFile};
use crate::image::node::Child;
use crate::image::node_plan::{ChildPlan, NodePlan};
use crate::image::{Image, OpenOptions};
use crate::location::{Location, Node, path_behind_protocol};
use crate::memory;
use crate::storage::{Identity, Storage};
use crate::value::{Map, Value};

/// A file that an image has and that is not open.
#[derive(Clone, Debug)]
pub(super) struct ClosedFile {
    pub(super) role: FileRole,
    /// Its name for messages.
    pub(super) name: BString,
    /// The paths that lead to it; several where the user described a node with files of its own.
    pub(super) paths: Vec<PathBuf>,
}

impl ClosedFile {
    /// The file at a location.
    pub(super) fn at(role: FileRole, location: &Location) -> Self {
        let mut paths = Vec::new();
        match location.node() {
            Node::Path(path) => paths.push(path.clone()),
            Node::Uri { protocol, uri } => match filter::registry::for_file_name(protocol) {
                // What it does not take apart is not opened either.
                Some((_, parse)) => {
                    let parsed = parse(uri.as_bstr());
                    for (_, name) in parsed.iter().flat_map(|parsed| &parsed.children) {
                        let child = Location::parse_name(OsStr::from_bytes(name));
                        let child = child.map(|child| Self::at(role, &child).paths);
                        paths.extend(child.into_iter().flatten());
                    }
                }
                None => paths.push(path_behind_protocol(uri)),
            },
            Node::Tree(tree) => paths_of(tree, &mut paths),
        }
        Self {
            role,
            name: location.text().as_bytes().into(),
            paths,
        }
    }
}

impl ClosedFile {
    fn ids(&self) -> impl Iterator<Item = Identity> {
        self.paths.iter().filter_map(|path| Identity::of_path(path))
    }
}

/// The file names of a tree and of the trees in it.
fn paths_of(tree: &Map<String, Value>, paths: &mut Vec<PathBuf>) {
    for (key, value) in tree {
        match value {
            Value::String(name) if key == "filename" => {
                paths.push(OsStr::from_bytes(name).into());
            }
            Value::String(name) if filter::registry::is_child_name(key) => {
                if let Ok(child) = Location::parse_name(OsStr::from_bytes(name)) {
                    paths.extend(ClosedFile::at(FileRole::Image, &child).paths);
                }
            }
            Value::Object(inner) => paths_of(inner, paths),
            _ => {}
        }
    }
}

/// The files at a location that exist, each with its name: of a file that a tree describes, its path.
pub(crate) fn location_files(location: &Location) -> Vec<(Identity, BString)> {
    let file = ClosedFile::at(FileRole::Image, location);
    let described = file.paths.len() > 1 || matches!(location.node(), Node::Tree(_));
    let name = |path: &PathBuf| match described {
        true => path.as_os_str().as_bytes().into(),
        false => file.name.clone(),
    };
    let files = file.paths.iter();
    files
        .filter_map(|path| Some((Identity::of_path(path)?, name(path))))
        .collect()
}

/// A file that an image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StandingFile {
    /// What tells it from others.
    pub(crate) id: Identity,
    /// What it is to the layer that has it.
    pub(crate) role: FileRole,
    /// Its name.
    pub(crate) name: BString,
    /// The name of that layer.
    pub(crate) of: BString,
}

/// What is shown of an image that serves as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Its own layer.
    Layers,
    /// Its chain too.
    Chains,
}

impl Image {
    /// Every file that this image and the open part of its chain stand on, those of images that serve
    /// as files included, and of an image that is open for its metadata alone also the closed ones.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(crate) fn standing_files(&self) -> Result<Vec<StandingFile>> {
        let mut files = Vec::new();
        for layer in self.layers() {
            layer.own_files(Depth::Chains, &mut files)?;
        }
        Ok(files)
    }

    /// The files that change when this image is written to: those of its own layer, down to the images
    /// that serve as its files.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(crate) fn written_files(&self) -> Result<Vec<StandingFile>> {
        let mut files = Vec::new();
        self.own_files(Depth::Layers, &mut files)?;
        Ok(files)
    }

    /// This image, its backing image, and so on as far as they are open.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Image> {
        std::iter::successors(Some(self), |layer| layer.backing().map(|next| &**next))
    }

    /// Refuses to write to this layer where one of its files is also a file of one of the `others`, which
    /// are read meanwhile.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_apart<'a>(&self, others: impl Iterator<Item = &'a Self>) -> Result<()> {
        let own = self.written_files()?;
        for other in others {
            let mut files = Vec::new();
            other.own_files(Depth::Chains, &mut files)?;
            for theirs in files {
                if let Some(mine) = own.iter().find(|mine| mine.id == theirs.id) {
                    return Err(Error::invalid(format!(
                        "'{}' is the {} of '{}' and the {} of '{}': writing to one would change the other",
                        mine.name,
                        mine.role.words(),
                        mine.of,
                        theirs.role.words(),
                        theirs.of
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses to write to this layer where one file is two of those that change then.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_files_apart(&self) -> Result<()> {
        let mut files = self.written_files()?;
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
        self.add_nodes(&self.children, depth, files)?;
        for closed in &self.closed_files {
            for id in closed.ids() {
                self.add_file(id, closed.role, closed.name.as_bstr(), files)?;
            }
        }
        Ok(())
    }

    fn add_nodes(
        &self,
        nodes: &[Child],
        depth: Depth,
        files: &mut Vec<StandingFile>,
    ) -> Result<()> {
        for child in nodes {
            let node = child.node();
            if let Some(image) = node.image() {
                match depth {
                    Depth::Chains => {
                        for layer in image.layers() {
                            layer.own_files(depth, files)?;
                        }
                    }
                    Depth::Layers => image.own_files(depth, files)?,
                }
            } else if let Some((_, children)) = node.filter() {
                self.add_nodes(children, depth, files)?;
            } else {
                let storage = node.storage();
                let mut added = Ok(());
                storage.visit_identities(&mut |id| {
                    if added.is_ok() {
                        added = self.add_file(id, child.role(), storage.name(), files);
                    }
                });
                added?;
            }
        }
        Ok(())
    }

    fn add_file(
        &self,
        id: Identity,
        role: FileRole,
        name: &BStr,
        files: &mut Vec<StandingFile>,
    ) -> Result<()> {
        memory::headroom((name.len() + self.filename.len()) as u64)?;
        let file = StandingFile {
            id,
            role,
            name: name.to_owned(),
            of: self.filename.clone(),
        };
        memory::push(files, file)
    }

    /// Shows every open file of this layer, its own first.
    pub(crate) fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        self.format.visit_files(visit);
    }

    /// The compressed files that the filter `decompress` unpacks for this layer, as they lie, in the order in which
    /// they were opened.
    pub(crate) fn compressed_files(&self) -> Vec<&Arc<dyn Storage>> {
        let mut files = Vec::new();
        add_compressed(&self.children, &mut files);
        files
    }

    /// The file in each slot that extents of this layer name.
    pub(crate) fn slots(&self) -> Vec<(StorageSlot, &Arc<dyn Storage>)> {
        let mut slots = Vec::new();
        self.visit_files(&mut |file| slots.extend(file.slot.map(|slot| (slot, file.storage))));
        slots
    }

    /// The file that holds the guest data of this layer: the data file where that is apart.
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

/// Of what was compressed more than once: the file itself, not what stands between.
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

/// The files that a layer has left closed, because metadata alone is wanted.
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
            match spec.and_then(|spec| plan.child(spec.name)) {
                Some(ChildPlan::Tree(tree)) => {
                    let location = Location::from_tree(name, tree.clone());
                    Some(ClosedFile::at(role, &location))
                }
                _ if name.is_empty() => None,
                // A path as seen from the working directory, as when it is opened.
                _ => Some(ClosedFile::at(
                    role,
                    &Location::from_path(OsStr::from_bytes(&name)),
                )),
            }
        })
        .collect()
}
