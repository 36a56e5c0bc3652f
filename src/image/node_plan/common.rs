//! The options that every node has.

use super::take::{take_bool, take_word};
use crate::error::{Error, ErrorKind, Result};
use crate::image::detect_zeroes::DetectZeroes;
use crate::image::node_options::NODE_OPTIONS;
use crate::storage::CacheMode;
use crate::value::{Map, Value};

/// Maximum length of a node name.
const MAX_NODE_NAME: usize = 31;

/// Options that every node has.
#[derive(Clone, Debug, Default)]
pub(in crate::image) struct Common {
    /// `read-only`.
    pub(in crate::image) read_only: bool,
    /// `force-share`.
    pub(in crate::image) force_share: bool,
    /// `cache.direct`.
    direct: Option<bool>,
    /// `cache.no-flush`.
    no_flush: Option<bool>,
    /// `discard`: whether discards reach the host.
    pub(in crate::image) discard: Option<bool>,
    /// `active=off`: a node of a machine that still runs elsewhere, which must not be written to.
    pub(in crate::image) inactive: bool,
    /// `node-name`.
    pub(in crate::image) node_name: Option<String>,
    /// `detect-zeroes`.
    pub(in crate::image) detect_zeroes: DetectZeroes,
}

impl Common {
    /// Refuses to write to a read-only node.
    ///
    /// # Errors
    /// [`ErrorKind::ReadOnly`].
    pub(in crate::image) fn check_writable(&self) -> Result<()> {
        let refusal = match (self.read_only, self.inactive) {
            (true, _) => "Block node is read-only",
            (false, true) => "Permission 'write' unavailable on inactive node",
            (false, false) => return Ok(()),
        };
        Err(Error::new(ErrorKind::ReadOnly, refusal))
    }

    /// The cache mode after applying the options of the node.
    pub(in crate::image) fn cache(&self, mode: CacheMode) -> CacheMode {
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

pub(super) fn take_common(tree: &mut Map<String, Value>) -> Result<Common> {
    let mut common = Common::default();
    add_common(tree, &mut common)?;
    Ok(common)
}

/// Takes the options that every node has; those that are not given stay unchanged.
pub(super) fn add_common(tree: &mut Map<String, Value>, common: &mut Common) -> Result<()> {
    let mut cache = match tree.get_mut("cache") {
        Some(Value::Object(cache)) => std::mem::take(cache),
        Some(_) | None => Map::new(),
    };
    // A null is not a value.
    let is_ours = |name: &str| NODE_OPTIONS.iter().any(|spec| spec.name == name);
    tree.retain(|name, value| *value != Value::Null || !is_ours(name));
    cache.retain(|name, value| *value != Value::Null || !is_ours(&format!("cache.{name}")));
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
    // What remains is unknown, and will be reported when the format refuses it.
    match tree.get_mut("cache") {
        Some(Value::Object(left)) if !cache.is_empty() => *left = cache,
        Some(Value::Object(_)) => drop(tree.shift_remove("cache")),
        Some(_) | None => {}
    }
    Ok(())
}
