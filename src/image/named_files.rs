//! The files that a name refers to, as far as they are known before anything is opened.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bstr::{BStr, BString, ByteSlice};

use crate::filter::registry::is_child_name;
use crate::image::node_plan::{ChildPlan, Driver, HostFile, NodePlan};
use crate::image::{OpenOptions, host};
use crate::location::{Location, Node};
use crate::policy::OpenPolicy;
use crate::storage::Identity;
use crate::value::{Map, Value};

/// A part that is still to be examined.
enum Part {
    /// The plan of a node.
    Plan(NodePlan),
    /// Options that describe a node, or a list of nodes.
    Tree(Map<String, Value>),
}

/// A file at the end of what a name refers to.
enum End<'a> {
    /// A host storage and its options.
    Host(&'a HostFile, &'a Map<String, Value>),
    /// The file name given in options that do not form a plan.
    Name(&'a Path),
}

/// The existing files at a location, each with a name: the file's own path if there are several, or if a tree describes
/// the location. If `writable`, only files that can be written.
pub(crate) fn location_files(location: &Location, writable: bool) -> Vec<(Identity, BString)> {
    let options = OpenOptions {
        writable,
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let plan = NodePlan::new(location, None).ok();
    let mut files = Vec::new();
    visit_part(
        first_part(location, plan.as_ref()),
        &options,
        &mut |id, name| {
            files.push((id, name.map(BStr::to_owned)));
        },
    );
    let described = files.len() > 1 || matches!(location.node(), Node::Tree(_));
    let named = files.into_iter().map(|(id, name)| {
        let own = name.filter(|_| described);
        (id, own.unwrap_or_else(|| location.text().as_bytes().into()))
    });
    named.collect()
}

/// Visits the files that a plan of an image would open under these options, as far as known without their contents,
/// each with the path that was given for it, if any.
pub(super) fn visit_plan_files(
    plan: &NodePlan,
    options: &OpenOptions,
    visit: &mut dyn FnMut(Identity, Option<&BStr>),
) {
    visit_part(Some(Part::Plan(plan.clone())), options, visit);
}

/// Whether everything that a plan would open, as far as known without the contents, is on this host.
pub(super) fn is_local(plan: &NodePlan) -> bool {
    let mut is_local = true;
    ends(Some(Part::Plan(plan.clone())), &mut |end| match end {
        End::Host(file, _) => is_local &= host::is_local(file),
        End::Name(_) => {}
    });
    is_local
}

fn first_part(location: &Location, plan: Option<&NodePlan>) -> Option<Part> {
    match (plan, location.node()) {
        (Some(plan), _) => Some(Part::Plan(plan.clone())),
        (None, Node::Tree(tree)) => Some(Part::Tree(tree.clone())),
        // A name that cannot be parsed will not be opened either.
        (None, Node::Path(_) | Node::Uri { .. }) => None,
    }
}

fn visit_part(
    first: Option<Part>,
    options: &OpenOptions,
    visit: &mut dyn FnMut(Identity, Option<&BStr>),
) {
    ends(first, &mut |end| match end {
        End::Host(file, given) => {
            let base = file.name.base();
            let name = (!base.is_empty()).then(|| base.as_bytes().as_bstr());
            host::visit_identities(file, given, options, &mut |id| visit(id, name));
        }
        End::Name(path) => {
            if let Some(id) = Identity::of_path(path) {
                visit(id, Some(path.as_os_str().as_bytes().as_bstr()));
            }
        }
    });
}

/// Visits the files at the ends of a node and of everything described below it. Iteratively, because trees may be deep.
fn ends(first: Option<Part>, visit: &mut dyn FnMut(End<'_>)) {
    let mut parts = Vec::from_iter(first);
    while let Some(part) = parts.pop() {
        match part {
            Part::Tree(tree) => match NodePlan::of_file(tree.clone()) {
                Ok(plan) => parts.push(Part::Plan(plan)),
                Err(_) => take_apart(tree, &mut parts, visit),
            },
            Part::Plan(plan) => {
                if let Driver::Host(file) = &plan.driver {
                    visit(End::Host(file, &plan.given));
                    continue;
                }
                for (_, child) in plan.children() {
                    match child {
                        ChildPlan::Null => {}
                        ChildPlan::Tree(tree) => parts.push(Part::Tree(tree.clone())),
                        ChildPlan::Node(plan) => parts.push(Part::Plan((**plan).clone())),
                    }
                }
                // The children of a format that is not known yet are not known either.
                for (_, value) in plan.given {
                    if let Value::Object(tree) = value {
                        parts.push(Part::Tree(tree));
                    }
                }
            }
        }
    }
}

/// Examines options that do not form a plan: a list of nodes, or a node of a driver that only another build may have.
fn take_apart(tree: Map<String, Value>, parts: &mut Vec<Part>, visit: &mut dyn FnMut(End<'_>)) {
    for (key, value) in tree {
        match value {
            Value::String(name) if key == "filename" => {
                visit(End::Name(Path::new(OsStr::from_bytes(&name))));
            }
            Value::String(name) if is_child_name(&key) => {
                let child = Location::parse_name(OsStr::from_bytes(name.as_bytes()));
                let plan = child.and_then(|child| NodePlan::new(&child, None));
                parts.extend(plan.ok().map(Part::Plan));
            }
            Value::Object(inner) => parts.push(Part::Tree(inner)),
            _ => {}
        }
    }
}
