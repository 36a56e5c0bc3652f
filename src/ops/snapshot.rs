//! `snapshot`: the internal snapshots of an image.

use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageSlot;
use crate::format::{Features, NewSnapshot, SnapshotInfo, Snapshots};
use crate::image::Image;
use crate::job::Job;
use crate::ops::render::{human, json};
use crate::options::Options;
use crate::storage::StorageReport;

/// The internal snapshots of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// In the order of the image's table.
    pub snapshots: Vec<SnapshotInfo>,
}

impl SnapshotReport {
    /// The table that `qemu-img snapshot -l` prints; empty if there is no snapshot.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<BString> {
        human::text(|out| self.write_text(out))
    }

    /// Writes [`SnapshotReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        human::write_snapshots(out, "", &self.snapshots)
    }

    /// The list as it appears in `info --output=json`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`SnapshotReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        super::info::write_snapshots(out, &self.snapshots, 0)
    }
}

/// Lists the snapshots; none for a format without them.
///
/// # Errors
/// If reading them fails.
pub fn list(image: &Image) -> Result<SnapshotReport> {
    let snapshots = listed(image.shown()).map_err(|error| {
        error.context_if_bare(|| format!("Could not list the snapshots of '{}'", image.filename()))
    })?;
    Ok(SnapshotReport { snapshots })
}

fn listed(image: &Image) -> Result<Vec<SnapshotInfo>> {
    let mut snapshots = image.info()?.snapshots;
    if image.driver().is_transparent {
        // Snapshots in the storage show through.
        let report = image.format().storage(StorageSlot::MAIN)?.report();
        let details = report.map(StorageReport::details).transpose()?;
        let kept = details.and_then(|details| details.image);
        let kept = kept.unwrap_or_default().snapshots.into_iter();
        snapshots.extend(kept.map(SnapshotInfo::of_storage));
    }
    Ok(snapshots)
}

/// Records the current contents under `name`, which may be empty or already in use. Returns the new ID.
///
/// # Errors
/// `Could not create snapshot '…'`: [`crate::ErrorKind::Unsupported`] if the format has no snapshots, or an error of
/// the format.
pub fn create(image: &Image, name: impl AsRef<[u8]>, job: &mut Job) -> Result<BString> {
    let name = BStr::new(&name);
    job.tick()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let snapshot = NewSnapshot {
        name: name.to_owned(),
        date_sec: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
        date_nsec: now.subsec_nanos(),
    };
    let created = match image.shown().format().snapshots() {
        Some(snapshots) => image
            .shown()
            .begin_change()
            .and_then(|_under_way| snapshots.create(&snapshot, job.control())),
        None => Err(Error::unsupported("Operation not supported").with_errno(libc::ENOTSUP)),
    };
    let id =
        created.map_err(|error| error.context(format!("Could not create snapshot '{name}'")))?;
    job.finish()?;
    Ok(id)
}

/// Reverts the contents to the snapshot with that ID, or otherwise with that name.
///
/// # Errors
/// `Could not apply snapshot '…'`: [`crate::ErrorKind::NotFound`], or an error of the format.
pub fn apply(image: &Image, wanted: impl AsRef<[u8]>, job: &mut Job) -> Result<()> {
    let wanted = BStr::new(&wanted);
    job.tick()?;
    let context = |error: Error| error.context(format!("Could not apply snapshot '{wanted}'"));
    let snapshots = supported(image).map_err(context)?;
    if !super::bitmap::list(image.shown())
        .map_err(context)?
        .bitmaps
        .is_empty()
    {
        return Err(context(
            Error::unsupported("Device has active dirty bitmaps").with_errno(libc::ENOTSUP),
        ));
    }
    let known = list(image).map_err(context)?.snapshots;
    let found = by_id(&known, wanted).or_else(|| by_name(&known, wanted));
    let applied = match found {
        Some(found) => image
            .shown()
            .begin_change()
            .and_then(|_under_way| snapshots.apply(found.id.as_bstr(), job.control())),
        None => Err(Error::os(libc::ENOENT).with_kind(ErrorKind::NotFound)),
    };
    applied.map_err(|error| context(error.context("Failed to load snapshot")))?;
    job.finish()
}

