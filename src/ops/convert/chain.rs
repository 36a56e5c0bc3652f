//! A whole chain, layer by layer, into images of another format in a new directory.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{BackingRef, Features};
use crate::image::Image;
use crate::job::Job;
use crate::location::Location;
use crate::ops::forecast;
use crate::policy::{ImplicitFiles, OpenPolicy};
use crate::storage::Durability;
use crate::storage::file::sync_name;

use super::bitmaps;
use super::conflict::no_source;
use super::container;
use super::open_source;
use super::open_target::creatable;
use super::report::ConvertReport;
use super::request::ConvertRequest;
use super::sources::Sources;

/// Maximum length of a name's extension that is taken for that of a format.
const MAX_ENDING: usize = 6;

/// Converts every layer of the source, starting with the lowest. What was created is removed on failure.
pub(super) fn convert(request: &ConvertRequest, job: &mut Job) -> Result<ConvertReport> {
    let source = request.source.images.first();
    let source = source.ok_or_else(no_source)?;
    let top = open_source(source, request, job)?.into_shared();
    let container = container::checksum(request, top.layers(), job.control())?;
    let mut layers: Vec<Arc<Image>> =
        std::iter::successors(Some(top), |layer| layer.backing().cloned()).collect();
    layers.reverse();
    let format = request.target.format.as_deref();
    let format = format.ok_or_else(|| Error::invalid("A new target needs a format"))?;
    let driver = creatable(request, format)?.driver;
    if layers.len() > 1 && !driver.can(Features::BACKING) {
        return Err(Error::unsupported(format!(
            "Backing file not supported for file format '{}'",
            driver.name
        )));
    }
    let directory = Directory::create(&request.target.location)?;
    let shares: Vec<u64> = layers
        .iter()
        .map(|layer| forecast::held_by(std::iter::once(&**layer)).clamp(1, layer.len().max(1)))
        .collect();
    let whole = shares
        .iter()
        .fold(0, |sum: u64, share| sum.saturating_add(*share));
    let mut before: u64 = 0;
    let mut below = None;
    let mut total = ConvertReport::default();
    let names = names(&layers, format);
    for ((layer, name), share) in layers.into_iter().zip(names).zip(shares) {
        job.control().begin_part(before, share, whole);
        before = before.saturating_add(share);
        let of_layer = of_layer(request, &layer, &directory.path, &name, below.take());
        let report = convert_layer(&of_layer, layer, job)?;
        total.add(&report);
        below = Some(BackingRef {
            name: BString::from(name.into_vec()),
            format: Some(format.into()),
        });
    }
    directory.keep(request.target.cache.durability())?;
    total.container_checksum = container.map(|container| container.sum());
    Ok(total)
}

fn convert_layer(
    request: &ConvertRequest,
    layer: Arc<Image>,
    job: &mut Job,
) -> Result<ConvertReport> {
    let bitmaps = bitmaps::choose(request, Some(&layer))?;
    let sources = Sources::new(vec![layer], &request.source.window, request.source.salvage)?;
    super::fill(request, sources, bitmaps, job)
}

/// The conversion of one layer, on top of the image converted from the layer below.
fn of_layer(
    request: &ConvertRequest,
    layer: &Image,
    directory: &Path,
    name: &OsStr,
    below: Option<BackingRef>,
) -> ConvertRequest {
    let mut request = request.clone();
    request.source.bitmaps &= layer.bitmaps().is_some();
    request.source.skip_broken_bitmaps &= request.source.bitmaps;
    let target = &mut request.target;
    target.whole_chain = false;
    target.location = Location::from_path(directory.join(name));
    target.policy = within(&target.policy, directory);
    if let Some(below) = below {
        target.backing_format = below.format.map(|format| format.to_string());
        target.backing_file = Some(below.name);
    }
    request
}

/// A policy that also lets images name those that were just created.
fn within(policy: &OpenPolicy, directory: &Path) -> OpenPolicy {
    let directory = directory.to_owned();
    let implicit_files = match &policy.implicit_files {
        ImplicitFiles::Allow => ImplicitFiles::Allow,
        ImplicitFiles::Below(others) => {
            let others = others.iter().cloned();
            ImplicitFiles::Below(others.chain([directory]).collect())
        }
        ImplicitFiles::Deny | ImplicitFiles::Ask(_) => ImplicitFiles::Below(vec![directory]),
    };
    OpenPolicy {
        implicit_files,
        ..policy.clone()
    }
}

/// The names of the new images: those of the layers, with the format as extension.
fn names(layers: &[Arc<Image>], format: &str) -> Vec<OsString> {
    let mut taken = HashSet::new();
    let names = layers.iter().map(|layer| {
        let name = Path::new(layer.base_name()).file_name();
        let name = name.unwrap_or(OsStr::new("layer"));
        let short = with_ending(without_ending(name), format);
        let long = with_ending(name, format);
        let numbered = (2u32..).map(|n| {
            let mut name = without_ending(name).to_owned();
            name.push(format!("-{n}"));
            with_ending(&name, format)
        });
        let mut candidates = [short, long].into_iter().chain(numbered);
        // One of them is free: there are more numbers than layers.
        let free = candidates.find(|name| taken.insert(name.clone()));
        free.unwrap_or_default()
    });
    names.collect()
}

fn with_ending(name: &OsStr, ending: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(".");
    name.push(ending);
    name
}

/// The name without an extension that might be that of a format; a number is not.
fn without_ending(name: &OsStr) -> &OsStr {
    let bytes = name.as_bytes();
    let Some(dot) = bytes.iter().rposition(|byte| *byte == b'.') else {
        return name;
    };
    let (stem, ending) = (&bytes[..dot], &bytes[dot + 1..]);
    let fits = (1..=MAX_ENDING).contains(&ending.len())
        && ending.iter().all(u8::is_ascii_alphanumeric)
        && ending.iter().any(u8::is_ascii_alphabetic);
    match fits && !stem.is_empty() {
        true => OsStr::from_bytes(stem),
        false => name,
    }
}

/// A directory created here; unless it is kept, it is removed with everything in it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    kept: bool,
}

impl Directory {
    fn create(location: &Location) -> Result<Self> {
        let shown = location.display().into_owned();
        let Some(path) = location.path() else {
            return Err(Error::invalid(format!(
                "'{shown}': a chain becomes files in a directory, and this is no path"
            )));
        };
        std::fs::create_dir(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::new(
                ErrorKind::Exists,
                format!("'{shown}' exists; a chain becomes images in a new directory"),
            ),
            _ => Error::io(&error).context(format!("Could not create the directory '{shown}'")),
        })?;
        Ok(Self {
            path: path.to_owned(),
            kept: false,
        })
    }

    /// Keeps it, and makes its name as durable as requested.
    fn keep(mut self, durability: Durability) -> Result<()> {
        if durability == Durability::Synced {
            sync_name(&self.path)
                .map_err(|error| Error::io(&error).context(format!("'{}'", self.path.display())))?;
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // The failure that led here is the one to report.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_endings_of_formats_are_replaced() {
        for (name, stem) in [
            ("disk.vhdx", "disk"),
            ("disk.2024", "disk.2024"),
            ("a.b.qcow2", "a.b"),
            (".hidden", ".hidden"),
            ("disk", "disk"),
            ("disk.", "disk."),
            ("disk.{5fbaabe3}", "disk.{5fbaabe3}"),
            ("disk.snapshot1", "disk.snapshot1"),
        ] {
            assert_eq!(without_ending(OsStr::new(name)), stem, "{name}");
        }
    }
}
