//! Opens the files beside the file of a layer: those described by the user, and those named by the image, under the
//! policy.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use parking_lot::Mutex;

use super::node::unknown_option;
use super::start::Builder;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChildSpec, FileRole, FilesBelow, FormatDriver, Opener};
use crate::image::node::{Child, Node};
use crate::image::node_plan::{ChildPlan, Driver, NodePlan};
use crate::image::{OpenOptions, host, lock};
use crate::location::{Location, resolve_name, resolve_plain_name};
use crate::policy::{ImplicitAnswer, ImplicitFile, ImplicitRole, OpenPolicy};
use crate::printable::printable;
use crate::storage::{CacheMode, Storage, file};
use crate::value::{Map, Value};

/// The [`Opener`] of a layer that is being opened.
pub(super) struct LayerOpener<'a> {
    /// How the layer is opened, and what is open above it already.
    builder: Builder<'a>,
    driver: &'static FormatDriver,
    plan: &'a NodePlan,
    /// The image's file name.
    base: OsString,
    /// What has been opened so far.
    children: Mutex<Adopted>,
}

/// The open children of a layer.
struct Adopted {
    /// The image's own file first.
    children: Vec<Child>,
    /// Number of children of each list, by the name of the list.
    listed: HashMap<&'static str, usize>,
    /// The children that the user described and the format requested.
    wanted: HashSet<String>,
}

impl Adopted {
    /// The name of the next child that matches `spec`.
    fn next_name(&self, spec: &ChildSpec) -> String {
        match spec.list() {
            None => spec.name.to_owned(),
            Some(list) => {
                let count = self.listed.get(list).copied().unwrap_or_default();
                format!("{list}.{count}")
            }
        }
    }
}

/// What a name inside an image refers to.
pub(super) enum ResolvedName {
    /// A location to open.
    Location(Location),
    /// An open file.
    Storage(Node),
}

/// What the name of a backing file refers to, as seen from an image, and its full name.
///
/// # Errors
/// If the name cannot be parsed.
pub(super) fn located(
    base: &OsStr,
    name: &OsStr,
    policy: &OpenPolicy,
) -> Result<(OsString, Location)> {
    let full: OsString;
    let location = if policy.implicit_protocols {
        full = resolve_name(base, name);
        Location::parse_name(&full)?
    } else {
        full = resolve_plain_name(base, name);
        Location::from_path(&full)
    };
    Ok((full, location))
}

/// Applies the policy to a name inside an image.
///
/// # Errors
/// [`crate::ErrorKind::Denied`] by policy; or if the name cannot be parsed.
pub(super) fn resolve(
    role: ImplicitRole,
    name: &OsStr,
    named_by: &BStr,
    base: &OsStr,
    writable: bool,
    options: &OpenOptions,
) -> Result<ResolvedName> {
    let policy = &options.policy;
    // The name of a data file is relative to the working directory, other names are relative to the image.
    let base = match role {
        ImplicitRole::DataFile => OsStr::new(""),
        ImplicitRole::Backing | ImplicitRole::ParentLocator | ImplicitRole::Extent => base,
    };
    let (full, location) = match role {
        ImplicitRole::Backing => located(base, name, policy)?,
        ImplicitRole::DataFile | ImplicitRole::ParentLocator | ImplicitRole::Extent => {
            let full = resolve_plain_name(base, name);
            let location = Location::from_path(&full);
            (full, location)
        }
    };
    let name = BStr::new(name.as_bytes());
    let answer = policy.check_implicit(&ImplicitFile {
        role,
        name,
        named_by,
        path: location.path(),
        writable,
    })?;
    match answer {
        ImplicitAnswer::Open => Ok(ResolvedName::Location(location)),
        ImplicitAnswer::Fd(fd) => {
            let mut node = given(fd, location.text(), writable, options.cache)?;
            node.base = full;
            Ok(ResolvedName::Storage(node))
        }
        ImplicitAnswer::Deny => Err(Error::new(
            ErrorKind::Denied,
            format!("The open policy does not allow '{name}'"),
        )),
    }
}

/// Refuses an extent whose name is a link to a place outside the directory of the image, just as a name of such a place
/// is refused. A policy that lists directories, or asks, has already decided what may be opened.
fn check_beside(
    file: &dyn Storage,
    name: &OsStr,
    base: &OsStr,
    own: Option<&dyn Storage>,
) -> Result<()> {
    let Some(file) = real_path(file) else {
        return Ok(());
    };
    let named = match Path::new(base).parent() {
        Some(directory) if directory.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        Some(directory) => directory.canonicalize().ok(),
        None => None,
    };
    // The image itself may have been opened through a link.
    let own = own.and_then(real_path);
    let own = own.as_ref().and_then(|own| own.parent());
    if own
        .into_iter()
        .chain(named.as_deref())
        .any(|directory| file.starts_with(directory))
    {
        return Ok(());
    }
    let name = printable(&name.to_string_lossy()).to_string();
    Err(Error::new(
        ErrorKind::Denied,
        format!(
            "The extent '{name}' is a link to '{}', which is not beside the image; open the image where its extents are, or describe the extent",
            printable(&file.to_string_lossy())
        ),
    ))
}

