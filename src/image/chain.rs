//! The chain of backing files, opened from the top, one after the other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::ByteSlice;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::BackingRef;
use crate::image::host::Opened;
use crate::image::open::open_layer;
use crate::image::opener::{Named, resolve};
use crate::image::plan::{BackingPlan, Plan};
use crate::image::trail::Trail;
use crate::image::{Backing, Image, OpenOptions, lock};
use crate::location::{Location, json_name};
use crate::policy::ImplicitRole;
use crate::value::{Map, Value};

/// A layer that is about to be opened.
#[derive(Debug)]
pub(super) struct Start {
    /// Where it is, for messages.
    pub(super) location: Location,
    /// What to open.
    pub(super) plan: Plan,
    /// Its file, if that is open already.
    pub(super) opened: Option<Opened>,
    /// An image names it, not the user.
    pub(super) named_by_image: bool,
}

impl Start {
    /// At a location whose file is not open.
    pub(super) fn new(location: &Location, plan: Plan) -> Self {
        Self {
            location: location.clone(),
            plan,
            opened: None,
            named_by_image: false,
        }
    }
}

/// Opens a layer and all those below it. Errors do not name the location.
pub(super) fn open_chain(
    first: Start,
    options: &OpenOptions,
    above: Option<&Trail<'_>>,
) -> Result<Image> {
    let mut trail = Trail::inside(above);
    let mut layers: Vec<Image> = Vec::new();
    let mut options = options.clone();
    let mut start = first;
    let mut last = Backing::None;
    loop {
        let plan = start.plan.clone();
        let opened = open_layer(start, &options, &mut trail);
        let image = name_depth(opened, layers.len())?;
        options = OpenOptions {
            force_share: options.force_share || plan.common.force_share,
            ..below(&options)
        };
        let next = next_layer(&image, &plan.backing, &options);
        layers.push(image);
        match name_depth(next, layers.len())? {
            Next::Layer(next) => start = *next,
            Next::None => break,
            Next::Closed => {
                last = Backing::Closed;
                break;
            }
        }
    }
    // Each layer takes the one below it, and its warnings.
    let mut chain: Option<Image> = None;
    while let Some(mut image) = layers.pop() {
        image.backing = match chain.take() {
            Some(base) => {
                image.warnings.extend(base.warnings.iter().cloned());
                Backing::Open(Arc::new(base))
            }
            None => std::mem::replace(&mut last, Backing::None),
        };
        chain = Some(image);
    }
    chain.ok_or_else(|| Error::new(ErrorKind::Internal, "An empty chain"))
}

/// Says for each layer above the one that failed that its backing file could not be opened.
fn name_depth<T>(result: Result<T>, depth: usize) -> Result<T> {
    result.map_err(|error| {
        (0..depth).fold(error, |error, _| {
            error.context("Could not open backing file")
        })
    })
}

/// How the layers below one are opened: to be read only.
fn below(options: &OpenOptions) -> OpenOptions {
    OpenOptions {
        format: None,
        writable: false,
        deny_writers: false,
        for_check: false,
        ..options.clone()
    }
}

/// What follows a layer.
enum Next {
    Layer(Box<Start>),
    Closed,
    None,
}

fn next_layer(image: &Image, plan: &BackingPlan, options: &OpenOptions) -> Result<Next> {
    let named = recorded(image);
    let tree = match plan {
        BackingPlan::Null => return Ok(Next::None),
        BackingPlan::Tree(tree) => Some(tree),
        BackingPlan::Named => None,
    };
    if named.is_none() && tree.is_none() {
        return Ok(Next::None);
    }
    if !options.backing || options.metadata_only {
        return Ok(Next::Closed);
    }
    let tree = tree.cloned().unwrap_or_default();
    image
        .start_below(named, tree, options)
        .map(|start| Next::Layer(Box::new(start)))
}

fn recorded(image: &Image) -> Option<BackingRef> {
    let named = image.format.parent()?.first();
    named.filter(|named| !named.name.is_empty())
}

