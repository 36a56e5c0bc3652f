//! The creation of a target file: shared by `create` and `convert`.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::StorageSlot;
use crate::format::registry as formats;
use crate::format::{
    BackingRef, Bulk, CreateContext, CreateParams, Format, FormatDriver, OpenContext, Opener,
};
use crate::image::lock_for_writing;
use crate::job::JobControl;
use crate::location::Location;
use crate::options::{OptionSpec, Options, Values};
use crate::policy::{ImplicitRole, OpenPolicy};
use crate::secret::Secrets;
use crate::size::round_up_sector;
use crate::storage::registry as protocols;
use crate::storage::{
    CacheMode, Created, Durability, NamedStorages, Preallocation, Storage, StorageCreate,
    StorageDriver, StorageOpen,
};

/// The options that `create` takes for this format at this location: those of the format and
/// those of the protocol, sorted by name.
///
/// # Errors
/// [`ErrorKind::Invalid`] for an unknown protocol, [`ErrorKind::Unsupported`] where format or
/// protocol cannot create.
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

/// The protocol of the location, when an image of the format can be created there.
pub(super) fn creating_protocol(
    driver: &FormatDriver,
    location: &Location,
) -> Result<&'static StorageDriver> {
    let protocol = protocols::driver_for_create(location.node())?;
    if driver.create.is_none() {
        return Err(cannot_create(driver.name));
    }
    if protocol.create.is_none() {
        return Err(cannot_create(protocol.name));
    }
    Ok(protocol)
}

fn cannot_create(driver: &str) -> Error {
    Error::unsupported(format!(
        "Format driver '{driver}' does not support image creation"
    ))
}

/// What [`target`] creates.
#[derive(Clone, Copy, Debug)]
pub struct TargetRequest<'a> {
    /// Where.
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
    /// How the target's storage is opened.
    pub cache: CacheMode,
    /// The secrets that options name by ID.
    pub secrets: &'a Secrets,
    /// What creating further files (a data file) may do.
    pub policy: &'a OpenPolicy,
    /// Asked for each file that is created, before the protocols.
    pub storages: Option<&'a dyn NamedStorages>,
    /// Ends what takes long.
    pub control: &'a Arc<JobControl>,
}

impl<'a> TargetRequest<'a> {
    /// Checks the options without touching a file.
    ///
    /// # Errors
    /// Of the format; the message does not name the target.
    pub fn plan(&self) -> Result<()> {
        self.policy.check_format(self.driver.name)?;
        if let Some(backing) = self.backing {
            self.check_backing(backing)?;
        }
        let params = self.params()?;
        if let Some(plan) = self.driver.plan {
            plan(&params)?;
        }
        // After the format's own limit, of which users know the words.
        self.policy.check_virtual_size(self.size)
    }

    fn check_backing(&self, backing: &BackingRef) -> Result<()> {
        let name = self.driver.name;
        if !takes(self.driver, "backing_file") {
            return Err(Error::unsupported(format!(
                "Backing file not supported for file format '{name}'"
            )));
        }
        match &backing.format {
            Some(format) if formats::by_name(format).is_none() => {
                Err(unknown_backing_format(format))
            }
            _ => Ok(()),
        }
    }

    fn params(&self) -> Result<CreateParams<'a>> {
        let size = round_up_sector(self.size).ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                format!(
                    "The image size is too large for file format '{}'",
                    self.driver.name
                ),
            )
        })?;
        Ok(CreateParams {
            size,
            asked_size: self.size,
            values: self.values,
            backing: self.backing,
        })
    }
}

/// The error of a backing format that belongs to no backing file.
pub(super) fn format_without_file(format: &str) -> Error {
    match formats::by_name(format) {
        Some(_) => Error::invalid("Backing format cannot be used without backing file"),
        None => unknown_backing_format(format),
    }
}

fn unknown_backing_format(format: &str) -> Error {
    Error::invalid(format!(
        "Parameter 'backing-fmt' does not accept value '{format}'"
    ))
}

/// Whether `create` of the format knows the option.
pub(super) fn takes(driver: &FormatDriver, option: &str) -> bool {
    driver.create_options.iter().any(|spec| spec.name == option)
}

/// A new image that is being filled. Dropped before [`Target::finish`] it removes the files that
/// it created; a file that was there before stays, empty.
#[derive(Debug)]
pub struct Target {
    // Before the files, so that nothing writes to them when they go.
    bulk: Box<dyn Bulk>,
    files: Vec<NewFile>,
    storage: Arc<dyn Storage>,
}

/// Creates (or empties) the target file and starts the image.
///
/// # Errors
/// Of the checks and the creation; the message does not name the target in front, callers add it.
pub fn target(request: &TargetRequest<'_>) -> Result<Target> {
    let protocol = creating_protocol(request.driver, request.location)?;
    request.plan()?;
    let create = request
        .driver
        .create
        .ok_or_else(|| cannot_create(protocol.name))?;
    let opener = TargetOpener {
        how: StorageCreate {
            cache: request.cache,
            ..StorageCreate::default()
        },
        values: request.values,
        policy: request.policy,
        storages: request.storages,
        files: Mutex::default(),
    };
    // As for an open image: of what a process has open as a raw disk, only metadata is in the way.
    let deny_writers = !matches!(request.driver.name, "raw" | "luks");
    let storage = opener.create(request.location, deny_writers)?;
    if request.driver.name != "raw" && storage.limits().fixed_len && storage.len()? == 0 {
        // What is written to such a device cannot be read again.
        return Err(Error::new(
            ErrorKind::NotAnImage,
            format!("Image is not in {} format", request.driver.name),
        ));
    }
    let bulk = create(CreateContext {
        storage: storage.clone(),
        params: request.params()?,
        secrets: request.secrets,
        opener: &opener,
        control: request.control,
    })?;
    lock_for_writing(&*storage, deny_writers)?;
    Ok(Target {
        bulk,
        files: opener.files.into_inner(),
        storage,
    })
}

