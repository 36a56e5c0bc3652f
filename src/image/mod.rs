//! An open image: a format over storage over a backing chain.

use std::sync::Arc;

use crate::error::Result;
use crate::extent::Extent;
use crate::format::{Format, FormatDriver};
use crate::location::Location;
use crate::policy::OpenPolicy;
use crate::secret::Secrets;
use crate::storage::{CacheMode, Storage, ZeroFlags};

/// How to open an image.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The format, or None to probe where the policy allows it.
    pub format: Option<String>,
    /// Open for writing.
    pub writable: bool,
    /// Page cache use and flush guarantees.
    pub cache: CacheMode,
    /// `-U`: take no locks that exclude others.
    pub force_share: bool,
    /// Open the backing chain.
    pub backing: bool,
    /// Only metadata is wanted (`info`): data file and backing chain stay closed.
    pub metadata_only: bool,
    /// For `check`: open although tables are damaged where that is possible.
    pub for_check: bool,
    /// Let no other process write meanwhile, also where the format is raw (convert's source).
    pub deny_writers: bool,
    /// The secrets that options such as `key-secret` name by ID.
    pub secrets: Secrets,
    /// What opening may do.
    pub policy: OpenPolicy,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: None,
            writable: false,
            cache: CacheMode::Writeback,
            force_share: false,
            backing: true,
            metadata_only: false,
            for_check: false,
            deny_writers: false,
            secrets: Secrets::default(),
            policy: OpenPolicy::default(),
        }
    }
}

/// An open image. Reads, writes, mapping and flushes take `&self` and may run on many threads.
#[derive(Debug)]
pub struct Image {
    location: Location,
    driver: &'static FormatDriver,
    format: Box<dyn Format>,
    storage: Arc<dyn Storage>,
    backing: Option<Arc<Image>>,
    warnings: Vec<String>,
}

/// A run of guest bytes of an image and its chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainExtent<'a> {
    /// The layer that decides: 0 is the image itself, 1 its backing file…
    pub depth: u32,
    /// That layer.
    pub layer: &'a Image,
    /// Offset in that layer; the same as asked for.
    pub offset: u64,
    /// The run. `Unallocated` only at the last layer: nothing holds the run.
    pub extent: Extent,
}

impl Image {
    /// Opens the image at `location`.
    ///
    /// # Errors
    /// One line that begins with `Could not open '…'`.
    pub fn open(location: &Location, options: &OpenOptions) -> Result<Self> {
        let _ = (location, options);
        todo!()
    }

    /// Opens an image over a storage that the caller made: a descriptor, memory, callbacks.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_storage(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        let _ = (storage, options);
        todo!()
    }

    /// The virtual size in bytes.
    pub fn len(&self) -> u64 {
        self.format.len()
    }

    /// Whether the virtual size is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it was opened from.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The format's driver.
    pub fn driver(&self) -> &'static FormatDriver {
        self.driver
    }

    /// The format of this layer.
    pub fn format(&self) -> &dyn Format {
        &*self.format
    }

    /// The file of this layer.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The next layer of the chain, if open.
    pub fn backing(&self) -> Option<&Arc<Image>> {
        self.backing.as_ref()
    }

    /// Warnings of opening, oldest first.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The longest run that starts at `offset`, at most `len` bytes, looked up through the chain.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] outside the image, else of the formats.
    pub fn map(&self, offset: u64, len: u64) -> Result<ChainExtent<'_>> {
        let _ = (offset, len);
        todo!()
    }

    /// Fills `buf` with the guest bytes at `offset`. Never short: the range must lie in the image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] outside the image, else of the formats and I/O.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _ = (buf, offset);
        todo!()
    }

    /// Writes the guest bytes at `offset`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ReadOnly`], [`crate::ErrorKind::Invalid`] outside the image, or of I/O.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let _ = (buf, offset);
        todo!()
    }

    /// Makes the guest range read as zeroes.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn write_zeroes(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        let _ = (offset, len, flags);
        todo!()
    }

    /// Gives the guest range back; what whole clusters read as is defined by the format.
    ///
    /// # Errors
    /// As [`Image::write_at`].
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        todo!()
    }

    /// Makes all completed writes durable as the cache mode says.
    ///
    /// # Errors
    /// Of I/O; data may be lost then.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }

    /// Ends use of the image: flushes, clears the dirty bit, releases locks. Dropping an image
    /// does the same but cannot report a failure.
    ///
    /// # Errors
    /// As [`Image::flush`].
    pub fn close(self) -> Result<()> {
        todo!()
    }
}
