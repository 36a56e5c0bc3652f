//! The chain below an image if it is not opened: for writing to the image, or creating an overlay.

use bstr::ByteSlice;

use super::ancestors::Ancestors;
use super::below::{self, Next};
use super::layer;
use super::start::Start;
use crate::error::Result;
use crate::format::{BackingRef, FileRole};
use crate::image::files::{StandingFile, check_not_written};
use crate::image::named_files::{is_local, visit_plan_files};
use crate::image::node_plan::{Driver, NodePlan};
use crate::image::{Image, OpenOptions};
use crate::location::Location;
use crate::memory;
use crate::value::Map;

/// Refuses to write to an image if one of its files also belongs to the chain below, which stays closed.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub(super) fn check_apart(
    image: &mut Image,
    options: &OpenOptions,
    ancestors: &mut Ancestors<'_>,
) -> Result<()> {
    let written = image.written_files()?;
    if written.len() < 2 {
        // An image that refers to itself is detected when the chain is opened.
        return Ok(());
    }
    let walking = walking(options);
    let mut starts = Vec::new();
    push_next(image, &walking, ancestors, &mut starts)?;
    visit(starts, &walking, ancestors, &mut |file| {
        check_not_written(&written, &file)
    })
}

impl Image {
    /// Refuses to write to this image if one of its files, provided it has several, also belongs to an image that is to
    /// become its backing file and is not opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`].
    pub(crate) fn check_apart_named(
        &self,
        backing: &BackingRef,
        options: &OpenOptions,
    ) -> Result<()> {
        let written = self.written_files()?;
        if written.len() < 2 {
            return Ok(());
        }
        let walking = walking(options);
        let Ok(start) = start_of(self, backing, &walking) else {
            // A name that refers to nothing cannot refer to a file of this image.
            return Ok(());
        };
        let mut ancestors = Ancestors::default();
        visit(vec![start], &walking, &mut ancestors, &mut |file| {
            check_not_written(&written, &file)
        })
    }
}

/// The files of an image and of its chain that a new image is to name and that need not exist.
///
/// # Errors
/// If memory is exhausted.
pub(crate) fn unopened_files(
    location: &Location,
    options: &OpenOptions,
) -> Result<Vec<StandingFile>> {
    let plan = NodePlan::new(location, options.format.as_deref());
    let Ok(plan) = plan.or_else(|_| NodePlan::new(location, None)) else {
        return Ok(Vec::new());
    };
    let mut start = Start::new(location, plan);
    // Nothing that might block is opened on the strength of a name.
    start.named_by_image = true;
    let mut files = Vec::new();
    let mut ancestors = Ancestors::default();
    visit(
        vec![start],
        &walking(options),
        &mut ancestors,
        &mut |file| memory::push(&mut files, file),
    )?;
    Ok(files)
}

fn walking(options: &OpenOptions) -> OpenOptions {
    OpenOptions {
        backing: true,
        metadata_only: false,
        force_share: true,
        ..below::of_layer(options)
    }
}

/// Visits the files of these images and of their chains. Only the metadata of local files is read, and no server is
/// contacted. For files that cannot be opened, or must not be, their names count.
fn visit(
    mut starts: Vec<Start>,
    walking: &OpenOptions,
    ancestors: &mut Ancestors<'_>,
    visit: &mut dyn FnMut(StandingFile) -> Result<()>,
) -> Result<()> {
    let looking = OpenOptions {
        metadata_only: true,
        ..walking.clone()
    };
    while let Some(start) = starts.pop() {
        if start.file.is_none() {
            visit_named(&start, &looking, visit)?;
        }
        if matches!(start.plan.driver, Driver::Host(_)) {
            continue;
        }
        let location = start.location.clone();
        let (plan, named_by_image) = (start.plan.clone(), start.named_by_image);
        let opened = is_local(&plan).then(|| layer::open(start, &looking, ancestors));
        match opened {
            Some(Ok(mut layer)) => {
                layer
                    .standing_files()?
                    .into_iter()
                    .try_for_each(&mut *visit)?;
                push_next(&mut layer, walking, ancestors, &mut starts)?;
            }
            Some(Err(_)) | None => {
                push_parts((&location, &plan, named_by_image), &mut starts)?;
            }
        }
    }
    Ok(())
}

fn visit_named(
    start: &Start,
    options: &OpenOptions,
    visit: &mut dyn FnMut(StandingFile) -> Result<()>,
) -> Result<()> {
    let shown = start.location.display();
    let of = shown.as_bytes().as_bstr();
    let mut visited = Ok(());
    visit_plan_files(&start.plan, options, &mut |id, name| {
        if visited.is_ok() {
            visited = visit(StandingFile {
                id,
                role: FileRole::Image,
                name: name.unwrap_or(of).to_owned(),
                of: of.to_owned(),
            });
        }
    });
    visited
}

/// What a recorded name refers to, even if the recorded format is wrong.
fn start_of(above: &Image, named: &BackingRef, walking: &OpenOptions) -> Result<Start> {
    let with = |format| BackingRef {
        name: named.name.clone(),
        format,
    };
    let start = |named| above.start_below(Some(named), Map::new(), walking);
    start(with(named.format.clone())).or_else(|_| start(with(None)))
}

/// Adds what follows a layer; if a parent has several names, all of them.
fn push_next(
    above: &mut Image,
    walking: &OpenOptions,
    ancestors: &Ancestors<'_>,
    starts: &mut Vec<Start>,
) -> Result<()> {
    match below::next(above, walking, ancestors) {
        Ok(Next::Layer(first)) => memory::push(starts, *first)?,
        Ok(Next::End(_)) => return Ok(()),
        Err(_) => {
            let named = below::recorded(above).map(|named| start_of(above, &named, walking));
            if let Some(Ok(start)) = named {
                memory::push(starts, start)?;
            }
        }
    }
    let others = below::by_other_names(above, walking).into_iter().flatten();
    for start in others.flatten() {
        memory::push(starts, start)?;
    }
    Ok(())
}

/// Adds what an unopened node stands on.
fn push_parts(
    (location, plan, named_by_image): (&Location, &NodePlan, bool),
    starts: &mut Vec<Start>,
) -> Result<()> {
    let specs = match plan.driver {
        Driver::Filter(driver) => driver.children,
        Driver::Format(driver) => driver.children,
        Driver::Probed | Driver::Host(_) | Driver::Open(_) => &[],
    };
    for (name, child) in plan.children() {
        let spec = specs.iter().find(|spec| spec.covers(name));
        let inner = spec.map_or_else(|| child.file(), |spec| child.plan(spec));
        if let Ok(Some(plan)) = inner {
            let mut start = Start::new(location, plan);
            start.named_by_image = named_by_image;
            memory::push(starts, start)?;
        }
    }
    Ok(())
}
