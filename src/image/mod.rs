//! An open image: a format over its child nodes over a backing chain.

mod adapter;
mod ahead;
mod align;
mod build;
mod changes;
mod detect_zeroes;
mod directory;
pub mod events;
mod files;
mod host;
mod lock;
mod map;
mod named_files;
mod names;
mod node;
mod node_options;
mod node_plan;
mod nodes;
mod nonblocking;
mod open_file;
mod prefetch;
mod read;
mod reads;
mod resize;
mod ring;
mod status;
mod unit_lock;
mod write;

pub use adapter::ImageStorage;
pub(crate) use build::{Search, unopened_files};
pub(crate) use files::StandingFile;
pub(crate) use named_files::location_files;
pub use names::BackingFile;
pub use node::{Child, Node};
pub use nodes::Nodes;
pub(crate) use nonblocking::{TryPlace, TryRead};
pub(crate) use open_file::{lock_for_creation, lock_for_writing};
pub use open_file::{lock_for_inspection, open_file};
pub(crate) use ring::{HostCall, HostFlush};
pub use status::{ReadsAs, Status, Statuses};
pub use write::WriteFlags;

pub(crate) use host::{exports, location_id};

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bstr::{BStr, BString};

use crate::error::{Error, ErrorKind, Result};
use crate::extent::Extent;
use crate::format::{Bitmaps, Format, FormatDriver, FormatInfo};
use crate::job::{Job, JobControl};
use crate::location::{self, Location};
use crate::newest::Newest;
use crate::object::Objects;
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::storage::{CacheMode, Durability, NamedStorages, Storage};
use crate::value::{Map, Value};

pub use detect_zeroes::DetectZeroes;
pub use node_options::NODE_OPTIONS;

use changes::Changes;
use node_plan::ChildPlan;
use unit_lock::UnitLock;

/// How to open an image.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The format; None to probe it if the policy allows that.
    pub format: Option<String>,
    /// Options of the image and its children in addition to those of the location, with keys as in `driver=…` strings:
    /// `encrypt.key-secret`, `file.locking`, `backing.driver`.
    pub driver_options: Options,
    /// Open for writing.
    pub writable: bool,
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// `-U`: take no exclusive locks.
    pub force_share: bool,
    /// Open the backing chain.
    pub backing: bool,
    /// Only metadata is needed (`info`): the data file and the backing chain stay closed.
    pub metadata_only: bool,
    /// For `check`: if possible, open despite damaged tables.
    pub for_check: bool,
    /// Prevent others from writing in the meantime, even if the format is raw (convert's source).
    pub deny_writers: bool,
    /// Compression level for compressed writes, if the format has levels; None for its default.
    pub compression_level: Option<i64>,
    /// Decompress the image's own file and open the contents. The compression kind, or `auto`, as in the option of the
    /// filter `decompress`.
    pub decompress: Option<String>,
    /// Whether discards reach the host; if None, the location decides, and the default is yes.
    pub discard: Option<bool>,
    /// Whether zeroes are detected in written data; if None, the location decides, and the default is no.
    pub detect_zeroes: Option<DetectZeroes>,
    /// The location may request that detected zeroes be unmapped without mentioning discards, because the image is
    /// opened for a purpose that releases space. Otherwise it must also specify `discard=unmap`, as for QEMU's tools.
    pub may_unmap: bool,
    /// The secrets referred to by ID in options such as `key-secret`.
    pub objects: Objects,
    /// The named nodes of images that were opened before, to which those of this image are added; None if other images
    /// are irrelevant.
    pub nodes: Option<Nodes>,
    /// Storages kept by the caller: a path that is one of their names does not open a file.
    pub storages: Option<Arc<dyn NamedStorages>>,
    /// The policy for opening files.
    pub policy: OpenPolicy,
    /// Stops opening on cancellation or at the deadline.
    pub control: Arc<JobControl>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: None,
            driver_options: Options::new(),
            writable: false,
            cache: CacheMode::Writeback,
            force_share: false,
            backing: true,
            metadata_only: false,
            for_check: false,
            deny_writers: false,
            compression_level: None,
            decompress: None,
            discard: None,
            detect_zeroes: None,
            may_unmap: false,
            objects: Objects::default(),
            nodes: None,
            storages: None,
            policy: OpenPolicy::default(),
            control: Arc::default(),
        }
    }
}

