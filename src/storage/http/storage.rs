//! An image on a server as a storage.

use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::printable::without_passwords;
use crate::storage::driver::{OpenContext, StorageTarget};
use crate::storage::file::FileStorage;
use crate::storage::forward::read_only;
use crate::storage::modes::LockRequest;
use crate::storage::{Identity, Limits, Storage};

use super::cache::Cache;
use super::client::{Client, origin};
use super::options::{OPTIONS, Settings, parse_file_name};
use super::source::{Buffer, Opened, Source};
use super::whole;
use crate::location::tree::flatten;
use crate::options::Values;

/// Reads of as many bytes have a request of their own.
const LONG: usize = 1 << 20;

/// An image.
#[derive(Debug)]
pub(super) struct HttpStorage {
    driver: &'static str,
    name: BString,
    identity: Identity,
    len: u64,
    in_flight: u32,
    bytes: Bytes,
    control: Arc<JobControl>,
}

/// Where its bytes come from.
#[derive(Debug)]
enum Bytes {
    Server(Box<(Source, Cache)>),
    /// All of them are here.
    File(Box<FileStorage>),
}

/// Opens an image.
pub(super) fn open(driver: &'static str, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
    let named = match &context.target {
        StorageTarget::Uri(uri) => Some(uri.as_bytes()),
        StorageTarget::Path(path) => Some(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())),
        StorageTarget::Unnamed => None,
    };
    let mut values = context.options.clone();
    if let Some(named) = named {
        let parsed = flatten(&parse_file_name(driver, named.as_bstr())?);
        values = Values::check(&parsed, OPTIONS)?;
    }
    let settings = Settings::of(driver, &values, context.objects)?;
    if context.how.writable {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            "curl driver does not support writes",
        ));
    }
    let text = values.name("url").unwrap_or_default();
    let name = BString::from(without_passwords(text).into_owned());
    // Whatever way an answer takes, what was asked for is the image.
    let place = format!("{}{}", origin(&settings.url), settings.url.target);
    let in_flight = u32::try_from(settings.connections).unwrap_or(u32::MAX);
    let read_ahead = settings.read_ahead;
    let source = Source::new(
        Client::new(settings),
        name.clone(),
        context.policy.clone(),
        context.how.named_by_image,
    );
    let control = context.control.clone();
    let (len, bytes) = match source.open(&control)? {
        Opened::Ranges(len, first) => {
            let cache = Cache::new(len, read_ahead, first);
            (len, Bytes::Server(Box::new((source, cache))))
        }
        Opened::Whole => {
            let file = whole::keep(&source, &control)?;
            (file.len()?, Bytes::File(Box::new(file)))
        }
    };
    Ok(Arc::new(HttpStorage {
        driver,
        name,
        identity: Identity::Remote(place.into()),
        len,
        in_flight,
        bytes,
        control,
    }))
}

impl HttpStorage {
    fn refused(&self) -> Error {
        Error::new(
            ErrorKind::ReadOnly,
            format!("'{}' is open read-only", self.name),
        )
    }
}

impl Storage for HttpStorage {
    read_only!(refused, made, solid);

    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        self.driver
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.len.saturating_sub(offset);
        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(buf.len());
        let (buf, past) = buf.split_at_mut(inside);
        past.fill(0);
        if buf.is_empty() {
            return Ok(());
        }
        match &self.bytes {
            Bytes::File(file) => file.read_at(buf, offset),
            Bytes::Server(server) => {
                let (source, cache) = &**server;
                if buf.len() < LONG {
                    return cache.read(source, buf, offset, &self.control);
                }
                let _lane = source.client().lane(&self.control)?;
                let end = offset + buf.len() as u64;
                source.read((offset, end), &mut Buffer::new(buf), &self.control)
            }
        }
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            fixed_kind: "images on HTTP servers",
            in_flight: self.in_flight,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn specific_info(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // The protocol has none.
        Ok(())
    }
}
