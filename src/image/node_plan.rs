//! What a location asks to open, taken apart: a driver, its options, and its children.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bstr::{BStr, BString, ByteSlice};

use crate::driver_names::unknown_driver;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{self, FilterDriver, ParsedName, decompress};
use crate::format::{ChildSpec, FileRole, FormatDriver, registry};
use crate::image::OpenOptions;
use crate::location::tree::{self, flatten, leaf_text};
use crate::location::{Location, Node, path_behind_protocol, plain_path};
use crate::options::{OptionKind, OptionSpec, OptionValue, parse_value};
use crate::storage::{CacheMode, StorageDriver, registry as protocols};
use crate::value::{Map, Value};

/// The child below an overlay.
const BACKING: &str = ChildSpec::BACKING.name;

/// What whoever writes `"backing": ""` is told.
const EMPTY_BACKING: &str = "Use of \"backing\": \"\" is deprecated; use \"backing\": null instead";

/// The longest name of a node.
const MAX_NODE_NAME: usize = 31;

/// One node to open: a driver over its children.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    /// What opens it.
    pub(super) driver: Driver,
    /// Its options as they were given, nested.
    pub(super) given: Map<String, Value>,
    /// Options that every node takes.
    pub(super) common: Common,
    /// What the user should know of how it was described.
    pub(super) warnings: Vec<&'static str>,
    /// The children that were described, in the order of the driver's list.
    children: Vec<(String, ChildPlan)>,
}

/// What opens a node.
#[derive(Clone, Debug)]
pub(super) enum Driver {
    /// The format that the contents of the file show.
    Probed,
    /// A format.
    Format(&'static FormatDriver),
    /// A filter.
    Filter(&'static FilterDriver),
    /// A protocol.
    Host(HostFile),
    /// None: the node is open already, and has this name.
    Open(BString),
}

/// A child that was described.
#[derive(Clone, Debug)]
pub(super) enum ChildPlan {
    /// There is to be none.
    Null,
    /// Options for it, not taken apart yet.
    Tree(Map<String, Value>),
    /// A plan.
    Node(Box<NodePlan>),
}

/// A host storage.
#[derive(Clone, Debug)]
pub(super) struct HostFile {
    /// The protocol's name; None where the name decides.
    pub(super) protocol: Option<String>,
    /// The path or URI, where one is given.
    pub(super) name: HostName,
}

/// How a host storage is called.
#[derive(Clone, Debug)]
pub(super) enum HostName {
    /// A path.
    Path(PathBuf),
    /// `protocol:rest`.
    Uri {
        /// Before the first colon.
        protocol: String,
        /// The whole.
        uri: BString,
    },
    /// Not by a name: the options say all.
    None,
}

fn takes_paths(scheme: &str) -> bool {
    protocols::for_scheme(scheme).is_some_and(StorageDriver::takes_paths)
}

impl HostName {
    /// The path, where it is that of a file or device.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Uri { protocol, uri } if takes_paths(protocol) => Some(path_behind_protocol(uri)),
            Self::Uri { .. } | Self::None => None,
        }
    }

    /// The name to which names in the image are relative.
    pub(super) fn base(&self) -> OsString {
        match (self.path(), self) {
            (Some(path), _) => path.into_os_string(),
            (None, Self::Uri { uri, .. }) => OsString::from_vec(uri.to_vec()),
            (None, _) => OsString::new(),
        }
    }
}

/// Options that every node takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    /// `read-only`.
    pub(super) read_only: bool,
    /// `force-share`.
    pub(super) force_share: bool,
    /// `cache.direct`.
    direct: Option<bool>,
    /// `cache.no-flush`.
    no_flush: Option<bool>,
    /// `discard`: whether discards reach the host.
    pub(super) discard: Option<bool>,
    /// `active=off`: as a node of a machine that is still elsewhere, which nobody may write to.
    pub(super) inactive: bool,
    /// `node-name`.
    pub(super) node_name: Option<String>,
    /// `detect-zeroes`.
    pub(super) detect_zeroes: DetectZeroes,
}

/// Whether written zeroes are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// No.
    #[default]
    Off,
    /// They are written as zeroes without data.
    On,
    /// They may become holes.
    Unmap,
}

