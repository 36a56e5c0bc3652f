//! Opens one layer: its file, its format, and the files beside its own.

use std::cell::RefCell;
use std::os::unix::ffi::OsStrExt;

use bstr::{BString, ByteSlice};

use super::ancestors::Ancestors;
use super::more_files::MoreFiles;
use super::node::{NODE, checked_options, unknown_option};
use super::opener::LayerOpener;
use super::start::{Builder, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ChildSpec, FileRole, Format, FormatDriver, OpenContext, probe, registry};
use crate::image::changes::Changes;
use crate::image::detect_zeroes::check_unmapping;
use crate::image::node::{Child, Node};
use crate::image::node_plan::{ChildPlan, Driver, NodePlan, no_such_node};
use crate::image::status::Sparse;
use crate::image::unit_lock::UnitLock;
use crate::image::{
    Backing, Image, OpenOptions, Settings, directory, events, files, lock, names, write,
};
use crate::memory;
use crate::newest::Newest;
use crate::storage::Storage;

/// Opens one layer, but not those below it. Errors do not name the location.
pub(super) fn open(
    start: Start,
    options: &OpenOptions,
    ancestors: &mut Ancestors<'_>,
) -> Result<Image> {
    memory::headroom(NODE)?;
    let mut start = start;
    check_access(&start.plan, options)?;
    options.control.checkpoint()?;
    let file = match start.file.take() {
        Some(file) => file,
        None => {
            let builder = Builder {
                options,
                ancestors,
                force_share: options.force_share || start.plan.common.force_share,
                named_by_image: start.named_by_image,
                nested: ancestors.nested(),
                metadata_only: options.metadata_only && stands_alone(&start.plan),
                deny_writers: false,
            };
            open_file(&start.plan, &builder)?
        }
    };
    open_over(start, file, options, ancestors)
}

fn check_access(plan: &NodePlan, options: &OpenOptions) -> Result<()> {
    if !options.writable {
        return Ok(());
    }
    plan.common.check_writable()?;
    if options.force_share || plan.common.force_share {
        return Err(Error::invalid(
            "force-share=on can only be used with read-only images",
        ));
    }
    Ok(())
}

/// Opens the file below a format; for a node without a format, the node.
fn open_file(plan: &NodePlan, builder: &Builder<'_>) -> Result<Node> {
    let writable = builder.options.writable;
    if stands_alone(plan) {
        return builder.node(plan, writable);
    }
    let child = plan.child(ChildSpec::FILE.name);
    let file = child.map(ChildPlan::file).transpose()?.flatten();
    let file = file.ok_or_else(|| Error::new(ErrorKind::Internal, "A format has a file"))?;
    let file = match builder.named_by_image {
        true => file,
        // For a name in an image, use exactly what the policy was asked about.
        false => directory::entered(file, &plan.driver),
    };
    builder.node(&file, writable)
}

/// Whether the node is an image by itself: a protocol or filter in place of a format.
fn stands_alone(plan: &NodePlan) -> bool {
    matches!(plan.driver, Driver::Host(_) | Driver::Filter(_))
}

