//! What a location asks to open, taken apart: the format, its file, its backing file and the
//! options of each.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bstr::{BStr, BString, ByteSlice};

use crate::driver_names::unknown_driver;
use crate::error::{Error, Result};
use crate::format::registry;
use crate::location::tree::{flatten, leaf_text};
use crate::location::{Location, Node, path_behind_protocol, plain_path};
use crate::options::{OptionKind, OptionSpec, OptionValue, Options, parse_value};
use crate::storage::{CacheMode, registry as protocols};
use crate::value::{Map, Value};

/// One node to open: a format over a source.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The format's name; None to probe.
    pub(super) format: Option<String>,
    /// The file below the format.
    pub(super) source: Source,
    /// Options of the format, keys joined by dots.
    pub(super) options: Options,
    /// The same as they were given.
    pub(super) given: Map<String, Value>,
    /// The tree that replaces the backing file that the image names.
    pub(super) backing: BackingPlan,
    /// The tree that replaces the data file that the image names.
    pub(super) data_file: Option<Map<String, Value>>,
    /// The tree of the file that holds the header apart from the image's file.
    pub(super) header: Option<Map<String, Value>>,
    /// Options that every node takes.
    pub(super) common: Common,
}

/// The file below a format.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A host storage.
    Host(HostFile),
    /// A host storage that is the image by itself: the protocol was named where a format stands.
    Bare(HostFile),
    /// Another node that serves as file.
    Node(Box<Plan>),
}

/// A host storage and its options.
#[derive(Clone, Debug)]
pub(super) struct HostFile {
    /// The protocol's name; None where the name decides.
    pub(super) protocol: Option<String>,
    /// The path or URI, where one is given.
    pub(super) name: HostName,
    /// Further options.
    pub(super) options: Map<String, Value>,
    /// Options that every node takes.
    pub(super) common: Common,
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

impl HostName {
    /// The path, where it is that of a file or device.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Uri { protocol, uri } if protocol == "host_device" => {
                Some(path_behind_protocol(uri))
            }
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

/// Where the backing file comes from.
#[derive(Clone, Debug, Default)]
pub(super) enum BackingPlan {
    /// The image names it.
    #[default]
    Named,
    /// There shall be none.
    Null,
    /// The user gave options for it.
    Tree(Map<String, Value>),
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
    /// `discard=ignore`.
    pub(super) ignore_discard: bool,
    /// `detect-zeroes`.
    pub(super) detect_zeroes: DetectZeroes,
}

/// Whether written zeroes are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DetectZeroes {
    /// No.
    #[default]
    Off,
    /// They are written as zeroes without data.
    On,
    /// They may become holes.
    Unmap,
}

impl Common {
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

impl Plan {
    /// The plan of a location; `format` was named beside it and wins over the tree's driver.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], one line without the location's name.
    pub(super) fn new(location: &Location, format: Option<&str>) -> Result<Self> {
        let name = match location.node() {
            Node::Tree(tree) => return Self::of_tree(tree.clone(), format),
            Node::Path(path) => HostName::Path(path.clone()),
            Node::Uri { protocol, uri } => HostName::Uri {
                protocol: protocol.clone(),
                uri: uri.clone(),
            },
        };
        let mut host = HostFile {
            protocol: match &name {
                HostName::Path(_) => location.protocol().map(str::to_owned),
                _ => None,
            },
            name,
            options: Map::new(),
            common: Common::default(),
        };
        match format.map(named) {
            None => Ok(Self::over(Source::Host(host))),
            Some(Named::Format(name)) => Ok(Self {
                format: Some(name),
                ..Self::over(Source::Host(host))
            }),
            Some(Named::Protocol(protocol)) => {
                host.protocol = Some(protocol);
                Ok(Self::over(Source::Bare(host)))
            }
            Some(Named::Unknown(error)) => Err(error),
        }
    }

