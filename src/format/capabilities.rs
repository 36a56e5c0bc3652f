//! What some formats offer beyond reading and writing; reached through `Format`'s `Option`s.

use std::ops::Range;

use bstr::{BStr, BString};

use crate::error::Result;
use crate::extent::Extent;
use crate::format::parent::{BackingRef, NewParent};
use crate::format::write::Below;
use crate::job::{Job, JobControl};
use crate::object::Objects;
use crate::options::Values;

/// What a new internal snapshot records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its name; may be empty or taken.
    pub name: BString,
    /// Seconds since the epoch.
    pub date_sec: u32,
    /// Nanoseconds beyond them.
    pub date_nsec: u32,
}

/// A persistent dirty bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapInfo {
    /// Its name.
    pub name: BString,
    /// Guest bytes per bit.
    pub granularity: u64,
    /// Records writes.
    pub enabled: bool,
    /// Was not closed cleanly: its contents cannot be trusted.
    pub inconsistent: bool,
}

/// Guest ranges (offset, length) that a caller has: hands each of them to the function.
pub type DirtyRanges<'a> = dyn FnMut(&mut dyn FnMut(u64, u64)) -> Result<()> + 'a;

/// Persistent dirty bitmaps. Those that record hold every write of this open image, also what is
/// not on disk yet; on disk they are in use until the image is closed. What changes them is ended by `control`
/// ([`crate::ErrorKind::Cancelled`]), and nothing has changed then.
pub trait Bitmaps: Send + Sync {
    /// The guest bytes that the bitmaps stand for: the virtual size of the image.
    fn covered(&self) -> u64;

    /// The bitmaps, in directory order.
    ///
    /// # Errors
    /// Of reading the directory.
    fn list(&self) -> Result<Vec<BitmapInfo>>;

    /// Adds an empty bitmap that records writes; `granularity` None takes the format's default.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Exists`], [`crate::ErrorKind::Invalid`] for the name or the granularity,
    /// [`crate::ErrorKind::Limit`] where it would be too large, or of I/O; nothing has changed then.
    fn add(&self, name: &BStr, granularity: Option<u64>, control: &JobControl) -> Result<()>;

    /// Adds a bitmap whose bits are those that the ranges touch, all in one step: it is never there
    /// without them. The ranges must not come from the same image.
    ///
    /// # Errors
    /// As [`Bitmaps::add`], or of `ranges`; nothing has changed then.
    fn add_filled(
        &self,
        name: &BStr,
        granularity: u64,
        enabled: bool,
        ranges: &mut DirtyRanges<'_>,
        control: &JobControl,
    ) -> Result<()>;

    /// Removes a bitmap, an inconsistent one too.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], or of I/O.
    fn remove(&self, name: &BStr, control: &JobControl) -> Result<()>;

    /// Clears all bits.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], [`crate::ErrorKind::Corrupt`] where the bitmap is inconsistent, or of I/O.
    fn clear(&self, name: &BStr, control: &JobControl) -> Result<()>;

    /// Starts or ends recording.
    ///
    /// # Errors
    /// As [`Bitmaps::clear`].
    fn set_enabled(&self, name: &BStr, enabled: bool, control: &JobControl) -> Result<()>;

    /// Stores what was recorded, before the image is closed; otherwise closing does that, and nothing ends it.
    /// What is ended here leaves the bitmaps that record in use on disk, so that they are not taken for
    /// complete.
    ///
    /// # Errors
    /// Of I/O.
    fn finish(&self, control: &JobControl) -> Result<()>;

    /// Hands the dirty guest ranges (offset, length) within `range` to `visit`, in order, each as
    /// long as it is. `visit` must not call into the image.
    ///
    /// # Errors
    /// As [`Bitmaps::clear`], or of `visit`.
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
    /// As [`Bitmaps::clear`], or of `ranges`.
    fn mark(&self, name: &BStr, ranges: &mut DirtyRanges<'_>, control: &JobControl) -> Result<()>;
}

/// What changing the options of an image gets.
pub struct AmendContext<'a> {
    /// Options, checked against [`crate::format::FormatDriver::amend_options`].
    pub values: &'a Values,
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// Do what may lose data.
    pub force: bool,
    /// What lies below the image, which must not show where that grows.
    pub below: &'a dyn Below,
}

/// Changing the options of an image.
pub trait Amend: Send + Sync {
    /// Applies the options. A failure leaves an image that opens, with the old or new value each.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], [`crate::ErrorKind::Unsupported`], or of I/O.
    fn amend(&self, context: &AmendContext<'_>, job: &mut Job) -> Result<()>;
}

/// Layers of a chain: what commit and rebase change.
pub trait BackingChange: Send + Sync {
    /// Refuses what [`BackingChange::set_backing`] would refuse, and changes nothing.
    ///
    /// # Errors
    /// As [`BackingChange::set_backing`].
    fn check_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>)
    -> Result<()>;

    /// Records another backing file, or none. The guest contents above it stay as they are. `parent` is what
    /// is known of that file, where it was opened.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a name that is too long, or of I/O.
    fn set_backing(&self, backing: Option<&BackingRef>, parent: Option<&NewParent>) -> Result<()>;

    /// Records what tells the parent from others now that it was changed with the image's knowledge; its
    /// names stay. A format that records no identity has nothing to do.
    ///
    /// # Errors
    /// Of I/O.
    fn note_parent(&self, parent: &NewParent) -> Result<()>;

    /// As [`crate::format::Format::map`]; what a backing file would show, if there were one, is `Unallocated`, where a
    /// map may call it zero.
    ///
    /// # Errors
    /// As there.
    fn map_held(&self, offset: u64, len: u64) -> Result<Extent>;

    /// Gives up all guest data of this layer, so that the backing file shows through.
    ///
    /// # Errors
    /// Of I/O.
    fn make_empty(&self) -> Result<()>;
}
