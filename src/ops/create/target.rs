//! The creation of a target file: shared by `create` and `convert`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::{BStr, ByteSlice};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::driver::own_file;
use crate::format::package::plan_new;
use crate::format::{
    BackingRef, Bulk, CreateParams, FileRole, Format, FormatDriver, NewImage, NewParent,
    OpenNewContext, Package, PlannedFile, PrepareContext,
};
use crate::image::{Search, location_files, lock_for_creation, lock_for_writing};
use crate::job::JobControl;
use crate::location::Location;
use crate::memory;
use crate::object::Objects;
use crate::ops::known::may_be_recorded;
use crate::options::{OptionSpec, Values};
use crate::policy::OpenPolicy;
use crate::size::round_up_sector;
use crate::storage::driver::CreateContext;
use crate::storage::location::for_create;
use crate::storage::{
    CacheMode, Creation, Durability, NamedStorages, Preallocation, Storage, StorageDriver,
    StorageOpen,
};

use super::overlap::{KeptFiles, Written};

/// More memory than a file takes that is created together with others.
const FILE: u64 = 16 << 10;

/// The options that `create` accepts for this format at this location: those of the format and those of the protocol,
/// sorted by name.
///
/// # Errors
/// [`ErrorKind::Invalid`] for an unknown protocol, [`ErrorKind::Unsupported`] if the format or the protocol cannot
/// create.
pub fn option_table(driver: &FormatDriver, location: &Location) -> Result<Vec<OptionSpec>> {
    let protocol = creating_protocol(driver, location)?;
    let mut table = driver.create_options.to_vec();
    for spec in protocol.create_options {
        if !table.iter().any(|known| known.name == spec.name) {
            table.push(*spec);
        }
    }
    table.sort_by_key(|spec| spec.name);
    Ok(table)
}

/// The protocol of the location, if an image of the format can be created there.
pub(super) fn creating_protocol(
    driver: &FormatDriver,
    location: &Location,
) -> Result<&'static StorageDriver> {
    let (protocol, _) = for_create(location)?;
    if driver.create.is_none() {
        return Err(Error::no_creation(driver.name));
    }
    if protocol.create.is_none() {
        return Err(Error::no_protocol_creation(protocol.name));
    }
    Ok(protocol)
}

/// What [`target`] creates.
#[derive(Clone, Copy, Debug)]
pub struct TargetRequest<'a> {
    /// The location of the target.
    pub location: &'a Location,
    /// The format.
    pub driver: &'static FormatDriver,
    /// Virtual size in bytes; rounded up to 512 here.
    pub size: u64,
    /// Options checked against [`option_table`]; `size`, `backing_file` and `backing_fmt` are
    /// ignored in favour of the fields.
    pub values: &'a Values,
    /// The backing file to record.
    pub backing: Option<&'a BackingRef>,
    /// Overwrite nothing: every file of the image is new.
    pub exclusive: bool,
    /// How the target's storage is opened.
    pub cache: CacheMode,
    /// Whether the whole target is written right away.
    pub is_filled: bool,
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// What creating further files (a data file) may do.
    pub policy: &'a OpenPolicy,
    /// Consulted for each file that is created, before the protocols.
    pub storages: Option<&'a dyn NamedStorages>,
    /// Can end operations that take long.
    pub control: &'a Arc<JobControl>,
    /// The package that the image is put into, if it is not the file itself.
    pub package: Option<&'static Package>,
}

impl<'a> TargetRequest<'a> {
    /// Checks the options without touching a file.
    ///
    /// # Errors
    /// If the format refuses them; the message does not name the target.
    pub fn plan(&self) -> Result<Planned<'a>> {
        creating_protocol(self.driver, self.location)?;
        self.policy.check_format(self.driver.name)?;
        if let Some(backing) = self.backing {
            self.check_backing(backing)?;
        }
        let image = plan_new(self.driver, self.package, &self.params()?)?;
        // After the format's own limit, whose wording users know.
        self.policy.check_virtual_size(self.size)?;
        Ok(Planned {
            request: *self,
            image,
        })
    }

    fn check_backing(&self, backing: &BackingRef) -> Result<()> {
        let name = self.driver.name;
        if !self.driver.creates_with("backing_file") {
            return Err(Error::not_recorded("Backing file", name));
        }
        match &backing.format {
            Some(format) if !may_be_recorded(&format.to_str_lossy()) => {
                Err(unknown_backing_format(&format.to_str_lossy()))
            }
            _ => Ok(()),
        }
    }

    fn params(&self) -> Result<CreateParams<'a>> {
        let size = round_up_sector(self.size)
            .ok_or_else(|| Error::size_too_large_for(self.driver.name))?;
        Ok(CreateParams {
            name: self
                .location
                .path()
                .map(|path| BStr::new(path.as_os_str().as_bytes())),
            size,
            values: self.values,
            backing: self.backing,
        })
    }
}