impl OpenOptions {
    /// Sets all of [`OpenOptions::driver_options`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a key has both a value and nested keys.
    pub fn set_driver_options(&mut self, options: Options) -> Result<()> {
        location::tree::of_options(&options)?;
        self.driver_options = options;
        Ok(())
    }

    /// The same options for what a job opens: the job's control can stop it too.
    pub(crate) fn within(&self, job: &Job) -> Self {
        job.control().heed(&self.control);
        Self {
            control: job.control().clone(),
            ..self.clone()
        }
    }
}

/// An open image. Reads, writes, mapping and flushes take `&self` and may run on many threads.
#[derive(Debug)]
pub struct Image {
    location: Location,
    /// The shortest name that opens this layer again.
    filename: BString,
    /// The file name to which names inside the image are relative.
    base: OsString,
    /// The options that open this layer again.
    tree: Map<String, Value>,
    format_name: &'static str,
    driver: &'static FormatDriver,
    format: Box<dyn Format>,
    /// The current contents, if `format` is a snapshot of them.
    current: Option<Box<dyn Format>>,
    storage: Arc<dyn Storage>,
    /// The nodes that it stands on, its own file first, in the order of opening.
    children: Newest<Vec<Child>>,
    /// Creates additional files for it, if its format has them.
    more_files: Option<Box<build::MoreFiles>>,
    /// Additional files of the image that were not opened.
    closed_files: Vec<files::ClosedFile>,
    backing: Backing,
    /// The user's description of the layer below.
    below: Option<ChildPlan>,
    /// It was named by another image, not by the user.
    named_by_image: bool,
    /// The name that the user gave this layer.
    node_name: Option<Arc<node::NodeName>>,
    warnings: Vec<String>,
    writable: bool,
    settings: Settings,
    units: UnitLock,
    changes: Changes,
    sparse: status::Sparse,
    closed: AtomicBool,
}

/// The settings of an open image.
#[derive(Clone, Copy, Debug)]
struct Settings {
    cache: CacheMode,
    ignore_discard: bool,
    detect_zeroes: DetectZeroes,
    /// The maximum virtual size that the policy allows.
    max_len: u64,
    /// Others may write in the meantime, by permission of the caller.
    force_share: bool,
    /// Others must not write in the meantime, even to a plain disk.
    deny_writers: bool,
    /// It may have been opened despite damaged tables.
    for_check: bool,
}

/// What lies below an image.
#[derive(Debug)]
enum Backing {
    /// Nothing: zeroes.
    None,
    /// A backing file that was not opened: its contents are unknown.
    Closed,
    /// The next layer.
    Open(Arc<Image>),
}

/// A run of guest bytes of an image and its chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainExtent<'a> {
    /// The layer that contains the run: 0 is the image itself, 1 its backing file…
    pub depth: u32,
    /// That layer.
    pub layer: &'a Image,
    /// Offset in that layer; the same as the requested offset.
    pub offset: u64,
    /// The run. `Unallocated` means that no layer contains it: the layer is the last one, or the backing file below it
    /// is shorter or not open.
    pub extent: Extent,
}

impl Image {
    /// The virtual size in bytes.
    pub fn len(&self) -> u64 {
        self.format.len()
    }

