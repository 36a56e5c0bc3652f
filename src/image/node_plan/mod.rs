//! The parsed form of what a location asks to open: a driver, its options, and its children.

mod child;
mod common;
mod described;
mod host_file;
mod named;
mod take;

use std::path::PathBuf;

use bstr::{BStr, BString};

use crate::driver_names::unknown_driver;
use crate::error::{Error, Result};
use crate::filter::{self, FilterDriver};
use crate::format::{ChildSpec, FormatDriver, registry};
use crate::storage::registry as protocols;
use crate::value::{Map, Value};

pub(super) use child::{ChildPlan, names_a_file};
use common::Common;
pub(super) use host_file::{HostFile, HostName};

/// One node to open: a driver over its children.
#[derive(Clone, Debug)]
pub(in crate::image) struct NodePlan {
    /// What opens it.
    pub(in crate::image) driver: Driver,
    /// Its options as they were given, in nested form.
    pub(in crate::image) given: Map<String, Value>,
    /// Options that every node has.
    pub(in crate::image) common: Common,
    /// Warnings about its description.
    pub(in crate::image) warnings: Vec<&'static str>,
    /// The children that were described, in the order in which the driver lists them.
    children: Vec<(String, ChildPlan)>,
}

/// What opens a node.
#[derive(Clone, Debug)]
pub(in crate::image) enum Driver {
    /// The format is probed from the contents of the file.
    Probed,
    /// A format.
    Format(&'static FormatDriver),
    /// A filter.
    Filter(&'static FilterDriver),
    /// A protocol.
    Host(HostFile),
    /// No driver: the node is open already, and has this name.
    Open(BString),
}

impl NodePlan {
    /// The plan of a node that is open already: a filter, or else a host storage.
    pub(in crate::image) fn of_open(filter: Option<&'static FilterDriver>) -> Self {
        Self::bare(match filter {
            Some(driver) => Driver::Filter(driver),
            None => Driver::Host(HostFile {
                protocol: None,
                name: HostName::None,
            }),
        })
    }

    /// The description of a child.
    pub(in crate::image) fn child(&self, name: &str) -> Option<&ChildPlan> {
        self.children()
            .find(|(of, _)| *of == name)
            .map(|(_, plan)| plan)
    }

    /// All children that were described.
    pub(in crate::image) fn children(&self) -> impl Iterator<Item = (&str, &ChildPlan)> {
        self.children
            .iter()
            .map(|(name, plan)| (name.as_str(), plan))
    }

    /// The path of the file at the bottom of the plan, if there is one.
    pub(in crate::image) fn path(&self) -> Option<PathBuf> {
        match &self.driver {
            Driver::Host(host) => host.name.path(),
            _ => self.children().next()?.1.file().ok()??.path(),
        }
    }

    /// The host storage at the bottom of the plan, with its options.
    ///
    /// # Errors
    /// If there is none.
    pub(in crate::image) fn into_host(self) -> Result<(HostFile, Map<String, Value>)> {
        if let Driver::Host(host) = self.driver {
            return Ok((host, self.given));
        }
        let below = match self.children().next() {
            Some((_, child)) => child.file()?,
            None => None,
        };
        below
            .ok_or_else(|| Error::invalid("There is no file at the end of it"))?
            .into_host()
    }

    fn host(host: HostFile) -> Self {
        Self::bare(Driver::Host(host))
    }

    fn bare(driver: Driver) -> Self {
        Self {
            driver,
            given: Map::new(),
            common: Common::default(),
            warnings: Vec::new(),
            children: Vec::new(),
        }
    }
}

impl Driver {
    /// The children that it can have, as far as that is known.
    fn children(&self) -> &'static [ChildSpec] {
        match self {
            Self::Probed => const { &[ChildSpec::FILE] },
            Self::Format(driver) => driver.children,
            Self::Filter(driver) => driver.children,
            Self::Host(_) | Self::Open(_) => &[],
        }
    }
}

/// The driver with that name; a protocol has no file name yet.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] if there is none here.
fn driver_named(name: &str) -> Result<Driver> {
    if let Some(driver) = registry::by_name(name) {
        return Ok(Driver::Format(driver));
    }
    if let Some(driver) = filter::registry::by_name(name) {
        return Ok(Driver::Filter(driver));
    }
    match protocols::find(name) {
        Some(_) => Ok(Driver::Host(HostFile {
            protocol: Some(name.to_owned()),
            name: HostName::None,
        })),
        None => Err(unknown_driver(name)),
    }
}

fn no_driver() -> Error {
    Error::invalid("Must specify either driver or file")
}

/// The error for a name that no open node has.
pub(in crate::image) fn no_such_node(name: &BStr) -> Error {
    Error::invalid(format!(
        "Cannot find device='{name}' nor node-name='{name}'"
    ))
}
