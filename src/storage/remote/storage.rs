//! An image on a server as a storage.

use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::job::JobControl;
use crate::location::tree::flatten;
use crate::memory::IoBuf;
use crate::options::{OptionSpec, Values};
use crate::printable::without_passwords;
use crate::storage::driver::{OpenContext, StorageTarget};
use crate::storage::file::FileStorage;
use crate::storage::forward::read_only;
use crate::storage::modes::LockRequest;
use crate::storage::{Identity, Limits, ReadRange, Storage};

use super::cache::Cache;
use super::options::parse_file_name;
use super::{Buffer, Source, together};

/// Identifies the image.
#[derive(Debug)]
pub(in crate::storage) struct Place {
    pub(in crate::storage) driver: &'static str,
    pub(in crate::storage) name: BString,
    pub(in crate::storage) identity: Identity,
    /// What to call such images in messages.
    pub(in crate::storage) kind: &'static str,
    /// Preferred number of requests in flight.
    pub(in crate::storage) in_flight: usize,
}

/// An image.
#[derive(Debug)]
pub(in crate::storage) struct RemoteStorage {
    place: Place,
    len: u64,
    bytes: Bytes,
    control: Arc<JobControl>,
}

/// Where the data comes from.
#[derive(Debug)]
pub(in crate::storage) enum Bytes {
    Server {
        source: Box<dyn Source>,
        cache: Box<Cache>,
        /// Reads of at least this many bytes bypass the cache.
        long: usize,
    },
    /// A local copy of the whole image.
    File(Box<FileStorage>),
}

impl Bytes {
    /// The bytes of an image of `len` bytes that starts with `first`.
    pub(in crate::storage) fn server(
        source: Box<dyn Source>,
        (len, first): (u64, IoBuf),
        read_ahead: u64,
        long: usize,
    ) -> Self {
        Self::Server {
            source,
            cache: Box::new(Cache::new(len, read_ahead, first)),
            long,
        }
    }
}

/// The options of an open, or those that its file name stands for, and the name to show.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub(in crate::storage) fn given_options(
    driver: &str,
    table: &'static [OptionSpec],
    context: &OpenContext<'_>,
) -> Result<(Values, BString)> {
    let named = match &context.target {
        StorageTarget::Uri(uri) => Some(uri.as_bytes()),
        StorageTarget::Path(path) => Some(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())),
        StorageTarget::Unnamed => None,
    };
    let mut values = context.options.clone();
    if let Some(named) = named {
        let parsed = flatten(&parse_file_name(driver, named.as_bstr())?);
        values = Values::check(&parsed, table)?;
    }
    let text = values.name("url").unwrap_or_default();
    let name = BString::from(without_passwords(text).into_owned());
    Ok((values, name))
}

/// Refuses to open for writing: these drivers only read.
///
/// # Errors
/// [`ErrorKind::ReadOnly`].
pub(in crate::storage) fn refuse_writes(context: &OpenContext<'_>) -> Result<()> {
    match context.how.writable {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::ReadOnly,
            "curl driver does not support writes",
        )),
    }
}

impl RemoteStorage {
    pub(in crate::storage) fn new(
        place: Place,
        len: u64,
        bytes: Bytes,
        control: Arc<JobControl>,
    ) -> Self {
        Self {
            place,
            len,
            bytes,
            control,
        }
    }

    fn read_inside(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.bytes {
            Bytes::File(file) => file.read_at(buf, offset),
            Bytes::Server {
                source,
                cache,
                long,
            } => {
                if buf.len() < *long {
                    return cache.read(&**source, buf, offset, &self.control);
                }
                let _lane = source.lanes().take(&self.control)?;
                let end = offset + buf.len() as u64;
                source.read((offset, end), &mut Buffer::new(buf), &self.control)
            }
        }
    }

    fn refused(&self) -> Error {
        Error::open_read_only(&self.place.name)
    }
}

impl Storage for RemoteStorage {
    read_only!(refused, made, solid);

    fn name(&self) -> &BStr {
        self.place.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        self.place.driver
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.place.identity.clone())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.len.saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (buf, past) = buf.split_at_mut(inside);
        past.fill(0);
        if buf.is_empty() {
            return Ok(());
        }
        self.read_inside(buf, offset).of_file(self.name())
    }

    fn read_many_at(&self, ranges: &mut [ReadRange<'_>]) -> Result<()> {
        // Each range that has to be requested gets a thread that waits for it.
        let asked = match &self.bytes {
            Bytes::File(_) => 0,
            Bytes::Server { cache, .. } => {
                let is_asked = |(offset, buf): &&ReadRange<'_>| !cache.has(*offset, buf.len());
                ranges.iter().filter(is_asked).count()
            }
        };
        together::each(ranges, asked.min(self.place.in_flight), |buf, offset| {
            self.read_at(buf, offset)
        })
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            fixed_kind: self.place.kind,
            in_flight: u32::try_from(self.place.in_flight).unwrap_or(u32::MAX),
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // Such protocols have no locks.
        Ok(())
    }
}
