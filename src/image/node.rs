//! Open nodes that serve as children of others.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Weak};

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::filter::{ChildImage, FilterDriver};
use crate::format::{Features, FileRole};
use crate::image::Image;
use crate::image::adapter::ImageStorage;
use crate::job::JobControl;
use crate::storage::{Identity, Storage, StorageFeatures, registry as protocols};
use crate::value::{Map, Value};

/// An open node: a host storage, a filter, or an image that serves as a storage.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its bytes.
    pub(super) storage: Arc<dyn Storage>,
    /// The file name to which names inside an image over it are relative.
    pub(super) base: OsString,
    /// Its name, if a plain one is sufficient to open it.
    pub(super) plain: Option<BString>,
    /// The options that open it again.
    pub(super) tree: Map<String, Value>,
    /// The name that the user gave it.
    pub(super) name: Option<Arc<NodeName>>,
    /// It also serves another node, and was referred to by name.
    pub(super) shared: bool,
    /// What it is.
    pub(super) kind: NodeKind,
}

/// A name that the user gave a node; it stays taken as long as this exists.
#[derive(Debug)]
pub(super) struct NodeName {
    name: String,
    node: Mutex<Option<Called>>,
}

/// An open node that has a name.
#[derive(Debug)]
enum Called {
    Node(Node),
    Image(Weak<Image>),
}

/// What a node name refers to.
#[derive(Debug)]
pub(super) enum NamedNode {
    /// A host storage or a filter.
    Node(Node),
    /// A layer with everything below it.
    Image(Arc<Image>),
}

impl NodeName {
    /// A name whose node is not open yet.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: Mutex::new(None),
        }
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// The node, once it is open.
    pub(super) fn node(&self) -> Option<NamedNode> {
        match self.node.lock().as_ref()? {
            Called::Node(node) => Some(NamedNode::Node(node.clone())),
            Called::Image(image) => image.upgrade().map(NamedNode::Image),
        }
    }
}

impl NamedNode {
    /// The image, if it is one.
    pub(super) fn image(self) -> Option<Arc<dyn ChildImage>> {
        match self {
            Self::Node(_) => None,
            Self::Image(image) => Some(Arc::new(ImageStorage::new(image))),
        }
    }

    /// Whether whoever opened it may write to it.
    pub(super) fn is_written(&self) -> bool {
        match self {
            Self::Node(node) => !node.storage.read_only(),
            Self::Image(image) => image.writable(),
        }
    }

    /// Shares it with another node, which only reads it.
    pub(super) fn share(self) -> Node {
        let node = match self {
            Self::Node(node) => node,
            Self::Image(image) => Node::of_image(image),
        };
        Node {
            shared: true,
            ..node
        }
    }
}

impl Image {
    /// Makes the image shareable; its node name refers to it from now on.
    pub fn into_shared(self) -> Arc<Self> {
        let image = Arc::new(self);
        image.lead_here();
        image
    }

    /// Changes an image that has no other users; None if it has.
    pub(crate) fn change_shared<T>(
        self: &mut Arc<Self>,
        change: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        if let Some(name) = &self.node_name {
            name.node
                .lock()
                .take_if(|node| matches!(node, Called::Image(_)));
        }
        let changed = Arc::get_mut(self).map(change);
        self.lead_here();
        changed
    }