/// The error of a backing format without a backing file.
pub(super) fn format_without_file(format: &str) -> Error {
    match may_be_recorded(format) {
        true => Error::invalid("Backing format cannot be used without backing file"),
        false => unknown_backing_format(format),
    }
}

fn unknown_backing_format(format: &str) -> Error {
    Error::refused_value("backing-fmt", format)
}

/// A new image whose options have been checked; no file has been touched.
#[derive(Debug)]
pub struct Planned<'a> {
    request: TargetRequest<'a>,
    image: Box<dyn NewImage>,
}

/// A new image that is being filled. If dropped before [`UnfinishedImage::finish`], it removes the files that it
/// created; an existing file stays, empty.
#[derive(Debug)]
pub struct UnfinishedImage {
    // Before the files, so that nothing writes to them when they are removed.
    bulk: Box<dyn Bulk>,
    files: Vec<Creation>,
    storage: Arc<dyn Storage>,
    warnings: Vec<String>,
}

/// Creates (or empties) the target file and starts the image.
///
/// # Errors
/// If the checks or the creation fail; the message does not begin with the target's name, which callers add.
pub fn target(request: &TargetRequest<'_>) -> Result<UnfinishedImage> {
    request.plan()?.create(&KeptFiles::default(), None)
}

impl Planned<'_> {
    /// The files that the creation will write, as far as they exist already.
    pub(crate) fn written(&self) -> Vec<Written> {
        let files = self.image.files().into_iter();
        files
            .flat_map(|file| {
                let files = location_files(&self.location(&file), true).into_iter();
                files.map(move |(id, name)| Written {
                    id,
                    role: file.role,
                    name,
                })
            })
            .collect()
    }

    /// Opens the files, checks everything that could prevent the creation, including `kept`, and only then empties them
    /// and starts the image. `parent` is the backing file, if it was opened.
    ///
    /// # Errors
    /// As [`target`]. Files are unchanged, except after an I/O error that follows the first change.
    pub(crate) fn create(
        mut self,
        kept: &KeptFiles,
        parent: Option<NewParent>,
    ) -> Result<UnfinishedImage> {
        let planned = self.image.files();
        let mut files = Vec::with_capacity(planned.len());
        for file in &planned {
            files.push(self.claim(file)?);
        }
        if self.request.exclusive {
            files.iter().try_for_each(Creation::check_is_new)?;
        }
        self.check(&planned, &files, kept)?;
        self.check_parent(&files, kept, parent)?;
        self.image.prepare(&PrepareContext {
            objects: self.request.objects,
            parent,
            control: self.request.control,
        })?;
        // This is the first change.
        let mut warnings = Vec::new();
        for file in &mut files {
            warnings.extend(file.empty()?);
        }
        let storages: Vec<_> = files.iter().map(|file| file.storage().clone()).collect();
        let storage = own_file(&storages)?.clone();
        let bulk = self.image.start(&storages, self.request.control)?;
        lock_for_writing(&*storage, !self.request.driver.has_metadata)?;
        Ok(UnfinishedImage {
            bulk,
            files,
            storage,
            warnings,
        })
    }

    /// Checks that an image that records no name for its parent will find it, if the parent had to exist.
    fn check_parent(
        &self,
        files: &[Creation],
        kept: &KeptFiles,
        parent: Option<NewParent>,
    ) -> Result<()> {
        let id = parent.and_then(|parent| parent.id);
        let (Some(places), Some(id)) = (self.image.parent_search(), id) else {
            return Ok(());
        };
        let (Some(below), Some(backing)) = (kept.backing(), self.request.backing) else {
            return Ok(());
        };
        let location = self.request.location;
        let text = location.text();
        let own = files.first().and_then(|file| file.storage().identity());
        Search {
            image: BStr::new(text.as_bytes()),
            base: location.path().map_or(text, |path| path.as_os_str()),
            id,
            places,
            policy: self.request.policy,
        }
        .check_leads_to(&below.id, backing.name.as_bstr(), own.as_ref())
    }

    /// The separate name of a further file is a path, whatever it looks like, relative to the current directory.
    fn location(&self, file: &PlannedFile) -> Location {
        match &file.name {
            None => self.request.location.clone(),
            Some(name) => Location::from_path(OsStr::from_bytes(name)),
        }
    }

    fn claim(&self, file: &PlannedFile) -> Result<Creation> {
        // An image may have any number of files.
        memory::headroom(FILE)?;
        let location = self.location(file);
        let open = StorageOpen {
            writable: true,
            cache: self.request.cache,
            named_by_image: false,
        };
        let given = self.request.storages.zip(location.path());
        if let Some(storage) = given.and_then(|(all, path)| all.find(path, &open)) {
            return Ok(Creation::given(storage?));
        }
        let (driver, target) = for_create(&location)?;
        let own = self.request.driver.create_options;
        let options = self.request.values.without(own);
        driver.claim(&CreateContext {
            target,
            options: &options,
            cache: self.request.cache,
            is_filled: self.request.is_filled,
            objects: self.request.objects,
            policy: self.request.policy,
            control: self.request.control,
        })
    }

    fn check(&self, planned: &[PlannedFile], files: &[Creation], kept: &KeptFiles) -> Result<()> {
        let both = || planned.iter().zip(files);
        let written: Vec<Written> = both()
            .filter_map(|(plan, file)| {
                Some(Written {
                    id: file.storage().identity()?,
                    role: plan.role,
                    name: self.location(plan).text().as_bytes().into(),
                })
            })
            .collect();
        kept.check(&written)?;
        let plain = !self.request.driver.has_metadata;
        for (plan, file) in both() {
            let storage = file.storage();
            if plan.role == FileRole::Image
                && self.image.ends_with_file()
                && storage.limits().fixed_len
            {
                return Err(Error::unsupported(format!(
                    "'{}' has a fixed length, and an archive ends where its file does: write it to a file",
                    storage.name()
                )));
            }
            if plan.role == FileRole::Image
                && !self.request.driver.is_transparent
                && storage.limits().fixed_len
                && storage.is_empty()?
            {
                // What is written to such a device could not be read back.
                return Err(Error::new(
                    ErrorKind::NotAnImage,
                    format!("Image is not in {} format", self.request.driver.name),
                ));
            }
            if plan.role == FileRole::Image && self.request.driver.is_transparent {
                let asked = (self.request.driver.outline)(self.request.values).preallocation;
                if storage.limits().fixed_len && asked != Preallocation::Off {
                    // This refuses it with its own message.
                    storage.set_len(storage.len()?, asked)?;
                }
            }
            file.check_room(plan.len)
                .map_err(|error| self.no_room(plan, storage.name(), error))?;
        }
        for (plan, file) in both() {
            lock_for_creation(&**file.storage(), plan.role, plain)?;
        }
        Ok(())
    }

    fn no_room(&self, plan: &PlannedFile, name: &BStr, error: Error) -> Error {
        let driver = self.request.driver;
        let len = plan.len;
        match error.kind() {
            ErrorKind::NoSpace if plan.role != FileRole::Image => {
                error.context("Could not resize image")
            }
            ErrorKind::NoSpace if driver.has_metadata => Error::os(libc::ENOSPC).context(format!(
                "The image takes at least {len} bytes, for which '{name}' is too small"
            )),
            _ => error,
        }
    }
}

