//! Where an image is: a path, `json:{…}`, `driver=…,file.filename=…`, or a protocol URI.
//! Each becomes one tree of options.

mod json;
pub(crate) mod tree;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice};

use crate::error::{Error, Result, ResultExt};
use crate::options::split_list;
use crate::printable::without_passwords;
use crate::value::{Map, Value};

/// The location of an image, as one tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    text: OsString,
    node: Node,
    /// The protocol of a path, if it was named.
    protocol: Option<String>,
}

/// The tree of a location: either a file name of a protocol, or a driver with options whose
/// `file` and `backing` are trees again.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A plain host path (bytes need not be UTF-8).
    Path(PathBuf),
    /// `protocol:rest` that is not a tree: the protocol's driver parses it.
    Uri {
        /// The part before the first colon.
        protocol: String,
        /// The whole text.
        uri: BString,
    },
    /// Options with nested objects; dotted keys are already nested.
    Tree(Map<String, Value>),
}

impl Location {
    /// From a file name as typed on a command line: a path, `protocol:rest` or `json:{…}`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for bad JSON; an unknown protocol is detected when opening.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self> {
        let text = text.as_ref();
        Self::parse_name(text).map_err(|error| error.could_not_open(text.to_string_lossy()))
    }

    /// As [`Location::parse`], for an image to create: `json:` does not introduce a tree there.
    pub fn for_target(text: impl AsRef<OsStr>) -> Self {
        Self::of_file_name(text.as_ref())
    }

    fn of_file_name(text: &OsStr) -> Self {
        let node = file_name_node(text);
        Self {
            protocol: protocol_of(text).map(|name| name.to_string_lossy().into_owned()),
            text: text.to_owned(),
            node,
        }
    }

    /// As [`Location::parse`]; the error does not name the text.
    pub(crate) fn parse_name(text: impl AsRef<OsStr>) -> Result<Self> {
        let text = text.as_ref();
        match text.as_bytes().strip_prefix(b"json:") {
            Some(json) => Ok(Self::from_tree(text.as_bytes().into(), parse_json(json)?)),
            None => Ok(Self::of_file_name(text)),
        }
    }

    /// From the text of `--image-opts`: `driver=…,file.filename=…`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub fn from_image_opts(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<Self> {
        let text = text.as_ref();
        let mut flat = Map::new();
        for (i, item) in split_list(text.as_bytes().as_bstr()).enumerate() {
            // A first word without a key is the name of a block device.
            let (key, value) = match item.bare && i == 0 {
                true => ("file".into(), item.word.to_owned()),
                false => (item.key.to_str_lossy(), item.value),
            };
            flat.shift_remove(&*key);
            flat.insert(key.into_owned(), Value::String(value));
        }
        let tree = tree::nest(flat).map_err(|error| error.could_not_open(text.display()))?;
        Ok(Self::from_tree(text.as_bytes().into(), tree))
    }

    /// A plain path, whatever it looks like: one that looks like a protocol is prefixed with `./`, so that it can be
    /// used as a name again.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        let path = plain_path(path.into().into_os_string());
        Self {
            text: path.clone().into_os_string(),
            node: Node::Path(path),
            protocol: None,
        }
    }

    /// From a tree that is already nested; `text` stands for it in messages.
    pub(crate) fn from_tree(text: BString, tree: Map<String, Value>) -> Self {
        Self {
            text: OsString::from_vec(text.into()),
            node: Node::Tree(tree),
            protocol: None,
        }
    }

    /// The text for messages, as the user gave it, without passwords.
    pub fn display(&self) -> std::borrow::Cow<'_, str> {
        let whole = self.text.as_bytes();
        match (&self.node, without_passwords(whole)) {
            (Node::Uri { .. } | Node::Tree(_), std::borrow::Cow::Owned(shown)) => {
                shown.to_str_lossy().into_owned().into()
            }
            _ => self.text.to_string_lossy(),
        }
    }

    /// The text as the user gave it.
    pub fn text(&self) -> &OsStr {
        &self.text
    }

    /// The tree.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The protocol that was named for a file name, as `file:` before a path does.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The same file name, for a protocol that was named separately from it.
    #[must_use]
    pub fn with_protocol(mut self, name: &str) -> Self {
        let node = match self.node {
            // A name for another protocol is a path here.
            Node::Uri { protocol, .. } if protocol != name => Node::Path(self.text.clone().into()),
            node => node,
        };
        self.node = node;
        self.protocol = Some(name.to_owned());
        self
    }

    /// The host path, if the location is a plain file.
    pub fn path(&self) -> Option<&Path> {
        match &self.node {
            Node::Path(path) => Some(path),
            _ => None,
        }
    }
}

