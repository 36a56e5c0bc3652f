//! How a format is described to the registry, and what its constructors get.

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

/// Plans a new image: checks its options, without a file at hand.
pub type PlanFn = fn(&CreateParams<'_>) -> Result<Box<dyn NewImage>>;

/// Inspects an image; damage is a verdict, an error means that the file could not be read.
pub type InspectFn = fn(&InspectContext<'_>) -> Result<Inspection>;

/// An image format, as one line of the registry.
#[derive(Debug)]
pub struct FormatDriver {
    /// The name used with `-f`.
    pub name: &'static str,
    /// What its images can do, even if some of them cannot: what open ones have accessors for. What the
    /// fields of this description say is not repeated; see [`FormatDriver::features`].
    pub of_images: Features,
    /// How its images are recognised, where they can be.
    pub signature: Option<Signature>,
    /// The file holds metadata, on which all that have it open must agree; else it is the disk itself, apart
    /// from a header that no one changes in passing.
    pub has_metadata: bool,
    /// What lies below shows through: its block status, its cluster size, its name.
    pub is_transparent: bool,
    /// An image can be written in order, from its first byte to its last.
    pub is_stream: bool,
    /// The children that its images can have, in the order in which they are opened.
    pub children: &'static [ChildSpec],
    /// Opens an image.
    pub open: fn(OpenContext<'_>) -> Result<Box<dyn Format>>,
    /// Reads an image in order, from the first byte of its file, where that can be done.
    pub read_in_order: Option<ReadInOrderFn>,
    /// Tells what an untrusted image holds and names, from that one file.
    pub inspect: InspectFn,
    /// Plans a new image, where new ones can be made.
    pub create: Option<PlanFn>,
    /// What options of creation ask for.
    pub outline: OutlineFn,
    /// Tells how large a new image will be.
    pub measure: Option<MeasureFn>,
    /// Options of `create`, sorted by name.
    pub create_options: &'static [OptionSpec],
    /// What [`FormatDriver::create_options`] leaves out.
    pub unstated: &'static [Unstated],
    /// Those of them that QEMU's format of that name does not have; help shows them behind the others.
    pub own_options: &'static [&'static str],
    /// Keys of the "Formatting" line of `create` in QEMU's order, without those of the protocol;
    /// each with the default that is shown where the option is not given.
    pub summary: &'static [(&'static str, Option<&'static str>)],
    /// Options of `amend`, sorted by name.
    pub amend_options: &'static [OptionSpec],
    /// Options of opening (`driver=…` strings) beyond `driver` and `file`, sorted by name.
    pub open_options: &'static [OptionSpec],
    /// The option, of opening and of creation, with the ID of the secret that the image needs.
    pub secret_option: Option<&'static str>,
    /// The options of opening that belong to the name of an image, because the guest sees something else
    /// without them, or nothing.
    pub strong_options: &'static [&'static str],
    /// Its trace events; their names begin with the format's.
    pub events: &'static [&'static Event],
}

impl FormatDriver {
    /// A format that is only read, from one file; other fields can be set over these.
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

    /// What it can do.
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

    /// Whether it can do all of that.
    pub fn can(&self, features: Features) -> bool {
        self.features().contains(features)
    }

    /// Whether `create` knows the option.
    pub fn creates_with(&self, option: &str) -> bool {
        self.create_options.iter().any(|spec| spec.name == option)
    }
}

/// What options of creation ask for, in words that hold for every format. Values that mean nothing are
/// refused by [`FormatDriver::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Outline {
    /// The guest data is encrypted.
    pub encrypted: bool,
    /// The space that is allocated ahead. A word that is no mode counts as the most.
    pub preallocation: Preallocation,
    /// The image says nothing of the disk's size, which need not be given.
    pub size_is_optional: bool,
    /// It can have persistent bitmaps.
    pub bitmaps: bool,
    /// All of its guest data is compressed, whether that is asked for or not.
    pub always_compressed: bool,
    /// It has no place for compressed data, although others of the format do.
    pub never_compressed: bool,
    /// An overlay records what tells its parent from others, for which the parent is opened.
    pub records_parent: bool,
    /// It can be written from its first byte to its last; see [`NewImage::in_order`].
    pub in_order: bool,
}

impl Outline {
    /// Whether space is allocated ahead.
    pub fn is_preallocated(&self) -> bool {
        self.preallocation != Preallocation::Off
    }
}

/// The mode that the option `preallocation` names, or the word that is none.
pub(crate) fn preallocation(values: &Values) -> std::result::Result<Preallocation, &str> {
    let word = values.str("preallocation");
    word.map_or(Ok(Preallocation::Off), |word| {
        Preallocation::from_name(word).ok_or(word)
    })
}

