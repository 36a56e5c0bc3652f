//! `create`: creates a new image.

mod backing;
mod format;
mod overlap;
mod summary;
mod target;

pub(crate) use backing::{location_beside, modified, open_beside, parent_of};
pub use format::TargetFormat;
pub(crate) use overlap::{KeptFiles, Reason, Written};
pub use target::{Planned, TargetRequest, UnfinishedImage, option_table, target};

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::driver_names::canonical;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::{BackingRef, FormatDriver, NewParent};
use crate::job::{Job, JobControl};
use crate::location::Location;
use crate::object::Objects;
use crate::options::{Options, Values};
use crate::policy::OpenPolicy;
use crate::storage::{CacheMode, Durability, NamedStorages};

/// What to create. Backing file and format may be given as fields or as options; the fields take precedence.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The location of the image.
    pub location: Location,
    /// The format: `raw`, `qcow2`…
    pub format: String,
    /// Virtual size in bytes; None takes it from `size=` or the backing file.
    pub size: Option<u64>,
    /// Options as with `-o`.
    pub options: Options,
    /// `-b`.
    pub backing_file: Option<BString>,
    /// `-F`.
    pub backing_format: Option<String>,
    /// `-u`: the backing file need not exist.
    pub backing_unsafe: bool,
    /// Overwrite nothing: an existing file is refused.
    pub exclusive: bool,
    /// The secrets and other objects that options name by ID.
    pub objects: Objects,
    /// What opening the backing file may do.
    pub policy: OpenPolicy,
    /// Storages under the caller's own names, consulted for every file before the protocols.
    pub storages: Option<Arc<dyn NamedStorages>>,
}

/// A creation that can be described: names, options and the backing file have been checked, but nothing has been
/// touched yet.
#[derive(Debug)]
pub struct CreatePlan {
    request: CreateRequest,
    driver: &'static FormatDriver,
    values: Values,
    size: u64,
    /// The backing file, if it was opened.
    parent: Option<NewParent>,
    /// What the image is to record; a format without a name is refused by [`CreatePlan::run`].
    backing: (Option<BString>, Option<String>),
    /// The files of the backing chain.
    kept: KeptFiles,
    summary: BString,
}

impl CreatePlan {
    /// Checks what `qemu-img` checks before it prints the "Formatting" line: format, protocol, option keys and types,
    /// size; opens the backing file for its size. The values themselves are checked by [`CreatePlan::run`], before it
    /// touches a file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] and others, one line that begins with the file name.
    pub fn new(request: CreateRequest, job: &mut Job) -> Result<Self> {
        let name = request.location.display().into_owned();
        Self::checked(request, job).context(|| name)
    }