/// Opens the format over an open file.
fn open_over(
    start: Start,
    file: Node,
    options: &OpenOptions,
    ancestors: &mut Ancestors<'_>,
) -> Result<Image> {
    let Start {
        location, mut plan, ..
    } = start;
    let storage = file.storage.clone();
    let name = BString::from(file.base.as_bytes());
    ancestors.step(file.identity(), name.as_bstr(), &options.policy)?;
    let force_share = options.force_share || plan.common.force_share;
    let bare = stands_alone(&plan);
    let node_name = match bare {
        // The node has taken the name.
        true => file.name.clone(),
        false => ancestors.nodes().take(plan.common.node_name.as_deref())?,
    };
    let (driver, probed, misnamed) = choose_driver(&plan, &*storage, options)?;
    if file.shown().is_none() || !bare {
        options.policy.check_format(driver.name)?;
    }
    if driver.has_metadata {
        file.check_metadata()?;
    }
    if !file.is_locked() {
        let request = lock::of_image(lock::Use {
            has_metadata: driver.has_metadata,
            writable: options.writable,
            metadata_only: options.metadata_only,
            deny_writers: file.keeps_writers_out(),
            force_share,
        });
        events::LOCK.emit(|| {
            let (uses, denies) = (request.uses.bits(), request.denies.bits());
            format!("file={name:?} uses={uses:#x} denies={denies:#x}")
        });
        storage.lock(request)?;
    }
    let discard = options.discard.or(plan.common.discard);
    let ignore_discard = discard == Some(false);
    let detect_zeroes = options.detect_zeroes.unwrap_or(plan.common.detect_zeroes);
    let is_unsaid = discard.is_none() && options.detect_zeroes.is_none() && !options.may_unmap;
    check_unmapping(detect_zeroes, !ignore_discard && !is_unsaid)?;
    let values = if bare {
        // They were applied to the node.
        Default::default()
    } else {
        plan.take_children(driver.children)?;
        check_backing(&plan, driver, options)?;
        checked_options(
            &format!("Block format '{}' does not", driver.name),
            driver.open_options,
            &plan,
        )?
    };
    let cache = plan.common.cache(options.cache);
    let base = file.base.clone();
    let opener = LayerOpener::new(
        Builder {
            options,
            ancestors,
            force_share,
            named_by_image: start.named_by_image,
            nested: ancestors.nested(),
            metadata_only: false,
            deny_writers: false,
        },
        driver,
        &plan,
        Child {
            name: ChildSpec::FILE.name.to_owned(),
            role: FileRole::Image,
            node: file,
        },
    );
    let warnings = RefCell::new(Vec::new());
    let format = (driver.open)(OpenContext {
        storage: storage.clone(),
        read_only: !options.writable,
        metadata_only: options.metadata_only,
        probed: probed.then_some(probe::recognise),
        for_check: options.for_check,
        durability: cache.durability(),
        compression_level: options.compression_level,
        options: &values,
        objects: &options.objects,
        opener: &opener,
        warn: &|text| warnings.borrow_mut().push(text),
        control: &options.control,
    })?;
    opener.check_described()?;
    check_parent(&plan, driver, &*format)?;
    if options.writable {
        write::check_writer(&*format)?;
    }
    let pieces = options.writable && driver.children.contains(&ChildSpec::EXTENTS);
    let more_files = pieces.then(|| {
        Box::new(MoreFiles {
            base: base.clone(),
            options: options.clone(),
            force_share,
        })
    });
    let children = opener.into_children();
    let nodes = children.iter().map(Child::node);
    let mut all_warnings: Vec<_> = nodes.flat_map(Node::warnings).collect();
    all_warnings.append(&mut warnings.into_inner());
    all_warnings.extend(plan.warnings.iter().map(|text| (*text).to_owned()));
    all_warnings.extend(misnamed.map(|format| {
        format!(
            "'{name}' is named like a {format} image but does not end like one, and is taken for a plain disk"
        )
    }));
    let mut image = Image {
        filename: BString::default(),
        base,
        tree: Default::default(),
        format_name: if bare { storage.driver() } else { driver.name },
        driver,
        format,
        current: None,
        storage,
        children: Newest::new(children),
        more_files,
        closed_files: Vec::new(),
        backing: Backing::None,
        below: plan.child(ChildSpec::BACKING.name).cloned(),
        named_by_image: start.named_by_image,
        node_name,
        warnings: all_warnings,
        writable: options.writable,
        settings: Settings {
            cache,
            ignore_discard,
            detect_zeroes,
            max_len: options.policy.max_virtual_size,
            force_share,
            deny_writers: options.deny_writers,
            for_check: options.for_check,
        },
        units: UnitLock::default(),
        changes: Changes::default(),
        sparse: Sparse::default(),
        closed: Default::default(),
        location,
    };
    names::set(&mut image, &plan, bare);
    image.closed_files = files::closed_files(&image, &plan, options);
    events::OPEN.emit(|| {
        format!(
            "file={:?} format={} writable={} size={}",
            image.filename,
            image.format_name,
            options.writable,
            image.len()
        )
    });
    options.policy.check_virtual_size(image.len())?;
    if probed && driver.is_transparent && options.writable {
        // The name of an image within a node is only known now.
        let name = match image.location.text().is_empty() {
            true => image.filename.to_string().into(),
            false => image.location.display(),
        };
        let warning = probed_raw_warning(&name);
        image.warnings.push(warning);
    }
    Ok(image)
}

/// The driver of the format, whether it was probed, and the other format that the name suggests.
fn choose_driver(
    plan: &NodePlan,
    storage: &dyn Storage,
    options: &OpenOptions,
) -> Result<(&'static FormatDriver, bool, Option<&'static str>)> {
    match plan.driver {
        Driver::Host(_) | Driver::Filter(_) => Ok((registry::plain(), false, None)),
        Driver::Format(driver) => Ok((driver, false, None)),
        Driver::Open(ref name) => Err(no_such_node(name.as_bstr())),
        Driver::Probed => {
            options.policy.check_probing(options.writable)?;
            let footers = options.policy.probe_footers;
            let guess = probe::probe(storage, footers)?;
            let driver = guess.driver;
            let ends_count = footers || guess.misnamed.is_some();
            if driver.is_transparent && ends_count && options.writable {
                // By writing to its end, a guest could make it look like an image at the next probe.
                return Err(Error::new(
                    ErrorKind::Denied,
                    "What looks like a plain disk is not opened for writing where the end of a file tells \
                     its format; name the format",
                ));
            }
            Ok((driver, true, guess.misnamed))
        }
    }
}

/// Refuses options for a backing file that the format cannot have, or that is not opened.
fn check_backing(plan: &NodePlan, driver: &FormatDriver, options: &OpenOptions) -> Result<()> {
    let name = ChildSpec::BACKING.name;
    if !options.backing {
        let said = plan.child(name).and_then(|child| child.first_option(name));
        return said.map_or(Ok(()), |option| Err(unknown_option(driver, &option)));
    }
    let described = plan.given.get(name).is_some_and(|value| value.is_object());
    if described && !driver.children.iter().any(|spec| spec.name == name) {
        return Err(no_backing());
    }
    Ok(())
}

/// Refuses a backing file for an image that has none, although others of its format do.
fn check_parent(plan: &NodePlan, driver: &FormatDriver, format: &dyn Format) -> Result<()> {
    let mut specs = driver.children.iter();
    let of_image = specs.any(|spec| *spec == ChildSpec::PARENT);
    let described = matches!(
        plan.child(ChildSpec::PARENT.name),
        Some(ChildPlan::Tree(_) | ChildPlan::Node(_))
    );
    match of_image && described && format.parent().is_none() {
        true => Err(no_backing()),
        false => Ok(()),
    }
}

fn no_backing() -> Error {
    Error::unsupported("Driver doesn't support backing files")
}

/// The warning for the user of a writable image that was probed as raw; three lines.
fn probed_raw_warning(name: &str) -> String {
    format!(
        "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n\
         \x20        Automatically detecting the format is dangerous for raw images, write operations \
         on block 0 will be restricted.\n\
         \x20        Specify the 'raw' format explicitly to remove the restrictions."
    )
}
