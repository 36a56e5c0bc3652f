//! The names of nodes, within an image and across images.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::image::node::{NamedNode, NodeName};

/// The named nodes of images that are opened one after the other: names are unique, and an image can stand on a node of
/// one that was opened before it. A clone is the same set.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    names: Names,
    /// Its names are taken, but cannot be looked up.
    apart: bool,
}

/// Names, each valid as long as its node exists.
type Names = Arc<Mutex<Vec<Weak<NodeName>>>>;

impl Nodes {
    /// The same set for an image that must later be openable by its own name, when no other one is open.
    pub(crate) fn apart(&self) -> Self {
        Self {
            names: self.names.clone(),
            apart: true,
        }
    }
}

/// The names of an image that is being opened, and those of the images opened before it.
#[derive(Clone, Debug, Default)]
pub(super) struct OpeningNodes {
    own: Names,
    before: Nodes,
}

impl OpeningNodes {
    /// No own names yet.
    pub(super) fn beside(before: Nodes) -> Self {
        Self {
            own: Names::default(),
            before,
        }
    }

    /// Refuses a name that is in use by another node.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub(super) fn check(&self, name: Option<&str>) -> Result<()> {
        let Some(name) = name else {
            return Ok(());
        };
        check_free(&mut self.own.lock(), name)?;
        check_free(&mut self.before.names.lock(), name)
    }

    /// Takes a name for a node.
    ///
    /// # Errors
    /// As [`OpeningNodes::check`].
    pub(super) fn take(&self, name: Option<&str>) -> Result<Option<Arc<NodeName>>> {
        self.check(name)?;
        let name = name.map(|name| Arc::new(NodeName::new(name)));
        self.own.lock().extend(name.iter().map(Arc::downgrade));
        Ok(name)
    }

    /// The open node with that name.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] if an image that was opened before writes to it.
    pub(super) fn find(&self, name: &str) -> Result<Option<NamedNode>> {
        if let Some(node) = find(&self.own, name) {
            return Ok(Some(node));
        }
        match find(&self.before.names, name).filter(|_| !self.before.apart) {
            Some(node) if node.is_written() => Err(conflict(name, "another image writes to it")),
            found => Ok(found),
        }
    }

    /// Registers the names of the image, now that it is open, for images that are opened later.
    ///
    /// # Errors
    /// As [`OpeningNodes::check`], if another image has taken one of them in the meantime.
    pub(super) fn publish(&self) -> Result<()> {
        let mut names = self.before.names.lock();
        let own = self.own.lock();
        for name in own.iter().filter_map(Weak::upgrade) {
            check_free(&mut names, name.as_str())?;
        }
        names.extend(own.iter().cloned());
        Ok(())
    }
}

/// The error for a node that cannot be used in conflicting ways.
pub(super) fn conflict(name: impl std::fmt::Display, reason: &str) -> Error {
    Error::new(
        ErrorKind::Locked,
        format!("Permission conflict on node '{name}': {reason}"),
    )
}

fn check_free(names: &mut Vec<Weak<NodeName>>, name: &str) -> Result<()> {
    names.retain(|known| known.strong_count() > 0);
    let mut known = names.iter().filter_map(Weak::upgrade);
    match known.any(|known| known.as_str() == name) {
        true => Err(Error::invalid(format!(
            "Duplicate nodes with node-name='{name}'"
        ))),
        false => Ok(()),
    }
}

fn find(names: &Names, name: &str) -> Option<NamedNode> {
    let names = names.lock();
    let mut known = names.iter().filter_map(Weak::upgrade);
    let found = known.find(|known| known.as_str() == name);
    drop(names);
    found?.node()
}