impl Target {
    /// The writer.
    pub fn bulk(&self) -> &dyn Bulk {
        &*self.bulk
    }

    /// The image file.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Writes tables and header, makes them durable as asked, and keeps the files.
    ///
    /// # Errors
    /// Of I/O; the files are removed then.
    pub fn finish(self, durability: Durability) -> Result<()> {
        self.bulk.finish(durability)?;
        self.keep();
        Ok(())
    }

    /// Keeps the files as they are: for who has written everything without the writer.
    pub(in crate::ops) fn keep(mut self) {
        for file in &mut self.files {
            file.keep();
        }
    }
}

impl Target {
    /// As [`Target::finish`], and changes the new image before it is kept.
    ///
    /// # Errors
    /// Of I/O or of opening the image again, with `context` in front; of `change`. The files are
    /// removed then.
    pub fn finish_and(
        mut self,
        request: &TargetRequest<'_>,
        durability: Durability,
        context: impl Fn() -> String,
        change: impl FnOnce(&dyn Format) -> Result<()>,
    ) -> Result<()> {
        self.bulk.finish(durability).context(&context)?;
        let mut options = Options::new();
        for spec in request.driver.open_options {
            // What it was encrypted with opens it again.
            if let Some(id) = request.values.str(spec.name)
                && spec.name.ends_with("key-secret")
            {
                options.set(spec.name, id);
            }
        }
        let options = Values::check(&options, request.driver.open_options)?;
        let image = (request.driver.open)(OpenContext {
            storage: self.storage.clone(),
            read_only: false,
            metadata_only: false,
            probed: false,
            for_check: false,
            durability,
            options: &options,
            secrets: request.secrets,
            opener: &Reopener {
                data: self.bulk.storage(StorageSlot::DATA).ok(),
                policy: request.policy,
            },
            // There is nothing to say of what was made just now.
            warn: &|_| (),
            control: request.control,
        })
        .context(&context)?;
        change(&*image)?;
        image.close().context(&context)?;
        for file in &mut self.files {
            file.keep();
        }
        Ok(())
    }
}

/// Opens the files of an image that was just made: it has them.
struct Reopener<'a> {
    data: Option<&'a Arc<dyn Storage>>,
    policy: &'a OpenPolicy,
}

impl Opener for Reopener<'_> {
    fn open_named(
        &self,
        role: ImplicitRole,
        name: &str,
        _writable: bool,
    ) -> Result<Arc<dyn Storage>> {
        match (role, self.data) {
            (ImplicitRole::DataFile, Some(data)) => Ok(data.clone()),
            _ => Err(Error::new(
                ErrorKind::Internal,
                format!("A new image does not open '{name}'"),
            )),
        }
    }

    fn open_given(&self, _child: &str, _writable: bool) -> Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }

    fn create_named(&self, _role: ImplicitRole, name: &str) -> Result<Arc<dyn Storage>> {
        Err(Error::new(
            ErrorKind::Internal,
            format!("An image does not create '{name}'"),
        ))
    }

    fn policy(&self) -> &OpenPolicy {
        self.policy
    }
}

/// A file that a creation made or emptied; taken back when dropped, unless it is kept.
#[derive(Debug)]
struct NewFile(Option<Created>);

impl NewFile {
    fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let Some(created) = self.0.take() else {
            return;
        };
        // The error that ends the creation is the one to report; a second one adds nothing.
        let _ = if created.newly_created {
            created.undo().remove()
        } else {
            created.storage.set_len(0, Preallocation::Off)
        };
    }
}

/// Creates the files of a new image and remembers them.
struct TargetOpener<'a> {
    how: StorageCreate,
    values: &'a Values,
    policy: &'a OpenPolicy,
    storages: Option<&'a dyn NamedStorages>,
    files: Mutex<Vec<NewFile>>,
}

impl TargetOpener<'_> {
    fn create(&self, location: &Location, deny_writers: bool) -> Result<Arc<dyn Storage>> {
        let how = StorageCreate {
            deny_writers,
            ..self.how
        };
        let open = StorageOpen {
            writable: true,
            cache: how.cache,
            ..StorageOpen::default()
        };
        let given = self.storages.zip(location.path());
        let created = match given.and_then(|(all, path)| all.find(path, &open)) {
            Some(storage) => Created::emptied(storage?)?,
            None => protocols::create(location.node(), self.values, &how)?,
        };
        let storage = created.storage.clone();
        self.files.lock().push(NewFile(Some(created)));
        Ok(storage)
    }
}

impl Opener for TargetOpener<'_> {
    fn open_named(
        &self,
        _role: ImplicitRole,
        name: &str,
        _writable: bool,
    ) -> Result<Arc<dyn Storage>> {
        Err(Error::new(
            ErrorKind::Internal,
            format!("A new image does not open '{name}'"),
        ))
    }

    /// The name is the creator's own, so it is taken as typed: relative to the current directory.
    fn open_given(&self, _child: &str, _writable: bool) -> Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }

    fn create_named(&self, _role: ImplicitRole, name: &str) -> Result<Arc<dyn Storage>> {
        self.create(&Location::from_path(name), false)
    }

    fn policy(&self) -> &OpenPolicy {
        self.policy
    }
}
