//! Opens plans: a node, its child nodes, and the chain of backing files, from the top.

mod ancestors;
mod below;
mod given;
mod layer;
mod more_files;
mod node;
mod opener;
mod reopen;
mod search;
mod start;
mod unopened;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::node::Node;
use crate::image::node_plan::NodePlan;
use crate::image::{Backing, Image, OpenOptions, names};
use crate::location::Location;
use crate::memory;
use crate::storage::Storage;

pub(super) use more_files::{MoreFile, MoreFiles};
pub(crate) use search::Search;
pub(crate) use unopened::unopened_files;

use ancestors::Ancestors;
use below::Next;
use start::Start;

impl Image {
    /// Opens the image at `location`.
    ///
    /// # Errors
    /// One line that begins with `Could not open '…'`.
    pub fn open(location: &Location, options: &OpenOptions) -> Result<Self> {
        NodePlan::of(location, options)
            .and_then(|plan| match &options.decompress {
                Some(kind) => plan.decompressing(kind),
                None => Ok(plan),
            })
            .and_then(|plan| open_chain(Start::new(location, plan), options, None, None))
            .and_then(|image| whole(image, options))
            .map_err(|error| error.could_not_open(location.display()))
    }

    /// Opens an image over a storage that the caller created: a descriptor, memory, callbacks. Names inside the image
    /// are relative to the storage's name.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_storage(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        let location = Location::from_path(OsStr::from_bytes(storage.name()));
        if options.writable && storage.read_only() {
            let error = Error::node_read_only();
            return Err(error.could_not_open(location.display()));
        }
        if options.decompress.is_some() {
            let options = given::with_storage(&location, storage, options);
            return Self::open(&location, &options);
        }
        NodePlan::of_open_file(&location, options)
            .and_then(|plan| {
                let mut start = Start::new(&location, plan);
                start.file = Some(Node::given(storage));
                open_chain(start, options, None, None)
            })
            .and_then(|image| whole(image, options))
            .map_err(|error| error.could_not_open(location.display()))
    }
}

/// Memory for the first use of an image that does not depend on its size: options, names, error messages.
const FIRST_USE: u64 = 256 << 10;

/// The final steps of opening.
fn whole(image: Image, options: &OpenOptions) -> Result<Image> {
    // If memory is too short, opening is the last chance to report it.
    memory::headroom(FIRST_USE)?;
    let image = image.kept_from_writers(options)?;
    image.claim_disk()?;
    Ok(image)
}

/// Opens a layer and all those below it; `over` is the image whose parent it is, and `above` is the chain that contains
/// it, with the number of nodes around it. Errors do not name the location.
fn open_chain(
    first: Start,
    options: &OpenOptions,
    over: Option<&Image>,
    above: Option<(&Ancestors<'_>, u32)>,
) -> Result<Image> {
    let mut ancestors = match above {
        Some((above, nested)) => Ancestors::inside(above, nested),
        None => Ancestors::beside(options.nodes.clone().unwrap_or_default()),
    };
    let writable = options.writable;
    let mut layers: Vec<Image> = Vec::new();
    let mut options = options.clone();
    let mut start = first;
    let last = loop {
        let force_share = options.force_share || start.plan.common.force_share;
        let mut opened = layer::open(start, &options, &mut ancestors);
        if let Some(over) = layers.last().or(over) {
            opened = below::first_that_fits(over, opened, &options, |start| {
                layer::open(start, &options, &mut ancestors)
            });
        }
        let mut image = name_depth(opened, layers.len())?;
        options = OpenOptions {
            force_share,
            ..below::of_layer(&options)
        };
        let next = below::next(&mut image, &options, &ancestors);
        memory::push(&mut layers, image)?;
        match name_depth(next, layers.len())? {
            Next::Layer(next) => start = *next,
            Next::End(last) => break last,
        }
    };
    // Each layer takes ownership of the one below it, and copies its warnings.
    let mut below = last;
    while let Some(mut image) = layers.pop() {
        if let Backing::Open(base) = &below {
            image.warnings.extend(base.warnings.iter().cloned());
        }
        image.backing = below;
        if options.backing {
            names::add_backing(&mut image);
        }
        if layers.is_empty() {
            if writable {
                image.check_files_apart()?;
                image.check_apart(image.layers().skip(1))?;
                if image.backing_missing() {
                    unopened::check_apart(&mut image, &options, &mut ancestors)?;
                }
            }
            if above.is_none() {
                ancestors.nodes().publish()?;
            }
            return Ok(image);
        }
        below = Backing::Open(image.into_shared());
    }
    Err(Error::new(ErrorKind::Internal, "An empty chain"))
}

/// Adds to the error, for each layer above the one that failed, that its backing file could not be opened.
fn name_depth<T>(result: Result<T>, depth: usize) -> Result<T> {
    result.map_err(|error| {
        (0..depth).fold(error, |error, _| {
            error.context("Could not open backing file")
        })
    })
}
