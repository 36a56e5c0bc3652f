//! What lies below a layer: the image that it names, or the one that the user described instead.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bstr::{BStr, BString, ByteSlice};

use super::ancestors::Ancestors;
use super::opener::{ResolvedName, given, located, resolve};
use super::search::{REMEDY, Search};
use super::start::{Builder, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BackingRef, Mismatch, ParentId, ParentRef};
use crate::image::node::NamedNode;
use crate::image::node_plan::{ChildPlan, Driver, NodePlan, names_a_file};
use crate::image::{Backing, Image, OpenOptions, directory};
use crate::location::{Location, json_name, protocol_of};
use crate::options::Options;
use crate::policy::{ImplicitAnswer, ImplicitFile, ImplicitFiles, ImplicitRole, OpenPolicy};
use crate::printable::shown_name;
use crate::value::{Map, Value};

/// The options for opening the layers below another one: read-only.
pub(super) fn of_layer(options: &OpenOptions) -> OpenOptions {
    OpenOptions {
        format: None,
        driver_options: Options::new(),
        writable: false,
        deny_writers: false,
        for_check: false,
        may_unmap: true,
        nodes: None,
        ..options.clone()
    }
}

/// What follows a layer.
pub(super) enum Next {
    /// A layer to open.
    Layer(Box<Start>),
    /// What to use in place of a layer.
    End(Backing),
}

/// Determines what follows the last layer opened so far.
pub(super) fn next(
    image: &mut Image,
    options: &OpenOptions,
    ancestors: &Ancestors<'_>,
) -> Result<Next> {
    let named = recorded(image);
    let closed = !options.backing || options.metadata_only;
    let tree = match &image.below {
        Some(ChildPlan::Null) => return Ok(Next::End(Backing::None)),
        Some(ChildPlan::Node(plan)) => match &plan.driver {
            Driver::Open(_) if closed => return Ok(Next::End(Backing::Closed)),
            Driver::Open(name) => {
                let builder = Builder {
                    options,
                    ancestors,
                    force_share: options.force_share,
                    named_by_image: image.named_by_image,
                    nested: ancestors.nested(),
                    metadata_only: false,
                    deny_writers: false,
                };
                let node = builder.named(name.as_bstr())?;
                return open_already(image, node, options, ancestors);
            }
            _ => return Err(Error::new(ErrorKind::Internal, "A plan below an image")),
        },
        Some(ChildPlan::Tree(tree)) => Some(tree),
        None => None,
    };
    if named.is_none() && tree.is_none() && !has_nameless_parent(image) {
        return Ok(Next::End(Backing::None));
    }
    if closed {
        return Ok(Next::End(Backing::Closed));
    }
    let start = image.start_below(named, tree.cloned().unwrap_or_default(), options)?;
    Ok(Next::Layer(Box::new(start)))
}

/// Uses a node that is already open as the layer below.
fn open_already(
    image: &mut Image,
    node: NamedNode,
    options: &OpenOptions,
    ancestors: &Ancestors<'_>,
) -> Result<Next> {
    let below = match node {
        NamedNode::Image(below) => below,
        NamedNode::Node(_) => {
            let node = node.share();
            let location = Location::from_tree(node.filename(), node.tree().clone());
            let mut start = Start::new(
                &location,
                NodePlan::of_open(node.filter().map(|(driver, _)| driver)),
            );
            start.file = Some(node);
            return Ok(Next::Layer(Box::new(start)));
        }
    };
    ancestors.check_room(below.layers().count(), below.filename(), &options.policy)?;
    let parent = image.format.parent();
    let checked = parent.map(|parent| check_parent(image, &parent, &below));
    if let Some(Err((meaning, reason))) = checked {
        let line = format!("'{}' {reason}", below.filename);
        match meaning {
            Mismatch::Refuse => return Err(Error::invalid(line)),
            Mismatch::Warn => image.warnings.push(line),
        }
    }
    Ok(Next::End(Backing::Open(below)))
}

/// Checks whether `below` may be what `above` records as its `parent`.
fn check_parent(
    above: &Image,
    parent: &ParentRef,
    below: &Image,
) -> Result<(), (Mismatch, String)> {
    let identity = parent.check(below.format.parent_id());
    if let Err((Mismatch::Refuse, _)) = identity {
        return identity;
    }
    match (above.format.sectors(), below.format.sectors()) {
        (Some(own), Some(sectors)) => sectors
            .check_child(own.logical)
            .map_err(|reason| (Mismatch::Refuse, reason))
            .and(identity),
        _ => identity,
    }
}

