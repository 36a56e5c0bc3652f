//! The starting point for opening a layer or a node.

use super::ancestors::Ancestors;
use crate::image::OpenOptions;
use crate::image::node::Node;
use crate::image::node_plan::NodePlan;
use crate::location::Location;

/// A layer that is about to be opened.
#[derive(Debug)]
pub(super) struct Start {
    /// Its location, for messages.
    pub(super) location: Location,
    /// What to open.
    pub(super) plan: NodePlan,
    /// Its file, if that is open already.
    pub(super) file: Option<Node>,
    /// It was named by an image, not by the user.
    pub(super) named_by_image: bool,
}

impl Start {
    /// At a location whose file is not open yet.
    pub(super) fn new(location: &Location, plan: NodePlan) -> Self {
        Self {
            location: location.clone(),
            plan,
            file: None,
            named_by_image: false,
        }
    }
}

/// What stays the same while a node and its children are being opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Builder<'a> {
    /// How the node is opened.
    pub(super) options: &'a OpenOptions,
    /// The layers above it and, once its file is open, itself.
    pub(super) ancestors: &'a Ancestors<'a>,
    /// Take no exclusive locks.
    pub(super) force_share: bool,
    /// The name of the node comes from an image.
    pub(super) named_by_image: bool,
    /// Number of nodes around it.
    pub(super) nested: u32,
    /// Images among its children are opened only for their metadata.
    pub(super) metadata_only: bool,
    /// Images among its children keep writers out.
    pub(super) deny_writers: bool,
}
