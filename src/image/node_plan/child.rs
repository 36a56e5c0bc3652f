//! The children of a node, as described by the user.

use crate::error::{Error, Result};
use crate::filter::registry::is_child_name;
use crate::format::{ChildSpec, FileRole};
use crate::location::tree::flatten;
use crate::value::{Map, Value};

use super::{Driver, NodePlan, driver_named, no_driver};

/// The child that is the backing file of an overlay.
const BACKING: &str = ChildSpec::BACKING.name;

/// The warning for `"backing": ""`.
const EMPTY_BACKING: &str = "Use of \"backing\": \"\" is deprecated; use \"backing\": null instead";

/// The description of a child.
#[derive(Clone, Debug)]
pub(in crate::image) enum ChildPlan {
    /// There must be no such child.
    Null,
    /// Options for it that have not been parsed yet.
    Tree(Map<String, Value>),
    /// A plan.
    Node(Box<NodePlan>),
}

impl ChildPlan {
    /// Interprets a value as the description of a child; None if it is not one.
    fn of_value(value: Value) -> Result<Option<Self>> {
        match value {
            Value::Null => Ok(Some(Self::Null)),
            Value::String(node) => {
                let plan = NodePlan::bare(Driver::Open(node));
                Ok(Some(Self::Node(Box::new(plan))))
            }
            Value::Object(tree) => Ok(Some(Self::Tree(tree))),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => Ok(None),
        }
    }

    /// Whether it specifies which file to use.
    pub(in crate::image) fn names_a_file(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Tree(tree) => names_a_file(tree),
            Self::Node(_) => true,
        }
    }

    /// The first option that describes the child with that name; None if it is described as absent.
    pub(in crate::image) fn first_option(&self, name: &str) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Node(_) => Some(name.to_owned()),
            Self::Tree(tree) => Some(match flatten(tree).iter().next() {
                Some((key, _)) => format!("{name}.{key}"),
                None => name.to_owned(),
            }),
        }
    }

    /// The plan of a child of the kind in `spec`; None if it is described as absent.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn plan(&self, spec: &ChildSpec) -> Result<Option<NodePlan>> {
        match self {
            Self::Tree(tree) if spec.is_image => NodePlan::of_tree(tree.clone(), None).map(Some),
            _ => self.file(),
        }
    }

    /// The plan of a child for which a file is expected; None if it is described as absent.
    ///
    /// # Errors
    /// As [`NodePlan::new`].
    pub(in crate::image) fn file(&self) -> Result<Option<NodePlan>> {
        match self {
            Self::Null => Ok(None),
            Self::Tree(tree) => NodePlan::of_file(tree.clone()).map(Some),
            Self::Node(plan) => Ok(Some((**plan).clone())),
        }
    }
}

impl NodePlan {
    /// Takes the descriptions of children out of the options, once the possible children are known.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an invalid description.
    pub(in crate::image) fn take_children(&mut self, specs: &[ChildSpec]) -> Result<()> {
        if !specs.iter().any(|spec| spec.name == BACKING) {
            self.take_no_backing();
        }
        for spec in specs {
            let Some(list) = spec.list() else {
                let Some(value) = self.given.shift_remove(spec.name) else {
                    continue;
                };
                let child = match spec.name {
                    // The old spelling of null.
                    BACKING if value.as_str() == Some("") => {
                        self.warnings.push(EMPTY_BACKING);
                        Some(ChildPlan::Null)
                    }
                    BACKING => ChildPlan::of_value(value)
                        .map_err(|error| error.context("Could not open backing file"))?,
                    _ => ChildPlan::of_value(value)?,
                };
                self.children
                    .extend(child.map(|child| (spec.name.to_owned(), child)));
                continue;
            };
            let Some(Value::Object(items)) = self.given.get_mut(list) else {
                continue;
            };
            let mut numbers: Vec<u32> = items.keys().filter_map(|key| key.parse().ok()).collect();
            numbers.sort_unstable();
            for number in numbers {
                let key = number.to_string();
                let Some(value) = items.shift_remove(&key) else {
                    continue;
                };
                let child = ChildPlan::of_value(value)?.unwrap_or(ChildPlan::Null);
                self.children.push((format!("{list}.{key}"), child));
            }
            if items.is_empty() {
                self.given.shift_remove(list);
            }
        }
        Ok(())
    }

    /// Allows the description of an absent backing file for a driver that never has one.
    fn take_no_backing(&mut self) {
        let is_none = match self.given.get(BACKING) {
            Some(Value::Null) => true,
            Some(Value::String(node)) if node.is_empty() => {
                self.warnings.push(EMPTY_BACKING);
                true
            }
            _ => false,
        };
        if is_none {
            self.given.shift_remove(BACKING);
        }
    }

    /// Refuses a plan that lacks a child required by its driver.
    pub(super) fn check_children(&self) -> Result<()> {
        for spec in self.driver.children().iter().filter(|spec| spec.required) {
            match self.child(spec.name) {
                Some(ChildPlan::Node(_)) => {}
                Some(ChildPlan::Tree(tree)) if !tree.is_empty() => {}
                _ if matches!(self.driver, Driver::Probed) => return Err(no_driver()),
                _ => return Err(no_child(spec.name)),
            }
        }
        // An image checks its own lists of children; for a filter the description is everything.
        let Driver::Filter(driver) = self.driver else {
            return Ok(());
        };
        for (spec, list) in driver
            .children
            .iter()
            .filter_map(|spec| Some((spec, spec.list()?)))
        {
            let items = self.children().filter(|(name, _)| spec.covers(name));
            for (number, (name, child)) in items.enumerate() {
                if name != format!("{list}.{number}") {
                    return Err(no_list(list));
                }
                if matches!(child, ChildPlan::Null) {
                    return Err(no_child(name));
                }
            }
            if self.given.contains_key(list) {
                return Err(no_list(list));
            }
        }
        Ok(())
    }
}

/// Whether a tree describes a node that specifies its own file.
pub(in crate::image) fn names_a_file(tree: &Map<String, Value>) -> bool {
    let driver = tree.get("driver").and_then(Value::as_str);
    let specs = match driver.map(driver_named) {
        Some(Ok(driver)) => driver.children(),
        _ => Driver::Probed.children(),
    };
    let own = specs.iter().filter(|spec| spec.role != FileRole::Backing);
    let mut keys = own.map(|spec| spec.list().unwrap_or(spec.name));
    tree.contains_key("filename")
        || tree.keys().any(|key| is_child_name(key))
        || keys.any(|key| tree.contains_key(key))
}

pub(super) fn no_child(name: &str) -> Error {
    Error::invalid(format!("A block device must be specified for \"{name}\""))
}

fn no_list(name: &str) -> Error {
    Error::invalid(format!("Option {name} is not a valid array"))
}
