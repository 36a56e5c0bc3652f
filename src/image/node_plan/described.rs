//! The plan of an option tree, by itself or in addition to a name.

use bstr::ByteSlice;

use super::child::{ChildPlan, names_a_file};
use super::common::{add_common, take_common};
use super::host_file::{HostFile, HostName, take_file_name};
use super::take::{given_twice, merge, take_at, take_word};
use super::{Driver, NodePlan, driver_named, no_driver};
use crate::error::{Error, Result};
use crate::format::ChildSpec;
use crate::image::OpenOptions;
use crate::location::{Location, tree};
use crate::value::{Map, Value};

impl NodePlan {
    /// The plan of a location with the options for opening it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for options that conflict, that no driver has, or that the location also
    /// specifies.
    pub(in crate::image) fn of(location: &Location, options: &OpenOptions) -> Result<Self> {
        let mut more = tree::of_options(&options.driver_options)?;
        let driver = take_word(&mut more, "driver");
        if let (Some(format), Some(driver)) = (&options.format, &driver)
            && format != driver
        {
            return Err(Error::invalid(format!(
                "The format '{format}' and the driver '{driver}' exclude each other"
            )));
        }
        let mut plan = Self::new(location, options.format.as_deref().or(driver.as_deref()))?;
        plan.add(more)?;
        Ok(plan)
    }

    /// As [`NodePlan::of`], for an image whose own file is open already: options must not refer to that file.
    ///
    /// # Errors
    /// If an option refers to the file; otherwise as [`NodePlan::of`].
    pub(in crate::image) fn of_open_file(
        location: &Location,
        options: &OpenOptions,
    ) -> Result<Self> {
        let file = ChildSpec::FILE.name;
        let mut keys = options.driver_options.iter().map(|(key, _)| key);
        if let Some(key) = keys.find(|key| key.split('.').next() == Some(file)) {
            return Err(Error::invalid(format!(
                "The file of the image is open already; the option '{key}' cannot change how"
            )));
        }
        Self::of(location, options)
    }

    /// Adds further options to the plan.
    fn add(&mut self, mut more: Map<String, Value>) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        add_common(&mut more, &mut self.common)?;
        if let Driver::Host(host) = &self.driver
            && !matches!(host.name, HostName::None)
            && more.contains_key("filename")
        {
            return Err(given_twice("filename"));
        }
        for (name, child) in &mut self.children {
            let Some(value) = take_at(&mut more, name) else {
                continue;
            };
            match (child, value) {
                (ChildPlan::Tree(tree), Value::Object(more)) => merge(tree, more)?,
                (ChildPlan::Node(plan), Value::Object(more)) => plan.add(more)?,
                _ => return Err(given_twice(name)),
            }
        }
        merge(&mut self.given, more)?;
        if let Driver::Host(host) = &mut self.driver {
            if matches!(host.name, HostName::None) {
                host.name = take_file_name(host.protocol.as_deref(), &mut self.given);
            }
            return Ok(());
        }
        self.take_children(self.driver.children())?;
        self.check_children()
    }

    /// The plan of an option tree.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn of_tree(
        mut tree: Map<String, Value>,
        format: Option<&str>,
    ) -> Result<Self> {
        // A value that is not text does not name a driver.
        let named = match tree.shift_remove("driver") {
            Some(Value::String(name)) => Some(name.to_str_lossy().into_owned()),
            _ => None,
        };
        let named = format.map(str::to_owned).or(named);
        let driver = match named.as_deref().map(driver_named).transpose()? {
            None => Driver::Probed,
            Some(driver) => driver,
        };
        let common = take_common(&mut tree)?;
        let mut plan = Self {
            given: tree,
            common,
            ..Self::bare(driver)
        };
        if let Driver::Host(host) = &mut plan.driver {
            host.name = take_file_name(host.protocol.as_deref(), &mut plan.given);
            return Ok(plan);
        }
        plan.take_named_children()?;
        plan.take_children(plan.driver.children())?;
        plan.check_children()?;
        Ok(plan)
    }

    /// The plan of a tree where a file is expected: a protocol, or another format or filter.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn of_file(tree: Map<String, Value>) -> Result<Self> {
        if tree.get("driver").is_some_and(Value::is_string) {
            return Self::of_tree(tree, None);
        }
        let mut tree = tree;
        tree.shift_remove("driver");
        // A file name without a driver is a regular file, whatever it looks like.
        let common = take_common(&mut tree)?;
        let host = HostFile {
            protocol: None,
            name: take_file_name(None, &mut tree),
        };
        if matches!(host.name, HostName::None) {
            return Err(no_driver());
        }
        Ok(Self {
            given: tree,
            common,
            ..Self::host(host)
        })
    }

    /// The plan of a file that an image names, with the user's additional options for it.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn of_named(
        named: &Location,
        mut tree: Map<String, Value>,
    ) -> Result<Self> {
        let driver = take_word(&mut tree, "driver");
        let mut plan = Self::new(named, driver.as_deref())?;
        if driver.is_none() {
            // A name alone does not cause the contents to be probed.
            plan = plan.without_format()?;
        }
        plan.add(tree)?;
        Ok(plan)
    }

    /// The plan of a backing file: the tree given by the user for it, applied to the location that the image names.
    /// Without such a location, or if the tree names a file, the tree alone determines what is opened.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn of_backing(
        mut tree: Map<String, Value>,
        named: Option<&Location>,
        recorded: Option<&str>,
    ) -> Result<Self> {
        let driver = tree.get("driver").and_then(Value::as_str);
        let format = driver.or(recorded).map(str::to_owned);
        let Some(location) = named.filter(|_| !names_a_file(&tree)) else {
            return Self::of_tree(tree, format.as_deref());
        };
        tree.shift_remove("driver");
        let mut plan = Self::new(location, format.as_deref())?;
        let recorded = plan.common.node_name.take();
        plan.common = take_common(&mut tree)?;
        plan.common.node_name = plan.common.node_name.or(recorded);
        plan.given.extend(tree);
        plan.take_children(plan.driver.children())?;
        Ok(plan)
    }
}