/// Deletes the first snapshot with that name.
///
/// # Errors
/// `Could not delete snapshot '…'`: [`crate::ErrorKind::NotFound`], or an error of the format.
pub fn delete(image: &Image, name: impl AsRef<[u8]>, job: &mut Job) -> Result<()> {
    let name = BStr::new(&name);
    job.tick()?;
    let context = |error: Error| error.context(format!("Could not delete snapshot '{name}'"));
    let known = list(image).map_err(context)?.snapshots;
    let Some(found) = by_name(&known, name) else {
        return Err(context(Error::new(
            ErrorKind::NotFound,
            "snapshot not found",
        )));
    };
    supported(image)
        .and_then(|snapshots| {
            let _under_way = image.shown().begin_change()?;
            snapshots.delete(found.id.as_bstr(), job.control())
        })
        .map_err(context)?;
    job.finish()
}

/// Shows a snapshot instead of the current contents from now on, read-only. `wanted` is an ID, otherwise a name, or
/// `snapshot.id=…,snapshot.name=…`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for other keys, otherwise `Failed to load snapshot: …` with
/// [`crate::ErrorKind::NotFound`], [`crate::ErrorKind::Unsupported`] or an error of the format.
pub fn show(image: &mut Image, wanted: impl AsRef<[u8]>) -> Result<()> {
    let wanted = BStr::new(&wanted);
    let keys = Wanted::parse(wanted)?;
    if !image.format().features().contains(Features::SNAPSHOTS) {
        return Err(Error::unsupported(format!(
            "Block format '{}' used by device '' does not support temporarily loading internal \
             snapshots",
            image.format_name()
        ))
        .context(FAILED));
    }
    let known = list(image)?.snapshots;
    keys.find(&known)
        .and_then(|id| image.load_snapshot(id))
        .map_err(|error| error.context(FAILED))
}

/// The message before the reason.
const FAILED: &str = "Failed to load snapshot";

/// How a snapshot is specified.
enum Wanted<'a> {
    Either(&'a BStr),
    Keys(Option<BString>, Option<BString>),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a BStr) -> Result<Self> {
        if !text.starts_with(b"snapshot.") {
            return Ok(Self::Either(text));
        }
        let mut keys = Options::parse(text)?;
        let (id, name) = (keys.take("snapshot.id"), keys.take("snapshot.name"));
        match keys.iter().next() {
            Some((key, _)) => Err(Error::invalid(format!("Invalid parameter '{key}'"))),
            None => Ok(Self::Keys(id, name)),
        }
    }

    /// The ID of the snapshot.
    fn find(&self, known: &[SnapshotInfo]) -> Result<BString> {
        let found = match self {
            Self::Either(wanted) => by_id(known, wanted).or_else(|| by_name(known, wanted)),
            Self::Keys(None, None) => None,
            Self::Keys(id, name) => known.iter().find(|one| {
                id.as_ref().is_none_or(|id| *id == one.id)
                    && name.as_ref().is_none_or(|name| *name == one.name)
            }),
        };
        found
            .map(|found| found.id.clone())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "Can't find snapshot"))
    }
}

fn supported(image: &Image) -> Result<&dyn Snapshots> {
    image
        .shown()
        .format()
        .snapshots()
        .ok_or_else(|| Error::unsupported("Block driver does not support snapshots"))
}

fn by_id<'a>(known: &'a [SnapshotInfo], id: &BStr) -> Option<&'a SnapshotInfo> {
    known.iter().find(|one| one.id == id)
}

fn by_name<'a>(known: &'a [SnapshotInfo], name: &BStr) -> Option<&'a SnapshotInfo> {
    known.iter().find(|one| one.name == name)
}
