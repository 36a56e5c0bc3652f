//! Opening: location, storage, format, chain.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bstr::{BString, ByteSlice};
use parking_lot::Mutex;

use crate::driver_names::unknown_driver;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::format::{Features, FormatDriver, OpenContext, probe, raw, registry};
use crate::image::adapter::ImageStorage;
use crate::image::align::UnitLock;
use crate::image::chain::{Start, open_chain};
use crate::image::host::{self, Opened};
use crate::image::opener::ImageOpener;
use crate::image::plan::{BackingPlan, Plan, Source};
use crate::image::status::Sparse;
use crate::image::trail::Trail;
use crate::image::{Backing, Image, OpenOptions, Settings, events, files, guard, lock, names};
use crate::location::Location;
use crate::location::tree::first_key;
use crate::options::Values;
use crate::storage::{Identity, Storage};

/// What stays the same while one layer and the files that it names are opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// How the layer is opened.
    pub(super) options: &'a OpenOptions,
    /// The layers above it and, once its file is open, itself.
    pub(super) trail: &'a Trail<'a>,
    /// Take no lock that excludes others.
    pub(super) force_share: bool,
    /// The name of the layer, or of the file, comes from an image.
    pub(super) named_by_image: bool,
}

impl Context<'_> {
    /// Whether a file is one of the layers.
    pub(super) fn holds(&self, id: Option<&Identity>) -> bool {
        self.trail.contains(id)
    }
}

impl Image {
    /// Opens the image at `location`.
    ///
    /// # Errors
    /// One line that begins with `Could not open '…'`.
    pub fn open(location: &Location, options: &OpenOptions) -> Result<Self> {
        Plan::new(location, options.format.as_deref())
            .and_then(|plan| open_chain(Start::new(location, plan), options, None))
            .and_then(|image| image.kept_from_writers(options))
            .context(|| format!("Could not open '{}'", location.display()))
    }

    /// Opens an image over a storage that the caller made: a descriptor, memory, callbacks. Names
    /// inside the image are relative to the storage's name.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_storage(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        let location = Location::from_path(OsStr::from_bytes(storage.name()));
        if options.writable && storage.read_only() {
            let error = Error::new(ErrorKind::ReadOnly, "Block node is read-only");
            return Err(error.context(format!("Could not open '{}'", location.display())));
        }
        Plan::new(&location, options.format.as_deref())
            .and_then(|plan| {
                let mut start = Start::new(&location, plan);
                start.opened = Some(Opened::given(storage));
                open_chain(start, options, None)
            })
            .and_then(|image| image.kept_from_writers(options))
            .context(|| format!("Could not open '{}'", location.display()))
    }
}

/// Opens one layer; those below it stay closed. Errors do not name the location.
pub(super) fn open_layer(
    start: Start,
    options: &OpenOptions,
    trail: &mut Trail<'_>,
) -> Result<Image> {
    check_access(&start.plan, options)?;
    options.control.checkpoint()?;
    let mut start = start;
    let opened = match start.opened.take() {
        Some(opened) => opened,
        None => {
            let context = Context {
                options,
                trail,
                force_share: options.force_share || start.plan.common.force_share,
                named_by_image: start.named_by_image,
            };
            open_source(&start.plan.source, options.writable, &context)?
        }
    };
    open_over(&start, opened, options, trail)
}

fn check_access(plan: &Plan, options: &OpenOptions) -> Result<()> {
    if !options.writable {
        return Ok(());
    }
    let file_read_only = match &plan.source {
        Source::Host(host) | Source::Bare(host) => host.common.read_only,
        Source::Node(_) => false,
    };
    if plan.common.read_only || file_read_only {
        return Err(Error::new(ErrorKind::ReadOnly, "Block node is read-only"));
    }
    if options.force_share || plan.common.force_share {
        return Err(Error::invalid(
            "force-share=on can only be used with read-only images",
        ));
    }
    Ok(())
}

/// Opens the file below a format.
pub(super) fn open_source(
    source: &Source,
    writable: bool,
    context: &Context<'_>,
) -> Result<Opened> {
    match source {
        Source::Host(host) | Source::Bare(host) => {
            host::open(host, writable, context.named_by_image, context.options)
        }
        Source::Node(plan) => {
            let options = OpenOptions {
                format: None,
                writable,
                deny_writers: false,
                for_check: false,
                metadata_only: false,
                force_share: context.force_share,
                ..context.options.clone()
            };
            // Its name is only known once it is open.
            let mut start = Start::new(&Location::from_path(""), (**plan).clone());
            start.named_by_image = context.named_by_image;
            let image = open_chain(start, &options, Some(context.trail))?;
            let (base, tree) = (image.base.clone(), image.tree.clone());
            let node = Arc::new(ImageStorage::new(image));
            Ok(Opened {
                base,
                plain: None,
                tree,
                locked: true,
                storage: node.clone(),
                node: Some(node),
            })
        }
    }
}

