//! The images that are being opened, from the top: to find chains that refer to themselves.

use std::sync::{Arc, Weak};

use bstr::BStr;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::filter::{ChildImage, NamedNodes};
use crate::image::node::{NamedNode, NodeName};
use crate::policy::OpenPolicy;
use crate::storage::Identity;

/// The layers of a chain so far, and the chain inside which this one is opened.
#[derive(Debug, Default)]
pub(super) struct Ancestors<'a> {
    ids: Vec<Option<Identity>>,
    above: Option<&'a Ancestors<'a>>,
    names: NodeNames,
}

/// The names of the nodes that were opened together, each for as long as its node is there.
#[derive(Clone, Debug, Default)]
struct NodeNames(Arc<Mutex<Vec<Weak<NodeName>>>>);

impl<'a> Ancestors<'a> {
    /// An empty one inside `above`.
    pub(super) fn inside(above: Option<&'a Ancestors<'a>>) -> Self {
        Self {
            ids: Vec::new(),
            above,
            names: above.map_or_else(NodeNames::default, |above| above.names.clone()),
        }
    }

    /// Refuses a name that another node has.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub(super) fn check_name(&self, name: Option<&str>) -> Result<()> {
        let mut names = self.names.0.lock();
        names.retain(|known| known.strong_count() > 0);
        let mut known = names.iter().filter_map(Weak::upgrade);
        match name {
            Some(name) if known.any(|known| known.as_str() == name) => Err(Error::invalid(
                format!("Duplicate nodes with node-name='{name}'"),
            )),
            _ => Ok(()),
        }
    }

    /// Takes a name for a node.
    ///
    /// # Errors
    /// As [`Ancestors::check_name`].
    pub(super) fn name(&self, name: Option<&str>) -> Result<Option<Arc<NodeName>>> {
        self.check_name(name)?;
        let name = name.map(|name| Arc::new(NodeName::new(name)));
        let mut names = self.names.0.lock();
        names.extend(name.iter().map(Arc::downgrade));
        Ok(name)
    }

    /// The open node of that name.
    pub(super) fn named(&self, name: &str) -> Option<NamedNode> {
        let names = self.names.0.lock();
        let mut known = names.iter().filter_map(Weak::upgrade);
        let found = known.find(|known| known.as_str() == name);
        drop(names);
        found?.node()
    }

    /// Adds the file `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the file is on the way already, [`ErrorKind::Limit`] where the
    /// chain is too long.
    pub(super) fn step(
        &mut self,
        id: Option<Identity>,
        name: &BStr,
        policy: &OpenPolicy,
    ) -> Result<()> {
        if self.contains(id.as_ref()) {
            return Err(Error::invalid(format!(
                "Backing file '{name}' creates an infinite loop."
            )));
        }
        self.check_room(1, name, policy)?;
        self.ids.push(id);
        Ok(())
    }

    /// Refuses `layers` more, beginning with `name`, where the chain gets too long.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub(super) fn check_room(&self, layers: usize, name: &BStr, policy: &OpenPolicy) -> Result<()> {
        let limit = policy.chain_limit();
        match self.depth().saturating_add(layers) > limit as usize {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Limit,
                format!("The backing chain has more than {limit} images at '{name}'"),
            )),
        }
    }

    /// Whether the file is on the way.
    pub(super) fn contains(&self, id: Option<&Identity>) -> bool {
        id.is_some()
            && self
                .ways()
                .any(|way| way.ids.iter().any(|on| on.as_ref() == id))
    }

    fn depth(&self) -> usize {
        self.ways().map(|way| way.ids.len()).sum()
    }

    fn ways(&self) -> impl Iterator<Item = &Ancestors<'a>> {
        std::iter::successors(Some(self), |way| way.above)
    }
}

impl NamedNodes for Ancestors<'_> {
    fn image(&self, node_name: &str) -> Result<Option<Arc<dyn ChildImage>>> {
        match self.named(node_name) {
            Some(node) => Ok(node.image()),
            None => Err(Error::invalid(format!("Node '{node_name}' not found"))),
        }
    }
}
