//! Opens a node that serves as a child of another one.

use bstr::{BStr, ByteSlice};

use super::open_chain;
use super::start::{Builder, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{FilterChild, FilterContext, FilterDriver};
use crate::format::{ChildSpec, FormatDriver};
use crate::image::detect_zeroes::check_unmapping;
use crate::image::node::{Child, NamedNode, Node};
use crate::image::node_plan::{Driver, NodePlan, no_such_node};
use crate::image::nodes::conflict;
use crate::image::{OpenOptions, host, names};
use crate::location::Location;
use crate::location::tree::{flatten, flatten_values};
use crate::memory;
use crate::options::{OptionSpec, Values, valid_keys};

/// Each nested node takes stack space, which is scarce on callers' threads.
const MOST_NESTED: u32 = 32;

/// More memory than is needed for the many small parts of a node, or of a layer over it.
pub(super) const NODE: u64 = 64 << 10;

impl Builder<'_> {
    /// Opens a node. Its files are not locked, except by images among its children.
    pub(super) fn node(&self, plan: &NodePlan, writable: bool) -> Result<Node> {
        // An image may name any number of nodes.
        memory::headroom(NODE)?;
        if self.nested >= MOST_NESTED {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("More than {MOST_NESTED} nodes stand in one another"),
            ));
        }
        let name = plan.common.node_name.as_deref();
        self.ancestors.nodes().check(name)?;
        let node = match &plan.driver {
            Driver::Host(file) => {
                check_access(plan, writable)?;
                host::open(file, plan, writable, self.named_by_image, self.options)?
            }
            Driver::Filter(driver) => {
                check_access(plan, writable)?;
                self.filter(driver, plan, writable)?
            }
            // The name belongs to its layer.
            Driver::Open(name) => return self.open_node(name.as_bstr(), writable),
            Driver::Format(_) | Driver::Probed => return self.image(plan, writable),
        };
        Ok(node.called(self.ancestors.nodes().take(name)?))
    }

    /// Shares an open node for reading by another one.
    fn open_node(&self, name: &BStr, writable: bool) -> Result<Node> {
        let node = self.named(name)?.share();
        match writable {
            false => Ok(node),
            true => Err(conflict(
                name,
                "another node stands on it, so it cannot be written to here",
            )),
        }
    }

    /// The open node with that name. Names inside images never refer to open nodes: a few of them could form a tree
    /// that is too large to walk.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is none, [`ErrorKind::Locked`] if another image writes to it.
    pub(super) fn named(&self, name: &BStr) -> Result<NamedNode> {
        let known = match name.to_str() {
            Ok(name) if !self.named_by_image => self.ancestors.nodes().find(name)?,
            _ => None,
        };
        known.ok_or_else(|| no_such_node(name))
    }

    /// An image that serves as a storage.
    fn image(&self, plan: &NodePlan, writable: bool) -> Result<Node> {
        let options = OpenOptions {
            format: None,
            writable,
            deny_writers: self.deny_writers,
            for_check: false,
            metadata_only: self.metadata_only,
            backing: true,
            force_share: self.force_share,
            may_unmap: true,
            ..self.options.clone()
        };
        // Its name is not known until it is open.
        let mut start = Start::new(&Location::from_path(""), plan.clone());
        start.named_by_image = self.named_by_image;
        let image = open_chain(
            start,
            &options,
            None,
            Some((self.ancestors, self.nested + 1)),
        )?;
        let image = image.kept_from_writers(&options)?;
        Ok(Node::of_image(image.into_shared()))
    }

    fn filter(
        &self,
        driver: &'static FilterDriver,
        plan: &NodePlan,
        writable: bool,
    ) -> Result<Node> {
        self.options.control.checkpoint()?;
        // In QEMU's terms, a driver with file names is a protocol.
        let words = match driver.file_names {
            Some(_) => format!("Block protocol '{}' doesn't", driver.name),
            None => format!("Block format '{}' does not", driver.name),
        };
        let values = checked_options(&words, driver.open_options, plan)?;
        let within = Self {
            force_share: self.force_share || plan.common.force_share,
            nested: self.nested + 1,
            ..*self
        };
        let mut children = Vec::new();
        for (name, child) in plan.children() {
            let Some(spec) = driver.children.iter().find(|spec| spec.covers(name)) else {
                continue;
            };
            let Some(inner) = child.plan(spec)? else {
                continue;
            };
            let within = Self {
                // The file of the filter is opened like any file, for its bytes.
                metadata_only: self.metadata_only && spec.name != ChildSpec::FILE.name,
                deny_writers: self.deny_writers || driver.keeps_writers_out,
                ..within
            };
            children.push(Child {
                name: name.to_owned(),
                role: spec.role,
                node: within.node(&inner, writable)?,
            });
        }
        let given = children.iter().map(|child| FilterChild {
            name: child.name.clone(),
            storage: child.node.storage.clone(),
            image: child.node.child_image(),
            may_compress: child.node.may_compress(),
        });
        let storage = (driver.open)(FilterContext {
            children: given.collect(),
            writable,
            options: &values,
            nodes: self.ancestors,
            objects: &self.options.objects,
            policy: &self.options.policy,
            control: &self.options.control,
        })?;
        Ok(names::filter_node(driver, plan, children, storage))
    }
}

fn check_access(plan: &NodePlan, writable: bool) -> Result<()> {
    let common = &plan.common;
    check_unmapping(common.detect_zeroes, common.discard.unwrap_or(true))?;
    match writable {
        true => common.check_writable(),
        false => Ok(()),
    }
}

/// The error for an option that a format does not have.
pub(super) fn unknown_option(driver: &FormatDriver, key: &str) -> Error {
    let name = driver.name;
    Error::invalid(format!(
        "Block format '{name}' does not support the option '{key}'"
    ))
    .with_hint(valid_keys(driver.open_options))
}

/// The options of a plan, checked against those of its driver. `words` is the beginning of the message about an unknown
/// one, and ends in "does not".
///
/// # Errors
/// [`ErrorKind::Invalid`], naming an option that the driver does not have.
pub(super) fn checked_options(
    words: &str,
    table: &[OptionSpec],
    plan: &NodePlan,
) -> Result<Values> {
    // A null is not a value, but its key must be known.
    let given = flatten_values(&plan.given);
    let known = |key: &str| table.iter().any(|spec| spec.matches(key));
    if let Some(key) = given.keys().find(|key| !known(key)) {
        let error = Error::invalid(format!("{words} support the option '{key}'"));
        return Err(error.with_hint(valid_keys(table)));
    }
    Values::check(&flatten(&plan.given), table)
}
