//! The description of a format in the registry, and the arguments of its constructors.

use std::fmt::Debug;
use std::sync::Arc;

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::format::bulk::Bulk;
use crate::format::features::Features;
use crate::format::files::{ChildSpec, FileRole};
use crate::format::in_order::InOrder;
use crate::format::inspect::{InspectContext, Inspection};
use crate::format::parent::{BackingRef, NewParent, ParentSearch};
use crate::format::read_in_order::ReadInOrderFn;
use crate::format::traits::{Format, Opener};
use crate::format::unstated::Unstated;
use crate::job::JobControl;
use crate::object::Objects;
use crate::options::{OptionSpec, Values};
use crate::printable::printable;
use crate::storage::{Durability, Preallocation, Storage};
use crate::trace::Event;

/// Plans a new image: checks its options, without access to any file.
pub type PlanFn = fn(&CreateParams<'_>) -> Result<Box<dyn NewImage>>;

/// Inspects an image; damage is reported as a finding, an error means that the file could not be read.
pub type InspectFn = fn(&InspectContext<'_>) -> Result<Inspection>;

/// An image format, one entry of the registry.
#[derive(Debug)]
pub struct FormatDriver {
    /// The name used with `-f`.
    pub name: &'static str,
    /// What its images can do, even if some of them cannot: the abilities for which open images have accessors. Those
    /// that follow from other fields of this description are not repeated; see [`FormatDriver::features`].
    pub of_images: Features,
    /// How its images are recognised, if that is possible.
    pub signature: Option<Signature>,
    /// The file contains metadata, which all users of the file must keep consistent; otherwise it is the disk itself,
    /// apart from a header that ordinary writes do not change.
    pub has_metadata: bool,
    /// The layer below shows through: its block status, its cluster size, its name.
    pub is_transparent: bool,
    /// An image can be written sequentially, from its first byte to its last.
    pub is_stream: bool,
    /// The children that its images can have, in the order of opening.
    pub children: &'static [ChildSpec],
    /// Opens an image.
    pub open: fn(OpenContext<'_>) -> Result<Box<dyn Format>>,
    /// Reads an image sequentially, from the first byte of its file, if that is possible.
    pub read_in_order: Option<ReadInOrderFn>,
    /// Reports the contents and references of an untrusted image, from its main file alone.
    pub inspect: InspectFn,
    /// Plans a new image, if the format supports creation.
    pub create: Option<PlanFn>,
    /// Summarises what creation options request.
    pub outline: OutlineFn,
    /// Computes the size of a new image.
    pub measure: Option<MeasureFn>,
    /// Options of `create`, sorted by name.
    pub create_options: &'static [OptionSpec],
    /// Options that are left out of [`FormatDriver::create_options`].
    pub unstated: &'static [Unstated],
    /// Those of them that QEMU's format of that name does not have; help lists them after the others.
    pub own_options: &'static [&'static str],
    /// Keys of the "Formatting" line of `create` in QEMU's order, without those of the protocol; each with the default
    /// that is shown if the option is not given.
    pub summary: &'static [(&'static str, Option<&'static str>)],
    /// Options of `amend`, sorted by name.
    pub amend_options: &'static [OptionSpec],
    /// Open options (`driver=…` strings) other than `driver` and `file`, sorted by name.
    pub open_options: &'static [OptionSpec],
    /// The option, for opening and creation, that gives the ID of the secret that the image needs.
    pub secret_option: Option<&'static str>,
    /// Open options that are part of the name of an image, because without them the guest sees something else, or
    /// nothing.
    pub strong_options: &'static [&'static str],
    /// Its trace events; their names begin with that of the format.
    pub events: &'static [&'static Event],
}

