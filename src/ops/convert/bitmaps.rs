//! Copying the source's persistent bitmaps.

use bstr::BString;

use crate::error::{Error, Result};
use crate::format::{BitmapInfo, Bitmaps, FormatDriver, Outline, registry};
use crate::image::Image;
use crate::job::Job;
use crate::ops::bitmap;

use super::request::ConvertRequest;
use super::sources::Sources;

/// What is copied.
pub(super) struct Chosen {
    /// In the order of the source.
    bitmaps: Vec<BitmapInfo>,
    /// Names of the bitmaps that are left out.
    skipped: Vec<BString>,
}

/// The bitmaps to copy, if that was requested.
pub(super) fn choose(request: &ConvertRequest, source: Option<&Image>) -> Result<Option<Chosen>> {
    if !request.source.bitmaps {
        return Ok(None);
    }
    let (source, bitmaps) = source
        .and_then(|source| Some((source, source.bitmaps()?)))
        .ok_or_else(|| Error::unsupported("Source lacks bitmap support"))?;
    let (broken, bitmaps): (Vec<_>, Vec<_>) = listed(source, bitmaps)?
        .into_iter()
        .partition(|bitmap| bitmap.inconsistent);
    // QEMU processes them from the last to the first.
    let skipped: Vec<_> = broken.into_iter().rev().map(|bitmap| bitmap.name).collect();
    match skipped.first() {
        Some(name) if !request.source.skip_broken_bitmaps => Err(Error::corrupt(format!(
            "Cannot copy inconsistent bitmap '{name}'"
        ))
        .with_hint("Leave inconsistent bitmaps out, or remove it")),
        _ => Ok(Some(Chosen { bitmaps, skipped })),
    }
}

fn listed(image: &Image, bitmaps: &dyn Bitmaps) -> Result<Vec<BitmapInfo>> {
    bitmaps.list().map_err(|error| {
        error.context_if_bare(|| format!("Could not list the bitmaps of '{}'", image.filename()))
    })
}

impl Chosen {
    /// Refuses a target that only takes raw bytes.
    pub fn refuse_stream(&self) -> Result<()> {
        Err(Error::no_bitmaps(registry::plain().name))
    }

    /// Refuses a new image that could not store them.
    pub fn check_new(&self, driver: &FormatDriver, outline: Outline) -> Result<()> {
        match outline.bitmaps {
            true => Ok(()),
            false => Err(Error::no_bitmaps(driver.name)),
        }
    }

    /// Refuses an existing image that cannot take them, before any of its data changes.
    pub fn check_existing(&self, image: &Image, sources: &Sources) -> Result<()> {
        let target = image
            .bitmaps()
            .ok_or_else(|| Error::no_bitmaps(image.driver().name))?;
        let taken = listed(image, target)?;
        for bitmap in self.bitmaps.iter().rev() {
            let name = &bitmap.name;
            if taken.iter().any(|other| other.name == *name) {
                return Err(Error::new(
                    crate::error::ErrorKind::Exists,
                    format!("Bitmap already exists: {name}"),
                )
                .context(format!("Failed to create bitmap {name}")));
            }
            if let Some(source) = source(sources) {
                bitmap::check_sizes(target.covered(), source.covered())
                    .map_err(|error| error.context(format!("Failed to populate bitmap {name}")))?;
            }
        }
        Ok(())
    }

    /// Copies them; the ones left out become warnings.
    pub fn copy(
        &self,
        target: Option<&dyn Bitmaps>,
        sources: &Sources,
        job: &mut Job,
    ) -> Result<()> {
        if let (Some(source), Some(target)) = (source(sources), target) {
            for bitmap in &self.bitmaps {
                job.tick()?;
                bitmap::copy(target, source, bitmap, job.control())?;
            }
        }
        for name in &self.skipped {
            job.warn(format!("Skipping inconsistent bitmap '{name}'"));
        }
        Ok(())
    }
}

/// The bitmaps of the only source; None if it is empty.
fn source(sources: &Sources) -> Option<&dyn Bitmaps> {
    sources.layers().next().and_then(Image::bitmaps)
}