/// The real path of an open host file.
fn real_path(storage: &dyn Storage) -> Option<PathBuf> {
    let fd = storage.host()?.fd().as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// Wraps the descriptor that the policy supplied for a name inside an image.
///
/// # Errors
/// If the descriptor cannot be examined.
pub(super) fn given(fd: OwnedFd, name: &OsStr, writable: bool, cache: CacheMode) -> Result<Node> {
    let open = file::FileOpen {
        writable,
        cache,
        named_by_image: true,
        ..file::FileOpen::default()
    };
    let storage = file::open_fd(fd, name.as_bytes(), &open)?;
    Ok(Node::given(Arc::new(storage)))
}

impl<'a> LayerOpener<'a> {
    /// For a layer whose own file is open.
    pub(super) fn new(
        builder: Builder<'a>,
        driver: &'static FormatDriver,
        plan: &'a NodePlan,
        file: Child,
    ) -> Self {
        Self {
            builder,
            driver,
            plan,
            base: file.node.base.clone(),
            children: Mutex::new(Adopted {
                children: vec![file],
                listed: HashMap::new(),
                wanted: HashSet::new(),
            }),
        }
    }

    /// The children that were opened.
    pub(super) fn into_children(self) -> Vec<Child> {
        self.children.into_inner().children
    }

    /// Refuses descriptions of children that the image does not have. If only its metadata is opened, not all children
    /// have been requested.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub(super) fn check_described(&self) -> Result<()> {
        if self.builder.options.metadata_only {
            return Ok(());
        }
        let adopted = self.children.lock();
        let above = [ChildSpec::FILE.name, ChildSpec::BACKING.name];
        let is_beside = |name: &str| {
            let mut specs = self.driver.children.iter();
            specs.any(|spec| !above.contains(&spec.name) && spec.covers(name))
        };
        let unknown = (self.plan.children())
            .filter(|(name, _)| is_beside(name) && !adopted.wanted.contains(*name))
            .find_map(|(name, child)| child.first_option(name));
        match unknown {
            None => Ok(()),
            Some(option) => Err(unknown_option(self.driver, &option)),
        }
    }

    /// The user's description of a child that the format has requested.
    fn described(&self, name: &str) -> Option<&ChildPlan> {
        let described = self.plan.child(name)?;
        self.children.lock().wanted.insert(name.to_owned());
        Some(described)
    }

    fn named_by(&self) -> &BStr {
        self.base.as_bytes().as_bstr()
    }

    /// The node that a name inside the image refers to; `options` are the user's options for it, besides the name.
    fn resolved(
        &self,
        role: ImplicitRole,
        name: &BStr,
        options: Map<String, Value>,
        writable: bool,
    ) -> Result<Node> {
        let builder = Builder {
            named_by_image: true,
            ..self.builder
        };
        let name = OsStr::from_bytes(name);
        match resolve(
            role,
            name,
            self.named_by(),
            &self.base,
            writable,
            builder.options,
        )? {
            ResolvedName::Storage(node) if options.is_empty() => Ok(node),
            ResolvedName::Storage(node) => Err(Error::invalid(format!(
                "'{}' is open already, so that no option can change how",
                node.filename()
            ))),
            ResolvedName::Location(location) => {
                let node = builder.node(&NodePlan::of_named(&location, options)?, writable)?;
                if role == ImplicitRole::Extent {
                    let own = self.children.lock();
                    let own = own.children.first().map(|own| &*own.node.storage);
                    check_beside(&*node.storage, name, &self.base, own)?;
                }
                Ok(node)
            }
        }
    }

    /// Makes an open node a child of the layer.
    fn adopt(&self, spec: &ChildSpec, node: Node, writable: bool) -> Result<Arc<dyn Storage>> {
        let role = spec.role;
        if self.builder.ancestors.contains(node.identity().as_ref()) {
            return Err(Error::invalid(format!(
                "'{}' is the {} of itself",
                self.named_by(),
                role.words()
            )));
        }
        if role == FileRole::Header {
            node.check_metadata()?;
        }
        if !node.is_locked() {
            let metadata_only = self.builder.options.metadata_only;
            node.storage.lock(match role {
                FileRole::Header => lock::of_header(writable, metadata_only),
                _ => lock::of_data_file(writable, self.builder.force_share),
            })?;
        }
        let storage = node.storage.clone();
        let adopted = &mut *self.children.lock();
        let name = adopted.next_name(spec);
        if let Some(list) = spec.list() {
            *adopted.listed.entry(list).or_default() += 1;
        }
        adopted.children.push(Child { name, role, node });
        Ok(storage)
    }

    fn spec(&self, known: impl Fn(&ChildSpec) -> bool) -> Result<&'static ChildSpec> {
        let mut specs = self.driver.children.iter();
        specs.find(|spec| known(spec)).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("Not a child of the format '{}'", self.driver.name),
            )
        })
    }
}

