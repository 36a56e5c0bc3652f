//! Opens the file and inspects it according to its format.

use std::sync::Arc;

use super::InspectReport;
use super::judge::{Judged, judge};
use super::signatures::{self, Signature};
use crate::driver_names::{canonical, unknown_driver};
use crate::error::{Result, ResultExt};
use crate::format::{
    FormatDriver, InspectContext, Inspection, Objection, PackageContext, Profile, probe, registry,
};
use crate::image::{OpenOptions, lock_for_inspection, open_file};
use crate::location::Location;
use crate::policy::OpenPolicy;
use crate::storage::{BoundedStorage, Storage};

/// Data read in addition to the tables: headers, snapshot table, signatures.
const READ_BESIDE_TABLES: u64 = 16 << 20;

/// Inspects the file at `location`. Of `options`, only the format, the cache mode, `force_share` and the limits of the
/// policy are used; nothing that the file names is opened, whatever the policy allows.
///
/// # Errors
/// If opening or reading the file fails; an unknown format that was requested.
pub fn inspect(location: &Location, options: &OpenOptions) -> Result<InspectReport> {
    inspect_at(location, options, None)
}

/// As [`inspect`], and also whether a product would accept the file. If it takes packages, the image is the first one
/// in the file, which is read as a whole.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_for(
    location: &Location,
    options: &OpenOptions,
    profile: &'static Profile,
) -> Result<InspectReport> {
    inspect_at(location, options, Some(profile))
}

fn inspect_at(
    location: &Location,
    options: &OpenOptions,
    profile: Option<&'static Profile>,
) -> Result<InspectReport> {
    let (storage, format) = open_file(location, options)?;
    inspect_open(storage, format.as_deref(), options, profile)
        .context(|| format!("Could not inspect '{}'", location.display()))
}

/// As [`inspect`], for a storage that the caller created.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_storage(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<InspectReport> {
    let name = storage.name().to_owned();
    inspect_open(storage, options.format.as_deref(), options, None)
        .context(|| format!("Could not inspect '{name}'"))
}

fn inspect_open(
    storage: Arc<dyn Storage>,
    named: Option<&str>,
    options: &OpenOptions,
    profile: Option<&'static Profile>,
) -> Result<InspectReport> {
    let policy = &options.policy;
    let filename = storage.name().to_owned();
    let file_len = storage.len()?;
    let view = bounded(&storage, policy);
    let found = signatures::find(&*view, file_len)?;
    let format = match (named, profile) {
        (Some(name), _) => known(name)?,
        // What the product accepts as its format may not begin like it.
        (None, Some(profile)) => profile.driver.name.to_owned(),
        (None, None) => guessed(&found),
    };
    let named = named.or(profile.map(|profile| profile.driver.name));
    let driver = registry::by_name(&format);
    let has_metadata = driver.is_none_or(|driver| driver.has_metadata);
    lock_for_inspection(&*storage, has_metadata, options)?;
    // What was seen before the lock was taken may have changed since.
    let file_len = storage.len()?;
    let whole = PackageContext {
        storage: &storage,
        bounded: &|image| bounded(&image, policy),
        policy,
        control: &options.control,
    };
    let package = profile.and_then(|profile| profile.package);
    let inside = match package {
        Some(package) => (package.first_image)(&whole)?,
        None => None,
    };
    let view = bounded(inside.as_ref().unwrap_or(&storage), policy);
    let context = InspectContext {
        file_len: view.len()?,
        storage: view,
        policy,
    };
    let found = signatures::find(&*context.storage, context.file_len)?;
    let inspection = match driver {
        Some(driver) => (driver.inspect)(&context)?,
        // Every requirement is then undecided.
        None => Inspection::default(),
    };
    let profile = match profile {
        None => None,
        Some(profile) => {
            let mut found = Vec::new();
            if let Some(package) = package {
                (package.check)(&whole, &mut found)?;
            }
            if package.is_none() || inside.is_some() {
                found.extend(objections(profile, driver, &context, &inspection)?);
            }
            Some((profile, found))
        }
    };
    let requirements = judge(&Judged {
        format: &format,
        named: named.is_some(),
        driver,
        signatures: &found,
        inspection: &inspection,
        policy,
    });
    Ok(InspectReport {
        filename,
        format,
        format_named: named.is_some(),
        file_size: file_len,
        virtual_size: inspection.virtual_size,
        cluster_size: inspection.cluster_size,
        encrypted: inspection.encrypted,
        snapshots: inspection.snapshots,
        signatures: found.iter().map(|signature| signature.name).collect(),
        references: inspection.references,
        profile,
        requirements,
    })
}

fn bounded(storage: &Arc<dyn Storage>, policy: &OpenPolicy) -> Arc<dyn Storage> {
    // L1 and refcount table, snapshot table and bitmap directory.
    let tables = policy.max_table_bytes.saturating_mul(3);
    let bytes = tables.saturating_add(READ_BESIDE_TABLES);
    Arc::new(BoundedStorage::new(storage.clone(), bytes))
}

/// A format by its name: one with a driver in this build, or one that is only recognised.
fn known(name: &str) -> Result<String> {
    if registry::by_name(name).is_some() || probe::is_recognised(canonical(name)) {
        Ok(canonical(name).to_owned())
    } else {
        Err(unknown_driver(name))
    }
}

/// The format that opening would guess.
fn guessed(signatures: &[Signature]) -> String {
    let first = signatures
        .iter()
        .find(|signature| signature.image && signature.at_start);
    first
        .map_or(registry::plain().name, |signature| signature.name)
        .to_owned()
}

fn objections(
    profile: &Profile,
    driver: Option<&FormatDriver>,
    context: &InspectContext<'_>,
    inspection: &Inspection,
) -> Result<Vec<Objection>> {
    let wanted = profile.driver.name;
    if driver.is_none_or(|driver| driver.name != wanted) || inspection.virtual_size.is_none() {
        return Ok(vec![Objection::new(
            format!("The file is no image in the format '{wanted}'"),
            format!("Convert it with the profile '{}'", profile.name),
        )]);
    }
    profile.objections(context, inspection)
}
