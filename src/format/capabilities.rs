//! Optional abilities of formats beyond reading and writing; reached through methods of `Format` that return `Option`.

use std::ops::Range;

use bstr::{BStr, BString};

use crate::error::Result;
use crate::extent::Extent;
use crate::format::parent::{BackingRef, NewParent};
use crate::format::write::Below;
use crate::job::{Job, JobControl};
use crate::object::Objects;
use crate::options::Values;

/// The properties of a new internal snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its name; may be empty or in use already.
    pub name: BString,
    /// Seconds since the epoch.
    pub date_sec: u32,
    /// Additional nanoseconds.
    pub date_nsec: u32,
}

/// A persistent dirty bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapInfo {
    /// Its name.
    pub name: BString,
    /// Guest bytes per bit.
    pub granularity: u64,
    /// It records writes.
    pub enabled: bool,
    /// It was not closed cleanly: its contents cannot be trusted.
    pub inconsistent: bool,
}

/// Guest ranges (offset, length) of a caller: passes each of them to the function.
pub type DirtyRanges<'a> = dyn FnMut(&mut dyn FnMut(u64, u64)) -> Result<()> + 'a;

/// Persistent dirty bitmaps. Recording ones cover every write made to this open image, including those not on disk yet;
/// on disk they are marked in use until the image is closed. Changes can be stopped by `control`
/// ([`crate::ErrorKind::Cancelled`]), in which case nothing has changed.
pub trait Bitmaps: Send + Sync {
    /// The number of guest bytes covered by the bitmaps: the virtual size of the image.
    fn covered(&self) -> u64;

    /// The bitmaps, in directory order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> Result<Vec<BitmapInfo>>;

    /// Adds an empty, recording bitmap; a `granularity` of None means the format's default.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Exists`], [`crate::ErrorKind::Invalid`] for the name or the granularity,
    /// [`crate::ErrorKind::Limit`] if it would be too large, or if I/O fails; nothing has changed then.
    fn add(&self, name: &BStr, granularity: Option<u64>, control: &JobControl) -> Result<()>;

    /// Adds a bitmap with the bits set that the ranges touch, atomically: it never exists without them. The ranges must
    /// not come from the same image.
    ///
    /// # Errors
    /// As [`Bitmaps::add`], and the errors of `ranges`; nothing has changed then.
    fn add_filled(
        &self,
        name: &BStr,
        granularity: u64,
        enabled: bool,
        ranges: &mut DirtyRanges<'_>,
        control: &JobControl,
    ) -> Result<()>;

    /// Removes a bitmap, even an inconsistent one.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], or if I/O fails.
    fn remove(&self, name: &BStr, control: &JobControl) -> Result<()>;

    /// Clears all bits.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], [`crate::ErrorKind::Corrupt`] if the bitmap is inconsistent, or if I/O fails.
    fn clear(&self, name: &BStr, control: &JobControl) -> Result<()>;

    /// Starts or stops recording.
    ///
    /// # Errors
    /// As [`Bitmaps::clear`].
    fn set_enabled(&self, name: &BStr, enabled: bool, control: &JobControl) -> Result<()>;

    /// Stores what was recorded, before the image is closed; otherwise closing does so, which cannot be cancelled. If
    /// this is cancelled, recording bitmaps stay marked in use on disk, so that they are not mistaken for complete
    /// ones.
    ///
    /// # Errors
    /// If I/O fails.
    fn finish(&self, control: &JobControl) -> Result<()>;

    /// Passes the dirty guest ranges (offset, length) within `range` to `visit`, in order, each as long as possible.
    /// `visit` must not call into the image.
    ///
    /// # Errors
    /// As [`Bitmaps::clear`], and the errors of `visit`.
    fn visit_dirty(
        &self,
        name: &BStr,
        range: Range<u64>,
        control: &JobControl,
        visit: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<()>;

    /// Sets the bits that the ranges touch; these may come from a bitmap of the same image.
    ///
    /// # Errors
    /// As [`Bitmaps::clear`], and the errors of `ranges`.
    fn mark(&self, name: &BStr, ranges: &mut DirtyRanges<'_>, control: &JobControl) -> Result<()>;
}

/// The context for changing the options of an image.
pub struct AmendContext<'a> {
    /// Options, checked against [`crate::format::FormatDriver::amend_options`].
    pub values: &'a Values,
    /// The secrets and other objects referred to by ID in options.
    pub objects: &'a Objects,
    /// Also make changes that may lose data.
    pub force: bool,
    /// What lies below the image, which must not become visible if the image grows.
    pub below: &'a dyn Below,
}

/// Changing the options of an image.
pub trait Amend: Send + Sync {
    /// Applies the options. After a failure the image still opens, each option having its old or its new value.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], [`crate::ErrorKind::Unsupported`], or if I/O fails.
    fn amend(&self, context: &AmendContext<'_>, job: &mut Job) -> Result<()>;
}

/// Layers of a chain: the changes made by commit and rebase.
pub trait BackingChange: Send + Sync {
    /// Refuses whatever [`BackingChange::set_backing`] would refuse, without changing anything.
    ///
    /// # Errors
    /// As [`BackingChange::set_backing`].
    fn check_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>)
    -> Result<()>;

    /// Records another backing file, or none. The layer's own contents are not changed. `parent` describes that file,
    /// if it was opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a name that is too long, or if I/O fails.
    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()>;

    /// Records the new identity of the parent after it was changed with the image's knowledge; its names are kept.
    /// Formats that record no identity have nothing to do.
    ///
    /// # Errors
    /// If I/O fails.
    fn note_parent(&self, parent: &NewParent) -> Result<()>;

    /// As [`crate::format::Format::map`]; ranges that a backing file would provide, if there were one, are
    /// `Unallocated`, where a map may report zeroes.
    ///
    /// # Errors
    /// As [`crate::format::Format::map`].
    fn map_held(&self, offset: u64, len: u64) -> Result<Extent>;

    /// Drops all guest data of this layer, so that the backing file shows through.
    ///
    /// # Errors
    /// If I/O fails.
    fn make_empty(&self) -> Result<()>;
}
