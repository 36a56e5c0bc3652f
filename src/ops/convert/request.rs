//! What to convert, and how.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::format::{Package, Profile};
use crate::image::{Nodes, OpenOptions};
use crate::location::Location;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::storage::stream::{Direction, Stream};
use crate::storage::{CacheMode, NamedStorages};
use crate::sys::fd;

use super::window::Window;
use super::wording::Wording;

/// A descriptor that is read or written sequentially, from its current position on.
#[derive(Clone, Debug)]
pub struct NamedFd {
    /// The descriptor.
    pub fd: Arc<OwnedFd>,
    /// Its name in messages.
    pub name: String,
}

impl NamedFd {
    /// A stream over a duplicate of the descriptor, for transfers in this direction.
    pub(super) fn stream(&self, direction: Direction) -> Result<Stream> {
        let fd = fd::duplicate(self.fd.as_fd()).map_err(|error| Error::io(&error))?;
        Stream::from_fd(fd, self.name.as_str(), direction)
    }
}

/// What to convert, and how.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// What is read.
    pub source: ConvertSource,
    /// What is written.
    pub target: ConvertTarget,
    /// How the work is done.
    pub tuning: Tuning,
    /// The wording of some errors.
    pub wording: &'static Wording,
}

/// What a conversion reads.
#[derive(Clone, Debug)]
pub struct ConvertSource {
    /// The images, concatenated in this order.
    pub images: Vec<Location>,
    /// How each of them is opened.
    pub options: OpenOptions,
    /// Read this descriptor, sequentially from its current position on, instead of any image.
    pub fd: Option<NamedFd>,
    /// Read character devices too, sequentially.
    pub devices: bool,
    /// The part of the input that is copied.
    pub window: Window,
    /// `-l`: an internal snapshot of the only image.
    pub snapshot: Option<BString>,
    /// `--salvage`: unreadable parts become zeroes, with a warning each.
    pub salvage: bool,
    /// `--bitmaps`: copy the persistent dirty bitmaps of the only image.
    pub bitmaps: bool,
    /// `--skip-broken-bitmaps`: leave out inconsistent ones, with a warning each.
    pub skip_broken_bitmaps: bool,
}

/// What a conversion writes.
#[derive(Clone, Debug)]
pub struct ConvertTarget {
    /// The location of the target.
    pub location: Location,
    /// Write raw bytes to this descriptor, sequentially, instead of to the location.
    pub fd: Option<NamedFd>,
    /// `-O`: the format; None with `exists` probes.
    pub format: Option<String>,
    /// The product that is to use the image, which determines its format, options and size.
    pub profile: Option<&'static Profile>,
    /// `-o`: creation options.
    pub options: Options,
    /// `-t`. The default for convert is [`CacheMode::Unsafe`].
    pub cache: CacheMode,
    /// The location is that of a new directory: every layer of the only source becomes an image in it, on top of the
    /// one below.
    pub whole_chain: bool,
    /// `-n`: write into an existing image.
    pub exists: bool,
    /// Overwrite nothing: an existing file is refused.
    pub exclusive: bool,
    /// `--target-is-zero`: the existing image reads as zeroes.
    pub is_zero: bool,
    /// `-B`: the backing file; source data that it already holds is not copied.
    pub backing_file: Option<BString>,
    /// `-F`.
    pub backing_format: Option<String>,
    /// `-c`.
    pub compress: bool,
    /// The objects that the target's options name by ID.
    pub objects: Objects,
    /// What opening the target and its backing file may do.
    pub policy: OpenPolicy,
    /// Storages under the caller's own names, consulted before the protocols for the target and what it names.
    pub storages: Option<Arc<dyn NamedStorages>>,
}

/// How the work of a conversion is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tuning {
    /// `-S`: runs of zeroes of at least this many bytes stay sparse; 0 allocates everything.
    pub sparse_size: Option<u32>,
    /// `-m`: parallel work; None chooses according to the machine and the storages.
    pub parallel: Option<u32>,
    /// `-W`: the host order of clusters need not follow the guest order.
    pub out_of_order: bool,
    /// `-C`: copy inside the host if possible (attempted anyway; retained for callers that set it).
    pub copy_range: bool,
    /// Compute the SHA-256 digest of the guest's bytes, which is reported.
    pub checksum: bool,
}

impl ConvertRequest {
    /// A conversion from `source` to `target` with all defaults of `qemu-img convert`.
    pub fn new(source: Location, target: Location) -> Self {
        Self {
            source: ConvertSource {
                images: vec![source],
                options: OpenOptions {
                    deny_writers: true,
                    ..OpenOptions::default()
                },
                fd: None,
                devices: false,
                window: Window::default(),
                snapshot: None,
                salvage: false,
                bitmaps: false,
                skip_broken_bitmaps: false,
            },
            target: ConvertTarget {
                location: target,
                fd: None,
                format: None,
                profile: None,
                options: Options::new(),
                cache: CacheMode::Unsafe,
                whole_chain: false,
                exists: false,
                exclusive: false,
                is_zero: false,
                backing_file: None,
                backing_format: None,
                compress: false,
                objects: Objects::default(),
                policy: OpenPolicy::default(),
                storages: None,
            },
            tuning: Tuning::default(),
            wording: &Wording::CONVERT,
        }
    }
}

impl ConvertRequest {
    /// The same with one set of node names for all the images that it opens.
    pub(super) fn naming_nodes_once(&self) -> Cow<'_, Self> {
        let mut request = Cow::Borrowed(self);
        if self.source.options.nodes.is_none() {
            request.to_mut().source.options.nodes = Some(Nodes::default());
        }
        request
    }

    /// The same with compression, if the target `requires` it.
    pub(super) fn compressing(&self, requires: bool) -> Cow<'_, Self> {
        let mut request = Cow::Borrowed(self);
        if requires && !self.target.compress {
            request.to_mut().target.compress = true;
        }
        request
    }
}

impl ConvertTarget {
    /// The package that the product requires around the image.
    pub(super) fn package(&self) -> Option<&'static Package> {
        self.profile.and_then(|profile| profile.package)
    }

    /// The backing file, from the field or from the option.
    pub(super) fn backing_name(&self) -> Option<&BStr> {
        self.backing_file
            .as_ref()
            .map(|name| name.as_bstr())
            .or_else(|| self.options.get("backing_file"))
    }

    /// The format of the backing file, from the field or from the option.
    pub(super) fn backing_format(&self) -> Option<String> {
        let option = || self.options.get("backing_fmt");
        self.backing_format
            .clone()
            .or_else(|| Some(option()?.to_str_lossy().into_owned()))
    }
}

/// The default of [`Tuning::sparse_size`].
const DEFAULT_SPARSE: u32 = 4096;

impl Tuning {
    /// Runs of zeroes of at least this many bytes stay sparse; 0 for none.
    pub(super) fn sparse(&self) -> u64 {
        u64::from(self.sparse_size.unwrap_or(DEFAULT_SPARSE))
    }
}