impl FormatDriver {
    /// A read-only format of a single file; fields of the result can be overridden.
    pub(crate) const fn read_only(
        name: &'static str,
        open: fn(OpenContext<'_>) -> Result<Box<dyn Format>>,
        inspect: InspectFn,
    ) -> Self {
        Self {
            name,
            of_images: Features::empty(),
            signature: None,
            has_metadata: true,
            is_transparent: false,
            is_stream: false,
            children: &[ChildSpec::FILE],
            open,
            read_in_order: None,
            inspect,
            create: None,
            outline: |_| Outline::default(),
            measure: None,
            create_options: &[],
            unstated: &[],
            own_options: &[],
            summary: &[],
            amend_options: &[],
            open_options: &[],
            secret_option: None,
            strong_options: &[],
            events: &[],
        }
    }

    /// What the format can do.
    pub fn features(&self) -> Features {
        let mut features = self.of_images;
        features.set(Features::CREATE, self.create.is_some());
        let mut children = self.children.iter();
        let backing = children.any(|child| child.role == FileRole::Backing);
        features.set(Features::BACKING, backing);
        features.set(Features::MEASURE, self.measure.is_some());
        features.set(Features::AMEND, !self.amend_options.is_empty());
        features.set(Features::ENCRYPT, self.secret_option.is_some());
        features
    }

    /// Whether it has all of these features.
    pub fn can(&self, features: Features) -> bool {
        self.features().contains(features)
    }

    /// Whether `create` has the option.
    pub fn creates_with(&self, option: &str) -> bool {
        self.create_options.iter().any(|spec| spec.name == option)
    }
}

/// What creation options request, in terms that apply to every format. Invalid values are refused by
/// [`FormatDriver::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Outline {
    /// The guest data is encrypted.
    pub encrypted: bool,
    /// The space to preallocate. An unknown mode counts as the largest amount.
    pub preallocation: Preallocation,
    /// The image does not record the size of the disk, so it need not be given.
    pub size_is_optional: bool,
    /// The image can have persistent bitmaps.
    pub bitmaps: bool,
    /// All of its guest data is compressed, whether or not that is requested.
    pub always_compressed: bool,
    /// It cannot contain compressed data, although other images of the format can.
    pub never_compressed: bool,
    /// An overlay records the identity of its parent, so the parent has to be opened.
    pub records_parent: bool,
    /// It can be written sequentially; see [`NewImage::in_order`].
    pub in_order: bool,
}

impl Outline {
    /// Whether space is preallocated.
    pub fn is_preallocated(&self) -> bool {
        self.preallocation != Preallocation::Off
    }
}

/// The mode of the option `preallocation`, or its value if that is not a mode.
pub(crate) fn preallocation(values: &Values) -> std::result::Result<Preallocation, &str> {
    let word = values.str("preallocation");
    word.map_or(Ok(Preallocation::Off), |word| {
        Preallocation::from_name(word).ok_or(word)
    })
}

/// The same for [`Outline::preallocation`], with an unknown mode counting as the largest amount.
pub(crate) fn outlined_preallocation(values: &Values) -> Preallocation {
    preallocation(values).unwrap_or(Preallocation::Full)
}

/// The mode that the option `preallocation` requests for the file of a format whose tables need no preallocation.
///
/// # Errors
/// [`ErrorKind::Unsupported`] and [`ErrorKind::Invalid`], with QEMU's messages.
pub(crate) fn file_preallocation(values: &Values) -> Result<Preallocation> {
    match preallocation(values) {
        Ok(Preallocation::Metadata) => Err(Error::no_metadata_preallocation()),
        Ok(mode) => Ok(mode),
        Err(word) => Err(Error::invalid_value(printable(word))),
    }
}

/// Checks the option `preallocation` of a format for which valid modes have no effect: it has no space that could be
/// preallocated.
///
/// # Errors
/// As [`file_preallocation`].
pub(crate) fn check_no_preallocation(values: &Values) -> Result<()> {
    file_preallocation(values).map(drop)
}

/// See [`Outline`].
pub type OutlineFn = fn(&Values) -> Outline;

/// How images of a format are recognised.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// If several match, the lowest rank wins, as with QEMU's tools.
    pub rank: u8,
    /// Whether the beginning of a file, or its name, matches such an image.
    pub fits: fn(&Probe<'_>) -> bool,
    /// The magic at the beginning of the last sector of such an image, or one byte after that. Opening does not look
    /// there, but inspection does.
    pub footer: Option<&'static [u8]>,
}

/// The beginning of a file and its name, for probing.
#[derive(Debug)]
pub struct Probe<'a> {
    /// The first bytes of the file, at least 512 unless the file is shorter.
    pub head: &'a [u8],
    /// The file name, for formats that are recognised by their suffix.
    pub name: &'a BStr,
}

impl Probe<'_> {
    /// Whether these bytes are at `offset`; bytes past the end of the file count as zeroes.
    pub fn at(&self, offset: usize, magic: &[u8]) -> bool {
        let mut bytes = self.head.iter().skip(offset).copied();
        magic.iter().all(|byte| bytes.next().unwrap_or(0) == *byte)
    }

    /// Whether the file begins with these bytes.
    pub fn starts(&self, magic: &[u8]) -> bool {
        self.at(0, magic)
    }
}