impl DetectZeroes {
    /// The one of that name: `off`, `on` or `unmap`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] where there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "off" => Self::Off,
            "on" => Self::On,
            "unmap" => Self::Unmap,
            other => return Err(Error::invalid(format!("invalid parameter value: {other}"))),
        })
    }
}

/// Refuses to make holes of zeroes where discards reach nothing.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub(super) fn check_unmapping(zeroes: DetectZeroes, discards: bool) -> Result<()> {
    match zeroes == DetectZeroes::Unmap && !discards {
        true => Err(Error::invalid(
            "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
        )),
        false => Ok(()),
    }
}

impl Common {
    /// Refuses to write to a node that is only to be read.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`].
    pub(super) fn check_writable(&self) -> Result<()> {
        let refusal = match (self.read_only, self.inactive) {
            (true, _) => "Block node is read-only",
            (false, true) => "Permission 'write' unavailable on inactive node",
            (false, false) => return Ok(()),
        };
        Err(Error::new(ErrorKind::ReadOnly, refusal))
    }

    /// The cache mode with the options of the node put over it.
    pub(super) fn cache(&self, mode: CacheMode) -> CacheMode {
        let direct = self.direct.unwrap_or(mode.direct());
        let no_flush = self.no_flush.unwrap_or(mode == CacheMode::Unsafe);
        match (direct, mode.write_through()) {
            (true, true) => CacheMode::Directsync,
            (true, false) => CacheMode::None,
            (false, true) => CacheMode::Writethrough,
            (false, false) if no_flush => CacheMode::Unsafe,
            (false, false) => CacheMode::Writeback,
        }
    }
}

impl NodePlan {
    /// The plan of a location; `format` was named beside it and wins over the tree's driver.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], one line without the location's name.
    pub(super) fn new(location: &Location, format: Option<&str>) -> Result<Self> {
        let name = match location.node() {
            Node::Tree(tree) => {
                let plan = Self::of_tree(tree.clone(), format)?;
                return match &plan.driver {
                    Driver::Filter(driver) if driver.holds_file => Self::over(plan, None),
                    _ => Ok(plan),
                };
            }
            Node::Path(path) => HostName::Path(path.clone()),
            Node::Uri { protocol, uri } => match filter::registry::for_file_name(protocol) {
                Some((driver, parse)) => {
                    let filter = Self::of_filter_name(driver, parse(uri.as_bstr())?)?;
                    return Self::over(filter, format);
                }
                None => {
                    if let Some(plan) = Self::of_protocol_name(protocol, uri.as_bstr())? {
                        return Self::over(plan, format);
                    }
                    HostName::Uri {
                        protocol: protocol.clone(),
                        uri: uri.clone(),
                    }
                }
            },
        };
        let protocol = match &name {
            HostName::Path(_) => location.protocol().map(str::to_owned),
            _ => None,
        };
        Self::over(Self::host(HostFile { protocol, name }), format)
    }

    /// The plan of a location with the options of an opening.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for options that do not go together, that no driver has, or that the location has too.
    pub(super) fn of(location: &Location, options: &OpenOptions) -> Result<Self> {
        let mut more = tree::of_options(&options.driver_options)?;
        let driver = take_word(&mut more, "driver");
        if let (Some(format), Some(driver)) = (&options.format, &driver)
            && format != driver
        {
            return Err(Error::invalid(format!(
                "The format '{format}' and the driver '{driver}' exclude each other"
            )));
        }
        let mut plan = Self::new(location, options.format.as_deref().or(driver.as_deref()))?;
        plan.add(more)?;
        Ok(plan)
    }

    /// As [`Plan::of`], for an image whose own file is open already: no option says anything of that.
    ///
    /// # Errors
    /// For an option of the file; else as [`Plan::of`].
    pub(super) fn of_open_file(location: &Location, options: &OpenOptions) -> Result<Self> {
        let file = ChildSpec::FILE.name;
        let mut keys = options.driver_options.iter().map(|(key, _)| key);
        if let Some(key) = keys.find(|key| key.split('.').next() == Some(file)) {
            return Err(Error::invalid(format!(
                "The file of the image is open already; the option '{key}' cannot change how"
            )));
        }
        Self::of(location, options)
    }