    /// Whether the virtual size is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The location that it was opened from.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What the metadata of the format says about the image.
    ///
    /// # Errors
    /// `Could not open '…'` if a table is damaged, or if reading fails.
    pub fn info(&self) -> Result<FormatInfo> {
        self.format.info().map_err(|error| match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Limit | ErrorKind::Invalid => {
                error.could_not_open(self.location.display())
            }
            _ => error,
        })
    }

    /// The format's driver.
    pub fn driver(&self) -> &'static FormatDriver {
        self.driver
    }

    /// The format of this layer.
    pub fn format(&self) -> &dyn Format {
        &*self.format
    }

    /// The persistent dirty bitmaps of this layer, even if a snapshot is being shown.
    pub fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        self.current.as_ref().unwrap_or(&self.format).bitmaps()
    }

    /// The file of this layer.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The nodes that this layer stands on, its own file first, in the order of opening.
    pub fn children(&self) -> &[Child] {
        &self.children
    }

    /// The total space allocated on the host for the open files of this layer; None if it is not known for one of them.
    pub fn actual_size(&self) -> Option<u64> {
        let nodes = self.children.iter().map(Child::node);
        let mut sizes = nodes.map(|node| node.storage().allocated_size());
        sizes.try_fold(0u64, |sum, size| Some(sum.saturating_add(size?)))
    }

    /// The image that shows through the file of this layer, if that is not a host file.
    pub fn file_image(&self) -> Option<&Image> {
        let shown = self.children.first()?.node().shown();
        shown.map(|image| image.image())
    }

    /// The image that users see: this one, or if it is a raw disk or a filter over another image, the one that shows
    /// through it.
    pub fn shown(&self) -> &Image {
        let file = self.children.first().map(Child::node);
        let whole = file.is_some_and(Node::is_shown_whole);
        let shown = self.shown_through().filter(|_| whole);
        shown.map_or(self, Image::shown)
    }

    /// Whether offsets in the file of this layer are actual locations of its bytes: not if a filter composes them from
    /// several files.
    pub(crate) fn has_places(&self) -> bool {
        let file = self.children.first().map(Child::node);
        !self.driver.is_transparent || file.is_none_or(Node::has_places)
    }

    /// The image that shows through this layer.
    pub(crate) fn shown_through(&self) -> Option<&Image> {
        self.file_image().filter(|_| self.driver.is_transparent)
    }

    /// The image behind the filter that takes the place of the format of this layer.
    pub(crate) fn behind_filter(&self) -> Option<&Image> {
        let file = self.children.first().filter(|_| self.is_filter())?;
        file.node().filtered_image()
    }

    /// Whether a filter takes the place of the format: then the layer does not count as one.
    pub(crate) fn is_filter(&self) -> bool {
        let file = self
            .children
            .first()
            .and_then(|child| child.node().filter());
        file.is_some_and(|(driver, _)| driver.name == self.format_name)
    }

    /// The next layer of the chain, if open.
    pub fn backing(&self) -> Option<&Arc<Image>> {
        match &self.backing {
            Backing::Open(image) => Some(image),
            Backing::None | Backing::Closed => None,
        }
    }

    /// Whether the image names a backing file that was not opened: then unallocated ranges are unknown, and reading
    /// them fails.
    pub fn backing_missing(&self) -> bool {
        matches!(self.backing, Backing::Closed)
    }

    /// Whether the image was opened for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The page cache mode in force.
    pub fn cache(&self) -> CacheMode {
        self.settings.cache
    }

    /// Warnings of opening, oldest first; each may have several lines.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The preferred number of requests in flight for the files of the image and its chain.
    pub(crate) fn requests_in_flight(&self) -> u32 {
        let layers = std::iter::successors(Some(self), |image| image.backing().map(AsRef::as_ref));
        layers
            .flat_map(Self::slots)
            .map(|(_, storage)| storage.limits().in_flight)
            .max()
            .unwrap_or(1)
    }

    /// Whether a request to the layer's file waits for a device or a server, so that it is better to have several in
    /// flight.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.storage.limits().in_flight > 1
    }

    /// The unit that the file of a disk without tables always writes as a whole; otherwise 1. See
    /// [`Limits::write_unit`].
    ///
    /// [`Limits::write_unit`]: crate::storage::Limits::write_unit
    pub(crate) fn write_unit(&self) -> u64 {
        match self.driver.is_transparent {
            true => self.storage.limits().write_unit,
            false => 1,
        }
    }

    /// Ends the use of the image: flushes, clears the dirty bit, releases locks. Dropping an image does the same but
    /// cannot report a failure.
    ///
    /// # Errors
    /// As [`Image::flush`].
    pub fn close(self) -> Result<()> {
        self.finish(&JobControl::default())
    }

    /// As [`Image::close`]; `control` can cancel what takes long: storing bitmaps, and a sync that has not begun. In
    /// that case all completed writes have been passed to the files, as far as these accept them, and cleaning up is
    /// left to the next opening of the image, as after a crash: recording bitmaps become inconsistent.
    ///
    /// # Errors
    /// As [`Image::flush`], and [`crate::ErrorKind::Cancelled`].
    pub fn close_under(self, control: &JobControl) -> Result<()> {
        self.finish(control)
    }

    /// Notes that the operation that was writing has failed: storages that would propagate writes later do not.
    pub(crate) fn abandon_writes(&self) {
        for child in self.children.iter() {
            child.node().abandon_writes();
        }
    }

    /// Ends the use of the image without writing anything: for an image whose state in memory can no longer be trusted.
    pub fn abandon(self) {
        self.abandon_shared();
    }

    /// As [`Image::abandon`], for an image that others may still stand on.
    pub(crate) fn abandon_shared(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Shows the snapshot with that ID from now on instead of the current contents, read-only.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] if the format does not support snapshots, [`crate::ErrorKind::NotFound`], or
    /// if reading its tables fails.
    pub fn load_snapshot(&mut self, id: impl AsRef<[u8]>) -> Result<()> {
        let view = match self.format.snapshots() {
            Some(snapshots) => snapshots.view(BStr::new(&id))?,
            None => {
                return Err(Error::unsupported(
                    "Block driver does not support snapshots",
                ));
            }
        };
        self.current = Some(std::mem::replace(&mut self.format, view));
        self.writable = false;
        Ok(())
    }

    fn finish(&self, control: &JobControl) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        events::CLOSE.emit(|| format!("file={:?}", self.filename));
        let closed = match self.finish_bitmaps(control) {
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                self.flush_as(Durability::None).and(Err(error))
            }
            stored => {
                let flushed = self.flush_as(self.settings.cache.durability());
                stored.and(flushed).and(self.format.close())
            }
        };
        let ended = self
            .children
            .iter()
            .map(|child| child.node().finish(control));
        let ended = ended.fold(Ok(()), Result::and);
        self.of_its_file(closed.and(ended)).map_err(|error| {
            error.context_if_bare(|| format!("Could not close '{}'", self.filename))
        })
    }

    /// The part of closing that may take long.
    fn finish_bitmaps(&self, control: &JobControl) -> Result<()> {
        control.check()?;
        match self.format.bitmaps() {
            Some(bitmaps) if !control.is_idle() => bitmaps.finish(control),
            _ => Ok(()),
        }?;
        control.check()
    }

    /// The error for an operation that needs bytes that are [`ReadsAs::Unknown`].
    pub fn unknown_contents(&self) -> Error {
        let mut layer = self;
        while let Some(below) = layer.backing() {
            layer = below;
        }
        layer.backing_closed()
    }

    /// Adds the name of the file to an error, if the storage did not and the layer has only one file.
    fn of_its_file<T>(&self, done: Result<T>) -> Result<T> {
        done.map_err(|error| match error.file() {
            None if self.slots().len() == 1 => error.of_file(self.storage.name()),
            _ => error,
        })
    }

    fn backing_closed(&self) -> Error {
        Error::invalid(format!(
            "'{}' was opened without its backing file, which may hold the data",
            self.filename
        ))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Callers that need to know about failures call close.
        let _ = self.finish(&JobControl::default());
        // Iteratively: the length of the chain must not affect the use of stack.
        let mut next = std::mem::replace(&mut self.backing, Backing::Closed);
        while let Backing::Open(shared) = next {
            let Some(mut below) = Arc::into_inner(shared) else {
                break;
            };
            next = std::mem::replace(&mut below.backing, Backing::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
