//! How a format is described to the registry, and what its constructors get.

use std::fmt::Debug;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::bulk::Bulk;
use crate::format::files::{ChildSpec, FileRole};
use crate::format::inspect::{InspectContext, Inspection};
use crate::format::parent::{BackingRef, ParentId};
use crate::format::traits::{Format, Opener};
use crate::job::JobControl;
use crate::options::{OptionSpec, Values};
use crate::secret::Secrets;
use crate::storage::{Durability, Storage};
use crate::trace::Event;

bitflags::bitflags! {
    /// What a format can do, for introspection and for early refusals.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Features: u32 {
        /// New images can be made.
        const CREATE = 1;
        /// Images can be written.
        const WRITE = 1 << 1;
        /// Images can name a backing file.
        const BACKING = 1 << 2;
        /// Clusters can be compressed.
        const COMPRESS = 1 << 3;
        /// Internal snapshots.
        const SNAPSHOTS = 1 << 4;
        /// Persistent dirty bitmaps.
        const BITMAPS = 1 << 5;
        /// `check`.
        const CHECK = 1 << 6;
        /// `check -r`.
        const REPAIR = 1 << 7;
        /// `resize`.
        const RESIZE = 1 << 8;
        /// `amend`.
        const AMEND = 1 << 9;
        /// `measure` as a target.
        const MEASURE = 1 << 10;
        /// Encryption.
        const ENCRYPT = 1 << 11;
    }
}

/// Plans a new image: checks its options, without a file at hand.
pub type PlanFn = fn(&CreateParams<'_>) -> Result<Box<dyn NewImage>>;

/// Inspects an image; damage is a verdict, an error means that the file could not be read.
pub type InspectFn = fn(&InspectContext<'_>) -> Result<Inspection>;

/// An image format, as one line of the registry.
#[derive(Debug)]
pub struct FormatDriver {
    /// The name used with `-f`.
    pub name: &'static str,
    /// What it can do.
    pub features: Features,
    /// The children that its images can have, in the order in which they are opened.
    pub children: &'static [ChildSpec],
    /// Opens an image.
    pub open: fn(OpenContext<'_>) -> Result<Box<dyn Format>>,
    /// Tells what an untrusted image holds and names, from that one file.
    pub inspect: InspectFn,
    /// Plans a new image, where new ones can be made.
    pub create: Option<PlanFn>,
    /// Tells how large a new image will be.
    pub measure: Option<MeasureFn>,
    /// Options of `create`, sorted by name.
    pub create_options: &'static [OptionSpec],
    /// Keys of the "Formatting" line of `create` in QEMU's order, without those of the protocol;
    /// each with the default that is shown where the option is not given.
    pub summary: &'static [(&'static str, Option<&'static str>)],
    /// Options of `amend`, sorted by name.
    pub amend_options: &'static [OptionSpec],
    /// Options of opening (`driver=…` strings) beyond `driver` and `file`, sorted by name.
    pub open_options: &'static [OptionSpec],
    /// Its trace events; their names begin with the format's.
    pub events: &'static [&'static Event],
}

/// The beginning of a file and its name, for probing.
#[derive(Debug)]
pub struct Probe<'a> {
    /// The first bytes of the file, at least 512 unless the file is shorter.
    pub head: &'a [u8],
    /// The file name, for formats known by their suffix.
    pub name: &'a BStr,
}

/// What opening a format gets.
pub struct OpenContext<'a> {
    /// The image file.
    pub storage: Arc<dyn Storage>,
    /// Refuse writes.
    pub read_only: bool,
    /// Only metadata is wanted (`info`): do not open the data file.
    pub metadata_only: bool,
    /// The format was guessed: raw must guard its first block.
    pub probed: bool,
    /// `check` asked: open although tables are damaged where that is possible, do not repair.
    pub for_check: bool,
    /// What barriers guarantee.
    pub durability: Durability,
    /// Options of the format, checked against [`FormatDriver::open_options`].
    pub options: &'a Values,
    /// The secrets that options name by ID.
    pub secrets: &'a Secrets,
    /// Opens further files under the policy.
    pub opener: &'a dyn Opener,
    /// Takes what users should know of the image although it opens: one or more lines.
    pub warn: &'a dyn Fn(String),
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a Arc<JobControl>,
}

