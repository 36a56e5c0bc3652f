//! The names of an open image: the shortest one that opens it again, and that of its backing file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::Result;
use crate::extent::StorageSlot;
use crate::filter::{FilterDriver, FilterName};
use crate::format::{ChildSpec, FileRole};
use crate::image::node::{Child, Node, NodeKind};
use crate::image::node_plan::{ChildPlan, NodePlan};
use crate::image::{Backing, Image};
use crate::location::tree::flatten_values;
use crate::location::{json_name, resolve_name};
use crate::memory;
use crate::options::key_matches;
use crate::printable::shown_name;
use crate::storage::{Identity, Storage};
use crate::value::{Map, Value};

/// The backing file that an image names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingFile {
    /// The name as recorded in the image.
    pub name: BString,
    /// The name as seen from where the image was opened.
    pub full_name: BString,
    /// The format that the image records for it.
    pub format: Option<BString>,
}

/// More memory than an extent name takes besides its bytes, in a growing list.
const NAMED_EXTENT: u64 = 128;

impl Image {
    /// The shortest name that opens this layer again: a file name, a URI or `json:{…}`.
    pub fn filename(&self) -> &BStr {
        self.filename.as_bstr()
    }

    /// The name of the format, or of the protocol if one was named in place of the format.
    pub fn format_name(&self) -> &str {
        self.format_name
    }

    /// The backing file that the image names, whether it is open or not.
    pub fn backing_file(&self) -> Option<BackingFile> {
        let parent = self.format.parent()?;
        let Some(named) = parent.first() else {
            // There are only names for another system: they are shown unchanged.
            let name = parent.names.into_iter().next()?.name;
            return Some(BackingFile {
                full_name: name.clone(),
                name,
                format: parent.format,
            });
        };
        if named.name.is_empty() {
            return None;
        }
        let full = self.name_beside(&named.name);
        Some(BackingFile {
            full_name: full.into_vec().into(),
            name: named.name,
            format: named.format,
        })
    }

    /// The file name to which names inside the image are relative.
    pub(crate) fn base_name(&self) -> &OsStr {
        &self.base
    }

    /// A name as it would be recorded in the image, as seen from where the image was opened.
    pub fn name_beside(&self, name: impl AsRef<[u8]>) -> OsString {
        resolve_name(&self.base, OsStr::from_bytes(name.as_ref()))
    }

    /// The name of the node that contains the guest data of this layer; for a raw disk, that of the node below.
    pub(crate) fn data_file_name(&self) -> BString {
        let storage = self.data_storage();
        let mut children = self.children.iter().map(Child::node);
        let node = children.find(|node| Arc::ptr_eq(node.storage(), storage));
        match node {
            Some(node) if self.driver.is_transparent => node.data_file_name(),
            Some(node) if node.filter().is_some() => node.filename(),
            _ => storage.name().to_owned(),
        }
    }

    /// The files of the extents of this layer, in ascending order of their slots.
    ///
    /// # Errors
    /// If memory is exhausted for them and two more copies of them.
    pub(crate) fn extent_names(&self) -> Result<Vec<(StorageSlot, BString)>> {
        if let Some(shown) = self.shown_through() {
            return shown.extent_names();
        }
        let mut bytes = 0;
        self.format.visit_files(&mut |file| {
            bytes += NAMED_EXTENT + file.storage.name().len() as u64;
        });
        memory::headroom(bytes.saturating_mul(3))?;
        let mut names = Vec::new();
        self.format.visit_files(&mut |file| {
            if let (FileRole::Extent, Some(slot)) = (file.role, file.slot) {
                names.push((slot, file.storage.name().to_owned()));
            }
        });
        names.sort_unstable_by_key(|(slot, _)| *slot);
        Ok(names)
    }

    /// The identity of the image's file: two images with the same identity are the same file. None if it cannot be
    /// determined.
    pub fn identity(&self) -> Option<Identity> {
        self.storage.identity()
    }
}

/// The order of keys in trees within names: that of QEMU, which programs may compare.
const ORDER: &[&str] = &[
    "inject-error.*.state",
    "fat-type",
    "dir",
    "opt-write-zero",
    "inject-error.*.immediately",
    "set-state.*.event",
    "inject-error.*.once",
    "inject-error.iotype",
    "inject-error.sector",
    "inject-error.errno",
    "max-write-zero",
    "pool",
    "image",
    "conf",
    "server.*.host",
    "snapshot",
    "max-transfer",
    "set-state.event",
    "read-pattern",
    "children",
    "test",
    "log",
    "log-sector-size",
    "throttle-group",
    "header",
    "backing",
    "data-file",
    "offset",
    "encrypt.key-secret",
    "password-secret",
    "url",
    "cookie-secret",
    "proxy-username",
    "read-zeroes",
    "force_size_calc",
    "server.to",
    "server.host",
    "server.port",
    "server.path",
    "server.ipv6",
    "server.numeric",
    "port",
    "host",
    "driver",
    "inject-error.event",
    "inject-error.once",
    "server.*.port",
    "namespace",
    "user",
    "proxy-password-secret",
    "username",
    "sslverify",
    "path",
    "export",
    "server.type",
    "server.ipv4",
    "config",
    "set-state.state",
    "inject-error.immediately",
    "inject-error.*.iotype",
    "set-state.*.new_state",
    "inject-error.*.errno",
    "inject-error.*.event",
    "opt-discard",
    "inject-error.state",
    "set-state.new_state",
    "set-state.*.state",
    "inject-error.*.sector",
    "max-discard",
    "align",
    "blkverify",
    "rewrite-corrupted",
    "vote-threshold",
    "raw",
    "log-append",
    "size",
    "floppy",
    "label",
    "rw",
    "file",
    "key-secret",
];

