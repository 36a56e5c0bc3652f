//! What opening starts from.

use super::ancestors::Ancestors;
use crate::image::OpenOptions;
use crate::image::node::Node;
use crate::image::node_plan::NodePlan;
use crate::location::Location;

/// A layer that is about to be opened.
#[derive(Debug)]
pub(super) struct Start {
    /// Where it is, for messages.
    pub(super) location: Location,
    /// What to open.
    pub(super) plan: NodePlan,
    /// Its file, if that is open already.
    pub(super) file: Option<Node>,
    /// An image names it, not the user.
    pub(super) named_by_image: bool,
}

impl Start {
    /// At a location whose file is not open.
    pub(super) fn new(location: &Location, plan: NodePlan) -> Self {
        Self {
            location: location.clone(),
            plan,
            file: None,
            named_by_image: false,
        }
    }
}

/// What stays the same while a node and its children are opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Builder<'a> {
    /// How the node is opened.
    pub(super) options: &'a OpenOptions,
    /// The layers above it and, once its file is open, itself.
    pub(super) ancestors: &'a Ancestors<'a>,
    /// Take no lock that excludes others.
    pub(super) force_share: bool,
    /// The name of the node comes from an image.
    pub(super) named_by_image: bool,
    /// Below so many nodes, one in the other, it stands.
    pub(super) nested: u32,
    /// Images among its children are opened for their metadata alone.
    pub(super) metadata_only: bool,
    /// Images among its children keep writers out.
    pub(super) deny_writers: bool,
}