/// The same for [`Outline::preallocation`].
pub(crate) fn outlined_preallocation(values: &Values) -> Preallocation {
    preallocation(values).unwrap_or(Preallocation::Full)
}

/// What the option `preallocation` asks of the file of a format whose tables need no space ahead.
///
/// # Errors
/// [`ErrorKind::Unsupported`] and [`ErrorKind::Invalid`], in QEMU's words.
pub(crate) fn file_preallocation(values: &Values) -> Result<Preallocation> {
    match preallocation(values) {
        Ok(Preallocation::Metadata) => Err(Error::no_metadata_preallocation()),
        Ok(mode) => Ok(mode),
        Err(word) => Err(Error::invalid_value(printable(word))),
    }
}

/// The check of the option `preallocation` where its words are known and have no effect: the format has no
/// space that could be allocated ahead.
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
    /// Where several fit, the lowest rank wins, as with QEMU's tools.
    pub rank: u8,
    /// Whether the beginning of a file, or its name, is that of such an image.
    pub fits: fn(&Probe<'_>) -> bool,
    /// What the last sector of such an image begins with, or one byte after it. Opening does not look
    /// there, but inspecting does.
    pub footer: Option<&'static [u8]>,
}

/// The beginning of a file and its name, for probing.
#[derive(Debug)]
pub struct Probe<'a> {
    /// The first bytes of the file, at least 512 unless the file is shorter.
    pub head: &'a [u8],
    /// The file name, for formats known by their suffix.
    pub name: &'a BStr,
}

impl Probe<'_> {
    /// Whether those bytes stand at `offset`; past the end of the file they are zeroes.
    pub fn at(&self, offset: usize, magic: &[u8]) -> bool {
        let mut bytes = self.head.iter().skip(offset).copied();
        magic.iter().all(|byte| bytes.next().unwrap_or(0) == *byte)
    }

    /// Whether the file begins with those bytes.
    pub fn starts(&self, magic: &[u8]) -> bool {
        self.at(0, magic)
    }
}

/// Names the format whose signature fits, if one does.
pub type RecogniseFn = fn(&Probe<'_>) -> Option<&'static str>;

/// What opening a format gets.
pub struct OpenContext<'a> {
    /// The image file.
    pub storage: Arc<dyn Storage>,
    /// Refuse writes.
    pub read_only: bool,
    /// Only metadata is wanted (`info`): do not open the data file.
    pub metadata_only: bool,
    /// The format was guessed, by this function: raw must guard its first block.
    pub probed: Option<RecogniseFn>,
    /// `check` asked: open although tables are damaged where that is possible, do not repair.
    pub for_check: bool,
    /// What barriers guarantee.
    pub durability: Durability,
    /// How hard compressed writes are to try; None for the format's default.
    pub compression_level: Option<i64>,
    /// Options of the format, checked against [`FormatDriver::open_options`].
    pub options: &'a Values,
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// Opens further files under the policy.
    pub opener: &'a dyn Opener,
    /// Takes what users should know of the image although it opens: one or more lines.
    pub warn: &'a dyn Fn(String),
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a Arc<JobControl>,
}

/// What [`NewImage::prepare`] gets.
pub struct PrepareContext<'a> {
    /// The secrets and other objects that options name by ID.
    pub objects: &'a Objects,
    /// The parent, if the image is to have one that was opened.
    pub parent: Option<NewParent>,
    /// Ends what takes long when it is cancelled or late.
    pub control: &'a JobControl,
}

/// What a new image is to be.
#[derive(Debug)]
pub struct CreateParams<'a> {
    /// The path of the image's own file, where it has one.
    pub name: Option<&'a BStr>,
    /// Virtual size in bytes, already rounded up to 512.
    pub size: u64,
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

    /// Whether the end of its own file is that of the image, for which a file of fixed length is of no use.
    fn ends_with_file(&self) -> bool {
        false
    }

    /// Where the image will look for its parent, if it is to know that by the identity alone.
    fn parent_search(&self) -> Option<&'static ParentSearch> {
        None
    }

    /// Does everything that can be done before a file is changed: finds the secrets, derives keys, looks
    /// at the parent.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsSecret`], [`ErrorKind::Cancelled`], or whatever else speaks
    /// against the image; its files are as they were.
    fn prepare(&mut self, context: &PrepareContext<'_>) -> Result<()>;

    /// Begins to write the image to where bytes go in order and no file is, instead of [`NewImage::start`].
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where [`Outline::in_order`] does not say that it can.
    fn in_order(self: Box<Self>) -> Result<Box<dyn InOrder>> {
        Err(Error::unsupported("The image cannot be written in order"))
    }

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