    /// The plan of a tree of options.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub(super) fn of_tree(mut tree: Map<String, Value>, format: Option<&str>) -> Result<Self> {
        // What is no text names no driver.
        let driver = match tree.shift_remove("driver") {
            Some(Value::String(name)) => Some(name.to_str_lossy().into_owned()),
            _ => None,
        };
        let driver = format.map(str::to_owned).or(driver);
        let driver = driver.as_deref().map(named);
        if let Some(Named::Unknown(error)) = driver {
            return Err(error);
        }
        let common = take_common(&mut tree)?;
        if let Some(Named::Protocol(protocol)) = driver {
            return Ok(Self {
                common: common.clone(),
                ..Self::over(Source::Bare(host_file(Some(protocol), tree, common)))
            });
        }
        let name = match driver {
            Some(Named::Format(name)) => Some(name),
            _ => None,
        };
        let source = match tree.shift_remove("file") {
            Some(Value::Object(file)) if !file.is_empty() => source_of_tree(file)?,
            Some(Value::String(node)) => return Err(no_such_node(node.as_bstr())),
            _ if name.is_some() => {
                return Err(Error::invalid(
                    "A block device must be specified for \"file\"",
                ));
            }
            _ => return Err(Error::invalid("Must specify either driver or file")),
        };
        let backing = match tree.shift_remove("backing") {
            None => BackingPlan::Named,
            // An empty text is the old way to say null.
            Some(Value::Null) => BackingPlan::Null,
            Some(Value::String(text)) if text.is_empty() => BackingPlan::Null,
            Some(Value::String(node)) => {
                return Err(no_such_node(node.as_bstr()).context("Could not open backing file"));
            }
            Some(Value::Object(tree)) => BackingPlan::Tree(tree),
            Some(_) => BackingPlan::Named,
        };
        let data_file = take_child(&mut tree, "data-file")?;
        let header = take_child(&mut tree, "header")?;
        Ok(Self {
            format: name,
            source,
            options: flatten(&tree),
            given: tree,
            backing,
            data_file,
            header,
            common,
        })
    }

    /// The plan of a backing file: the tree that the user gave for it over the location that the
    /// image names. None of both opens nothing else than the tree says.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub(super) fn of_backing(
        mut tree: Map<String, Value>,
        named: Option<&Location>,
        recorded: Option<&str>,
    ) -> Result<Self> {
        let own_file = tree.contains_key("file") || tree.contains_key("filename");
        let driver = tree.get("driver").and_then(Value::as_str);
        let format = driver.or(recorded).map(str::to_owned);
        let Some(location) = named.filter(|_| !own_file) else {
            return Self::of_tree(tree, format.as_deref());
        };
        tree.shift_remove("driver");
        let mut plan = Self::new(location, format.as_deref())?;
        plan.common = take_common(&mut tree)?;
        for (key, value) in flatten(&tree).iter() {
            plan.options.set(key, value);
        }
        plan.given.extend(tree);
        Ok(plan)
    }

    /// The file at the end of it.
    pub(super) fn file(&self) -> &HostFile {
        match &self.source {
            Source::Host(host) | Source::Bare(host) => host,
            Source::Node(plan) => plan.file(),
        }
    }

    fn over(source: Source) -> Self {
        Self {
            format: None,
            source,
            options: Options::new(),
            given: Map::new(),
            backing: BackingPlan::Named,
            data_file: None,
            header: None,
            common: Common::default(),
        }
    }
}

/// The tree of a further file of the image.
fn take_child(tree: &mut Map<String, Value>, key: &str) -> Result<Option<Map<String, Value>>> {
    match tree.shift_remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(tree)) => Ok(Some(tree)),
        Some(Value::String(node)) => Err(no_such_node(node.as_bstr())),
        Some(_) => Err(Error::invalid("Must specify either driver or file")),
    }
}

