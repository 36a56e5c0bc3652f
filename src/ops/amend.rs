//! `amend`: changes the options of an existing image.

use crate::error::{Error, Result};
use crate::format::{Amend, AmendContext};
use crate::image::Image;
use crate::job::Job;
use crate::object::Objects;
use crate::options::{Options, Values};

/// A change of options, checked against what the image's format can change.
#[derive(Clone, Debug)]
pub struct AmendRequest {
    values: Values,
    objects: Objects,
    force: bool,
}

impl AmendRequest {
    /// Checks `options`, as given to `amend -o`, for `image`. `objects` holds the secrets that the options name by ID
    /// and the one that opened the image; `force` allows changes that may lose data.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if the format cannot change options, [`crate::ErrorKind::Invalid`] for an
    /// unknown key or a value of the wrong type.
    pub fn new(image: &Image, options: &Options, objects: &Objects, force: bool) -> Result<Self> {
        amender(image)?;
        let driver = image.driver();
        let known = |key: &str| driver.amend_options.iter().any(|spec| spec.name == key);
        let values = Values::check(options, driver.amend_options).map_err(|error| {
            let unknown = options.iter().any(|(key, _)| !known(key));
            if unknown && Values::check(options, driver.create_options).is_ok() {
                let message = error.message().to_owned();
                return Error::invalid(message)
                    .with_hint("This option is only supported for image creation");
            }
            error
        })?;
        Ok(Self {
            values,
            objects: objects.clone(),
            force,
        })
    }
}

/// Changes the options of `image`, which is open for writing. A failed or cancelled change leaves an image that opens,
/// each option with its old or its new value.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for values that the image cannot have, [`crate::ErrorKind::Unsupported`],
/// [`crate::ErrorKind::ReadOnly`], or if I/O fails.
pub fn amend(image: &Image, request: &AmendRequest, job: &mut Job) -> Result<()> {
    change(image, request, job).map_err(|error| {
        error.context_if_bare(|| format!("Could not amend '{}'", image.filename()))
    })?;
    job.finish()
}

fn change(image: &Image, request: &AmendRequest, job: &mut Job) -> Result<()> {
    let context = AmendContext {
        values: &request.values,
        objects: &request.objects,
        force: request.force,
        below: image,
    };
    if let Some(size) = request.values.num("size") {
        image.check_growth(size)?;
    }
    let amender = amender(image)?;
    let locks = image.lock_keys()?;
    let under_way = image.begin_change()?;
    amender.amend(&context, job)?;
    drop((under_way, locks));
    image.flush()
}

fn amender(image: &Image) -> Result<&dyn Amend> {
    image.format().amender().ok_or_else(|| {
        Error::unsupported(format!(
            "Format driver '{}' does not support option amendment",
            image.format_name()
        ))
    })
}