impl Opener for LayerOpener<'_> {
    fn open_named(
        &self,
        role: ImplicitRole,
        name: &BStr,
        writable: bool,
    ) -> Result<Arc<dyn Storage>> {
        let spec = self.spec(|spec| spec.role == FileRole::from(role))?;
        let child = self.children.lock().next_name(spec);
        let options = match self.described(&child) {
            Some(ChildPlan::Tree(tree)) if spec.list().is_some() => tree.clone(),
            _ => Map::new(),
        };
        let node = self.resolved(role, name, options, writable)?;
        self.adopt(spec, node, writable)
    }

    fn files_below(&self, role: ImplicitRole, directory: &BStr) -> Result<Arc<dyn FilesBelow>> {
        let options = self.builder.options;
        let path = resolve_plain_name(&self.base, OsStr::from_bytes(directory));
        // Named storages of the caller have no directories.
        if options.storages.is_none() && !Path::new(&path).is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("'{}' lacks the directory '{directory}'", self.named_by()),
            ));
        }
        Ok(Arc::new(Below {
            role,
            directory: directory.to_owned(),
            base: self.base.clone(),
            options: options.clone(),
        }))
    }

    fn child(&self, name: &str, writable: bool) -> Result<Option<Arc<dyn Storage>>> {
        let Some(child) = self.described(name) else {
            return Ok(None);
        };
        let spec = self.spec(|spec| spec.covers(name))?;
        if spec.list().is_some() && !child.names_a_file() {
            // It only has options for the file that the image names.
            return Ok(None);
        }
        let Some(plan) = child.file()? else {
            return Ok(None);
        };
        let node = self.builder.node(&plan, writable)?;
        self.adopt(spec, node, writable).map(Some)
    }

    fn has_child(&self, name: &str) -> bool {
        matches!(
            self.described(name),
            Some(ChildPlan::Tree(_) | ChildPlan::Node(_))
        )
    }

    fn policy(&self) -> &OpenPolicy {
        &self.builder.options.policy
    }
}

/// The files of a directory.
struct Below {
    role: ImplicitRole,
    directory: BString,
    /// The image's file name.
    base: OsString,
    options: OpenOptions,
}

impl fmt::Debug for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Below")
            .field("directory", &self.directory)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Below {
    fn opened(&self, name: &BStr) -> Result<Arc<dyn Storage>> {
        let mut full = self.directory.clone();
        full.push(b'/');
        full.extend_from_slice(name);
        let named = resolve(
            self.role,
            OsStr::from_bytes(&full),
            self.base.as_bytes().as_bstr(),
            &self.base,
            false,
            &self.options,
        )?;
        let location = match named {
            ResolvedName::Storage(node) => return Ok(node.storage),
            ResolvedName::Location(location) => location,
        };
        let plan = NodePlan::new(&location, None)?.without_format()?;
        match &plan.driver {
            Driver::Host(file) => {
                let node = host::open(file, &plan, false, true, &self.options)?;
                if self.role == ImplicitRole::Extent {
                    check_beside(&*node.storage, OsStr::from_bytes(&full), &self.base, None)?;
                }
                Ok(node.storage)
            }
            _ => Err(Error::new(ErrorKind::Internal, "A file is no plain file")),
        }
    }
}

impl FilesBelow for Below {
    fn open(&self, name: &BStr) -> Result<Option<Arc<dyn Storage>>> {
        match self.opened(name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn each_name(&self, show: &mut dyn FnMut(&BStr) -> Result<bool>) -> Result<bool> {
        // Named storages of the caller cannot be listed.
        if self.options.storages.is_some() {
            return Ok(false);
        }
        let path = resolve_plain_name(&self.base, OsStr::from_bytes(&self.directory));
        let failed = |error: io::Error| {
            let context = format!("Could not list the directory '{}'", self.directory);
            Error::io(&error).context(context)
        };
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !show(BStr::new(name.as_bytes()))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
