//! A device that takes everything and keeps nothing, for measurements.

use std::io::{IoSlice, IoSliceMut};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::extent::StorageExtent;
use crate::job::JobControl;
use crate::options::{OptionKind, OptionSpec};
use crate::storage::driver::{
    OpenContext, StorageDriver, StorageFeatures, StorageTarget, none_is_known,
};
use crate::storage::{
    Durability, HostFile, Identity, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};
use crate::value::{Map, Value};

const DEFAULT_SIZE: u64 = 1 << 30;

/// The device, by the one name.
pub static AIO: StorageDriver = StorageDriver {
    name: "null-aio",
    schemes: &["null-aio"],
    file_name: Some(|given| file_name("null-aio", given)),
    open: |context| NullStorage::open("null-aio", context),
    ..DRIVER
};

/// The device, by the other name.
pub static CO: StorageDriver = DRIVER;

const DRIVER: StorageDriver = StorageDriver {
    name: "null-co",
    schemes: &["null-co"],
    features: StorageFeatures::WRITE.union(StorageFeatures::PLACES),
    is_local: false,
    info_type: None,
    open_options: OPEN,
    weak_options: &["latency-ns"],
    create_options: &[],
    parse_file_name: None,
    file_name: Some(|given| file_name("null-co", given)),
    open: |context| NullStorage::open("null-co", context),
    stands_on: none_is_known,
    create: None,
    exports: None,
};

const OPEN: &[OptionSpec] = &[
    OptionSpec {
        name: "latency-ns",
        kind: OptionKind::Num,
        help: "Nanoseconds that each request takes",
        default: Some("0"),
        allowed: &[],
    },
    OptionSpec {
        name: "read-zeroes",
        kind: OptionKind::Bool,
        help: "Reads give zeroes",
        default: Some("off"),
        allowed: &[],
    },
    OptionSpec {
        name: "size",
        kind: OptionKind::Size,
        help: "Size of the device",
        default: Some("1G"),
        allowed: &[],
    },
];

/// The name of the device where no option says how large it is or what it reads as.
fn file_name(driver: &str, given: &Map<String, Value>) -> Option<BString> {
    let is_weak = |key: &String| DRIVER.weak_options.contains(&key.as_str());
    let named = given.keys().all(is_weak);
    named.then(|| format!("{driver}://").into())
}

/// Reads give zeroes, which are promised only with `read-zeroes`; writes are dropped.
#[derive(Debug)]
pub struct NullStorage {
    name: BString,
    driver: &'static str,
    read_only: bool,
    len: u64,
    read_zeroes: bool,
    latency: Duration,
}

impl NullStorage {
    /// One of `len` bytes. With `read_zeroes`, its extents say that reads give zeroes.
    pub fn new(driver: &'static str, len: u64, read_zeroes: bool, writable: bool) -> Self {
        Self {
            name: format!("{driver}://").into(),
            driver,
            read_only: !writable,
            len,
            read_zeroes,
            latency: Duration::ZERO,
        }
    }

    /// Waits as long as a request takes, unless the work that asks for it ends before.
    fn work(&self) -> Result<()> {
        match JobControl::of_this_thread() {
            _ if self.latency.is_zero() => Ok(()),
            Some(working) => working.sleep(self.latency),
            None => {
                std::thread::sleep(self.latency);
                Ok(())
            }
        }
    }

    fn open(driver: &'static str, context: &OpenContext<'_>) -> Result<Arc<dyn Storage>> {
        let named = match &context.target {
            StorageTarget::Path(path) => path.as_os_str().as_bytes(),
            StorageTarget::Uri(uri) => uri.as_bytes(),
            StorageTarget::Unnamed => b"",
        };
        let name = format!("{driver}://");
        if !named.is_empty() && named != name.as_bytes() {
            return Err(Error::invalid(format!(
                "The only allowed filename for this driver is '{name}'"
            )));
        }
        let options = context.options;
        let size = options.num("size").unwrap_or(DEFAULT_SIZE);
        if i64::try_from(size).is_err() {
            return Err(Error::invalid(format!(
                "The size of '{driver}' passes 2^63"
            )));
        }
        let read_zeroes = options.bool("read-zeroes").unwrap_or(false);
        let writable = context.how.writable;
        let latency = options.num("latency-ns").unwrap_or(0);
        if i64::try_from(latency).is_err() {
            return Err(Error::invalid("latency-ns is invalid"));
        }
        Ok(Arc::new(Self {
            latency: Duration::from_nanos(latency),
            ..Self::new(driver, size, read_zeroes, writable)
        }))
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.read_only {
            return Err(Error::open_read_only(&self.name));
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::os(libc::ENOSPC)),
        }
    }
}

impl Storage for NullStorage {
    fn name(&self) -> &BStr {
        self.name.as_bstr()
    }

    fn driver(&self) -> &'static str {
        self.driver
    }

    fn identity(&self) -> Option<Identity> {
        // Nothing is kept.
        None
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        self.work()?;
        // Always: the buffer may be a reused one that holds another image's bytes.
        buf.fill(0);
        Ok(())
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<bool> {
        // It blocks where a request takes time.
        match self.latency.is_zero() {
            true => self.read_vectored_at(bufs, offset).map(|()| true),
            false => Ok(false),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        self.work()
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.check_write(offset, bufs.iter().map(|buf| buf.len() as u64).sum())?;
        self.work()
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        self.check_write(0, 0)?;
        if len == self.len && preallocation == Preallocation::Off {
            return Ok(());
        }
        Err(Error::unsupported(
            "Image format driver does not support resize",
        ))
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: ZeroFlags) -> Result<()> {
        self.check_write(offset, len)?;
        self.work()
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        self.check_write(0, 0)?;
        Err(Error::no_discard())
    }

    fn sync(&self, _durability: Durability) -> Result<()> {
        // Nothing is kept, so there is nothing to make durable.
        self.work()
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let inside = offset < self.len;
        Ok(StorageExtent {
            len: if inside {
                len.min(self.len - offset)
            } else {
                len
            },
            zero: !inside || self.read_zeroes,
            // What it reads as is not promised, and no place holds it.
            allocated: false,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            fixed_len: true,
            ..Limits::default()
        }
    }

    fn allocated_size(&self) -> Option<u64> {
        Some(0)
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // Nothing is stored that others could disturb.
        Ok(())
    }

    fn host(&self) -> Option<&dyn HostFile> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_request_ends_with_the_work_that_asks_for_it() {
        let slow = NullStorage {
            latency: Duration::from_secs(3600),
            ..NullStorage::new("null-co", 1 << 20, false, true)
        };
        let control = Arc::new(JobControl::default());
        let _working = control.work_here();
        let begin = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                control.cancel();
            });
            let error = slow.read_at(&mut [0; 512], 0).expect_err("an hour");
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        });
        for error in [
            slow.write_at(&[0; 512], 0),
            slow.write_zeroes(0, 512, ZeroFlags::empty()),
            slow.sync(Durability::Synced),
        ] {
            let error = error.expect_err("it has ended");
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        }
        assert!(begin.elapsed() < Duration::from_secs(600));
    }
}