/// Opens the format over an open file.
fn open_over(
    start: &Start,
    opened: Opened,
    options: &OpenOptions,
    trail: &mut Trail<'_>,
) -> Result<Image> {
    let (location, plan) = (&start.location, &start.plan);
    let storage = &opened.storage;
    let name = BString::from(opened.base.as_bytes());
    trail.step(storage.identity(), name.as_bstr(), &options.policy)?;
    let context = Context {
        options,
        trail,
        force_share: options.force_share || plan.common.force_share,
        named_by_image: start.named_by_image,
    };
    let bare = matches!(plan.source, Source::Bare(_));
    let (driver, probed) = choose_driver(plan, &**storage, options, bare)?;
    options.policy.check_format(driver.name)?;
    if !opened.locked {
        let request = lock::of_image(lock::Use {
            has_metadata: !matches!(driver.name, "raw" | "luks"),
            writable: options.writable,
            metadata_only: options.metadata_only,
            deny_writers: false,
            force_share: context.force_share,
        });
        events::LOCK.emit(|| {
            let (uses, denies) = (request.uses.bits(), request.denies.bits());
            format!("file={name:?} uses={uses:#x} denies={denies:#x}")
        });
        storage.lock(request)?;
    }
    let values = check_options(driver, plan)?;
    if matches!(plan.backing, BackingPlan::Tree(_)) && !driver.features.contains(Features::BACKING)
    {
        return Err(Error::unsupported("Driver doesn't support backing files"));
    }
    let cache = plan.common.cache(options.cache);
    let opener = ImageOpener {
        context,
        named_by: name.as_bstr(),
        base: &opened.base,
        data_file: plan.data_file.as_ref(),
        data_file_used: AtomicBool::new(false),
        header: plan.header.as_ref(),
        header_file: Mutex::default(),
    };
    let warnings = RefCell::new(Vec::new());
    let format = (driver.open)(OpenContext {
        storage: storage.clone(),
        read_only: !options.writable,
        metadata_only: options.metadata_only,
        probed,
        for_check: options.for_check,
        durability: cache.durability(),
        options: &values,
        secrets: &options.secrets,
        opener: &opener,
        warn: &|text| warnings.borrow_mut().push(text),
        control: &options.control,
    })?;
    let data_file_used = opener.data_file_used.into_inner();
    let header_file = opener.header_file.into_inner();
    let mut image = Image {
        location: location.clone(),
        filename: BString::default(),
        base: opened.base,
        tree: opened.tree,
        format_name: if bare { storage.driver() } else { driver.name },
        driver,
        format,
        current: None,
        storage: opened.storage,
        header_file,
        closed_files: Vec::new(),
        node: opened.node,
        backing: Backing::None,
        below: plan.backing.clone(),
        named_by_image: start.named_by_image,
        warnings: warnings.into_inner(),
        writable: options.writable,
        settings: Settings {
            cache,
            ignore_discard: plan.common.ignore_discard,
            detect_zeroes: plan.common.detect_zeroes,
            max_len: options.policy.max_virtual_size,
            force_share: context.force_share,
        },
        units: UnitLock::default(),
        sparse: Sparse::default(),
        closed: false,
    };
    names::set(&mut image, plan, opened.plain, bare);
    image.closed_files = files::closed_files(&image, plan.data_file.as_ref(), options);
    events::OPEN.emit(|| {
        format!(
            "file={:?} format={} writable={} size={}",
            image.filename,
            image.format_name,
            options.writable,
            image.len()
        )
    });
    if plan.data_file.is_some() && !data_file_used && !options.metadata_only {
        return Err(Error::invalid(
            "'data-file' can only be set for images with an external data file",
        ));
    }
    options.policy.check_virtual_size(image.len())?;
    if probed && driver.name == raw::DRIVER.name && options.writable {
        let name = location.display();
        image.warnings.push(guard::probed_raw_warning(&name));
    }
    Ok(image)
}

/// The format's driver, and whether it was guessed.
fn choose_driver(
    plan: &Plan,
    storage: &dyn Storage,
    options: &OpenOptions,
    bare: bool,
) -> Result<(&'static FormatDriver, bool)> {
    if bare {
        return Ok((&raw::DRIVER, false));
    }
    if let Some(name) = &plan.format {
        let driver = registry::by_name(name).ok_or_else(|| unknown_driver(name))?;
        return Ok((driver, false));
    }
    if !options.policy.allows_probing(options.writable) {
        return Err(Error::new(
            ErrorKind::Denied,
            "The open policy does not allow the format to be guessed; name the format",
        ));
    }
    probe::probe(storage).map(|driver| (driver, true))
}

fn check_options(driver: &FormatDriver, plan: &Plan) -> Result<Values> {
    let known = |key: &str| driver.open_options.iter().any(|spec| spec.name == key);
    let unknown = plan.options.iter().find(|(key, _)| !known(key));
    let unknown = unknown.map(|(key, _)| key.to_owned());
    let children = [
        ("data-file", "data_file", &plan.data_file),
        ("header", "detached-header", &plan.header),
    ];
    let unknown = unknown.or_else(|| {
        children.into_iter().find_map(|(child, option, tree)| {
            let mut specs = driver.create_options.iter();
            let tree = tree.as_ref()?;
            if specs.any(|spec| spec.name == option) {
                return None;
            }
            Some(match first_key(tree) {
                Some(key) => format!("{child}.{key}"),
                None => child.to_owned(),
            })
        })
    });
    if let Some(key) = unknown {
        return Err(Error::invalid(format!(
            "Block format '{}' does not support the option '{key}'",
            driver.name
        )));
    }
    Values::check(&plan.options, driver.open_options)
}
