//! The plan of a name: a path, a URI, or a name that stands for options.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bstr::{BStr, ByteSlice};

use super::child::{ChildPlan, no_child};
use super::host_file::{HostFile, HostName};
use super::take::take_text;
use super::{Driver, NodePlan, driver_named};
use crate::error::{Error, Result};
use crate::filter::{self, FilterDriver, ParsedName, decompress};
use crate::format::ChildSpec;
use crate::location::{Location, Node};
use crate::storage::{StorageDriver, registry as protocols};
use crate::value::Map;

impl NodePlan {
    /// The plan of a location; `format` was given separately and takes precedence over the tree's driver.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], one line without the location's name.
    pub(in crate::image) fn new(location: &Location, format: Option<&str>) -> Result<Self> {
        let name = match location.node() {
            Node::Tree(tree) => {
                let plan = Self::of_tree(tree.clone(), format)?;
                return match &plan.driver {
                    Driver::Filter(driver) if driver.holds_file => Self::over(plan, None),
                    _ => Ok(plan),
                };
            }
            Node::Path(path) => HostName::Path(path.clone()),
            Node::Uri { protocol, uri } => match filter::registry::for_file_name(protocol) {
                Some((driver, parse)) => {
                    let filter = Self::of_filter_name(driver, parse(uri.as_bstr())?)?;
                    return Self::over(filter, format);
                }
                None => {
                    if let Some(plan) = Self::of_protocol_name(protocol, uri.as_bstr())? {
                        return Self::over(plan, format);
                    }
                    HostName::Uri {
                        protocol: protocol.clone(),
                        uri: uri.clone(),
                    }
                }
            },
        };
        let protocol = match &name {
            HostName::Path(_) => location.protocol().map(str::to_owned),
            _ => None,
        };
        Self::over(Self::host(HostFile { protocol, name }), format)
    }

    /// The same plan over the decompressed contents of its file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an unknown kind, and if there is no file.
    pub(in crate::image) fn decompressing(mut self, kind: &str) -> Result<Self> {
        decompress::kind_named(kind)?;
        let file = ChildSpec::FILE.name;
        let over = |child| Self {
            given: Map::from_iter([(decompress::TYPE.to_owned(), kind.into())]),
            children: vec![(file.to_owned(), child)],
            ..Self::bare(Driver::Filter(&decompress::DRIVER))
        };
        if matches!(self.driver, Driver::Host(_)) {
            let plan = over(ChildPlan::Node(Box::new(self)));
            return Self::over(plan, None);
        }
        let mut children = self.children.iter_mut();
        let Some((_, child)) = children.find(|(name, _)| name == file) else {
            return Err(no_child(file));
        };
        let compressed = std::mem::replace(child, ChildPlan::Null);
        *child = ChildPlan::Node(Box::new(over(compressed)));
        Ok(self)
    }

    /// The plan of a file name that stands for options; None if the protocol parses the name itself.
    ///
    /// # Errors
    /// Those of the protocol, for a name that it does not understand.
    fn of_protocol_name(scheme: &str, name: &BStr) -> Result<Option<Self>> {
        let driver = protocols::for_scheme(scheme);
        driver.map_or(Ok(None), |driver| Self::parsed(driver, name))
    }

    fn parsed(driver: &'static StorageDriver, name: &BStr) -> Result<Option<Self>> {
        let Some(parse) = driver.parse_file_name else {
            return Ok(None);
        };
        let host = HostFile {
            protocol: Some(driver.name.to_owned()),
            name: HostName::None,
        };
        Ok(Some(Self {
            given: parse(name)?,
            ..Self::host(host)
        }))
    }

    /// The plan of a filter from a parsed file name.
    fn of_filter_name(driver: &'static FilterDriver, name: ParsedName) -> Result<Self> {
        let mut plan = Self {
            given: name.options,
            ..Self::bare(Driver::Filter(driver))
        };
        for (child, name) in name.children {
            plan.add_named(driver, child, name.as_bstr())?;
        }
        Ok(plan)
    }

    /// Takes options that name children in the way that parts of a file name do.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a child that is also described.
    pub(super) fn take_named_children(&mut self) -> Result<()> {
        let Driver::Filter(driver) = self.driver else {
            return Ok(());
        };
        let options = driver.file_names.map_or(&[][..], |names| names.options);
        for (option, child) in options {
            let Some(name) = take_text(&mut self.given, option) else {
                continue;
            };
            if self.given.contains_key(*child) {
                return Err(Error::invalid(
                    "Can't specify 'file' and 'filename' options at the same time",
                ));
            }
            self.add_named(driver, child, name.as_bstr())?;
        }
        Ok(())
    }

    fn add_named(&mut self, driver: &FilterDriver, child: &str, name: &BStr) -> Result<()> {
        let location = Location::parse_name(OsStr::from_bytes(name))?;
        let inner = Self::new(&location, None)?;
        let mut specs = driver.children.iter();
        let image = specs.any(|spec| spec.is_image && spec.covers(child));
        let inner = match image {
            true => inner,
            false => inner.without_format()?,
        };
        let inner = ChildPlan::Node(Box::new(inner));
        self.children.push((child.to_owned(), inner));
        Ok(())
    }

    /// The same plan where a file is expected: for a name alone, which does not specify a format, the file.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn without_format(self) -> Result<Self> {
        let alone = match &self.driver {
            Driver::Probed if self.given.is_empty() => self.child(ChildSpec::FILE.name),
            _ => None,
        };
        let file = alone.map(ChildPlan::file).transpose()?.flatten();
        Ok(file.unwrap_or(self))
    }

    /// The plan of the named format over a file, or of the file itself if the name is that of a protocol.
    fn over(file: Self, format: Option<&str>) -> Result<Self> {
        let driver = match format.map(driver_named).transpose()? {
            None => Driver::Probed,
            Some(Driver::Host(HostFile { protocol, .. })) => {
                let named = protocol.as_deref().and_then(protocols::find);
                if let (Some(named), Driver::Host(host)) = (named, &file.driver)
                    && !matches!(host.name, HostName::None)
                    && let Some(plan) = Self::parsed(named, host.name.base().as_bytes().into())?
                {
                    return Ok(plan);
                }
                let driver = match file.driver {
                    Driver::Host(host) => Driver::Host(HostFile { protocol, ..host }),
                    other => other,
                };
                return Ok(Self { driver, ..file });
            }
            Some(driver) => driver,
        };
        if let (Driver::Filter(filter), Driver::Filter(of_name)) = (&driver, &file.driver)
            && filter.name == of_name.name
        {
            // The name already includes the filter.
            return Ok(file);
        }
        let mut plan = Self::bare(driver);
        let specs = plan.driver.children();
        let mut plain = specs.iter().filter(|spec| spec.list().is_none());
        let own = plain.clone().find(|spec| spec.name == ChildSpec::FILE.name);
        if let Some(spec) = own.or(plain.next_back()) {
            let file = ChildPlan::Node(Box::new(file));
            plan.children.push((spec.name.to_owned(), file));
        }
        plan.check_children()?;
        Ok(plan)
    }
}