/// What is known of the parent of a new image once it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewParent {
    /// Its virtual size in bytes.
    pub size: u64,
    /// What tells it from others, where its format has that.
    pub id: Option<ParentId>,
}

/// What [`NewImage::prepare`] gets.
pub struct PrepareContext<'a> {
    /// The secrets that options name by ID.
    pub secrets: &'a Secrets,
    /// The parent, if the image is to have one that was opened.
    pub parent: Option<NewParent>,
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a JobControl,
}

/// What a new image is to be.
#[derive(Debug)]
pub struct CreateParams<'a> {
    /// Virtual size in bytes, already rounded up to 512.
    pub size: u64,
    /// Virtual size as asked, for the "Formatting" line.
    pub asked_size: u64,
    /// Options, checked against [`FormatDriver::create_options`], protocol options left in.
    pub values: &'a Values,
    /// The backing file to record.
    pub backing: Option<&'a BackingRef>,
}

/// A new image whose options are checked.
///
/// The steps come in this order: the files of [`NewImage::files`] are opened, judged and locked, and
/// nothing in them changes; [`NewImage::prepare`], the last step that may refuse; the files are
/// emptied; [`NewImage::start`].
pub trait NewImage: Debug + Send {
    /// The files that the image takes, its own first, then in the order of their slots.
    fn files(&self) -> Vec<PlannedFile>;

    /// Does everything that can be done before a file is changed: finds the secrets, derives keys, looks
    /// at the parent.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsSecret`], [`ErrorKind::Cancelled`], or whatever else speaks
    /// against the image; its files are as they were.
    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()>;

    /// Begins to write the image into its files, which are empty. `control` ends what takes long when
    /// it is cancelled or late, and counts what is written ahead.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], or of I/O.
    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>>;
}

/// A file that a new image takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// What it is to the image.
    pub role: FileRole,
    /// The name that the creator gave it, relative to the working directory; None for the image's own.
    pub name: Option<BString>,
    /// Bytes that it must be able to hold.
    pub len: u64,
}

impl PlannedFile {
    /// The image's own file.
    pub fn own(len: u64) -> Self {
        Self {
            role: FileRole::Image,
            name: None,
            len,
        }
    }
}

/// The first of the files that [`NewImage::start`] gets.
///
/// # Errors
/// [`ErrorKind::Internal`] where there is none.
pub(crate) fn own_file(files: &[Arc<dyn Storage>]) -> Result<&Arc<dyn Storage>> {
    files
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "A new image has a file"))
}

/// The error of a start before [`NewImage::prepare`].
pub(crate) fn not_prepared() -> Error {
    Error::new(ErrorKind::Internal, "A new image is started unprepared")
}

/// What a new image that is to be measured will hold.
pub struct Contents<'a> {
    /// Counts the units of that many bytes in which the source has data; None where the image
    /// stays empty.
    pub data_units: Option<&'a mut dyn FnMut(u64) -> Result<u64>>,
    /// Length of the name and granularity of each bitmap of the source; None where the source can
    /// have none.
    pub bitmaps: Option<&'a [(u64, u64)]>,
}

/// The size of a new image, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// As it will be written.
    pub required: u64,
    /// When every guest byte is written.
    pub fully_allocated: u64,
    /// For copies of the source's bitmaps, where both formats have them.
    pub bitmaps: Option<u64>,
}

/// Measures a new image; the options are checked as by [`FormatDriver::create`].
pub type MeasureFn = fn(&CreateParams<'_>, &mut Contents<'_>) -> Result<Measured>;