    /// Adds options to those that it has.
    fn add(&mut self, mut more: Map<String, Value>) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        add_common(&mut more, &mut self.common)?;
        if let Driver::Host(host) = &self.driver
            && !matches!(host.name, HostName::None)
            && more.contains_key("filename")
        {
            return Err(given_twice("filename"));
        }
        for (name, child) in &mut self.children {
            let Some(value) = take_at(&mut more, name) else {
                continue;
            };
            match (child, value) {
                (ChildPlan::Tree(tree), Value::Object(more)) => merge(tree, more)?,
                (ChildPlan::Node(plan), Value::Object(more)) => plan.add(more)?,
                _ => return Err(given_twice(name)),
            }
        }
        merge(&mut self.given, more)?;
        if let Driver::Host(host) = &mut self.driver {
            if matches!(host.name, HostName::None) {
                host.name = take_file_name(host.protocol.as_deref(), &mut self.given);
            }
            return Ok(());
        }
        self.take_children(self.driver.children())?;
        self.check_children()
    }

    /// The plan of a node that is open already: a filter, or else a host storage.
    pub(super) fn of_open(filter: Option<&'static FilterDriver>) -> Self {
        Self::bare(match filter {
            Some(driver) => Driver::Filter(driver),
            None => Driver::Host(HostFile {
                protocol: None,
                name: HostName::None,
            }),
        })
    }

    /// The same over what its file holds, which is compressed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an unknown kind, and where there is no file.
    pub(super) fn decompressing(mut self, kind: &str) -> Result<Self> {
        decompress::kind_named(kind)?;
        let file = ChildSpec::FILE.name;
        let over = |child| Self {
            given: Map::from_iter([(decompress::TYPE.to_owned(), kind.into())]),
            children: vec![(file.to_owned(), child)],
            ..Self::bare(Driver::Filter(&decompress::DRIVER))
        };
        if matches!(self.driver, Driver::Host(_)) {
            let plan = over(ChildPlan::Node(Box::new(self)));
            return Self::over(plan, None);
        }
        let mut children = self.children.iter_mut();
        let Some((_, child)) = children.find(|(name, _)| name == file) else {
            return Err(no_child(file));
        };
        let compressed = std::mem::replace(child, ChildPlan::Null);
        *child = ChildPlan::Node(Box::new(over(compressed)));
        Ok(self)
    }

    /// The plan of a file name that stands for options; None where the protocol takes the name itself.
    ///
    /// # Errors
    /// Of the protocol, for a name that it does not know.
    fn of_protocol_name(scheme: &str, name: &BStr) -> Result<Option<Self>> {
        let driver = protocols::for_scheme(scheme);
        driver.map_or(Ok(None), |driver| Self::parsed(driver, name))
    }

    fn parsed(driver: &'static StorageDriver, name: &BStr) -> Result<Option<Self>> {
        let Some(parse) = driver.parse_file_name else {
            return Ok(None);
        };
        let host = HostFile {
            protocol: Some(driver.name.to_owned()),
            name: HostName::None,
        };
        Ok(Some(Self {
            given: parse(name)?,
            ..Self::host(host)
        }))
    }

    /// The plan of a filter by what a file name says.
    fn of_filter_name(driver: &'static FilterDriver, name: ParsedName) -> Result<Self> {
        let mut plan = Self {
            given: name.options,
            ..Self::bare(Driver::Filter(driver))
        };
        for (child, name) in name.children {
            let location = Location::parse_name(OsStr::from_bytes(&name))?;
            let inner = Self::new(&location, None)?;
            let mut specs = driver.children.iter();
            let image = specs.any(|spec| spec.is_image && spec.covers(child));
            let inner = match image {
                true => inner,
                false => inner.without_format()?,
            };
            let inner = ChildPlan::Node(Box::new(inner));
            plan.children.push((child.to_owned(), inner));
        }
        Ok(plan)
    }

    /// The same where a file is wanted: of a name alone, which says no format, the file.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn without_format(self) -> Result<Self> {
        let alone = match &self.driver {
            Driver::Probed if self.given.is_empty() => self.child(ChildSpec::FILE.name),
            _ => None,
        };
        let file = alone.map(ChildPlan::file).transpose()?.flatten();
        Ok(file.unwrap_or(self))
    }

    /// The plan of the format of that name over a file, or of the file itself where the name is that of
    /// a protocol.
    fn over(file: Self, format: Option<&str>) -> Result<Self> {
        let driver = match format.map(driver_named).transpose()? {
            None => Driver::Probed,
            Some(Driver::Host(HostFile { protocol, .. })) => {
                let named = protocol.as_deref().and_then(protocols::find);
                if let (Some(named), Driver::Host(host)) = (named, &file.driver)
                    && !matches!(host.name, HostName::None)
                    && let Some(plan) = Self::parsed(named, host.name.base().as_bytes().into())?
                {
                    return Ok(plan);
                }
                let driver = match file.driver {
                    Driver::Host(host) => Driver::Host(HostFile { protocol, ..host }),
                    other => other,
                };
                return Ok(Self { driver, ..file });
            }
            Some(driver) => driver,
        };
        if let (Driver::Filter(filter), Driver::Filter(of_name)) = (&driver, &file.driver)
            && filter.name == of_name.name
        {
            // The name says all of it already.
            return Ok(file);
        }
        let mut plan = Self::bare(driver);
        let specs = plan.driver.children();
        let mut plain = specs.iter().filter(|spec| spec.list().is_none());
        let own = plain.clone().find(|spec| spec.name == ChildSpec::FILE.name);
        if let Some(spec) = own.or(plain.next_back()) {
            let file = ChildPlan::Node(Box::new(file));
            plan.children.push((spec.name.to_owned(), file));
        }
        plan.check_children()?;
        Ok(plan)
    }

    /// The plan of a tree of options.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn of_tree(mut tree: Map<String, Value>, format: Option<&str>) -> Result<Self> {
        // What is no text names no driver.
        let named = match tree.shift_remove("driver") {
            Some(Value::String(name)) => Some(name.to_str_lossy().into_owned()),
            _ => None,
        };
        let named = format.map(str::to_owned).or(named);
        let driver = match named.as_deref().map(driver_named).transpose()? {
            None => Driver::Probed,
            Some(driver) => driver,
        };
        let common = take_common(&mut tree)?;
        let mut plan = Self {
            given: tree,
            common,
            ..Self::bare(driver)
        };
        if let Driver::Host(host) = &mut plan.driver {
            host.name = take_file_name(host.protocol.as_deref(), &mut plan.given);
            return Ok(plan);
        }
        plan.take_children(plan.driver.children())?;
        plan.check_children()?;
        Ok(plan)
    }

    /// Refuses a plan without a child that its driver requires.
    fn check_children(&self) -> Result<()> {
        for spec in self.driver.children().iter().filter(|spec| spec.required) {
            match self.child(spec.name) {
                Some(ChildPlan::Node(_)) => {}
                Some(ChildPlan::Tree(tree)) if !tree.is_empty() => {}
                _ if matches!(self.driver, Driver::Probed) => return Err(no_driver()),
                _ => return Err(no_child(spec.name)),
            }
        }
        // An image knows the others of its own list; a filter has no others.
        let Driver::Filter(driver) = self.driver else {
            return Ok(());
        };
        for (spec, list) in driver
            .children
            .iter()
            .filter_map(|spec| Some((spec, spec.list()?)))
        {
            let items = self.children().filter(|(name, _)| spec.covers(name));
            for (number, (name, child)) in items.enumerate() {
                if name != format!("{list}.{number}") {
                    return Err(no_list(list));
                }
                if matches!(child, ChildPlan::Null) {
                    return Err(no_child(name));
                }
            }
            if self.given.contains_key(list) {
                return Err(no_list(list));
            }
        }
        Ok(())
    }

    /// The plan of a tree that stands where a file is expected: a protocol, or a format or filter again.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn of_file(tree: Map<String, Value>) -> Result<Self> {
        if tree.get("driver").is_some_and(Value::is_string) {
            return Self::of_tree(tree, None);
        }
        let mut tree = tree;
        tree.shift_remove("driver");
        // A bare file name is a plain file, whatever it looks like.
        let common = take_common(&mut tree)?;
        let host = HostFile {
            protocol: None,
            name: take_file_name(None, &mut tree),
        };
        if matches!(host.name, HostName::None) {
            return Err(no_driver());
        }
        Ok(Self {
            given: tree,
            common,
            ..Self::host(host)
        })
    }

    /// The plan of a file that an image names, with what the user says of it beside the name.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn of_named(named: &Location, mut tree: Map<String, Value>) -> Result<Self> {
        let driver = take_word(&mut tree, "driver");
        let mut plan = Self::new(named, driver.as_deref())?;
        if driver.is_none() {
            // The contents of what a name alone leads to are not looked at.
            plan = plan.without_format()?;
        }
        plan.add(tree)?;
        Ok(plan)
    }

    /// The plan of a backing file: the tree that the user gave for it over the location that the
    /// image names. None of both opens nothing else than the tree says.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn of_backing(
        mut tree: Map<String, Value>,
        named: Option<&Location>,
        recorded: Option<&str>,
    ) -> Result<Self> {
        let driver = tree.get("driver").and_then(Value::as_str);
        let format = driver.or(recorded).map(str::to_owned);
        let Some(location) = named.filter(|_| !names_a_file(&tree)) else {
            return Self::of_tree(tree, format.as_deref());
        };
        tree.shift_remove("driver");
        let mut plan = Self::new(location, format.as_deref())?;
        let recorded = plan.common.node_name.take();
        plan.common = take_common(&mut tree)?;
        plan.common.node_name = plan.common.node_name.or(recorded);
        plan.given.extend(tree);
        plan.take_children(plan.driver.children())?;
        Ok(plan)
    }

    /// Takes what the options say of children, as soon as it is known which there are.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for what describes no child.
    pub(super) fn take_children(&mut self, specs: &[ChildSpec]) -> Result<()> {
        for spec in specs {
            let Some(list) = spec.list() else {
                let Some(value) = self.given.shift_remove(spec.name) else {
                    continue;
                };
                let child = match spec.name {
                    // The old way to say null.
                    BACKING if value.as_str() == Some("") => {
                        self.warnings.push(EMPTY_BACKING);
                        Some(ChildPlan::Null)
                    }
                    BACKING => ChildPlan::of_value(value)
                        .map_err(|error| error.context("Could not open backing file"))?,
                    _ => ChildPlan::of_value(value)?,
                };
                self.children
                    .extend(child.map(|child| (spec.name.to_owned(), child)));
                continue;
            };
            let Some(Value::Object(items)) = self.given.get_mut(list) else {
                continue;
            };
            let mut numbers: Vec<u32> = items.keys().filter_map(|key| key.parse().ok()).collect();
            numbers.sort_unstable();
            for number in numbers {
                let key = number.to_string();
                let Some(value) = items.shift_remove(&key) else {
                    continue;
                };
                let child = ChildPlan::of_value(value)?.unwrap_or(ChildPlan::Null);
                self.children.push((format!("{list}.{key}"), child));
            }
            if items.is_empty() {
                self.given.shift_remove(list);
            }
        }
        Ok(())
    }

    /// What was described for a child.
    pub(super) fn child(&self, name: &str) -> Option<&ChildPlan> {
        self.children()
            .find(|(of, _)| *of == name)
            .map(|(_, plan)| plan)
    }

    /// All children that were described.
    pub(super) fn children(&self) -> impl Iterator<Item = (&str, &ChildPlan)> {
        self.children
            .iter()
            .map(|(name, plan)| (name.as_str(), plan))
    }

    /// The path of the file at the end of it, where there is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match &self.driver {
            Driver::Host(host) => host.name.path(),
            _ => self.children().next()?.1.file().ok()??.path(),
        }
    }

    /// The host storage at the end of it, with its options.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn into_host(self) -> Result<(HostFile, Map<String, Value>)> {
        if let Driver::Host(host) = self.driver {
            return Ok((host, self.given));
        }
        let below = match self.children().next() {
            Some((_, child)) => child.file()?,
            None => None,
        };
        below
            .ok_or_else(|| Error::invalid("There is no file at the end of it"))?
            .into_host()
    }

    fn host(host: HostFile) -> Self {
        Self::bare(Driver::Host(host))
    }

    fn bare(driver: Driver) -> Self {
        Self {
            driver,
            given: Map::new(),
            common: Common::default(),
            warnings: Vec::new(),
            children: Vec::new(),
        }
    }
}

