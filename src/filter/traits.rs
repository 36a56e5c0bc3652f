//! What every filter offers. Below the filters; the registry stands above them.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Bitmaps, ChildSpec};
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::{OptionSpec, Values};
use crate::policy::OpenPolicy;
use crate::storage::Storage;
use crate::trace::Event;
use crate::value::{Map, Value};

/// A filter, as one line of the registry.
#[derive(Debug)]
pub struct FilterDriver {
    /// The name used as `driver=`, and shown as the format of an image that the filter stands for.
    pub name: &'static str,
    /// The children that it takes, in the order in which they are opened.
    pub children: &'static [ChildSpec],
    /// The child that shows through: its block status, snapshots and cluster size are those of the
    /// filter. None where what the filter shows is not one child's alone.
    pub shows: Option<&'static str>,
    /// Says what the bytes of the child hold. The filter shows one thing in them, which may be an image
    /// of any format. None for filters that show all of it.
    pub contents: Option<ContentsFn>,
    /// What it shows is a file by itself, which may be an image of any format: it is opened as one.
    pub holds_file: bool,
    /// Whether it passes compressed writes on ([`Storage::compressor`]) where its child takes them.
    pub passes_compressed: bool,
    /// Nobody else may write to its children, whatever they are: what was written to one alone would be lost or
    /// fail.
    pub keeps_writers_out: bool,
    /// Options of opening beyond those that every node takes, sorted by name.
    pub open_options: &'static [OptionSpec],
    /// Those of them that do not change what the filter shows, and are left out of its name.
    pub weak_options: &'static [&'static str],
    /// Its trace events; their names begin with the filter's.
    pub events: &'static [&'static Event],
    /// Makes the filter over its open children.
    pub open: fn(FilterContext<'_>) -> Result<Arc<dyn Storage>>,
    /// What file names of the form `name:…` stand for, where the filter has such names.
    pub file_names: Option<FileNames>,
    /// The short name of an open filter, where it has one; else its name is `json:{…}`.
    pub file_name: Option<fn(&FilterName<'_>) -> Option<BString>>,
}

impl FilterDriver {
    /// Whether its bytes are those of one child, or a part of them, and so have a place there.
    pub fn stands_on_one_child(&self) -> bool {
        self.shows.is_some() || self.contents.is_some()
    }

    /// The child whose contents it has, unchanged: the one that shows through, or its file.
    pub fn filtered(&self) -> Option<&'static str> {
        let changes = self.contents.is_some() || self.holds_file;
        let mut children = self.children.iter().map(|child| child.name);
        let file = children.find(|name| !changes && *name == ChildSpec::FILE.name);
        self.shows.or(file)
    }

    /// Whether the snapshots of the image that shows through are its own: another child keeps something
    /// that would not go back with them.
    pub fn passes_snapshots(&self) -> bool {
        self.shows.is_some() && self.children.len() == 1
    }
}

/// The file names of a filter.
#[derive(Clone, Copy, Debug)]
pub struct FileNames {
    /// Takes one apart.
    pub parse: FileNameFn,
    /// Options that hold a part of such a name, each with the child that the part names.
    pub options: &'static [(&'static str, &'static str)],
}

/// Takes apart a file name that begins with the name of a filter and a colon.
pub type FileNameFn = fn(&BStr) -> Result<ParsedName>;

/// What such a file name says.
#[derive(Debug)]
pub struct ParsedName {
    /// Options of the filter, nested.
    pub options: Map<String, Value>,
    /// The children, each with a name that is a location of its own.
    pub children: Vec<(&'static str, BString)>,
}

/// Shows what a file holds, in order; nothing where it is not a file of that kind.
pub type ContentsFn =
    fn(&dyn Storage, &JobControl, &mut dyn FnMut(Content) -> ControlFlow<()>) -> Result<()>;

/// One thing that a file holds beside others: a member of an archive, a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The option of the filter that picks it.
    pub option: &'static str,
    /// What the option says for it.
    pub name: BString,
    /// Its length in bytes.
    pub len: u64,
}