/// The options given by the user for what is below, in order to open it again.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if it is a node that was open already.
pub(super) fn described(below: Option<&ChildPlan>) -> Result<Option<&Map<String, Value>>> {
    match below {
        Some(ChildPlan::Tree(tree)) => Ok(Some(tree)),
        None | Some(ChildPlan::Null) => Ok(None),
        Some(ChildPlan::Node(_)) => Err(Error::unsupported(
            "The backing file was given as a node that is open already, and such a node is not opened again",
        )),
    }
}

/// Whether the image has a parent but no name for it that is usable here.
pub(super) fn has_nameless_parent(image: &Image) -> bool {
    let parent = image.format.parent();
    parent.is_some_and(|parent| parent.is_nameless())
}

/// The error for a parent that has no usable name and cannot be searched for.
fn nameless(image: &Image) -> Error {
    let named = image.backing_file();
    Error::new(
        ErrorKind::NotFound,
        match named {
            Some(named) => format!(
                "'{}' names its parent as '{}', which is no path on this system",
                image.filename,
                shown_name(&named.name)
            ),
            None => format!("'{}' has a parent and no name for it", image.filename),
        },
    )
    .with_hint(REMEDY)
}

pub(super) fn recorded(image: &Image) -> Option<BackingRef> {
    let named = image.format.parent()?.first();
    named.filter(|named| !named.name.is_empty())
}

/// The layer below `above`: what the first name of its parent refers to, or else the first of the other names that
/// refers to what the image expects. Names that do not exist are skipped.
pub(super) fn first_that_fits(
    above: &Image,
    first: Result<Image>,
    options: &OpenOptions,
    mut open: impl FnMut(Start) -> Result<Image>,
) -> Result<Image> {
    let Some(parent) = above.format.parent() else {
        return first;
    };
    let others = by_other_names(above, options)?;
    let others = others.map(|start| start.and_then(&mut open));
    let mut tolerated = None;
    let mut failure = None;
    for found in std::iter::once(first).chain(others) {
        let mut image = match found {
            Ok(image) => image,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                failure.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let Err((meaning, reason)) = check_parent(above, &parent, &image) else {
            return Ok(image);
        };
        let line = format!("'{}' {reason}", image.filename);
        match meaning {
            Mismatch::Refuse => {
                failure.get_or_insert(Error::invalid(line));
            }
            Mismatch::Warn if tolerated.is_none() => {
                image.warnings.push(line);
                tolerated = Some(image);
            }
            Mismatch::Warn => {}
        }
    }
    match (tolerated, failure) {
        (Some(image), _) => Ok(image),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::new(ErrorKind::Internal, "A parent without a name")),
    }
}

/// What the names of a parent after the first one refer to.
///
/// # Errors
/// As [`described`].
pub(super) fn by_other_names<'a>(
    above: &'a Image,
    options: &'a OpenOptions,
) -> Result<impl Iterator<Item = Result<Start>> + 'a> {
    let parent = above.format.parent();
    let (tree, parent) = match &above.below {
        Some(ChildPlan::Tree(tree)) if names_a_file(tree) => (Map::new(), None),
        Some(ChildPlan::Node(_)) => (Map::new(), None),
        below => (
            described(below.as_ref())?.cloned().unwrap_or_default(),
            parent,
        ),
    };
    let named = parent.into_iter().flat_map(|parent| {
        let names: Vec<_> = parent.names_here().skip(1).collect();
        let format = parent.format.clone();
        names.into_iter().map(move |name| BackingRef {
            name,
            format: format.clone(),
        })
    });
    Ok(named.map(move |named| above.start_below(Some(named), tree.clone(), options)))
}