impl Driver {
    /// The children that it can have, as far as it is known.
    fn children(&self) -> &'static [ChildSpec] {
        match self {
            Self::Probed => const { &[ChildSpec::FILE] },
            Self::Format(driver) => driver.children,
            Self::Filter(driver) => driver.children,
            Self::Host(_) | Self::Open(_) => &[],
        }
    }
}

impl ChildPlan {
    /// What a value says of a child; None where that is nothing.
    fn of_value(value: Value) -> Result<Option<Self>> {
        match value {
            Value::Null => Ok(Some(Self::Null)),
            Value::String(node) => {
                let plan = NodePlan::bare(Driver::Open(node));
                Ok(Some(Self::Node(Box::new(plan))))
            }
            Value::Object(tree) => Ok(Some(Self::Tree(tree))),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => Ok(None),
        }
    }

    /// Whether it says which file it is.
    pub(super) fn names_a_file(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Tree(tree) => names_a_file(tree),
            Self::Node(_) => true,
        }
    }

    /// The first option that says something of it, as a child of that name; None where it says that there is
    /// to be none.
    pub(super) fn first_option(&self, name: &str) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Node(_) => Some(name.to_owned()),
            Self::Tree(tree) => Some(match flatten(tree).iter().next() {
                Some((key, _)) => format!("{name}.{key}"),
                None => name.to_owned(),
            }),
        }
    }

    /// The plan of it as what `spec` says; None where there is to be none.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn plan(&self, spec: &ChildSpec) -> Result<Option<NodePlan>> {
        match self {
            Self::Tree(tree) if spec.is_image => NodePlan::of_tree(tree.clone(), None).map(Some),
            _ => self.file(),
        }
    }

    /// The plan of it where a file is expected; None where there is to be none.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(super) fn file(&self) -> Result<Option<NodePlan>> {
        match self {
            Self::Null => Ok(None),
            Self::Tree(tree) => NodePlan::of_file(tree.clone()).map(Some),
            Self::Node(plan) => Ok(Some((**plan).clone())),
        }
    }
}