    /// Makes the name of the image refer to it.
    fn lead_here(self: &Arc<Self>) {
        if let Some(name) = &self.node_name {
            // A filter in place of a format has been registered already.
            let mut node = name.node.lock();
            node.get_or_insert_with(|| Called::Image(Arc::downgrade(self)));
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// A host storage.
    Host,
    /// A filter over its children.
    Filter(&'static FilterDriver, Vec<Child>),
    /// An image.
    Image(Arc<ImageStorage>),
}

/// A node and its role in the one above it.
#[derive(Clone, Debug)]
pub struct Child {
    pub(super) name: String,
    pub(super) role: FileRole,
    pub(super) node: Node,
}

impl Child {
    /// The name by which options describe it: `file`, `data-file`, `children.0`…
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its role in the node above.
    pub fn role(&self) -> FileRole {
        self.role
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Node {
    /// Wraps a storage that the caller created.
    pub(super) fn given(storage: Arc<dyn Storage>) -> Self {
        let name = storage.name().to_owned();
        let mut tree = Map::new();
        tree.insert("driver".to_owned(), storage.driver().into());
        tree.insert("filename".to_owned(), name.clone().into());
        Self {
            base: OsStr::from_bytes(&name).to_owned(),
            plain: Some(name),
            tree,
            name: None,
            shared: false,
            kind: NodeKind::Host,
            storage,
        }
    }

    /// A filter without children, for testing what it reports itself.
    #[cfg(test)]
    pub(crate) fn of_filter(driver: &'static FilterDriver, storage: Arc<dyn Storage>) -> Self {
        Self {
            kind: NodeKind::Filter(driver, Vec::new()),
            ..Self::given(storage)
        }
    }

    /// An image that serves as a storage.
    pub(super) fn of_image(image: Arc<Image>) -> Self {
        let (base, tree) = (image.base.clone(), image.tree.clone());
        let image = Arc::new(ImageStorage::new(image));
        Self {
            base,
            plain: None,
            tree,
            storage: image.clone(),
            name: None,
            shared: false,
            kind: NodeKind::Image(image),
        }
    }

    /// Gives the node the name chosen by the user, which refers to it from now on.
    pub(super) fn called(self, name: Option<Arc<NodeName>>) -> Self {
        if let Some(name) = &name {
            // Registered without its name, to avoid a reference cycle.
            *name.node.lock() = Some(Called::Node(self.clone()));
        }
        Self { name, ..self }
    }

    /// Refuses to use metadata in a node that another one writes to.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`].
    pub(super) fn check_metadata(&self) -> Result<()> {
        match self.shared && !self.storage.read_only() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Locked,
                format!(
                    "'{}' is written to by another node, so its metadata cannot be read here",
                    self.storage.name()
                ),
            )),
        }
    }

    /// Its bytes.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Ends the use of it, and of the nodes that it stands on.
    pub(super) fn finish(&self, control: &JobControl) -> Result<()> {
        match &self.kind {
            // This is left to its first user.
            _ if self.shared => Ok(()),
            NodeKind::Host => self.storage.finish(),
            NodeKind::Image(image) => image.image().finish(control),
            NodeKind::Filter(_, children) => {
                let ended = self.storage.finish();
                let within = children.iter().map(|child| child.node.finish(control));
                let failures: Vec<_> = within.filter_map(Result::err).collect();
                let enough = (self.storage.ending())
                    .is_some_and(|ending| ending.does_without(failures.len()));
                let first = failures.into_iter().next().filter(|_| !enough);
                ended.and(first.map_or(Ok(()), Err))
            }
        }
    }

    /// Prevents writes from being propagated later: see [`crate::storage::Ending::abandon`].
    pub(super) fn abandon_writes(&self) {
        if self.shared {
            return;
        }
        if let Some(ending) = self.storage.ending() {
            ending.abandon();
        }
        match &self.kind {
            NodeKind::Host => {}
            NodeKind::Image(image) => image.image().abandon_writes(),
            NodeKind::Filter(_, children) => {
                for child in children {
                    child.node.abandon_writes();
                }
            }
        }
    }

    /// The image, if it is one.
    pub fn image(&self) -> Option<&Image> {
        match &self.kind {
            NodeKind::Image(image) => Some(image.image()),
            NodeKind::Host | NodeKind::Filter(..) => None,
        }
    }

    /// The filter, if it is one, and its children in the order of opening.
    pub fn filter(&self) -> Option<(&'static FilterDriver, &[Child])> {
        match &self.kind {
            NodeKind::Filter(driver, children) => Some((driver, children)),
            NodeKind::Host | NodeKind::Image(_) => None,
        }
    }

    /// Its name, if a plain one is sufficient to open it.
    pub(super) fn plain(&self) -> Option<&BStr> {
        self.plain.as_ref().map(|name| name.as_bstr())
    }

    /// The options that open it again.
    pub fn tree(&self) -> &Map<String, Value> {
        match &self.kind {
            NodeKind::Image(image) => &image.image().tree,
            NodeKind::Host | NodeKind::Filter(..) => &self.tree,
        }
    }

    /// The shortest name that opens it again.
    pub fn filename(&self) -> BString {
        match (&self.kind, &self.plain) {
            (NodeKind::Image(image), _) => image.image().filename().to_owned(),
            (_, Some(plain)) => plain.clone(),
            (_, None) => crate::location::json_name(&self.tree),
        }
    }

    /// Whether it is described by options rather than a name.
    pub(crate) fn is_named_by_options(&self) -> bool {
        let is_host = matches!(self.kind, NodeKind::Host);
        is_host && self.plain.is_none() && self.base.is_empty() && self.tree.len() > 1
    }

    /// The image that shows through it.
    pub fn shown(&self) -> Option<&Arc<ImageStorage>> {
        match &self.kind {
            NodeKind::Image(image) => Some(image),
            NodeKind::Host => None,
            NodeKind::Filter(..) => self.shown_child()?.node.shown(),
        }
    }

    /// Whether the node is equivalent to that image, including features such as snapshots.
    pub(super) fn is_shown_whole(&self) -> bool {
        let Some((driver, _)) = self.filter() else {
            return true;
        };
        let shown = self.shown_child();
        driver.passes_snapshots() && shown.is_some_and(|child| child.node.is_shown_whole())
    }

    /// Whether it contains a filter that needs exclusive use of the files below.
    pub(super) fn keeps_writers_out(&self) -> bool {
        self.filter().is_some_and(|(driver, children)| {
            let mut children = children.iter();
            driver.keeps_writers_out || children.any(|child| child.node.keeps_writers_out())
        })
    }

    /// Whether its offsets are actual locations of its bytes.
    pub(super) fn has_places(&self) -> bool {
        if matches!(self.kind, NodeKind::Host) {
            let driver = protocols::find(self.storage.driver());
            return driver.is_none_or(|driver| driver.features.contains(StorageFeatures::PLACES));
        }
        let Some((driver, _)) = self.filter() else {
            return true;
        };
        let shown = self.shown_child();
        driver.stands_on_one_child() && shown.is_none_or(|child| child.node.has_places())
    }

    /// Warnings about the images, storages and filters in it.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let own = || (self.storage.report()).map_or_else(Vec::new, |report| report.warnings());
        match &self.kind {
            NodeKind::Host => own(),
            NodeKind::Image(image) => image.image().warnings().to_vec(),
            NodeKind::Filter(_, children) => {
                let nodes = children.iter().map(Child::node);
                nodes.flat_map(Self::warnings).chain(own()).collect()
            }
        }
    }

    /// The name of the node that contains the guest data that shows through this one.
    pub(super) fn data_file_name(&self) -> BString {
        match &self.kind {
            NodeKind::Host => self.storage.name().to_owned(),
            NodeKind::Image(image) => image.image().data_file_name(),
            NodeKind::Filter(..) => match self.shown_child() {
                Some(child) => child.node.data_file_name(),
                None => self.filename(),
            },
        }
    }

    /// The child that shows through a filter.
    fn shown_child(&self) -> Option<&Child> {
        let (driver, children) = self.filter()?;
        let mut children = children.iter();
        children.find(|child| Some(&*child.name) == driver.shows)
    }

    /// The image behind a filter that leaves its contents unchanged, although it may monitor changes.
    pub(super) fn filtered_image(&self) -> Option<&Image> {
        match &self.kind {
            NodeKind::Image(image) => Some(image.image()),
            NodeKind::Host => None,
            NodeKind::Filter(driver, children) => {
                let name = driver.filtered()?;
                let mut children = children.iter();
                let child = children.find(|child| child.name == name)?;
                child.node.filtered_image()
            }
        }
    }

    /// As [`Node::shown`], for use by a filter above it.
    pub(super) fn child_image(&self) -> Option<Arc<dyn ChildImage>> {
        self.shown().map(|image| image.clone() as _)
    }

    /// Whether its driver supports compressed writes, even if this particular node does not.
    pub(super) fn may_compress(&self) -> bool {
        match &self.kind {
            NodeKind::Host => false,
            NodeKind::Image(image) => {
                let features = image.image().driver().features();
                features.contains(Features::COMPRESS)
            }
            NodeKind::Filter(driver, _) => driver.passes_compressed,
        }
    }

    /// Whether its files have been locked, by an image or by its first user.
    pub(super) fn is_locked(&self) -> bool {
        self.shared || matches!(self.kind, NodeKind::Image(_))
    }

    /// The identity of the file whose bytes it presents.
    pub(super) fn identity(&self) -> Option<Identity> {
        match &self.kind {
            NodeKind::Host => self.storage.identity(),
            NodeKind::Image(_) => None,
            NodeKind::Filter(..) => self.shown_child()?.node.identity(),
        }
    }
}