impl Image {
    /// What to open below: the file that the image names, with the user's options from `tree`, which may name another
    /// file.
    pub(super) fn start_below(
        &self,
        named: Option<BackingRef>,
        tree: Map<String, Value>,
        options: &OpenOptions,
    ) -> Result<Start> {
        let format = named.as_ref().and_then(|named| named.format.as_ref());
        let format = format.map(|name| name.to_str_lossy().into_owned());
        let format = format.as_deref();
        let names_none = named.is_none() && !has_nameless_parent(self);
        if names_a_file(&tree) || names_none {
            let location = Location::from_tree(json_name(&tree), tree.clone());
            let plan = NodePlan::of_backing(tree, None, format)?;
            return Ok(Start {
                named_by_image: self.named_by_image,
                ..Start::new(&location, plan)
            });
        }
        let found = match named {
            Some(named) => {
                let over = tree.get("driver").and_then(Value::as_str).or(format);
                let name = self.entered(named.name, over, options);
                self.named(ImplicitRole::Backing, name.as_bstr(), options)?
            }
            None => self.look_for_parent(options)?,
        };
        let (location, file) = match found {
            ResolvedName::Location(location) => (location, None),
            ResolvedName::Storage(file) => (Location::from_path(&file.base), Some(file)),
        };
        let plan = NodePlan::of_backing(tree, Some(&location), format)?;
        Ok(Start {
            location,
            plan,
            file,
            named_by_image: true,
        })
    }

    /// If a name of the parent is that of a directory, returns the name of the file in it that represents the disk: the
    /// policy must be asked about the file that is opened.
    fn entered(&self, mut name: BString, format: Option<&str>, options: &OpenOptions) -> BString {
        let policy = &options.policy;
        // Do not look at anything that may not be opened.
        if matches!(policy.implicit_files, ImplicitFiles::Deny) {
            return name;
        }
        let location = located(&self.base, OsStr::from_bytes(&name), policy);
        let path = location.as_ref().ok().and_then(|(_, found)| found.path());
        if let Some(inside) = path.and_then(|path| directory::named_inside(path, format)) {
            name.push(b'/');
            name.extend_from_slice(inside.as_bytes());
        }
        name
    }

    /// What a name of the parent refers to.
    fn named(
        &self,
        role: ImplicitRole,
        name: &BStr,
        options: &OpenOptions,
    ) -> Result<ResolvedName> {
        let relative = !name.starts_with(b"/") && protocol_of(OsStr::from_bytes(name)).is_none();
        if relative && self.base.is_empty() {
            // The image is not in the working directory.
            return Err(Error::invalid(format!(
                "Cannot generate a base directory for {}",
                match self.storage.limits() {
                    limits if limits.fixed_len => limits.fixed_kind.to_owned(),
                    _ => format!("the relative name '{name}' in '{}'", self.filename),
                }
            )));
        }
        resolve(
            role,
            OsStr::from_bytes(name),
            self.filename.as_bstr(),
            &self.base,
            options.writable,
            options,
        )
    }

    /// If this image records only the identity of its parent, makes sure that it will find `new`, whose identity is
    /// `id` and which the user calls `name`.
    ///
    /// # Errors
    /// As [`Search::check_leads_to`].
    pub(crate) fn check_search(
        &self,
        new: &Self,
        id: ParentId,
        name: &BStr,
        policy: &OpenPolicy,
    ) -> Result<()> {
        let (Some(places), Some(parent)) = (
            self.format.parent_search(),
            new.written_files()?.into_iter().next(),
        ) else {
            return Ok(());
        };
        Search {
            image: self.filename.as_bstr(),
            base: &self.base,
            id,
            places,
            policy,
        }
        .check_leads_to(&parent.id, name, self.storage.identity().as_ref())
    }