/// Whether a tree describes a node with a file of its own.
pub(super) fn names_a_file(tree: &Map<String, Value>) -> bool {
    let driver = tree.get("driver").and_then(Value::as_str);
    let specs = match driver.map(driver_named) {
        Some(Ok(driver)) => driver.children(),
        _ => Driver::Probed.children(),
    };
    let own = specs.iter().filter(|spec| spec.role != FileRole::Backing);
    let mut keys = own.map(|spec| spec.list().unwrap_or(spec.name));
    tree.contains_key("filename") || keys.any(|key| tree.contains_key(key))
}

fn take_file_name(protocol: Option<&str>, tree: &mut Map<String, Value>) -> HostName {
    let driver = protocol.and_then(protocols::find);
    // To other protocols it is an option like any other: one that they may not know.
    if driver.is_some_and(|driver| !driver.takes("filename")) {
        return HostName::None;
    }
    match tree.shift_remove("filename") {
        Some(Value::String(name)) => HostName::Path(plain_path(OsString::from_vec(name.into()))),
        _ => HostName::None,
    }
}

/// The driver of that name, a protocol without a file name yet.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] where there is none here.
fn driver_named(name: &str) -> Result<Driver> {
    if let Some(driver) = registry::by_name(name) {
        return Ok(Driver::Format(driver));
    }
    if let Some(driver) = filter::registry::by_name(name) {
        return Ok(Driver::Filter(driver));
    }
    match protocols::find(name) {
        Some(_) => Ok(Driver::Host(HostFile {
            protocol: Some(name.to_owned()),
            name: HostName::None,
        })),
        None => Err(unknown_driver(name)),
    }
}