/// Returns the name of the format whose signature matches, if any.
pub type RecogniseFn = fn(&Probe<'_>) -> Option<&'static str>;

/// The arguments for opening an image.
pub struct OpenContext<'a> {
    /// The image file.
    pub storage: Arc<dyn Storage>,
    /// Refuse writes.
    pub read_only: bool,
    /// Only metadata is needed (`info`): do not open the data file.
    pub metadata_only: bool,
    /// The format was probed, with this function: raw must protect its first block.
    pub probed: Option<RecogniseFn>,
    /// Opened by `check`: if possible, open despite damaged tables, and do not repair.
    pub for_check: bool,
    /// What barriers guarantee.
    pub durability: Durability,
    /// Compression level for compressed writes; None for the format's default.
    pub compression_level: Option<i64>,
    /// Options of the format, checked against [`FormatDriver::open_options`].
    pub options: &'a Values,
    /// The secrets and other objects referred to by ID in options.
    pub objects: &'a Objects,
    /// Opens further files, subject to the policy.
    pub opener: &'a dyn Opener,
    /// Receives warnings about an image that opens nevertheless: one or more lines.
    pub warn: &'a dyn Fn(String),
    /// Stops lengthy operations on cancellation or at the deadline.
    pub control: &'a Arc<JobControl>,
}

/// The arguments of [`NewImage::prepare`].
pub struct PrepareContext<'a> {
    /// The secrets and other objects referred to by ID in options.
    pub objects: &'a Objects,
    /// The parent, if the image is to have one and it was opened.
    pub parent: Option<NewParent>,
    /// Stops lengthy operations on cancellation or at the deadline.
    pub control: &'a JobControl,
}

/// The parameters of a new image.
#[derive(Debug)]
pub struct CreateParams<'a> {
    /// The path of the image's own file, if it has one.
    pub name: Option<&'a BStr>,
    /// Virtual size in bytes, already rounded up to a multiple of 512.
    pub size: u64,
    /// Options, checked against [`FormatDriver::create_options`]; they include protocol options.
    pub values: &'a Values,
    /// The backing file to record.
    pub backing: Option<&'a BackingRef>,
}

/// A new image whose options have been checked.
///
/// The steps are taken in this order: the files of [`NewImage::files`] are opened, checked and locked, without changing
/// their contents; [`NewImage::prepare`] is the last step that may refuse; the files are emptied; [`NewImage::start`].
pub trait NewImage: Debug + Send {
    /// The files of the image, its own first, the others in the order of their slots.
    fn files(&self) -> Vec<PlannedFile>;

    /// Whether the end of its own file marks the end of the image, so that a file of fixed length cannot be used.
    fn ends_with_file(&self) -> bool {
        false
    }

    /// Where the image will look for its parent, if only the parent's identity is recorded.
    fn parent_search(&self) -> Option<&'static ParentSearch> {
        None
    }

    /// Does everything that can be done before a file is changed: looks up the secrets, derives keys, examines the
    /// parent.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsSecret`], [`ErrorKind::Cancelled`], or any other reason why the image cannot be created; its
    /// files are unchanged.
    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()>;

    /// Begins to write the image sequentially to a target that is not a file, instead of [`NewImage::start`].
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] unless [`Outline::in_order`] is set.
    fn in_order(self: Box<Self>) -> Result<Box<dyn InOrder>> {
        Err(Error::unsupported("The image cannot be written in order"))
    }

    /// Begins to write the image into its files, which are empty. `control` stops lengthy operations on cancellation or
    /// at the deadline, and counts what is preallocated.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], or if I/O fails.
    fn start(
        self: Box<Self>,
        files: &[Arc<dyn Storage>],
        control: &Arc<JobControl>,
    ) -> Result<Box<dyn Bulk>>;
}

/// A file of a new image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its role in the image.
    pub role: FileRole,
    /// The name given by the creator, relative to the working directory; None for the image's own file.
    pub name: Option<BString>,
    /// Number of bytes that it must be able to hold.
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

/// The first of the files passed to [`NewImage::start`].
///
/// # Errors
/// [`ErrorKind::Internal`] if there is none.
pub(crate) fn own_file(files: &[Arc<dyn Storage>]) -> Result<&Arc<dyn Storage>> {
    files
        .first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "A new image has a file"))
}

/// The error for a start before [`NewImage::prepare`].
pub(crate) fn not_prepared() -> Error {
    Error::new(ErrorKind::Internal, "A new image is started unprepared")
}

/// The contents of a new image that is to be measured.
pub struct Contents<'a> {
    /// Counts the units of the given size that contain data in the source; None if the image stays empty.
    pub data_units: Option<&'a mut dyn FnMut(u64) -> Result<u64>>,
    /// Name length and granularity of each bitmap of the source; None if the source cannot have any.
    pub bitmaps: Option<&'a [(u64, u64)]>,
}

/// The size of a new image, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// As it will be written.
    pub required: u64,
    /// With every guest byte written.
    pub fully_allocated: u64,
    /// For copies of the source's bitmaps, if both formats support bitmaps.
    pub bitmaps: Option<u64>,
}

/// Measures a new image; checks the options as [`FormatDriver::create`] does.
pub type MeasureFn = fn(&CreateParams<'_>, &mut Contents<'_>) -> Result<Measured>;