    /// Finds the parent of which the image records only the identity.
    fn look_for_parent(&self, options: &OpenOptions) -> Result<ResolvedName> {
        let (parent, places) = match (self.format.parent(), self.format.parent_search()) {
            (Some(parent), Some(places)) if parent.names.is_empty() => (parent, places),
            _ => return Err(nameless(self)),
        };
        let id = parent.expected_id().ok_or_else(|| nameless(self))?;
        let mark = BString::from(id.mark());
        let policy = &options.policy;
        let asked = ImplicitFile {
            role: ImplicitRole::ParentLocator,
            name: mark.as_bstr(),
            named_by: self.filename.as_bstr(),
            path: None,
            writable: options.writable,
        };
        if let ImplicitAnswer::Fd(fd) = policy.check_search(&asked)? {
            return given(
                fd,
                OsStr::from_bytes(&mark),
                options.writable,
                options.cache,
            )
            .map(ResolvedName::Storage);
        }
        let name = Search {
            image: self.filename.as_bstr(),
            base: &self.base,
            id,
            places,
            policy,
        }
        .find()?;
        self.named(ImplicitRole::ParentLocator, name.as_bstr(), options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpenPolicy;
    use crate::format::{ExpectedParent, NameStyle, ParentId, ParentName, ParentRef};
    use crate::image::tests::fake::{CLUSTER, Fake, State};

    fn overlay(names: &[&str], otherwise: Mismatch) -> Image {
        let names = names.iter().map(|name| ParentName {
            name: (*name).into(),
            style: NameStyle::Posix,
        });
        let parent = ParentRef {
            names: names.collect(),
            format: None,
            expected: Some(ExpectedParent {
                ids: vec![ParentId::ContentId(7)],
                if_changed: otherwise,
                if_other: otherwise,
            }),
        };
        let fake = Fake::new(CLUSTER, &[State::Unallocated], 0);
        fake.with_parent(parent).image(None)
    }

    /// The files on the host: their names, and the identity of the image in each.
    fn opened(name: &str) -> Result<Image> {
        let id = match name {
            "right" => 7,
            "wrong" | "other" => 1,
            _ => return Err(Error::os(libc::ENOENT).could_not_open(name)),
        };
        let fake = Fake::new(CLUSTER, &[State::Data], 1).with_id(ParentId::ContentId(id));
        let mut image = fake.image(None);
        image.filename = name.into();
        Ok(image)
    }

    /// Opens the parent; returns its name, its warnings, and what was opened.
    fn found(names: &[&str], otherwise: Mismatch) -> (Result<Image>, Vec<String>) {
        let overlay = overlay(names, otherwise);
        let options = OpenOptions {
            policy: OpenPolicy::permissive(),
            ..OpenOptions::default()
        };
        let mut tried = vec![names[0].to_owned()];
        let image = first_that_fits(&overlay, opened(names[0]), &options, |start| {
            let name = start.location.display().into_owned();
            tried.push(name.clone());
            opened(&name)
        });
        (image, tried)
    }

    #[test]
    fn the_first_name_that_leads_to_the_recorded_parent_counts() {
        for names in [
            &["right", "wrong"][..],
            &["gone", "right", "wrong"],
            &["wrong", "gone", "right"],
        ] {
            for otherwise in [Mismatch::Refuse, Mismatch::Warn] {
                let (image, tried) = found(names, otherwise);
                let image = image.unwrap();
                assert_eq!(image.filename, "right");
                assert!(image.warnings.is_empty());
                let place = names.iter().position(|name| *name == "right").unwrap();
                assert_eq!(tried, names[..=place]);
            }
        }
    }

    #[test]
    fn a_parent_that_no_name_leads_to_is_missed_and_never_taken_for_zeroes() {
        let elsewhere = ParentName {
            name: r"C:\base.vhd".into(),
            style: NameStyle::Windows,
        };
        for (names, what) in [
            (vec![elsewhere], r"'fake' names its parent as 'C:\base.vhd'"),
            (vec![], "'fake' has a parent and no name for it"),
        ] {
            let parent = ParentRef {
                names,
                format: None,
                expected: None,
            };
            let fake = Fake::new(CLUSTER, &[State::Unallocated], 0);
            let mut image = fake.with_parent(parent).image(None);
            let ancestors = Ancestors::default();
            let mut options = OpenOptions {
                policy: OpenPolicy::permissive(),
                ..OpenOptions::default()
            };
            let missing = next(&mut image, &options, &ancestors).err().unwrap();
            assert_eq!(missing.kind(), ErrorKind::NotFound);
            assert!(missing.to_string().starts_with(what), "{missing}");
            options.metadata_only = true;
            let end = next(&mut image, &options, &ancestors).unwrap();
            assert!(matches!(end, Next::End(Backing::Closed)));
        }
    }

    #[test]
    fn a_parent_that_was_changed_is_refused_or_told_as_its_format_says() {
        let (image, _) = found(&["gone", "wrong", "other"], Mismatch::Warn);
        let image = image.unwrap();
        assert_eq!(image.filename, "wrong");
        assert_eq!(image.warnings.len(), 1);
        assert!(
            image.warnings[0].starts_with("'wrong' is not the parent"),
            "{:?}",
            image.warnings
        );
        let (refused, tried) = found(&["wrong", "other"], Mismatch::Refuse);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(tried, ["wrong", "other"]);
        let (missing, _) = found(&["gone", "lost"], Mismatch::Refuse);
        assert_eq!(
            missing.unwrap_err().to_string(),
            "Could not open 'gone': No such file or directory"
        );
    }
}
