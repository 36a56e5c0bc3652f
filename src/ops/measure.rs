//! `measure`: how large a new image would be.

use std::fmt::Write;

use crate::error::{Error, Result};
use crate::format::{BackingRef, Contents, CreateParams, Measured};
use crate::image::Image;
use crate::job::Job;
use crate::location::Location;
use crate::ops::create::{TargetFormat, option_table};
use crate::ops::render::json;
use crate::options::{Options, Values};
use crate::size;
use crate::value::{Map, Value};

/// What the new image is to hold.
#[derive(Clone, Copy, Debug)]
pub enum MeasureSource<'a> {
    /// Nothing yet: a virtual size in bytes.
    Size(u64),
    /// The contents of an image and its backing chain.
    Image(&'a Image),
}

/// The report of `measure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureReport(pub Measured);

/// Measures an image of the format with the given creation options. Data is not read.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for bad options, [`crate::ErrorKind::Unsupported`] if the format cannot be measured,
/// or if mapping the source fails.
pub fn measure(
    source: MeasureSource<'_>,
    format: TargetFormat,
    options: &Options,
    job: &mut Job,
) -> Result<MeasureReport> {
    let driver = format.driver;
    // A protocol has no metadata to measure.
    let measure = driver.measure.filter(|_| format.protocol.is_none());
    let measure = measure.ok_or_else(|| {
        Error::unsupported(format!(
            "Block driver '{}' does not support size measurement",
            format.name()
        ))
    })?;
    let mut options = options.clone();
    // The size of the source overrides one among the options.
    let _ = options.take("size");
    let table = option_table(driver, &Location::from_path("new"))?;
    let values = Values::check(&options, &table)?;
    let (asked_size, image) = match source {
        MeasureSource::Size(size) => (size, None),
        MeasureSource::Image(image) => (image.len(), Some(image)),
    };
    let size = size::round_up_sector(asked_size)
        .ok_or_else(|| Error::invalid("The image size is too large"))?;
    job.control().set_total(size);
    let bitmaps = image
        .map(|image| source_bitmaps(image).map_err(|error| named(error, image)))
        .transpose()?
        .flatten();
    let mut count = |unit: u64| {
        image.map_or(Ok(0), |image| {
            data_units(image, unit, job).map_err(|error| named(error, image))
        })
    };
    // The backing file is not opened.
    let format = values.str("backing_fmt");
    let backing = values.name("backing_file");
    let backing = backing.map(|name| BackingRef::to_record(name.to_owned(), format));
    let measured = measure(
        &CreateParams {
            name: None,
            size,
            values: &values,
            backing: backing.as_ref(),
        },
        &mut Contents {
            data_units: image.is_some().then_some(&mut count),
            bitmaps: bitmaps.as_deref(),
        },
    )?;
    job.finish()?;
    Ok(MeasureReport(measured))
}

fn named(error: Error, image: &Image) -> Error {
    error.context_if_bare(|| format!("Could not measure '{}'", image.filename()))
}

/// Name length and granularity of each bitmap; None if the image cannot have any.
fn source_bitmaps(image: &Image) -> Result<Option<Vec<(u64, u64)>>> {
    let Some(bitmaps) = image.bitmaps() else {
        return Ok(None);
    };
    let list = bitmaps.list()?.into_iter();
    Ok(Some(
        list.map(|bitmap| (bitmap.name.len() as u64, bitmap.granularity))
            .collect(),
    ))
}

/// How many units of `unit` bytes hold data.
fn data_units(image: &Image, unit: u64, job: &mut Job) -> Result<u64> {
    let (mut at, mut units) = (0, 0);
    // The first unit that is not counted yet.
    let mut next = 0;
    let mut statuses = image.statuses();
    while at < image.len() {
        let run = statuses.at(at, image.len() - at)?;
        if run.unknown {
            return Err(image.unknown_contents());
        }
        let end = at + run.len;
        if run.data && !run.zero {
            let first = (at / unit).max(next);
            let past = end.div_ceil(unit);
            units += past.saturating_sub(first);
            next = next.max(past);
        }
        job.control().advance(run.len);
        job.tick()?;
        at = end;
    }
    Ok(units)
}

impl MeasureReport {
    /// The JSON that `qemu-img measure --output=json` prints.
    pub fn json(&self) -> String {
        let mut object = Map::new();
        if let Some(bitmaps) = self.0.bitmaps {
            object.insert("bitmaps".into(), bitmaps.into());
        }
        object.insert("required".into(), self.0.required.into());
        object.insert("fully-allocated".into(), self.0.fully_allocated.into());
        json::pretty(&Value::Object(object))
    }

    /// The text that `qemu-img measure` prints.
    pub fn text(&self) -> String {
        let mut text = format!(
            "required size: {}\nfully allocated size: {}\n",
            self.0.required, self.0.fully_allocated
        );
        if let Some(bitmaps) = self.0.bitmaps {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "bitmaps size: {bitmaps}");
        }
        text
    }
}
