//! Where an image is: a path, `json:{…}`, `driver=…,file.filename=…`, or a protocol URI.
//! Each becomes one tree of options.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::Result;

/// Where an image is, as one tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Location {
    text: OsString,
    node: Node,
}

/// The tree of a location: either a file name of a protocol, or a driver with options whose
/// `file` and `backing` are trees again.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A plain host path (bytes need not be UTF-8).
    Path(PathBuf),
    /// `protocol:rest` that is not a tree: the protocol's driver parses it.
    Uri {
        /// Before the first colon.
        protocol: String,
        /// The whole text.
        uri: String,
    },
    /// Options with nested objects; dotted keys are nested already.
    Tree(Map<String, Value>),
}

impl Location {
    /// From a file name as typed on a command line.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for bad JSON; an unknown protocol is found when opening.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self> {
        let text = text.as_ref().to_owned();
        let node = Node::Path(PathBuf::from(&text));
        Ok(Self { text, node })
    }

    /// From the text of `--image-opts`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub fn from_image_opts(text: &str) -> Result<Self> {
        Self::parse(text)
    }

    /// A plain path, whatever it looks like.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            text: path.clone().into_os_string(),
            node: Node::Path(path),
        }
    }

    /// The text for messages, as the user gave it.
    pub fn display(&self) -> std::borrow::Cow<'_, str> {
        self.text.to_string_lossy()
    }

    /// The tree.
    pub fn node(&self) -> &Node {
        &self.node
    }
}