/// The source of a tree that stands where a file is expected: a protocol, or a format again.
///
/// # Errors
/// As [`Plan::new`].
pub(super) fn source_of_tree(mut tree: Map<String, Value>) -> Result<Source> {
    let driver = match tree.get("driver") {
        Some(Value::String(name)) => Some(named(&name.to_str_lossy())),
        _ => None,
    };
    match driver {
        Some(Named::Unknown(error)) => Err(error),
        Some(Named::Format(_)) => {
            Plan::of_tree(tree, None).map(|plan| Source::Node(Box::new(plan)))
        }
        Some(Named::Protocol(protocol)) => {
            tree.shift_remove("driver");
            let common = take_common(&mut tree)?;
            Ok(Source::Host(host_file(Some(protocol), tree, common)))
        }
        // A bare file name is a plain file, whatever it looks like.
        None if tree.get("filename").is_some_and(Value::is_string) => {
            tree.shift_remove("driver");
            let common = take_common(&mut tree)?;
            Ok(Source::Host(host_file(None, tree, common)))
        }
        None if tree.get("file").is_some_and(Value::is_object) => {
            Plan::of_tree(tree, None).map(|plan| Source::Node(Box::new(plan)))
        }
        None => Err(Error::invalid("Must specify either driver or file")),
    }
}

fn host_file(protocol: Option<String>, mut tree: Map<String, Value>, common: Common) -> HostFile {
    let driver = protocol.as_deref().and_then(protocols::find);
    // To other protocols it is an option like any other: one that they may not know.
    let filename = driver
        .is_none_or(|driver| driver.takes("filename"))
        .then(|| tree.shift_remove("filename"));
    let name = match filename.flatten() {
        Some(Value::String(name)) => HostName::Path(plain_path(OsString::from_vec(name.into()))),
        _ => HostName::None,
    };
    HostFile {
        protocol,
        name,
        options: tree,
        common,
    }
}

/// What a driver's name stands for.
enum Named {
    Format(String),
    Protocol(String),
    Unknown(Error),
}

fn named(name: &str) -> Named {
    if registry::by_name(name).is_some() {
        Named::Format(name.to_owned())
    } else if protocols::find(name).is_some() {
        Named::Protocol(name.to_owned())
    } else {
        Named::Unknown(unknown_driver(name))
    }
}

fn no_such_node(name: &BStr) -> Error {
    Error::invalid(format!(
        "Cannot find device='{name}' nor node-name='{name}'"
    ))
}

fn take_common(tree: &mut Map<String, Value>) -> Result<Common> {
    let mut cache = match tree.shift_remove("cache") {
        Some(Value::Object(cache)) => cache,
        Some(other) => Map::from_iter([("".to_owned(), other)]),
        None => Map::new(),
    };
    let common = Common {
        direct: take_bool(&mut cache, "direct", "cache.direct")?,
        no_flush: take_bool(&mut cache, "no-flush", "cache.no-flush")?,
        read_only: take_bool(tree, "read-only", "read-only")?.unwrap_or(false),
        force_share: take_bool(tree, "force-share", "force-share")?.unwrap_or(false),
        ignore_discard: match take_word(tree, "discard").as_deref() {
            None | Some("unmap" | "on") => false,
            Some("ignore" | "off") => true,
            Some(_) => return Err(Error::invalid("Invalid discard option")),
        },
        detect_zeroes: match take_word(tree, "detect-zeroes").as_deref() {
            None | Some("off") => DetectZeroes::Off,
            Some("on") => DetectZeroes::On,
            Some("unmap") => DetectZeroes::Unmap,
            Some(other) => return Err(Error::invalid(format!("invalid parameter value: {other}"))),
        },
    };
    take_bool(tree, "auto-read-only", "auto-read-only")?;
    if let Some(name) = take_word(tree, "node-name") {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(fits) {
            return Err(Error::invalid(format!("Invalid node-name: '{name}'")));
        }
    }
    if !cache.is_empty() {
        // What is left is unknown; the format names it when it refuses it.
        tree.insert("cache".to_owned(), Value::Object(cache));
    }
    Ok(common)
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