impl Image {
    /// What is to be opened below: the file that the image names, with the user's options from
    /// `tree`, which may name another.
    fn start_below(
        &self,
        named: Option<BackingRef>,
        tree: Map<String, Value>,
        options: &OpenOptions,
    ) -> Result<Start> {
        let format = named.as_ref().and_then(|named| named.format.as_ref());
        let format = format.map(|name| name.to_str_lossy().into_owned());
        let format = format.as_deref();
        let given = tree.contains_key("file") || tree.contains_key("filename");
        let Some(named) = named.filter(|_| !given) else {
            let location = Location::from_tree(json_name(&tree), tree.clone());
            let plan = Plan::of_backing(tree, None, format)?;
            return Ok(Start {
                named_by_image: self.named_by_image,
                ..Start::new(&location, plan)
            });
        };
        let role = ImplicitRole::Backing;
        let (location, opened) = match resolve(
            role,
            OsStr::from_bytes(&named.name),
            self.filename.as_bstr(),
            &self.base,
            options.writable,
            options,
        )? {
            Named::Location(location) => (location, None),
            Named::Storage(opened) => (Location::from_path(&opened.base), Some(opened)),
        };
        let plan = Plan::of_backing(tree, Some(&location), format)?;
        Ok(Start {
            location,
            plan,
            opened,
            named_by_image: true,
        })
    }

    /// Opens the open layer below, and its own chain, once more and for writing; the policy is asked
    /// again. The open one gives up the locks that would be in the way, and must not be read any
    /// more once the new one is written to.
    ///
    /// # Errors
    /// As [`Image::open`], beginning with the name of the backing file.
    pub fn open_backing_writable(&self, options: &OpenOptions) -> Result<Self> {
        let base = self
            .backing()
            .ok_or_else(|| Error::invalid("Image does not have a backing file"))?;
        let mut locked = Ok(());
        base.visit_files(&mut |file| {
            if locked.is_ok() {
                locked = file.storage.lock(lock::of_neighbour());
            }
        });
        locked?;
        let tree = match &self.below {
            BackingPlan::Tree(tree) => tree.clone(),
            BackingPlan::Named | BackingPlan::Null => Map::new(),
        };
        let options = OpenOptions {
            writable: true,
            backing: true,
            metadata_only: false,
            force_share: false,
            ..below(options)
        };
        self.start_below(recorded(self), tree, &options)
            .and_then(|start| open_chain(start, &options, None))
            .map_err(|error| match error.kind() {
                // The file is open; it is the change of its locks that failed.
                ErrorKind::Locked => error,
                _ => error.context(format!("Could not open '{}'", base.location.display())),
            })
    }

    /// Opens what an open of the image would open below it, alone and for its metadata, under the
    /// policy of `options`. None where there is nothing below.
    ///
    /// # Errors
    /// As [`Image::open`], beginning with the name of the backing file.
    pub(crate) fn open_below_metadata(&self, options: &OpenOptions) -> Result<Option<Self>> {
        match &self.below {
            BackingPlan::Null => Ok(None),
            BackingPlan::Named => self.open_backing_metadata(options),
            BackingPlan::Tree(tree) => self.open_metadata_with(tree.clone(), options).map(Some),
        }
    }

    fn open_metadata_with(&self, tree: Map<String, Value>, options: &OpenOptions) -> Result<Self> {
        let options = OpenOptions {
            metadata_only: true,
            ..below(options)
        };
        let name = match self.backing_file() {
            Some(named) => named.full_name,
            None => json_name(&tree),
        };
        self.start_below(recorded(self), tree, &options)
            .and_then(|start| open_chain(start, &options, None))
            .context(|| format!("Could not open '{name}'"))
    }

    /// Opens the backing file that the image names, alone and for its metadata, under the policy
    /// of `options`: the next step of `info` along a chain. None where it names none.
    ///
    /// # Errors
    /// As [`Image::open`], beginning with the name of the backing file.
    pub fn open_backing_metadata(&self, options: &OpenOptions) -> Result<Option<Self>> {
        match self.backing_file() {
            None => Ok(None),
            Some(_) => self.open_metadata_with(Map::new(), options).map(Some),
        }
    }
}