fn no_child(name: &str) -> Error {
    Error::invalid(format!("A block device must be specified for \"{name}\""))
}

fn no_list(name: &str) -> Error {
    Error::invalid(format!("Option {name} is not a valid array"))
}

fn no_driver() -> Error {
    Error::invalid("Must specify either driver or file")
}

/// The error of a name that no open node has.
pub(super) fn no_such_node(name: &BStr) -> Error {
    Error::invalid(format!(
        "Cannot find device='{name}' nor node-name='{name}'"
    ))
}

fn take_common(tree: &mut Map<String, Value>) -> Result<Common> {
    let mut common = Common::default();
    add_common(tree, &mut common)?;
    Ok(common)
}

/// Takes the options that every node takes; what is not given stays.
fn add_common(tree: &mut Map<String, Value>, common: &mut Common) -> Result<()> {
    let mut cache = match tree.get_mut("cache") {
        Some(Value::Object(cache)) => std::mem::take(cache),
        Some(_) | None => Map::new(),
    };
    if let Some(direct) = take_bool(&mut cache, "direct", "cache.direct")? {
        common.direct = Some(direct);
    }
    if let Some(no_flush) = take_bool(&mut cache, "no-flush", "cache.no-flush")? {
        common.no_flush = Some(no_flush);
    }
    if let Some(read_only) = take_bool(tree, "read-only", "read-only")? {
        common.read_only = read_only;
    }
    if let Some(force_share) = take_bool(tree, "force-share", "force-share")? {
        common.force_share = force_share;
    }
    if let Some(active) = take_bool(tree, "active", "active")? {
        common.inactive = !active;
    }
    match take_word(tree, "discard").as_deref() {
        None => {}
        Some("unmap" | "on") => common.discard = Some(true),
        Some("ignore" | "off") => common.discard = Some(false),
        Some(_) => return Err(Error::invalid("Invalid discard option")),
    }
    if let Some(name) = take_word(tree, "detect-zeroes") {
        common.detect_zeroes = DetectZeroes::from_name(&name)?;
    }
    take_bool(tree, "auto-read-only", "auto-read-only")?;
    if let Some(name) = take_word(tree, "node-name") {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(fits) {
            return Err(Error::invalid(format!("Invalid node-name: '{name}'")));
        }
        if name.len() > MAX_NODE_NAME {
            return Err(Error::invalid("Node name too long"));
        }
        common.node_name = Some(name);
    }
    // What is left is unknown; the format names it when it refuses it.
    match tree.get_mut("cache") {
        Some(Value::Object(left)) if !cache.is_empty() => *left = cache,
        Some(Value::Object(_)) => drop(tree.shift_remove("cache")),
        Some(_) | None => {}
    }
    Ok(())
}

