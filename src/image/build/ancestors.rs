//! The images that are being opened, from the top, in order to detect chains that refer to themselves.

use std::sync::Arc;

use bstr::BStr;

use crate::error::{Error, ErrorKind, Result};
use crate::filter::{ChildImage, NamedNodes};
use crate::image::nodes::{Nodes, OpeningNodes};
use crate::policy::OpenPolicy;
use crate::storage::Identity;

/// The layers of a chain opened so far, and the chain inside which this one is opened.
#[derive(Debug, Default)]
pub(super) struct Ancestors<'a> {
    ids: Vec<Option<Identity>>,
    above: Option<&'a Ancestors<'a>>,
    nodes: OpeningNodes,
    /// See [`super::start::Builder::nested`].
    nested: u32,
}

impl<'a> Ancestors<'a> {
    /// An empty chain, for an image that is opened beside those of `nodes`.
    pub(super) fn beside(nodes: Nodes) -> Self {
        Self {
            nodes: OpeningNodes::beside(nodes),
            ..Self::default()
        }
    }

    /// An empty chain inside `above`, below `nested` nodes.
    pub(super) fn inside(above: &'a Ancestors<'a>, nested: u32) -> Self {
        Self {
            ids: Vec::new(),
            above: Some(above),
            nodes: above.nodes.clone(),
            nested,
        }
    }

    /// See [`super::start::Builder::nested`].
    pub(super) fn nested(&self) -> u32 {
        self.nested
    }

    /// The names of the nodes that are opened together.
    pub(super) fn nodes(&self) -> &OpeningNodes {
        &self.nodes
    }

    /// Adds the file `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the file is already part of the chain, [`ErrorKind::Limit`] if the chain is too long.
    pub(super) fn step(
        &mut self,
        id: Option<Identity>,
        name: &BStr,
        policy: &OpenPolicy,
    ) -> Result<()> {
        if self.contains(id.as_ref()) {
            return Err(Error::backing_loop(name));
        }
        self.check_room(1, name, policy)?;
        self.ids.push(id);
        Ok(())
    }

    /// Refuses to add `layers` layers, beginning with `name`, if that makes the chain too long.
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

    /// Whether the file is already part of the chain.
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
        match self.nodes.find(node_name)? {
            Some(node) => Ok(node.image()),
            None => Err(Error::invalid(format!("Node '{node_name}' not found"))),
        }
    }
}