/// The protocol of a file name: the part before its first colon, if no slash precedes that.
pub fn protocol_of(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    let end = bytes.iter().position(|b| matches!(b, b':' | b'/'))?;
    (bytes.get(end) == Some(&b':')).then(|| OsStr::from_bytes(bytes.get(..end).unwrap_or_default()))
}

/// The path of a file of that name, whatever it looks like: prefixed with `./` if its beginning would be taken for a
/// protocol wherever the name is printed, stored or combined.
pub(crate) fn plain_path(name: impl Into<OsString>) -> PathBuf {
    let name = name.into();
    match protocol_of(&name) {
        Some(_) => Path::new(".").join(name),
        None => name.into(),
    }
}

/// The path in `protocol:path`.
pub(crate) fn path_behind_protocol(uri: &[u8]) -> PathBuf {
    let path = uri.split_once_str(":").map_or(uri, |(_, path)| path);
    plain_path(OsStr::from_bytes(path))
}

/// The full name of a file that the image called `overlay` names: relative to the directory of
/// `overlay`, unless it is absolute or has a protocol.
pub fn resolve_name(overlay: &OsStr, name: &OsStr) -> OsString {
    resolve(overlay, name, true)
}

/// As [`resolve_name`], but a colon in `name` has no special meaning.
pub(crate) fn resolve_plain_name(overlay: &OsStr, name: &OsStr) -> OsString {
    resolve(overlay, name, false)
}

fn resolve(overlay: &OsStr, name: &OsStr, protocols: bool) -> OsString {
    if name.is_empty() || name.as_bytes().starts_with(b"/") {
        return name.to_owned();
    }
    if protocols && protocol_of(name).is_some() {
        return name.to_owned();
    }
    let base = overlay.as_bytes();
    let protocol = protocol_of(overlay).map_or(0, |p| p.len() + 1);
    let slash = base.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let directory = base.get(..slash.max(protocol)).unwrap_or_default();
    let mut full = directory.to_owned();
    full.extend_from_slice(name.as_bytes());
    OsString::from_vec(full)
}

fn file_name_node(text: &OsStr) -> Node {
    let Some(protocol) = protocol_of(text) else {
        return Node::Path(PathBuf::from(text));
    };
    if protocol == "file" {
        return Node::Path(path_behind_protocol(text.as_bytes()));
    }
    Node::Uri {
        protocol: protocol.to_string_lossy().into_owned(),
        uri: text.as_bytes().into(),
    }
}

fn parse_json(bytes: &[u8]) -> Result<Map<String, Value>> {
    const WHAT: &str = "Could not parse the JSON options";
    let text = std::str::from_utf8(bytes).map_err(|_| {
        Error::invalid("JSON parse error, invalid UTF-8 sequence in string").context(WHAT)
    })?;
    match json::parse(text).context(|| WHAT.to_owned())? {
        Value::Object(map) => tree::nest(map),
        _ => Err(Error::invalid("Invalid JSON object given")),
    }
}

/// A tree as a file name: `json:{…}`, with a space after each colon and comma.
pub(crate) fn json_name(tree: &Map<String, Value>) -> BString {
    format!("json:{}", Value::Object(tree.clone())).into()
}

#[cfg(test)]
mod tests;