/// Sorts keys into the order of names; unknown ones come last, in their existing order.
pub(super) fn ordered(mut tree: Map<String, Value>) -> Map<String, Value> {
    let place = |key: &str| {
        let mut known = ORDER.iter();
        known.position(|name| key_matches(name, key))
    };
    tree.sort_by_cached_key(|key, _| place(key).unwrap_or(usize::MAX));
    tree
}

/// Adds the trees of children to that of the node above them; list items are added as a list.
fn add_children<'a>(tree: &mut Map<String, Value>, children: impl Iterator<Item = &'a Child>) {
    for child in children {
        let inner = Value::Object(child.node().tree().clone());
        match child.name().split_once('.') {
            None => {
                tree.insert(child.name().to_owned(), inner);
            }
            Some((list, _)) => {
                let items = tree.entry(list.to_owned());
                if let Value::Array(items) = items.or_insert_with(|| Value::Array(Vec::new())) {
                    items.push(inner);
                }
            }
        }
    }
}

/// Whether a child is an item of a list.
fn is_of(child: &str, list: &str) -> bool {
    child.split_once('.').is_some_and(|(of, _)| of == list)
}

/// An option that was given, either with a dotted key or within an object.
fn given<'a>(plan: &'a NodePlan, key: &str) -> Option<&'a Value> {
    plan.given.get(key).or_else(|| {
        let (group, inner) = key.split_once('.')?;
        plan.given.get(group)?.get(inner)
    })
}

/// Sets the name and tree of an image based on its file.
pub(super) fn set(image: &mut Image, plan: &NodePlan, bare: bool) {
    let Some(file) = image.children.first().map(Child::node) else {
        return;
    };
    if bare {
        (image.filename, image.tree) = (file.filename(), file.tree().clone());
        return;
    }
    let mut tree = Map::new();
    tree.insert("driver".to_owned(), image.driver.name.into());
    // A list of files that the image names by itself is not part of its name.
    let is_own = |name: &str| {
        let mut described = plan.children();
        name.split_once('.').is_some_and(|(list, _)| {
            !described.any(|(child, plan)| is_of(child, list) && plan.names_a_file())
        })
    };
    let children = image.children.iter();
    add_children(&mut tree, children.filter(|child| !is_own(child.name())));
    // Children that the image does not name, or that replace those it names.
    let not_named = |child: &Child| {
        child.role() == FileRole::Header || child.name().contains('.') && !is_own(child.name())
    };
    let mut weak_only = !image.children.iter().any(not_named);
    for key in image.driver.strong_options {
        if let Some(value) = given(plan, key) {
            weak_only = false;
            tree.insert((*key).to_owned(), value.clone());
        }
    }
    let tree = ordered(tree);
    let plain = file.plain().filter(|_| weak_only);
    image.filename = plain.map_or_else(|| json_name(&tree), BStr::to_owned);
    image.tree = tree;
}

/// Adds to name and tree that something other than what the image names is below it. The chain is open.
pub(super) fn add_backing(image: &mut Image) {
    let instead = match (&image.below, &image.backing) {
        (Some(ChildPlan::Null), _) => Value::Null,
        (Some(_), Backing::Open(base)) => Value::Object(base.tree.clone()),
        _ => return,
    };
    let named = image.backing_file().map(|file| file.full_name);
    let same = match &image.backing {
        Backing::Open(base) => named.is_some_and(|name| shown_name(&name) == base.filename),
        Backing::None | Backing::Closed => named.is_none(),
    };
    if same {
        return;
    }
    image
        .tree
        .insert(ChildSpec::BACKING.name.to_owned(), instead);
    image.tree = ordered(std::mem::take(&mut image.tree));
    image.filename = json_name(&image.tree);
}

/// Creates the node of a filter over its children, with its names.
pub(super) fn filter_node(
    driver: &'static FilterDriver,
    plan: &NodePlan,
    children: Vec<Child>,
    storage: Arc<dyn Storage>,
) -> Node {
    let mut tree = Map::new();
    tree.insert("driver".to_owned(), driver.name.into());
    let options = flatten_values(&plan.given);
    let strong = |key: &str| {
        let mut specs = driver.open_options.iter();
        let mut weak = driver.weak_options.iter();
        specs.any(|spec| spec.matches(key)) && !weak.any(|name| key_matches(name, key))
    };
    tree.extend(options.into_iter().filter(|(key, _)| strong(key)));
    add_children(&mut tree, children.iter());
    let names: Vec<BString> = children.iter().map(|child| child.node.filename()).collect();
    let shown: Vec<_> = children
        .iter()
        .zip(&names)
        .map(|(child, name)| {
            let plain = !name.starts_with(b"json:");
            (child.name(), plain.then(|| name.as_bstr()))
        })
        .collect();
    let plain = driver.file_name.and_then(|name| {
        name(&FilterName {
            options: &plan.given,
            children: &shown,
        })
    });
    // If several have the same contents, the first one.
    let base = children
        .iter()
        .find(|child| Some(child.name()) == driver.shows)
        .or(children.first());
    let base = base.map(|child| child.node.base.clone());
    Node {
        base: base.unwrap_or_default(),
        plain,
        tree: ordered(tree),
        name: None,
        shared: false,
        kind: NodeKind::Filter(driver, children),
        storage,
    }
}