    fn checked(mut request: CreateRequest, job: &mut Job) -> Result<Self> {
        let format = TargetFormat::creatable(&request.format)?;
        let driver = format.driver;
        request.location = format.location(&request.location);
        request.format = format.name().to_owned();
        let table = option_table(driver, &request.location)?;
        let values = Values::check(&request.options, &table)?;
        let asked = match (request.size, values.num("size")) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("The image size must be specified only once"));
            }
            (size, option) => size.or(option),
        };
        let backing = named_backing(&request, driver)?;
        if let Some(file) = &backing.0 {
            if file.is_empty() {
                return Err(Error::invalid(
                    "Expected backing file name, got empty string",
                ));
            }
            if request.location.text().as_bytes() == **file {
                return Err(Error::invalid(
                    "Error: Trying to create an image with the same filename as the backing file",
                ));
            }
        }
        let outline = (driver.outline)(&values);
        let mut kept = KeptFiles::default();
        let parent = match &backing.0 {
            Some(file) if !request.backing_unsafe => {
                let format = backing.1.as_deref();
                Some(backing::open(
                    &request,
                    file.as_bstr(),
                    format,
                    &mut kept,
                    job,
                )?)
            }
            Some(_) if backing.1.is_none() => return Err(backing::without_format()),
            Some(file) if outline.records_parent => {
                backing::identity(&request, file.as_bstr(), backing.1.as_deref(), job)
            }
            _ => None,
        };
        if let Some(file) = backing.0.as_ref().filter(|_| request.backing_unsafe) {
            let format = backing.1.as_deref();
            backing::keep_unopened(&request, file.as_bstr(), format, &mut kept, job)?;
        }
        let of_parent = parent.filter(|_| !request.backing_unsafe);
        let size = asked
            .or(of_parent.map(|parent| parent.size))
            .or(outline.size_is_optional.then_some(0))
            .ok_or_else(|| Error::invalid("Image creation needs a size parameter"))?;
        let shown = (
            backing.0.as_ref().map(|name| name.as_bstr()),
            backing.1.as_deref().map(canonical),
        );
        let summary = summary::summary(&request, driver, &values, size, shown);
        let new = Self {
            driver,
            values,
            size,
            parent,
            backing,
            kept,
            summary,
            request,
        };
        // Anything else that is wrong is reported by `run`.
        if let Ok(backing) = new.backing_ref()
            && let Ok(planned) = new.target_request(backing.as_ref(), job.control()).plan()
        {
            new.kept.check(&planned.written())?;
        }
        Ok(new)
    }

    /// The line `Formatting '…', fmt=… key=value…`, without newline.
    pub fn summary(&self) -> &BStr {
        self.summary.as_bstr()
    }

    /// Creates the image. A failure leaves no new file; an existing file is then unchanged, or empty if the failure
    /// came after the checks.
    ///
    /// # Errors
    /// If the creation fails, one line that begins with the file name.
    pub fn run(self, job: &mut Job) -> Result<()> {
        self.create(job)
            .map_err(|error| self.too_large(error))
            .context(|| self.request.location.display().into_owned())
    }

    /// Rewords the host's error for a file that is too large, like that of formats with limits of their own.
    fn too_large(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Os || error.os_errno() != Some(libc::EFBIG) {
            return error;
        }
        let advice = match self.driver.creates_with("cluster_size") {
            true => " (try using a larger cluster size)",
            false => "",
        };
        let name = self.driver.name;
        Error::new(
            ErrorKind::Limit,
            format!("The image size is too large for file format '{name}'{advice}"),
        )
        .with_errno(libc::EFBIG)
    }

    fn create(&self, job: &mut Job) -> Result<()> {
        let backing = self.backing_ref()?;
        job.tick()?;
        let planned = self
            .target_request(backing.as_ref(), job.control())
            .plan()?;
        let target = planned.create(&self.kept, self.parent)?;
        for warning in target.warnings() {
            job.warn(warning.clone());
        }
        job.tick()?;
        // The files are only kept if this succeeds as a whole.
        target.finish_with(Durability::Synced, || job.finish())
    }

    fn backing_ref(&self) -> Result<Option<BackingRef>> {
        match &self.backing {
            (Some(name), format) => {
                Ok(Some(BackingRef::to_record(name.clone(), format.as_deref())))
            }
            (None, Some(format)) => Err(target::format_without_file(format)),
            (None, None) => Ok(None),
        }
    }

    fn target_request<'a>(
        &'a self,
        backing: Option<&'a BackingRef>,
        control: &'a Arc<JobControl>,
    ) -> TargetRequest<'a> {
        TargetRequest {
            location: &self.request.location,
            driver: self.driver,
            size: self.size,
            values: &self.values,
            backing,
            exclusive: self.request.exclusive,
            cache: CacheMode::Writeback,
            is_filled: false,
            objects: &self.request.objects,
            policy: &self.request.policy,
            storages: self.request.storages.as_deref(),
            control,
            package: None,
        }
    }
}

/// The backing file and format that fields or options name, if the format can record them.
fn named_backing(
    request: &CreateRequest,
    driver: &FormatDriver,
) -> Result<(Option<BString>, Option<String>)> {
    let option = |key: &str| request.options.get(key);
    let file = request.backing_file.clone();
    let file = file.or_else(|| option("backing_file").map(BStr::to_owned));
    let format = request.backing_format.clone();
    let format = format.or_else(|| Some(option("backing_fmt")?.to_str_lossy().into_owned()));
    for (given, key, what) in [
        (file.is_some(), "backing_file", "Backing file"),
        (format.is_some(), "backing_fmt", "Backing file format"),
    ] {
        if given && !driver.creates_with(key) {
            return Err(Error::not_recorded(what, &request.format));
        }
    }
    Ok((file, format))
}