/// What the short name of an open filter is made of.
#[derive(Debug)]
pub struct FilterName<'a> {
    /// The options that were given, nested.
    pub options: &'a Map<String, Value>,
    /// Name and short file name of each child, where it has one.
    pub children: &'a [(&'a str, Option<&'a BStr>)],
}

impl FilterName<'_> {
    /// The short file name of a child, where it has one.
    pub fn child(&self, name: &str) -> Option<&BStr> {
        let mut children = self.children.iter();
        children.find(|(child, _)| *child == name)?.1
    }
}

/// What opening a filter gets.
pub struct FilterContext<'a> {
    /// The children that were described, in the order of [`FilterDriver::children`]; each that is
    /// required is there.
    pub children: Vec<FilterChild>,
    /// Whether the filter may write to its children.
    pub writable: bool,
    /// Options of the filter, checked against [`FilterDriver::open_options`].
    pub options: &'a Values,
    /// The nodes that options name: those that are open by now, the children among them.
    pub nodes: &'a dyn NamedNodes,
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// The policy in force.
    pub policy: &'a OpenPolicy,
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a Arc<JobControl>,
}

impl FilterContext<'_> {
    /// Takes the child of that name out of the list.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the driver's list does not require it.
    pub fn take(&mut self, name: &str) -> Result<FilterChild> {
        let at = self.children.iter().position(|child| child.name == name);
        let child = at.map(|at| self.children.remove(at));
        child.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("The child '{name}' of a filter is not open"),
            )
        })
    }

    /// Takes the children of a list, in their order.
    pub fn take_list(&mut self, list: &str) -> Vec<FilterChild> {
        let (of_list, others) = std::mem::take(&mut self.children).into_iter().partition(
            |child| matches!(child.name.split_once('.'), Some((name, _)) if name == list),
        );
        self.children = others;
        of_list
    }

    /// The refusal of a filter that has to write to what is open for reading alone.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`].
    pub fn require_writable(&self) -> Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(Error::node_read_only()),
        }
    }
}

/// An open child of a filter.
#[derive(Clone, Debug)]
pub struct FilterChild {
    /// Its name: `file`, `children.0`…
    pub name: String,
    /// Its bytes.
    pub storage: Arc<dyn Storage>,
    /// The image that it is, or that shows through it.
    pub image: Option<Arc<dyn ChildImage>>,
    /// Whether its driver has compressed writes, even if this node of it takes none.
    pub may_compress: bool,
}

/// The open nodes to which the user gave a name.
pub trait NamedNodes {
    /// The image of that name; None where the node is no image.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where no node has the name.
    fn image(&self, node_name: &str) -> Result<Option<Arc<dyn ChildImage>>>;
}

/// What a child that is an image can do beyond a byte store.
pub trait ChildImage: Send + Sync + Debug {
    /// Whether the image's own layer, and none below it, decides what the beginning of the range reads
    /// as, and for how many of its bytes. `len` is not 0.
    ///
    /// # Errors
    /// Of looking the range up.
    fn is_held(&self, offset: u64, len: u64) -> Result<(bool, u64)>;

    /// The layer that decides what the beginning of the range reads as, 0 for the image's own, and for how
    /// many of its bytes. None where no layer holds it. `len` is not 0.
    ///
    /// # Errors
    /// Of looking the range up.
    fn holder(&self, offset: u64, len: u64) -> Result<(Option<u32>, u64)>;

    /// How far below the image's own layer the one stands that the user gave this name.
    fn depth_of(&self, node_name: &str) -> Option<u32>;

    /// The persistent dirty bitmaps of the image's own layer, where its format has them.
    fn bitmaps(&self) -> Option<&dyn Bitmaps>;

    /// The smallest range that the layer can hold by itself, in bytes.
    fn layer_unit(&self) -> u32;
}