impl UnfinishedImage {
    /// The writer.
    pub fn bulk(&self) -> &dyn Bulk {
        &*self.bulk
    }

    /// What was requested but could not be done, although the image is usable without it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The image file.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Writes tables and header, makes them as durable as requested, and keeps the files.
    ///
    /// # Errors
    /// If I/O fails; the files are removed then.
    pub fn finish(self, durability: Durability) -> Result<()> {
        self.finish_with(durability, || Ok(()))
    }

    /// As [`UnfinishedImage::finish`]; the files are only kept if `last` succeeds too.
    ///
    /// # Errors
    /// If I/O or `last` fails; the files are removed then.
    pub(crate) fn finish_with(
        self,
        durability: Durability,
        last: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.bulk.finish(durability)?;
        self.keep_after(last)
    }

    /// Keeps the files as they are: for callers that have written everything without the writer.
    ///
    /// # Errors
    /// If ending their use fails; they are removed then.
    pub(in crate::ops) fn keep(self) -> Result<()> {
        self.keep_after(|| Ok(()))
    }

    fn keep_after(self, last: impl FnOnce() -> Result<()>) -> Result<()> {
        drop(self.bulk);
        self.files.iter().try_for_each(Creation::finish)?;
        last()?;
        self.files.into_iter().for_each(Creation::keep);
        Ok(())
    }
}

impl UnfinishedImage {
    /// As [`UnfinishedImage::finish`], but also applies `change` to the new image before it is kept.
    ///
    /// # Errors
    /// If I/O or opening the image fails, with `context` prepended; if `change` fails. The files are removed then.
    pub fn finish_and(
        self,
        request: &TargetRequest<'_>,
        durability: Durability,
        context: impl Fn() -> String,
        change: impl FnOnce(&dyn Format) -> Result<()>,
    ) -> Result<()> {
        self.bulk.finish(durability).context(&context)?;
        let open = OpenNewContext {
            durability,
            policy: request.policy,
            control: request.control,
        };
        let image = self.bulk.open_finished(&open).context(&context)?;
        change(&*image)?;
        image.close().context(&context)?;
        drop(image);
        self.keep().context(&context)
    }
}