/// Takes the value below a dotted name.
fn take_at(tree: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let Some((list, rest)) = name.split_once('.') else {
        return tree.shift_remove(name);
    };
    let inner = tree.get_mut(list)?.as_object_mut()?;
    let value = take_at(inner, rest);
    if inner.is_empty() {
        tree.shift_remove(list);
    }
    value
}

/// Puts the options of one tree into another, which has none of them.
fn merge(tree: &mut Map<String, Value>, more: Map<String, Value>) -> Result<()> {
    for (key, value) in more {
        match (tree.get_mut(&key), value) {
            (None, value) => drop(tree.insert(key, value)),
            (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more)?,
            _ => return Err(given_twice(&key)),
        }
    }
    Ok(())
}

fn given_twice(key: &str) -> Error {
    Error::invalid(format!(
        "The option '{key}' is given by the location and beside it"
    ))
}

fn take_text(tree: &mut Map<String, Value>, key: &str) -> Option<BString> {
    let text = tree.get(key).and_then(leaf_text)?;
    tree.shift_remove(key);
    Some(text)
}

/// As [`take_text`], where only words are known: bytes that are no text are part of none.
fn take_word(tree: &mut Map<String, Value>, key: &str) -> Option<String> {
    Some(take_text(tree, key)?.to_str_lossy().into_owned())
}

fn take_bool(tree: &mut Map<String, Value>, key: &str, name: &'static str) -> Result<Option<bool>> {
    let Some(text) = take_text(tree, key) else {
        return Ok(None);
    };
    let spec = OptionSpec {
        name,
        kind: OptionKind::Bool,
        help: "",
        default: None,
        allowed: &[],
    };
    match parse_value(&spec, text.as_bstr())? {
        OptionValue::Bool(b) => Ok(Some(b)),
        _ => Ok(None),
    }
}
